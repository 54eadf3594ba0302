"""The promise on what is not known: a model that knows the truth finds no ``pass`` that nobody could vouch for."""

from __future__ import annotations

import os
import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest
from tests.faults.truth.driver import NAMES, SETTLE, Run, config
from tests.faults.truth.model import Model
from tests.faults.truth.witness import witnessed
from tests.harness.faketime import faked_clock
from tests.harness.gate import MENDED
from tests.harness.process import Exporter
from tests.harness.prometheus import free_port
from tests.harness.promises import measured
from tests.harness.sizes import FULL, LONGEST

from patrolserver_exporter.simulator.options import SimulatorOptions
from patrolserver_exporter.simulator.software import Change, Kind

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.long

SEED = int(os.environ.get("PATROLSERVER_SEED", "1"))
"""Another one tells another story."""
QUESTIONS, A_SECOND, ROUND = (10_000, 30.0, 3.0) if FULL else (500, 9.0, 2.5)


@contextmanager
def playing(folder: Path, seed: int) -> Iterator[Run]:
    """An exporter that watches a witnessed simulator with a fleet."""
    model = Model(SETTLE)
    with witnessed(SimulatorOptions(listen_address="127.0.0.1:0", servers=0), model) as simulator:
        address = f"--web.listen-address=127.0.0.1:{free_port()}"
        clock = faked_clock(folder)
        environ = None if clock is None else clock.environ
        with Exporter(
            folder, config(simulator.base_url, None, folder=str(folder)), address, environ=environ
        ) as exporter:
            yield Run(seed, simulator, exporter, model, None if clock is None else clock.set)


def show(capsys: pytest.CaptureFixture[str], line: str) -> None:
    """Print it whatever becomes of the test."""
    with capsys.disabled():
        sys.stdout.write(f"\n{line}\n")


@pytest.mark.promise("never-fine", "worse", "gate-closed")
@pytest.mark.timeout(LONGEST)
def test_no_pass_that_nobody_could_vouch_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], request: pytest.FixtureRequest
) -> None:
    """Whatever happens to the world, the API, the webhooks and the exporter: not one false pass."""
    with playing(tmp_path, SEED) as run:
        run.play(QUESTIONS, a_second=A_SECOND, length=ROUND)
        show(capsys, f"seed {SEED}: {run.tally}")
        load, bound = f"seed {SEED}: {run.tally.asked} questions", f"{len(run.tally.false)} false passes"
        measured(request.node, load=load, bound=bound)
        assert run.tally.verdicts["pass"] > run.tally.asked / 20, str(run.tally)
        assert "Traceback" not in run.exporter.log()
    if run.tally.false:
        pytest.fail(f"seed {SEED}: {run.tally}\n\n{run.tally.examples()}", pytrace=False)


@pytest.mark.promise("gate-closed")
def test_a_healthy_fleet_is_never_unknown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """An honest API, servers that break and are mended, a reload and a kill: each answer is a pass or a fail."""
    with playing(tmp_path, SEED) as run:
        run.settle_down()
        end = time.monotonic() + (60.0 if FULL else 15.0)
        while time.monotonic() < end:
            server, software = run.draw.choice(run.simulator.world.servers(run.simulator.world.demo)), "openssl"
            change = run.draw.choice((Change(Kind.EXPLOITABLE, software), Change(Kind.OUTDATED, software)))
            run.simulator.world.change(server, run.draw.choice((change, MENDED)))
            for act in run.draw.choice(((run.reload,), (), (), (run.kill,))):
                act()
            for _ in range(20):
                run.question(healthy=True)
        show(capsys, f"healthy: {run.tally}")
        assert run.tally.asked > len(NAMES)
        assert run.tally.verdicts["unknown"] == 0, str(run.tally)
        assert not run.tally.false, str(run.tally.false[0])
