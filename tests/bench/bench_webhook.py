"""How many deliveries a second are on disk and acknowledged, over 64 connections, against a peer that commits each.

Run it as ``python tests/bench/bench_webhook.py``. Exporter, peer and load are processes of their own on loopback, both
servers write SQLite in WAL mode with synchronous=FULL on the same disk, and they take turns. The peer is what a
straightforward service would be: Starlette on uvicorn, one SQLite connection, one commit for each delivery.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median, quantiles
from typing import NamedTuple, cast

import uvloop

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.bench.simulated import scratch  # The path comes first.
from tests.harness.process import TOKEN, Exporter  # The path comes first.
from tests.harness.prometheus import free_port
from tests.harness.waiting import eventually

CONFIG = f"""\
accounts: [{{api_url: "http://127.0.0.1:9", key: demo, secret: demo, webhook_tokens: [{TOKEN}]}}]
webhook: {{inbox_limit: 10000000}}
"""
_ids = itertools.count(1)
_BODY = b'{"webhook_patrolserver":1,"identifier":"webhook.scan_finished","event_id":%d,"webhook_id":7}'
_LENGTH = re.compile(rb"(?i)content-length: *(\d+)")


class Result(NamedTuple):
    """Of one run."""

    rate: float
    """Acknowledged deliveries a second."""
    p50: float
    p99: float
    """Milliseconds."""


class _Sender(asyncio.Protocol):
    """One connection that posts a delivery, waits for the whole answer, and posts the next.

    It is cheap, so that it is not the load that is measured.
    """

    def __init__(self, path: str, until: float, latencies: list[float]) -> None:
        self._head = (f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: ").encode()
        self._until = until
        self._latencies = latencies
        self._answer = b""
        self._began = 0.0
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's does not inherit from it.
        self._post()

    def _post(self) -> None:
        body = _BODY % next(_ids)
        self._began = time.perf_counter()
        self._transport.write(b"%s%d\r\n\r\n%s" % (self._head, len(body), body))

    def data_received(self, data: bytes) -> None:
        self._answer += data
        head, blank, body = self._answer.partition(b"\r\n\r\n")
        if not blank or len(body) < int(_LENGTH.search(head)[1]):  # type: ignore[index]  # Both servers send it.
            return
        now = time.perf_counter()
        self._latencies.append(now - self._began)
        if not head.startswith(b"HTTP/1.1 202"):
            self.ended.set_exception(RuntimeError(head.decode()))
        elif now >= self._until:
            self._transport.close()
            self.ended.set_result(None)
        else:
            self._answer = b""
            self._post()


async def _connection(port: int, path: str, until: float, latencies: list[float]) -> None:
    loop = asyncio.get_running_loop()
    _, sender = await loop.create_connection(lambda: _Sender(path, until, latencies), "127.0.0.1", port)
    await sender.ended


async def _load(port: int, path: str, connections: int, seconds: float) -> Result:
    latencies: list[float] = []
    began = time.perf_counter()
    await asyncio.gather(*(_connection(port, path, began + seconds, latencies) for _ in range(connections)))
    took = time.perf_counter() - began
    cuts = quantiles(latencies, n=100)
    return Result(len(latencies) / took, cuts[49] * 1e3, cuts[98] * 1e3)


def _peer(folder: Path) -> tuple[subprocess.Popen[bytes], int]:
    port = free_port()
    command = [sys.executable, str(Path(__file__).with_name("webhook_peer.py")), str(folder / "peer.db"), str(port)]
    process = subprocess.Popen(command)

    async def ask() -> bool:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.close()
        return True

    eventually(lambda: asyncio.run(ask()), what="the peer")
    return process, port


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--connections", type=int, default=64)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=scratch()) as name:
        folder = Path(name)
        ours, theirs = [], []
        peer, peer_port = _peer(folder)
        try:
            with Exporter(folder, CONFIG, "--web.listen-address=127.0.0.1:0") as exporter:
                port = int(exporter.url.rpartition(":")[2])
                for _ in range(options.runs):
                    ours.append(uvloop.run(_load(port, f"/webhook/{TOKEN}", options.connections, options.seconds)))
                    theirs.append(uvloop.run(_load(peer_port, "/webhook/x", options.connections, options.seconds)))
        finally:
            peer.terminate()
            peer.wait(10)
    print(f"durable webhook acceptances, {options.connections} connections, medians of {options.runs} runs")
    for title, results in (("exporter", ours), ("peer, a commit each", theirs)):
        rate, p50, p99 = (median(column) for column in zip(*results, strict=True))
        print(f"{title:22} {rate:9,.0f}/s   p50 {p50:6.1f} ms   p99 {p99:6.1f} ms")
    print(f"{'ratio':22} {median(r.rate for r in ours) / median(r.rate for r in theirs):9.1f}x")


if __name__ == "__main__":
    main()
