"""Runs a simulator: in a thread for tests and the demo, or in front for the command line."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import sys
import threading
import time
from typing import TYPE_CHECKING, Self

import uvicorn
import uvloop

from .api import Api
from .control import Control
from .exchange import ClosableProtocol
from .faults import Faults
from .replies import Replies
from .story import StoryTeller
from .webhooks import Postman, Webhook, payload_of
from .world import World

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from .options import SimulatorOptions
    from .webhooks import Event

_START_SECONDS = 30.0


class Simulator:
    """One simulated PatrolServer on a socket of its own.

    ``on_line`` gets each line of the story; ``clock`` tells seconds since the epoch.
    """

    def __init__(
        self,
        options: SimulatorOptions,
        *,
        on_line: Callable[[str], None] | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.options = options
        self.postman = Postman()
        self.world = World(options, clock=clock, deliver=self._post)
        self.faults = Faults(options.seed)
        self.replies = Replies()
        self.story = StoryTeller(self.world, on_line=on_line)
        self.control = Control(self)
        self.api = Api(
            self.world,
            style=options.style,
            faults=self.faults,
            replies=self.replies,
            control=self.control.application(),
        )
        self.requests = self.api.requests
        self._server: uvicorn.Server | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._threads: list[threading.Thread] = []
        self._stopping = threading.Event()
        self._base_url = ""

    @property
    def base_url(self) -> str:
        """Where the API is, without a slash at its end."""
        return self._base_url

    def start(self) -> str:
        """Listen, serve and let time pass; the base URL.

        Raises:
            OSError: the address is taken or is not ours.
        """
        listener = _listener(*self.options.address())
        host, port = listener.getsockname()[:2]
        shown = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)  # noqa: S104  names it
        self._base_url = f"http://{shown}:{port}"
        config = uvicorn.Config(
            self.api,
            http=ClosableProtocol,
            access_log=False,
            log_config=None,
            lifespan="off",
            ws="none",
            server_header=False,
            timeout_graceful_shutdown=2,
        )
        self._server = uvicorn.Server(config)
        self._run(self._serve, listener)
        self._run(self._pulse)
        self._await_started()
        if self.options.story:
            self.story.start(self.options.story_speed)
        return self._base_url

    def stop(self) -> None:
        """End the story, what is being answered and what is being delivered; without effect the second time."""
        self._stopping.set()
        self.world.woken.set()
        self.story.stop()
        if self._server is not None:
            self._server.should_exit = True
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self.api.closing.set)
        for thread in self._threads:
            thread.join(10)
        self.postman.close()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    def _post(self, webhook: Webhook, event: Event) -> None:
        self.postman.post(webhook, payload_of(event))

    def _run(self, target: Callable[..., None], *arguments: object) -> None:
        thread = threading.Thread(target=target, args=arguments, name="simulator", daemon=True)
        thread.start()
        self._threads.append(thread)

    def _serve(self, listener: socket.socket) -> None:
        with listener, asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(self._served(listener))

    async def _served(self, listener: socket.socket) -> None:
        self._loop = asyncio.get_running_loop()
        if self._server is not None:
            await self._server.serve(sockets=[listener])

    def _pulse(self) -> None:
        """Let scans end in time; idle while none is running."""
        while not self._stopping.is_set():
            self.world.woken.clear()
            if self.world.tick():
                self._stopping.wait(0.05)
            else:
                self.world.woken.wait()

    def _await_started(self) -> None:
        deadline = time.monotonic() + _START_SECONDS
        while self._server is None or not self._server.started:
            if time.monotonic() > deadline or not self._threads[0].is_alive():
                self.stop()
                raise OSError("the simulator did not start")
            time.sleep(0.005)


def _listener(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(2048)
    except OSError:
        listener.close()
        raise
    return listener


def serve(options: SimulatorOptions) -> int:
    """Run until SIGTERM or SIGINT, telling the story's lines on standard output; the exit code."""
    ended = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ended.set())
    simulator = Simulator(options, on_line=_say)
    try:
        base_url = simulator.start()
    except OSError as error:
        why = "the host cannot be resolved" if isinstance(error, socket.gaierror) else error.strerror or error
        sys.stderr.write(
            f"simulator: cannot listen on {options.listen_address}: {why}: choose another --web.listen-address\n"
        )
        simulator.stop()
        return 1
    _say(f"PatrolServer simulator on {base_url}, control at {base_url}/-/simulator/state")
    ended.wait()
    simulator.stop()
    return 0


def _say(line: str) -> None:
    """Tell people, as far as somebody reads it: ``| head`` must not end the simulator."""
    try:
        sys.stdout.write(f"{line}\n")
        sys.stdout.flush()
    except (OSError, ValueError):
        with contextlib.suppress(OSError, ValueError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, sys.stdout.fileno())
            os.close(nowhere)
