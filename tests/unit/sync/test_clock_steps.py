"""A system's clock that is set while events and polls come in."""

from __future__ import annotations

import itertools
from functools import partial
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.harness.ticking import HeldClock
from tests.unit.issues.builders import outdated
from tests.unit.sync.accounts import MAIN
from tests.unit.sync.driving import FINISHED, NEW_ISSUES, Driver

from patrolserver_exporter.clock import SteadyClock
from patrolserver_exporter.store import fleet
from patrolserver_exporter.sync.clock_steps import follow_clock

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


@pytest.mark.parametrize("seconds", [-30.0, -40 * 86_400.0])
def test_data_gets_no_younger_when_the_clock_is_set_back(store: Store, seconds: float) -> None:
    """Its age goes on, as that of the list does; only of what seems to be from the future nobody knows it."""
    driver = Driver(store, HeldClock())
    driver.take_list("web", "db")
    driver.poll(outdated("php"))
    driver.clock.advance(2 * abs(seconds))
    driver.take_list("web", "db")
    driver.clock.advance(abs(seconds) / 2)
    driver.poll(outdated("php"), server_id=2)
    polled, now = driver.server(1).state.last_poll_at, driver.clock.now()
    assert polled is not None
    driver.store.run(lambda unit: follow_clock(unit, seconds, now=now + seconds, rules={MAIN: driver.rules}))
    assert driver.server(1).state.last_poll_at == driver.server(1).summary.last_poll_at == polled + seconds
    assert driver.server(1).state.complete_poll_at == polled + seconds
    assert driver.server(2).state.last_poll_at is None
    account = driver.store.run(lambda unit: fleet.find_account(unit.connection, MAIN))
    assert account is not None
    assert account.last_success_at is None


def test_a_list_gets_no_younger_when_the_clock_is_set_back(store: Store) -> None:
    """Each time that it is."""
    driver = Driver(store, HeldClock())
    driver.take_list("web")
    now, listed_at = driver.clock.now() + 3600.0, driver.clock.now()
    for back in (-60.0, -600.0):
        now += back
        driver.store.run(partial(follow_clock, step=back, now=now, rules={MAIN: driver.rules}))
    account = driver.store.run(lambda unit: fleet.find_account(unit.connection, MAIN))
    assert account is not None
    assert account.last_success_at == listed_at - 660.0


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
