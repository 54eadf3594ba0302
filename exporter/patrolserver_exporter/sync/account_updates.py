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
from patrolserver_exporter.patrolserver.models import Server
from patrolserver_exporter.store import fleet
from patrolserver_exporter.store.fleet import AccountRecord, AccountState, ServerRecord, ServerState
from patrolserver_exporter.sync.server_updates import append_changes, summary_of, with_state, without_scans
from patrolserver_exporter.sync.ways import note_given_up

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    import sqlalchemy as sa

    from patrolserver_exporter.issues.model import Issue
    from patrolserver_exporter.store.threads import Unit
    from patrolserver_exporter.sync.account import ApiStanding, Pause
    from patrolserver_exporter.sync.rules import Rules


SWEPT_AT_ONCE = 200
LISTED_AT_ONCE = 500
"""Servers of a list that one unit writes."""
_MANY = 4
"""Servers of which one list may not lose more than half without another one that says the same."""
_FORMER_KEPT = 10_000
"""Fingerprints of other servers that are remembered for an id, the newest: a document has to stay small."""


class Listed(msgspec.Struct, frozen=True, kw_only=True):
    """What a server list changed."""

    added: tuple[int, ...] = ()
    """Servers that are new or came back."""
    gone: tuple[int, ...] = ()
    renamed: tuple[int, ...] = ()
    """Servers that have another name than before, and so may be others."""
    missing: int = 0
    """Servers that are not in the list, which is not believed before another one has confirmed it."""
    confirm_in: float | None = None
    """Seconds until such a list counts; ``None`` where none is needed."""

    @property
    def is_news(self) -> bool:
        """Whether servers came, went or changed their names."""
        return bool(self.added or self.gone or self.renamed)


class ListPlan(msgspec.Struct, frozen=True, kw_only=True):
    """What a server list is going to change, as the store was when it was read."""

    account: str
    complete: bool
    partial_because: tuple[str, ...]
    length: int
    """Servers in the list, watched or not."""
    servers: dict[int, Server]
    """Those of the list that are new or have changed."""
    missing: dict[int, float]
    """Those that it lacks and that another list has to confirm, and since when."""
    gone: frozenset[int]
    added: tuple[int, ...]
    lost: tuple[int, ...]
    """Those whose series end: beside the gone ones, what was shown and is not in the store."""
    renamed: tuple[int, ...]

    @property
    def server_ids(self) -> tuple[int, ...]:
        """All that are to be written, shown or no longer shown."""
        return tuple(dict.fromkeys((*self.servers, *self.added, *self.missing, *self.lost)))


def plan_list(  # noqa: PLR0913  # What a list brings, by keyword.
    connection: sa.Connection,
    account: str,
    listed: Sequence[Server],
    *,
    complete: bool,
    partial_because: tuple[str, ...] = (),
    now: float,
    rules: Rules,
    watched: Collection[int] | None = None,
) -> ListPlan:
    """Hold a successful call for the account's server list against the store; the arguments are `apply_list`'s.

    A fleet of 100,000 servers is gone through here, so it is for a connection that only reads.
    """
    chosen = {server.id: server for server in listed if rules.watches(server.name)}
    there: set[int] = set()
    unchanged: set[int] = set()
    not_chosen: set[int] = set()
    lacking: dict[int, float] = {}
    renamed: list[int] = []
    for record in fleet.server_records(connection, account, gone=True):
        server_id, server, is_there = record.server_id, chosen.get(record.server_id), record.gone_at is None
        if is_there:
            there.add(server_id)
        if server is not None:
            if not _is_changed_by(server, record):
                unchanged.add(server_id)
            elif is_there and server.name != record.name:
                renamed.append(server_id)
        elif is_there and rules.watches(record.name):
            lacking[server_id] = _missing_since(record, now)
        elif is_there:
            not_chosen.add(server_id)
    waits_for: dict[int, float] = {}
    if not complete:
        gone = not_chosen
    elif is_sudden(listed, _account_at(connection, account).state, lacking=len(lacking), there=len(there)):
        waits_for = {i: at for i, at in lacking.items() if at > now - rules.settle}
        gone = not_chosen | (lacking.keys() - waits_for.keys())
    else:
        gone = not_chosen | lacking.keys()
    seen = there if watched is None else set(watched)
    return ListPlan(
        account=account,
        complete=complete,
        partial_because=partial_because,
        length=len(listed),
        servers={i: server for i, server in chosen.items() if i not in unchanged},
        missing=waits_for,
        gone=frozenset(gone),
        added=tuple(i for i in chosen if i not in seen or i not in there),
        lost=tuple(sorted(gone | (seen - there - chosen.keys()))),
        renamed=tuple(renamed),
    )


def apply_part(unit: Unit, plan: ListPlan, server_ids: Sequence[int], *, now: float, rules: Rules) -> None:
    """Let a list take effect on some of its servers, at most a few hundred.

    Until `end_list` the list counts as not read. What is written of a server before makes nothing pass: one that is new
    is unknown, and one that the list lacks was there until now.
    """
    account, added, lost, renamed = plan.account, set(plan.added), set(plan.lost), set(plan.renamed)
    stored = fleet.find_servers(unit.connection, account, server_ids)
    rows = {i: row for i in server_ids if (row := _row_by(unit, plan, i, stored.get(i), now)) is not None}
    fleet.save_servers(unit.connection, list(rows.values()))
    for server_id in server_ids:
        record = rows.get(server_id) if server_id in plan.servers else None
        if record is None and server_id in added:
            record = stored.get(server_id)
        if record is not None:
            unit.effects.append(ServerShown(record.summary))
    unit.effects.extend(ServerGone(account, server_id) for server_id in server_ids if server_id in lost)
    for server_id in renamed & rows.keys():
        _waive(unit, rows[server_id], fleet.issues_of(unit.connection, account, server_id), now, rules)


def _row_by(unit: Unit, plan: ListPlan, server_id: int, known: ServerRecord | None, now: float) -> ServerRecord | None:
    """The server's row after the list; ``None`` if nothing changed."""
    server = plan.servers.get(server_id)
    if server is not None:
        return _listed(unit, plan.account, server, known, now)
    if known is None:
        return None
    if server_id in plan.missing:
        record = _with_missing(known, plan.missing[server_id])
        return None if record == known else record
    if server_id in plan.gone:
        return replace(_with_missing(known, None), gone_at=now)
    return None


def end_list(unit: Unit, plan: ListPlan, *, now: float, rules: Rules, pause: Pause | None = None) -> Listed:
    """Let a list count as read, after all its parts took effect."""
    state = account_of(unit, plan.account).state
    since = min(plan.missing.values(), default=None) if plan.complete else state.shrunk_since
    state = replace(
        state,
        list_complete=plan.complete,
        list_partial_because=plan.partial_because,
        list_chosen_by=rules.choosing,
        list_source=rules.source,
        # A part may lack servers that are known from another account.
        list_key=rules.key if plan.complete or state.list_key is None else state.list_key,
        list_length=plan.length if plan.complete and not plan.missing else state.list_length,
        shrunk_since=since,
        list_missing=len(plan.missing),
    )
    save_reachability(unit, plan.account, up=True, now=now, pause=pause, state=state)
    return Listed(
        added=plan.added,
        gone=plan.lost,
        renamed=plan.renamed,
        missing=len(plan.missing),
        confirm_in=since + rules.settle - now if plan.missing and since is not None else None,
    )


def apply_list(  # noqa: PLR0913  # What a list brings, by keyword.
    unit: Unit,
    account: str,
    listed: Sequence[Server],
    *,
    complete: bool,
    partial_because: tuple[str, ...] = (),
    now: float,
    rules: Rules,
    watched: Collection[int] | None = None,
    pause: Pause | None = None,
) -> Listed:
    """Merge a successful call for the account's server list, in one unit.

    A server that is missing from a whole list is gone, and so is one that the globs no longer choose. A partial list
    removes nothing; ``partial_because`` says what shows that it is one. A list that is suddenly empty, or lost more
    than half where the last one had four or more, has to be said twice, ``rules.settle`` apart: until then what it
    lacks is missing, which the gate takes for unknown. ``watched`` are the servers that are polled and shown now: after
    a commit that the store could not confirm, they may differ from what it holds, and what they lack is added as if it
    were new.
    """
    plan = plan_list(
        unit.connection,
        account,
        listed,
        complete=complete,
        partial_because=partial_because,
        now=now,
        rules=rules,
        watched=watched,
    )
    for part in parts_of(plan.server_ids):
        apply_part(unit, plan, part, now=now, rules=rules)
    return end_list(unit, plan, now=now, rules=rules, pause=pause)


def parts_of(server_ids: Sequence[int]) -> list[Sequence[int]]:
    """As many at a time as one unit may write, for it holds up deliveries."""
    return [server_ids[start : start + LISTED_AT_ONCE] for start in range(0, len(server_ids), LISTED_AT_ONCE)]


def account_of(unit: Unit, account: str) -> AccountRecord:
    """The account's row; one of which nothing is known if there is none."""
    return _account_at(unit.connection, account)


def _account_at(connection: sa.Connection, account: str) -> AccountRecord:
    return fleet.find_account(connection, account) or AccountRecord(name=account)


def doubt_list(unit: Unit, record: AccountRecord, rules: Rules) -> AccountRecord:
    """The account, whose last list is a part where other globs chose from it: it may have more that are watched now.

    The same where it was read with another key, which may be another account's: until a list is read with this one, its
    servers are in doubt, too. Those of another API have to be doubted one by one.
    """
    because = record.read_otherwise(rules.reading)
    if because is None:
        return record
    state = replace(
        record.state,
        list_complete=False,
        list_partial_because=(because,),
        list_chosen_by=rules.choosing,
        list_source=rules.source,
    )
    record = replace(record, state=state)
    fleet.save_account(unit.connection, record)
    return record


def doubt_server(unit: Unit, record: ServerRecord, now: float) -> ServerRecord:
    """The server, of which another API may tell something else: as after another name, its next whole poll decides."""
    server = Server(id=record.server_id, name=record.name, verified=record.state.verified)
    record = _unpolled(record.account, server, replace(without_scans(record.state), in_doubt_since=now))
    fleet.save_servers(unit.connection, [record])
    return record


def is_sudden(listed: Sequence[Server], state: AccountState, *, lacking: int, there: int) -> bool:
    """Whether a whole list lacks so much that one call is not believed."""
    if not lacking:
        return False
    if not listed:
        return True
    before = state.list_length or 0
    return _lost_most(before, before - len(listed)) or _lost_most(there, lacking)


def _lost_most(of: int, lost: int) -> bool:
    return of >= _MANY and 2 * lost > of


def _missing_since(record: ServerRecord, now: float) -> float:
    since = record.state.missing_since
    return now if since is None else min(since, now)


def _with_missing(record: ServerRecord, since: float | None) -> ServerRecord:
    return replace(record, state=replace(record.state, missing_since=since))


def _is_changed_by(server: Server, known: ServerRecord) -> bool:
    """Whether `_listed` makes another row of it."""
    mine = (known.gone_at, known.name, known.state.verified, known.state.missing_since is not None)
    told = known.state.list_trouble, known.state.list_claim
    return mine != (None, server.name, server.verified, server.has_other_name) or told != _told_of(server, known)


def _told_of(server: Server, known: ServerRecord) -> tuple[str | None, str | None]:
    """Trouble and exploits that the list tells of; of exploits only while no poll shows any."""
    is_shown = bool(known.summary.exploits) or (known.summary.exploit_risk_max or 0.0) > 0
    return server.trouble, None if is_shown else server.claim


def _doubted_since(server: Server, known: ServerState | None, now: float) -> float | None:
    """One that a list calls by two names may not be the one that is known: only a list that calls it by one tells."""
    if not server.has_other_name:
        return None
    return now if known is None or known.missing_since is None else known.missing_since


def _listed(unit: Unit, account: str, server: Server, known: ServerRecord | None, now: float) -> ServerRecord | None:
    """The server's row after the list; ``None`` if nothing changed."""
    if known is None:
        state = ServerState(
            verified=server.verified,
            missing_since=_doubted_since(server, None, now),
            list_trouble=server.trouble,
            list_claim=server.claim,
        )
        return _unpolled(account, server, state)
    is_other = known.name.lower() != server.name.lower()
    if is_other and known.gone_at is not None:
        former = fleet.forget_findings(unit.connection, account, server.id)
        state = ServerState(
            verified=server.verified,
            in_doubt_since=now,
            missing_since=_doubted_since(server, None, now),
            list_trouble=server.trouble,
            list_claim=server.claim,
            former_fingerprints=(*known.state.former_fingerprints, *former)[-_FORMER_KEPT:],
        )
        return _unpolled(account, server, state)
    trouble, claim = _told_of(server, known)
    state = replace(
        known.state,
        verified=server.verified,
        list_trouble=trouble,
        list_claim=claim,
        missing_since=_doubted_since(server, known.state, now),
        in_doubt_since=now if is_other else known.state.in_doubt_since,
        came_back_at=known.state.came_back_at if known.gone_at is None else now,
    )
    if known.gone_at is None and (known.name, known.state) == (server.name, state):
        return None
    if is_other:
        # What it shows is of the server that had this name; its issues are kept until a poll says more.
        return _unpolled(account, server, without_scans(state))
    record = replace(known, name=server.name, gone_at=None, summary=replace(known.summary, name=server.name))
    return with_state(record, state)


def _unpolled(account: str, server: Server, state: ServerState) -> ServerRecord:
    """A server of which no numbers are shown before its next whole poll."""
    return with_state(
        ServerRecord(
            account=account,
            server_id=server.id,
            name=server.name,
            state=state,
            summary=ServerSummary(account=account, server_id=server.id, name=server.name),
        ),
        state,
    )


def save_reachability(  # noqa: PLR0913  # What a list call tells, by keyword.
    unit: Unit,
    account: str,
    *,
    up: bool,
    now: float,
    pause: Pause | None = None,
    state: AccountState | None = None,
    answer: str | None = None,
    standing: ApiStanding | None = None,
) -> None:
    """Note whether the last call for the server list succeeded, and what it said of itself.

    ``answer`` is what the API said instead of the list, where it answered; ``standing`` tells why the call failed.
    """
    record = account_of(unit, account)
    state = _with_trouble(_with_pause(state or record.state, pause), None if up else standing)
    if answer is not None:
        state = replace(state, list_complete=False, list_partial_because=(answer,))
    save_account(unit, replace(record, up=up, last_success_at=now if up else record.last_success_at, state=state))


def save_pause(unit: Unit, account: str, pause: Pause | None) -> None:
    """Note until when the API asked the whole account to wait."""
    record = account_of(unit, account)
    save_account(unit, replace(record, state=_with_pause(record.state, pause)))


def give_up(unit: Unit, account: str, owner: str, *, times: int, now: float) -> None:
    """Note that this exporter cannot reach the API, so that the next one tries at once, and by itself."""
    record = account_of(unit, account)
    given_up = note_given_up(record.state.given_up, owner, now, times=times)
    save_account(unit, replace(record, state=replace(record.state, given_up=given_up, list_failures=0, list_at=None)))


def _with_pause(state: AccountState, pause: Pause | None) -> AccountState:
    until, reason = (None, None) if pause is None else pause
    return replace(state, paused_until=until, pause_reason=reason)


def _with_trouble(state: AccountState, standing: ApiStanding | None) -> AccountState:
    if standing is None:
        return replace(state, trouble=None, trouble_detail=None, trouble_reason=None, list_failures=0, list_at=None)
    return replace(
        state,
        trouble=standing.trouble.value,
        trouble_detail=standing.detail,
        trouble_reason=None if standing.reason is None else standing.reason.value,
        list_failures=standing.list_failures,
        list_at=standing.list_at,
    )


def save_account(unit: Unit, record: AccountRecord) -> None:
    """Write an account's row and note that it changed."""
    fleet.save_account(unit.connection, record)
    unit.effects.append(AccountShown(record))


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
    append_changes(unit, record.name, changes)
    renew_summary(unit, record, rules)
    return True


def renew_summary(unit: Unit, record: ServerRecord, rules: Rules) -> None:
    """Count a server again, after its issues or the rules changed."""
    software = fleet.software_of(unit.connection, record.account, record.server_id)
    issues = fleet.issues_of(unit.connection, record.account, record.server_id)
    record = replace(record, summary=summary_of(record, rules, software, issues))
    fleet.save_servers(unit.connection, [record])
    unit.effects.append(ServerShown(record.summary))


def finish_catch_up(unit: Unit, account: str) -> bool:
    """Clear the account's catch-up flag if every server was polled since it was set; True if none is set now.

    A server that cannot be polled, or not completely, does not keep the catch-up going: from then on it is in
    doubt by itself, as if an event of its own waited for its next complete poll.
    """
    record = fleet.find_account(unit.connection, account)
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
    fleet.set_catch_up(unit.connection, account, None, instead_of=since)
    return True
