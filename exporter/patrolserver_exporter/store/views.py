"""What the pages for people read: one bounded read a view."""

from __future__ import annotations

from collections import defaultdict
from enum import StrEnum
from typing import TYPE_CHECKING, Any

import msgspec
import sqlalchemy as sa

from patrolserver_exporter.issues.model import SEVERITIES, ChangeKind, Issue
from patrolserver_exporter.issues.summary import ServerSummary
from patrolserver_exporter.patrolserver.models import MAX_ID, Software
from patrolserver_exporter.store.fleet import AccountRecord, ServerRecord, account_records, find_server, software_of
from patrolserver_exporter.store.history import OF_KNOWN_KIND, StoredChange
from patrolserver_exporter.store.queries import (
    HERE,
    IssueRow,
    IssuesWanted,
    ServerKey,
    ServersWanted,
    is_one_of,
    issue_conditions,
    servers_condition,
)
from patrolserver_exporter.store.tables import changes, issues, servers, unseal

if TYPE_CHECKING:
    from collections.abc import Sequence

_COUNTS = tuple(servers.c[severity.value] for severity in SEVERITIES)
_WORST_FIRST = (
    *(count.desc() for count in _COUNTS),
    # What was never polled may be anything, so it comes before what is known to be fine.
    servers.c.software.is_(None).desc(),
    servers.c.name,
    servers.c.account,
    servers.c.server_id,
)


def _ordering(wanted: FleetFilter) -> tuple[sa.ColumnElement[Any], ...]:
    if not wanted.reverse:
        return _ORDERS[wanted.order]
    if wanted.order is Order.WORST:
        return _BEST_FIRST
    if wanted.order is Order.NAME:
        return tuple(column.desc() for column in _KEY_ORDER)
    return (servers.c[wanted.order.value].asc(), *_KEY_ORDER)


_ISSUE_RANK = sa.case({severity.value: rank for rank, severity in enumerate(SEVERITIES)}, value=issues.c.severity)


class Order(StrEnum):
    """By what the database sorts servers; the worst, the most or the first letter comes first."""

    WORST = "worst"
    NAME = "name"
    CRITICAL = "critical"
    HIGH = "high"
    MEDIUM = "medium"
    LOW = "low"


_KEY_ORDER = (servers.c.name, servers.c.account, servers.c.server_id)
_ORDERS: dict[Order, tuple[sa.ColumnElement[Any], ...]] = {
    Order.WORST: _WORST_FIRST,
    Order.NAME: _KEY_ORDER,
    **{Order(severity.value): (servers.c[severity.value].desc(), *_KEY_ORDER) for severity in SEVERITIES},
}
_BEST_FIRST = (*(count.asc() for count in _COUNTS), servers.c.software.is_(None).asc(), *_KEY_ORDER)


class FleetFilter(msgspec.Struct, frozen=True, kw_only=True):
    """Which servers are wanted; everything is by default."""

    servers: ServersWanted = ServersWanted()
    search: str = ""
    """Part of the name or of a canonical name with an open issue, capitals and small letters alike, or the id."""
    found: frozenset[ServerKey] = frozenset()
    """Servers that fit the search for another reason."""
    order: Order = Order.WORST
    reverse: bool = False
    """The other way round."""


class FleetTotals(msgspec.Struct, frozen=True, kw_only=True):
    """Sums over the whole fleet, per severity in the order of ``SEVERITIES``; waived issues are counted apart."""

    servers: int
    issues: tuple[int, ...]
    affected: tuple[int, ...]
    """Servers with at least one such issue."""
    waived: int


class FleetView(msgspec.Struct, frozen=True, kw_only=True):
    """One page of the fleet, and what stands around it."""

    rows: tuple[ServerSummary, ...]
    offset: int
    """Of the first row; less than asked for when the list is shorter than that."""
    matching: int
    """Servers that the filter leaves."""
    totals: FleetTotals
    accounts: dict[str, AccountRecord]


class ServerView(msgspec.Struct, frozen=True, kw_only=True):
    """One server with what is known of it. Lists are cut; the counts are whole."""

    record: ServerRecord
    software: tuple[Software, ...] | None
    open_issues: tuple[Issue, ...]
    """Worst first."""
    open_count: int
    fixed_issues: tuple[Issue, ...]
    """The last fixed one first."""
    fixed_count: int


class PollState(msgspec.Struct, frozen=True, gc=False):
    """The part of a server's state and summary that tells what its polls are worth, and how it stands.

    It holds nothing that leads back to it, so the garbage collector need not go through a large fleet of them.
    """

    account: str
    server_id: int
    last_poll_at: float | None = None
    poll_success: bool = False
    name: str = ""
    poll_complete: bool = True
    empty: bool = False
    """The last successful poll showed no software at all."""
    open_issues: tuple[int, int, int, int] | None = None
    exploits_unknown_risk: int = 0
    software: tuple[int, int, int, int] | None = None
    exploits: int | None = None
    exploit_risk_max: float | None = None
    in_doubt: bool = False
    scanning: bool = False
    last_scan_at: float | None = None
    verified: bool | None = None


class _Emptiness(msgspec.Struct, frozen=True):
    """The part of a server's state that is not in its summary: software of before may still be shown."""

    empty: bool = False


def fleet_view(
    connection: sa.Connection,
    wanted: FleetFilter,
    *,
    offset: int,
    limit: int,
    keys: Sequence[ServerKey] | None = None,
) -> FleetView:
    """Read a page of the fleet; past the end, the last page. ``keys``: of these servers, in that order, instead."""
    totals = fleet_totals(connection)
    if keys is None and wanted.servers.keys is None:
        matching = totals.servers if is_everything(wanted) else _count(connection, _condition(wanted))
        offset = _within(offset, matching, limit)
        query = sa.select(servers.c.account, servers.c.server_id).where(_condition(wanted))
        rows = connection.execute(query.order_by(*_ordering(wanted)).limit(limit).offset(offset))
        page = [ServerKey(*row) for row in rows]
    else:
        chosen = fleet_keys(connection, wanted) if keys is None else keys
        matching, offset = len(chosen), _within(offset, len(chosen), limit)
        page = list(chosen[offset : offset + limit])
    return FleetView(
        rows=summaries_of(connection, page),
        offset=offset,
        matching=matching,
        totals=totals,
        accounts=account_records(connection),
    )


def is_everything(wanted: FleetFilter) -> bool:
    """Whether it leaves no server out."""
    return wanted.servers == ServersWanted() and not wanted.search


def _within(offset: int, matching: int, limit: int) -> int:
    return min(offset, max(matching - 1, 0) // limit * limit)


def fleet_keys(connection: sa.Connection, wanted: FleetFilter) -> list[ServerKey]:
    """All servers that are wanted, in order."""
    query = sa.select(servers.c.account, servers.c.server_id).where(_condition(wanted)).order_by(*_ordering(wanted))
    among = wanted.servers.keys
    keys = [ServerKey(*row) for row in connection.execute(query)]
    return keys if among is None else [key for key in keys if key in among]


def summaries_of(connection: sa.Connection, keys: Sequence[ServerKey]) -> tuple[ServerSummary, ...]:
    """What is known of these few servers, in that order; those that are gone meanwhile are left out."""
    if not keys:
        return ()
    query = sa.select(servers.c.account, servers.c.server_id, servers.c.summary).where(HERE, is_one_of(servers, keys))
    found = {ServerKey(row[0], row[1]): row[2] for row in connection.execute(query)}
    return tuple(unseal(found[key], ServerSummary) for key in keys if key in found)


def _count(connection: sa.Connection, condition: sa.ColumnElement[bool]) -> int:
    return int(connection.execute(sa.select(sa.func.count()).select_from(servers).where(condition)).scalar_one())


def _condition(wanted: FleetFilter) -> sa.ColumnElement[bool]:
    condition = servers_condition(wanted.servers)
    if not wanted.search:
        return condition
    software = (
        sa.select(issues.c.account, issues.c.server_id)
        .where(issues.c.fixed_at.is_(None), issues.c.canonical_name.icontains(wanted.search, autoescape=True))
        .distinct()
    )
    fitting = [
        servers.c.name.icontains(wanted.search, autoescape=True),
        # One list for all rows, not one search for each.
        sa.tuple_(servers.c.account, servers.c.server_id).in_(software),
    ]
    server_id = as_server_id(wanted.search)
    if server_id is not None:
        fitting.append(servers.c.server_id == server_id)
    by_account: dict[str, list[int]] = defaultdict(list)
    for account, found in wanted.found:
        by_account[account].append(found)
    for account, ids in by_account.items():
        # Written into the statement: they may be more than parameters are allowed.
        numbers: list[Any] = [sa.literal_column(str(int(one))) for one in ids]
        fitting.append(sa.and_(servers.c.account == account, servers.c.server_id.in_(numbers)))
    return sa.and_(condition, sa.or_(*fitting))


def _of_servers_here(table: sa.Table) -> sa.ColumnElement[bool]:
    """Whether the row of a server is of one that is not gone.

    Few are gone, so their keys are looked at, and not the long row of each server that is here.
    """
    gone = sa.select(servers.c.account, servers.c.server_id).where(~HERE)
    return sa.tuple_(table.c.account, table.c.server_id).not_in(gone)


def as_server_id(text: str) -> int | None:
    """Return the id that a text is; ``None`` when it is none, or one that no server can have."""
    if not (text.isascii() and text.isdigit() and len(text) <= len(str(MAX_ID))):
        return None
    return found if 0 < (found := int(text)) <= MAX_ID else None


def fleet_totals(connection: sa.Connection) -> FleetTotals:
    """Sum over the whole fleet."""

    def total(value: sa.ColumnElement[Any]) -> sa.ColumnElement[Any]:
        return sa.func.coalesce(sa.func.sum(value), 0)

    # Only what stands in ix_servers_totals: a row is long, since a server's software stands in it.
    row = connection.execute(
        sa.select(
            sa.func.count(),
            total(servers.c.waived),
            *(total(count) for count in _COUNTS),
            *(total(sa.case((count > 0, 1), else_=0)) for count in _COUNTS),
        ).where(HERE)
    ).one()
    count, waived, *rest = (int(value) for value in row)
    kinds = len(SEVERITIES)
    return FleetTotals(servers=count, waived=waived, issues=tuple(rest[:kinds]), affected=tuple(rest[kinds:]))


def poll_states(connection: sa.Connection, after: tuple[str, int] | None, limit: int) -> list[PollState]:
    """Read how fresh the next servers after that key are, by account and id; ``None`` is the beginning."""
    query = (
        sa.select(servers.c.summary, servers.c.state)
        .where(HERE)
        .order_by(servers.c.account, servers.c.server_id)
        .limit(limit)
    )
    if after is not None:
        query = query.where(sa.tuple_(servers.c.account, servers.c.server_id) > after)
    # All at once: row by row the driver is asked for each.
    return [_poll_state(summary, state) for summary, state in connection.execute(query).all()]


def _poll_state(summary: bytes, state: bytes) -> PollState:
    found = unseal(summary, PollState)
    if found.poll_complete and found.software and any(found.software):
        # Most have some software, so that the second document says nothing more.
        return found
    return msgspec.structs.replace(found, empty=unseal(state, _Emptiness).empty)


def accounts_with(connection: sa.Connection, server_id: int) -> tuple[tuple[str, str], ...]:
    """Return account and name of each server with that id; those that are gone only when there is no other."""
    rows = connection.execute(
        sa.select(servers.c.account, servers.c.name, servers.c.gone_at)
        .where(servers.c.server_id == server_id)
        .order_by(servers.c.account)
    ).all()
    here = [row for row in rows if row.gone_at is None]
    return tuple((row.account, row.name) for row in here or rows)


def server_view(
    connection: sa.Connection, account: str, server_id: int, *, issue_limit: int, history_limit: int
) -> ServerView | None:
    """Read one server; ``None`` when the account never had it, or it was forgotten."""
    record = find_server(connection, account, server_id)
    if record is None:
        return None
    own = sa.and_(issues.c.account == account, issues.c.server_id == server_id)
    is_open = issues.c.fixed_at.is_(None)
    total, still_open = connection.execute(
        sa.select(sa.func.count(), sa.func.coalesce(sa.func.sum(sa.case((is_open, 1), else_=0)), 0)).where(own)
    ).one()
    return ServerView(
        record=record,
        software=software_of(connection, account, server_id),
        open_issues=_issues(connection, sa.and_(own, is_open), (_ISSUE_RANK, issues.c.id), issue_limit),
        open_count=still_open,
        fixed_issues=_issues(
            connection, sa.and_(own, ~is_open), (issues.c.fixed_at.desc(), issues.c.id.desc()), history_limit
        ),
        fixed_count=total - still_open,
    )


def _issues(
    connection: sa.Connection, condition: sa.ColumnElement[bool], order: Sequence[Any], limit: int
) -> tuple[Issue, ...]:
    rows = connection.execute(sa.select(issues.c.document).where(condition).order_by(*order).limit(limit))
    return tuple(unseal(document, Issue) for (document,) in rows)


class IssueOrder(StrEnum):
    """By what issues are sorted; the worst, the newest or the first letter comes first."""

    WORST = "worst"
    NEWEST = "newest"
    SOFTWARE = "software"
    SERVER = "server"


_ISSUE_ORDERS: dict[IssueOrder, tuple[tuple[Any, ...], tuple[Any, ...]]] = {
    IssueOrder.WORST: ((_ISSUE_RANK, issues.c.id), (_ISSUE_RANK.desc(), issues.c.id)),
    IssueOrder.NEWEST: ((issues.c.id.desc(),), (issues.c.id,)),
    IssueOrder.SOFTWARE: (
        (issues.c.canonical_name, _ISSUE_RANK, issues.c.id),
        (issues.c.canonical_name.desc(), _ISSUE_RANK, issues.c.id),
    ),
    IssueOrder.SERVER: (
        (servers.c.name, _ISSUE_RANK, issues.c.id),
        (servers.c.name.desc(), _ISSUE_RANK, issues.c.id),
    ),
}


class IssuesView(msgspec.Struct, frozen=True, kw_only=True):
    """One page of issues over the fleet."""

    rows: tuple[IssueRow, ...]
    offset: int
    matching: int


def issues_view(  # noqa: PLR0913  # what is wanted, how and how much of it, by keyword
    connection: sa.Connection,
    wanted: IssuesWanted,
    *,
    order: IssueOrder,
    reverse: bool,
    offset: int,
    limit: int,
) -> IssuesView:
    """Read a page of issues; past the end, the last page."""
    here = sa.and_(servers.c.account == issues.c.account, servers.c.server_id == issues.c.server_id, HERE)
    chosen = issues.join(servers, here)
    conditions = issue_conditions(wanted)
    ordering = _ISSUE_ORDERS[order][reverse]
    if wanted.is_plain:
        count = sa.select(sa.func.count()).where(*conditions, _of_servers_here(issues))
        matching = int(connection.execute(count).scalar_one())
        offset = _within(offset, matching, limit)
        if order is IssueOrder.SERVER:
            ids = sa.select(issues.c.id).select_from(chosen).where(*conditions).order_by(*ordering)
        else:
            ids = sa.select(issues.c.id).where(*conditions, _of_servers_here(issues)).order_by(*ordering)
        page = list(connection.execute(ids.limit(limit).offset(offset)).scalars())
    else:
        columns = (issues.c.id, issues.c.account, issues.c.server_id, issues.c.canonical_name)
        # Documents only where exploits are asked for: they are most of what is read.
        document = (issues.c.document,) if wanted.exploits else ()
        rows = connection.execute(
            sa.select(*columns, *document).select_from(chosen).where(*conditions).order_by(*ordering)
        )
        fitting = [row.id for row in rows if wanted.fits(row)]
        matching, offset = len(fitting), _within(offset, len(fitting), limit)
        page = fitting[offset : offset + limit]
    query = sa.select(issues.c.id, servers.c.name, issues.c.document).select_from(chosen).where(issues.c.id.in_(page))
    found = {row.id: IssueRow(row.id, row.name, unseal(row.document, Issue)) for row in connection.execute(query)}
    return IssuesView(rows=tuple(found[row] for row in page if row in found), offset=offset, matching=matching)


HOUR = 3600


class Changed(msgspec.Struct, frozen=True, kw_only=True):
    """How many issues of the servers that are there something happened to, hour by hour."""

    since: float
    """Since when all is told: the beginning that was asked for, or the oldest change kept."""
    by_hour: dict[tuple[int, ChangeKind], int]
    """By the hour since the epoch, and what happened."""
    open_now: int
    """Open issues now, waived ones included."""


def changed_since(connection: sa.Connection, since: float) -> Changed:
    """Count what happened to issues, in one pass of the database; those of servers that are gone are left out."""
    oldest = connection.execute(sa.select(sa.func.min(changes.c.at))).scalar()
    hour: sa.ColumnElement[int] = sa.cast(changes.c.at, sa.BigInteger).op("/")(HOUR)
    rows = connection.execute(
        sa.select(hour, changes.c.kind, sa.func.count())
        .where(changes.c.at >= since, OF_KNOWN_KIND, _of_servers_here(changes))
        .group_by(hour, changes.c.kind)
    )
    still_open = connection.execute(
        sa.select(sa.func.count()).where(issues.c.fixed_at.is_(None), _of_servers_here(issues))
    ).scalar_one()
    return Changed(
        since=since if oldest is None else max(since, oldest),
        by_hour={(int(at), ChangeKind(kind)): count for at, kind, count in rows},
        open_now=int(still_open),
    )


def newest_changes(connection: sa.Connection, *, since: float, before: int | None, limit: int) -> list[StoredChange]:
    """The next changes before that one and not before ``since``, the newest first; none of servers that are gone."""
    here = sa.and_(servers.c.account == changes.c.account, servers.c.server_id == changes.c.server_id, HERE)
    query = (
        sa.select(changes.c.id, changes.c.at, changes.c.kind, changes.c.server, changes.c.document)
        .select_from(changes.join(servers, here))
        .where(changes.c.at >= since, OF_KNOWN_KIND)
    )
    if before is not None:
        query = query.where(changes.c.id < before)
    rows = connection.execute(query.order_by(changes.c.id.desc()).limit(limit))
    return [
        StoredChange(
            id=row.id, at=row.at, kind=ChangeKind(row.kind), server=row.server, issue=unseal(row.document, Issue)
        )
        for row in rows
    ]
