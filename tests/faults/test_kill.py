"""The promise on ``kill -9``: what was acknowledged takes effect, once, whenever the process dies."""

from __future__ import annotations

import logging
import math
import random
import time
from collections import Counter
from typing import TYPE_CHECKING

import pytest
from tests.harness.events import report
from tests.harness.fleet import fleet_lines, issues_by_server, total, wait_for_polls
from tests.harness.process import Exporter
from tests.harness.prometheus import free_port
from tests.harness.promises import measured
from tests.harness.sending import Sender
from tests.harness.sizes import FULL, LONGEST
from tests.harness.waiting import eventually

from patrolserver_exporter.issues.model import ChangeKind, Kind
from patrolserver_exporter.simulator.faults import Fault, FaultKind
from patrolserver_exporter.simulator.options import SimulatorOptions
from patrolserver_exporter.simulator.server import Simulator
from patrolserver_exporter.store import Store, fleet, history

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.alone

log = logging.getLogger(__name__)

SERVERS = 10
EVENT_CALLS = "webhooks/*/events/*"


@pytest.fixture
def simulator() -> Iterator[Simulator]:
    with Simulator(SimulatorOptions(listen_address="127.0.0.1:0", servers=SERVERS, software=6)) as running:
        yield running


def waiting(text: str) -> float:
    """How many deliveries wait; infinite while nobody has counted them yet."""
    if "patrolserver_exporter_inbox_deliveries{" not in text:
        return math.inf
    states = ("received", "fetching", "retry", "unverified", "blocked")
    return sum(total(text, "patrolserver_exporter_inbox_deliveries", state=state) for state in states)


def kept(exporter: Exporter) -> tuple[list[str], Counter[str]]:
    """Software of the open reported issues, and the software that the change feed says was opened."""
    with Store(f"sqlite:///{exporter.folder / 'state.db'}") as store:
        issues = store.run(lambda unit: [i for _, some in fleet.open_issues(unit.connection, "main") for i in some])
        changes = store.run(lambda unit: history.changes_after(unit.connection, 0, limit=100_000))
    reported = [issue.canonical_name for issue in issues if issue.kind is Kind.REPORTED]
    opened = Counter(c.issue.canonical_name for c in changes if c.kind is ChangeKind.OPENED)
    return reported, opened


@pytest.mark.promise("kill", "never-resent")
@pytest.mark.timeout(LONGEST)
def test_a_burst_with_kills_loses_nothing_and_doubles_nothing(
    tmp_path: Path, simulator: Simulator, request: pytest.FixtureRequest
) -> None:
    """Killed about each second, with 20 % upstream failures: what was acknowledged took effect, and exactly once."""
    events, pace = (9_000, 400.0) if FULL else (900, 250.0)
    named = {report(simulator, 1 + n % SERVERS, f"pkg-{n}").id: f"pkg-{n}" for n in range(events)}
    simulator.faults.add(Fault(kind=FaultKind.STATUS, status=503, path=EVENT_CALLS, probability=0.2))
    address = f"--web.listen-address=127.0.0.1:{free_port()}"
    with Exporter.watching(tmp_path, simulator.base_url, address, interval="10s", settle="1h") as exporter:
        wait_for_polls(exporter, SERVERS)
        of_polls = total(exporter.metrics(), "patrolserver_issues_opened_total")
        sender = Sender(exporter, list(named), pace=pace)
        sender.start()
        kills = 0
        while sender.busy:
            sender.deliver_some(random.Random(kills).uniform(0.7, 1.3) * pace)
            exporter.kill()
            exporter.start()
            kills += 1
        simulator.faults.clear()
        text = eventually(
            lambda: "" if waiting(text := exporter.metrics()) else text,
            # Of 9,000 some fail six times in a row, and wait some minutes for the next try.
            within=900.0 if FULL else 60.0,
            what="an empty inbox",
        )
        assert exporter.terminate() == 0
        reported, opened = kept(exporter)

        acknowledged = {named[event_id] for event_id in sender.acknowledged}
        log.info(
            "%d sent, %d events acknowledged, %d kills, %d took effect",
            sender.sent,
            len(acknowledged),
            kills,
            len(reported),
        )
        twice = {name for name, count in opened.items() if name in set(named.values()) and count > 1}
        measured(
            request.node,
            load=f"{kills} kills, 20 % of the API's answers 503, 10 % sent twice",
            sent=sender.sent,
            lost=len(acknowledged - set(reported)),
            doubled=len(reported) - len(set(reported)) + len(twice),
            bound=f"{len(acknowledged)} acknowledged",
        )
        assert len(acknowledged) > events / 4
        assert kills >= 3
        assert acknowledged - set(reported) == set()
        assert len(reported) == len(set(reported))
        assert twice == set()
        assert total(text, "patrolserver_issues_opened_total") - of_polls == len(reported)

        _state_equals_upstream(exporter, simulator, tmp_path / "fresh")


def _state_equals_upstream(exporter: Exporter, simulator: Simulator, folder: Path) -> None:
    """After polls that started ``settle`` after the events, the series are those of an exporter that just began."""
    exporter.write_config(exporter.config_file.read_text().replace("settle: 1h", "settle: 1s"))
    exporter.start()
    began = time.time()
    wait_for_polls(exporter, SERVERS, after=began)
    folder.mkdir()
    with Exporter.watching(folder, simulator.base_url) as fresh:
        wait_for_polls(fresh, SERVERS)
        assert issues_by_server(exporter.metrics()) == issues_by_server(fresh.metrics())


@pytest.mark.promise("kill")
def test_after_a_kill_the_same_series_are_back_without_a_poll(tmp_path: Path, simulator: Simulator) -> None:
    """``kill -9``, restart, and within two seconds the fleet's series are what they were, with the API away."""
    with Exporter.watching(tmp_path, simulator.base_url, interval="10m", settle="10m") as exporter:
        wait_for_polls(exporter, SERVERS)
        event = report(simulator, 3, "surprising")
        assert exporter.deliver(event.id).status_code == 202
        eventually(lambda: waiting(exporter.metrics()) == 0, what="the event's effect")
        wait_for_polls(exporter, 1, after=event.at)
        before = fleet_lines(exporter.metrics())
        simulator.faults.add(Fault(kind=FaultKind.HANG, seconds=30.0))
        exporter.kill()
        began = time.monotonic()
        exporter.start()
        after = fleet_lines(exporter.metrics())
        elapsed = time.monotonic() - began
        assert after == before
        assert elapsed < 2.0
