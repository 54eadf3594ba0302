"""How long the API takes on a large fleet, while the exporter is being scraped.

Run it as ``python tests/bench/bench_api.py``. The exporter runs in a process of its own over a store that was filled
before: every server has ``--software`` entries and one open issue. Another client scrapes it, and this one asks: the
gate for 100 servers by name, by id and by glob, and all issues by pages. Beside each stands ``/-/healthy``, asked in
turn, which is what HTTP alone costs in the same run.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import threading
import time
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path
from statistics import median, quantiles
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec.structs import replace

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.harness.api import put_server  # The path comes first.
from tests.harness.process import Exporter
from tests.harness.waiting import eventually
from tests.unit.issues.builders import issue, outdated, software

from patrolserver_exporter.issues.model import Kind
from patrolserver_exporter.store import Store, fleet
from patrolserver_exporter.store.fleet import AccountRecord

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from patrolserver_exporter.store import Unit

SELECTED = 100
POLLED = "patrolserver_server_poll_success"


def fill(url: str, servers: int, installed: int) -> None:
    """Keep a fleet, polled a moment ago."""
    now = time.time()
    sound = tuple(software(f"package-{number}", location=f"/opt/{number}") for number in range(installed - 1))
    broken = issue("php", Kind.OUTDATED, version="8.1.0", update_to="8.1.29", title="Upgrade PHP.")

    def work(unit: Unit) -> None:
        for number in range(1, servers + 1):
            found = [replace(broken, fingerprint=f"{number:016x}")]
            put_server(
                unit, number, _name(number), issues=found, software=(*sound, outdated(location="/")), polled_at=now
            )
        fleet.save_account(unit.connection, AccountRecord(name="main", up=True, last_success_at=now))

    with Store(url) as store:
        store.run(work)


def _name(number: int) -> str:
    return f"web{number:05}.example.org"


class Client:
    """One kept connection."""

    def __init__(self, url: str) -> None:
        self._connection = HTTPConnection(url.removeprefix("http://"), timeout=60)

    def ask(self, method: str, path: str, body: Any = None) -> bytes:
        """The body of a 200."""
        data = None if body is None else msgspec.json.encode(body)
        self._connection.request(method, path, data, {"content-type": "application/json", "accept-encoding": "gzip"})
        response = self._connection.getresponse()
        answer = response.read()
        assert response.status == 200, answer
        return answer

    def gate(self, servers: list[Any]) -> None:
        """Judge; the fleet meets the policy, but for its age, which the store's copy has from its filling."""
        answer = msgspec.json.decode(self.ask("POST", "/api/v1/gate", {"servers": servers}))
        assert answer["passed"], answer["reasons"][:3]
        assert len(answer["servers"]) == SELECTED

    def all_issues(self, expected: int, limit: int) -> list[float]:
        """Seconds of each page."""
        took, cursor, seen = [], "", 0
        while True:
            begin = time.perf_counter()
            page = msgspec.json.decode(self.ask("GET", f"/api/v1/issues?limit={limit}{cursor}"))
            took.append(time.perf_counter() - begin)
            seen += len(page["items"])
            if page["next_cursor"] is None:
                assert seen == expected, seen
                return took
            cursor = f"&cursor={page['next_cursor']}"


@contextmanager
def scraped(url: str, every: float) -> Iterator[list[float]]:
    """Scrape in another thread; the list gets the seconds of each scrape."""
    took: list[float] = []
    stop = threading.Event()

    def scrape() -> None:
        client = Client(url)
        while not stop.wait(every):
            begin = time.perf_counter()
            client.ask("GET", "/metrics")
            took.append(time.perf_counter() - begin)

    thread = threading.Thread(target=scrape)
    thread.start()
    try:
        yield took
    finally:
        stop.set()
        thread.join()


def timed(work: Callable[[], object]) -> float:
    """Seconds that it takes."""
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin


def line(what: str, took: list[float], floor: list[float]) -> None:
    """Print the median and the 99th percentile, and the ratio to plain HTTP."""
    p99 = quantiles(took, n=100, method="inclusive")[98] if len(took) > 1 else took[0]
    ratio = median(took) / median(floor)
    print(f"{what:<44} {median(took) * 1e3:8.1f} ms {p99 * 1e3:8.1f} ms p99 {ratio:7.1f}× n={len(took)}", flush=True)


def bench(exporter: Exporter, servers: int, runs: int, every: float) -> None:
    """Print the lines."""
    client = Client(exporter.url)
    first = servers // 2
    numbers = range(first, first + SELECTED)
    # A hundred servers whose names begin alike: 05000 to 05099 of ten thousand.
    start = first - first % SELECTED
    questions: dict[str, list[Any]] = {
        "by name": [_name(number) for number in numbers],
        "by id": list(numbers),
        "by glob": [f"{_name(start)[:6]}*"],
    }
    with scraped(exporter.url, every) as scrapes:
        floor: list[float] = []
        for what, asked in questions.items():
            took = []
            for _ in range(runs):
                floor.append(timed(lambda: client.ask("GET", "/-/healthy")))
                took.append(timed(lambda asked=asked: client.gate(asked)))  # type: ignore[misc]
            line(f"gate for {SELECTED} of {servers:,} servers, {what}", took, floor)
        for limit in (100, 1000):
            whole, pages = [], []
            for _ in range(max(runs // 20, 3)):
                page_times = client.all_issues(servers, limit)
                pages += page_times
                whole.append(sum(page_times))
            line(f"a page of {limit} of {servers:,} issues", pages, floor)
            line(f"all {servers:,} issues by pages of {limit}", whole, floor)
    line("/-/healthy", floor, floor)
    line(f"scrapes meanwhile, every {every:g} s", scrapes, floor)


def main() -> None:
    """Read the options and print a table."""
    parser = argparse.ArgumentParser(description="Time the gate and the list of issues on a large fleet.")
    parser.add_argument("--servers", type=int, default=10_000)
    parser.add_argument("--software", type=int, default=50, help="on each server")
    parser.add_argument("--runs", type=int, default=200, help="of each request to the gate")
    parser.add_argument("--scrape-every", type=float, default=1.0, help="seconds between two scrapes")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        url = f"sqlite:///{folder / 'state.db'}"
        fill(url, options.servers, options.software)
        # Nobody listens there, so the fleet stays as it was filled.
        with Exporter.watching(folder, "http://127.0.0.1:1", store_url=url, interval="1h") as exporter:
            # Once each server is marked as not polled, nothing is left to do but to answer.
            eventually(lambda: not any(exporter.samples(POLLED).values()), within=60, what="the first failed polls")
            bench(exporter, options.servers, options.runs, options.scrape_every)


if __name__ == "__main__":
    main()
