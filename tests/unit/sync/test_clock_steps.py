from __future__ import annotations

import pytest
from tests.harness.ticking import HeldClock

from patrolserver_exporter.sync.clock_steps import ClockSteps

DAY = 86_400.0


@pytest.mark.parametrize("step", [40 * DAY, -40 * DAY, 6.0, -6.0])
def test_a_clock_that_is_set_is_noticed_once(step: float) -> None:
    """A step is told once, however long the time between two looks."""
    clock = HeldClock()
    watch = ClockSteps(clock)
    clock.advance(1000.0)
    assert watch.step() == 0.0
    clock.set(clock.now() + step)
    clock.advance(10.0)
    assert watch.step() == pytest.approx(step)
    assert watch.step() == 0.0


def test_small_steps_add_up() -> None:
    """What is not worth following alone is followed once it is five seconds."""
    clock = HeldClock()
    watch = ClockSteps(clock)
    steps = []
    for _ in range(4):
        clock.set(clock.now() + 2.0)
        steps.append(watch.step())
    assert steps == [0.0, 0.0, pytest.approx(6.0), 0.0]
