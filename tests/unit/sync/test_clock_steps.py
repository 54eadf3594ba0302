"""A system's clock that is set while events and polls come in."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.harness.ticking import HeldClock
from tests.unit.issues.builders import outdated
from tests.unit.sync.driving import FINISHED, NEW_ISSUES, Driver

from patrolserver_exporter.clock import SteadyClock

if TYPE_CHECKING:
    from patrolserver_exporter.store import Store


def test_a_poll_before_a_scan_s_end_does_not_seem_to_follow_it(store: Store) -> None:
    """Although the clock is set back by four seconds between them: the gate has to wait for the next poll."""
    held = HeldClock()
    driver = Driver(store, held)
    driver.time = SteadyClock(held)
    driver.take_list("web")
    held.advance(1.0)
    driver.poll(outdated("php"))
    held.set(held.now() - 4.0)
    held.advance(1.0)
    driver.apply(driver.deliver(FINISHED), list_is_fresh=True)
    driver.check(running=False)
    assert driver.server().state.event_received_at is not None
    held.advance(1.0)
    driver.poll(outdated("php"))
    assert driver.server().state.event_received_at is None


MOVE = st.tuples(st.sampled_from(["poll", "event"]), st.floats(0.01, 30.0), st.floats(-4.9, 4.9))
NUMBERS = itertools.count()


@pytest.mark.slow
@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(moves=st.lists(MOVE, max_size=12))
def test_the_last_of_poll_and_event_decides_whatever_the_clock_does(
    store: Store, moves: list[tuple[str, float, float]]
) -> None:
    """An event leaves a doubt until a poll that came later, by the order in which they really came."""
    held = HeldClock()
    clock = SteadyClock(held)
    driver = Driver(store, held, account=f"account {next(NUMBERS)}")
    driver.time = clock
    driver.take_list("web")
    held.advance(1.0)
    for kind, seconds, step in moves:
        held.set(held.now() + step)
        held.advance(seconds)
        if clock.step():
            # The service would have followed.
            clock.adopt(clock.step())
            held.advance(2 * abs(step) + 10.0)
        if kind == "poll":
            driver.poll(outdated("php"))
        else:
            driver.apply(driver.deliver(NEW_ISSUES), list_is_fresh=True)
        assert (driver.server().state.event_received_at is None) == (kind == "poll")
