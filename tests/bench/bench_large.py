"""One account with 100,000 servers of 12 software, beside one with 10,000: polls, start, list, scrape, page and gate.

Run it as ``python tests/bench/bench_large.py``. The store is filled before; the exporter, in a process of its own, is
started over it and reads the account's list from an API that answers with as many servers. Each line has seconds of the
exporter's CPU beside those of the clock, since only the first stay the same on a machine that does other things, too.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any, NamedTuple

import sqlalchemy as sa

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.bench.bench_api import Client, fill  # The path comes first.
from tests.bench.simulated import scratch
from tests.harness.process import Exporter
from tests.harness.rawapi import RawApi
from tests.harness.waiting import eventually

from patrolserver_exporter.store import Store, tables

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

TICKS = os.sysconf("SC_CLK_TCK")
MIB = 2**20


class Cost(NamedTuple):
    """Of something that the exporter does."""

    wall: float
    """Seconds of the clock."""
    cpu: float
    """Seconds of the exporter's CPU."""


def _cpu(exporter: Exporter) -> float:
    assert exporter.process is not None
    fields = Path(f"/proc/{exporter.process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def _cost(exporter: Exporter, work: Callable[[], object], runs: int) -> Cost:
    """The median of the clock, and the mean of the CPU."""
    took = []
    cpu = _cpu(exporter)
    for _ in range(runs):
        began = time.perf_counter()
        work()
        took.append(time.perf_counter() - began)
    return Cost(median(took), (_cpu(exporter) - cpu) / runs)


def _list_of(servers: int) -> bytes:
    entries = [{"id": n, "name": f"web{n:05}.example.org"} for n in range(1, servers + 1)]
    return json.dumps({"error": False, "data": entries}).encode()


def _software(installed: int) -> bytes:
    entries = [
        {
            "id": n,
            "name": f"package-{n}",
            "canonical_name": f"package-{n}",
            "version": "8.1.0",
            # One of them is outdated.
            "supported": "no" if n == 1 else "yes",
            "new_release": {"version": "8.1.29"},
            "location": f"/opt/{n}",
        }
        for n in range(1, installed + 1)
    ]
    return json.dumps({"error": False, "data": entries}).encode()


def first_polls(servers: int, software: int) -> dict[str, Any]:
    """From an empty store and one list to the poll of every server, as fast as the budget of 1,000 a second allows."""
    body = _software(software)
    answers = {f"/servers/{n}/software": body for n in range(1, servers + 1)} | {"/servers": _list_of(servers)}
    polled = {"name[]": "patrolserver_server_last_poll_timestamp_seconds"}
    with tempfile.TemporaryDirectory(dir=scratch()) as name, RawApi(answers) as api:
        exporter = Exporter.watching(Path(name), api.base_url, interval="24h")
        # The API is in this process, and may be slow on a machine that does other things.
        exporter.write_config(exporter.config_file.read_text().replace("timeout: 2s", "timeout: 60s"))
        try:
            began = time.perf_counter()
            exporter.start(within=300)
            eventually(
                lambda: exporter.get("/metrics", params=polled).text.count("{") == servers,
                within=3600,
                every=2.0,
                what="the first polls",
            )
            cost = Cost(time.perf_counter() - began, _cpu(exporter))
            return {"start until all are polled": cost, "memory then": f"{exporter.rss() / MIB:,.0f} MiB"}
        finally:
            exporter.kill()


@contextmanager
def _fleet(servers: int, software: int) -> Iterator[tuple[Exporter, Path]]:
    """An exporter, not started, over a store that is filled."""
    with tempfile.TemporaryDirectory(dir=scratch()) as name, RawApi({"/servers": _list_of(servers)}) as api:
        folder = Path(name)
        state = folder / "state.db"
        fill(f"sqlite:///{state}", servers, software)
        with Store(f"sqlite:///{state}") as store:
            # Planned, as each poll plans the next one; far enough, so that no poll disturbs.
            planned = sa.update(tables.servers).values(next_poll_at=time.time() + 40_000)
            store.run(lambda unit: unit.connection.execute(planned).rowcount)
        exporter = Exporter.watching(folder, api.base_url, store_url=f"sqlite:///{state}", interval="24h")
        try:
            yield exporter, state
        finally:
            exporter.kill()


def measured(servers: int, software: int, runs: int) -> dict[str, Any]:
    """What each of them costs, with a line for memory and one for the disk."""
    found: dict[str, Any] = {}
    with _fleet(servers, software) as (exporter, state):
        began = time.perf_counter()
        exporter.start(within=300)
        eventually(lambda: exporter.get("/-/ready").status_code == 200, within=300, what="ready")
        found["start to ready"] = Cost(time.perf_counter() - began, _cpu(exporter))
        whole = 'patrolserver_list_complete{account="main"} 1'
        only = {"name[]": "patrolserver_list_complete"}
        eventually(lambda: whole in exporter.get("/metrics", params=only).text, within=300, what="the list")
        found["start until the list is kept"] = Cost(time.perf_counter() - began, _cpu(exporter))
        client = Client(exporter.url)
        names: list[Any] = [f"web{number:05}.example.org" for number in range(1, 101)]
        questions: dict[str, tuple[str, str, Any]] = {
            "scrape, nothing changed": ("GET", "/metrics", None),
            "page of the fleet": ("GET", "/", None),
            "a page of 100 servers": ("GET", "/api/v1/servers?limit=100", None),
            "a page of 100 issues": ("GET", "/api/v1/issues?limit=100", None),
            "gate of 100 by name": ("POST", "/api/v1/gate", {"servers": names}),
            "gate of 100 by id": ("POST", "/api/v1/gate", {"servers": list(range(1, 101))}),
            "gate of 100 by glob": ("POST", "/api/v1/gate", {"servers": ["web000??.example.org"]}),
        }
        for what, question in questions.items():
            client.ask(*question)
            found[what] = _cost(exporter, lambda question=question: client.ask(*question), runs)  # type: ignore[misc]
        found["gate of the whole fleet"] = _cost(
            exporter, lambda: client.ask("POST", "/api/v1/gate", {"servers": ["*"]}), 1
        )
        found["memory"] = f"{exporter.rss() / MIB:,.0f} MiB"
        exporter.terminate()
        found["database"] = f"{state.stat().st_size / MIB:,.0f} MiB"
        began = time.perf_counter()
        exporter.start(within=300)
        eventually(lambda: exporter.get("/-/ready").status_code == 200, within=300, what="ready")
        found["start after a clean stop"] = Cost(time.perf_counter() - began, _cpu(exporter))
    return found


def main() -> None:
    """Print a line for each, with the ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--servers", type=int, nargs="+", default=[10_000, 100_000])
    parser.add_argument("--software", type=int, default=12, help="on each server")
    parser.add_argument("--runs", type=int, default=10)
    options = parser.parse_args()
    columns = [
        first_polls(servers, options.software) | measured(servers, options.software, options.runs)
        for servers in options.servers
    ]
    print(f"{'':30}" + "".join(f"{f'{servers:,} servers':>34}" for servers in options.servers))
    for what, first in columns[0].items():
        if isinstance(first, Cost):
            cells = [f"{c[what].wall * 1e3:9,.0f} ms {c[what].cpu * 1e3:9,.0f} ms CPU" for c in columns]
        else:
            cells = [c[what] for c in columns]
        print(f"{what:30}" + "".join(f"{cell:>34}" for cell in cells), flush=True)


if __name__ == "__main__":
    main()
