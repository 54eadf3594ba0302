"""A clock that is set: what happens later in the process has the later time."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.harness.ticking import HeldClock

from patrolserver_exporter.clock import TOLERANCE, SteadyClock

DAY = 86_400.0


@given(moves=st.lists(st.tuples(st.floats(0.001, 100.0), st.floats(-10.0, 10.0)), max_size=60))
def test_small_steps_reorder_nothing(moves: list[tuple[float, float]]) -> None:
    """Times rise, whatever the system's clock does, and stay within the tolerance of it unless a step is told."""
    held = HeldClock()
    clock = SteadyClock(held)
    times = [clock.now()]
    for seconds, step in moves:
        held.advance(seconds)
        held.set(held.now() + step)
        times.append(clock.now())
        assert clock.step() or abs(times[-1] - held.now()) < TOLERANCE + 0.001
    assert all(earlier < later for earlier, later in itertools.pairwise(times))


def test_a_clock_that_is_set_back_a_little_is_waited_for() -> None:
    """The time goes a hundredth slower until the system's clock has caught up."""
    held = HeldClock()
    clock = SteadyClock(held)
    held.set(held.now() - 4.0)
    assert clock.now() == pytest.approx(held.now() + 4.0)
    held.advance(100.0)
    assert clock.now() == pytest.approx(held.now() + 3.0)
    held.advance(1000.0)
    assert clock.now() == pytest.approx(held.now())


@pytest.mark.parametrize("step", [40 * DAY, -40 * DAY, 6.0, -6.0])
def test_a_large_step_is_told_until_it_is_adopted(step: float) -> None:
    """The time goes on as it was before; what began before the step is told by the clock after it."""
    held = HeldClock()
    clock = SteadyClock(held)
    began = clock.moment()
    held.advance(10.0)
    held.set(held.now() + step)
    assert clock.step() == pytest.approx(step)
    assert clock.now() == pytest.approx(began.at + 10.0)
    clock.adopt(step)
    assert clock.step() == 0.0
    assert clock.now() == pytest.approx(held.now())
    assert clock.time_of(began) == pytest.approx(min(began.at, began.at + step))


def test_small_steps_add_up() -> None:
    """What is not worth following alone is told once it is five seconds."""
    held = HeldClock()
    clock = SteadyClock(held)
    steps = []
    for _ in range(3):
        held.set(held.now() - 2.0)
        steps.append(clock.step())
    assert steps == [0.0, 0.0, pytest.approx(-6.0)]
