"""The promises on replicas that are measured: how soon another one takes over, and how soon all show the same."""

from __future__ import annotations

import statistics
import time
from typing import TYPE_CHECKING

import pytest
from tests.harness.events import report
from tests.harness.fleet import wait_for_polls
from tests.harness.promises import measured
from tests.harness.replicas import OWNER, PATIENCE, Replicas
from tests.harness.sizes import FULL
from tests.harness.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.harness.process import Exporter

    from patrolserver_exporter.simulator.server import Simulator

pytestmark = [pytest.mark.alone, pytest.mark.promise("replicas")]

SERVERS = 5


@pytest.fixture
def replicas(tmp_path: Path, database: str, simulator: Simulator) -> Iterator[Replicas]:
    """Two, not started yet."""
    with Replicas(tmp_path, simulator.base_url, [database] * 2, config={"interval": "2s", "settle": "1s"}) as made:
        yield made


def test_another_one_takes_over_in_time(
    replicas: Replicas, simulator: Simulator, request: pytest.FixtureRequest
) -> None:
    """Within 15 s after SIGKILL, within 1 s after SIGTERM; what was acknowledged meanwhile takes effect."""
    replicas.start()
    took: dict[str, list[float]] = {"kill": [], "term": []}
    delivered = 0
    for how in ("kill", "term") * (10 if FULL else 2):
        owner = replicas.owner()
        (other,) = replicas.others(owner)
        wait_for_polls(other, SERVERS, after=time.time() - 60.0, within=PATIENCE)
        if how == "kill":
            owner.kill()
            began = time.monotonic()
        else:
            assert owner.terminate() == 0
            began = time.monotonic()
        event = report(simulator, 1 + delivered % SERVERS, f"meanwhile-{delivered}")
        delivered += other.deliver(event.id).status_code == 202
        eventually(lambda: owns(other), within=PATIENCE, what="another owner")  # noqa: B023
        took[how].append(time.monotonic() - began)
        eventually(lambda: applied(other) == delivered, within=PATIENCE, what="the deliveries' effect")  # noqa: B023
        owner.start(within=PATIENCE)
        eventually(lambda: len(replicas.owners()) == 1, within=PATIENCE, what="one owner")
    bound = f"after SIGKILL at most {max(took['kill']):.1f} s, after SIGTERM {max(took['term']):.2f} s"
    measured(request.node, load=f"{len(took['kill'])} kills and as many stops of the owner", bound=bound)
    assert delivered >= 2
    assert max(took["kill"]) < 15.0, took
    assert max(took["term"]) < 1.0, took


def owns(exporter: Exporter) -> bool:
    """Whether it says that it polls."""
    return exporter.value(OWNER, account="main") == 1.0


def applied(exporter: Exporter) -> float:
    """Deliveries that took effect."""
    return exporter.value("patrolserver_exporter_inbox_deliveries", state="applied") or 0.0


def test_a_change_is_soon_in_all_metrics(
    tmp_path: Path, database: str, simulator: Simulator, request: pytest.FixtureRequest
) -> None:
    """99 of 100 changes are on every replica within a second after the first one showed them."""
    config = {"interval": "10m", "settle": "10m"}
    with Replicas(tmp_path, simulator.base_url, [database] * 3, config=config) as replicas:
        replicas.start()
        replicas.wait_for_polls(SERVERS)
        late: list[float] = []
        for number in range(300 if FULL else 25):
            before = [issues(exporter) for exporter in replicas]
            event = report(simulator, 1 + number % SERVERS, f"change-{number}")
            assert replicas[number % 3].deliver(event.id).status_code == 202
            waiting, first = set(range(3)), 0.0
            end = time.monotonic() + 60.0
            while waiting and time.monotonic() < end:
                for place in sorted(waiting):
                    if issues(replicas[place]) > before[place]:
                        first = first or time.monotonic()
                        waiting.discard(place)
            assert not waiting, f"change {number} is not on {waiting}"
            late.append(time.monotonic() - first)
        p99 = statistics.quantiles(late, n=100, method="inclusive")[98]
        bound = f"p50 {1000 * statistics.median(late):.0f} ms, p99 {1000 * p99:.0f} ms"
        measured(request.node, load=f"{len(late)} changes on three replicas", bound=bound)
        assert p99 < 1.0, late


def issues(exporter: Exporter) -> float:
    """All open issues that it shows."""
    return sum(exporter.samples("patrolserver_server_issues").values())
