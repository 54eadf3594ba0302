"""Refreshes as rows: bounded, forgotten after an hour, and failed where nobody polls the account."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import sqlalchemy as sa

from patrolserver_exporter.store.database_time import read
from patrolserver_exporter.store.lease_rows import STORE
from patrolserver_exporter.store.queries import NamedServer
from patrolserver_exporter.store.tables import leases, operations
from patrolserver_exporter.sync.operations import (
    DONE,
    FAILED,
    KEPT_FOR,
    MOST,
    MOST_SERVERS,
    PENDING,
    RUNNING,
    ask,
    ask_for_many,
    begin,
    begin_again,
    end_all_but,
    find,
    find_many,
    finish,
    pending,
)

if TYPE_CHECKING:
    from patrolserver_exporter.store import Store, Unit
    from patrolserver_exporter.sync.operations import Refresh


def fleet(size: int) -> list[NamedServer]:
    return [NamedServer("main", number, f"web{number}.example.org") for number in range(1, size + 1)]


def age(store: Store, seconds: float) -> None:
    """Make all of them so much older."""
    store.run(
        lambda unit: unit.connection.execute(operations.update().values(created_at=operations.c.created_at - seconds))
    )


def state(store: Store, refresh_id: str) -> str | None:
    found = store.read(lambda connection: find(connection, refresh_id))
    return None if found is None else found.state


def test_a_refresh_is_begun_once_and_ends_once(store: Store) -> None:
    """Whoever begins it later gets nothing, and what is over stays as it is."""
    asked = store.run(lambda unit: ask(unit, "one", "main", 7))
    assert asked is not None
    assert (asked.state, asked.server_id) == (PENDING, 7)
    assert store.read(lambda connection: pending(connection, ["other"])) == []
    ids = store.read(lambda connection: pending(connection, ["main"]))
    assert [one.id for one in store.run(lambda unit: begin(unit, ids))] == ["one"]
    assert store.run(lambda unit: begin(unit, ids)) == []
    assert state(store, "one") == RUNNING
    store.run(lambda unit: finish(unit, ["one"], None))
    store.run(lambda unit: finish(unit, ["one"], "too late"))
    ended = store.read(lambda connection: find(connection, "one"))
    assert ended is not None
    assert ended.finished_at is not None
    assert (ended.state, ended.error, ended.finished_at >= ended.created_at) == (DONE, None, True)


def test_what_was_under_way_at_a_stop_is_begun_again(store: Store) -> None:
    """Also after a restart, since it is a row."""
    store.run(lambda unit: ask(unit, "one", "main", 7))
    store.run(lambda unit: begin(unit, ["one"]))
    store.run(lambda unit: begin_again(unit, ["other"]))
    assert state(store, "one") == RUNNING
    store.run(lambda unit: begin_again(unit, ["main"]))
    assert state(store, "one") == PENDING


def test_those_of_an_account_that_is_not_configured_any_more_fail(store: Store) -> None:
    """With the reason; others go on."""
    for account in ("main", "gone"):
        store.run(lambda unit, account=account: ask(unit, account, account, 7))  # type: ignore[misc]
    store.run(lambda unit: end_all_but(unit, ["main"], "It is gone."))
    found = store.read(lambda connection: find(connection, "gone"))
    assert found is not None
    assert (found.state, found.error) == (FAILED, "It is gone.")
    assert state(store, "main") == PENDING


def test_a_refresh_is_forgotten_after_an_hour(store: Store) -> None:
    """Whoever did not look in time finds nothing, and an end that comes later hurts nobody."""
    store.run(lambda unit: ask(unit, "one", "main", 7))
    store.run(lambda unit: ask_for_many(unit, "many", fleet(2)))
    age(store, KEPT_FOR - 60)
    assert state(store, "one") == PENDING
    assert store.read(lambda connection: find_many(connection, "many"))
    age(store, 60)
    assert state(store, "one") is None
    assert store.read(lambda connection: find_many(connection, "many")) == []
    store.run(lambda unit: finish(unit, ["one"], None))
    store.run(lambda unit: ask(unit, "two", "main", 7))
    count = sa.select(sa.func.count()).select_from(operations)
    assert store.read(lambda connection: connection.execute(count).scalar_one()) == 1


@pytest.mark.slow
def test_the_oldest_that_ended_makes_room(store: Store) -> None:
    """A thousand are kept; what is under way is never forgotten for a new one, which is refused instead."""

    def fill(unit: Unit) -> None:
        for number in range(MOST):
            assert ask(unit, f"{number}", "main", number + 1)

    store.run(fill)
    assert store.run(lambda unit: ask(unit, "more", "main", 1)) is None
    store.run(lambda unit: finish(unit, ["5"], None))
    assert store.run(lambda unit: ask(unit, "more", "main", 1)) is not None
    assert state(store, "5") is None
    assert state(store, "0") == PENDING


@pytest.mark.slow
def test_refreshes_of_many_are_bounded(store: Store) -> None:
    """Those that ended make room as a whole; what is under way is never forgotten for a new one."""
    half = fleet(MOST_SERVERS // 2)
    for name in ("first", "second"):
        assert store.run(lambda unit, name=name: ask_for_many(unit, name, half)) is not None  # type: ignore[misc]
    assert store.run(lambda unit: ask_for_many(unit, "third", fleet(1))) is None
    store.run(lambda unit: finish(unit, [f"first-{number}" for number in range(len(half) - 1)], None))
    assert store.run(lambda unit: ask_for_many(unit, "third", fleet(1))) is None
    store.run(lambda unit: finish(unit, [f"first-{len(half) - 1}"], "PatrolServer does not answer."))
    assert store.run(lambda unit: ask_for_many(unit, "third", fleet(1))) is not None
    assert store.read(lambda connection: find_many(connection, "first")) == []
    assert len(store.read(lambda connection: find_many(connection, "second"))) == len(half)


@pytest.mark.parametrize(
    ("free_for", "asked_ago", "expected"),
    [(50.0, 500.0, PENDING), (70.0, 50.0, PENDING), (70.0, 500.0, FAILED), (None, 500.0, PENDING)],
)
def test_one_that_nobody_could_do_for_a_minute_reads_as_failed(
    store: Store, free_for: float | None, asked_ago: float, expected: str
) -> None:
    """Counted from when it was asked for and from when its account was given free, whichever was later."""

    def stands(unit: Unit) -> Refresh | None:
        connection = unit.connection
        until = read(connection) + (5.0 if free_for is None else -free_for)
        owner = None if free_for is not None else "other"
        of_account = {"account": "main", "epoch": 1, "version": 1, "owner": owner, "until": until, "since": 1.0}
        connection.execute(leases.insert(), [of_account])
        # Nobody has the store for himself; it is the last transaction.
        connection.execute(leases.update().where(leases.c.account == STORE).values(owner=None, until=None))
        return find(connection, "one")

    store.run(lambda unit: ask(unit, "one", "main", 7))
    age(store, asked_ago)
    found = store.run(stands)
    assert found is not None
    assert found.state == expected
