"""What happened to issues: the change feed and the counters, which are part of the state like the issues themselves."""

from __future__ import annotations

import bisect
import secrets
from typing import TYPE_CHECKING, Any

import msgspec
import sqlalchemy as sa

from patrolserver_exporter.issues.model import SEVERITIES, Change, ChangeKind, Issue, Severity
from patrolserver_exporter.store.errors import StoreUnavailable
from patrolserver_exporter.store.lease_rows import NO_FEED, is_same_cluster
from patrolserver_exporter.store.tables import accounts, catch_ups, changes, feed, insert, seal, tallies, unseal, upsert

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

_FEED_LOCK = int.from_bytes(b"feed", "big")
HOUR = 3600.0
FIX_DURATION_BOUNDS = tuple(h * HOUR for h in (1, 6, 24, 72, 168, 336, 720, 1440, 2160, 4320))
"""Upper bounds, in seconds, of the buckets of ``patrolserver_issue_fix_duration_seconds``: 1 h to 180 d."""


class Tally(msgspec.Struct, frozen=True, kw_only=True):
    """The counters of one account and severity."""

    account: str
    severity: Severity
    opened: int = 0
    fixed: int = 0
    worsened: int = 0
    """Those that got to this severity, or got one more exploit at it."""
    duration_sum: float = 0.0
    """Seconds from ``first_seen`` to ``fixed_at``, over all fixed ones."""
    buckets: tuple[int, ...] = (0,) * (len(FIX_DURATION_BOUNDS) + 1)
    """Fixed ones by duration, not cumulative; the last one is above every bound."""


def fix_duration_bucket(seconds: float) -> int:
    """Which of a tally's ``buckets`` counts a fix that took so long: bounds are included."""
    return bisect.bisect_left(FIX_DURATION_BOUNDS, seconds)


class StoredChange(msgspec.Struct, frozen=True, kw_only=True):
    """An entry of the change feed as it is kept; ``id`` is its place in the order."""

    id: int
    at: float
    kind: ChangeKind
    server: str
    issue: Issue
    history: str = ""
    """The feed's, in which the id counts."""


OF_KNOWN_KIND = changes.c.kind.in_([kind.value for kind in ChangeKind])
"""What a newer version may tell besides is left out: nobody here knows what it means."""


def unknown_kinds(connection: sa.Connection) -> dict[str, int]:
    """How many changes of each kind are left out."""
    query = sa.select(changes.c.kind, sa.func.count()).where(~OF_KNOWN_KIND).group_by(changes.c.kind)
    return {row.kind: row[1] for row in connection.execute(query.order_by(changes.c.kind))}


_COUNTED = frozenset({ChangeKind.OPENED, ChangeKind.REOPENED, ChangeKind.WORSENED, ChangeKind.FIXED})


def record(connection: sa.Connection, server: str, happened: Sequence[Change]) -> list[Tally]:
    """Append changes to the feed and count them; returns the tallies that changed."""
    if not happened:
        return []
    if connection.dialect.name == "postgresql":
        # Until the commit: who reads the feed must not find an entry before one with a lower id is there.
        connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_FEED_LOCK})")
    connection.execute(
        changes.insert(),
        [
            {
                "at": change.at,
                "account": change.issue.account,
                "server_id": change.issue.server_id,
                "server": server,
                "kind": change.kind.value,
                "document": seal(change.issue),
            }
            for change in happened
        ],
    )
    counted = [change for change in happened if change.kind in _COUNTED]
    if not counted:
        return []
    return _count(connection, counted[0].issue.account, counted)


def _count(connection: sa.Connection, account: str, happened: Iterable[Change]) -> list[Tally]:
    current = {tally.severity: tally for tally in tallies_of(connection, account)}
    touched = {}
    for change in happened:
        severity = change.issue.severity
        current[severity] = touched[severity] = _counted(current[severity], change)
    rows = [
        {**msgspec.structs.asdict(tally), "buckets": msgspec.json.encode(tally.buckets).decode()}
        for tally in touched.values()
    ]
    upsert(connection, tallies, rows, "account", "severity")
    return list(touched.values())


def _counted(tally: Tally, change: Change) -> Tally:
    if change.kind is ChangeKind.WORSENED:
        return msgspec.structs.replace(tally, worsened=tally.worsened + 1)
    if change.kind is not ChangeKind.FIXED:
        return msgspec.structs.replace(tally, opened=tally.opened + 1)
    duration = max(0.0, (change.issue.fixed_at or change.at) - change.issue.first_seen)
    buckets = list(tally.buckets)
    buckets[fix_duration_bucket(duration)] += 1
    return msgspec.structs.replace(
        tally, fixed=tally.fixed + 1, duration_sum=tally.duration_sum + duration, buckets=tuple(buckets)
    )


_TALLIES_SINCE = sa.select(tallies).where(
    tallies.c.account == sa.bindparam("account"),
    tallies.c.version > sa.bindparam("since"),
    tallies.c.severity.in_([severity.value for severity in Severity]),
)


def tallies_since(connection: sa.Connection, account: str, version: int) -> list[Tally]:
    """The account's counters that rose with a later version."""
    rows = connection.execute(_TALLIES_SINCE, {"account": account, "since": version})
    return [_tally_of(account, Severity(row.severity), row) for row in rows]


def _tally_of(account: str, severity: Severity, row: sa.Row[Any]) -> Tally:
    return Tally(
        account=account,
        severity=severity,
        opened=row.opened,
        fixed=row.fixed,
        worsened=row.worsened,
        duration_sum=row.duration_sum,
        buckets=msgspec.json.decode(row.buckets, type=tuple[int, ...]),
    )


_TALLIES_OF = sa.select(tallies).where(tallies.c.account == sa.bindparam("account"))


def tallies_of(connection: sa.Connection, account: str) -> list[Tally]:
    """An account's counters, one a severity, zero where nothing happened yet."""
    rows = {row.severity: row for row in connection.execute(_TALLIES_OF, {"account": account})}
    return [
        Tally(account=account, severity=severity)
        if (row := rows.get(severity.value)) is None
        else _tally_of(account, severity, row)
        for severity in SEVERITIES
    ]


def changes_after(connection: sa.Connection, cursor: int, limit: int) -> list[StoredChange]:
    """Changes with an id above the cursor, in order."""
    history = connection.execute(sa.select(feed.c.history)).scalar_one()
    rows = connection.execute(
        sa.select(changes.c.id, changes.c.at, changes.c.kind, changes.c.server, changes.c.document)
        .where(changes.c.id > cursor, OF_KNOWN_KIND)
        .order_by(changes.c.id)
        .limit(limit)
    )
    return [
        StoredChange(
            id=row.id,
            at=row.at,
            kind=ChangeKind(row.kind),
            server=row.server,
            issue=unseal(row.document, Issue),
            history=history,
        )
        for row in rows
    ]


class FeedStanding(msgspec.Struct, frozen=True):
    """Which feed it is, and what is kept of it."""

    history: str
    """A mark that changes when changes may be missing that were told before: ids are then given a second time."""
    purged_to: int
    """Changes up to this id may be gone."""
    newest: int
    """Of the last change; 0 while there is none. It is never purged."""


def feed_standing(connection: sa.Connection) -> FeedStanding:
    """Where the change feed stands."""
    row = connection.execute(sa.select(feed.c.history, feed.c.purged_to)).one_or_none()
    if row is None:
        raise StoreUnavailable(NO_FEED)
    history, purged_to = row
    oldest, newest = feed_bounds(connection)
    # What is there is not purged, whatever was written. And what is not there need not be purged: a transaction that
    # was rolled back used its ids up.
    return FeedStanding(history, min(purged_to, max(oldest - 1, 0)), newest)


def note_purge(connection: sa.Connection, ids: sa.Select[tuple[int]]) -> None:
    """Changes with these ids, the oldest ones, are about to be removed."""
    last = connection.execute(sa.select(sa.func.max(ids.subquery().c.id))).scalar()
    if last is not None:
        connection.execute(feed.update().values(purged_to=last))


def begin_again(connection: sa.Connection, at: float) -> None:
    """The database lost commits: the feed gets another history, and all accounts a catch-up poll since ``at``.

    Deliveries that were acknowledged may be gone with them, and so may issues, as long as nothing was polled again.
    """
    connection.execute(feed.update().values(history=secrets.token_hex(4)))
    names = sa.select(accounts.c.name).where(accounts.c.gone_at.is_(None)).order_by(accounts.c.name)
    for name in connection.execute(names).scalars().all():
        request_catch_up(connection, name, at)


def request_catch_up(connection: sa.Connection, account: str, at: float | sa.ColumnElement[float]) -> None:
    """Note durably that this account's servers must be polled at ``at`` or later.

    A poll finds what a delivery would have told that did not fit into the inbox, or whose event nobody confirmed.
    """
    statement = insert(connection.dialect.name, catch_ups).values(account=account, since=at)
    newest = statement.excluded.since
    later = sa.case((catch_ups.c.since > newest, catch_ups.c.since), else_=newest)
    connection.execute(statement.on_conflict_do_update(index_elements=["account"], set_={"since": later}))


def follow_cluster(connection: sa.Connection, cluster: str, at: float) -> bool:
    """Note which PostgreSQL this is, as a mark; True if it was another one before, so that all begins again."""
    before = connection.execute(sa.select(feed.c.cluster)).scalar()
    if before == cluster:
        return False
    connection.execute(feed.update().values(cluster=cluster))
    is_another = not is_same_cluster(before, cluster)
    if is_another:
        begin_again(connection, at)
    return is_another


def feed_bounds(connection: sa.Connection) -> tuple[int, int]:
    """Ids of the oldest and the newest change kept; (0, 0) while there are none."""
    oldest, newest = connection.execute(sa.select(sa.func.min(changes.c.id), sa.func.max(changes.c.id))).one()
    return oldest or 0, newest or 0
