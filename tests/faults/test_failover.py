"""The promise on a PostgreSQL that restarts, loses sessions or is failed over: 503 meanwhile, and no false pass."""

from __future__ import annotations

import re
import threading
import time
from typing import TYPE_CHECKING, Any, Self

import psycopg
import pytest
import requests
from tests.harness.events import report
from tests.harness.fleet import wait_for_polls
from tests.harness.postgres import PostgresCluster
from tests.harness.process import Exporter
from tests.harness.waiting import eventually

if TYPE_CHECKING:
    from pathlib import Path

    from patrolserver_exporter.simulator.server import Simulator

pytestmark = [pytest.mark.calm, pytest.mark.promise("store-away")]

LENIENT = {
    "max_by_severity": {"critical": 1000, "high": 1000, "medium": 1000, "low": 1000},
    "max_unknown_software": 999,
}


class Asking:
    """Asks an exporter again and again, in a thread, and keeps what it answered, with the time of each question."""

    def __init__(self, exporter: Exporter) -> None:
        self._exporter = exporter
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._event = 100_000
        self.verdicts: list[tuple[float, str]] = []
        self.statuses: dict[str, set[int]] = {"webhook": set(), "servers": set(), "page": set(), "metrics": set()}
        self.longest = 0.0

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(60)

    def _run(self) -> None:
        while not self._stop.is_set():
            at = time.time()
            self.verdicts.append((at, verdict(self._exporter)))
            self._event += 1
            self.statuses["webhook"].add(self._timed(lambda: self._exporter.deliver(self._event, "webhook.test")))
            self.statuses["servers"].add(self._timed(lambda: self._exporter.get("/api/v1/servers")))
            self.statuses["page"].add(self._timed(lambda: self._exporter.get("/")))
            self.statuses["metrics"].add(self._timed(lambda: self._exporter.get("/metrics")))

    def _timed(self, call: Any) -> int:
        began = time.monotonic()
        status: int = call().status_code
        self.longest = max(self.longest, time.monotonic() - began)
        return status


def verdict(exporter: Exporter) -> str:
    """What the gate says of all servers, by a policy that minds nothing but what is not known."""
    body = {"servers": ["*"], "policy": LENIENT}
    reply = requests.post(f"{exporter.url}/api/v1/gate", json=body, timeout=30)
    assert reply.status_code in {200, 503}
    return str(reply.json()["verdict"]) if reply.ok else "refused"


def own_sessions(cluster: PostgresCluster) -> list[int]:
    query = b"SELECT pid FROM pg_stat_activity WHERE application_name LIKE 'patrolserver-exporter%'"
    with psycopg.connect(host=str(cluster.folder), user="patrol", dbname="postgres", autocommit=True) as connection:
        return [int(row[0]) for row in connection.execute(query)]


def test_sessions_that_are_cut_one_by_one(tmp_path: Path, cluster: PostgresCluster, simulator: Simulator) -> None:
    """Whichever session is ended, an answer is 503 at worst, no delivery that was acknowledged is lost, all goes on."""
    url = cluster.create_database()
    with Exporter.watching(tmp_path, simulator.base_url, store_url=url, interval="2s", settle="10m") as exporter:
        wait_for_polls(exporter, 5)
        accepted = []
        for number in range(15):
            for pid in own_sessions(cluster):
                cluster.execute(f"SELECT pg_terminate_backend({pid})")
                event = report(simulator, 1 + number % 5, f"cut{number}")
                answer = exporter.deliver(event.id).status_code
                assert answer in {202, 503}
                assert exporter.get("/api/v1/servers").status_code in {200, 503}
                assert exporter.get("/metrics").status_code == 200
                if answer == 202:
                    accepted.append(event.id)
        assert accepted
        eventually(
            lambda: exporter.value("patrolserver_exporter_inbox_deliveries", state="applied") == len(accepted),
            within=60.0,
            what="the effect of each delivery that was acknowledged",
        )
        wait_for_polls(exporter, 5, after=time.time())
        eventually(lambda: exporter.value("patrolserver_exporter_store_writable") == 1.0, what="a store that writes")
        assert exporter.get("/-/ready").status_code == 200
        assert "Traceback" not in exporter.log()
        assert "lost its lease" not in exporter.log()


def test_a_database_that_is_stopped_and_started(tmp_path: Path, cluster: PostgresCluster, simulator: Simulator) -> None:
    """For longer than the lease: 503 at once and without a hang, metrics of a true age, no calls; then all goes on."""
    url = cluster.create_database()
    with Exporter.watching(tmp_path, simulator.base_url, store_url=url, interval="2s", settle="1s") as exporter:
        wait_for_polls(exporter, 5)
        eventually(lambda: verdict(exporter) == "pass", what="a verdict to be lost")
        with Asking(exporter) as asking:
            cluster.stop_at_once()
            away_since = time.time()
            eventually(lambda: exporter.value("patrolserver_exporter_store_writable") == 0.0, within=5.0, what="a 0")
            eventually(
                lambda: not any("pass" in dict(have).values() for have in _judged(exporter, above=0.0)),
                within=6.0,
                what="gate series that let nothing pass",
            )
            eventually(
                lambda: exporter.value("patrolserver_exporter_account_owner", account="main") == 0.0,
                within=15.0,
                what="the end of the lease",
            )
            calls = _calls(exporter)
            time.sleep(3.0)
            # Those that were under way when it ran out, and no more.
            assert _calls(exporter) == calls
            followed_at = exporter.value("patrolserver_exporter_last_follow_timestamp_seconds")
            assert followed_at == pytest.approx(away_since, abs=3.0)
            assert exporter.value("patrolserver_servers", account="main") == 5.0
            assert exporter.get("/-/healthy").status_code == 200
            back_at = time.time()
            cluster.start()
            eventually(lambda: exporter.value("patrolserver_exporter_store_writable") == 1.0, what="a 1")
            wait_for_polls(exporter, 5, after=back_at)
            eventually(lambda: verdict(exporter) == "pass", what="a verdict")
        assert asking.statuses == {"webhook": {202, 503}, "servers": {200, 503}, "page": {200, 503}, "metrics": {200}}
        assert asking.longest < 10.0
        away = [said for at, said in asking.verdicts if away_since + 0.5 < at < back_at]
        assert set(away) == {"refused"}
        assert exporter.value("patrolserver_up", account="main") == 1.0
        assert "Traceback" not in exporter.log()
        assert "The API cannot be used" not in exporter.log()


def _judged(exporter: Exporter, *, above: float) -> list[tuple[tuple[str, str], ...]]:
    return [have for have, value in exporter.samples("patrolserver_gate_servers").items() if value > above]


def _calls(exporter: Exporter) -> float:
    return sum(exporter.samples("patrolserver_exporter_api_requests_total").values())


def test_a_standby_without_the_last_commits_is_promoted(
    tmp_path: Path, cluster: PostgresCluster, simulator: Simulator
) -> None:
    """The exporter goes over to it, lets nothing pass until all is polled again, and ends what old cursors count."""
    url = cluster.create_database()
    standby = PostgresCluster(cluster.programs, cluster)
    both = re.sub(r"host=(.*)$", rf"host=\1,{standby.folder}", url)
    # So far apart that nothing is polled by chance.
    with Exporter.watching(tmp_path, simulator.base_url, store_url=both, interval="10m", settle="1s") as exporter:
        wait_for_polls(exporter, 5)
        eventually(lambda: verdict(exporter) == "pass", what="a verdict to be lost")
        with standby:
            lost = report(simulator, 1, "lost")
            assert exporter.deliver(lost.id).status_code == 202
            eventually(lambda: exporter.get("/api/v1/issues?software=lost").json()["items"], what="the effect")
            cursor = exporter.get("/api/v1/changes?after=latest").json()["next_cursor"]
            with Asking(exporter) as asking:
                cluster.stop_at_once()
                away_since = time.time()
                standby.promote()
                wait_for_polls(exporter, 5, after=away_since, within=90.0)
                eventually(lambda: verdict(exporter) == "pass", within=60.0, what="a verdict")
            polled = min(exporter.samples("patrolserver_server_last_poll_timestamp_seconds").values())
            false = [at for at, said in asking.verdicts if said == "pass" and away_since + 0.5 < at < polled]
            assert false == []
            assert set().union(*asking.statuses.values()) <= {200, 202, 503}
            assert exporter.get(f"/api/v1/changes?after={cursor}").status_code == 410
            assert "The database went back to an earlier state" in exporter.log()
            assert "Traceback" not in exporter.log()
