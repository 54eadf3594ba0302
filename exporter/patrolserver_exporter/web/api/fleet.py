"""Servers, their software, and issues."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import msgspec

from patrolserver_exporter.inbox import deliveries
from patrolserver_exporter.store import fleet, queries
from patrolserver_exporter.web.api import cursors, endpoint, sheets, types
from patrolserver_exporter.web.api.endpoint import (
    Api,
    Call,
    Format,
    IssueState,
    Reply,
    chosen_by,
    in_thread,
    servers_chosen_by,
)
from patrolserver_exporter.web.api.lists import Lists
from patrolserver_exporter.web.api.types import Asked
from patrolserver_exporter.web.http.requests import ApiError
from patrolserver_exporter.web.spreadsheet import MEDIA_TYPE, begun

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    import sqlalchemy as sa

    from patrolserver_exporter.patrolserver.models import Software
    from patrolserver_exporter.store.queries import IssuesWanted
    from patrolserver_exporter.web.api.endpoint import (
        FleetQuery,
        IssuesQuery,
        OneServer,
        ServerIssuesQuery,
        SoftwareQuery,
    )
    from patrolserver_exporter.web.api.sheets import Sheet

FIXED = {IssueState.OPEN: False, IssueState.FIXED: True, IssueState.ALL: None}


async def csv_reply(sheet: Sheet, pages: AsyncIterator[Sequence[Any]], name: str) -> Reply:
    """A list as CSV, which browsers save under that name."""
    headers = {"content-type": MEDIA_TYPE, "content-disposition": f'attachment; filename="{name}.csv"'}
    return Reply(parts=await begun(sheet.parts(pages)), headers=headers)


async def servers(api: Api, call: Call[FleetQuery]) -> Reply:
    """A page of servers."""
    query, lists = call.query, Lists(api.context)
    chosen = servers_chosen_by(query)
    if query.format is Format.CSV:
        return await csv_reply(sheets.SERVERS, lists.servers(chosen), "servers")
    cursor = None if query.cursor is None else cursors.read(query.cursor, cursors.ServersCursor)
    after = None if cursor is None else (cursor.account, cursor.server_id)
    items, on = await lists.servers_page(await lists.servers_wanted(chosen), after, query.limit)
    next_cursor = None if on is None else cursors.write(cursors.ServersCursor(*on))
    return Reply(await in_thread(msgspec.json.encode, types.ServerPage(items=tuple(items), next_cursor=next_cursor)))


async def server(api: Api, call: Call[OneServer]) -> Reply:
    """One server."""
    lists = Lists(api.context)

    def work(connection: sa.Connection) -> types.Server | None:
        key = endpoint.only_one(connection, call.path["server"], call.query.account, lists.watched)
        record = fleet.find_server(connection, key.account, key.server_id)
        if record is None:
            return None
        return lists.server(record, deliveries.doubts(connection), fleet.account_records(connection))

    found = await api.read(work)
    if found is None:
        raise ApiError(404, f"There is no server {call.path['server']!r}.")
    return Reply(found)


async def issues(api: Api, call: Call[IssuesQuery]) -> Reply:
    """A page of issues over all servers."""
    query, lists = call.query, Lists(api.context)
    wanted = await lists.issues_wanted(chosen_by(query), fixed=FIXED[query.state])
    return await _issues(lists, query, wanted)


async def server_issues(api: Api, call: Call[ServerIssuesQuery]) -> Reply:
    """A page of one server's issues."""
    query, lists = call.query, Lists(api.context)
    asked = call.path["server"]
    key = await api.read(lambda connection: endpoint.only_one(connection, asked, query.account, lists.watched))
    wanted = await lists.issues_wanted(chosen_by(query), fixed=FIXED[query.state])
    return await _issues(lists, query, msgspec.structs.replace(wanted, keys=frozenset({key})))


async def _issues(lists: Lists, query: IssuesQuery | ServerIssuesQuery, wanted: IssuesWanted) -> Reply:
    if query.format is Format.CSV:
        return await csv_reply(sheets.ISSUES, lists.issues(wanted), "issues")
    after = 0 if query.cursor is None else cursors.read(query.cursor, cursors.IssuesCursor).row
    items, on = await lists.issues_page(wanted, after, query.limit)
    next_cursor = None if on is None else cursors.write(cursors.IssuesCursor(on))
    return Reply(await in_thread(msgspec.json.encode, types.IssuePage(items=tuple(items), next_cursor=next_cursor)))


async def software(api: Api, call: Call[SoftwareQuery]) -> Reply:
    """A page of one server's software, as the last successful poll showed it."""
    query, asked, watched = call.query, call.path["server"], api.accounts()

    def work(connection: sa.Connection) -> tuple[Software, ...] | None:
        key = endpoint.only_one(connection, asked, query.account, watched)
        return fleet.software_of(connection, key.account, key.server_id)

    installed = await api.read(work) or ()
    if query.format is Format.CSV:
        return await csv_reply(sheets.SOFTWARE, _software_parts(installed), "software")
    after = None if query.cursor is None else cursors.read(query.cursor, cursors.SoftwareCursor)
    return Reply(await in_thread(_software_page, installed, after, query.limit))


async def _software_parts(installed: tuple[Software, ...]) -> AsyncIterator[list[types.Software]]:
    placed = _placed(installed)
    places = sorted(placed)
    for start in range(0, len(places), sheets.ROWS):
        yield [types.software_of(placed[place]) for place in places[start : start + sheets.ROWS]]


def _placed(installed: tuple[Software, ...]) -> dict[tuple[str, str, int], Software]:
    placed: dict[tuple[str, str, int], Software] = {}
    for one in installed:
        name, location, ordinal = one.canonical_name, one.location or "", 0
        while (name, location, ordinal) in placed:
            ordinal += 1
        placed[name, location, ordinal] = one
    return placed


def _software_page(installed: tuple[Software, ...], after: cursors.SoftwareCursor | None, limit: int) -> bytes:
    placed = _placed(installed)
    left = sorted(place for place in placed if after is None or place > (after.name, after.location, after.ordinal))
    next_cursor = cursors.write(cursors.SoftwareCursor(*left[limit - 1])) if len(left) > limit else None
    items = tuple(types.software_of(placed[place]) for place in left[:limit])
    return msgspec.json.encode(types.SoftwarePage(items=items, next_cursor=next_cursor))


async def refresh(api: Api, call: Call[Any]) -> Reply:
    """Have a server polled now."""
    asked, account, watched = call.path["server"], call.query.account, api.accounts()
    key = await api.read(lambda connection: endpoint.only_one(connection, asked, account, watched))
    operation = await api.refreshes.start(key.account, key.server_id)
    if operation is None:
        raise ApiError(429, "Too many refreshes are under way; try again later.", headers={"retry-after": "10"})
    location = f"{api.context.route_prefix}/api/v1/operations/{operation.id}"
    return Reply(types.OperationReply(operation=operation), 202, {"location": location})


MAX_REFRESHED = 10_000
MAX_REFRESH_BYTES = 2 * 1024 * 1024
_NAMED_AT_MOST = 100


class RefreshBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which servers are to be polled now."""

    servers: Annotated[tuple[Asked, ...], msgspec.Meta(min_length=1, max_length=MAX_REFRESHED)]
    """Ids, names or globs on names, at most 100 of them globs. Each has to mean a server."""
    account: str | None = None


async def refresh_many(api: Api, call: Call[Any]) -> Reply:
    """Have many servers polled now: all that are meant, or, where one is not known, none."""
    body = endpoint.convert(await endpoint.read_json(call.scope, call.receive, MAX_REFRESH_BYTES), RefreshBody)
    watched = api.accounts()
    if body.account is not None and body.account not in watched:
        there = ", ".join(watched)
        raise ApiError(404, f"There is no account {body.account!r}; there are: {there}.", accounts=list(watched))
    selectors = endpoint.selectors_of(body.servers)
    accounts = watched if body.account is None else (body.account,)
    found = await api.read(lambda connection: queries.servers_meant(connection, selectors, accounts))
    unknown = [selector.asked for selector, servers in found.items() if not servers]
    if unknown:
        more = f" and {len(unknown) - _NAMED_AT_MOST} more" if len(unknown) > _NAMED_AT_MOST else ""
        named = ", ".join(map(repr, unknown[:_NAMED_AT_MOST])) + more
        detail = f"There is no server {named}; /api/v1/servers lists them. None was refreshed."
        raise ApiError(404, detail, unknown=unknown[:_NAMED_AT_MOST])
    meant = {server.key: server for servers in found.values() for server in servers}
    if len(meant) > MAX_REFRESHED:
        raise ApiError(400, f"These are {len(meant)} servers, and {MAX_REFRESHED} may be refreshed at once.")
    started = await endpoint.in_thread(api.refreshes.start_many, meant.values())
    if started is None:
        raise ApiError(429, "Too many refreshes are under way; try again later.", headers={"retry-after": "10"})
    location = f"{api.context.route_prefix}/api/v1/refresh/{started.id}"
    encoded = await endpoint.in_thread(msgspec.json.encode, types.FleetRefreshReply(refresh=started))
    return Reply(encoded, 202, {"location": location})


async def refresh_of_many(api: Api, call: Call[Any]) -> Reply:
    """How a refresh of many servers stands."""
    found = await endpoint.in_thread(api.refreshes.find_many, call.path["refresh"])
    if found is None:
        raise ApiError(404, "There is no such refresh; one is forgotten an hour after it was asked for.")
    return Reply(await endpoint.in_thread(msgspec.json.encode, types.FleetRefreshReply(refresh=found)))


async def operation(api: Api, call: Call[Any]) -> Reply:
    """How a refresh stands."""
    found = await api.refreshes.find(call.path["operation"])
    if found is None:
        raise ApiError(404, "There is no such operation; one is forgotten an hour after it was asked for.")
    return Reply(types.OperationReply(operation=found))
