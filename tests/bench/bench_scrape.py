"""How long a scrape takes over loopback, against a plain collector of the client library on the same data.

Run it as ``python tests/bench/bench_scrape.py``. Each line is the median of several runs, in which both take turns;
both serve the same 26 series a server and the exporter's own metrics, as OpenMetrics with gzip, from the same process.
Since the scrape before, a hundredth of the servers changed: ``spread`` over the whole fleet and in nearly every family,
``in-order`` as the poller goes about it but with as much news, ``no-news`` spread polls that found nothing new.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

SERVED_BY = Path(__file__).with_name("scraped.py")
ACCEPT = "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5,*/*;q=0.1"
CHANGES = ("spread", "in-order", "no-news")


@dataclass(frozen=True)
class Cost:
    """Of one scrape."""

    seconds: float
    cpu: float
    """CPU seconds of the serving process."""
    size: int
    """Bytes of the body."""


class Served:
    """A fleet in a process of its own, over one kept connection."""

    def __init__(self, port: int) -> None:
        self._connection = HTTPConnection("127.0.0.1", port, timeout=300)

    def ask(self, path: str, method: str = "GET") -> float:
        """Ask the process for a number."""
        return float(self._request(method, path))

    def scrape(self, path: str) -> Cost:
        """Scrape as Prometheus does, up to the last byte."""
        cpu = self.ask("/cpu")
        begin = time.perf_counter()
        body = self._request("GET", path)
        seconds = time.perf_counter() - begin
        return Cost(seconds, self.ask("/cpu") - cpu, len(body))

    def _request(self, method: str, path: str) -> bytes:
        self._connection.request(method, path, headers={"Accept": ACCEPT, "Accept-Encoding": "gzip"})
        return self._connection.getresponse().read()


@contextmanager
def served(size: int) -> Iterator[Served]:
    """Start the process, and end it."""
    process = subprocess.Popen([sys.executable, str(SERVED_BY), str(size)], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        yield Served(int(process.stdout.readline()))
    finally:
        process.kill()
        process.communicate()


def middle(costs: list[Cost]) -> Cost:
    """Median of each part."""
    return Cost(median(cost.seconds for cost in costs), median(cost.cpu for cost in costs), costs[len(costs) // 2].size)


def bench(size: int, runs: int, plain_runs: int) -> None:
    """Print the lines of one fleet size."""
    with served(size) as fleet:
        pieces: dict[str, list[Cost]] = {how: [] for how in CHANGES}
        updates: list[float] = []
        plain: list[Cost] = []
        fleet.scrape("/pieces")
        for run in range(runs):
            for how in CHANGES:
                updates.append(fleet.ask(f"/change/{how}", "POST"))
                pieces[how].append(fleet.scrape("/pieces"))
            if run < plain_runs:
                plain.append(fleet.scrape("/plain"))
        memory = fleet.ask("/memory")
    baseline = middle(plain) if plain else None
    if baseline:
        print(_line(size, "client library", baseline))
    for how, costs in pieces.items():
        print(_line(size, f"pieces, {how}", middle(costs), baseline))
    print(f"{size:>8,}  memory {memory:,.0f} bytes a server; one update {median(updates) * 1e6:.0f} µs", flush=True)


def _line(size: int, name: str, cost: Cost, baseline: Cost | None = None) -> str:
    ratio = f"{baseline.seconds / cost.seconds:6.0f}× {baseline.cpu / cost.cpu:6.0f}×" if baseline else ""
    return (
        f"{size:>8,}  {name:<18} {cost.seconds * 1e3:10.1f} ms {cost.cpu * 1e3:10.1f} ms CPU "
        f"{cost.size / 1e6:6.2f} MB {ratio}"
    )


def main() -> None:
    """Read the options and print a table."""
    parser = argparse.ArgumentParser(description="Time scrapes against the client library's plain collector.")
    parser.add_argument("--servers", type=int, nargs="+", default=[1_000, 10_000, 100_000])
    parser.add_argument("--runs", type=int, default=7, help="of which the medians are taken")
    parser.add_argument(
        "--large-plain-runs", type=int, default=1, help="of the client library above 50,000 servers: half a minute each"
    )
    options = parser.parse_args()
    print(f"{'servers':>8}  {'who':<18} {'time':>13} {'CPU':>17} {'body':>9}   ratio of time and CPU", flush=True)
    for size in options.servers:
        bench(size, options.runs, options.large_plain_runs if size > 50_000 else options.runs)


if __name__ == "__main__":
    main()
