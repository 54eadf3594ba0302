"""The promise on a second exporter on one PostgreSQL: it harms nothing, and who lost an account writes nothing more."""

from __future__ import annotations

import concurrent.futures
import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

import psycopg
import pytest
from tests.harness.events import report
from tests.harness.fleet import wait_for_polls
from tests.harness.process import Exporter
from tests.harness.waiting import eventually

from patrolserver_exporter.simulator.faults import Fault, FaultKind
from patrolserver_exporter.store import Store

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.harness.postgres import PostgresCluster

    from patrolserver_exporter.simulator.server import Simulator

pytestmark = [pytest.mark.calm, pytest.mark.promise("second-exporter")]

LEASE = 10.0
OWNER = "patrolserver_exporter_account_owner"
DIFFERS = "patrolserver_exporter_replicas_config_differs"
BUDGET = "patrolserver_exporter_api_budget_available_requests"
INTERVAL = "patrolserver_exporter_poll_interval_seconds"


@pytest.fixture
def database(postgres: PostgresCluster) -> Iterator[str]:
    """The URL of an empty state on PostgreSQL."""
    url = postgres.create_database()
    Store(url).close()
    yield url
    postgres.drop_database(url)


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    """One for each of two exporters."""
    first, second = tmp_path / "first", tmp_path / "second"
    first.mkdir()
    second.mkdir()
    return first, second


def watching(folder: Path, simulator: Simulator, database: str, **options: str) -> Exporter:
    return Exporter.watching(folder, simulator.base_url, store_url=database, interval="2s", **options)


@contextmanager
def connected(url: str) -> Iterator[psycopg.Connection]:
    with psycopg.connect(url.replace("+psycopg", ""), autocommit=True) as connection:
        yield connection


def state(url: str, account: str) -> list[object]:
    """What another exporter's start must not touch."""
    with connected(url) as connection:
        return [
            connection.execute(query.encode(), [account]).fetchall()
            for query in (
                "SELECT name, gone_at IS NULL FROM servers WHERE account = %s ORDER BY 1",
                "SELECT id, state FROM inbox WHERE account = %s ORDER BY 1",
                "SELECT name FROM accounts WHERE name = %s",
            )
        ]


def test_an_exporter_with_another_account_touches_nothing(
    folders: tuple[Path, Path], database: str, simulator: Simulator
) -> None:
    """Servers and deliveries of the first one's account stay, and both tell that their configurations differ."""
    first, second = folders
    with watching(first, simulator, database) as exporter:
        wait_for_polls(exporter, 5)
        simulator.faults.add(Fault(kind=FaultKind.STATUS, path="webhooks/*", status=500))
        assert exporter.deliver(report(simulator, 1, "waiting").id).status_code == 202
        eventually(lambda: "retry" in str(state(database, "main")), what="a delivery that waits")
        before = state(database, "main")
        other = watching(second, simulator, database)
        other.write_config(other.config_file.read_text().replace("name: main", "name: other"))
        with other:
            for one in (exporter, other):
                eventually(lambda one=one: one.value(DIFFERS) == 1.0, what="that the configurations differ")  # type: ignore[misc]
                assert one.value("patrolserver_exporter_replicas") == 2.0
                assert "Exporters on this database have different configurations" in one.log()
            wait_for_polls(other, 5)
            assert exporter.value(OWNER, account="main") == 1.0
            assert other.value(OWNER, account="other") == 1.0
            assert other.value(OWNER, account="main") is None
            reply = other.get("/api/v1/status", headers=other.operator)
            assert "1 other exporter on this database has another configuration" in reply.text
            told = [
                (one["this"], one["pid"], one["accounts"], one["config_differs"]) for one in reply.json()["replicas"]
            ]
            pids = [one.process and one.process.pid for one in (other, exporter)]
            assert told == [(True, pids[0], ["other"], False), (False, pids[1], ["main"], True)]
            assert "Traceback" not in other.log()
            # What is new is the other account's.
            assert state(database, "main") == before
            assert exporter.value("patrolserver_servers", account="main") == 5.0


def test_of_two_that_start_at_once_one_polls(folders: tuple[Path, Path], database: str, simulator: Simulator) -> None:
    """Both serve, and exactly one of them has the account."""
    exporters = [watching(folder, simulator, database) for folder in folders]
    try:
        with concurrent.futures.ThreadPoolExecutor(2) as pool:
            list(pool.map(lambda exporter: exporter.start(within=90.0), exporters))
        for exporter in exporters:
            wait_for_polls(exporter, 5)
        assert sorted(exporter.value(OWNER, account="main") or 0.0 for exporter in exporters) == [0.0, 1.0]
    finally:
        for exporter in exporters:
            exporter.kill()


def test_a_restart_after_a_kill_serves_at_once_and_polls_when_the_lease_ran_out(
    folders: tuple[Path, Path], database: str, simulator: Simulator
) -> None:
    """Started a second after SIGKILL, as systemd does it, it waits for nothing; after SIGTERM it polls at once, too."""
    first, _ = folders
    with watching(first, simulator, database) as exporter:
        wait_for_polls(exporter, 5)
        exporter.kill()
        exporter.start()
        assert exporter.get("/-/ready").status_code == 200
        eventually(lambda: exporter.value(OWNER, account="main") == 1.0, within=30.0, what="the account's lease")
        wait_for_polls(exporter, 5, after=time.time())
        assert exporter.terminate() == 0
        with connected(database) as connection:
            assert connection.execute("SELECT DISTINCT owner FROM leases").fetchall() == [(None,)]
        exporter.start()
        assert exporter.value(OWNER, account="main") == 1.0


def test_who_was_stopped_past_its_lease_writes_nothing_more(
    folders: tuple[Path, Path], database: str, simulator: Simulator
) -> None:
    """After SIGSTOP, a take-over and SIGCONT the first one has replies in hand, and none of them is written."""
    first, second = folders
    # Calls are always under way, so their replies lie ready when it goes on.
    simulator.faults.add(Fault(kind=FaultKind.LATENCY, path="servers/*/software", seconds=0.9))
    with connected(database) as audit, watching(first, simulator, database) as exporter:
        audit.execute("CREATE TABLE written (pid int, what text, at timestamptz DEFAULT clock_timestamp())")
        audit.execute(
            "CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS "
            "$$BEGIN INSERT INTO written VALUES (pg_backend_pid(), TG_TABLE_NAME); RETURN NULL; END$$"
        )
        for table in ("servers", "accounts", "issues", "inbox", "changes"):
            trigger = f"CREATE TRIGGER note AFTER INSERT OR UPDATE OR DELETE ON {table} EXECUTE FUNCTION note()"
            audit.execute(trigger.encode())
        # Until then all are polled at once, and there are moments without a call.
        wait_for_polls(exporter, 5, after=time.time() + 3.0)
        assert audit.execute("SELECT pid FROM written LIMIT 1").fetchall()
        sessions = "SELECT pid, application_name FROM pg_stat_activity WHERE application_name ~ '^patrolserver'"
        own = dict(audit.execute(sessions.encode()).fetchall())
        (renewing,) = (pid for pid, name in own.items() if name == "patrolserver-exporter-lease")
        exporter.signal(signal.SIGSTOP)
        try:
            with watching(second, simulator, database) as successor:
                wait_for_polls(successor, 5, after=time.time())
                (taken_at,) = audit.execute("SELECT clock_timestamp()").fetchone() or ()
                # Its renewals get no answer, so that nothing but the fence tells it. Perhaps the server ended that
                # session: it does so where a client stands still within a transaction.
                with suppress(ProcessLookupError):
                    os.kill(renewing, signal.SIGSTOP)
                exporter.signal(signal.SIGCONT)
                eventually(
                    lambda: "This exporter lost its lease for the account main" in exporter.log(), what="the loss"
                )
                eventually(lambda: exporter.value(OWNER, account="main") == 0.0, what="that it only reads")
                late = "SELECT pid, what FROM written WHERE pid = ANY(%s) AND at >= %s"
                assert audit.execute(late.encode(), (list(own), taken_at)).fetchall() == []
                assert successor.process is not None
                assert f"process {successor.process.pid} on host " in exporter.log()
                assert "Traceback" not in exporter.log()
                assert successor.get("/-/ready").status_code == 200
                assert successor.value("patrolserver_exporter_account_owner", account="main") == 1.0
        finally:
            exporter.signal(signal.SIGCONT)
            with suppress(ProcessLookupError):
                os.kill(renewing, signal.SIGCONT)


def test_a_short_stop_costs_nothing(folders: tuple[Path, Path], database: str, simulator: Simulator) -> None:
    """Stopped for longer than its lease while nobody else came, it goes on, and takes deliveries in again."""
    first, _ = folders
    with watching(first, simulator, database, settle="10m") as exporter:
        wait_for_polls(exporter, 5)
        exporter.signal(signal.SIGSTOP)
        time.sleep(LEASE + 2.0)
        exporter.signal(signal.SIGCONT)
        event = report(simulator, 1, "after")
        eventually(lambda: exporter.deliver(event.id).status_code == 202, what="a delivery that is taken in")
        wait_for_polls(exporter, 5, after=time.time())
        eventually(lambda: exporter.get("/-/ready").status_code == 200, what="readiness")
        assert "lost its lease" not in exporter.log()


def test_polling_once_beside_an_exporter_is_refused(
    folders: tuple[Path, Path], database: str, simulator: Simulator
) -> None:
    """``--once`` beside a running exporter is refused as well."""
    first, second = folders
    with watching(first, simulator, database) as exporter:
        wait_for_polls(exporter, 5)
        other = watching(second, simulator, database)
        command = [sys.executable, "-m", "patrolserver_exporter", f"--config.file={other.config_file}", "--once"]
        done = subprocess.run(command, cwd=second, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 3
        assert "in use by another patrolserver-exporter" in done.stderr
        assert "patrolserver_servers" not in done.stdout


def test_what_only_an_owner_knows_is_shown_by_nobody_else(tmp_path: Path, database: str, simulator: Simulator) -> None:
    """Budget and interval of an account whose lease somebody else took; they are back with the account."""
    with watching(tmp_path, simulator, database) as exporter:
        wait_for_polls(exporter, 5)
        eventually(lambda: shown_by_the_owner(exporter) == {BUDGET, INTERVAL}, what="what the owner knows")
        with connected(database) as connection:
            connection.execute(
                "UPDATE leases SET owner = 'x', epoch = epoch + 1, until = until + 5 WHERE account = 'main'"
            )
        eventually(lambda: exporter.value(OWNER, account="main") == 0.0, what="that it lost the account")
        eventually(lambda: not shown_by_the_owner(exporter), what="the end of what it knew")
        eventually(lambda: shown_by_the_owner(exporter) == {BUDGET, INTERVAL}, within=60, what="the account again")
        assert exporter.value(OWNER, account="main") == 1.0


def shown_by_the_owner(exporter: Exporter) -> set[str]:
    return {name for name in (BUDGET, INTERVAL) if exporter.value(name, account="main") is not None}
