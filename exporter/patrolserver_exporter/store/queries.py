"""Reads for the API: pages of servers and issues, servers by name. The deploy gate has more in `known`.

Lists page by key, so that nothing is shown twice or left out because something else came or went. Servers that are gone
are left out everywhere. What SQL does not tell alike in both databases is narrowed in Python, in bounded scans.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
import sqlalchemy as sa

from patrolserver_exporter.issues.model import Issue
from patrolserver_exporter.store.documents import unseal
from patrolserver_exporter.store.fleet import RECORD_COLUMNS, ServerRecord, record_of
from patrolserver_exporter.store.tables import issues, servers

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

CHUNK = 250
"""Keys in one statement; SQLite takes up to 999 parameters in every version."""
SCAN_LIMIT = 5_000
"""Rows that one read looks at for a page, so that no list keeps a connection from others for long."""

MOST_GONE = 20
"""Servers that are gone, told of at once: a name may have been used over and over."""

HERE = servers.c.gone_at.is_(None)
"""The server is not gone."""


class ServerKey(NamedTuple):
    """Which server."""

    account: str
    server_id: int


class NamedServer(NamedTuple):
    """Which server, and what it is called."""

    account: str
    server_id: int
    name: str

    @property
    def key(self) -> ServerKey:
        """Without the name."""
        return ServerKey(self.account, self.server_id)


# Servers by id and name


def named_servers(
    connection: sa.Connection, matches: Callable[[str], bool], wanted_accounts: Sequence[str] = ()
) -> list[NamedServer]:
    """All servers whose name ``matches``, of these accounts where some are given."""
    query = sa.select(servers.c.account, servers.c.server_id, servers.c.name).where(HERE)
    if wanted_accounts:
        query = query.where(servers.c.account.in_(wanted_accounts))
    return [NamedServer(*row) for row in connection.execute(query).all() if matches(row[2])]


def servers_called(
    connection: sa.Connection, ids: Iterable[int], names: Iterable[str], wanted_accounts: Sequence[str] = ()
) -> list[NamedServer]:
    """Servers with one of these ids, or exactly one of these names."""
    found: dict[ServerKey, NamedServer] = {}
    for column, values in ((servers.c.server_id, sorted(set(ids))), (servers.c.name, sorted(set(names)))):
        for start in range(0, len(values), CHUNK):
            query = sa.select(servers.c.account, servers.c.server_id, servers.c.name).where(
                HERE, column.in_(values[start : start + CHUNK])
            )
            if wanted_accounts and column is servers.c.server_id:
                # With the names, SQLite would take the account's index, and read the whole account.
                query = query.where(servers.c.account.in_(wanted_accounts))
            for row in connection.execute(query):
                server = NamedServer(*row)
                if not wanted_accounts or server.account in wanted_accounts:
                    found[server.key] = server
    return list(found.values())


def gone_servers(
    connection: sa.Connection, server_id: int | None, name: str, wanted_accounts: Sequence[str] = ()
) -> list[tuple[NamedServer, float]]:
    """Servers with this id, or exactly this name, that are gone but not forgotten; and since when, in seconds."""
    query = (
        sa.select(servers.c.account, servers.c.server_id, servers.c.name, servers.c.gone_at)
        .where(~HERE, sa.or_(servers.c.server_id == (server_id or 0), servers.c.name == name))
        .order_by(servers.c.gone_at.desc(), servers.c.account, servers.c.server_id)
        .limit(MOST_GONE)
    )
    if wanted_accounts:
        query = query.where(servers.c.account.in_(wanted_accounts))
    return [(NamedServer(*row[:3]), row[3]) for row in connection.execute(query)]


# Lists


class ServersWanted(msgspec.Struct, frozen=True, kw_only=True):
    """Which servers a list has; empty narrows nothing."""

    accounts: tuple[str, ...] = ()
    severities: tuple[str, ...] = ()
    kinds: tuple[str, ...] = ()
    keys: frozenset[ServerKey] | None = None


def servers_page(
    connection: sa.Connection, wanted: ServersWanted, after: tuple[str, int] | None, limit: int
) -> list[ServerRecord]:
    """Up to ``limit`` servers by account and id, after that one."""
    query = sa.select(*RECORD_COLUMNS).where(HERE)
    if wanted.accounts:
        query = query.where(servers.c.account.in_(wanted.accounts))
    if wanted.severities:
        query = query.where(sa.or_(*(servers.c[severity] > 0 for severity in wanted.severities)))
    if wanted.kinds:
        query = query.where(_has_open_issue_of(wanted.kinds))
    if wanted.keys is not None:
        return _records_among(connection, query, wanted.keys, after, limit)
    if after is not None:
        account, server_id = after
        later = sa.or_(
            servers.c.account > account, sa.and_(servers.c.account == account, servers.c.server_id > server_id)
        )
        query = query.where(later, servers.c.account >= account)
    query = query.order_by(servers.c.account, servers.c.server_id).limit(limit)
    return [record_of(row) for row in connection.execute(query)]


def _has_open_issue_of(kinds: Sequence[str]) -> sa.Exists:
    return sa.exists().where(
        issues.c.account == servers.c.account,
        issues.c.server_id == servers.c.server_id,
        issues.c.fixed_at.is_(None),
        issues.c.waived.is_(False),
        issues.c.kind.in_(kinds),
    )


def _records_among(
    connection: sa.Connection,
    query: sa.Select[Any],
    keys: Iterable[ServerKey],
    after: tuple[str, int] | None,
    limit: int,
) -> list[ServerRecord]:
    """Those of the query that are among the keys: asked for by key, so that few keys cost little."""
    left = sorted(key for key in keys if after is None or key > after)
    found: list[ServerRecord] = []
    for start in range(0, len(left), CHUNK):
        chunk = query.where(is_one_of(servers, left[start : start + CHUNK]))
        records = [record_of(row) for row in connection.execute(chunk)]
        found += sorted(records, key=lambda record: (record.account, record.server_id))
        if len(found) >= limit:
            break
    return found[:limit]


def is_one_of(table: sa.Table, keys: Sequence[ServerKey]) -> sa.ColumnElement[bool]:
    """Whether the table's row is of one of these servers, which are at most ``CHUNK``."""
    by_account: dict[str, list[int]] = defaultdict(list)
    for account, server_id in keys:
        by_account[account].append(server_id)
    return sa.or_(
        *(sa.and_(table.c.account == account, table.c.server_id.in_(ids)) for account, ids in by_account.items())
    )


class IssuesWanted(msgspec.Struct, frozen=True, kw_only=True):
    """Which issues a list has; empty narrows nothing."""

    accounts: tuple[str, ...] = ()
    severities: tuple[str, ...] = ()
    kinds: tuple[str, ...] = ()
    keys: frozenset[ServerKey] | None = None
    fixed: bool | None = False
    waived: bool | None = None


class IssueRow(NamedTuple):
    """An issue in a list: its place, and what its server is called."""

    row: int
    server: str
    issue: Issue


def issues_page(
    connection: sa.Connection,
    wanted: IssuesWanted,
    matches: Callable[[str], bool] | None,
    after: int,
    limit: int,
) -> tuple[list[IssueRow], int | None]:
    """Up to ``limit`` issues by row after that one, whose canonical name ``matches``.

    Also where to go on; ``None`` at the end. Before it less than ``limit`` may come back, because a scan is bounded.
    """
    query = _issues_query(wanted).where(issues.c.id > after).order_by(issues.c.id)
    narrows = matches is not None or (wanted.keys is not None and len(wanted.keys) > CHUNK)
    scan = SCAN_LIMIT if narrows else limit + 1
    found: list[IssueRow] = []
    seen, last = 0, after
    for row, account, server_id, canonical_name, name, document in connection.execute(query.limit(scan)):
        if len(found) == limit:
            return found, last
        seen, last = seen + 1, row
        if wanted.keys is not None and (account, server_id) not in wanted.keys:
            continue
        if matches is None or matches(canonical_name):
            found.append(IssueRow(row, name, unseal(document, Issue)))
    return found, last if seen == scan else None


def _issues_query(wanted: IssuesWanted) -> sa.Select[Any]:
    here = sa.and_(servers.c.account == issues.c.account, servers.c.server_id == issues.c.server_id, HERE)
    query = sa.select(
        issues.c.id, issues.c.account, issues.c.server_id, issues.c.canonical_name, servers.c.name, issues.c.document
    ).select_from(issues.join(servers, here))
    if wanted.fixed is not None:
        query = query.where(issues.c.fixed_at.is_not(None) if wanted.fixed else issues.c.fixed_at.is_(None))
    if wanted.waived is not None:
        query = query.where(issues.c.waived.is_(wanted.waived))
    for column, values in (
        (issues.c.account, wanted.accounts),
        (issues.c.severity, wanted.severities),
        (issues.c.kind, wanted.kinds),
    ):
        if values:
            query = query.where(column.in_(values))
    if wanted.keys is not None and len(wanted.keys) <= CHUNK:
        query = query.where(is_one_of(issues, sorted(wanted.keys)) if wanted.keys else sa.false())
    return query
