"""The database's time between its replies: never later than the database has it, and never behind what was heard."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from tests.harness.ticking import HeldClock

from patrolserver_exporter.clock import SteadyClock
from patrolserver_exporter.store.database_time import DatabaseTime, boot_time

FAR = 1_000_000.0
"""How far the database's clock is from this process', so that one cannot be taken for the other."""


@given(delays=st.lists(st.floats(0.0, 3.0), min_size=1, max_size=20))
def test_it_is_never_later_than_the_database(delays: list[float]) -> None:
    """However long a reply was under way, the time is not ahead of the database's, nor before the latest reply."""
    time = DatabaseTime(HeldClock())
    ahead = FAR - boot_time()
    for delay in delays:
        asked_at = boot_time() - delay
        # The reply's time lies somewhere between the question and now.
        at = asked_at + delay / 2 + ahead
        time.heard(at, asked_at=asked_at)
        assert at <= time.now() <= boot_time() + ahead


def test_until_something_is_heard_it_is_the_process_own() -> None:
    """There is no database yet at the very start."""
    clock = HeldClock()
    assert DatabaseTime(clock).now() == clock.now()


def test_a_database_whose_clock_was_set_back_is_followed() -> None:
    """What is later than the database can have it is given up, and told as a step."""
    time = DatabaseTime(HeldClock())
    time.heard(FAR, asked_at=boot_time())
    steady = SteadyClock(time, strict=True)
    time.heard(FAR - 3600.0, asked_at=boot_time())
    assert time.now() < FAR - 3599.0
    assert -3601.0 < steady.step() < -3599.0


def test_what_is_heard_first_is_no_step() -> None:
    """The clocks of exporter and database may differ by much; only a later change is one that somebody has made."""
    time = DatabaseTime(HeldClock())
    steady = time.steady()
    time.heard(FAR, asked_at=boot_time())
    assert steady.step() == 0.0
    assert 0.0 <= steady.now() - FAR < 1.0
    time.heard(FAR - 3600.0, asked_at=boot_time())
    assert -3601.0 < steady.step() < -3599.0


def test_a_moment_of_a_strict_clock_waits_for_the_clock() -> None:
    """What is dated as a call's start may be early by what the clock went back, and never late."""
    held = HeldClock()
    strict, steady = SteadyClock(held, strict=True), SteadyClock(held)
    held.set(held.now() - 1.0)
    assert strict.moment().at == held.now()
    assert steady.moment().at > held.now()
