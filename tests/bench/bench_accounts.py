"""One exporter with 1, 50 and 300 accounts of 5 servers: threads, memory, CPU at rest, and what a scrape takes.

Run it as ``python tests/bench/bench_accounts.py``. The API is a simulator in a process of its own, whose servers every
account watches. All settings are the default ones. CPU is measured twice, with the calls that were made meanwhile: with
all scans due and no webhook, so that each server is asked once a minute whether it is scanned; and at rest, when each
was scanned, and each account asks for its list only. Scans are daily, and looked for from 20 hours on.
A scrape is compared with the client library, which renders the same series in this process, in turns with it.
"""

from __future__ import annotations

import argparse
import gzip
import os
import sys
import tempfile
import time
from http.client import HTTPConnection
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, NamedTuple

sys.path.insert(0, str(Path(__file__).parents[2]))

from prometheus_client.exposition import generate_latest
from prometheus_client.parser import text_string_to_metric_families
from tests.bench.simulated import Simulated, scratch  # The path comes first.
from tests.harness.process import Exporter
from tests.harness.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

    from prometheus_client.core import Metric

TICKS = os.sysconf("SC_CLK_TCK")
MIB = 2**20
SERVERS = 5
SCAN = 150.0
"""Seconds that a scan takes: twice as long as it takes until every account has looked."""


class Load(NamedTuple):
    """Of a time."""

    cpu: float
    """Part of a core."""
    calls: float
    """A second."""


class Found(NamedTuple):
    """Of one number of accounts."""

    accounts: int
    threads: int
    rss: float
    """MiB."""
    due: Load
    """While all scans are due."""
    rest: Load
    """When they are over."""
    series: int
    scrape: float
    """Seconds."""
    library: float
    """Seconds that the client library takes for the same series."""

    @property
    def bound(self) -> float:
        """Seconds that a scrape may take: 2.2 ms, and 1 ms for 10,000 series."""
        return 0.0022 + 0.001 * self.series / 10_000


class _Collected:
    """Families that were scraped, for the client library to render."""

    def __init__(self, text: str) -> None:
        self._families = list(text_string_to_metric_families(text))

    def collect(self) -> Iterator[Metric]:
        """Give them."""
        yield from self._families


def _cpu(exporter: Exporter) -> float:
    assert exporter.process is not None
    fields = Path(f"/proc/{exporter.process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def _threads(exporter: Exporter) -> int:
    assert exporter.process is not None
    return sum(1 for _ in Path(f"/proc/{exporter.process.pid}/task").iterdir())


def _calls(api: Simulated) -> int:
    return int(api.ask("/requests")["total"])


def _scrape(exporter: Exporter) -> tuple[float, bytes]:
    """Seconds from the request to the last byte, and what came."""
    connection = HTTPConnection(exporter.url.removeprefix("http://"), timeout=60)
    connection.connect()
    began = time.perf_counter()
    connection.request("GET", "/metrics", headers={"Accept": "text/plain", "Accept-Encoding": "gzip"})
    body = connection.getresponse().read()
    took = time.perf_counter() - began
    connection.close()
    return took, body


def _load(exporter: Exporter, api: Simulated, seconds: float) -> Load:
    time.sleep(10.0)
    cpu, calls, began = _cpu(exporter), _calls(api), time.monotonic()
    time.sleep(seconds)
    took = time.monotonic() - began
    return Load(cpu=(_cpu(exporter) - cpu) / took, calls=(_calls(api) - calls) / took)


def _config(accounts: int, url: str, folder: Path) -> str:
    names = "\n".join(
        f"  - {{name: account{number:03}, api_url: '{url}', key: demo, secret: demo}}" for number in range(accounts)
    )
    return f"accounts:\n{names}\nstore: {{url: 'sqlite:///{folder / 'state.db'}'}}\n"


def measured(accounts: int, rest: float, runs: int) -> Found:
    """Start, wait for all polls, and measure."""
    with (
        tempfile.TemporaryDirectory(dir=scratch()) as name,
        Simulated(servers=SERVERS, software=12) as api,
        Exporter(Path(name), _config(accounts, api.url, Path(name)), "--web.listen-address=127.0.0.1:0") as exporter,
    ):

        def all_have(what: str) -> bool:
            asked = {"name[]": f"patrolserver_server_last_{what}_timestamp_seconds"}
            return exporter.get("/metrics", params=asked).text.count("{") == accounts * SERVERS

        eventually(lambda: all_have("poll"), within=300, what="the first polls")
        busiest = _threads(exporter)
        due = _load(exporter, api, rest)
        for server in api.ask("/servers")["servers"]:
            api.order("/scan", server=server["id"], seconds=SCAN, events=[])
        eventually(lambda: all_have("scan"), within=600, every=1.0, what="the end of the scans")
        busiest = max(busiest, _threads(exporter))
        resting = _load(exporter, api, rest)
        text = gzip.decompress(_scrape(exporter)[1]).decode()
        collected = _Collected(text)
        scrapes, renders = [], []
        for run in range(runs):
            time.sleep(0.5)
            scrapes.append(_scrape(exporter)[0])
            if run % 5 == 0:
                began = time.perf_counter()
                gzip.compress(generate_latest(collected))
                renders.append(time.perf_counter() - began)
        return Found(
            accounts=accounts,
            threads=max(busiest, _threads(exporter)),
            rss=exporter.rss() / MIB,
            due=due,
            rest=resting,
            series=sum(not line.startswith("#") for line in text.splitlines()),
            scrape=median(scrapes),
            library=median(renders),
        )


def main() -> None:
    """Print a line for each number of accounts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--accounts", type=int, nargs="+", default=[1, 50, 300])
    parser.add_argument("--rest", type=float, default=60.0, help="seconds at rest that are measured")
    parser.add_argument("--runs", type=int, default=21, help="scrapes, of which the median is taken")
    options = parser.parse_args()
    print(
        f"{'accounts':>8} {'threads':>8} {'memory':>9} {'scans due':>19} {'at rest':>19} {'series':>8} {'scrape':>9}"
        "   ratios"
    )
    for accounts in options.accounts:
        found = measured(accounts, options.rest, options.runs)
        print(
            f"{accounts:>8} {found.threads:>8} {found.rss:>5.0f} MiB "
            f"{found.due.cpu:>8.1%} {found.due.calls:>8.1f}/s {found.rest.cpu:>8.1%} {found.rest.calls:>8.1f}/s "
            f"{found.series:>8,} {found.scrape * 1e3:>6.1f} ms   {found.scrape / found.bound:.2f} of "
            f"{found.bound * 1e3:.1f} ms, the client library {found.library / found.scrape:.0f} times",
            flush=True,
        )


if __name__ == "__main__":
    main()
