"""The promise on a second exporter on one PostgreSQL: it is refused, and who lost the database writes nothing more."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

import psycopg
import pytest
import requests
from tests.harness.events import report
from tests.harness.fleet import wait_for_polls
from tests.harness.process import Exporter
from tests.harness.waiting import eventually

from patrolserver_exporter.simulator.faults import Fault, FaultKind
from patrolserver_exporter.store import Store

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.harness.postgres import PostgresCluster

    from patrolserver_exporter.simulator.server import Simulator

pytestmark = [pytest.mark.alone, pytest.mark.promise("second-exporter")]

LEASE = 10.0


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


def state(url: str) -> list[object]:
    """What a refused start must not touch."""
    with connected(url) as connection:
        return [
            connection.execute("SELECT name, gone_at IS NULL FROM servers ORDER BY 1").fetchall(),
            connection.execute("SELECT id, state FROM inbox ORDER BY 1").fetchall(),
            connection.execute("SELECT name FROM accounts ORDER BY 1").fetchall(),
        ]


def refusals(exporter: Exporter) -> list[str]:
    return re.findall(r".*in use by another patrolserver-exporter.*", exporter.log())


def test_a_second_exporter_is_refused_and_touches_nothing(
    folders: tuple[Path, Path], database: str, simulator: Simulator
) -> None:
    """With another account it ends with 3 and says who has the database; servers and deliveries of the first stay."""
    first, second = folders
    with watching(first, simulator, database) as exporter:
        wait_for_polls(exporter, 5)
        simulator.faults.add(Fault(kind=FaultKind.STATUS, path="webhooks/*", status=500))
        assert exporter.deliver(report(simulator, 1, "waiting").id).status_code == 202
        eventually(lambda: "retry" in str(state(database)), what="a delivery that waits")
        before = state(database)
        other = watching(second, simulator, database)
        other.write_config(other.config_file.read_text().replace("name: main", "name: other"))
        began = time.monotonic()
        other.start(wait=False)
        assert other.wait(30) == 3
        assert time.monotonic() - began < 25.0
        (said,) = refusals(other)
        assert exporter.process is not None
        assert f"process {exporter.process.pid} on host " in said
        assert re.search(r", since 2\d\d\d-\d\d-\d\d \d\d:\d\d:\d\d UTC", said)
        assert "Stop that one and start this one again, or give this one another store.url" in said
        assert "Traceback" not in other.log()
        assert state(database) == before
        assert exporter.value("patrolserver_servers", account="main") == 5.0
        assert exporter.value("patrolserver_exporter_account_owner", account="main") == 1.0
        assert exporter.value("patrolserver_exporter_replicas") == 1.0
        assert exporter.value("patrolserver_exporter_replicas_config_differs") == 0.0


def test_two_that_start_at_once_are_one(folders: tuple[Path, Path], database: str, simulator: Simulator) -> None:
    """Exactly one of them serves, and the other one ends with 3."""
    exporters = [watching(folder, simulator, database) for folder in folders]
    try:
        for exporter in exporters:
            exporter.start(wait=False)
        eventually(lambda: sum(exporter.has_ended for exporter in exporters) == 1, within=30.0, what="one's end")
        (ended,) = (exporter for exporter in exporters if exporter.has_ended)
        (serving,) = (exporter for exporter in exporters if not exporter.has_ended)
        assert ended.wait() == 3
        eventually(lambda: "listening on" in serving.log(), what="the other one's start")
    finally:
        for exporter in exporters:
            exporter.kill()


def test_a_restart_after_a_kill_waits_for_the_lease_and_does_not_fail(
    folders: tuple[Path, Path], database: str, simulator: Simulator
) -> None:
    """Started a second after SIGKILL, as systemd does it, it serves once the lease ran out; after SIGTERM, at once."""
    first, _ = folders
    with watching(first, simulator, database) as exporter:
        wait_for_polls(exporter, 5)
        exporter.kill()
        time.sleep(1.0)
        began = time.monotonic()
        exporter.start()
        assert time.monotonic() - began < 20.0
        assert exporter.get("/-/ready").status_code == 200
        assert exporter.terminate() == 0
        with connected(database) as connection:
            assert connection.execute("SELECT owner FROM leases").fetchall() == [(None,)]
        exporter.start()
        # The start after the kill waited, and this one did not.
        assert len(re.findall("waiting until its lease runs out", exporter.log())) == 1


def test_who_was_stopped_past_its_lease_writes_nothing_more_and_ends(
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
                # Its renewals get no answer, so that nothing but the fence tells it.
                os.kill(renewing, signal.SIGSTOP)
                exporter.signal(signal.SIGCONT)
                _refuses_everything_until_it_ends(exporter)
                assert exporter.wait(30) == 3
                late = "SELECT pid, what FROM written WHERE pid = ANY(%s) AND at >= %s"
                assert audit.execute(late.encode(), (list(own), taken_at)).fetchall() == []
                assert "This exporter lost its lease on the database" in exporter.log()
                assert successor.process is not None
                assert f"process {successor.process.pid} on host " in exporter.log()
                assert "Traceback" not in exporter.log()
                assert successor.get("/-/ready").status_code == 200
                assert successor.value("patrolserver_exporter_account_owner", account="main") == 1.0
        finally:
            exporter.signal(signal.SIGCONT)
            os.kill(renewing, signal.SIGCONT)


def _refuses_everything_until_it_ends(exporter: Exporter) -> None:
    """Whatever it still answers, it is no 202, no verdict and no readiness."""
    operator = exporter.operator
    calls: tuple[Callable[[], requests.Response], ...] = (
        lambda: exporter.deliver(1),
        lambda: requests.post(f"{exporter.url}/api/v1/gate", json={"servers": ["*"]}, headers=operator, timeout=10),
        lambda: exporter.get("/api/v1/servers", headers=operator),
        lambda: exporter.deliver(2),
    )
    for number, call in enumerate(calls):
        try:
            assert call().status_code == 503, number
        except requests.ConnectionError:
            continue


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
