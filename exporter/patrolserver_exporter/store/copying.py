"""Moving a state from one store to another: whole or not at all, and from then on there alone.

The source is marked as moved before the target is committed. So if that is cut short, there are never two states that
both go on: the target is still empty, and the same copy can be made again.
"""

from __future__ import annotations

import concurrent.futures
import threading
from typing import TYPE_CHECKING, Any, Final

import sqlalchemy as sa

from patrolserver_exporter.store import database_time, history, tables
from patrolserver_exporter.store.errors import StoreError, StoreLocked

if TYPE_CHECKING:
    from collections.abc import Iterator

    from patrolserver_exporter.store.database import Store
    from patrolserver_exporter.store.threads import Unit

_COPIED: Final = (
    tables.accounts,
    tables.catch_ups,
    tables.servers,
    tables.issues,
    tables.inbox,
    tables.changes,
    tables.tallies,
)
"""All tables but those about the store itself."""
_AT_ONCE: Final = 500
"""Rows that are in memory at the same time. A server's may have some hundred kilobytes."""
Row = dict[str, Any]


def copy_store(source: Store, target: Store) -> dict[str, int]:
    """Move everything; returns the number of rows by table. Both must be open with ``even_moved``.

    `StoreLocked`, and nothing is changed, if the target has a state already, or the source's went elsewhere. A target
    that was itself moved away is emptied first: so a state comes back.
    """
    moved_to, target_moved_to = source.read(_moved_to), target.read(_moved_to)
    if moved_to not in {None, target.shown}:
        raise StoreLocked(_gone(source.shown, moved_to))
    # What was copied there before may have gone on from there to a third one.
    comes_back = target_moved_to is not None and (moved_to is None or target_moved_to == source.shown)
    if not comes_back and target.read(_has_rows):
        raise StoreLocked(
            f"The store {target.shown} has a state already, so nothing was copied. Name an empty one, or remove that "
            "state first."
        )
    source.run(lambda unit: _mark(unit, target.shown))
    given_up = threading.Event()
    copied = target.submit(lambda unit: _copy(source, unit, given_up))
    try:
        return copied.result()
    except BaseException:
        # An interrupt ends the waiting, and not the copy; and a commit may hold whose end was not heard.
        given_up.set()
        concurrent.futures.wait([copied])
        if _is_empty(target):
            source.run(lambda unit: _mark(unit, None))
        raise


class _GivenUp(Exception):  # Named for what happened.
    """Nobody waits for the copy any more."""


def _is_empty(target: Store) -> bool:
    """Whether it is sure that nothing was committed there."""
    try:
        return not target.read(lambda connection: _moved_to(connection) is None and _has_rows(connection))
    except StoreError:
        return False


def refuse_moved(connection: sa.Connection, shown: str) -> None:
    """`StoreLocked` for a state that went on elsewhere."""
    moved_to = _moved_to(connection)
    if moved_to is not None:
        raise StoreLocked(_gone(shown, moved_to))


def _gone(shown: str, moved_to: str | None) -> str:
    return (
        f"The state of {shown} was copied to {moved_to} and goes on there. Make that the store.url, or copy it back: "
        f"patrolserver-exporter store copy {moved_to} {shown}"
    )


def _moved_to(connection: sa.Connection) -> str | None:
    return connection.execute(sa.select(tables.feed.c.moved_to)).scalar()


def _has_rows(connection: sa.Connection) -> bool:
    return any(connection.execute(sa.select(sa.literal(1)).select_from(table).limit(1)).first() for table in _COPIED)


def _mark(unit: Unit, moved_to: str | None) -> None:
    unit.connection.execute(tables.feed.update().values(moved_to=moved_to))


def _copy(source: Store, unit: Unit, given_up: threading.Event) -> dict[str, int]:
    """One transaction of the target. Nobody writes to the source meanwhile: its lease is ours."""
    connection = unit.connection
    copied = {}
    for table in _COPIED:
        connection.execute(table.delete())
        copied[table.name] = 0
        for rows in _pages(source, table):
            connection.execute(table.insert(), [_of_no_version(row) for row in rows])
            copied[table.name] += len(rows)
            if given_up.is_set():
                raise _GivenUp
        if "id" in table.c:
            _go_on_counting(connection, table, source.read(lambda one, table=table: _last_id(one, table)))  # type: ignore[misc]
    purged_to = source.read(lambda one: one.execute(sa.select(tables.feed.c.purged_to)).scalar_one())
    connection.execute(tables.feed.update().values(purged_to=purged_to, moved_to=None))
    # Another feed, whose clients begin again; and what was acknowledged and not copied is found by a poll.
    history.begin_again(connection, database_time.read(connection))
    if given_up.is_set():
        raise _GivenUp
    return copied


def _pages(source: Store, table: sa.Table) -> Iterator[list[Row]]:
    key = tuple(table.primary_key.columns)
    query = sa.select(table).order_by(*key).limit(_AT_ONCE)
    rows = source.read(lambda connection: _rows(connection, query))
    while rows:
        yield rows
        last = tuple(sa.literal(rows[-1][column.name]) for column in key)
        behind = query.where(sa.tuple_(*key) > sa.tuple_(*last))
        rows = source.read(lambda connection, behind=behind: _rows(connection, behind))  # type: ignore[misc]


def _rows(connection: sa.Connection, query: sa.Select[Any]) -> list[Row]:
    return [dict(row) for row in connection.execute(query).mappings()]


def _of_no_version(row: Row) -> Row:
    """Versions are those of leases, which begin anew there."""
    return {**row, "version": 0} if "version" in row else row


def _last_id(connection: sa.Connection, table: sa.Table) -> int:
    """The last id that the table gave, purged or not; 0 if it gave none."""
    if connection.dialect.name == "sqlite":
        query = sa.text("SELECT seq FROM sqlite_sequence WHERE name = :name")
        return connection.execute(query, {"name": table.name}).scalar() or 0
    sequence = connection.execute(_SEQUENCE, {"name": table.name}).scalar_one()
    found = connection.exec_driver_sql(f"SELECT last_value, is_called FROM {sequence}").one()  # noqa: S608  # Its own name.
    return found.last_value if found.is_called else 0


def _go_on_counting(connection: sa.Connection, table: sa.Table, last: int) -> None:
    """No id is given a second time: old cursors and links mean what they meant."""
    if not last:
        return
    if connection.dialect.name == "sqlite":
        for statement in (
            "DELETE FROM sqlite_sequence WHERE name = :name",
            "INSERT INTO sqlite_sequence (name, seq) VALUES (:name, :last)",
        ):
            connection.execute(sa.text(statement), {"name": table.name, "last": last})
    else:
        sequence = connection.execute(_SEQUENCE, {"name": table.name}).scalar_one()
        connection.execute(sa.select(sa.func.setval(sequence, last)))


_SEQUENCE = sa.text("SELECT pg_get_serial_sequence(:name, 'id')")
