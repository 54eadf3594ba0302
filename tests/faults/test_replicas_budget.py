"""The promise on the budget of an account that several exporters poll in turn: it is one for all of them."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import pytest
from tests.harness.promises import measured
from tests.harness.replicas import PATIENCE, Replicas
from tests.harness.sizes import FULL, LONGEST

from patrolserver_exporter.simulator.options import SimulatorOptions
from patrolserver_exporter.simulator.server import Simulator

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [pytest.mark.calm, pytest.mark.promise("replicas")]

A_MINUTE = 60
"""Calls that the budget allows in one."""
ON_THE_WAY = 2.0
"""Seconds that one call may take longer to arrive than another one."""
CONCURRENCY = 8
"""Calls at once, unless configured."""
PAST_THE_LEASE = 13.0
"""Seconds: it holds 10."""


@pytest.mark.timeout(LONGEST * 4)
@pytest.mark.parametrize("with_stops", [False, True], ids=["kills", "stops"])
def test_a_budget_is_for_all_of_them(
    tmp_path: Path, database: str, request: pytest.FixtureRequest, *, with_stops: bool
) -> None:
    """Through kills and rolling restarts: never more calls in a minute than allowed.

    What one that was stopped past its lease had taken from its budget may slip through after SIGCONT: a call for each
    of its threads, and five.
    """
    options = SimulatorOptions(listen_address="127.0.0.1:0", servers=40, software=6)
    with (
        Simulator(options) as simulator,
        Replicas(tmp_path, simulator.base_url, [database] * 3, config={"interval": "1s", "settle": "1s"}) as replicas,
    ):
        for exporter in replicas:
            text = exporter.config_file.read_text()
            exporter.write_config(
                text.replace("max_requests_per_minute: 60000", f"max_requests_per_minute: {A_MINUTE}")
            )
        replicas.start()
        for _ in range(3 if FULL else 1):
            owner = replicas.owner()
            if with_stops:
                replicas.stop(owner)
                time.sleep(PAST_THE_LEASE)
                replicas.owner()
                replicas.go_on(owner)
            else:
                owner.kill()
                replicas.owner()
                owner.start(within=PATIENCE)
                for exporter in replicas:
                    assert exporter.terminate(within=60.0) == 0
                    exporter.start(within=PATIENCE)
                    replicas.owner()
        # So that the last minute of all that happened is over.
        time.sleep(60.0)
        recent: Any = simulator.requests.document()["recent"]
        calls = [float(one["at"]) for one in recent]
        worst = max(calls, key=lambda at: sum(at <= one < at + 60.0 - ON_THE_WAY for one in calls))
        most = sum(worst <= one < worst + 60.0 - ON_THE_WAY for one in calls)
        if most > A_MINUTE:
            made = [f"{one['at'] - worst:+.2f} {one['path']} {one['status']}" for one in recent]
            told = [f"{exporter.url}\n{exporter.log()}" for exporter in replicas]
            print(*made, *told, sep="\n")  # noqa: T201 - why is not seen from outside.
        bound = f"at most {most} calls in a minute of {A_MINUTE}"
        load = "stops past the lease" if with_stops else "kills and rolling restarts of three replicas"
        measured(request.node, load=load, bound=bound)
        assert most > A_MINUTE / 3
        assert most <= A_MINUTE + (CONCURRENCY + 5 if with_stops else 0), bound
