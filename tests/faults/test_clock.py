"""The promise on a clock that jumps: nothing fires early, nothing waits for weeks, nothing lies in the future."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import psycopg
import pytest
import requests
from tests.harness.events import report
from tests.harness.faketime import faked_clock
from tests.harness.fleet import LAST_POLL, total, wait_for_polls
from tests.harness.process import CONFIG, Exporter
from tests.harness.waiting import eventually

from patrolserver_exporter.simulator.faults import Fault, FaultKind

if TYPE_CHECKING:
    from pathlib import Path

    from tests.harness.faketime import FakedClock
    from tests.harness.postgres import PostgresCluster

    from patrolserver_exporter.simulator.server import Simulator

pytestmark = [pytest.mark.calm, pytest.mark.promise("clock")]

SERVERS = 5
DAY = 86_400.0
EVENT_CALLS = "webhooks/*/events/*"


class Clock:
    """The system's clock as one process sees it, some days off."""

    def __init__(self, faked: FakedClock) -> None:
        self._faked = faked
        self.environ = faked.environ

    def jump(self, days: float) -> None:
        """Set it so many days off."""
        self._faked.set(days * DAY)

    def now(self) -> float:
        """Seconds since the epoch, as the process has them."""
        return time.time() + self._faked.offset


@pytest.fixture
def clock(tmp_path: Path) -> Clock:
    faked = faked_clock(tmp_path)
    if faked is None:
        pytest.skip("libfaketime is not installed")
    return Clock(faked)


def inbox_has(exporter: Exporter, state: str, count: float) -> bool:
    return total(exporter.metrics(), "patrolserver_exporter_inbox_deliveries", state=state) == count


def ages(exporter: Exporter, clock: Clock) -> list[float]:
    return [clock.now() - at for at in exporter.samples(LAST_POLL).values()]


def _all_polled_again(exporter: Exporter, clock: Clock, jumped: float) -> bool:
    seen = ages(exporter, clock)
    # While the jump is noticed, which takes a tick, a time on the old clock may still show.
    assert time.monotonic() - jumped < 1.5 or all(age > -1.0 for age in seen), seen
    return len(seen) == SERVERS and all(-1.0 < age < time.monotonic() - jumped for age in seen)


@pytest.mark.parametrize("days", [-40, 40])
def test_polls_and_deliveries_go_on_over_a_jump(tmp_path: Path, simulator: Simulator, clock: Clock, days: int) -> None:
    """40 days ahead or back: polls within seconds, deliveries take effect, and no poll is ever in the future."""
    config = CONFIG.format(
        api_url=simulator.base_url, interval="10s", settle="1s", store_url=f"sqlite:///{tmp_path / 'state.db'}"
    )
    with Exporter(tmp_path, config, environ=clock.environ) as exporter:
        wait_for_polls(exporter, SERVERS, after=clock.now() - 60.0)
        polls = total(exporter.metrics(), "patrolserver_exporter_api_requests_total", endpoint="software")
        clock.jump(days)
        jumped = time.monotonic()
        eventually(lambda: _all_polled_again(exporter, clock, jumped), within=45.0, what="polls after the jump")
        event = report(simulator, 1, "surprising")
        assert exporter.deliver(event.id).status_code == 202
        eventually(lambda: inbox_has(exporter, "applied", 1.0), within=20.0, what="the delivery's effect")
        assert total(exporter.metrics(), "patrolserver_exporter_api_requests_total", endpoint="software") < polls + 60
        assert exporter.value("patrolserver_up", account="main") == 1.0
        assert "Traceback" not in exporter.log()


def test_a_jump_expires_no_event(tmp_path: Path, simulator: Simulator, clock: Clock) -> None:
    """An event that waits for its next try is tried again after a jump of 40 days, and is not given up for its age."""
    config = CONFIG.format(
        api_url=simulator.base_url, interval="10m", settle="1s", store_url=f"sqlite:///{tmp_path / 'state.db'}"
    )
    with Exporter(tmp_path, config, environ=clock.environ) as exporter:
        wait_for_polls(exporter, SERVERS, after=clock.now() - 60.0)
        simulator.faults.add(Fault(kind=FaultKind.STATUS, status=503, path=EVENT_CALLS))
        assert exporter.deliver(report(simulator, 1, "surprising").id).status_code == 202
        eventually(lambda: inbox_has(exporter, "retry", 1.0), what="a first try that failed")
        clock.jump(40)
        tries = simulator.requests.count("GET webhooks/:webhook/events/:event")
        eventually(
            lambda: simulator.requests.count("GET webhooks/:webhook/events/:event") > tries, what="a try after the jump"
        )
        simulator.faults.clear()
        eventually(lambda: inbox_has(exporter, "applied", 1.0), within=60.0, what="the event's effect")


@pytest.mark.parametrize("minutes", [-7, 7])
def test_a_shared_database_tells_the_time(
    tmp_path: Path, simulator: Simulator, clock: Clock, postgres: PostgresCluster, minutes: int
) -> None:
    """With a clock that is minutes off, polls and deliveries are dated by PostgreSQL's, and the gate judges by it."""
    url = postgres.create_database()
    clock.jump(minutes / (24 * 60))
    config = CONFIG.format(api_url=simulator.base_url, interval="2s", settle="1s", store_url=url)
    with Exporter(tmp_path, config, environ=clock.environ) as exporter:
        wait_for_polls(exporter, SERVERS, after=time.time() - 60.0)
        # Nobody has set a clock: the times of an earlier run must not follow one at each start.
        assert "clock was set" not in exporter.log()
        assert all(-1.0 < time.time() - at < 60.0 for at in exporter.samples(LAST_POLL).values())
        event = report(simulator, 1, "surprising")
        assert exporter.deliver(event.id).status_code == 202
        with psycopg.connect(url.replace("+psycopg", ""), autocommit=True) as connection:
            query = b"SELECT extract(epoch FROM clock_timestamp()) - received_at FROM inbox"
            assert 0.0 <= float((connection.execute(query).fetchone() or (-1.0,))[0]) < 30.0
        eventually(lambda: inbox_has(exporter, "applied", 1.0), within=20.0, what="the delivery's effect")
        body = {"servers": [1], "policy": {"max_age": "1m", "max_unknown_software": 999}}
        url_of_gate = f"{exporter.url}/api/v1/gate"

        def judged() -> str:
            reply = requests.post(url_of_gate, json=body, headers=exporter.operator, timeout=10)
            return str(reply.json()["verdict"])

        eventually(lambda: judged() == "pass", what="a verdict on data that is fresh")
    postgres.drop_database(url)
