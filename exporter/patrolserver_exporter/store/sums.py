"""What proves that a SQLite file holds what was committed, no row less and none that is another.

Each table has a count and a sum over the digests of its rows, in whatever order. Triggers of the connection that writes
tell of every row, and each transaction that changes some renews the sums. The triggers live in that connection alone,
so whoever changes a row without them is found out. A sealed document stands in its row's digest by its own checksum.
The number of commits is kept too, here and beside the file (`files.CommitMarks`), so that the loss of whole commits is
seen.

A start counts everything again (`verify`). PostgreSQL has checksums of its own, and needs none of this.
"""

from __future__ import annotations

import hashlib
import re
import secrets
import sqlite3
from typing import TYPE_CHECKING, Any, Final, cast

import msgspec
import sqlalchemy as sa

from patrolserver_exporter.store import tables
from patrolserver_exporter.store.errors import StoreCorrupt

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

SEALED: Final = frozenset(
    {
        ("accounts", "state"),
        ("servers", "state"),
        ("servers", "summary"),
        ("servers", "software"),
        ("issues", "document"),
        ("changes", "document"),
    }
)
"""Columns with sealed documents."""
_COMMITS: Final = "*commits"
_SCHEMA: Final = "*schema"
_REVISION: Final = re.compile(r"\d{4}", re.ASCII)
_UNCOUNTED: Final = frozenset({"sums", "alembic_version", "leases", "replicas", "configured", "operations"})
"""Who has it open is no state: each start takes the lease anew. Nor is what is only asked for."""
_encode = msgspec.msgpack.Encoder().encode

DAMAGE: Final = (
    sqlite3.Error,
    StoreCorrupt,
    TypeError,
    ValueError,
    OverflowError,
    MemoryError,
    SystemError,
    msgspec.MsgspecError,
)
"""What reading a damaged file may raise: a row may hold a value of another type, or one of another length."""


class Commits(msgspec.Struct, frozen=True):
    """How many commits a state has seen since it got its sums, and which state it is."""

    state: int
    count: int


NO_SUMS: Final = Commits(0, 0)


def verify(connection: sqlite3.Connection, head: str) -> Commits | None:
    """Count everything again; `StoreCorrupt` says what differs, or what cannot be read.

    A state of an older version has no sums, and gets `NO_SUMS`. None for one that is newer than ``head``.
    """
    revision = _revision(connection)
    if "sums" not in _tables_of(connection, every=True):
        if revision == head:
            raise StoreCorrupt("The sums of its tables are missing.")
        return NO_SUMS
    kept = {name: (rows, total, last) for name, rows, total, last in connection.execute(_READ)}
    schema, (commits, state, _) = kept.pop(_SCHEMA, (0, 0, 0)), kept.pop(_COMMITS, (0, 0, 0))
    if revision > head and not (schema[2] == int(head) and _is_one_bit_off(revision, head)):
        return None
    if int(revision) != schema[2] or schema[:2] != _schema(connection):
        raise StoreCorrupt("Tables or indexes are missing, or not as they were made.")
    names = _tables_of(connection)
    if kept.keys() != set(names):
        raise StoreCorrupt("Sums are missing.")
    given = dict(connection.execute("SELECT name, seq FROM sqlite_sequence"))
    counted = _counted(connection)
    for name in names:
        rows, total, last = kept[name]
        found = _count(connection, name, check=True)
        if found[0] != rows:
            raise StoreCorrupt(f"The table {name} has {found[0]} rows, and {rows} were written.")
        if found[1] != total:
            raise StoreCorrupt(f"The rows of the table {name} are not those that were written.")
        if name in counted and last > given.get(name, 0):
            raise StoreCorrupt(f"The table {name} would give an id a second time.")
    return Commits(state, commits)


def _revision(connection: sqlite3.Connection) -> str:
    if "alembic_version" not in _tables_of(connection, every=True):
        if _tables_of(connection, every=True):
            raise StoreCorrupt("Nothing tells the version of its tables.")
        return "0000"
    revisions = [str(row[0]) for row in connection.execute("SELECT version_num FROM alembic_version")]
    if len(revisions) != 1 or not _REVISION.fullmatch(revisions[0]):
        raise StoreCorrupt("The version of its tables cannot be read.")
    return revisions[0]


def _is_one_bit_off(one: str, other: str) -> bool:
    return sum((a ^ b).bit_count() for a, b in zip(one.encode(), other.encode(), strict=True)) == 1


def renew(connection: sqlite3.Connection) -> None:
    """Write the sums of what is there, after a migration."""
    before = {name: (rows, total) for name, rows, total, _ in connection.execute(_READ)}
    commits, state = before.get(_COMMITS, (0, 1 + secrets.randbits(62)))
    connection.execute("DELETE FROM sums")
    given = dict(connection.execute("SELECT name, seq FROM sqlite_sequence"))
    rows = [(name, *_count(connection, name, check=False), given.get(name, 0)) for name in _tables_of(connection)]
    rows += [(_COMMITS, commits, state, 0), (_SCHEMA, *_schema(connection), int(_revision(connection)))]
    connection.executemany('INSERT INTO sums (name, "rows", "total", last_id) VALUES (?, ?, ?, ?)', rows)


_WRITE: Final = 'UPDATE sums SET "rows" = ?, "total" = ?, last_id = ? WHERE name = ?'
_READ: Final = 'SELECT name, "rows", "total", last_id FROM sums'


def _tables_of(connection: sqlite3.Connection, *, every: bool = False) -> list[str]:
    rows = connection.execute("SELECT name FROM main.sqlite_master WHERE type = 'table' ORDER BY name")
    names = [str(row[0]) for row in rows]
    return [name for name in names if not name.startswith("sqlite_") and (every or name not in _UNCOUNTED)]


def _columns_of(connection: sqlite3.Connection, table: str) -> list[str]:
    return [str(row[1]) for row in connection.execute(f'PRAGMA main.table_info("{table}")')]


def _counted(connection: sqlite3.Connection) -> set[str]:
    """Tables that never give an id twice."""
    rows = connection.execute("SELECT name FROM main.sqlite_master WHERE type = 'table' AND sql LIKE '%AUTOINCREMENT%'")
    return {str(row[0]) for row in rows}


def _schema(connection: sqlite3.Connection) -> tuple[int, int]:
    # What SQLite makes for itself, such as the statistics of ANALYZE, is nobody's business.
    rows = connection.execute(
        "SELECT type, name, tbl_name, sql FROM main.sqlite_master WHERE name NOT LIKE 'sqlite\\_%' ESCAPE '\\'"
    ).fetchall()
    total = 0
    for row in rows:
        total ^= _digest(row)
    return len(rows), total


def _count(connection: sqlite3.Connection, table: str, *, check: bool) -> tuple[int, int]:
    """How many rows a table has, and their sum; with ``check``, sealed documents are held against their checksums."""
    columns = _columns_of(connection, table)
    sealed = [place for place, column in enumerate(columns) if (table, column) in SEALED]
    count = total = 0
    query = f"SELECT {', '.join(map(_quoted, columns))} FROM main.{_quoted(table)}"  # noqa: S608  # Names of our own.
    for row in connection.execute(query):
        values: Sequence[Any] = row
        if sealed:
            values = list(row)
            for place in sealed:
                if values[place] is not None:
                    if check:
                        tables.check(values[place])
                    values[place] = values[place][: tables.SEAL_BYTES]
        count += 1
        total ^= _digest(values)
    return count, total


def _digest(values: Sequence[Any]) -> int:
    return int.from_bytes(hashlib.blake2b(_encode(values), digest_size=8).digest(), "big", signed=True)


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


class _TableSum:
    """A table's sum while a transaction changes it."""

    __slots__ = ("last_id", "rows", "total")

    def __init__(self, rows: int, total: int, last_id: int) -> None:
        self.rows = rows
        self.total = total
        self.last_id = last_id

    def state(self) -> tuple[int, int, int]:
        """As it is now."""
        return self.rows, self.total, self.last_id

    def reset(self, state: tuple[int, int, int]) -> None:
        """Go back to what it was."""
        self.rows, self.total, self.last_id = state


_States = dict[str, tuple[int, int, int]]


class SummingConnection(sqlite3.Connection):
    """The connection that writes: it renews the sums with each row, and counts the commits that change something.

    Until `keep_sums` it is a connection as any other. A statement that fails may leave its sum behind half done: what
    it belongs to has to be rolled back, as a whole or to a savepoint.
    """

    _keeps = False

    def keep_sums(self, before_commit: Callable[[], None], after_commit: Callable[[Commits], None]) -> Commits:
        """From now on renew them; `verify` or `renew` came before.

        ``before_commit`` is called before each commit, and may raise. ``after_commit`` hears of each that changed
        something. Returns how many there were so far.
        """
        kept: _States = {name: (rows, total, last) for name, rows, total, last in self.execute(_READ)}
        commits, state, _ = kept.pop(_COMMITS)
        kept.pop(_SCHEMA)
        self._commits = Commits(state, commits)
        self._sums = {name: _TableSum(*state) for name, state in kept.items()}
        self._written = kept
        """The sums as the transaction before left them."""
        self._savepoints: list[_States] = []
        self._before_commit, self._after_commit = before_commit, after_commit
        counted = _counted(self)
        for place, table in enumerate(_tables_of(self)):
            self._watch(table, place, has_ids=table in counted)
        self._changes_seen = self.total_changes
        self._keeps = True
        return self._commits

    def _watch(self, table: str, place: int, *, has_ids: bool) -> None:
        columns, found = _columns_of(self, table), self._sums[table]
        width, id_place = len(columns), columns.index("id") if has_ids else -1

        def added(*values: Any) -> None:
            found.rows += 1
            found.total ^= _digest(values)
            if id_place >= 0 and values[id_place] > found.last_id:
                found.last_id = values[id_place]

        def changed(*values: Any) -> None:
            found.total ^= _digest(values[:width]) ^ _digest(values[width:])

        def removed(*values: Any) -> None:
            found.rows -= 1
            found.total ^= _digest(values)

        def row(which: str) -> str:
            return ", ".join(
                f"substr({which}.{_quoted(column)}, 1, {tables.SEAL_BYTES})"
                if (table, column) in SEALED
                else f"{which}.{_quoted(column)}"
                for column in columns
            )

        for event, function, values in (
            ("INSERT", added, row("NEW")),
            ("UPDATE", changed, f"{row('OLD')}, {row('NEW')}"),
            ("DELETE", removed, row("OLD")),
        ):
            name = f"sum_{place}_{function.__name__}"
            self.create_function(name, -1, function)
            self.execute(
                f"CREATE TEMP TRIGGER {name} AFTER {event} ON main.{_quoted(table)} BEGIN SELECT {name}({values}); END"
            )

    def begin_savepoint(self) -> None:
        """What follows may be undone."""
        if self._keeps:
            self._savepoints.append(self._states())

    def end_savepoint(self, *, undone: bool) -> None:
        """What came after the newest savepoint stays, or is undone."""
        if self._keeps:
            before = self._savepoints.pop()
            if undone:
                self._reset(before)

    def _states(self) -> _States:
        return {name: found.state() for name, found in self._sums.items()}

    def _reset(self, states: _States) -> None:
        for name, state in states.items():
            self._sums[name].reset(state)

    def commit(self) -> None:
        """Commit, and count it."""
        if not self._keeps:
            super().commit()
            return
        self._before_commit()
        if not self.in_transaction or self.total_changes == self._changes_seen:
            super().commit()
            return
        now, commits = self._states(), Commits(self._commits.state, self._commits.count + 1)
        renewed = [(*state, name) for name, state in now.items() if state != self._written[name]]
        renewed.append((commits.count, commits.state, 0, _COMMITS))
        self.executemany(_WRITE, renewed)
        super().commit()
        self._commits, self._written = commits, now
        self._savepoints.clear()
        self._changes_seen = self.total_changes
        self._after_commit(commits)

    def rollback(self) -> None:
        """Roll back, and the sums too."""
        super().rollback()
        if self._keeps:
            self._reset(self._written)
            self._savepoints.clear()
            self._changes_seen = self.total_changes


def follow_savepoints(engine: sa.Engine) -> None:
    """Let the sums of its connection go back with what is rolled back to a savepoint."""

    def begin(connection: sa.Connection, _: object) -> None:
        of(connection).begin_savepoint()

    def keep(connection: sa.Connection, *_: object) -> None:
        of(connection).end_savepoint(undone=False)

    def undo(connection: sa.Connection, *_: object) -> None:
        of(connection).end_savepoint(undone=True)

    sa.event.listen(engine, "savepoint", begin)
    sa.event.listen(engine, "release_savepoint", keep)
    sa.event.listen(engine, "rollback_savepoint", undo)


def of(connection: sa.Connection) -> SummingConnection:
    """The connection to the file itself."""
    return cast("SummingConnection", connection.connection.driver_connection)
