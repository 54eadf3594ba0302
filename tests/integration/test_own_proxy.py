"""An exporter that reaches PatrolServer through a proxy of its own network."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from tests.harness.process import Exporter
from tests.harness.waiting import eventually
from tests.integration.patrolserver.raw_server import RawServer, reply

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PASSWORD = "canary-of-the-proxy"
SERVERS = b'{"error": false, "data": [{"id": 1, "name": "web-01.example.org"}]}'


@pytest.fixture
def proxy() -> Iterator[RawServer]:
    """It answers every call with a list of servers."""
    server = RawServer(reply(SERVERS, headers="Content-Type: application/json\r\n"))
    yield server
    server.stop()


@pytest.mark.parametrize("variable", ["HTTP_PROXY", "http_proxy", "PATROLSERVER_PROXY_URL"])
def test_the_proxy_of_the_environment_is_used_and_told(tmp_path: Path, proxy: RawServer, variable: str) -> None:
    """In the log, on the page and in the status, and its password nowhere."""
    environ = {variable: f"http://user:{PASSWORD}@127.0.0.1:{proxy.port}"}
    with Exporter.watching(tmp_path, "http://api.invalid", "--log.level=debug", environ=environ) as running:
        eventually(lambda: running.value("patrolserver_up", account="main") == 1.0)
        assert proxy.requests[0].startswith(b"GET http://api.invalid/servers?")
        assert b"Proxy-Authorization: Basic " in proxy.requests[0]
        told = f"http://***@127.0.0.1:{proxy.port} ({variable})"
        assert f'msg="The calls to PatrolServer go through a proxy" account=main proxy="{told}"' in running.log()
        page, status = running.get("/"), running.get("/api/v1/status")
        assert told in page.text
        assert status.json()["accounts"][0]["proxy"] == told
        assert PASSWORD not in running.log() + page.text + status.text


def test_no_proxy_leaves_the_api_out(tmp_path: Path, proxy: RawServer) -> None:
    """Its calls go straight to it."""
    api = RawServer(reply(SERVERS, headers="Content-Type: application/json\r\n"))
    environ = {"HTTP_PROXY": proxy.url, "NO_PROXY": "127.0.0.0/8"}
    with Exporter.watching(tmp_path, api.url, environ=environ) as running:
        eventually(lambda: running.value("patrolserver_up", account="main") == 1.0)
        assert running.get("/api/v1/status").json()["accounts"][0]["proxy"] is None
        assert "go through a proxy" not in running.log()
    assert not proxy.requests
    api.stop()
