"""An API that answers with bytes as they are given: what the simulator, which writes sound JSON, cannot say."""

from __future__ import annotations

from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

from tests.harness.daemons import ServerThread

if TYPE_CHECKING:
    from collections.abc import Mapping


GZIP = b"\x1f\x8b"


class RawApi(ServerThread):
    """Answers GETs by path, without the query; 404 for others. Those that begin as gzip does are sent as such."""

    def __init__(self, answers: Mapping[str, bytes]) -> None:
        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                body = answers.get(self.path.partition("?")[0])
                self.send_response(404 if body is None else 200)
                self.send_header("Content-Type", "application/json")
                if (body or b"").startswith(GZIP):
                    self.send_header("Content-Encoding", "gzip")
                self.send_header("Content-Length", str(len(body or b"")))
                self.end_headers()
                self.wfile.write(body or b"")

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        server.daemon_threads = True
        server.block_on_close = False
        super().__init__(server)
        self.base_url = f"http://127.0.0.1:{self.port}"
