"""Servers, their software, and issues."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from patrolserver_exporter.inbox import deliveries
from patrolserver_exporter.store import fleet, queries
from patrolserver_exporter.store.queries import keys_meant as keys_of
from patrolserver_exporter.web.api import cursors, endpoint, types
from patrolserver_exporter.web.api.endpoint import Api, Call, IssueState, Reply, Waived, in_thread
from patrolserver_exporter.web.http.requests import ApiError

if TYPE_CHECKING:
    from collections.abc import Callable

    import sqlalchemy as sa

    from patrolserver_exporter.patrolserver.models import Software
    from patrolserver_exporter.store.queries import IssueRow, IssuesWanted, ServerKey
    from patrolserver_exporter.web.api.endpoint import (
        IssuesQuery,
        OneServer,
        ServerIssuesQuery,
        ServersQuery,
        SoftwareQuery,
    )

_FIXED = {IssueState.OPEN: False, IssueState.FIXED: True, IssueState.ALL: None}
_WAIVED = {Waived.BOTH: None, Waived.TRUE: True, Waived.FALSE: False}


async def servers(api: Api, call: Call[ServersQuery]) -> Reply:
    """A page of servers."""
    query = call.query
    cursor = None if query.cursor is None else cursors.read(query.cursor, cursors.ServersCursor)
    after = None if cursor is None else (cursor.account, cursor.server_id)
    selectors, watched = endpoint.selectors_of(query.server), api.accounts()

    def work(connection: sa.Connection) -> tuple[list[fleet.ServerRecord], deliveries.Doubts]:
        wanted = queries.ServersWanted(
            accounts=query.account,
            severities=query.severity,
            kinds=query.kind,
            keys=keys_of(connection, selectors, query.account or watched),
        )
        doubts = deliveries.doubts(connection)
        return queries.servers_page(connection, wanted, after, query.limit + 1), doubts

    records, doubts = await api.read(work)
    return Reply(await in_thread(_servers_page, records, doubts, query.limit, api.now()))


def _servers_page(records: list[fleet.ServerRecord], doubts: deliveries.Doubts, limit: int, now: float) -> bytes:
    shown_ones = records[:limit]
    next_cursor = None
    if len(records) > limit:
        last = shown_ones[-1]
        next_cursor = cursors.write(cursors.ServersCursor(last.account, last.server_id))
    items = tuple(_show(record, doubts, now) for record in shown_ones)
    return msgspec.json.encode(types.ServerPage(items=items, next_cursor=next_cursor))


def _show(record: fleet.ServerRecord, doubts: deliveries.Doubts, now: float) -> types.Server:
    in_doubt = doubts.concern(record.account, record.state.answered_at)
    return types.server_of(record, now=now, in_doubt=in_doubt)


async def server(api: Api, call: Call[OneServer]) -> Reply:
    """One server."""
    watched = api.accounts()

    def work(connection: sa.Connection) -> tuple[fleet.ServerRecord | None, deliveries.Doubts]:
        key = endpoint.only_one(connection, call.path["server"], call.query.account, watched)
        return fleet.find_server(connection, key.account, key.server_id), deliveries.doubts(connection)

    record, doubts = await api.read(work)
    if record is None:
        raise ApiError(404, f"There is no server {call.path['server']!r}.")
    return Reply(_show(record, doubts, api.now()))


async def issues(api: Api, call: Call[IssuesQuery]) -> Reply:
    """A page of issues over all servers."""
    query = call.query
    selectors, watched = endpoint.selectors_of(query.server), api.accounts()
    return await _issues(
        api, query, query.account, lambda connection: keys_of(connection, selectors, query.account or watched)
    )


async def server_issues(api: Api, call: Call[ServerIssuesQuery]) -> Reply:
    """A page of one server's issues."""
    query, asked, watched = call.query, call.path["server"], api.accounts()
    return await _issues(
        api, query, (), lambda connection: frozenset({endpoint.only_one(connection, asked, query.account, watched)})
    )


async def _issues(
    api: Api,
    query: ServerIssuesQuery,
    accounts: tuple[str, ...],
    keys_of: Callable[[sa.Connection], frozenset[ServerKey] | None],
) -> Reply:
    after = 0 if query.cursor is None else cursors.read(query.cursor, cursors.IssuesCursor).row
    matches = endpoint.any_glob(query.software)
    rows: list[IssueRow] = []
    on: int | None = after
    while on is not None and len(rows) < query.limit:
        left, start = query.limit - len(rows), on

        def work(connection: sa.Connection, left: int = left, start: int = start) -> tuple[list[IssueRow], int | None]:
            wanted = _wanted(query, accounts, keys_of(connection))
            return queries.issues_page(connection, wanted, matches, start, left)

        found, on = await api.read(work)
        rows += found
    return Reply(await in_thread(_issues_page, rows, on))


def _wanted(query: ServerIssuesQuery, accounts: tuple[str, ...], keys: frozenset[ServerKey] | None) -> IssuesWanted:
    return queries.IssuesWanted(
        accounts=accounts,
        severities=query.severity,
        kinds=query.kind,
        keys=keys,
        fixed=_FIXED[query.state],
        waived=_WAIVED[query.waived],
    )


def _issues_page(rows: list[IssueRow], on: int | None) -> bytes:
    next_cursor = None if on is None else cursors.write(cursors.IssuesCursor(on))
    items = tuple(types.issue_of(row.issue, row.server) for row in rows)
    return msgspec.json.encode(types.IssuePage(items=items, next_cursor=next_cursor))


async def software(api: Api, call: Call[SoftwareQuery]) -> Reply:
    """A page of one server's software, as the last successful poll showed it."""
    query, asked, watched = call.query, call.path["server"], api.accounts()
    after = None if query.cursor is None else cursors.read(query.cursor, cursors.SoftwareCursor)

    def work(connection: sa.Connection) -> tuple[Software, ...] | None:
        key = endpoint.only_one(connection, asked, query.account, watched)
        return fleet.software_of(connection, key.account, key.server_id)

    installed = await api.read(work)
    return Reply(await in_thread(_software_page, installed or (), after, query.limit))


def _software_page(installed: tuple[Software, ...], after: cursors.SoftwareCursor | None, limit: int) -> bytes:
    placed: dict[tuple[str, str, int], Software] = {}
    for one in installed:
        name, location, ordinal = one.canonical_name, one.location or "", 0
        while (name, location, ordinal) in placed:
            ordinal += 1
        placed[name, location, ordinal] = one
    left = sorted(place for place in placed if after is None or place > (after.name, after.location, after.ordinal))
    next_cursor = cursors.write(cursors.SoftwareCursor(*left[limit - 1])) if len(left) > limit else None
    items = tuple(types.software_of(placed[place]) for place in left[:limit])
    return msgspec.json.encode(types.SoftwarePage(items=items, next_cursor=next_cursor))


async def refresh(api: Api, call: Call[Any]) -> Reply:
    """Have a server polled now."""
    asked, account, watched = call.path["server"], call.query.account, api.accounts()
    key = await api.read(lambda connection: endpoint.only_one(connection, asked, account, watched))
    operation = api.refreshes.start(key.account, key.server_id)
    if operation is None:
        raise ApiError(429, "Too many refreshes are under way; try again later.", headers={"retry-after": "10"})
    location = f"{api.context.route_prefix}/api/v1/operations/{operation.id}"
    return Reply(types.OperationReply(operation=operation), 202, {"location": location})


async def operation(api: Api, call: Call[Any]) -> Reply:
    """How a refresh stands."""
    found = api.refreshes.find(call.path["operation"])
    if found is None:
        raise ApiError(404, "There is no such operation; one is forgotten an hour after it was asked for.")
    return Reply(types.OperationReply(operation=found))
