"""A server on loopback that answers with the bytes it is told, however wrong they are."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import ssl

KEY = "kanari&key/+ü%41"
SECRET = "kanari secret=?#"
"""Canaries: they must show up nowhere, raw or encoded."""

Answer = Callable[[socket.socket, bytes], None]


def reply(body: bytes = b"", status: str = "200 OK", headers: str = "") -> bytes:
    """A whole reply as raw bytes."""
    head = f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n{headers}\r\n"
    return head.encode("latin-1") + body


@dataclass
class RawServer:
    """A server on loopback that answers requests with bytes, or as a function says, and keeps what it was asked."""

    answer: bytes | Answer
    tls: ssl.SSLContext | None = None
    end_of_head: bytes = b"\r\n\r\n"
    """What ends a request; empty: whatever arrives first is one."""
    requests: list[bytes] = field(default_factory=list, repr=False)
    connections: int = 0

    def __post_init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._open: set[socket.socket] = set()
        self.port: int = self._listener.getsockname()[1]
        self.url = f"{'https' if self.tls else 'http'}://127.0.0.1:{self.port}"
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                self.connections += 1
                self._open.add(connection)
                thread = threading.Thread(target=self._serve, args=(connection,), daemon=True)
                self._threads.append(thread)
                thread.start()

    def _serve(self, connection: socket.socket) -> None:
        plain = connection
        with contextlib.suppress(OSError), connection:
            if self.tls:
                connection = self.tls.wrap_socket(connection, server_side=True)
                self._open.add(connection)
            with connection:
                while request := self._read_head(connection):
                    self.requests.append(request)
                    if callable(self.answer):
                        self.answer(connection, request)
                    else:
                        connection.sendall(self.answer)
        self._open.difference_update({plain, connection})

    def _read_head(self, connection: socket.socket) -> bytes:
        head = b""
        while not head or self.end_of_head not in head:
            more = connection.recv(65_536)
            if not more:
                return b""
            head += more
        return head

    def stop(self) -> None:
        """Close everything and wait for the threads."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for connection in list(self._open):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(5)
            assert not thread.is_alive()
