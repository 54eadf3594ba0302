"""Two sources, one state: what polls show and what events report, merged for one server.

Times are seconds since the epoch. The same poll or event may be merged twice: the second time changes nothing.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import msgspec
from msgspec.structs import replace

from patrolserver_exporter.issues import classify
from patrolserver_exporter.issues.classify import full_severity, is_worse, severity_of, weighed
from patrolserver_exporter.issues.derive import Finding, derive, tells_of_exploits, undecided
from patrolserver_exporter.issues.model import (
    SEVERITIES,
    SHORT_BREAK,
    Change,
    ChangeKind,
    Identity,
    Issue,
    IssueClass,
    Kind,
    Severity,
    fingerprint,
)

if TYPE_CHECKING:
    from collections.abc import Collection, Container, Iterable, Iterator, Sequence

    from patrolserver_exporter.issues.derive import Finding
    from patrolserver_exporter.patrolserver.models import ReportedIssue, ReportedSoftware, Software


_Rank = tuple[bool, bool, tuple[str, str, bool, bool, str], str]


def takeovers(
    issues: Sequence[Issue], findings: Sequence[Finding], closed_seats: frozenset[Identity]
) -> dict[Identity, Issue]:
    """The open, so far only reported issue that each finding takes over, by the finding's identity.

    A finding of the same software takes it over: at best the one with the same identity, else one at the same
    location, else the first by location. Each issue is taken over once, and so is no finding whose identity is in
    ``closed_seats``.
    """
    reported = [issue for issue in issues if issue.is_open and not issue.polled]
    free = [finding for finding in findings if finding.identity not in closed_seats]
    taken: dict[Identity, Issue] = {}
    settled: set[str] = set()
    for _, finding, issue in sorted(_pairs(reported, free), key=lambda pair: pair[0]):
        if finding.identity not in taken and issue.fingerprint not in settled:
            taken[finding.identity] = issue
            settled.add(issue.fingerprint)
    return taken


def _pairs(reported: Sequence[Issue], findings: Sequence[Finding]) -> Iterator[tuple[_Rank, Finding, Issue]]:
    by_name: dict[str, list[Finding]] = {}
    for finding in findings:
        by_name.setdefault(finding.canonical_name.casefold(), []).append(finding)
    for issue in reported:
        for finding in by_name.get(issue.canonical_name.casefold(), ()):
            rank = (
                finding.identity != issue.identity,
                finding.location != issue.location,
                finding.identity.order,
                issue.fingerprint,
            )
            yield rank, finding, issue


def open_match(issues: Iterable[Issue], software: ReportedSoftware) -> Issue | None:
    """The open one of the software's ``issues`` that the report is about.

    Any that a poll has shown will do, because an event opens only what polls do not show; one that only another event
    reported must not be known to lie elsewhere. At best it has the same location.
    """
    matching = (issue for issue in issues if issue.is_open and (issue.polled or _may_lie_at(issue, software.location)))
    return min(
        matching,
        key=lambda issue: (issue.location != software.location, issue.identity.order, issue.fingerprint),
        default=None,
    )


def fixed_match(issues: Iterable[Issue], software: ReportedSoftware) -> Issue | None:
    """The fixed one of the software's ``issues`` that comes back with the report.

    At best it has the same location, then it is one of a version.
    """
    matching = (issue for issue in issues if not issue.is_open and _may_lie_at(issue, software.location))
    return min(
        matching,
        key=lambda issue: (
            software.location is not None and issue.location != software.location,
            issue.issue_class is not IssueClass.VERSION,
            issue.identity.order,
            issue.fingerprint,
        ),
        default=None,
    )


def fixed_since(issues: Iterable[Issue], received_at: float) -> bool:
    """Whether a poll that started at ``received_at`` or later showed one of the software's ``issues`` as fixed.

    One that polls never showed does not tell: had the event come in time, ``settle`` would have kept it open.
    """
    return any(issue.polled and issue.fixed_at is not None and issue.fixed_at >= received_at for issue in issues)


def open_reported(
    report: ReportedIssue, *, account: str, server_id: int, received_at: float, taken: Container[str]
) -> Issue:
    """A new issue that only this event tells of; ``taken`` are the server's fingerprints."""
    software = report.about
    title = None if software.canonical_name else report.title
    identity = Identity(software.canonical_name, software.location, IssueClass.VERSION, title)
    return Issue(
        account=account,
        server_id=server_id,
        canonical_name=software.canonical_name,
        location=software.location,
        issue_class=IssueClass.VERSION,
        fingerprint=fingerprint(account, server_id, identity, taken),
        kind=Kind.REPORTED,
        severity=severity_of(Kind.REPORTED),
        software=software.name,
        version=software.shown_version,
        title=report.title,
        description=report.description,
        first_seen=received_at,
        last_seen=received_at,
        event_received_at=received_at,
        polled=False,
    )


def reopen_reported(issue: Issue, report: ReportedIssue, received_at: float, last_whole_at: float | None) -> Issue:
    """A fixed issue that an event brings back, under its old fingerprint.

    What exactly is wrong is for the next poll to say, so it is of the class that reported issues have.
    ``last_whole_at`` is the start of the last whole poll.
    """
    software = report.about
    return replace(
        issue,
        issue_class=IssueClass.VERSION,
        kind=Kind.REPORTED,
        severity=severity_of(Kind.REPORTED),
        software=software.name,
        version=software.shown_version,
        update_to=None,
        risk=None,
        exploits=(),
        title=report.title or issue.title,
        description=report.description or issue.description,
        first_seen=received_at,
        severity_since=received_at,
        at_least_since=(),
        since_before=_since_before(issue, received_at, last_whole_at),
        age_unknown=issue.age_unknown and _is_short_break(issue, received_at, last_whole_at),
        last_seen=received_at,
        fixed_at=None,
        event_received_at=received_at,
        polled=False,
    )


def _is_short_break(issue: Issue, at: float, last_whole_at: float | None) -> bool:
    """Whether an issue that comes back then was fixed for so short a time that it may not have been.

    However long ago, if no other whole poll than that at ``last_whole_at`` has shown it as fixed.
    """
    fixed_at = issue.fixed_at
    return fixed_at is not None and (at - fixed_at < SHORT_BREAK or fixed_at >= (last_whole_at or math.inf))


def _since_before(issue: Issue, at: float, last_whole_at: float | None) -> tuple[float | None, ...]:
    """Since when it was how severe before it was fixed, if it comes back after a short break."""
    return _both(issue) if _is_short_break(issue, at, last_whole_at) else ()


def _both(issue: Issue) -> tuple[float | None, ...]:
    """Since when it has been how severe, the time before a short break included."""
    return _earliest(issue.at_least_since, issue.since_before)


def _earliest(since: tuple[float | None, ...], other: tuple[float | None, ...]) -> tuple[float | None, ...]:
    """The earlier time of each severity; an empty one tells none."""
    if not (since and other):
        return since or other
    pairs = zip(since, other, strict=True)
    return tuple(min((one for one in pair if one is not None), default=None) for pair in pairs)


def with_report(issue: Issue, report: ReportedIssue, received_at: float) -> Issue:
    """The open ``issue`` with what the report adds; a report older than the last one only fills gaps."""
    if issue.event_received_at is not None and received_at < issue.event_received_at:
        return replace(issue, title=issue.title or report.title, description=issue.description or report.description)
    return replace(
        issue,
        version=issue.version if issue.polled else report.about.shown_version or issue.version,
        title=report.title or issue.title,
        description=report.description or issue.description,
        last_seen=max(issue.last_seen, received_at),
        event_received_at=received_at,
    )


def _may_lie_at(issue: Issue, location: str | None) -> bool:
    return location is None or issue.location is None or issue.location == location


class Merged(msgspec.Struct, frozen=True, kw_only=True):
    """What a poll or an event made of a server's issues."""

    issues: tuple[Issue, ...]
    """All of them, the unchanged and the fixed ones too."""
    changed: tuple[Issue, ...]
    """Those whose row has to be written."""
    changes: tuple[Change, ...]
    """What the change feed tells."""
    unshown: bool = False
    """An event told of something that may be hidden by an issue known long before it."""


class _Ledger:
    """The issues of one server while something is merged into them at the moment ``at``."""

    def __init__(self, issues: Sequence[Issue], at: float, former: Collection[str] = ()) -> None:
        self._before = {issue.fingerprint: issue for issue in issues}
        self._changes: list[Change] = []
        self._at = at
        self._former = frozenset(former)
        self.rows = dict(self._before)
        self._names: dict[str, set[str]] = {}
        for issue in issues:
            self._names.setdefault(issue.canonical_name.casefold(), set()).add(issue.fingerprint)

    def __contains__(self, fingerprint: object) -> bool:
        """Whether an issue of this server, or of another that had its id before, has the fingerprint."""
        return fingerprint in self.rows or fingerprint in self._former

    def put(self, issue: Issue, change: ChangeKind | None = None) -> None:
        """Write a row, and its entry in the change feed if there is one."""
        self.rows[issue.fingerprint] = issue
        self._names.setdefault(issue.canonical_name.casefold(), set()).add(issue.fingerprint)
        if change is not None:
            self._changes.append(Change(kind=change, at=self._at, issue=issue))

    def about(self, report: ReportedIssue) -> tuple[Issue, ...]:
        """The rows of the software that a report names, in no order; if it names none, those with its title."""
        rows = (self.rows[print_] for print_ in self._names.get(report.about.canonical_name.casefold(), ()))
        return tuple(row for row in rows if report.about.canonical_name or row.title == report.title)

    def merged(self, *, unshown: bool = False) -> Merged:
        """What has become of it."""
        rows = tuple(self.rows.values())
        changed = tuple(row for row in rows if row != self._before.get(row.fingerprint))
        return Merged(issues=rows, changed=changed, changes=tuple(self._changes), unshown=unshown)


class Before(msgspec.Struct, frozen=True, kw_only=True):
    """What the polls before have told."""

    undecided: frozenset[Identity] = frozenset()
    """What was listed without telling whether something is wrong, as `undecided` has it."""
    exploits_untold: bool = False
    """The last one did not tell the exploits of all software; what was known of them before may be all."""
    last_whole_at: float | None = None
    """Start of the last whole one, in seconds since the epoch."""


NOTHING_BEFORE = Before()


def apply_poll(  # noqa: PLR0913  # what a poll brings, by keyword
    issues: Sequence[Issue],
    software: Sequence[Software],
    *,
    account: str,
    server_id: int,
    started_at: float,
    exploit_risk: float,
    settle: float,
    former: Collection[str] = (),
    before: Before = NOTHING_BEFORE,
    whole: bool = True,
    reclassified: bool = False,
) -> Merged:
    """What a successful poll of the installed software makes of a server's ``issues``, open and fixed.

    What it shows is opened, kept or reopened, and takes over what so far only an event reported. What it no longer
    shows is fixed, unless that was seen at ``started_at`` or later, is still protected by ``settle`` (seconds), is
    listed in a state that nobody knows, or the poll was not ``whole``. One without any software fixes nothing, and one
    that tells of no exploits nothing that may be about one. A poll that is not whole makes no issue better either. The
    ``former`` fingerprints, of other servers that had this id before, are not given again. ``before`` is what earlier
    polls have told.

    ``reclassified``: the poll that was merged last is classified again, by other settings. That closes nothing. What is
    now more or less severe is neither worsened nor eased, since nothing happened.
    """
    ledger = _Ledger(issues, started_at, former)
    showing = _Showing(started_at=started_at, whole=whole, reclassified=reclassified, before=before)
    findings = _spelt_as_known(derive(software, exploit_risk), issues)
    taken_over = takeovers(issues, findings, _closed_seats(issues, started_at))
    moved = {issue.fingerprint for issue in taken_over.values()}
    seated = {issue.identity: issue for issue in issues if issue.fingerprint not in moved}
    shown = set(moved)
    left = _left(issues, findings)
    for finding in findings:
        reported, known = taken_over.get(finding.identity), seated.get(finding.identity)
        if known is not None:
            shown.add(known.fingerprint)
            _show_known(ledger, known, finding, showing, reported)
        elif reported is not None:
            _show_again(ledger, reported, finding, showing)
        else:
            born = _born(finding, account, server_id, showing, ledger)
            ledger.put(_as_old_as(born, left.get(_name_and_class(finding), ())), ChangeKind.OPENED)
    if whole and software and not reclassified:
        doubts = _Doubts(undecided(software), silent=not tells_of_exploits(software))
        for issue in issues:
            if issue.is_open and issue.fingerprint not in shown and _is_gone(issue, started_at, settle, doubts):
                ledger.put(replace(issue, fixed_at=started_at), ChangeKind.FIXED)
    return ledger.merged()


def _spelt_as_known(findings: Sequence[Finding], issues: Sequence[Issue]) -> Sequence[Finding]:
    """The findings, each with name and location as a poll spelt them when it showed the issue first.

    Another spelling is no other software: else what is old would be fixed, and begin anew.
    """
    exact = {issue.identity for issue in issues if issue.is_open and issue.polled}
    respelt = [finding for finding in findings if finding.identity not in exact]
    if not respelt:
        return findings
    # An open one goes before a fixed or only reported one with just this spelling: that may be of another time.
    found, fixed = {finding.identity for finding in findings}, {issue.identity for issue in issues} - exact
    spelt = {
        issue.identity.folded: issue
        for issue in sorted(issues, key=lambda issue: (issue.is_open, issue.last_seen, issue.fingerprint))
        if issue.polled and issue.identity not in found
    }
    respelt = [
        finding
        for finding in respelt
        if finding.identity not in fixed
        or ((issue := spelt.get(finding.identity.folded)) is not None and issue.is_open)
    ]
    same = {
        finding.identity: replace(finding, canonical_name=issue.canonical_name, location=issue.location)
        for finding in respelt
        if (issue := spelt.pop(finding.identity.folded, None)) is not None
    }
    return [same.get(finding.identity, finding) for finding in findings]


def apply_event(  # noqa: PLR0913  # what an event brings, by keyword
    issues: Sequence[Issue],
    reported: Sequence[ReportedIssue],
    *,
    account: str,
    server_id: int,
    received_at: float,
    last_poll_started_at: float | None,
    settle: float,
    former: Collection[str] = (),
) -> Merged:
    """What an event's ``reported`` issues make of a server's ``issues``, open and fixed.

    The event takes effect as of ``received_at``, however late it is merged: it opens and reopens nothing that a poll
    since then showed as fixed, and nothing at all once a poll started ``settle`` seconds after it or later.
    ``last_poll_started_at`` is the start of the last successful poll that was whole.

    An issue that was known long before it, or that a poll has since shown as fixed, may be another one than the event
    tells of, whose list may lag behind: the event then stays ``unshown``.
    """
    ledger, unshown = _Ledger(issues, received_at, former), False
    overtaken = last_poll_started_at is not None and last_poll_started_at >= received_at + settle
    for report in _distinct(reported):
        rows = ledger.about(report)
        known = open_match(rows, report.about)
        if known is not None:
            ledger.put(with_report(known, report, received_at))
            unshown = unshown or (not overtaken and known.polled and not _is_recent(known, received_at - settle))
        elif overtaken:
            continue
        elif fixed_since(rows, received_at):
            unshown = True
        elif (fixed := fixed_match(rows, report.about)) is not None:
            ledger.put(reopen_reported(fixed, report, received_at, last_poll_started_at), ChangeKind.REOPENED)
        else:
            born = open_reported(report, account=account, server_id=server_id, received_at=received_at, taken=ledger)
            ledger.put(born, ChangeKind.OPENED)
    return ledger.merged(unshown=unshown)


def _is_recent(issue: Issue, since: float) -> bool:
    """Whether the issue was opened, or became what it is, then or later: such news is what an event tells of."""
    return max(issue.first_seen, issue.severity_since) >= since


def _closed_seats(issues: Sequence[Issue], started_at: float) -> frozenset[Identity]:
    """Identities that no reported issue can move to: a poll showed them as open, or a later poll as fixed."""
    return frozenset(
        issue.identity for issue in issues if (issue.polled if issue.fixed_at is None else issue.fixed_at > started_at)
    )


class _Showing(msgspec.Struct, frozen=True, kw_only=True):
    """A poll that shows issues."""

    started_at: float
    whole: bool
    reclassified: bool
    before: Before

    def hides_age_of(self, finding: Finding) -> bool:
        """Whether an issue that nobody knew before may be older than this poll."""
        is_untold = self.before.exploits_untold and finding.issue_class is IssueClass.EXPLOIT
        return self.reclassified or is_untold or finding.identity.folded in self.before.undecided


def _show_known(ledger: _Ledger, known: Issue, finding: Finding, showing: _Showing, reported: Issue | None) -> None:
    """A poll shows an issue that has a row of its own; ``reported`` is one that turns out to be the same."""
    started_at = showing.started_at
    if known.fixed_at is None:
        if not _shown_later(known, started_at):
            _show_again(ledger, known, finding, showing)
        return
    if known.fixed_at > started_at:
        return
    back = _returned(known, finding, showing)
    if reported is not None:
        at = max(started_at, reported.first_seen)
        same = reported.severity is back.severity
        back = replace(
            back,
            exploits=classify.born(finding.exploits, at),
            first_seen=reported.first_seen,
            severity_since=reported.severity_since if same else at,
            at_least_since=(),
            last_seen=max(started_at, reported.last_seen),
            event_received_at=reported.event_received_at,
            title=reported.title or back.title,
            description=reported.description or back.description,
        )
        ledger.put(replace(reported, fixed_at=max(started_at, reported.first_seen)), ChangeKind.FIXED)
    ledger.put(back, ChangeKind.REOPENED)


def _shown_later(issue: Issue, started_at: float) -> bool:
    """Whether a later poll has shown it, so that this one tells nothing new."""
    return issue.polled and issue.last_seen > started_at and issue.last_seen != issue.event_received_at


def _show_again(ledger: _Ledger, issue: Issue, finding: Finding, showing: _Showing) -> None:
    """A poll shows an open issue: tell it if that is worse or better than before."""
    at = max(showing.started_at, issue.first_seen)
    after, fresh = _found(issue, finding, at, showing)
    before_full, after_full = full_severity(issue), full_severity(after)
    if is_worse(before_full, after_full) and issue.polled and not showing.whole:
        # What is missing from a poll that is not whole may be the worst of it.
        after, fresh = replace(_located(issue, finding, showing), last_seen=after.last_seen), False
        after_full = before_full
    if showing.hides_age_of(finding) and (not issue.polled or is_worse(after_full, before_full)):
        # What it is now, it may have been all the time.
        after = replace(after, age_unknown=True)
    if after_full is not before_full:
        since = issue.severity_since if showing.reclassified else at
        after = replace(
            after,
            severity_since=issue.severity_since if showing.reclassified else at,
            at_least_since=_at_least_since(issue, after_full, since),
            since_before=_still_before(issue, before_full, after_full, at),
        )
    told = None if showing.reclassified else _difference(issue, after, fresh=fresh)
    ledger.put(after, told)


def _difference(before: Issue, after: Issue, *, fresh: bool) -> ChangeKind | None:
    """What the feed tells of an open issue that a poll shows again; waivers are as they were.

    What waivers leave of it may change where the whole does not, and the other way round.
    """
    severities = ((before.severity, after.severity), (full_severity(before), full_severity(after)))
    if fresh or any(is_worse(now, was) for was, now in severities):
        return ChangeKind.WORSENED
    return ChangeKind.EASED if any(is_worse(was, now) for was, now in severities) else None


def _at_least_since(issue: Issue, severity: Severity, at: float) -> tuple[float | None, ...]:
    rank = SEVERITIES.index(severity)
    return tuple(
        None if place < rank else at if since is None else since for place, since in enumerate(issue.at_least_since)
    )


def _still_before(issue: Issue, before: Severity, after: Severity, at: float) -> tuple[float | None, ...]:
    """What still counts of the time before a short break, once the severity is another.

    What it is no more counts for a while: should it be so again within that, it may have been so all the time.
    """
    if is_worse(before, after):
        return _both(issue)
    if at - issue.severity_since < SHORT_BREAK:
        return issue.since_before
    rank = SEVERITIES.index(before)
    return tuple(None if place < rank else since for place, since in enumerate(issue.since_before))


def _found(issue: Issue, finding: Finding, at: float, showing: _Showing) -> tuple[Issue, bool]:
    """The open issue as the poll shows it, and whether one of its exploits is new."""
    after = replace(
        _located(issue, finding, showing),
        issue_class=finding.issue_class,
        kind=finding.kind,
        severity=finding.severity,
        risk=finding.risk,
    )
    if not finding.exploits:
        return replace(after, exploits=()), False
    stored_without = issue.kind is Kind.EXPLOITABLE and not issue.exploits
    if stored_without and (showing.reclassified or not showing.whole):
        return after, False
    found, fresh = classify.followed(issue.exploits, finding.exploits, at, keep=not showing.whole)
    first = stored_without or issue.kind is not Kind.EXPLOITABLE
    return weighed(replace(after, exploits=found)), fresh and not first


def _located(issue: Issue, finding: Finding, showing: _Showing) -> Issue:
    """The open issue with what the poll shows of it beside kind and severity."""
    return replace(
        issue,
        location=finding.location,
        software=finding.software,
        version=finding.version,
        update_to=finding.update_to,
        parent=finding.parent,
        last_seen=max(issue.last_seen, showing.started_at),
        polled=True,
    )


def _returned(issue: Issue, finding: Finding, showing: _Showing) -> Issue:
    """A fixed issue that a poll shows again: under its old fingerprint it starts again."""
    started_at = showing.started_at
    return replace(
        issue,
        location=finding.location,
        issue_class=finding.issue_class,
        kind=finding.kind,
        severity=finding.severity,
        software=finding.software,
        version=finding.version,
        update_to=finding.update_to,
        parent=finding.parent,
        risk=finding.risk,
        exploits=classify.born(finding.exploits, started_at),
        first_seen=started_at,
        severity_since=started_at,
        at_least_since=(),
        since_before=_since_before(issue, started_at, showing.before.last_whole_at),
        last_seen=started_at,
        fixed_at=None,
        polled=True,
        age_unknown=showing.hides_age_of(finding)
        or (issue.age_unknown and _is_short_break(issue, started_at, showing.before.last_whole_at)),
    )


def _born(finding: Finding, account: str, server_id: int, showing: _Showing, ledger: _Ledger) -> Issue:
    started_at = showing.started_at
    return Issue(
        account=account,
        server_id=server_id,
        canonical_name=finding.canonical_name,
        location=finding.location,
        issue_class=finding.issue_class,
        fingerprint=fingerprint(account, server_id, finding.identity, ledger),
        kind=finding.kind,
        severity=finding.severity,
        software=finding.software,
        version=finding.version,
        update_to=finding.update_to,
        parent=finding.parent,
        risk=finding.risk,
        exploits=classify.born(finding.exploits, started_at),
        first_seen=started_at,
        last_seen=started_at,
        polled=True,
        age_unknown=showing.hides_age_of(finding),
    )


def _name_and_class(one: Issue | Finding) -> tuple[str, IssueClass]:
    return one.canonical_name.casefold(), one.issue_class


def _left(issues: Sequence[Issue], findings: Sequence[Finding]) -> dict[tuple[str, IssueClass], list[Issue]]:
    """The open issues whose software is bad no more where it was, by name and class."""
    found = {finding.identity for finding in findings}
    left: dict[tuple[str, IssueClass], list[Issue]] = {}
    for issue in issues:
        if issue.is_open and issue.polled and issue.identity not in found:
            left.setdefault(_name_and_class(issue), []).append(issue)
    return left


def _as_old_as(born: Issue, left: Sequence[Issue]) -> Issue:
    """A new issue, for a grace as old as those that it may have come from: another folder mends nothing."""
    since, age_unknown = born.since_before, born.age_unknown
    for issue in left:
        since, age_unknown = _earliest(since, _both(issue)), age_unknown or issue.age_unknown
    return replace(born, since_before=since, age_unknown=age_unknown) if left else born


class _Doubts(msgspec.Struct, frozen=True):
    """What a whole poll leaves open."""

    undecided: frozenset[Identity]
    """What it lists without telling whether something is wrong."""
    silent: bool
    """It told of no exploits at all."""


def _is_gone(issue: Issue, started_at: float, settle: float, doubts: _Doubts) -> bool:
    """Whether a whole poll that does not show the open issue may call it fixed."""
    reported_at = issue.event_received_at
    if doubts.silent and (issue.issue_class is IssueClass.EXPLOIT or not issue.polled):
        return False
    if issue.polled:
        known = issue.identity.folded not in doubts.undecided
        return known and started_at > max(issue.last_seen, reported_at or issue.last_seen)
    name = issue.identity.folded.canonical_name
    if any(identity.canonical_name == name for identity in doubts.undecided):
        return False
    return started_at >= (issue.last_seen if reported_at is None else reported_at) + settle


def _distinct(reported: Sequence[ReportedIssue]) -> tuple[ReportedIssue, ...]:
    """Each software of an event once: the first entry stands. Those that name none are distinguished by their title.

    Entries with a location come first: one without may be any of them, and must find the same one each time.
    """
    first: dict[tuple[str | None, ...], ReportedIssue] = {}
    for report in reported:
        software = report.about
        key = (software.canonical_name, software.location if software.canonical_name else report.title)
        first.setdefault(key, report)
    return tuple(sorted(first.values(), key=lambda report: report.about.location is None))
