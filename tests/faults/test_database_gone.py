"""The promise on a PostgreSQL that is gone or silent: a 503 for deliveries, all else stays up, and it recovers."""

from __future__ import annotations

import os
import signal
import time
from typing import TYPE_CHECKING

import psycopg
import pytest
import requests
from tests.harness.events import report
from tests.harness.fleet import wait_for_polls
from tests.harness.process import Exporter
from tests.harness.waiting import eventually

from patrolserver_exporter.store import Store

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.harness.postgres import PostgresCluster

    from patrolserver_exporter.simulator.server import Simulator

pytestmark = [pytest.mark.calm, pytest.mark.promise("store-away")]


@pytest.fixture
def database(postgres: PostgresCluster) -> Iterator[str]:
    """The URL of an empty state on PostgreSQL."""
    url = postgres.create_database()
    Store(url).close()
    yield url
    postgres.drop_database(url)


def name_of(url: str) -> str:
    return url.partition("@/")[2].partition("?")[0]


def backends(url: str, name: str = "patrolserver-exporter") -> list[int]:
    """The processes that serve the exporter, of sessions with such a name."""
    query = b"SELECT pid FROM pg_stat_activity WHERE application_name LIKE %s"
    with psycopg.connect(url.replace("+psycopg", ""), autocommit=True) as connection:
        return [int(row[0]) for row in connection.execute(query, (name,))]


def test_a_silent_database_holds_up_no_sender(tmp_path: Path, database: str, simulator: Simulator) -> None:
    """A delivery that the store does not take in gets a 503 in time; sent again later, it has its effect once.

    Neither do API and pages hang, although the renewals of the lease are still answered.
    """
    with Exporter.watching(tmp_path, simulator.base_url, store_url=database, settle="10m") as exporter:
        wait_for_polls(exporter, 5)
        silent = backends(database)
        event = report(simulator, 1, "late")
        for pid in silent:
            os.kill(pid, signal.SIGSTOP)
        try:
            began = time.monotonic()
            assert exporter.deliver(event.id).status_code == 503
            assert time.monotonic() - began < 15.0
            for path in ("/api/v1/servers", "/"):
                began = time.monotonic()
                # A session that is opened only now is not silent.
                assert requests.get(exporter.url + path, timeout=60).status_code in {200, 503}
                assert time.monotonic() - began < 25.0
            assert exporter.value("patrolserver_exporter_store_writable") == 0.0
            assert 'patrolserver_up{account="main"} 1.0' in exporter.metrics()
            assert exporter.get("/-/healthy").status_code == 200
        finally:
            for pid in silent:
                os.kill(pid, signal.SIGCONT)
        eventually(lambda: exporter.deliver(event.id).status_code == 202, what="a delivery that is taken in")
        eventually(
            lambda: 'state="applied"} 1.0' in exporter.metrics() and issues_named(exporter, "late") == 1,
            what="the event's effect",
        )
        assert "Traceback" not in exporter.log()


def test_a_stop_does_not_wait_for_a_silent_database(tmp_path: Path, database: str, simulator: Simulator) -> None:
    """SIGTERM ends the exporter in time for systemd, though no session answers any more."""
    with Exporter.watching(tmp_path, simulator.base_url, store_url=database) as exporter:
        wait_for_polls(exporter, 5)
        silent = backends(database, "patrolserver-exporter%")
        for pid in silent:
            os.kill(pid, signal.SIGSTOP)
        try:
            assert exporter.deliver(1).status_code == 503
            assert exporter.terminate(within=28.0) == 0
        finally:
            for pid in silent:
                os.kill(pid, signal.SIGCONT)


def test_a_database_that_is_away_and_comes_back(
    tmp_path: Path, postgres: PostgresCluster, database: str, simulator: Simulator
) -> None:
    """Connections are ended and refused for a while: nothing acknowledged is lost, and no restart is needed."""
    with Exporter.watching(tmp_path, simulator.base_url, store_url=database, settle="10m", interval="2s") as exporter:
        wait_for_polls(exporter, 5)
        kept = report(simulator, 1, "kept")
        assert exporter.deliver(kept.id).status_code == 202
        served = backends(database)
        postgres.execute(f"ALTER DATABASE {name_of(database)} ALLOW_CONNECTIONS false")
        for pid in served:
            postgres.execute(f"SELECT pg_terminate_backend({pid})")
        away = report(simulator, 2, "away")
        eventually(lambda: exporter.deliver(away.id).status_code == 503, what="a refusal")
        server = simulator.world.add_server(simulator.world.demo, "new.example.org", software=())
        assert exporter.get("/-/healthy").status_code == 200
        assert exporter.get("/api/v1/servers").status_code == 503
        assert 'patrolserver_servers{account="main"} 5.0' in exporter.metrics()
        postgres.execute(f"ALTER DATABASE {name_of(database)} ALLOW_CONNECTIONS true")
        back = time.time()
        eventually(lambda: exporter.deliver(away.id).status_code == 202, what="a delivery that is taken in")
        # One that was being fetched is due again when its claim runs out.
        eventually(
            lambda: issues_named(exporter, "kept") == 1 == issues_named(exporter, "away"),
            within=60.0,
            what="the effects",
        )
        wait_for_polls(exporter, 6, after=back)
        assert f'server_id="{server.id}"' in exporter.metrics()
        assert "Traceback" not in exporter.log()


def issues_named(exporter: Exporter, software: str) -> int:
    return len(exporter.get(f"/api/v1/issues?software={software}").json()["items"])
