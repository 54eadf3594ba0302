"""Over the fleet: its software, its exploits, and its servers as targets of Prometheus."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import msgspec

from patrolserver_exporter.store import fleet
from patrolserver_exporter.web.api import cursors, sheets, types
from patrolserver_exporter.web.api.endpoint import Api, Call, Format, Reply, chosen_by, in_thread, servers_chosen_by
from patrolserver_exporter.web.api.fleet import csv_reply
from patrolserver_exporter.web.api.lists import Lists, coverage, in_parts
from patrolserver_exporter.web.http.requests import ApiError
from patrolserver_exporter.web.standing import worst_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from patrolserver_exporter.web.api.endpoint import FleetQuery, Selection
    from patrolserver_exporter.web.overview import Servers


async def software(api: Api, call: Call[FleetQuery]) -> Reply:
    """A page of the software that is not fine."""
    query = call.query
    after = None if query.cursor is None else cursors.read(query.cursor, cursors.FleetSoftwareCursor)
    items, servers = await Lists(api.context).software(chosen_by(query))
    if query.format is Format.CSV:
        return await csv_reply(sheets.FLEET_SOFTWARE, in_parts(items), "software")
    left = [one for one in items if after is None or _place(one) > (after.name, after.version)]
    shown, more = left[: query.limit], len(left) > query.limit
    next_cursor = cursors.write(cursors.FleetSoftwareCursor(*_place(shown[-1]))) if more else None
    page = types.FleetSoftwarePage(items=tuple(shown), next_cursor=next_cursor, coverage=coverage(servers))
    return Reply(await in_thread(msgspec.json.encode, page))


def _place(one: types.FleetSoftware) -> tuple[str, str]:
    return one.canonical_name, one.version or ""


async def exploits(api: Api, call: Call[FleetQuery]) -> Reply:
    """A page of known exploits."""
    query = call.query
    after = None if query.cursor is None else cursors.read(query.cursor, cursors.ExploitsCursor)
    found, servers = await Lists(api.context).exploits(chosen_by(query))
    if query.format is Format.CSV:
        return await csv_reply(sheets.EXPLOITS, in_parts([item for _, item in found]), "exploits")
    left = [(key, one) for key, one in found if after is None or key > (after.name, after.named_by, after.software)]
    shown, more = left[: query.limit], len(left) > query.limit
    next_cursor = cursors.write(cursors.ExploitsCursor(*shown[-1][0])) if more else None
    page = types.FleetExploitPage(
        items=tuple(item for _, item in shown), next_cursor=next_cursor, coverage=coverage(servers)
    )
    return Reply(await in_thread(msgspec.json.encode, page))


async def targets(api: Api, call: Call[Selection]) -> Reply:
    """The servers for Prometheus, whole; while some are not known yet, a 503, at which it keeps those it has."""
    chosen, lists = servers_chosen_by(call.query), Lists(api.context)
    silent = await _unlisted(api, chosen.accounts or lists.watched)
    if silent:
        detail = f"Nobody knows the servers of {', '.join(silent)} yet: no server list was read."
        raise ApiError(503, detail, headers={"retry-after": "5"}, accounts=silent)
    servers = await lists.servers_meant(chosen)
    if chosen.by_issue:
        fitting = {(one.account, one.id) async for page in lists.servers(chosen) for one in page}
        states = {key: state for key, state in servers.states.items() if key in fitting}
        servers = replace(servers, states=states)
    return Reply(await in_thread(_groups, servers, lists))


async def _unlisted(api: Api, accounts: Sequence[str]) -> list[str]:
    """Those of the watched accounts whose server list was never read."""
    records = await api.read(fleet.account_records)
    listed = {name for name, record in records.items() if record.last_success_at is not None}
    return sorted(set(accounts).intersection(api.accounts()) - listed)


_META = "__meta_patrolserver_"
_VERIFIED = {True: "true", False: "false", None: "unknown"}


def _groups(servers: Servers, lists: Lists) -> bytes:
    """A group for each server, since each has labels of its own."""
    return msgspec.json.encode(
        [
            types.Target(
                targets=(state.name,),
                labels={
                    f"{_META}account": state.account,
                    f"{_META}server": state.name,
                    f"{_META}server_id": str(state.server_id),
                    f"{_META}verified": _VERIFIED[state.verified],
                    f"{_META}severity": _severity(worst_of(state), doubtful=key in servers.doubts),
                    **_configured(lists.labels.of(state.account, state.name)),
                },
            )
            for key, state in servers.states.items()
            if state.name.strip()
        ]
    )


def _configured(labels: Mapping[str, str]) -> dict[str, str]:
    return {f"{_META}label_{name}": value for name, value in labels.items()}


def _severity(worst: str, *, doubtful: bool) -> str:
    return "unknown" if doubtful and worst == "none" else worst
