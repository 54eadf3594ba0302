from __future__ import annotations

from tests.harness.api import Accounts, SetTime

from patrolserver_exporter.store.queries import NamedServer
from patrolserver_exporter.web.api.refreshes import KEPT_FOR, MOST, MOST_SERVERS, Refreshes
from patrolserver_exporter.web.api.types import Operation, OperationState


def started(refreshes: Refreshes, server_id: int = 1) -> Operation:
    operation = refreshes.start("main", server_id)
    assert operation is not None
    return operation


def test_a_refresh_runs_until_its_poll_ended() -> None:
    """It is running at first, and done with the time when the poll ended."""
    accounts, clock = Accounts(), SetTime(1000.0)
    refreshes = Refreshes(accounts, clock)
    operation = started(refreshes)
    assert operation.state is OperationState.RUNNING
    clock.at += 2
    accounts.waiting[0][2](None)
    ended = refreshes.find(operation.id)
    assert ended is not None
    assert (ended.state, ended.error) == (OperationState.DONE, None)
    assert ended.finished_at is not None
    assert (ended.finished_at - ended.created_at).total_seconds() == 2


def test_a_failed_poll_fails_the_refresh_with_its_error() -> None:
    """The error of the poll is the error of the operation."""
    accounts = Accounts()
    refreshes = Refreshes(accounts, SetTime(0.0))
    operation = started(refreshes)
    accounts.waiting[0][2]("PatrolServer does not answer.")
    ended = refreshes.find(operation.id)
    assert ended is not None
    assert (ended.state, ended.error) == (OperationState.FAILED, "PatrolServer does not answer.")


def test_a_refresh_is_forgotten_after_an_hour() -> None:
    """Whoever did not look in time finds nothing, and an end that comes later hurts nobody."""
    accounts, clock = Accounts(), SetTime(0.0)
    refreshes = Refreshes(accounts, clock)
    operation = started(refreshes)
    clock.at += KEPT_FOR - 1
    assert refreshes.find(operation.id)
    clock.at += 1
    assert refreshes.find(operation.id) is None
    accounts.waiting[0][2](None)


def test_the_oldest_that_ended_makes_room() -> None:
    """A thousand are kept; what is under way is never forgotten for a new one, which is refused instead."""
    accounts = Accounts()
    refreshes = Refreshes(accounts, SetTime(0.0))
    operations = [started(refreshes, number + 1) for number in range(MOST)]
    assert refreshes.start("main", 1) is None
    accounts.waiting[5][2](None)
    started(refreshes)
    assert refreshes.find(operations[5].id) is None
    assert refreshes.find(operations[0].id)


def fleet(size: int) -> list[NamedServer]:
    return [NamedServer("main", number, f"web{number}.example.org") for number in range(1, size + 1)]


def test_a_refresh_of_many_is_over_when_all_polls_ended() -> None:
    """Until then it runs; one that failed makes the whole a failure, and the others stay done."""
    accounts, clock = Accounts(), SetTime(1000.0)
    refreshes = Refreshes(accounts, clock)
    begun = refreshes.start_many([*fleet(2), *fleet(2)])
    assert begun is not None
    first, second = (done for _, _, done in accounts.waiting)
    first(None)
    under_way = refreshes.find_many(begun.id)
    assert under_way is not None
    assert (under_way.state, under_way.finished_at) == (OperationState.RUNNING, None)
    assert [one.state for one in under_way.servers] == [OperationState.DONE, OperationState.RUNNING]
    clock.at += 2
    second("PatrolServer does not answer.")
    ended = refreshes.find_many(begun.id)
    assert ended is not None
    assert ended.finished_at is not None
    assert (ended.state, (ended.finished_at - ended.created_at).total_seconds()) == (OperationState.FAILED, 2)
    assert [one.error for one in ended.servers] == [None, "PatrolServer does not answer."]


def test_refreshes_of_many_are_bounded_and_forgotten() -> None:
    """Those that ended make room; what is under way is never forgotten for a new one, until an hour is over."""
    accounts, clock = Accounts(), SetTime(0.0)
    refreshes = Refreshes(accounts, clock)
    half = fleet(MOST_SERVERS // 2)
    first = refreshes.start_many(half)
    ends = [done for _, _, done in accounts.waiting]
    second = refreshes.start_many(half)
    assert first is not None
    assert second is not None
    assert refreshes.start_many(fleet(1)) is None
    for done in ends:
        done(None)
    assert refreshes.start_many(fleet(1)) is not None
    assert refreshes.find_many(first.id) is None
    assert refreshes.find_many(second.id) is not None
    clock.at += KEPT_FOR
    assert refreshes.find_many(second.id) is None
