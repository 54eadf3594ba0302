"""One pool of threads for the calls of all accounts: who gets a thread, and when there is none."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import pytest
from tests.harness.ticking import HeldClock

from patrolserver_exporter.sync.threads import CallThreads

if TYPE_CHECKING:
    from collections.abc import Iterator

    from patrolserver_exporter.sync.threads import AccountThreads

LONG = 3600.0


class Calls:
    """Calls that end when the test says so."""

    def __init__(self) -> None:
        self._began = threading.Condition()
        self._may_end = threading.Event()
        self.began: list[str] = []

    def make(self, name: str) -> None:
        """One call, for as long as they hang."""
        self.note(name)
        assert self._may_end.wait(30.0)

    def note(self, name: str) -> None:
        """One that is answered at once."""
        with self._began:
            self.began.append(name)
            self._began.notify_all()

    def end(self) -> None:
        """The API answers."""
        self._may_end.set()

    def wait_for(self, count: int) -> None:
        """Until so many have begun."""
        with self._began:
            assert self._began.wait_for(lambda: len(self.began) >= count, 10.0)

    def has_begun(self, *names: str) -> bool:
        """Whether exactly these began, in whatever order."""
        return sorted(self.began) == sorted(names)


@pytest.fixture
def hanging() -> Iterator[Calls]:
    """An API that does not answer before the test's end."""
    calls = Calls()
    yield calls
    calls.end()


def running() -> set[threading.Thread]:
    return {thread for thread in threading.enumerate() if thread.name.startswith(("call", "poll-", "event-"))}


def fill(account: AccountThreads, calls: Calls, count: int) -> None:
    for _ in range(count):
        account.submit(calls.make, account.name)


def test_threads_come_as_they_are_needed_and_go_at_the_end(hanging: Calls) -> None:
    """Calls one after the other take one thread; none is left when the pool is closed and all have ended."""
    before = running()
    pool = CallThreads(4, reserved=1)
    account, quick = pool.of("a", 2), Calls()
    for number in range(5):
        account.submit(quick.note, str(number))
        assert account.join(10.0)
    assert quick.began == list("01234")
    assert len(running() - before) == 1
    fill(account, hanging, 2)
    hanging.wait_for(2)
    ours = running() - before
    assert len(ours) == 2
    pool.close()
    account.submit(quick.note, "too late")
    hanging.end()
    for thread in ours:
        thread.join(10.0)
    assert not running() & ours
    assert quick.began == list("01234")


def test_a_silent_api_leaves_threads_to_the_other_accounts(hanging: Calls) -> None:
    """An account whose calls all hang takes no thread that is kept for accounts with nothing under way."""
    pool = CallThreads(6, reserved=2, slow=LONG)
    silent, other = pool.of("silent", 4), pool.of("other", 4)
    fill(silent, hanging, 20)
    hanging.wait_for(4)
    quick = Calls()
    for number in range(10):
        other.submit(quick.note, str(number))
    assert other.join(10.0)
    assert quick.began == [str(number) for number in range(10)]
    assert hanging.has_begun(*["silent"] * 4)
    pool.close()


def test_an_account_gets_all_that_it_may_have_under_way(hanging: Calls) -> None:
    """Where one may have more calls under way than the pool has threads, the pool grows, and others still get one."""
    pool = CallThreads(4, reserved=2, slow=0.0)
    large, small = pool.of("large", 9), pool.of("small", 2)
    fill(large, hanging, 9)
    hanging.wait_for(9)
    quick = Calls()
    small.submit(quick.note, "small")
    assert small.join(10.0)
    pool.close()


def test_slow_accounts_together_take_half_of_the_threads(hanging: Calls) -> None:
    """Many silent APIs leave the other half to accounts that answer."""
    clock = HeldClock()
    pool = CallThreads(8, reserved=1, slow=2.0, monotonic=clock.monotonic)
    silent = [pool.of(f"silent{number}", 1) for number in range(8)]
    for account in silent[:4]:
        fill(account, hanging, 1)
    hanging.wait_for(4)
    for account in silent[4:]:
        # Nobody knows yet that they are silent.
        fill(account, hanging, 1)
    hanging.wait_for(8)
    clock.advance(2.0)
    hanging.end()
    for account in silent:
        assert account.join(10.0)
    again, quick = Calls(), Calls()
    for account in silent:
        fill(account, again, 1)
    other = pool.of("other", 4)
    for number in range(10):
        other.submit(quick.note, str(number))
    assert other.join(10.0)
    assert len(again.began) == 4
    again.end()
    for account in silent:
        assert account.join(10.0)
    assert len(again.began) == 8
    pool.close()


def test_who_has_less_under_way_goes_first() -> None:
    """One thread becomes free: it goes to the account with fewer calls, and of equal ones to who waited longer."""
    pool = CallThreads(3, reserved=0, slow=LONG)
    calls = [Calls() for _ in range(3)]
    busy, one, two = (pool.of(name, 3) for name in ("busy", "one", "two"))
    for hanging in calls:
        busy.submit(hanging.make, "busy")
    for hanging in calls:
        hanging.wait_for(1)
    seen = Calls()
    busy.submit(seen.note, "busy")
    two.submit(seen.note, "two")
    two.submit(seen.note, "two")
    one.submit(seen.note, "one")
    calls[0].end()
    for account in (one, two):
        assert account.join(10.0)
    seen.wait_for(4)
    assert seen.began == ["two", "one", "two", "busy"]
    for hanging in calls:
        hanging.end()
    pool.close()


def test_what_is_urgent_goes_first_and_is_done_in_any_case(hanging: Calls) -> None:
    """An event that was claimed overtakes polls, and is not forgotten when the account is stopped."""
    pool = CallThreads(1, reserved=0)
    account, seen = pool.of("a", 1), Calls()
    fill(account, hanging, 1)
    hanging.wait_for(1)
    account.submit(seen.note, "poll")
    account.submit_urgent(seen.note, "event")
    assert not account.join(0.01)
    hanging.end()
    assert account.join(10.0)
    assert seen.began == ["event", "poll"]

    held = Calls()
    fill(account, held, 1)
    held.wait_for(1)
    account.submit(seen.note, "poll")
    account.submit_urgent(seen.note, "event")
    account.drop_waiting()
    held.end()
    assert account.join(10.0)
    assert seen.began == ["event", "poll", "event"]
    pool.close()


def test_a_bug_in_a_call_costs_no_thread(caplog: pytest.LogCaptureFixture) -> None:
    """It is logged, and the thread goes on with the next one."""

    def fail() -> None:
        raise ZeroDivisionError

    pool = CallThreads(1, reserved=0)
    account, seen = pool.of("a", 1), Calls()
    account.submit(fail)
    account.submit(seen.note, "next")
    assert account.join(10.0)
    assert seen.began == ["next"]
    assert "a bug" in caplog.text
    pool.close()


def test_that_nothing_goes_on_can_be_seen(hanging: Calls) -> None:
    """While jobs wait, the time of the last progress stands still until one begins, makes a call or ends."""
    clock = HeldClock()
    pool = CallThreads(1, reserved=0, monotonic=clock.monotonic)
    account = pool.of("a", 1)
    fill(account, hanging, 1)
    hanging.wait_for(1)
    clock.advance(5.0)
    assert pool.last_progress == clock.monotonic()
    fill(account, hanging, 1)
    stood_still = clock.monotonic()
    clock.advance(5.0)
    assert pool.last_progress == stood_still
    pool.note_call()
    assert pool.last_progress == clock.monotonic()
    clock.advance(5.0)
    hanging.end()
    assert account.join(10.0)
    assert pool.last_progress == clock.monotonic()
    pool.close()
