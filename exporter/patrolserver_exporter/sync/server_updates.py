"""Units of work on one server: a poll's result, a poll's failure, an event, a scan's progress.

Each reads the server's state, lets the pure functions of ``issues`` decide, writes what changed, and notes the effects.
All of it is one transaction. Times are seconds since the epoch.

Events hint at a scan's start and end, isScanning confirms them. The API never says when a scan ended. A scan's end
counts if isScanning said yes before: its time is the moment at which an event told of it, and otherwise that at which
isScanning was first seen to say no. If nobody asked for a while before that, it may have ended long ago: its time is
then the moment of the last yes.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

import msgspec
from msgspec.structs import replace

from patrolserver_exporter.inbox import deliveries
from patrolserver_exporter.inbox.deliveries import DeliveryState
from patrolserver_exporter.inbox.retry import NextStep
from patrolserver_exporter.issues import merge, trust, waive
from patrolserver_exporter.issues.derive import undecided
from patrolserver_exporter.issues.summary import summarise
from patrolserver_exporter.live.effects import FeedGrew, InboxMoved, ServerShown, TalliesShown
from patrolserver_exporter.patrolserver.models import Identifier, Server
from patrolserver_exporter.store import fleet, history

if TYPE_CHECKING:
    from collections.abc import Sequence

    from patrolserver_exporter.inbox.deliveries import Delivery
    from patrolserver_exporter.issues.model import Change, Issue
    from patrolserver_exporter.issues.summary import ServerSummary
    from patrolserver_exporter.patrolserver.models import Event, Parsed, ReportedIssue, Software
    from patrolserver_exporter.store.fleet import ServerRecord, ServerState
    from patrolserver_exporter.store.threads import Unit
    from patrolserver_exporter.sync.rules import Rules


_COLLAPSED = (
    "it lost more than half of the software, or of what had exploits and is as it was, which a poll a little later has "
    "to show once more"
)
_ALIKE = (
    "it and other servers lost exploits or an end of life though no version rose, which a poll a little later has to "
    "show once more"
)


@dataclass(frozen=True, slots=True)
class OtherPolls:
    """What a poll is held against beside the server's own ones."""

    alike: trust.Alike
    interval: float
    """Seconds in which each server of the account is polled once."""
    doubted: list[int] = field(default_factory=list)
    """Filled by a unit of work: other servers, of which ``settle`` later another poll is wanted."""


def find(unit: Unit, account: str, server_id: int) -> ServerRecord | None:
    """The server, unless the account no longer has it."""
    record = fleet.find_server(unit.connection, account, server_id)
    return None if record is None or record.gone_at is not None else record


def summary_of(
    record: ServerRecord, rules: Rules, software: Sequence[Software] | None, issues: Sequence[Issue]
) -> ServerSummary:
    """What the server's series show; by which rules its issues were classified stays as it was.

    Of a server in doubt no numbers are shown: they may be another one's.
    """
    if record.state.in_doubt_since is not None:
        software, issues = None, ()
    summary = summarise(
        account=record.account,
        server=Server(id=record.server_id, name=record.name, verified=record.state.verified),
        software=software,
        issues=issues,
        exploit_risk=rules.exploit_risk,
        scanning=record.state.scanning,
        last_scan_at=record.state.last_scan_at,
        last_poll_at=record.state.last_poll_at,
        poll_success=record.state.poll_success,
        poll_complete=record.state.last_poll_complete,
        software_series=rules.software_series,
        exploit_series=rules.exploit_series,
        software_limit_per_server=rules.software_limit_per_server,
        max_label_length=rules.max_label_length,
    )
    return replace(summary, in_doubt=record.state.in_doubt, classified_by=record.summary.classified_by)


def show(unit: Unit, record: ServerRecord, *, received_at: float | None = None) -> None:
    """Write a server's row and note that it changed."""
    fleet.save_servers(unit.connection, [record])
    unit.effects.append(ServerShown(record.summary, received_at))


def with_state(record: ServerRecord, state: ServerState) -> ServerRecord:
    """The server in another state, and its summary with it; issues and software stay."""
    summary = replace(
        record.summary,
        verified=state.verified,
        scanning=state.scanning,
        last_scan_at=state.last_scan_at,
        last_poll_at=state.last_poll_at,
        poll_success=state.poll_success,
        poll_complete=state.last_poll_complete,
        in_doubt=state.in_doubt,
    )
    return replace(record, state=state, summary=summary)


def apply_poll(  # noqa: PLR0913  # What a poll brings, by keyword.
    unit: Unit,
    account: str,
    server_id: int,
    software: tuple[Software, ...],
    *,
    complete: bool,
    started_at: float,
    next_poll_at: float,
    now: float,
    rules: Rules,
    incomplete_because: str | None = None,
    others: OtherPolls | None = None,
) -> ServerState | None:
    """Merge a successful poll that started at ``started_at``; ``None`` if the account no longer has the server.

    ``incomplete_because`` tells, where it is known, why the poll was not ``complete``. ``others`` is what other
    polls of the account have shown.

    A poll that comes after one that started later is left out, and so is one that started before the server got its
    name: it may tell of another server. The clock may have been set back during the poll, and nothing started in the
    future. What other rules alone make of the poll before it is settled first, so that it does not seem to be this
    poll's news.
    """
    record = find(unit, account, server_id)
    if record is None:
        return None
    started_at = min(started_at, now)
    if record.state.last_poll_at is not None and started_at <= record.state.last_poll_at <= now:
        return record.state
    if started_at < (record.state.in_doubt_since or 0.0) <= now:
        return record.state
    if has_other_settings(record, rules):
        record = reclassify(unit, record, rules, now=now)
    listed_otherwise = _listed_otherwise(record.state, software)
    others = others or OtherPolls(trust.Alike(), 0.0)
    known = fleet.software_of(unit.connection, account, server_id)
    reading, is_one_too_many = _read(
        record,
        known,
        software,
        complete=complete and listed_otherwise is None,
        started_at=started_at,
        settle=rules.settle,
        others=others,
    )
    merged = merge.apply_poll(
        fleet.issues_of(unit.connection, account, server_id),
        reading.listed,
        account=account,
        server_id=server_id,
        started_at=started_at,
        exploit_risk=rules.exploit_risk,
        settle=rules.settle,
        former=record.state.former_fingerprints,
        before=merge.Before(
            undecided=undecided(known or ()),
            exploits_untold=bool(record.state.exploits_unknown),
            last_whole_at=record.state.complete_poll_at,
        ),
        whole=reading.whole,
    )
    issues = keep_issues(unit, record.name, merged, rules, now)
    state = _after_poll(record.state, started_at, reading, rules.settle)
    if listed_otherwise is None:
        state = replace(state, list_claim=None)
    if reading.collapse is not None and complete and listed_otherwise is None:
        incomplete_because = _ALIKE if reading.collapse.alike else _COLLAPSED
        if is_one_too_many:
            _doubt_those_before(unit, account, others, started_at, rules.settle)
    incomplete_because = incomplete_because or listed_otherwise
    if state.eased_alike_at is not None:
        incomplete_because = _ALIKE
    elif reading.whole or reading.empty:
        incomplete_because = None
    state = replace(state, incomplete_because=incomplete_because)
    record = replace(record, state=state, next_poll_at=next_poll_at)
    record = _classified(record, rules, reading.software, issues)
    fleet.save_servers(unit.connection, [record], reading.software)
    unit.effects.append(ServerShown(record.summary))
    return state


def _read(  # noqa: PLR0913  # What a poll brings, by keyword.
    record: ServerRecord,
    known: Sequence[Software] | None,
    software: Sequence[Software],
    *,
    complete: bool,
    started_at: float,
    settle: float,
    others: OtherPolls,
) -> tuple[trust.Reading, bool]:
    """What the poll is worth, and whether the server is one too many that gets better."""
    read = functools.partial(
        trust.read,
        known,
        software,
        complete=complete,
        started_at=started_at,
        settle=settle,
        collapse=record.state.collapse,
    )
    reading = read()
    is_one_too_many = reading.eased and others.alike.are_suspicious(record.server_id, started_at, others.interval)
    if is_one_too_many:
        reading = read(alike=True)
    confirmed = record.state.collapse is not None
    others.alike.note(record.server_id, started_at, others.interval, reading, settle=settle, confirmed=confirmed)
    return reading, is_one_too_many


def _doubt_those_before(unit: Unit, account: str, others: OtherPolls, at: float, settle: float) -> None:
    """The servers whose getting better was believed before others got better like them: a poll has to show it again."""
    for server_id in others.alike.believed:
        others.doubted.append(server_id)
        record = find(unit, account, server_id)
        if record is None or record.state.eased_alike_at is not None:
            continue
        settle_poll_at = max(record.state.settle_poll_at or 0.0, at + settle)
        state = replace(record.state, eased_alike_at=at, incomplete_because=_ALIKE, settle_poll_at=settle_poll_at)
        show(unit, with_state(record, state))


def _listed_otherwise(state: ServerState, software: Sequence[Software]) -> str | None:
    """What the server list says of it that this poll does not: then its software may be from before, or lack some."""
    if state.list_trouble is None and any(one.exploits for one in software):
        return None
    return state.list_doubt


def has_other_settings(record: ServerRecord, rules: Rules) -> bool:
    """Whether what is known of a server was classified and counted by other rules."""
    return record.summary.open_issues is not None and record.summary.classified_by != rules.classification


def reclassify(unit: Unit, record: ServerRecord, rules: Rules, *, now: float) -> ServerRecord:
    """Classify and count a server's last poll by settings that changed since; the row is left to be written.

    What they find opens as of that poll. What they no longer find stays open: only a new poll closes. What they find
    more or less severe has not got worse or better.
    """
    account, server_id = record.account, record.server_id
    issues = fleet.issues_of(unit.connection, account, server_id)
    software = fleet.software_of(unit.connection, account, server_id)
    if software is not None and record.state.last_poll_at is not None:
        merged = merge.apply_poll(
            issues,
            software,
            account=account,
            server_id=server_id,
            started_at=record.state.last_poll_at,
            exploit_risk=rules.exploit_risk,
            settle=rules.settle,
            former=record.state.former_fingerprints,
            whole=record.state.poll_complete,
            reclassified=True,
        )
        issues = keep_issues(unit, record.name, merged, rules, now)
    return _classified(record, rules, software, issues)


def _classified(
    record: ServerRecord, rules: Rules, software: Sequence[Software] | None, issues: Sequence[Issue]
) -> ServerRecord:
    return replace(
        record, summary=replace(summary_of(record, rules, software, issues), classified_by=rules.classification)
    )


def _after_poll(state: ServerState, started_at: float, reading: trust.Reading, settle: float) -> ServerState:
    # That a server has no software is doubted on its own, and must not keep an event open for ever.
    answered = reading.whole or reading.empty

    def still(at: float | None) -> float | None:
        return None if at is None or (answered and started_at >= at) else at

    # One that was not whole counts too: else the next would be due at once, and the one after it.
    settle_poll_at = None if (state.settle_poll_at or 0.0) <= started_at else state.settle_poll_at
    eased_alike_at = state.eased_alike_at
    # What is empty for long has no software that could be better.
    is_answer = reading.whole or (reading.empty and state.empty)
    if eased_alike_at is not None and is_answer and started_at >= eased_alike_at + settle:
        eased_alike_at = None
    waits_since = eased_alike_at if reading.collapse is None else reading.collapse.since
    # Once it is over, and something still has to be shown, the regular turns do.
    if waits_since is not None and (started_at == waits_since or started_at < waits_since + settle):
        settle_poll_at = max(settle_poll_at or 0.0, waits_since + settle)
    is_first = state.complete_poll_at is None or state.in_doubt_since is not None
    # Where nothing is known, no data of another server can be taken for its own.
    is_itself = reading.whole or (reading.empty and not reading.software)
    return replace(
        state,
        last_poll_at=started_at,
        complete_poll_at=started_at if reading.whole else state.complete_poll_at,
        history_since=started_at if reading.whole and is_first else state.history_since,
        empty=reading.empty,
        collapse=reading.collapse,
        eased_alike_at=eased_alike_at,
        exploits_unknown=reading.exploits_unknown,
        poll_success=True,
        event_received_at=still(state.event_received_at),
        report_settles_at=still(state.report_settles_at),
        in_doubt_since=None if is_itself else state.in_doubt_since,
        came_back_at=None if is_itself and started_at >= (state.came_back_at or 0.0) else state.came_back_at,
        settle_poll_at=settle_poll_at,
        put_off_until=None,
    )


def keep_issues(unit: Unit, server_name: str, merged: merge.Merged, rules: Rules, now: float) -> tuple[Issue, ...]:
    """Waive what is to be waived, write what changed, append it to the feed and count it; returns all issues."""
    waived, waiver_changes = waive.apply_waivers(merged.issues, server_name, rules.waivers, now)
    changed = {issue.fingerprint: issue for issue in (*merged.changed, *waived)}
    fleet.save_issues(unit.connection, changed.values())
    append_changes(unit, server_name, (*merged.changes, *waiver_changes))
    return tuple(changed.get(issue.fingerprint, issue) for issue in merged.issues)


def append_changes(unit: Unit, server_name: str, changes: Sequence[Change]) -> None:
    """Append to the change feed, and to the counters."""
    if not changes:
        return
    tallies = history.record(unit.connection, server_name, changes)
    unit.effects.append(FeedGrew())
    if tallies:
        unit.effects.append(TalliesShown(tuple(tallies)))


def apply_poll_failure(  # noqa: PLR0913  # What a failed poll tells, by keyword.
    unit: Unit,
    account: str,
    server_id: int,
    *,
    next_poll_at: float,
    answer: str | None = None,
    put_off_until: float | None = None,
) -> str | None:
    """A poll failed: the old data stays, and is marked as such; returns the server's name, if it is still there.

    ``answer`` is what the API said instead of the whole, where it answered: it leaves the old data in doubt.
    ``put_off_until``: it asked to wait until then.
    """
    record = find(unit, account, server_id)
    if record is None:
        return None
    record, state = replace(record, next_poll_at=next_poll_at), replace(record.state, poll_success=False)
    if answer is not None:
        state = replace(state, incomplete_because=answer, empty=False)
    if put_off_until is not None:
        state = replace(state, put_off_until=put_off_until)
    if state != record.state:
        show(unit, with_state(record, state))
    else:
        fleet.save_servers(unit.connection, [record])
    return record.name


def apply_reported(  # noqa: PLR0913  # What an event brings, by keyword.
    unit: Unit,
    record: ServerRecord,
    reported: Sequence[ReportedIssue],
    *,
    received_at: float,
    now: float,
    rules: Rules,
) -> None:
    """Merge an event's new issues as of its reception."""
    account, server_id = record.account, record.server_id
    merged = merge.apply_event(
        fleet.issues_of(unit.connection, account, server_id),
        reported,
        account=account,
        server_id=server_id,
        received_at=received_at,
        last_poll_started_at=record.state.complete_poll_at,
        settle=rules.settle,
        former=record.state.former_fingerprints,
    )
    issues = keep_issues(unit, record.name, merged, rules, now)
    polled_at = record.state.complete_poll_at
    state = record.state
    if polled_at is None or polled_at < received_at:
        state = replace(state, event_received_at=max(state.event_received_at or 0.0, received_at))
    if polled_at is None or polled_at < received_at + rules.settle:
        state = replace(state, settle_poll_at=max(state.settle_poll_at or 0.0, received_at + rules.settle))
    if merged.unshown:
        state = replace(state, report_settles_at=max(state.report_settles_at or 0.0, received_at + rules.settle))
    record = replace(record, state=state)
    software = fleet.software_of(unit.connection, account, server_id)
    record = replace(record, summary=summary_of(record, rules, software, issues))
    show(unit, record, received_at=received_at)


_CHECK_AFTER = (5.0, 10.0, 20.0, 40.0, 60.0, 120.0)
"""Seconds from one isScanning to the next while a scan runs or is suspected to: the budget is precious."""
_DOUBTS = 3
"""Answers "no" after which an announced start is taken for a scan that was over before it was seen."""
_SAME_SCAN_FOR = 600.0
"""Seconds after the reported end of a scan in which isScanning may lag behind; a later yes is another scan."""
_ENDED_UNSEEN_AFTER = 300.0
"""Seconds since isScanning last said yes after which a no does not tell when the scan ended: nobody asked meanwhile."""


def is_scan_awaited(state: ServerState) -> bool:
    """A scan is known or suspected to run, so isScanning is worth a call."""
    return state.scanning or state.scan_started_told_at is not None or state.scan_finished_told_at is not None


SCAN_DUE_AFTER = 20 * 3600.0
"""Seconds after the end of a scan in which the next is not looked for: they are daily (D, docs/patrolserver-api.md)."""


def is_scan_due(state: ServerState, now: float) -> bool:
    """Whether the daily scan may begin, so that one that nobody announces is worth to be looked for."""
    if is_scan_awaited(state):
        return False
    return state.last_scan_at is None or now - state.last_scan_at >= SCAN_DUE_AFTER


def next_scan_check_after(state: ServerState) -> float:
    """Seconds until isScanning should be asked again."""
    return _CHECK_AFTER[min(max(state.scan_checks - 1, 0), len(_CHECK_AFTER) - 1)]


def scan_started(state: ServerState, told_at: float) -> ServerState:
    """An event told of a scan's start."""
    if _is_old(state, told_at):
        return state
    return replace(state, scan_started_told_at=told_at, scan_checks=0)


def scan_finished(state: ServerState, told_at: float) -> ServerState:
    """An event told of a scan's end."""
    if _is_old(state, told_at):
        return state
    return _awaiting_poll(replace(state, scan_finished_told_at=told_at, scan_checks=0), told_at)


def _is_old(state: ServerState, told_at: float) -> bool:
    """What an event said before the known end of a scan is no news, even if it arrives later."""
    return state.last_scan_at is not None and told_at <= state.last_scan_at


def scan_confirmed(state: ServerState, *, running: bool, asked_at: float) -> tuple[ServerState, bool]:
    """The state after an answer of isScanning, and whether there may be news for a poll.

    A scan has ended if it was seen running before: anybody who knows the webhook's URL can tell of an end. An end that
    was told, or a start after which nothing runs any more, still asks for a poll.
    """
    if running:
        return _running(state, asked_at), False
    told_at = state.scan_finished_told_at
    if state.scanning:
        ended = _ended(state, _end_seen_at(state, asked_at) if told_at is None else told_at)
        # One that went on after its end was told, or whose end nobody saw, may have found more until now.
        return (_awaiting_poll(ended, asked_at) if state.scan_checks or told_at is None else ended), True
    checks = state.scan_checks + 1
    if told_at is not None:
        return _nothing_runs(state), True
    if state.scan_started_told_at is None:
        return _nothing_runs(state), False
    doubted = _awaiting_poll(state, state.scan_started_told_at)
    if checks < _DOUBTS:
        return replace(doubted, scan_checks=checks), checks == 1
    return _nothing_runs(state), False


def scan_unconfirmable(state: ServerState) -> ServerState:
    """The state after isScanning turned out not to exist for the server (404): nothing runs any more.

    A scan that was seen running and whose end was told has ended.
    """
    if state.scanning and state.scan_finished_told_at is not None:
        return _ended(state, state.scan_finished_told_at)
    return _nothing_runs(state)


def _nothing_runs(state: ServerState) -> ServerState:
    return replace(
        state, scanning=False, scan_started_told_at=None, scan_finished_told_at=None, scan_checks=0, scan_seen_at=None
    )


def without_scans(state: ServerState) -> ServerState:
    """The state of a server that may be another one: no scan of it was seen yet."""
    return replace(_nothing_runs(state), last_scan_at=None)


def _running(state: ServerState, asked_at: float) -> ServerState:
    told_at = state.scan_finished_told_at
    if told_at is not None and asked_at - told_at > _SAME_SCAN_FOR:
        told_at = None
    checks = state.scan_checks + 1
    return replace(
        state,
        scanning=True,
        scan_started_told_at=None,
        scan_finished_told_at=told_at,
        scan_checks=checks,
        scan_seen_at=asked_at,
    )


def _end_seen_at(state: ServerState, asked_at: float) -> float | None:
    """When a scan that runs no more has ended, at the earliest; ``None`` if nobody knows when it was seen running."""
    seen_at = state.scan_seen_at
    return asked_at if seen_at is not None and asked_at - seen_at <= _ENDED_UNSEEN_AFTER else seen_at


def _ended(state: ServerState, at: float | None) -> ServerState:
    if at is None:
        return _nothing_runs(state)
    ended = replace(_nothing_runs(state), last_scan_at=max(at, state.last_scan_at or 0.0))
    return _awaiting_poll(ended, at)


def _awaiting_poll(state: ServerState, ended_at: float) -> ServerState:
    """Only a poll shows what the scan found: until then the gate must not take older data for its result."""
    if state.complete_poll_at is not None and state.complete_poll_at >= ended_at:
        return state
    return replace(state, event_received_at=max(state.event_received_at or 0.0, ended_at))


def apply_check(
    unit: Unit, account: str, server_id: int, *, running: bool, asked_at: float
) -> tuple[ServerState | None, bool]:
    """Merge an answer of isScanning; returns the new state (``None``: the server is gone) and whether a scan ended."""
    record = find(unit, account, server_id)
    if record is None:
        return None, False
    state, ended = scan_confirmed(record.state, running=running, asked_at=asked_at)
    state = replace(state, scan_put_off_until=None)
    if state != record.state:
        show(unit, with_state(record, state))
    return state, ended


def apply_silence(unit: Unit, account: str, server_id: int) -> None:
    """Merge that isScanning does not exist for a server."""
    record = find(unit, account, server_id)
    if record is None:
        return
    state = replace(scan_unconfirmable(record.state), scan_put_off_until=None)
    if state != record.state:
        show(unit, with_state(record, state))


def put_scan_check_off(unit: Unit, account: str, server_id: int, until: float) -> None:
    """The API asked to wait until then with the next isScanning; so whoever polls the account next waits, too."""
    record = find(unit, account, server_id)
    if record is not None:
        fleet.save_servers(unit.connection, [with_state(record, replace(record.state, scan_put_off_until=until))])


class FollowUp(StrEnum):
    """What has to happen next for the event's server."""

    NOTHING = "nothing"
    POLL = "poll"
    CHECK_SCAN = "check scan"
    POLL_AND_CHECK_SCAN = "poll and check scan"
    LIST = "list"
    """The server is not known: the account's list has to be asked for first. Nothing was written."""


_UNCONFIRMED = frozenset({DeliveryState.UNVERIFIED, DeliveryState.REJECTED, DeliveryState.EXPIRED, DeliveryState.DEAD})
_ABOUT_A_SERVER = frozenset({Identifier.SCAN_STARTED, Identifier.SCAN_FINISHED, Identifier.NEW_SERVER_ISSUES})


def note_failure(  # noqa: PLR0913  # What a failure brings, by keyword.
    unit: Unit,
    delivery: Delivery,
    next_step: NextStep,
    *,
    now: float,
    error: str,
    settle: float,
    body: bytes | None = None,
) -> None:
    """Write what becomes of a delivery whose event was not confirmed; raises ``ClaimLost``.

    What the API does not know may be forged, or it may be known late, and what nobody understands may be anything.
    Either way polls find what it would have told, once they start ``settle`` seconds after its reception. A test tells
    of nothing.
    """
    deliveries.end_try(
        unit,
        delivery,
        next_step.state,
        now=now,
        attempts=next_step.attempts,
        next_attempt_at=None if next_step.wait is None else now + next_step.wait,
        error=error,
        body=body,
    )
    if next_step.state in _UNCONFIRMED and delivery.identifier != Identifier.TEST:
        _catch_up(unit, delivery, now, settle)
    unit.effects.append(InboxMoved())


def conclude(  # noqa: PLR0913  # What a fetch brings, by keyword.
    unit: Unit, delivery: Delivery, parsed: Parsed[Event], *, list_is_fresh: bool, now: float, rules: Rules
) -> FollowUp:
    """Let the API's answer to a fetch take effect, or keep it for the operator; raises ``ClaimLost``.

    What cannot be read of an event may be an issue, and under any identifier, which is only the sender's word. So may
    what an event of new issues leaves out. Polls find it once they start ``settle`` seconds after the reception.
    """
    event = parsed.value
    if event.server_id is None and (needs_server(delivery.identifier) or parsed.partial_because):
        note = "The API's reply names no server" + "".join(f"; {oddity}" for oddity in parsed.oddities)
        body = parsed.body or msgspec.json.encode(event)
        next_step = NextStep(DeliveryState.DEAD, delivery.attempts + 1, None)
        note_failure(unit, delivery, next_step, now=now, error=note, settle=rules.settle, body=body)
        _catch_up(unit, delivery, now, rules.settle)
        return FollowUp.NOTHING
    follow_up = apply_event(unit, delivery, event, list_is_fresh=list_is_fresh, now=now, rules=rules)
    if follow_up is FollowUp.LIST:
        # A server that was added a moment ago: the list has to come first.
        next_step = NextStep(DeliveryState.RETRY, delivery.attempts + 1, min(5.0 * (delivery.attempts + 1), 300.0))
        note = f"Server {event.server_id} is not known yet"
        note_failure(unit, delivery, next_step, now=now, error=note, settle=rules.settle)
    elif parsed.partial_because or (delivery.identifier == Identifier.NEW_SERVER_ISSUES and not event.new_issues):
        _catch_up(unit, delivery, now, rules.settle)
    return follow_up


def _catch_up(unit: Unit, delivery: Delivery, now: float, settle: float) -> None:
    # The clock may have been set back while the event was fetched, and nothing was received in the future.
    history.request_catch_up(unit.connection, delivery.account, min(delivery.received_at, now) + settle)


def needs_server(identifier: str) -> bool:
    """Whether an event of this kind says nothing without a server."""
    return identifier in _ABOUT_A_SERVER


def apply_event(  # noqa: PLR0913  # What an event brings, by keyword.
    unit: Unit, delivery: Delivery, event: Event, *, list_is_fresh: bool, now: float, rules: Rules
) -> FollowUp:
    """Let a confirmed event take effect and end its delivery, both or neither.

    ``list_is_fresh``: the account's server list was read after the reception, so a server that is not in the state is
    none of ours. Raises ``ClaimLost`` when somebody else holds the delivery by now.
    """
    # The identifier is only the sender's word: what is done is decided by what the API says.
    server_id = event.server_id
    record = None if server_id is None else find(unit, delivery.account, server_id)
    if server_id is not None and record is None and not list_is_fresh:
        return FollowUp.LIST
    note = None if server_id is None or record is not None else f"Server {server_id} is not in this account."
    deliveries.end_try(unit, delivery, DeliveryState.APPLIED, now=now, server_id=server_id, error=note)
    unit.effects.append(InboxMoved())
    if record is None:
        return FollowUp.NOTHING
    # The clock may have been set back while the event was fetched, and nothing was received in the future.
    received_at = min(delivery.received_at, now)
    if event.new_issues or delivery.identifier == Identifier.NEW_SERVER_ISSUES:
        apply_reported(unit, record, event.new_issues, received_at=received_at, now=now, rules=rules)
        return FollowUp.POLL
    if delivery.identifier == Identifier.SCAN_STARTED:
        state, follow_up = scan_started(record.state, received_at), FollowUp.CHECK_SCAN
    else:
        state, follow_up = scan_finished(record.state, received_at), FollowUp.POLL_AND_CHECK_SCAN
    if state != record.state:
        show(unit, with_state(record, state), received_at=received_at)
    return follow_up
