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
from tests.unit.sync.watching import FailingStore, Watching

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


def test_the_clock_is_followed_and_what_was_under_way_too(prepared_url: str, clock: HeldClock) -> None:
    """A poll that began before a step back counts as begun when it did."""
    with Watching(prepared_url, clock=clock) as watching:
        watching.start()
        watching.rest()
        began = watching.clock.moment()
        clock.advance(10.0)
        clock.set(clock.now() - 3600.0)
        watching.accounts.tick()
        assert watching.clock.now() == pytest.approx(clock.now())
        assert watching.clock.time_of(began) == pytest.approx(clock.now() - 10.0)


def test_a_clock_that_the_store_cannot_follow_goes_on_as_it_was(prepared_url: str, clock: HeldClock) -> None:
    """Else what comes in meanwhile would have times that compare wrongly with those in the store."""
    FailingStore.full.clear()
    with Watching(prepared_url, clock=clock, store=FailingStore) as watching:
        watching.start()
        watching.rest()
        FailingStore.full.set()
        before = watching.clock.now()
        clock.advance(1.0)
        clock.set(clock.now() - 3600.0)
        watching.accounts.tick()
        assert watching.clock.now() == pytest.approx(before + 1.0)
        FailingStore.full.clear()
        watching.accounts.tick()
        assert watching.clock.now() == pytest.approx(clock.now())
