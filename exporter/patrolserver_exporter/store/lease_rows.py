"""The rows of the table ``leases``: who holds them, what is written to them, and which state they tell of."""

from __future__ import annotations

import datetime as dt
import functools
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import sqlalchemy as sa

from patrolserver_exporter.store import database_time
from patrolserver_exporter.store.database_time import NOW, now_in
from patrolserver_exporter.store.errors import StoreUnavailable
from patrolserver_exporter.store.tables import feed, leases

if TYPE_CHECKING:
    from collections.abc import Mapping


LEASE: Final = 10.0
"""Seconds that a lease holds without being renewed."""

STORE: Final = ""
"""The name of the lease for everything: who has it has the database for itself."""

COMMON: Final = "/common"
"""The name of the lease for what belongs to no account, where several exporters share a database. No account can have
this name, or the next one."""

INTAKE: Final = "/intake/"
"""What the row of a process begins with that counts its transactions which take deliveries in. Nobody holds it; with
one for all, they would take turns.
"""

_INTAKE_KEPT_FOR: Final = 30 * 86_400.0
"""Seconds: one that was away for long must find its row, or it would seem to have lost what it took in."""

_INTAKES_KEPT: Final = 100
"""Of processes that have not been heard of for long, at most: most of them ended without a word."""

_ENDED_INTAKE_KEPT_FOR: Final = 60.0
"""Seconds after a clean end: by then everybody has seen what was taken in, and would miss it after a setback."""


class Position(NamedTuple):
    """Which state of a database somebody has seen."""

    history: str
    """Of the feed: another one is another state, in which versions begin anew."""
    versions: Mapping[str, int]
    """Of each lease."""

    def lacks(self, seen: Position) -> bool:
        """Whether it is of before that one, in the same history."""
        if self.history != seen.history:
            return False
        # The row of a process that ended is removed.
        return any(self.versions.get(n, v if n.startswith(INTAKE) else 0) < v for n, v in seen.versions.items())


class Holder(NamedTuple):
    """Who holds a lease. Names, host and process id are for people; only ``owner`` and ``epoch`` are compared."""

    owner: str | None
    """``None``: it was given back."""
    epoch: int
    version: int
    until: float
    """Seconds since the epoch, by the database's clock; of one that was given back, when that was."""
    since: float
    name: str
    host: str
    pid: int
    now: float
    """When this was read, by the same clock."""

    @property
    def is_free(self) -> bool:
        """Whether anybody may take it."""
        # Farther ahead than a renewal reaches: the database's clock was set back since.
        return self.owner is None or not self.now < self.until <= self.now + 2 * LEASE

    @property
    def last_at(self) -> float:
        """When somebody who had it was last heard of; it is in the past, unless the clock was set back since."""
        return self.until if self.owner is None else self.until - LEASE

    @property
    def described(self) -> str:
        """As it stands in messages."""
        since = dt.datetime.fromtimestamp(self.since, dt.UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
        named = f"{self.name!r}, " if self.name else ""
        return f"{named}process {self.pid} on host {self.host}, since {since}"


class _Statements(NamedTuple):
    take: sa.TextClause
    take_before_it_hands_over: sa.TextClause
    fence: sa.TextClause
    give_back: sa.TextClause
    prolong: sa.TextClause


_COUNTED: Final = "coalesce((SELECT version FROM leases WHERE account = :intake), 0)"

COUNT_INTAKE = sa.text(
    f"INSERT INTO leases (account, epoch, version, until) SELECT :account, 0, 1, {NOW['postgresql']} "  # noqa: S608  # No input.
    "WHERE NOT EXISTS (SELECT 1 FROM feed WHERE moved_to IS NOT NULL) "
    "ON CONFLICT (account) DO UPDATE SET version = leases.version + 1, until = excluded.until RETURNING version"
)
"""``until`` is when it was last used."""

END_INTAKE = sa.text(f"UPDATE leases SET epoch = 1, until = {NOW['postgresql']} WHERE account = :account")  # noqa: S608

_OF_THE_UNHEARD: Final = (
    f"account LIKE '{INTAKE}%' AND substr(account, {len(INTAKE) + 1}) NOT IN (SELECT owner FROM replicas)"  # noqa: S608
)

FORGET_INTAKES = sa.text(
    f"DELETE FROM leases WHERE {_OF_THE_UNHEARD} AND ("  # noqa: S608  # No input.
    f"until < {NOW['postgresql']} - CASE epoch WHEN 1 THEN {_ENDED_INTAKE_KEPT_FOR} ELSE {_INTAKE_KEPT_FOR} END "
    f"OR account IN (SELECT account FROM leases WHERE {_OF_THE_UNHEARD} AND epoch = 0 "
    f"ORDER BY until DESC, account OFFSET {_INTAKES_KEPT}))"
)
"""Those that nobody can miss. Of one that ended cleanly ``epoch`` is 1."""


@functools.cache
def statements(dialect: str) -> _Statements:
    """What is written to them, in this dialect of SQL."""
    now = NOW[dialect]
    mine = "WHERE account = :account AND owner = :owner AND epoch = :epoch"
    renewed = f"until = {now} + {LEASE}"
    taken = (
        f"owner = :owner, name = :name, host = :host, pid = :pid, since = {now}, epoch = epoch + 1, "
        f"version = version + 1, {renewed} WHERE account = :account"
    )
    return _Statements(
        take=sa.text(f"UPDATE leases SET handed = NULL, {taken}"),  # noqa: S608  # No input.
        take_before_it_hands_over=sa.text(f"UPDATE leases SET {taken}"),  # noqa: S608
        fence=sa.text(
            f"UPDATE leases SET version = version + 1, {renewed} {mine} "  # noqa: S608
            f"RETURNING account, version, {now} AS now, {_COUNTED} AS taken_in"
        ),
        give_back=sa.text(f"UPDATE leases SET owner = NULL, until = {now}, handed = :handed {mine}"),  # noqa: S608
        prolong=sa.text(f"UPDATE leases SET {renewed} WHERE account = :account AND owner = :owner"),  # noqa: S608
    )


_MINE_IN_ORDER: Final = (
    "WITH mine AS (SELECT leases.account FROM leases JOIN unnest(CAST(:accounts AS text[]), CAST(:epochs AS bigint[])) "
    "AS wanted (account, epoch) ON leases.account = wanted.account AND leases.epoch = wanted.epoch "
    "WHERE leases.owner = :owner ORDER BY leases.account FOR UPDATE OF leases"
)
"""On PostgreSQL. In one order, so that no two wait for each other."""

END_STUCK: Final = sa.text(
    """
    SELECT leases.account, pg_terminate_backend(session.pid) AS ended
    FROM leases JOIN pg_stat_activity AS session ON session.backend_xid = leases.xmax
    WHERE leases.account = ANY(:accounts)
      AND leases.until < EXTRACT(EPOCH FROM clock_timestamp()) - 3
      AND session.usename = current_user AND session.pid <> pg_backend_pid()
      AND session.state = 'active' AND session.wait_event = 'ClientWrite'
      AND session.query_start < clock_timestamp() - INTERVAL '10 seconds'
    """
)
"""Ends sessions that write under leases that ran out, and whose clients do not read what they asked for.

A process that stands still within a large answer keeps its locks for ever: no time-out of PostgreSQL counts there.
"""
END_OTHERS = sa.text(
    f"UPDATE leases SET owner = NULL, until = {NOW['postgresql']}, epoch = epoch + 1 "  # noqa: S608  # No input.
    "WHERE owner IS NOT NULL AND owner <> :owner"
)

_RENEWED: Final = f"until = {NOW['postgresql']} + {LEASE}"

_OF_MINE: Final = "FROM mine WHERE leases.account = mine.account AND leases.owner = :owner RETURNING leases.account, "

RENEW = sa.text(
    f"{_MINE_IN_ORDER} SKIP LOCKED) UPDATE leases SET {_RENEWED} {_OF_MINE} {NOW['postgresql']} AS now"  # noqa: S608
)

FENCE_MANY = sa.text(
    f"{_MINE_IN_ORDER}) UPDATE leases SET version = version + 1, {_RENEWED} "  # noqa: S608
    f"{_OF_MINE} leases.version, {NOW['postgresql']} AS now, {_COUNTED} AS taken_in"
)

POSITION = sa.text(
    f"SELECT owner, epoch, version, {_COUNTED} FROM leases WHERE account = '{STORE}'"  # noqa: S608  # No input.
)


def read_holder(connection: sa.Connection, name: str = STORE) -> Holder:
    """Who holds it."""
    row = connection.execute(select_holders(connection).where(leases.c.account == name)).one_or_none()
    if row is None:
        # Of an account that was new when a failover lost the last commits.
        now = database_time.read(connection)
        return Holder(owner=None, epoch=0, version=0, until=now, since=now, name="", host="unknown", pid=0, now=now)
    return holder_of(row)


def holders(connection: sa.Connection) -> dict[str, Holder]:
    """Who holds which lease, by account; those that nobody ever held left out."""
    rows = connection.execute(select_holders(connection).where(leases.c.since.is_not(None)).order_by(leases.c.account))
    return {row.account: holder_of(row) for row in rows}


def select_holders(connection: sa.Connection) -> sa.Select[Any]:
    """All of them, for `holder_of`."""
    columns = [column for column in leases.c if column is not leases.c.handed]
    return sa.select(*columns, now_in(connection.dialect.name).label("now"))


def knows_handed(connection: sa.Connection) -> bool:
    """Whether the schema has that already: the lease for everything is taken before a migration."""
    return any(column["name"] == leases.c.handed.name for column in sa.inspect(connection).get_columns(leases.name))


def holder_of(row: sa.Row[Any]) -> Holder:
    """Who holds it, by its row."""
    return Holder(
        owner=row.owner,
        epoch=row.epoch,
        version=row.version,
        until=row.until or 0.0,
        since=row.since or 0.0,
        name=row.name or "",
        host=row.host or "unknown",
        pid=row.pid or 0,
        now=row.now,
    )


def read_position(connection: sa.Connection) -> tuple[Position, str | None]:
    """Which state this is, and what speaks against believing it.

    It goes on elsewhere, or the database is not the one any more that the feed was written in.
    """
    row = connection.execute(_FEED).one_or_none()
    if row is None:
        # A restore makes the tables anew beneath who reads them.
        raise StoreUnavailable(NO_FEED)
    history, known, moved_to = row
    versions = {row[0]: row[1] for row in connection.execute(_VERSIONS)}
    is_same = connection.dialect.name != "postgresql" or is_same_cluster(known, cluster(connection))
    doubt = None if is_same else OF_BEFORE
    return Position(history, versions), doubt if moved_to is None else WENT_ELSEWHERE


def cluster(connection: sa.Connection) -> str:
    """Which PostgreSQL this is, its timeline, which a failover changes, and which tables, which a restore makes anew.

    As a mark, with slashes between its parts.
    """
    return str(
        connection.exec_driver_sql(
            "SELECT concat_ws('/', system_identifier, substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8),"
            " (SELECT oid FROM pg_database WHERE datname = current_database()), to_regclass('feed')::oid) "
            "FROM pg_control_system()"
        ).scalar_one()
    )


def is_same_cluster(known: str | None, cluster: str) -> bool:
    """Whether a mark that was kept is that of this database. Before tables were told apart, marks had two parts."""
    return known in {None, cluster, cluster.rpartition("/")[0].rpartition("/")[0]}


_FEED = sa.select(feed.c.history, feed.c.cluster, feed.c.moved_to)

_VERSIONS = sa.select(leases.c.account, leases.c.version)

WENT_ELSEWHERE: Final = "The state was copied to another store and goes on there, so nothing is read or taken in here."

NO_FEED: Final = "The database lacks what every store of an exporter has, as while it is restored."

OF_BEFORE: Final = "The database went back to an earlier state, which is being read again."
