"""How many deliveries a second are on disk and acknowledged, over 64 connections, against a peer that commits each.

Run it as ``python tests/bench/bench_webhook.py``. Exporter, peer and load are processes of their own on loopback, both
servers write SQLite in WAL mode with synchronous=FULL on the same disk, and they take turns. The peer is what a
straightforward service would be: Starlette on uvicorn, one SQLite connection, one commit for each delivery. A second
one, where Debian's packages can be had, is a Pushgateway, which keeps what it gets in memory: another group each time.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import re
import shutil
import socket
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
_PUSHED = b"scan_finished %d\n"
_GROUPS = 1000
"""Groups of the Pushgateway, so that it does not grow with what it is sent."""
_TAKEN = (b"HTTP/1.1 200", b"HTTP/1.1 202")
_LENGTH = re.compile(rb"(?i)content-length: *(\d+)")


class Result(NamedTuple):
    """Of one run."""

    rate: float
    """Acknowledged deliveries a second."""
    p50: float
    p99: float
    """Milliseconds."""


class Target(NamedTuple):
    """Where deliveries go, and what they look like there."""

    port: int
    path: str
    """``{group}`` is another one each time."""
    body: bytes = _BODY
    content_type: bytes = b"application/json"


class _Sender(asyncio.Protocol):
    """One connection that posts a delivery, waits for the whole answer, and posts the next.

    It is cheap, so that it is not the load that is measured.
    """

    def __init__(self, target: Target, until: float, latencies: list[float]) -> None:
        self._target = target
        self._until = until
        self._latencies = latencies
        self._answer = b""
        self._began = 0.0
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's does not inherit from it.
        self._post()

    def _post(self) -> None:
        number = next(_ids)
        body = self._target.body % number
        head = self._target.path.replace("{group}", str(number % _GROUPS)).encode()
        self._began = time.perf_counter()
        self._transport.write(
            b"POST %s HTTP/1.1\r\nHost: x\r\nContent-Type: %s\r\nContent-Length: %d\r\n\r\n%s"
            % (head, self._target.content_type, len(body), body)
        )

    def data_received(self, data: bytes) -> None:
        self._answer += data
        head, blank, body = self._answer.partition(b"\r\n\r\n")
        if not blank or len(body) < int(_LENGTH.search(head)[1]):  # type: ignore[index]  # Both servers send it.
            return
        now = time.perf_counter()
        self._latencies.append(now - self._began)
        if not head.startswith(_TAKEN):
            self.ended.set_exception(RuntimeError(head.decode()))
        elif now >= self._until:
            self._transport.close()
            self.ended.set_result(None)
        else:
            self._answer = b""
            self._post()


async def _connection(target: Target, until: float, latencies: list[float]) -> None:
    loop = asyncio.get_running_loop()
    _, sender = await loop.create_connection(lambda: _Sender(target, until, latencies), "127.0.0.1", target.port)
    await sender.ended


async def _load(target: Target, connections: int, seconds: float) -> Result:
    latencies: list[float] = []
    began = time.perf_counter()
    await asyncio.gather(*(_connection(target, began + seconds, latencies) for _ in range(connections)))
    took = time.perf_counter() - began
    cuts = quantiles(latencies, n=100)
    return Result(len(latencies) / took, cuts[49] * 1e3, cuts[98] * 1e3)


def _listens(port: int) -> bool:
    with socket.create_connection(("127.0.0.1", port), timeout=5):
        return True


def _peer(folder: Path) -> tuple[subprocess.Popen[bytes], Target]:
    port = free_port()
    command = [sys.executable, str(Path(__file__).with_name("webhook_peer.py")), str(folder / "peer.db"), str(port)]
    process = subprocess.Popen(command)
    eventually(lambda: _listens(port), what="the peer")
    return process, Target(port, "/webhook/x")


def _pushgateway(folder: Path) -> tuple[subprocess.Popen[bytes], Target] | None:
    """One that runs; ``None`` where there is none to be had."""
    program = shutil.which("prometheus-pushgateway") or shutil.which("pushgateway")
    if program is None:
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        with contextlib.suppress(OSError, subprocess.CalledProcessError):
            subprocess.run(["apt-get", "download", "prometheus-pushgateway"], cwd=folder, check=True, **quiet)  # type: ignore[call-overload]
            (package,) = folder.glob("prometheus-pushgateway*.deb")
            # Unpacked and not installed: nothing of it stays.
            subprocess.run(["dpkg", "-x", str(package), str(folder / "unpacked")], check=True)
            program = str(folder / "unpacked" / "usr" / "bin" / "prometheus-pushgateway")
    if program is None:
        return None
    port = free_port()
    command = [program, f"--web.listen-address=127.0.0.1:{port}", "--log.level=error"]
    process = subprocess.Popen(command, cwd=folder)
    eventually(lambda: _listens(port), what="the Pushgateway")
    return process, Target(port, "/metrics/job/bench/instance/{group}", _PUSHED, b"text/plain")


def _stopped(processes: list[subprocess.Popen[bytes]]) -> None:
    for process in processes:
        process.terminate()
        process.wait(10)


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--connections", type=int, default=64)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=scratch()) as name, contextlib.ExitStack() as undo:
        folder = Path(name)
        process, peer = _peer(folder)
        processes = [process]
        undo.callback(_stopped, processes)
        pushgateway = _pushgateway(folder)
        exporter = undo.enter_context(Exporter(folder, CONFIG, "--web.listen-address=127.0.0.1:0"))
        port = int(exporter.url.rpartition(":")[2])
        targets = {"exporter": Target(port, f"/webhook/{TOKEN}"), "peer, a commit each": peer}
        if pushgateway is not None:
            processes.append(pushgateway[0])
            targets["Pushgateway, in memory"] = pushgateway[1]
        results: dict[str, list[Result]] = {title: [] for title in targets}
        for _ in range(options.runs):
            for title, target in targets.items():
                results[title].append(uvloop.run(_load(target, options.connections, options.seconds)))
    print(f"durable webhook acceptances, {options.connections} connections, medians of {options.runs} runs")
    ours = median(result.rate for result in results["exporter"])
    for title, found in results.items():
        rate, p50, p99 = (median(column) for column in zip(*found, strict=True))
        print(f"{title:22} {rate:9,.0f}/s   p50 {p50:6.1f} ms   p99 {p99:6.1f} ms   ratio {ours / rate:5.1f}x")


if __name__ == "__main__":
    main()
