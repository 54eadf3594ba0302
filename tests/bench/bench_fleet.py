"""Polling, memory and start with a large fleet.

Run it as ``python tests/bench/bench_fleet.py``. The exporter polls a simulator, both processes of their own, as fast as
it can: servers a second and CPU a server with 12 software each, at API latencies of 0 and 50 ms, against a peer that
does what a simple exporter does: one ``requests`` session, ``json``, and gauges of the client library. Then: memory a
server, and the time from start to ready with the whole fleet in the store.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import requests
from prometheus_client import CollectorRegistry, Gauge

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.bench.simulated import Simulated, scratch  # The path comes first.
from tests.harness.process import Exporter
from tests.harness.waiting import eventually

CONFIG = """\
accounts: [{{name: main, api_url: "{api_url}", key: demo, secret: demo}}]
poll: {{interval: 10s, concurrency: 32, max_requests_per_minute: 1000000}}
store: {{url: "sqlite:///{state}"}}
"""
TICKS = os.sysconf("SC_CLK_TCK")


class Pace(NamedTuple):
    """Of polling."""

    rate: float
    """Servers a second."""
    cpu: float
    """CPU milliseconds a server."""


def _cpu(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def _rss(pid: int) -> float:
    """MiB."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def _pid(exporter: Exporter) -> int:
    assert exporter.process is not None
    return exporter.process.pid


def _pace(exporter: Exporter, simulated: Simulated, seconds: float) -> Pace:
    time.sleep(1.0)
    polls, cpu, began = simulated.polls(), _cpu(_pid(exporter)), time.perf_counter()
    time.sleep(seconds)
    polled, took = simulated.polls() - polls, time.perf_counter() - began
    return Pace(polled / took, (_cpu(_pid(exporter)) - cpu) / polled * 1e3)


def _peer_pace(simulated: Simulated, servers: int, seconds: float) -> Pace:
    gauge = Gauge("software", "Software.", ["server", "software", "version"], registry=CollectorRegistry())
    session = requests.Session()
    polled, began, cpu = 0, time.perf_counter(), time.process_time()
    while time.perf_counter() - began < seconds:
        server = 1 + polled % servers
        url = f"{simulated.url}/servers/{server}/software"
        reply = session.get(url, params={"key": "demo", "secret": "demo", "scope": "exploits"}, timeout=10).json()
        for software in reply["data"]:
            gauge.labels(server, software["canonical_name"], str(software.get("version"))).set(1)
        polled += 1
    return Pace(polled / (time.perf_counter() - began), (time.process_time() - cpu) / polled * 1e3)


def _tell(title: str, ours: Pace, peer: Pace) -> None:
    print(
        f"{title:24} exporter {ours.rate:6,.0f}/s {ours.cpu:5.2f} ms CPU"
        f"   peer {peer.rate:6,.0f}/s {peer.cpu:5.2f} ms CPU   ratio {ours.rate / peer.rate:5.1f}x"
    )


def main() -> None:
    """Print a line for each number."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--servers", type=int, default=10_000)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--starts", type=int, default=5)
    options = parser.parse_args()
    servers = options.servers
    with tempfile.TemporaryDirectory(dir=scratch()) as name, Simulated(servers=servers, software=12) as simulated:
        folder = Path(name)
        config = CONFIG.format(api_url=simulated.url, state=folder / "state.db")
        with Exporter(folder, config) as exporter:
            empty = _rss(_pid(exporter))
            _tell(
                "polling, latency 0", _pace(exporter, simulated, options.seconds), _peer_pace(simulated, servers, 3.0)
            )
            simulated.order("/faults", kind="latency", seconds=0.05)
            _tell(
                "polling, latency 50 ms",
                _pace(exporter, simulated, options.seconds),
                _peer_pace(simulated, servers, 3.0),
            )
            requests.delete(f"{simulated.url}/-/simulator/faults", timeout=10).raise_for_status()
            polled = "patrolserver_server_last_poll_timestamp_seconds"
            eventually(lambda: _count(exporter, polled) == servers, within=300, what="the whole fleet")
            exporter.metrics()
            full = _rss(_pid(exporter))
            print(
                f"memory                   {full:.0f} MiB with {servers:,} servers, {empty:.0f} MiB at the start: "
                f"{(full - empty) * 1024 / servers:.1f} KiB a server"
            )
            exporter.terminate()
            starts = sorted(_start(exporter, servers, polled) for _ in range(options.starts))
            middle = starts[len(starts) // 2]
            print(f"start to ready           {middle:.2f} s, worst {starts[-1]:.2f} s, {servers:,} servers")


def _count(exporter: Exporter, name: str) -> int:
    return exporter.get("/metrics", params={"name[]": name}).text.count(f"\n{name}{{")


def _start(exporter: Exporter, servers: int, name: str) -> float:
    began = time.perf_counter()
    exporter.start()
    eventually(lambda: exporter.get("/-/ready").status_code == 200 and _count(exporter, name) == servers, within=60)
    took = time.perf_counter() - began
    exporter.terminate()
    return took


if __name__ == "__main__":
    main()
