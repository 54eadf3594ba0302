"""A proxy that asks for credentials, for HTTP and, by CONNECT, for what goes through it encrypted."""

from __future__ import annotations

import base64
import socket
import threading
from typing import TYPE_CHECKING, Self
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from types import TracebackType

USER, PASSWORD_IN_URL = "proxy", "canary%2Fproxy"
_PAIR = base64.b64encode(f"{USER}:canary/proxy".encode()).decode()


class ForwardProxy:
    """It keeps the first line of each request."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self.url = f"http://{USER}:{PASSWORD_IN_URL}@{self.address}"
        self.asked: list[str] = []

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, _: type[BaseException] | None, __: BaseException | None, ___: TracebackType | None) -> None:
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        head = b""
        while b"\r\n\r\n" not in head and (data := client.recv(65536)):
            head += data
        first, _, rest = head.partition(b"\r\n")
        method, target, version = first.decode().split()
        self.asked.append(first.decode())
        lines = rest.partition(b"\r\n\r\n")[0].decode().split("\r\n")
        if not any(line.lower() == f"proxy-authorization: basic {_PAIR}".lower() and _PAIR in line for line in lines):
            client.sendall(b"HTTP/1.1 407 No\r\nContent-Length: 0\r\n\r\n")
            client.close()
            return
        parts = urlsplit(f"//{target}" if method == "CONNECT" else target)
        server = socket.create_connection((parts.hostname or "", parts.port or 80))
        if method == "CONNECT":
            client.sendall(b"HTTP/1.1 200 Yes\r\n\r\n")
        else:
            path = target.partition("://")[2].partition("/")[2]
            server.sendall(f"{method} /{path} {version}\r\n".encode() + rest)
        threading.Thread(target=self._pass, args=(server, client), daemon=True).start()
        self._pass(client, server)

    def _pass(self, source: socket.socket, target: socket.socket) -> None:
        try:
            while data := source.recv(65536):
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)
        except OSError:
            return
