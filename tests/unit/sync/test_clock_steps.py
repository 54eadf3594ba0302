"""A system's clock that is set while events and polls come in."""

from __future__ import annotations

import itertools
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.harness.ticking import START, HeldClock
from tests.unit.issues.builders import outdated
from tests.unit.sync.accounts import MAIN
from tests.unit.sync.driving import FINISHED, NEW_ISSUES, Driver

from patrolserver_exporter.clock import SteadyClock
from patrolserver_exporter.inbox.deliveries import doubts
from patrolserver_exporter.store import fleet
from patrolserver_exporter.store.lease_rows import LEASE, Holder
from patrolserver_exporter.sync.clock_steps import OthersClocks, follow_clock, follow_lost_step

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
    history = driver.server(1).state.history_since
    assert history is not None
    before = driver.store.run(lambda unit: fleet.issues_of(unit.connection, MAIN, 1))
    driver.store.run(lambda unit: follow_clock(unit, seconds, now=now + seconds, rules={MAIN: driver.rules}))
    assert driver.server(1).state.last_poll_at == driver.server(1).summary.last_poll_at == polled + seconds
    assert driver.server(1).state.complete_poll_at == polled + seconds
    after = driver.store.run(lambda unit: fleet.issues_of(unit.connection, MAIN, 1))
    # Ages of issues are of days: a step of seconds is nothing to them.
    moved = seconds if seconds < -600.0 else 0.0
    assert driver.server(1).state.history_since == history + moved
    assert [(one.first_seen, one.severity_since) for one in after] == [
        (one.first_seen + moved, one.severity_since + moved) for one in before
    ]
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


def test_a_step_that_nobody_saw_puts_all_servers_in_doubt(store: Store) -> None:
    """Their times go back by what is certain, and only polls of after it count again; a small one is nothing."""
    driver = Driver(store, HeldClock())
    driver.take_list("web", "db")
    driver.poll(outdated("php"))
    driver.clock.advance(100.0)
    polled, now = driver.server(1).state.last_poll_at, driver.clock.now()
    assert polled is not None

    def follow(seconds: float) -> fleet.AccountRecord:
        back = {MAIN: seconds, "other": 9e9}
        driver.store.run(lambda unit: follow_lost_step(unit, back, now=now, rules={MAIN: driver.rules}))
        found = driver.store.run(lambda unit: fleet.find_account(unit.connection, MAIN))
        assert found is not None
        return found

    assert follow(4.9).catch_up_since is None
    assert driver.server(1).state.last_poll_at == polled
    assert follow(60.0).catch_up_since == now
    assert driver.server(1).state.last_poll_at == polled - 60.0
    assert driver.store.run(lambda unit: doubts(unit.connection).concern(MAIN, polled - 60.0))


def holder(epoch: int = 1, *, unheard: float = 0.0, owner: str | None = "another") -> Holder:
    """Somebody who renewed its lease just now, by a clock that was set back by so much since."""
    until = START + unheard + (LEASE if owner else 0.0)
    return Holder(owner, epoch, 1, until, START - 1000.0, "", "host", 1, START)


class Others:
    """The clocks of those who poll two accounts, looked at each second."""

    def __init__(self) -> None:
        self.clocks = OthersClocks()
        self.at = 0.0

    def look(self, *steps: float, pending: float = 0.0, after: float = 1.0, **of_holder: Any) -> float:
        """By how much their times are ahead after a look that finds these steps."""
        self.at += after
        found = {str(number): (holder(**of_holder), one) for number, one in enumerate(steps)}
        self.clocks.looked(found, pending=pending, at=self.at)
        return self.clocks.ahead

    def follow(self, step: float) -> float:
        """The same after a step of this process."""
        self.clocks.followed(step)
        return self.clocks.ahead


def test_others_times_are_ahead_until_those_have_followed_the_clock() -> None:
    """However soon each notices it: before us, after us, a little more or less than we, or a second time."""
    others = Others()
    assert others.look(-7.0, 0.0) == 0.0
    assert others.look(-47.1, 0.0) == 0.0
    assert others.follow(-40.0) == pytest.approx(40.0)
    assert others.clocks.ahead_of("0") == 0.0
    assert others.clocks.ahead_of("1") == pytest.approx(40.0)
    assert others.follow(-60.0) == pytest.approx(100.0)
    assert others.look(-107.0, -39.5) == pytest.approx(60.5)
    assert others.look(-107.0, -99.5) == 0.0
    assert others.follow(3600.0) == 0.0


def test_an_account_that_moves_on_is_as_far_behind_as_before() -> None:
    """Whoever takes it over goes back by what it saw itself; what this process polls is its own."""
    others = Others()
    others.look(0.0)
    others.follow(-40.0)
    assert others.look(0.0, epoch=2) == pytest.approx(40.0)
    assert others.look(-39.0, epoch=2) == 0.0
    others.follow(-40.0)
    assert others.look() == 0.0


def test_an_account_that_is_first_seen_in_the_middle_of_a_step_is_taken_as_it_is() -> None:
    """By an exporter that is about to follow it: the one that polls it has done so already."""
    others = Others()
    assert others.look(-3600.0, pending=-3600.0) == 0.0
    assert others.follow(-3600.0) == 0.0


def test_no_difference_lasts_for_ever() -> None:
    """A step that only this process has seen ends after ten minutes, one that only another one has after seconds."""
    others = Others()
    others.look(0.0)
    others.follow(-40.0)
    others.look(0.0)
    assert others.look(0.0, after=599.0) == pytest.approx(40.0)
    assert others.look(0.0, after=1.0) == 0.0
    others.look(-40.0)
    assert others.look(-40.0, after=30.0) == 0.0
    assert others.follow(-40.0) == pytest.approx(40.0)


@pytest.mark.parametrize("owner", ["another", None])
def test_times_are_ahead_of_a_clock_by_which_its_owner_lived_in_the_future(owner: str | None) -> None:
    """It was set back since that one was heard of, and until somebody takes the account over, that stays so."""
    others = Others()
    assert others.look(0.0, unheard=40.0, owner=owner) == pytest.approx(40.0)
    assert others.look(0.0, unheard=30.0, owner=owner) == pytest.approx(40.0)
    assert others.look(-38.0, epoch=2) == 0.0
    assert Others().look(0.0, unheard=-2.0, owner=owner) == 0.0


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
