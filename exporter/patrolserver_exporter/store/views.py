"""What the pages for people read: one bounded read a view."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
import sqlalchemy as sa

from patrolserver_exporter.issues.model import SEVERITIES, Issue, Severity
from patrolserver_exporter.issues.summary import ServerSummary
from patrolserver_exporter.patrolserver.models import MAX_ID, Software
from patrolserver_exporter.store.fleet import AccountRecord, ServerRecord, account_records, find_server, software_of
from patrolserver_exporter.store.queries import HERE
from patrolserver_exporter.store.tables import issues, servers, unseal

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
_ISSUE_RANK = sa.case({severity.value: rank for rank, severity in enumerate(SEVERITIES)}, value=issues.c.severity)


class FleetFilter(msgspec.Struct, frozen=True, kw_only=True):
    """Which servers are wanted; everything is by default."""

    search: str = ""
    """Part of the name, capitals and small letters alike, or the id."""
    severity: Severity | None = None
    """With an open issue of this severity or a worse one."""
    account: str | None = None


class FleetTotals(msgspec.Struct, frozen=True, kw_only=True):
    """Sums over the whole fleet, per severity in the order of ``SEVERITIES``; waived issues are counted apart."""

    servers: int
    issues: tuple[int, ...]
    affected: tuple[int, ...]
    """Servers with at least one such issue."""
    clean: int
    """Servers that were polled and have no open issue."""
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


class PollState(msgspec.Struct, frozen=True):
    """The part of a server's state and summary that tells what its polls are worth, and how it stands."""

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


def fleet_view(connection: sa.Connection, wanted: FleetFilter, *, offset: int, limit: int) -> FleetView:
    """Read a page of the fleet, worst first; past the end, the last page."""
    condition = _condition(wanted)
    totals = _totals(connection)
    matching = totals.servers if wanted == FleetFilter() else _count(connection, condition)
    offset = min(offset, max(matching - 1, 0) // limit * limit)
    keys = (
        sa.select(servers.c.account, servers.c.server_id)
        .where(condition)
        .order_by(*_WORST_FIRST)
        .limit(limit)
        .offset(offset)
        .subquery()
    )
    rows = connection.execute(
        sa.select(servers.c.summary)
        .join(keys, sa.and_(servers.c.account == keys.c.account, servers.c.server_id == keys.c.server_id))
        .order_by(*_WORST_FIRST)
    )
    return FleetView(
        rows=tuple(unseal(summary, ServerSummary) for (summary,) in rows),
        offset=offset,
        matching=matching,
        totals=totals,
        accounts=account_records(connection),
    )


def _count(connection: sa.Connection, condition: sa.ColumnElement[bool]) -> int:
    return int(connection.execute(sa.select(sa.func.count()).select_from(servers).where(condition)).scalar_one())


def _condition(wanted: FleetFilter) -> sa.ColumnElement[bool]:
    parts: list[sa.ColumnElement[bool]] = [HERE]
    if wanted.account is not None:
        parts.append(servers.c.account == wanted.account)
    if wanted.severity is not None:
        worst = _COUNTS[: SEVERITIES.index(wanted.severity) + 1]
        parts.append(sa.or_(*(count > 0 for count in worst)))
    if wanted.search:
        named = servers.c.name.icontains(wanted.search, autoescape=True)
        server_id = as_server_id(wanted.search)
        parts.append(named if server_id is None else sa.or_(named, servers.c.server_id == server_id))
    return sa.and_(*parts)


def as_server_id(text: str) -> int | None:
    """Return the id that a text is; ``None`` when it is none, or one that no server can have."""
    if not (text.isascii() and text.isdigit() and len(text) <= len(str(MAX_ID))):
        return None
    return found if 0 < (found := int(text)) <= MAX_ID else None


def _totals(connection: sa.Connection) -> FleetTotals:
    def total(value: sa.ColumnElement[Any]) -> sa.ColumnElement[Any]:
        return sa.func.coalesce(sa.func.sum(value), 0)

    none_open = sa.and_(*(count == 0 for count in _COUNTS), servers.c.software.is_not(None))
    row = connection.execute(
        sa.select(
            sa.func.count(),
            total(sa.case((none_open, 1), else_=0)),
            total(servers.c.waived),
            *(total(count) for count in _COUNTS),
            *(total(sa.case((count > 0, 1), else_=0)) for count in _COUNTS),
        ).where(HERE)
    ).one()
    count, clean, waived, *rest = (int(value) for value in row)
    kinds = len(SEVERITIES)
    return FleetTotals(
        servers=count, clean=clean, waived=waived, issues=tuple(rest[:kinds]), affected=tuple(rest[kinds:])
    )


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
    return [
        msgspec.structs.replace(unseal(summary, PollState), empty=unseal(state, _Emptiness).empty)
        for summary, state in connection.execute(query)
    ]


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
