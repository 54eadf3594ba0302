"""What stands in front of an API in tests: a TLS terminator whose certificate can go bad, and a canary."""

from __future__ import annotations

import contextlib
import socket
import socketserver
import ssl
import threading
from typing import TYPE_CHECKING, Any

from tests.harness.daemons import ServerThread

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


class _Server(socketserver.ThreadingTCPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 64

    def __init__(self, serve: Callable[[socket.socket], None]) -> None:
        super().__init__(("127.0.0.1", 0), socketserver.BaseRequestHandler)
        self._serve = serve

    def finish_request(self, request: Any, _client_address: object) -> None:
        self._serve(request)


class Canary(ServerThread):
    """A server to which nobody shall come; it counts who does."""

    def __init__(self) -> None:
        self.visits = 0
        super().__init__(_Server(self._visited))
        self.url = f"http://127.0.0.1:{self.port}/"

    def _visited(self, _request: socket.socket) -> None:
        self.visits += 1


class TlsFront(ServerThread):
    """Ends TLS in front of a server on loopback, with a certificate of one of two authorities.

    ``ca_file`` trusts the first one; ``go_bad`` goes over to the second and drops every connection.
    """

    def __init__(self, folder: Path, port: int) -> None:
        import trustme  # noqa: PLC0415  # It takes a while to import, and few tests need it.

        good, bad = trustme.CA(), trustme.CA()
        self.ca_file = folder / "ca.pem"
        good.cert_pem.write_to_path(str(self.ca_file))
        self._contexts = []
        for authority in (good, bad):
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            authority.issue_cert("127.0.0.1").configure_cert(context)
            self._contexts.append(context)
        self._context = self._contexts[0]
        self._behind = port
        self._open: set[socket.socket] = set()
        super().__init__(_Server(self._serve))
        self.url = f"https://127.0.0.1:{self.port}"

    def go_bad(self) -> None:
        """Show a certificate that nobody trusts."""
        self._context = self._contexts[1]
        for sock in list(self._open):
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)

    def go_good(self) -> None:
        """Show the first certificate again."""
        self._context = self._contexts[0]

    def _serve(self, request: socket.socket) -> None:
        with contextlib.suppress(OSError), request:
            request.settimeout(30)
            with (
                self._context.wrap_socket(request, server_side=True) as inside,
                socket.create_connection(("127.0.0.1", self._behind)) as outside,
            ):
                self._open.add(outside)
                back = threading.Thread(target=_pump, args=(outside, inside), daemon=True)
                back.start()
                _pump(inside, outside)
                back.join()
                self._open.discard(outside)

    def __exit__(self, *_: object) -> None:
        super().__exit__()
        self.go_bad()


def _pump(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while chunk := source.recv(65536):
            target.sendall(chunk)
        target.shutdown(socket.SHUT_RDWR)
