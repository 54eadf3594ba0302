"""What listens: sockets of our own, and uvicorn's protocol on them, in the caller's event loop."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import resource
import socket
import time
from dataclasses import dataclass, replace
from email.utils import formatdate
from typing import TYPE_CHECKING, Any

from uvicorn.config import Config
from uvicorn.server import ServerState

from patrolserver_exporter.web.http.addresses import Address, is_loopback
from patrolserver_exporter.web.http.protocol import ConnectionLimits, GuardedProtocol, WebEvent
from patrolserver_exporter.web.http.requests import Problem
from patrolserver_exporter.web.http.tls import ServerTls, TlsServer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from patrolserver_exporter.web.http.web_config import WebConfigFile


_NO_IPV6 = {errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL, errno.EPROTONOSUPPORT}
_WHAT_TO_DO = {
    errno.EADDRINUSE: "another process listens there; stop it or choose another address",
    errno.EACCES: "ports below 1024 need the right to bind them (CAP_NET_BIND_SERVICE); choose a higher port",
    errno.EADDRNOTAVAIL: "this machine has no such address; choose one of its own, or leave the host out for all",
}


class ListenError(Exception):
    """An address cannot be listened on."""


def parse_address(text: str) -> Address:
    """Read ``:10058``, ``127.0.0.1:10058``, ``[::1]:10058`` or ``host:10058``; raises `ListenError`."""
    host, colon, port = text.strip().rpartition(":")
    if not colon:
        raise ListenError(f"cannot listen on {text!r}: write it as host:port or :port, such as :10058")
    if not (port.isascii() and port.isdigit() and int(port) <= 65_535):
        raise ListenError(f"cannot listen on {text!r}: the port is a number from 0 to 65535")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        raise ListenError(f"cannot listen on {text!r}: put an IPv6 address in brackets, such as [::1]:10058")
    if not host.isprintable() or " " in host:
        raise ListenError(f"cannot listen on {text!r}: the host is no name and no address")
    return Address(host, int(port))


async def open_socket(address: Address) -> socket.socket:
    """Return a bound socket; without a host it takes IPv6 and IPv4, or IPv4 alone where there is no IPv6.

    A host name is looked up, and its first address, IPv4 before IPv6, is taken. Raises `ListenError`.
    """
    try:
        if address.host in {"", "::"}:
            return _open_everywhere(address)
        family, where = await _look_up(address)
        return _open(family, where)
    except (socket.gaierror, UnicodeError):
        what = "choose another address, or leave the host out for all of this machine's"
        raise ListenError(f"cannot listen on {address}: the host {address.host} cannot be resolved: {what}") from None
    except OSError as error:
        what = _WHAT_TO_DO.get(error.errno or 0, "choose another address")
        reason = error.strerror or str(error)
        raise ListenError(f"cannot listen on {address}: {reason}: {what}") from None


def _open_everywhere(address: Address) -> socket.socket:
    try:
        return _open(socket.AF_INET6, ("::", address.port))
    except OSError as error:
        if address.host or error.errno not in _NO_IPV6:
            raise
        return _open(socket.AF_INET, ("0.0.0.0", address.port))  # noqa: S104 - no host means everywhere


async def _look_up(address: Address) -> tuple[socket.AddressFamily, Any]:
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    family, *_, where = min(found, key=lambda info: info[0] != socket.AF_INET)
    return family, where


def _open(family: socket.AddressFamily, where: Any) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, int(where[0] != "::"))
        sock.bind(where)
        sock.listen(1024)
        sock.setblocking(False)  # noqa: FBT003 - positional only
    except OSError:
        sock.close()
        raise
    return sock


def _not_blocking(sock: socket.socket) -> socket.socket:
    sock.setblocking(False)  # noqa: FBT003 - positional only
    return sock


def bound_address(sock: socket.socket) -> Address:
    """Return where a socket really listens."""
    host, port, *_ = sock.getsockname()
    return Address(str(host), int(port))


logger = logging.getLogger(__name__)

LOOPBACK_STATE = "loopback_listener"
"""In a request's state: whether the listener is only reached from the machine itself."""
STOPPING_STATE = "stopping"
"""In a request's state: the event that is set when the server begins to stop, for answers that wait for something."""
_OTHER_FILES = 256
"""File descriptors left to the store, the API's pool and the logs."""


@dataclass(frozen=True, slots=True)
class Listener:
    """An address, as ``--web.listen-address`` takes it, and what answers there."""

    address: str
    app: ASGIApp
    sock: socket.socket | None = None
    """A socket that listens there already."""


class WebServer:
    """HTTP/1.1 on some addresses; plain, or with TLS when the web configuration file has ``tls_server_config``.

    Build it, perhaps `bind` it, `start` it, `stop` it, all in one event loop. The applications get no lifespan events.
    Their requests have ``scope["state"]["loopback_listener"]``: whether the listener is only reached from the machine
    itself, and ``scope["state"]["stopping"]``: an event that is set when the server begins to stop.
    """

    def __init__(
        self,
        listeners: Sequence[Listener],
        web_config: WebConfigFile | None = None,
        *,
        limits: ConnectionLimits | None = None,
    ) -> None:
        self._listeners = [(parse_address(one.address), one.app, one.sock) for one in listeners]
        self._tls = ServerTls.of(web_config)
        limits = limits or ConnectionLimits()
        limit = min(limits.max_connections, _connections_that_fit())
        admit = self._tls.admits if self._tls is not None else limits.admit
        self._limits = replace(limits, max_connections=limit, admit=admit)
        self._state = ServerState()
        self._bound: list[socket.socket] = []
        """Sockets that are not served yet."""
        self._servers: list[asyncio.Server | TlsServer] = []
        self._addresses: list[Address] = []
        self._sweeper: asyncio.TimerHandle | None = None
        self._dated = 0
        """The second of the header ``Date``."""
        self._is_stopping = False
        self._begins_to_stop = asyncio.Event()

    @property
    def addresses(self) -> tuple[Address, ...]:
        """Where it really listens, in the order of the listeners; empty until they are bound."""
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
            for address, _, sock in self._listeners:
                self._bound.append(_not_blocking(sock) if sock is not None else await open_socket(address))
                self._addresses.append(bound_address(self._bound[-1]))
        except BaseException:
            self._unbind()
            raise

    async def start(self) -> None:
        """Serve, and `bind` first where that was not done."""
        if not self._bound:
            await self.bind()
        self._sweep()
        for _, app, _ in self._listeners:
            await self._serve(self._bound.pop(0), app)

    def _unbind(self) -> None:
        while self._bound:
            self._bound.pop().close()
            self._addresses.pop()

    async def _serve(self, sock: socket.socket, app: ASGIApp) -> None:
        address = bound_address(sock)
        config = _uvicorn_config(self._answer_errors(app), self._limits)
        app_state: dict[str, Any] = {
            LOOPBACK_STATE: is_loopback(address.host),
            STOPPING_STATE: self._begins_to_stop,
        }
        loop = asyncio.get_running_loop()

        def connect() -> asyncio.Protocol:
            return GuardedProtocol(config, self._state, app_state, self._limits, loop)

        if self._tls is None:
            self._servers.append(await loop.create_server(connect, sock=sock, backlog=1024))
        else:
            self._servers.append(TlsServer(sock, self._tls, connect, self._limits.timeouts))
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
                self._limits.observe(WebEvent.INTERNAL_ERROR)
                logger.exception("a %s request failed; this is a bug, please report it", scope["method"])
                if not started:
                    problem = Problem(500, detail="The request failed. The log of the exporter has the reason.")
                    await problem(scope, receive, send)

        return answer

    def _sweep(self) -> None:
        loop = asyncio.get_running_loop()
        self._sweeper = loop.call_later(self._limits.timeouts.sweep, self._sweep)
        second = int(time.time())
        if second != self._dated:
            self._dated = second
            self._state.default_headers = [(b"date", formatdate(second, usegmt=True).encode("ascii"))]
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


def _uvicorn_config(app: ASGIApp, limits: ConnectionLimits) -> Config:
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
        timeout_keep_alive=max(1, round(limits.timeouts.idle)),
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
