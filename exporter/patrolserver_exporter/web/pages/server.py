"""The page of one server: its issues, its software, its waivers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from patrolserver_exporter.gate.doubts import doubts
from patrolserver_exporter.gate.evidence import ServerEvidence
from patrolserver_exporter.gate.policy import Policy
from patrolserver_exporter.issues.classify import known_risk, state_of
from patrolserver_exporter.issues.model import SEVERITIES, STATES, Kind, State
from patrolserver_exporter.issues.waive import concerns, covers, day_of, is_expired
from patrolserver_exporter.web.pages.fleet import NO_LABELS
from patrolserver_exporter.web.pages.lists import ExploitView, exploit_views
from patrolserver_exporter.web.pages.notices import Notice
from patrolserver_exporter.web.pages.words import counted, listed, maybe, moment, number, place, span
from patrolserver_exporter.web.standing import OLD, doubts_of

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from patrolserver_exporter.config.schema import Issues
    from patrolserver_exporter.gate.evidence import Evidence
    from patrolserver_exporter.issues.model import Issue, Waiver
    from patrolserver_exporter.issues.summary import ServerSummary
    from patrolserver_exporter.patrolserver.models import Software
    from patrolserver_exporter.store.fleet import ServerRecord, ServerState
    from patrolserver_exporter.store.views import ServerView
    from patrolserver_exporter.web.pages.words import Moment


HISTORY = 100
"""Entries of the history on a page."""


@dataclass(frozen=True, slots=True, kw_only=True)
class IssueView:
    """An open issue, with what to do."""

    anchor: str
    severity: str
    kind: str
    software: str
    version: str
    update_to: str
    place: str
    """Where it is installed, in words."""
    title: str
    description: str
    risk: str
    exploits: tuple[ExploitView, ...]
    first_seen: Moment
    open_for: str
    waived_until: str
    waived_reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Happening:
    """An entry of the history."""

    at: Moment
    what: str
    severity: str
    kind: str
    software: str


def issue_view(issue: Issue, now: float) -> IssueView:
    """Show an open issue; the advice is the vendor's where an event brought it, and otherwise ours."""
    return IssueView(
        anchor=f"issue-{issue.fingerprint}",
        severity=issue.severity.value,
        kind=issue.kind.value,
        software=issue.software or issue.canonical_name,
        version=issue.version or "",
        update_to=issue.update_to or "",
        place=place(issue.location, issue.parent),
        title=issue.title or advice(issue),
        description=issue.description or "",
        risk="" if issue.risk is None else f"{issue.risk:g}",
        exploits=exploit_views(issue.exploits),
        first_seen=moment(issue.first_seen, now),
        open_for=span(now - issue.first_seen),
        waived_until="" if issue.waived_until is None else issue.waived_until.isoformat(),
        waived_reason=issue.waived_reason or "",
    )


def advice(issue: Issue) -> str:
    """Say what to do about an issue that came without a title."""
    name = issue.software or issue.canonical_name
    match issue.kind:
        case Kind.EXPLOITABLE if issue.update_to:
            return f"{name} has known exploits: update it to {issue.update_to}."
        case Kind.EXPLOITABLE:
            return f"{name} has known exploits: update it, or take it out of reach."
        case Kind.OUTDATED if issue.update_to:
            return f"Update {name} to {issue.update_to}."
        case Kind.REPORTED:
            return f"PatrolServer reported {name}; the next poll tells more."
        case _:
            return f"Upgrade {name} to a supported release."


def history(open_issues: Iterable[Issue], fixed_issues: Iterable[Issue], now: float) -> tuple[Happening, ...]:
    """Tell what opened and what was fixed, the newest first."""
    events: list[tuple[float, bool, Issue]] = []
    for issue in (*open_issues, *fixed_issues):
        events.append((issue.first_seen, False, issue))
        if issue.fixed_at is not None:
            events.append((issue.fixed_at, True, issue))
    events.sort(key=lambda event: event[:2], reverse=True)
    return tuple(_happening(at, issue, fixed=fixed, now=now) for at, fixed, issue in events[:HISTORY])


def _happening(at: float, issue: Issue, *, fixed: bool, now: float) -> Happening:
    return Happening(
        at=moment(at, now),
        what=f"Fixed after {span(at - issue.first_seen)}" if fixed else "Opened",
        severity=issue.severity.value,
        kind=issue.kind.value,
        software=" ".join(part for part in (issue.software or issue.canonical_name, issue.version) if part),
    )


SOFTWARE = 500
"""Software of one state on a page."""
_ORDER = (State.UNSUPPORTED, State.OUTDATED, State.UNKNOWN, State.SUPPORTED)
_MEANING = {
    State.UNSUPPORTED: "gets no more fixes: upgrade to a supported release",
    State.OUTDATED: "a newer bug-fix release exists: update",
    State.UNKNOWN: "PatrolServer did not tell the version, or whether it is supported",
    State.SUPPORTED: "nothing to do",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class SoftwareRow:
    """An installed software."""

    name: str
    version: str
    update_to: str
    place: str
    exploits: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SoftwareGroup:
    """All installed software of one state."""

    state: str
    meaning: str
    count: int
    rows: tuple[SoftwareRow, ...]
    cut: int
    """Rows that did not fit."""


def software_groups(software: Sequence[Software]) -> tuple[SoftwareGroup, ...]:
    """Group what is installed by its state, the worst first; empty groups are left out."""
    found: dict[State, list[Software]] = {state: [] for state in _ORDER}
    for item in software:
        found[state_of(item)].append(item)
    return tuple(
        SoftwareGroup(
            state=state.value,
            meaning=_MEANING[state],
            count=len(items),
            rows=tuple(_software_row(item) for item in _dangerous_first(items)[:SOFTWARE]),
            cut=max(len(items) - SOFTWARE, 0),
        )
        for state, items in found.items()
        if items
    )


def _dangerous_first(items: Iterable[Software]) -> list[Software]:
    return sorted(items, key=lambda item: (not item.exploits, item.name.lower(), item.location or ""))


def _software_row(item: Software) -> SoftwareRow:
    exploits = ""
    if item.exploits:
        risk = known_risk(item.exploits)
        worst = "unknown" if risk is None else f"up to {risk:g}"
        names = [exploit.reference for exploit in item.exploits if exploit.reference][:3]
        exploits = f"{counted(len(item.exploits), 'exploit')}, risk {worst}"
        exploits += f" ({', '.join(names)})" if names else ""
    return SoftwareRow(
        name=item.name or item.canonical_name,
        version=item.shown_version or "",
        update_to=item.newest_bugfix_release or "",
        place=place(item.location, item.parent),
        exploits=exploits,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class WaiverView:
    """A waiver of the configuration that is about this server."""

    software: str
    kind: str
    until: str
    reason: str
    effect: str


def waiver_views(
    waivers: Iterable[Waiver], server_name: str, open_issues: Sequence[Issue], today: dt.date
) -> tuple[WaiverView, ...]:
    """Show the configuration's waivers that are about the server, and what each does."""
    return tuple(
        WaiverView(
            software=waiver.software,
            kind="any" if waiver.kind is None else waiver.kind.value,
            until=waiver.until.isoformat(),
            reason=waiver.reason,
            effect=_effect(waiver, server_name, open_issues, today),
        )
        for waiver in waivers
        if concerns(waiver, server_name)
    )


def _effect(waiver: Waiver, server_name: str, open_issues: Sequence[Issue], today: dt.date) -> str:
    if is_expired(waiver, today):
        return "expired: covers nothing any more"
    covered = sum(covers(waiver, issue, server_name) for issue in open_issues)
    return f"covers {counted(covered, 'open issue')}" if covered else "covers nothing here now"


ISSUES = 200
"""Open issues on a page."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerPage:
    """Everything on the page of a server."""

    name: str
    server_id: int
    account: str
    headline: str
    tone: str
    """Of the headline: ``bad``, ``warn``, ``good`` or ``unknown``."""
    notices: tuple[Notice, ...]
    gone: bool
    doubtful: bool
    """Something is not known of it: that no issue is, is no good news."""
    verified: str
    polled: Moment | None
    next_poll: Moment | None
    scanning: bool
    last_scan: Moment | None
    issues: tuple[IssueView, ...]
    waived: tuple[IssueView, ...]
    issues_cut: int
    """Open issues that did not fit."""
    software: tuple[SoftwareGroup, ...] | None
    """``None`` until the first successful poll."""
    history: tuple[Happening, ...]
    history_is_cut: bool
    waivers: tuple[WaiverView, ...]
    labels: tuple[tuple[str, str], ...] = ()
    """Those that the configuration gives it."""


def server_page(  # noqa: PLR0913  # what is known of it comes from that many places
    view: ServerView,
    rules: Issues,
    now: float,
    labels: Mapping[str, str] = NO_LABELS,
    *,
    reachable: bool = True,
    gate_doubts: Sequence[str] = (),
) -> ServerPage:
    """Show a server as the store has it and the rules judge it.

    ``reachable``: its account's list can be read. ``gate_doubts`` are what keeps the gate from a verdict on it.
    """
    record, summary, gone = view.record, view.record.summary, view.record.gone_at is not None
    found = tuple(_notices(view, now, reachable=reachable))
    if gate_doubts and not found:
        found = (
            Notice(
                "The gate answers unknown for this server.",
                "Issues may be missing here until then.",
                " ".join(gate_doubts),
                speaker="Because:",
            ),
        )
    doubtful = (
        any(notice.bad for notice in found) or bool(gate_doubts) or bool(doubts_of(summary, now, reachable=reachable))
    )
    text, tone = headline(summary, gone=gone, doubtful=doubtful)
    return ServerPage(
        name=record.name.strip() or f"Server {record.server_id}",
        server_id=record.server_id,
        account=record.account,
        headline=text,
        tone=tone,
        notices=found,
        gone=gone,
        doubtful=doubtful,
        verified={None: "not known", True: "yes", False: "no"}[summary.verified],
        polled=maybe(summary.last_poll_at, now),
        next_poll=maybe(None if gone else record.next_poll_at, now),
        scanning=summary.scanning,
        last_scan=maybe(summary.last_scan_at, now),
        issues=tuple(issue_view(issue, now) for issue in view.open_issues if not issue.waived),
        waived=tuple(issue_view(issue, now) for issue in view.open_issues if issue.waived),
        issues_cut=view.open_count - len(view.open_issues),
        software=None if view.software is None else software_groups(view.software),
        history=history(view.open_issues, view.fixed_issues, now),
        history_is_cut=view.open_count + 2 * view.fixed_count > HISTORY,
        waivers=waiver_views(rules.waivers, record.name, view.open_issues, day_of(now)),
        labels=tuple(labels.items()),
    )


def gate_doubts(found: Sequence[Evidence], now: float, exploit_risk: float) -> tuple[str, ...]:
    """What keeps the gate from a verdict on a server by the strictest policy there is, in its words."""
    if not found:
        return ("its account is not watched.",)
    return tuple(
        reason.message.removeprefix(f"{evidence.name}: ")
        for evidence in found
        if isinstance(evidence, ServerEvidence)
        for reason in doubts(evidence, Policy(), now, exploit_risk=exploit_risk)
        if reason.blocking
    )


def headline(summary: ServerSummary, *, gone: bool, doubtful: bool) -> tuple[str, str]:
    """Say in one sentence how the server stands, and in which tone; ``doubtful`` data is never good news."""
    if gone:
        return "This server is no longer watched", "unknown"
    if summary.open_issues is None:
        return "Not polled yet, so nothing is known", "unknown"
    found = [
        f"{number(count)} {severity.value}"
        for severity, count in zip(SEVERITIES, summary.open_issues, strict=True)
        if count
    ]
    if not found:
        return ("No open issue is known, but the data has gaps", "unknown") if doubtful else ("No open issue", "good")
    tone = "bad" if any(summary.open_issues[:2]) else "warn"
    total = sum(summary.open_issues)
    return f"{listed(found)} {'issue' if total == 1 else 'issues'}", tone


def _notices(view: ServerView, now: float, *, reachable: bool) -> Iterator[Notice]:
    record, summary = view.record, view.record.summary
    if record.gone_at is not None:
        gone = moment(record.gone_at, now)
        yield Notice(
            f"The account no longer has this server since {gone.shown}, {gone.words}.",
            "It was removed at PatrolServer, or servers.include and servers.exclude leave it out. What was known of it "
            "is kept for as long as store.retention says.",
        )
        return
    if not reachable:
        yield Notice(
            f"The server list of account {summary.account} cannot be read.",
            "What is shown is from before, and the gate answers unknown. The fleet's page says why, and what to do.",
        )
    if summary.last_poll_at is None:
        yield Notice(
            "No poll of this server succeeded yet.",
            "A new server is polled within one poll interval. If it lasts, the exporter's log tells why.",
            bad=False,
        )
    elif not summary.poll_success:
        yield Notice(
            f"The last poll failed; what is shown is from {moment(summary.last_poll_at, now).words}.",
            "It is polled again by itself. The exporter's log tells why it failed.",
        )
    elif now - summary.last_poll_at > OLD:
        yield Notice(
            "The data is older than 24 hours.",
            "The gate answers unknown for this server. See the health of its account on the fleet's page.",
        )
    yield from _doubts(record)
    if record.state.event_received_at is not None:
        yield Notice(
            f"PatrolServer reported new issues, or a scan ended, {moment(record.state.event_received_at, now).words}.",
            "New issues are shown already; a poll still has to confirm it, and until then the gate answers unknown.",
            bad=False,
        )
    elif record.state.report_settles_at is not None:
        settles = moment(record.state.report_settles_at, now).words
        yield Notice(
            "PatrolServer reported a new issue of software that had one before, and the last poll showed nothing new.",
            f"Its list may lag behind. A poll looks once more {settles}; until then the gate answers unknown.",
            bad=False,
        )


def _doubts_of_poll(state: ServerState) -> Iterator[Notice]:
    if state.empty:
        yield Notice(
            "PatrolServer lists no software for this server, so nothing was looked at.",
            "The gate answers unknown. Have it scanned, and see whether PatrolServer's scanner still runs on it.",
        )
    if state.list_doubt is not None:
        yield Notice(
            "PatrolServer's server list tells of trouble or exploits that no poll of the server shows.",
            "Until a list or a poll says otherwise, polls close no issue, and the gate answers unknown. See at "
            "PatrolServer whether its scans work.",
            state.list_trouble or state.list_claim or "",
            speaker="The list says:",
        )
    elif state.collapse is not None or state.eased_alike_at is not None:
        yield Notice(
            "The last poll is much better than what was known, and has to be shown once more.",
            "It may be a fault at PatrolServer. Another poll follows by itself; until then the gate answers unknown.",
            state.incomplete_because or "",
            speaker="What is doubted:",
        )
    elif state.last_poll_at is not None and not state.poll_complete and not state.empty:
        yield Notice(
            "The last poll showed only a part of the software.",
            "No issue is closed by it, and the gate answers unknown. If it lasts, ask PatrolServer about what is "
            "missing.",
            state.incomplete_because or "",
            speaker="What showed it:",
        )


def _doubts(record: ServerRecord) -> Iterator[Notice]:
    state, unknown = record.state, record.summary.exploits_unknown_risk
    yield from _doubts_of_poll(state)
    if state.in_doubt_since is not None:
        yield Notice(
            "It has another name than before, came back, or is read from another API: what was known may be another "
            "server's.",
            "Until its next whole poll no numbers are shown, and the gate answers unknown.",
        )
    if state.came_back_at is not None:
        yield Notice(
            "It was gone from the server list and came back: what is known is from before.",
            "Until its next whole poll the gate answers unknown.",
        )
    if state.exploits_unknown:
        yield Notice(
            f"The last poll did not tell the exploits of {counted(state.exploits_unknown, 'software', 'software')}.",
            "Those known before are kept, and the gate answers unknown. If it lasts, ask PatrolServer about it.",
        )
    software = record.summary.software
    if software and (count := software[STATES.index(State.UNKNOWN)]):
        yield Notice(
            f"The state of {counted(count, 'software', 'software')} is not known: it may have issues that nobody sees.",
            "PatrolServer does not tell the version, or whether it is supported. The gate answers unknown, unless "
            "max_unknown_software of the policy lets it pass.",
            bad=False,
        )
    if state.missing_since is not None:
        yield Notice(
            "The last server list lacked this server; another list has to confirm that.",
            "Until then it is kept, and the gate answers unknown.",
        )
    if unknown:
        yield Notice(
            f"The risk of {counted(unknown, 'exploit')} is not known.",
            "They count as high here, and as the worst at the gate. Look them up by CVE, and update the software or "
            "waive them.",
        )
