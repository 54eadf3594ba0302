"""How long a delivery and a scrape take while many clients read as much as they can.

Run it as ``python tests/bench/bench_readers.py``. The exporter runs in a process of its own over a store that was
filled before; its readers run in another, and this one delivers at an even pace and scrapes. Each line is about other
readers; the first one has none.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import threading
import time
from pathlib import Path
from statistics import quantiles
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.bench.bench_api import POLLED, fill  # The path comes first.
from tests.bench.simulated import scratch
from tests.harness.process import Exporter
from tests.harness.readers import Request, deliver, readers
from tests.harness.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Sequence

WHOLE_FLEET = {"servers": ["*"], "policy": {"max_total": 0}}
LOADS: dict[str, tuple[Sequence[Request], int]] = {
    "without readers": ((), 0),
    "4 gates of the whole fleet": ((Request("POST", "/api/v1/gate", WHOLE_FLEET),), 4),
    "24 gates of the whole fleet": ((Request("POST", "/api/v1/gate", WHOLE_FLEET),), 24),
    "24 such gates, each of another policy": (
        [Request("POST", "/api/v1/gate", {"servers": ["*"], "policy": {"max_total": n}}) for n in range(24)],
        24,
    ),
    "24 such gates that list all": ((Request("POST", "/api/v1/gate", WHOLE_FLEET | {"detail": "all"}),), 24),
    "24 lists and pages": ((Request("GET", "/api/v1/issues?limit=1000"), Request("GET", "/")), 24),
    "24 exports of all issues as CSV": ((Request("GET", "/api/v1/issues?format=csv"),), 24),
}


def main() -> None:
    """Read the options and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--servers", type=int, default=3_000)
    parser.add_argument("--software", type=int, default=12, help="on each server")
    parser.add_argument("--deliveries", type=int, default=200, help="under each load")
    parser.add_argument("--every", type=float, default=0.02, help="seconds between two deliveries")
    parser.add_argument("--only", default="", help="loads whose name has this in it")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=scratch()) as name:
        folder = Path(name)
        url = f"sqlite:///{folder / 'state.db'}"
        fill(url, options.servers, options.software)
        # Nobody listens there, so the fleet stays as it was filled.
        with Exporter.watching(folder, "http://127.0.0.1:1", store_url=url, interval="1h") as exporter:
            eventually(lambda: not any(exporter.samples(POLLED).values()), within=120, what="the first failed polls")
            first = 1
            for title, (requests, clients) in LOADS.items():
                if options.only in title:
                    bench(exporter, title, requests, clients, options.deliveries, options.every, first)
                    first += options.deliveries


def bench(  # noqa: PLR0917  # A load, and how it is measured.
    exporter: Exporter, title: str, requests: Sequence[Request], clients: int, count: int, every: float, first: int
) -> None:
    """Print the line of one load."""
    port = int(exporter.url.rpartition(":")[2])
    scrapes: list[float] = []
    stop = threading.Event()

    def scrape() -> None:
        while not stop.wait(0.5):
            began = time.perf_counter()
            exporter.metrics()
            scrapes.append(time.perf_counter() - began)

    thread = threading.Thread(target=scrape)
    if clients:
        with readers(port, requests, clients) as answers:
            thread.start()
            time.sleep(1.0)
            found = deliver(port, count, every=every, first=first)
            stop.set()
            thread.join()
        told = ", ".join(f"{number}× {status}" for status, number in sorted(answers[0].statuses.items()))
    else:
        thread.start()
        found = deliver(port, count, every=every, first=first)
        stop.set()
        thread.join()
        told = "-"
    worst = quantiles(scrapes, n=100, method="inclusive")[98]
    print(
        f"{title:40} delivery p50 {found.p50 * 1e3:6.1f} ms  p99 {found.p99 * 1e3:6.1f} ms  refused {found.refused}"
        f"   scrape p99 {worst * 1e3:6.1f} ms   RSS {exporter.rss() / 2**20:4.0f} MiB   answers {told}",
        flush=True,
    )


if __name__ == "__main__":
    main()
