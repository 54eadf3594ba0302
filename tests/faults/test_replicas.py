"""The promise on several exporters on one PostgreSQL: one polls, all show the same, a take-over loses nothing."""

from __future__ import annotations

import re
import signal
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

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

pytestmark = [pytest.mark.calm, pytest.mark.promise("second-exporter")]

OWNER = "patrolserver_exporter_account_owner"


@pytest.fixture
def database(postgres: PostgresCluster) -> Iterator[str]:
    """The URL of an empty state."""
    url = postgres.create_database()
    Store(url).close()
    yield url
    postgres.drop_database(url)


@pytest.fixture
def replicas(tmp_path: Path, database: str, simulator: Simulator) -> Iterator[list[Exporter]]:
    """Two exporters, not started yet."""
    made = []
    with ExitStack() as stack:
        for name in ("blue", "green"):
            folder = tmp_path / name
            folder.mkdir()
            made.append(Exporter.watching(folder, simulator.base_url, store_url=database, interval="2s", settle="1s"))
            stack.callback(made[-1].kill)
        yield made


def owners(replicas: list[Exporter]) -> list[float | None]:
    """Who polls, as each of them says."""
    return [one.value(OWNER, account="main") for one in replicas]


def fleet(exporter: Exporter) -> set[str]:
    """The lines of the fleet's series that do not depend on the moment."""
    return {
        line
        for line in exporter.metrics().splitlines()
        if line.startswith(("patrolserver_server_issues", "patrolserver_servers", "patrolserver_server_software"))
    }


def applied(exporter: Exporter) -> float:
    """Deliveries that took effect."""
    return exporter.value("patrolserver_exporter_inbox_deliveries", state="applied") or 0.0


def polled_by(exporter: Exporter) -> str:
    """Who polls the account, as its page says."""
    found = re.search(r"<dt>Polled by</dt><dd><bdi>(.*?)</bdi>", exporter.get("/").text)
    return found[1] if found else ""


def state_of(exporter: Exporter, operation: str) -> str:
    """How a refresh stands."""
    return str(exporter.get(operation, headers=exporter.operator).json()["operation"]["state"])


def verdict(exporter: Exporter, **policy: Any) -> str:
    """What its gate says of all servers."""
    body = {"servers": ["*"], "policy": {"max_unknown_software": 999, "max_by_severity": {"critical": 99}} | policy}
    reply = requests.post(f"{exporter.url}/api/v1/gate", json=body, headers=exporter.operator, timeout=30)
    return str(reply.json()["verdict"]) if reply.ok else "refused"


def test_all_show_what_one_of_them_polls(replicas: list[Exporter], simulator: Simulator) -> None:
    """One owns the account; series, gate and operations are the same everywhere; each takes deliveries in."""
    first, second = replicas
    first.start(within=90.0)
    wait_for_polls(first, 5)
    second.start(within=90.0)
    assert owners(replicas) == [1.0, 0.0]
    wait_for_polls(second, 5, after=time.time() - 60.0)
    eventually(lambda: fleet(first) == fleet(second), what="the same series")
    assert second.get("/-/ready").status_code == 200
    for number, exporter in enumerate((second, first, second)):
        event = report(simulator, 1 + number, f"surprise{number}")
        assert exporter.deliver(event.id).status_code == 202
    eventually(lambda: applied(first) == applied(second) == 3.0, what="the deliveries' effect on both")
    eventually(lambda: fleet(first) == fleet(second), what="the same series")
    assert any("reported" in line or "high" in line for line in fleet(second))
    eventually(lambda: verdict(first) == verdict(second) != "unknown", what="one verdict")
    reply = requests.post(f"{second.url}/api/v1/servers/1/refresh", headers=second.operator, timeout=10)
    assert reply.status_code == 202
    operation = f"/api/v1/operations/{reply.json()['operation']['id']}"
    eventually(lambda: state_of(first, operation) == "done", what="the refresh")
    assert state_of(second, operation) == "done"
    eventually(lambda: second.value("patrolserver_exporter_replicas") == 2.0, what="both of them")
    assert second.value("patrolserver_exporter_replicas_config_differs") == 0.0
    eventually(lambda: polled_by(first) == "this exporter", what="its page to say that it polls")
    assert first.process is not None
    assert f"process {first.process.pid} on host" in polled_by(second)
    for exporter in replicas:
        assert "Traceback" not in exporter.log()


def test_another_one_goes_on_after_a_kill_and_after_a_stop(replicas: list[Exporter], simulator: Simulator) -> None:
    """Within 15 s after SIGKILL, within seconds after SIGTERM; deliveries go to whoever lives, and none is lost."""
    first, second = replicas
    first.start(within=90.0)
    wait_for_polls(first, 5)
    second.start(within=90.0)
    assert owners(replicas) == [1.0, 0.0]
    first.kill()
    began = time.monotonic()
    event = report(simulator, 1, "after the kill")
    assert second.deliver(event.id).status_code == 202
    eventually(lambda: second.value(OWNER, account="main") == 1.0, within=30.0, what="another owner")
    assert time.monotonic() - began < 20.0
    eventually(lambda: applied(second) == 1.0, within=30.0, what="the delivery's effect")
    wait_for_polls(second, 5, after=time.time())
    first.start(within=90.0)
    assert owners(replicas) == [0.0, 1.0]
    assert second.terminate() == 0
    began = time.monotonic()
    eventually(lambda: first.value(OWNER, account="main") == 1.0, within=10.0, what="another owner")
    wait_for_polls(first, 5, after=time.time())
    eventually(lambda: applied(first) == 1.0, what="the count of what was applied")
    for exporter in replicas:
        assert "Traceback" not in exporter.log()


def test_who_was_stopped_past_its_lease_becomes_a_reader(
    replicas: list[Exporter], simulator: Simulator, database: str
) -> None:
    """After SIGSTOP, a take-over and SIGCONT the first one writes nothing more, follows, and stays ready."""
    first, second = replicas
    first.start(within=90.0)
    wait_for_polls(first, 5)
    second.start(within=90.0)
    first.signal(signal.SIGSTOP)
    try:
        eventually(lambda: second.value(OWNER, account="main") == 1.0, within=30.0, what="another owner")
        wait_for_polls(second, 5, after=time.time())
    finally:
        first.signal(signal.SIGCONT)
    eventually(lambda: "lost its lease" in first.log(), what="that it notices")
    eventually(lambda: owners(replicas) == [0.0, 1.0], what="one owner")
    event = report(simulator, 1, "afterwards")
    # Until it has looked at the database again, it vouches for nothing.
    eventually(lambda: first.deliver(event.id).status_code == 202, what="a delivery that is taken in")
    eventually(lambda: applied(first) == applied(second) == 1.0, within=30.0, what="the delivery's effect")
    eventually(lambda: fleet(first) == fleet(second), what="the same series")
    assert first.get("/-/ready").status_code == 200
    with psycopg.connect(database.replace("+psycopg", ""), autocommit=True) as connection:
        assert connection.execute("SELECT count(*) FROM replicas").fetchall() == [(2,)]
    for exporter in replicas:
        assert "Traceback" not in exporter.log()
