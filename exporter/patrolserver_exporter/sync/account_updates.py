"""Units of work on a whole account: its server list, its reachability, its waivers, its rules.

Times are seconds since the epoch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
from msgspec.structs import replace

from patrolserver_exporter.issues import waive
from patrolserver_exporter.issues.summary import ServerSummary
from patrolserver_exporter.live.effects import AccountShown, ServerGone, ServerShown
from patrolserver_exporter.store import fleet
from patrolserver_exporter.store.fleet import AccountRecord, ServerRecord, ServerState
from patrolserver_exporter.sync.server_updates import summary_of, tell, with_state

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from patrolserver_exporter.issues.model import Issue
    from patrolserver_exporter.patrolserver.models import Server
    from patrolserver_exporter.store.writer import Unit
    from patrolserver_exporter.sync.rules import Rules


SWEPT_AT_ONCE = 200


class Listed(msgspec.Struct, frozen=True, kw_only=True):
    """What a server list changed."""

    added: tuple[int, ...] = ()
    """Servers that are new or came back."""
    gone: tuple[int, ...] = ()
    renamed: tuple[int, ...] = ()
    """Servers that have another name than before, and so may be others."""


def apply_list(  # noqa: PLR0913  # What a list brings, by keyword.
    unit: Unit,
    account: str,
    listed: Sequence[Server],
    *,
    complete: bool,
    now: float,
    rules: Rules,
    watched: Collection[int] | None = None,
) -> Listed:
    """Merge a successful call for the account's server list.

    A server that is missing from a complete list is gone, and so is one that the globs no longer choose. One whose
    entry could not be read may be missing from an incomplete list, so that one removes nothing. ``watched`` are the
    servers that are polled and shown now: after a commit that the store could not confirm, they may differ from what
    it holds, and what they lack is added as if it were new.
    """
    known = {record.server_id: record for record in fleet.server_records(unit.connection, account, gone=True)}
    chosen = {server.id: server for server in listed if rules.watches(server.name)}
    there = {i for i, record in known.items() if record.gone_at is None}
    gone = {i for i in there - chosen.keys() if complete or not rules.watches(known[i].name)}
    changed = {i: record for i, server in chosen.items() if (record := _listed(account, server, known.get(i)))}
    fleet.save_servers(unit.connection, [*changed.values(), *(replace(known[i], gone_at=now) for i in gone)])
    seen = there if watched is None else set(watched)
    added = tuple(i for i in chosen if i not in seen or i not in there)
    lost = tuple(sorted(gone | (seen - there - chosen.keys())))
    shown = dict.fromkeys((*changed, *added))
    unit.effects.extend(ServerShown(changed[i].summary if i in changed else known[i].summary) for i in shown)
    unit.effects.extend(ServerGone(account, i) for i in lost)
    renamed = tuple(i for i in changed if i in there and changed[i].name != known[i].name)
    for server_id in renamed:
        _waive(unit, changed[server_id], fleet.issues_of(unit.connection, account, server_id), now, rules)
    save_reachability(unit, account, up=True, now=now)
    return Listed(added=added, gone=lost, renamed=renamed)


def _listed(account: str, server: Server, known: ServerRecord | None) -> ServerRecord | None:
    """The server's row after the list; ``None`` if nothing changed."""
    if known is None:
        return ServerRecord(
            account=account,
            server_id=server.id,
            name=server.name,
            state=ServerState(verified=server.verified),
            summary=ServerSummary(account=account, server_id=server.id, name=server.name, verified=server.verified),
        )
    if known.gone_at is None and (known.name, known.state.verified) == (server.name, server.verified):
        return None
    record = replace(known, name=server.name, gone_at=None, summary=replace(known.summary, name=server.name))
    return with_state(record, replace(record.state, verified=server.verified))


def save_reachability(unit: Unit, account: str, *, up: bool, now: float) -> None:
    """Note whether the last call for the server list succeeded."""
    record = fleet.account_records(unit.connection).get(account, AccountRecord(name=account))
    record = replace(record, up=up, last_success_at=now if up else record.last_success_at)
    save_account(unit, record)


def save_account(unit: Unit, record: AccountRecord) -> None:
    """Write an account's row and note that it changed."""
    fleet.save_account(unit.connection, record)
    unit.effects.append(AccountShown(record, fleet.count_servers(unit.connection).get(record.name, 0)))


def sweep_waivers(unit: Unit, account: str, *, after: int = 0, now: float, rules: Rules) -> int | None:
    """Let waivers begin and end on open issues of the account's next servers, those behind ``after``.

    Returns the id of the last one, or ``None`` when there are no more: a whole fleet in one unit would hold up
    deliveries. A server that is gone is left alone: should it come back, its first poll does this, and tells it.
    """
    records = fleet.some_servers(unit.connection, account, after=after, limit=SWEPT_AT_ONCE)
    if not records:
        return None
    first, last = records[0].server_id, records[-1].server_id
    issues = dict(fleet.open_issues(unit.connection, account, first=first, last=last))
    for record in records:
        _waive(unit, record, issues.get(record.server_id, ()), now, rules)
    return last


def _waive(unit: Unit, record: ServerRecord, issues: Sequence[Issue], now: float, rules: Rules) -> bool:
    """Let waivers begin and end on a server's issues; True if that changed any."""
    changed, changes = waive.apply_waivers(issues, record.name, rules.waivers, now)
    if not changed:
        return False
    fleet.save_issues(unit.connection, changed)
    tell(unit, record.name, changes)
    renew_summary(unit, record, rules)
    return True


def renew_summary(unit: Unit, record: ServerRecord, rules: Rules) -> None:
    """Count a server anew, after its issues or the rules changed."""
    software = fleet.software_of(unit.connection, record.account, record.server_id)
    issues = fleet.issues_of(unit.connection, record.account, record.server_id)
    record = replace(record, summary=summary_of(record, rules, software, issues))
    fleet.save_servers(unit.connection, [record])
    unit.effects.append(ServerShown(record.summary))


def finish_catch_up(unit: Unit, account: str) -> bool:
    """Clear the account's catch-up flag if every server was polled since it was set; True if none is set now.

    A server that cannot be polled, or not completely, does not keep the flag up for ever: from then on it carries the
    doubt by itself, as if an event of its own waited for its next complete poll.
    """
    record = fleet.account_records(unit.connection).get(account)
    if record is None or record.catch_up_since is None:
        return True
    since, doubtful = record.catch_up_since, []
    for server in fleet.server_records(unit.connection, account):
        polled_at = server.state.last_poll_at
        if (polled_at is None or polled_at < since) and server.state.poll_success:
            return False
        if (server.state.complete_poll_at or 0.0) < since:
            waits_since = max(server.state.event_received_at or 0.0, since)
            doubtful.append(replace(server, state=replace(server.state, event_received_at=waits_since)))
    fleet.save_servers(unit.connection, doubtful)
    save_account(unit, replace(record, catch_up_since=None))
    return True
