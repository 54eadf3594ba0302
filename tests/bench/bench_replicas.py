"""Deliveries and polls a second with one, two and three exporters on one PostgreSQL; the API takes 50 ms a call.

Run it as ``python tests/bench/bench_replicas.py``. The accounts share one simulator, in a process of its own, and each
has servers and a webhook of its own. One exporter more has all accounts at first and then stops, so that the others
share them evenly at once, as they do when one is lost; beside it they would be given theirs a few at a time.
What one exporter costs at rest, with the default interval, is told beside: memory, CPU, and sessions of the database.
Deliveries are posted to all exporters in turns and counted until the last one has taken effect, its call for the event
included. Polls are counted by the simulator while every server is due all the time. The ratio is to one exporter in
the same run; all of them, the database and the simulator share the machine's cores.
"""

from __future__ import annotations

import argparse
import itertools
import os
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import requests
import sqlalchemy as sa

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.bench.simulated import Simulated, scratch  # The path comes first.
from tests.harness.postgres import PostgresCluster, find_programs
from tests.harness.process import NEW_ISSUES, Exporter
from tests.harness.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

LATENCY = 0.05
TICKS = os.sysconf("SC_CLK_TCK")
MIB = 2**20
OWNER = "patrolserver_exporter_account_owner"
DELIVERIES = "patrolserver_exporter_inbox_deliveries"
POLLED = "patrolserver_server_last_poll_timestamp_seconds"
_SENDERS = 8
_ACCOUNT = "  - {{name: account{n}, api_url: '{url}', key: demo, secret: demo, webhook_tokens: [{token}]}}\n"


class Found(NamedTuple):
    """Of one number of exporters."""

    deliveries: float
    """A second, from the first one posted to the last one's effect."""
    acknowledged: float
    """A second, of the same: their 202."""
    polls: float
    """A second."""
    spread: tuple[int, ...]
    """Accounts that each exporter polled, the most first."""
    rest: Rest


class Rest(NamedTuple):
    """Of each exporter, while nothing is posted and each server is polled once in the default interval."""

    rss: float
    """MiB, of the largest one."""
    cpu: float
    """Part of a core, in the mean."""
    sessions: float
    """Of the database."""
    database: float
    """MiB, of all of them."""
    calls: float
    """A second, of all of them."""


def _token(account: int) -> str:
    return f"token-of-account-{account}-0123456789"


def _config(accounts: int, api_url: str, store_url: str, interval: str) -> str:
    entries = "".join(_ACCOUNT.format(n=n, url=api_url, token=_token(n)) for n in range(accounts))
    return (
        f"accounts:\n{entries}"
        f"poll: {{interval: {interval}, max_requests_per_minute: 60000, timeout: 10s}}\n"
        "webhook: {max_event_requests_per_minute: 60000}\n"
        f'store: {{url: "{store_url}"}}\n'
    )


@contextmanager
def _running(  # noqa: PLR0917 - what is varied
    count: int, accounts: int, servers: int, api: Simulated, store_url: str, interval: str
) -> Iterator[list[Exporter]]:
    """So many exporters on an empty database, once every account has an owner and every server was polled."""
    with tempfile.TemporaryDirectory(dir=scratch()) as name, ExitStack() as stack:
        config = _config(accounts, api.url, store_url, interval)
        made = []
        for number in range(count + 1):
            folder = Path(name) / f"exporter{number}"
            folder.mkdir()
            made.append(Exporter(folder, config, "--web.listen-address=127.0.0.1:0"))
            stack.callback(made[-1].kill)
        first, *exporters = made
        first.start(within=120)
        eventually(lambda: _owned(first) == accounts, within=120, what="that the first one has all accounts")
        with ThreadPoolExecutor(count) as pool:
            list(pool.map(lambda exporter: exporter.start(within=120), exporters))
        eventually(
            lambda: all(one.value("patrolserver_exporter_replicas") == count + 1.0 for one in exporters),
            within=120,
            what="that all know each other",
        )
        first.terminate()
        eventually(
            lambda: sum(_owned(one) for one in exporters) == accounts, within=120, what="an owner for each account"
        )
        eventually(
            lambda: all(len(one.samples(POLLED)) == accounts * servers for one in exporters),
            within=1200,
            what="the first polls",
        )
        yield exporters
        for exporter in exporters:
            exporter.terminate()


def _owned(exporter: Exporter) -> int:
    return int(sum(exporter.samples(OWNER).values()))


def _post(exporters: Sequence[Exporter], events: Sequence[tuple[int, dict[str, Any]]]) -> float:
    """Post all of them, to the exporters in turns; the seconds until the last 202."""
    work, lock = iter(zip(events, itertools.cycle(exporters), strict=False)), threading.Lock()

    def send() -> None:
        with requests.Session() as session:
            while True:
                with lock:
                    one = next(work, None)
                if one is None:
                    return
                (account, event), exporter = one
                reply = session.post(f"{exporter.url}/webhook/{_token(account)}", json=event, timeout=60)
                reply.raise_for_status()

    began = time.perf_counter()
    with ThreadPoolExecutor(_SENDERS) as pool:
        for done in [pool.submit(send) for _ in range(_SENDERS)]:
            done.result()
    return time.perf_counter() - began


def _cpu(exporter: Exporter) -> float:
    assert exporter.process is not None
    fields = Path(f"/proc/{exporter.process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def _rest(api: Simulated, exporters: Sequence[Exporter], store_url: str, seconds: float) -> Rest:
    time.sleep(10.0)  # What the first polls brought is written.
    cpu, calls, began = sum(map(_cpu, exporters)), int(api.ask("/requests")["total"]), time.perf_counter()
    time.sleep(seconds)
    took = time.perf_counter() - began
    cpu, calls = sum(map(_cpu, exporters)) - cpu, int(api.ask("/requests")["total"]) - calls
    engine = sa.create_engine(store_url)
    with engine.connect() as connection:
        others = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
        sessions = connection.exec_driver_sql(others).scalar_one()
        size = connection.exec_driver_sql("SELECT pg_database_size(current_database())").scalar_one()
    engine.dispose()
    each = len(exporters)
    rss = max(one.rss() for one in exporters) / MIB
    return Rest(rss, cpu / took / each, sessions / each, size / MIB, calls / took)


def _deliveries(
    api: Simulated, exporters: Sequence[Exporter], accounts: int, servers: int, count: int
) -> tuple[float, float]:
    """A second: of effects, and of 202s."""
    events = []
    for number in range(count):
        software = {"name": "x", "canonical_name": f"bench/{number}"}
        data = {
            "server_id": 1 + number % servers,
            "new_issues": [{"title": "x", "software": {"software": software}}],
        }
        made = api.order("/events", identifier=NEW_ISSUES, deliver=False, data=data)
        events.append((number % accounts, made["events"][0]))
    api.order("/faults", kind="latency", seconds=LATENCY)
    applied = exporters[0].value(DELIVERIES, state="applied") or 0.0
    began = time.perf_counter()
    acknowledged = _post(exporters, events)
    eventually(
        lambda: (exporters[0].value(DELIVERIES, state="applied") or 0.0) - applied >= count,
        within=600,
        every=0.1,
        what="the effect of every delivery",
    )
    return count / (time.perf_counter() - began), count / acknowledged


def _polls(api: Simulated, seconds: float) -> float:
    """A second, while every server is due all the time."""
    api.order("/faults", kind="latency", seconds=LATENCY)
    time.sleep(5.0)  # The first ones may have been under way without it.
    before, began = api.polls(), time.perf_counter()
    time.sleep(seconds)
    return (api.polls() - before) / (time.perf_counter() - began)


def measured(cluster: PostgresCluster, count: int, options: argparse.Namespace) -> Found:
    """With so many exporters: first at rest, then deliveries without polls, then polls without deliveries."""
    accounts, servers = options.accounts, options.servers
    url = cluster.create_database()
    with Simulated(servers=servers, software=12) as api:
        api.order("/webhooks", url=None)
        with _running(count, accounts, servers, api, url, "15m") as exporters:
            spread = tuple(sorted((_owned(one) for one in exporters), reverse=True))
            rest = _rest(api, exporters, url, options.seconds)
            effects, acknowledged = _deliveries(api, exporters, accounts, servers, options.deliveries)
    url = cluster.create_database()
    with (
        Simulated(servers=servers, software=12) as api,
        _running(count, accounts, servers, api, url, "1s"),
    ):
        polls = _polls(api, options.seconds)
    return Found(effects, acknowledged, polls, spread, rest)


def main() -> None:
    """Print a line for each number of exporters."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--exporters", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--accounts", type=int, default=6)
    parser.add_argument("--servers", type=int, default=60, help="of each account")
    parser.add_argument("--deliveries", type=int, default=1500)
    parser.add_argument("--seconds", type=float, default=20.0, help="for which polls, and CPU at rest, are counted")
    options = parser.parse_args()
    programs = find_programs()
    if programs is None:
        sys.exit("PostgreSQL is missing: apt-get install postgresql")
    print(
        f"{options.accounts} accounts of {options.servers} servers, {options.deliveries} deliveries, "
        f"API latency {LATENCY * 1e3:.0f} ms"
    )
    print(f"{'exporters':>9} {'202s':>9} {'effects':>9} {'polls':>9}   ratios to the first, accounts of each")
    first: Found | None = None
    with PostgresCluster(programs) as cluster:
        for count in options.exporters:
            found = measured(cluster, count, options)
            first = first or found
            print(
                f"{count:>9} {found.acknowledged:>7.0f}/s {found.deliveries:>7.0f}/s {found.polls:>7.0f}/s   "
                f"effects {found.deliveries / first.deliveries:.2f}x, polls {found.polls / first.polls:.2f}x, "
                f"{' + '.join(map(str, found.spread))}"
            )
            rest = found.rest
            print(
                f"{'':>9} at rest, each: {rest.rss:.0f} MiB, {rest.cpu:.1%} of a core, {rest.sessions:.0f} sessions; "
                f"all: database {rest.database:.0f} MiB, {rest.calls:.1f} calls/s",
                flush=True,
            )


if __name__ == "__main__":
    main()
