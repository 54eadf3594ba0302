"""Refreshes as rows: asked for on whatever exporter has the store open, done by the one that polls."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

import sqlalchemy as sa

from patrolserver_exporter.store import lease_rows
from patrolserver_exporter.store.database_time import now_in, read
from patrolserver_exporter.store.tables import insert, operations

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from patrolserver_exporter.store import Unit
    from patrolserver_exporter.store.queries import NamedServer

PENDING: Final = "pending"
RUNNING: Final = "running"
DONE: Final = "done"
FAILED: Final = "failed"
KEPT_FOR: Final = 3600.0
"""Seconds for which an operation can be asked about."""
MOST: Final = 1000
"""Operations under way, at most."""
AT_ONCE: Final = 100
"""Operations that are begun at the same time, at most."""
MOST_SERVERS: Final = 20_000
"""Servers of all refreshes of many."""
_GIVEN_UP_AFTER: Final = 60.0
"""Seconds after which one that nobody can do counts as failed."""


class Refresh(NamedTuple):
    """A refresh as it stands. Times are seconds since the epoch."""

    id: str
    account: str
    server_id: int
    state: str
    created_at: float
    finished_at: float | None = None
    error: str | None = None
    together: str | None = None
    """Of a refresh of many servers that it is a part of."""
    server: str | None = None
    """The server's name, in such a one."""


def ask_for_many(unit: Unit, together: str, servers: Iterable[NamedServer]) -> list[Refresh] | None:
    """Have servers polled, each once; ``None`` when too many are under way."""
    connection = unit.connection
    now = read(connection)
    names = {server.key: server.name for server in servers}
    if not _make_room(connection, operations.c.together.is_not(None), len(names), MOST_SERVERS, now):
        return None
    asked = [
        Refresh(f"{together}-{number}", key.account, key.server_id, PENDING, now, together=together, server=name)
        for number, (key, name) in enumerate(names.items())
    ]
    if asked:
        connection.execute(_entry(connection), [one._asdict() for one in asked])
    return asked


def find_many(connection: sa.Connection, together: str) -> list[Refresh]:
    """How each of them stands, in the order in which they were asked for; none where there never was such a refresh."""
    query = sa.select(*_COLUMNS).where(operations.c.together == together, _is_kept(connection))
    found = [Refresh(*row) for row in connection.execute(query)]
    return sorted(_as_they_stand(connection, found), key=lambda one: int(one.id.rpartition("-")[2]))


def ask(unit: Unit, refresh_id: str, account: str, server_id: int) -> Refresh | None:
    """Have a server polled; ``None`` when too many refreshes are under way."""
    connection = unit.connection
    now = read(connection)
    if not _make_room(connection, operations.c.together.is_(None), 1, MOST, now):
        return None
    asked = Refresh(refresh_id, account, server_id, PENDING, now)
    connection.execute(_entry(connection), asked._asdict())
    return asked


def _entry(connection: sa.Connection) -> sa.Insert:
    # A unit whose commit was not heard is done a second time.
    return insert(connection.dialect.name, operations).on_conflict_do_nothing(index_elements=["id"])


def _make_room(connection: sa.Connection, of_kind: sa.ColumnElement[bool], wanted: int, most: int, now: float) -> bool:
    """Forget what is old, and what ended first; False if all that is left is under way."""
    forget_old(connection, now)
    kept = connection.execute(sa.select(sa.func.count()).where(of_kind)).scalar_one()
    if kept + wanted <= most:
        return True
    # What was asked for by one call ends, and is forgotten, together.
    whole = sa.func.coalesce(operations.c.together, operations.c.id)
    ended = (
        sa.select(whole, sa.func.count())
        .where(of_kind)
        .group_by(whole)
        .having(sa.func.count(operations.c.finished_at) == sa.func.count())
        .order_by(sa.func.min(operations.c.created_at), whole)
    )
    for name, count in connection.execute(ended).all():
        connection.execute(operations.delete().where(of_kind, whole == name))
        kept -= count
        if kept + wanted <= most:
            return True
    return False


def forget_old(connection: sa.Connection, now: float) -> int:
    """Remove those of an hour ago; returns how many went."""
    return connection.execute(operations.delete().where(operations.c.created_at <= now - KEPT_FOR)).rowcount


def _is_kept(connection: sa.Connection) -> sa.ColumnElement[bool]:
    return operations.c.created_at > now_in(connection.dialect.name) - KEPT_FOR


def begin(unit: Unit, ids: Sequence[str]) -> list[Refresh]:
    """Those of them that nobody has begun."""
    statement = (
        operations.update()
        .where(operations.c.id.in_(ids), operations.c.state == PENDING)
        .values(state=RUNNING)
        .returning(*_COLUMNS)
    )
    return [Refresh(*row) for row in unit.connection.execute(statement)]


def begin_again(unit: Unit, accounts: Sequence[str], *, but: Sequence[str] = ()) -> None:
    """Whoever had begun those of these accounts is gone, ``but`` for some."""
    mine = operations.c.state == RUNNING, operations.c.account.in_(accounts), operations.c.id.not_in(but)
    unit.connection.execute(operations.update().where(*mine).values(state=PENDING))


def pending(connection: sa.Connection, accounts: Sequence[str]) -> list[str]:
    """Those of these accounts that nobody has begun, the first ones first."""
    mine = operations.c.state == PENDING, operations.c.account.in_(accounts)
    query = sa.select(operations.c.id).where(*mine).order_by(operations.c.created_at, operations.c.id).limit(AT_ONCE)
    return list(connection.execute(query).scalars())


def finish(unit: Unit, refresh_ids: Sequence[str], error: str | None) -> None:
    """They ended, well where there is no error; what is over already stays as it is."""
    if not refresh_ids:
        return
    values = {"state": DONE if error is None else FAILED, "error": error}
    now = now_in(unit.connection.dialect.name)
    mine = operations.c.id.in_(refresh_ids), operations.c.state.in_((PENDING, RUNNING))
    unit.connection.execute(operations.update().where(*mine).values(finished_at=now, **values))


def end_all_but(unit: Unit, accounts: Sequence[str], error: str) -> None:
    """Nobody polls other accounts than these any more."""
    others = operations.c.account.not_in(accounts), operations.c.state.in_((PENDING, RUNNING))
    now = now_in(unit.connection.dialect.name)
    unit.connection.execute(operations.update().where(*others).values(finished_at=now, state=FAILED, error=error))


class AskedFor:
    """A refresh that is waited for by a row: call it with the error, or ``None``, when it has ended.

    ``end`` hears that, too, and writes an error, unless the transaction of the poll has done so.
    """

    __slots__ = ("_end", "refresh_id")

    def __init__(self, refresh_id: str, end: Callable[[str, str | None], None]) -> None:
        self.refresh_id = refresh_id
        self._end = end

    def __call__(self, error: str | None) -> None:
        """It has ended."""
        self._end(self.refresh_id, error)


def find(connection: sa.Connection, refresh_id: str) -> Refresh | None:
    """How it stands; ``None`` if there never was such a one, or it is forgotten."""
    query = sa.select(*_COLUMNS).where(operations.c.id == refresh_id, _is_kept(connection))
    row = connection.execute(query).one_or_none()
    if row is None:
        return None
    return _as_they_stand(connection, [Refresh(*row)])[0]


def _as_they_stand(connection: sa.Connection, found: Sequence[Refresh]) -> list[Refresh]:
    """What nobody could do for a while has failed."""
    if all(one.state not in {PENDING, RUNNING} for one in found):
        return list(found)
    now, holders = read(connection), lease_rows.holders(connection)
    # Where the database is one exporter's, it has the lease for everything, which does not run out in a file.
    is_file = connection.dialect.name == "sqlite"
    if (alone := holders.get(lease_rows.STORE)) and (not alone.is_free or (is_file and alone.owner is not None)):
        return list(found)

    def is_given_up(one: Refresh) -> bool:
        holder = holders.get(one.account)
        if one.state not in {PENDING, RUNNING} or (holder is not None and not holder.is_free):
            return False
        # A lease that seems to run out later than it can is of before the clock was set back.
        free_since = 0.0 if holder is None or holder.until > now else holder.until
        return now - max(one.created_at, free_since) >= _GIVEN_UP_AFTER

    error = "No exporter polls the account now."
    return [one._replace(state=FAILED, finished_at=now, error=error) if is_given_up(one) else one for one in found]


_COLUMNS = [operations.c[name] for name in Refresh._fields]
