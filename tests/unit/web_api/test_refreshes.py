from __future__ import annotations

from tests.harness.api import Accounts, SetTime

from patrolserver_exporter.web.api.refreshes import KEPT_FOR, MOST, Refreshes
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
