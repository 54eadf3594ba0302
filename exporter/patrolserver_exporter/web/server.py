"""What listens: uvicorn's protocol on sockets of our own, in the caller's event loop, without signal handlers."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import resource
import time
from dataclasses import dataclass, replace
from email.utils import formatdate
from typing import TYPE_CHECKING, Any

from uvicorn.config import Config
from uvicorn.server import ServerState

from patrolserver_exporter.web.access import LOOPBACK_STATE
from patrolserver_exporter.web.listen import Address, bound_address, is_loopback, open_socket, parse_address
from patrolserver_exporter.web.problems import Problem
from patrolserver_exporter.web.protocol import GuardedProtocol, Rules, WebEvent
from patrolserver_exporter.web.tls import ServerTls

if TYPE_CHECKING:
    import socket
    from collections.abc import Sequence

    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from patrolserver_exporter.web.webconfig import WebConfigFile

logger = logging.getLogger(__name__)

STOPPING_STATE = "stopping"
"""In a request's state: the event that is set when the server begins to stop, for answers that wait for something."""
_OTHER_FILES = 256
"""File descriptors left to the store, the API's pool and the logs."""


@dataclass(frozen=True, slots=True)
class Listener:
    """An address, as ``--web.listen-address`` takes it, and what answers there."""

    address: str
    app: ASGIApp


class WebServer:
    """HTTP/1.1 on some addresses; plain, or with TLS when the web configuration file has ``tls_server_config``.

    Build it, perhaps `bind` it, `start` it, `stop` it, all in one event loop. The applications get no lifespan events.
    Their requests have ``scope["state"]["loopback_listener"]``: whether the listener is only reached from the machine
    itself, and ``scope["state"]["stopping"]``: an event that is set when the server begins to stop.
    """

    def __init__(
        self, listeners: Sequence[Listener], web_config: WebConfigFile | None = None, *, rules: Rules | None = None
    ) -> None:
        self._listeners = [(parse_address(listener.address), listener.app) for listener in listeners]
        self._tls = ServerTls.of(web_config)
        rules = rules or Rules()
        limit = min(rules.max_connections, _connections_that_fit())
        admit = self._tls.admits if self._tls is not None else rules.admit
        self._rules = replace(rules, max_connections=limit, admit=admit)
        self._state = ServerState()
        self._bound: list[socket.socket] = []
        """Sockets that are not served yet."""
        self._servers: list[asyncio.Server] = []
        self._addresses: list[Address] = []
        self._sweeper: asyncio.TimerHandle | None = None
        self._is_stopping = False
        self._begins_to_stop = asyncio.Event()

    @property
    def addresses(self) -> tuple[Address, ...]:
        """Where it really listens, in the order of the listeners; empty until it is started."""
        return tuple(self._addresses)

    @property
    def scheme(self) -> str:
        """``http`` or ``https``."""
        return "http" if self._tls is None else "https"

    @property
    def connections(self) -> int:
        """How many clients are connected."""
        return len(self._state.connections)

    @property
    def requests(self) -> int:
        """How many requests are in flight."""
        return len(self._state.tasks)

    async def bind(self) -> None:
        """Take every address, or none: raises `ListenError` for the first that cannot be had.

        Clients that come before `start` wait for it.
        """
        try:
            for address, _ in self._listeners:
                self._bound.append(await open_socket(address))
        except BaseException:
            self._unbind()
            raise

    async def start(self) -> None:
        """Serve, and `bind` first where that was not done."""
        if not self._bound:
            await self.bind()
        self._sweep()
        for _, app in self._listeners:
            await self._serve(self._bound.pop(0), app)

    def _unbind(self) -> None:
        while self._bound:
            self._bound.pop().close()

    async def _serve(self, sock: socket.socket, app: ASGIApp) -> None:
        address = bound_address(sock)
        self._addresses.append(address)
        config = _uvicorn_config(self._answer_errors(app), self._rules)
        app_state: dict[str, Any] = {
            LOOPBACK_STATE: is_loopback(address.host),
            STOPPING_STATE: self._begins_to_stop,
        }
        loop = asyncio.get_running_loop()
        timeouts = self._rules.timeouts

        def connect() -> asyncio.Protocol:
            return GuardedProtocol(config, self._state, app_state, self._rules, loop)

        secure = self._tls is not None
        server = await loop.create_server(
            connect,
            sock=sock,
            backlog=1024,
            ssl=self._tls.context if self._tls is not None else None,
            ssl_handshake_timeout=timeouts.handshake if secure else None,
            ssl_shutdown_timeout=timeouts.write if secure else None,
        )
        self._servers.append(server)
        logger.info("listening on %s://%s", self.scheme, address)

    def _answer_errors(self, app: ASGIApp) -> ASGIApp:
        """Log what an application lets escape, without the path, which may hold a token, and answer with a problem."""

        async def answer(scope: Scope, receive: Receive, send: Send) -> None:
            started = False

            async def note_start(message: Message) -> None:
                nonlocal started
                started = True
                await send(message)

            try:
                await app(scope, receive, note_start)
            except asyncio.CancelledError:
                if not self._is_stopping:
                    raise
            except Exception:
                self._rules.observe(WebEvent.INTERNAL_ERROR)
                logger.exception("a %s request failed; this is a bug, please report it", scope["method"])
                if not started:
                    problem = Problem(500, detail="The request failed. The log of the exporter has the reason.")
                    await problem(scope, receive, send)

        return answer

    def _sweep(self) -> None:
        loop = asyncio.get_running_loop()
        self._sweeper = loop.call_later(self._rules.timeouts.sweep, self._sweep)
        self._state.default_headers = [(b"date", formatdate(time.time(), usegmt=True).encode("ascii"))]
        now = loop.time()
        for connection in tuple(self._state.connections):
            if isinstance(connection, GuardedProtocol):
                connection.check(now)

    async def stop(self, grace: float = 10.0) -> None:
        """Stop listening, let the requests in flight finish within ``grace`` seconds, then cut the rest off."""
        self._begins_to_stop.set()
        self._unbind()
        for server in self._servers:
            server.close()
        for connection in tuple(self._state.connections):
            connection.shutdown()
        await self._drained(grace)
        self._is_stopping = True
        for connection in tuple(self._state.connections):
            connection.transport.abort()
        for task in tuple(self._state.tasks):
            task.cancel()
        await self._drained(1.0)
        if self._sweeper is not None:
            self._sweeper.cancel()
        for server in self._servers:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(server.wait_closed(), 1.0)

    async def _drained(self, patience: float) -> None:
        loop = asyncio.get_running_loop()
        end = loop.time() + patience
        # uvicorn's sets of connections and tasks tell nobody when they become empty.
        while (self._state.connections or self._state.tasks) and loop.time() < end:  # noqa: ASYNC110 - as said
            await asyncio.sleep(0.02)


def _uvicorn_config(app: ASGIApp, rules: Rules) -> Config:
    config = Config(
        app,
        http=GuardedProtocol,
        ws="none",
        lifespan="off",
        interface="asgi3",
        log_config=None,
        # Below it, uvicorn would wrap the application in a logger of every path.
        log_level="warning",
        access_log=False,
        proxy_headers=False,
        server_header=False,
        date_header=False,
        timeout_keep_alive=max(1, round(rules.timeouts.idle)),
    )
    config.load()
    return config


def _connections_that_fit() -> int:
    """Raise the limit of open files to what the system allows, as Go's runtime does, and leave some for the rest."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < hard:
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
            soft = hard
    return max(64, soft - _OTHER_FILES) if soft != resource.RLIM_INFINITY else 1_000_000
