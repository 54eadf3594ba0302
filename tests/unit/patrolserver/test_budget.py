from __future__ import annotations

import math
import threading
from bisect import bisect_left

from hypothesis import given
from hypothesis import strategies as st

from patrolserver_exporter.patrolserver.client import WINDOW, RequestBudget


class ManualClock:
    """A clock that stands until it is set."""

    def __init__(self, at: float = 0.0) -> None:
        self.at = at

    def now(self) -> float:
        """The set time."""
        return self.at

    def monotonic(self) -> float:
        """The set time."""
        return self.at


_STEPS = st.lists(st.one_of(st.floats(0, 120), st.sampled_from([0.0, 0.1, 1.0, 10.0, 50.0, 59.999, 60.0])), max_size=60)


def take_all(budget: RequestBudget) -> int:
    taken = 0
    while budget.try_take():
        taken += 1
    return taken


def most_in_a_window(taken: list[float], window: float = WINDOW) -> int:
    """How many calls the busiest window has, of calls in order."""
    return max((bisect_left(taken, moment + window) - n for n, moment in enumerate(taken)), default=0)


@given(per_minute=st.integers(1, 50), start=st.floats(0, 1e6), steps=_STEPS)
def test_no_window_of_a_minute_has_more_calls_than_the_budget(
    per_minute: int, start: float, steps: list[float]
) -> None:
    """However greedy the caller, any 60 s hold at most the budget."""
    clock = ManualClock(start)
    budget = RequestBudget(per_minute, clock)
    taken: list[float] = []
    for step in steps:
        clock.at += step
        taken += [clock.at] * take_all(budget)
    assert most_in_a_window(taken) <= per_minute


@given(per_minute=st.integers(1, 2_000), steps=_STEPS)
def test_a_burst_is_a_sixth_of_the_budget_at_most(per_minute: int, steps: list[float]) -> None:
    """What can be taken at one moment is bounded, also after a long rest."""
    clock = ManualClock()
    budget = RequestBudget(per_minute, clock)
    for step in steps:
        clock.at += step
        assert budget.available() <= max(1.0, per_minute / 6) + 1e-3
        assert take_all(budget) <= max(1.0, per_minute / 6)


@given(per_minute=st.integers(1, 2_000), steps=_STEPS)
def test_waiting_as_long_as_told_is_enough(per_minute: int, steps: list[float]) -> None:
    """After ``seconds_until_available`` there is a call to take."""
    clock = ManualClock(12_345.678)
    budget = RequestBudget(per_minute, clock)
    for step in steps:
        clock.at += step
        take_all(budget)
        clock.at += budget.seconds_until_available() + 1e-9
        assert budget.seconds_until_available() < 1e-6
        assert budget.try_take()


def test_the_whole_budget_can_be_used() -> None:
    """A caller who asks steadily gets the budget in full, minute after minute."""
    clock = ManualClock()
    budget = RequestBudget(600, clock)
    taken = 0
    for _ in range(6_000):
        clock.at += 0.1
        taken += budget.try_take()
    assert taken >= 5_990


def test_a_smaller_budget_counts_the_calls_already_made() -> None:
    """After shrinking, the last minute's calls count against the new budget; after growing, more may be made."""
    clock = ManualClock()
    budget = RequestBudget(60, clock)
    assert take_all(budget) == 10
    budget.resize(6)
    clock.at = 59.0
    assert budget.seconds_until_available() > 0
    assert take_all(budget) == 0
    clock.at = 60.0
    assert take_all(budget) == 1
    budget.resize(600)
    clock.at = 61.0
    assert take_all(budget) == 10


def test_calls_that_were_not_made_are_given_back() -> None:
    """A caller who took more than it used loses nothing; more than was taken cannot be returned."""
    budget = RequestBudget(60, ManualClock())
    assert take_all(budget) == 10
    budget.give_back(3)
    assert take_all(budget) == 3
    budget.give_back(1_000)
    assert take_all(budget) == 10


def test_a_budget_of_nothing_stands_still() -> None:
    """With 0 no call is ever made, and the wait is endless."""
    clock = ManualClock()
    budget = RequestBudget(0, clock)
    clock.at = 1e6
    assert not budget.try_take()
    assert budget.seconds_until_available() == math.inf
    assert budget.available() == 0.0


def test_threads_share_one_budget() -> None:
    """Eight threads together take no more than one could."""
    budget = RequestBudget(6_000, ManualClock())
    taken: list[int] = []
    threads = [threading.Thread(target=lambda: taken.append(take_all(budget))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(taken) == 1_000


@given(per_minute=st.integers(1, 50), before=_STEPS, gap=st.floats(0, 90), after=_STEPS)
def test_no_window_of_a_minute_has_more_calls_over_a_hand_over(
    per_minute: int, before: list[float], gap: float, after: list[float]
) -> None:
    """Whoever goes on from what is left makes no more calls in any minute than one alone might, nor a larger burst."""
    clock = ManualClock(1000.0)
    first, taken = RequestBudget(per_minute, clock), []
    for step in before:
        clock.at += step
        taken += [clock.at] * take_all(first)
    handed = first.hand_over()
    clock.at += gap
    second = RequestBudget(per_minute, clock)
    second.take_over(handed, seconds_ago=gap)
    for step in (0.0, *after):
        clock.at += step
        burst = take_all(second)
        assert burst <= max(1.0, per_minute / 6) + 1e-3
        taken += [clock.at] * burst
    # Ages are handed over in milliseconds.
    assert most_in_a_window(taken, WINDOW - 0.002) <= per_minute


def test_what_is_left_is_handed_over() -> None:
    """A bucket that was emptied is empty for the next one, too, and fills as if nothing had happened."""
    clock = ManualClock()
    first = RequestBudget(60, clock)
    assert take_all(first) == 10
    handed = first.hand_over()
    clock.at += 3.0
    second = RequestBudget(60, clock)
    second.take_over(handed, seconds_ago=3.0)
    assert take_all(second) == 3


@given(per_minute=st.integers(6, 600))
def test_after_an_owner_that_handed_nothing_over_a_minute_holds_the_budget_all_the_same(per_minute: int) -> None:
    """The one before may have made its whole budget's calls in the minute before, up to this moment."""
    clock = ManualClock()
    first, taken = RequestBudget(per_minute, clock), []
    for _ in range(480):
        clock.at += 0.25
        taken += [clock.at] * take_all(first)
    second = RequestBudget(per_minute, clock)
    second.owe()
    for _ in range(480):
        taken += [clock.at] * take_all(second)
        clock.at += 0.25
    assert most_in_a_window(taken) <= per_minute
