"""A scrape's body as clients read it that are not ours."""

from __future__ import annotations

import gzip
import subprocess
import zlib
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, urlsplit
from urllib.request import Request, urlopen

import pytest
from tests.harness.daemons import ServerThread
from tests.unit.live import fleets
from tests.unit.live.test_scrape import OPENMETRICS, scrape_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence


@pytest.fixture
def address() -> Iterator[str]:
    """A real server around a scrape of 1,200 servers, whose body is many times a socket's buffer."""
    scrape = scrape_of([fleets.server(number, issues=number % 5, software=3) for number in range(1_200)])

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            names = parse_qs(urlsplit(self.path).query).get("name[]", [])
            response = scrape.render(self.headers["Accept"], self.headers["Accept-Encoding"], names)
            self.send_response(200)
            self.send_header("Content-Type", response.content_type)
            self.send_header("Content-Length", str(response.content_length))
            if response.content_encoding:
                self.send_header("Content-Encoding", response.content_encoding)
            self.end_headers()
            for part in response.body:
                self.wfile.write(part)

        def log_message(self, *arguments: object) -> None:
            pass

    with ServerThread(ThreadingHTTPServer(("127.0.0.1", 0), Handler)) as server:
        yield f"http://127.0.0.1:{server.port}/metrics"


def polled(text: bytes) -> int:
    return text.count(b"\npatrolserver_server_poll_success{")


@pytest.mark.parametrize("arguments", [[], ["--compressed"], ["--compressed", "--header", f"Accept: {OPENMETRICS}"]])
def test_curl_reads_everything(address: str, arguments: Sequence[str], require_program: Callable[[str], str]) -> None:
    """Curl gets the whole fleet and the own metrics behind it, compressed or not."""
    command = [require_program("curl"), "--silent", "--fail", "--max-time", "30", *arguments, address]
    text = subprocess.run(command, capture_output=True, check=True).stdout
    assert polled(text) == 1_200
    assert b"\npatrolserver_exporter_build_info{" in text


def test_python_clients_read_everything(address: str) -> None:
    """Clients that read one member only, and such that read all, get the same whole body."""
    with urlopen(Request(address, headers={"Accept-Encoding": "gzip"}), timeout=30) as response:
        assert response.headers["Content-Encoding"] == "gzip"
        sent = response.read()
    text = zlib.decompressobj(16 + zlib.MAX_WBITS).decompress(sent)
    assert polled(text) == 1_200
    assert text == gzip.decompress(sent)
    with urlopen(address, timeout=30) as response:
        assert response.headers["Content-Encoding"] is None
        assert polled(response.read()) == 1_200
