"""A web server of ours in a thread, for tests that talk to it over real sockets."""

from __future__ import annotations

import asyncio
import re
import socket
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import uvloop

from patrolserver_exporter.web.http.protocol import ConnectionLimits, Timeouts
from patrolserver_exporter.web.http.server import Listener, WebServer

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Coroutine, Iterator

    from starlette.types import ASGIApp

    from patrolserver_exporter.web.http.protocol import WebEvent
    from patrolserver_exporter.web.http.web_config import WebConfigFile

_TLS = b"\x16"
QUICK = Timeouts(idle=0.4, header=0.4, body=0.4, write=0.4, handshake=0.4, half_closed=0.2, sweep=0.05)


@dataclass
class Served:
    """A running server."""

    server: WebServer
    loop: asyncio.AbstractEventLoop
    events: list[WebEvent] = field(default_factory=list)

    @property
    def port(self) -> int:
        """Of the first application."""
        return self.server.addresses[0].port

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        """Run something in the server's loop."""
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(30)

    def connect(self, context: ssl.SSLContext | None = None, name: str = "localhost") -> socket.socket:
        """Connect to the first application."""
        sock = socket.create_connection(("127.0.0.1", self.port), timeout=10)
        return sock if context is None else context.wrap_socket(sock, server_hostname=name)

    def exchange(self, request: bytes) -> bytes:
        """Send, and return all that comes back until the server closes."""
        with self.connect() as sock:
            sock.sendall(request)
            return read_to_end(sock)


@contextmanager
def serving(
    *apps: ASGIApp,
    web_config: WebConfigFile | None = None,
    limits: ConnectionLimits | None = None,
    address: str = "127.0.0.1:0",
) -> Iterator[Served]:
    """Serve each of the applications on a port of its own; stops at once at the end."""
    events: list[WebEvent] = []
    limits = replace(limits or ConnectionLimits(timeouts=QUICK), observe=events.append)
    server = WebServer([Listener(address, app) for app in apps], web_config, limits=limits)
    loop = uvloop.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    served = Served(server, loop, events)
    try:
        served.run(server.start())
        yield served
    finally:
        served.run(server.stop(0))
        served.run(loop.shutdown_default_executor())
        loop.call_soon_threadsafe(loop.stop)
        thread.join(30)
        loop.close()


def read_request(sock: socket.socket) -> bytes:
    """Return a request with its body, which comes apart from the head; of one that begins with TLS, what came first.

    A connection that is closed with bytes unread is reset, and what was answered on it may be lost.
    """
    received = sock.recv(65536)
    while b"\r\n\r\n" not in received and not received.startswith(_TLS) and (data := sock.recv(65536)):
        received += data
    head, _, body = received.partition(b"\r\n\r\n")
    length = re.search(rb"(?i)^content-length: *(\d+)", head, re.MULTILINE)
    left = (int(length[1]) if length else 0) - len(body)
    while left > 0 and (data := sock.recv(left)):
        received += data
        left -= len(data)
    return received


def read_to_end(sock: socket.socket) -> bytes:
    """Return all that comes until the other side closes, in whatever way."""
    received = b""
    try:
        while data := sock.recv(65536):
            received += data
    except ConnectionResetError:
        pass
    return received


def eventually(holds: Callable[[], bool], within: float = 10.0) -> None:
    """Wait until it holds."""
    end = time.monotonic() + within
    while not holds():
        assert time.monotonic() < end, "it did not come about in time"
        time.sleep(0.01)
