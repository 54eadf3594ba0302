"""What a deploy gate answers, and what makes it: what each open issue weighs, and how much an answer lists.

Pure. Times are seconds since the epoch.
"""

from __future__ import annotations

from enum import StrEnum
from operator import itemgetter
from typing import TYPE_CHECKING, Generic, TypeVar

import msgspec
from msgspec.structs import replace

from patrolserver_exporter.gate import telling
from patrolserver_exporter.issues.classify import severity_of
from patrolserver_exporter.issues.model import SEVERITIES, Issue, IssueExploit, Kind, Severity, Waiver
from patrolserver_exporter.issues.waive import uncovered

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import Iterable, Sequence

    from patrolserver_exporter.gate.policy import AcceptedExploit, AcceptedIssue, Policy


class Verdict(StrEnum):
    """Only ``PASS`` lets a deploy go on."""

    PASS = "pass"  # noqa: S105  # a verdict, no password
    FAIL = "fail"
    UNKNOWN = "unknown"


class ReasonCode(StrEnum):
    """Why, for machines."""

    LIMIT_EXCEEDED = "limit_exceeded"
    EMPTY_SELECTION = "empty_selection"
    UNKNOWN_SERVER = "unknown_server"
    AMBIGUOUS_SERVER = "ambiguous_server"
    NEVER_LISTED = "never_listed"
    NEVER_POLLED = "never_polled"
    DATA_TOO_OLD = "data_too_old"
    POLL_IN_FUTURE = "poll_in_future"
    POLL_INCOMPLETE = "poll_incomplete"
    SOFTWARE_UNKNOWN = "software_unknown"
    EXPLOITS_UNKNOWN = "exploits_unknown"
    EXPLOIT_UNCOUNTED = "exploit_uncounted"
    EXPLOIT_RISK_UNKNOWN = "exploit_risk_unknown"
    NO_SOFTWARE = "no_software"
    IDENTITY_IN_DOUBT = "identity_in_doubt"
    MISSING_FROM_LIST = "missing_from_list"
    LIST_INCOMPLETE = "list_incomplete"
    EVENT_UNCONFIRMED = "event_unconfirmed"
    CREDENTIALS_REFUSED = "credentials_refused"
    SCAN_NEVER_SEEN = "scan_never_seen"
    SCAN_TOO_OLD = "scan_too_old"
    SCAN_IN_FUTURE = "scan_in_future"
    POLL_FAILED = "poll_failed"
    ACCOUNT_UNREACHABLE = "account_unreachable"
    WAIVER_EXPIRED = "waiver_expired"
    WAIVER_UNUSED = "waiver_unused"


class Reason(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that led to the verdict, or is worth knowing."""

    code: ReasonCode
    message: str
    """A full sentence with the numbers, and what to do."""
    blocking: bool
    """It alone keeps the verdict from being ``PASS``."""
    account: str | None = None
    server_id: int | None = None
    server: str | None = None


class SeverityCounts(msgspec.Struct, frozen=True, kw_only=True):
    """Issues by severity."""

    critical: int = 0
    high: int = 0
    medium: int = 0
    low: int = 0


class KindCounts(msgspec.Struct, frozen=True, kw_only=True):
    """Issues by kind."""

    unsupported: int = 0
    outdated: int = 0
    exploitable: int = 0
    reported: int = 0


class Counts(msgspec.Struct, frozen=True, kw_only=True):
    """Open issues: those that count, and those that do not."""

    total: int = 0
    by_severity: SeverityCounts = SeverityCounts()
    by_kind: KindCounts = KindCounts()
    waived: int = 0
    baseline: int = 0
    """Left out because the baseline has them."""
    unfixable: int = 0
    """Left out because the policy asks for what can be fixed only."""


class ServerJudgement(msgspec.Struct, frozen=True, kw_only=True):
    """One server's part. An unknown one has no id, and as its name what was asked for."""

    account: str | None
    server_id: int | None
    server: str
    verdict: Verdict
    data_age_seconds: float | None = None
    """Age of the last successful poll; negative if its time lies in the future."""
    scan_age_seconds: float | None = None
    counts: Counts | None = None
    """``None`` while nobody knows what there is to count."""
    reasons: tuple[Reason, ...] = ()


class JudgedIssue(msgspec.Struct, frozen=True, kw_only=True):
    """An open issue, and the limits that it helps to exceed."""

    server: str
    issue: Issue
    limits: tuple[str, ...] = ()
    """Names in the policy, as ``max_by_severity.high``."""


class Detail(StrEnum):
    """What an answer lists."""

    PROBLEMS = telling.PROBLEMS
    ALL = telling.ALL


class Omitted(msgspec.Struct, frozen=True, kw_only=True):
    """How many an answer does not list."""

    servers: int = 0
    issues: int = 0
    """Over a limit; each once, even if it breaks several."""
    waived: int = 0
    reasons: int = 0


class Breach(msgspec.Struct, frozen=True, kw_only=True):
    """A limit that is broken."""

    limit: str
    """Its name in the policy, as ``max_by_severity.high``."""
    allowed: int
    found: int
    """Issues that it counts, on all servers, at the worst."""


class Judgement(msgspec.Struct, frozen=True, kw_only=True):
    """The verdict on a selection of servers, and what led to it, as far as it is to be listed."""

    verdict: Verdict
    servers: tuple[ServerJudgement, ...]
    servers_by_verdict: dict[Verdict, int]
    """All that were judged, listed or not."""
    counts: Counts
    """Over all servers."""
    is_any_known: bool
    """Of at least one server it is known what there is to count."""
    data_age_seconds: float | None
    """Of the oldest data among the servers; ``None`` when there is none."""
    breaches: tuple[Breach, ...]
    violations: tuple[JudgedIssue, ...]
    """Issues over a limit, those of servers in doubt too."""
    waived: tuple[JudgedIssue, ...]
    expired_waivers: tuple[Waiver, ...]
    unused_waivers: tuple[Waiver, ...]
    """Of the policy: those that hold and cover no open issue."""
    expiring_waivers: tuple[Waiver, ...] = ()
    """Those that cover an open issue and end soon."""
    reasons: tuple[Reason, ...]
    """Of the selection as a whole, and of every server."""
    omitted: Omitted = Omitted()


_WORST_RISK = 10.0


class Weighed(msgspec.Struct, frozen=True, kw_only=True):
    """One open issue of a server, and what of it counts."""

    issue: Issue
    """As it is, with all its exploits."""
    counts_as: Issue | None = None
    """What counts at the worst: without what is waived or accepted, an exploit of unknown risk taken for the worst."""
    known_as: Issue | None = None
    """What counts for sure: exploits of unknown risk left out."""
    waiver: Waiver | None = None
    """The waiver that covers it wholly."""
    accepted: bool = False
    """The baseline covers it wholly."""
    unfixable: bool = False
    """Left out, because the policy asks for what can be fixed only."""
    has_grace: bool = True
    """How long it has been there is known, so that a grace may hold."""


def weigh(  # noqa: PLR0913  # What decides it, by keyword.
    issue: Issue,
    server_name: str,
    *,
    policy: Policy,
    waivers: Sequence[Waiver],
    accepted: AcceptedIssue | None,
    today: dt.date,
    has_grace: bool,
) -> Weighed:
    """Weigh an open issue; ``waivers`` are all that may hold, ``accepted`` is its entry in the baseline."""
    left, waiver = uncovered(issue, server_name, waivers, today)
    if left is None:
        return Weighed(issue=issue, waiver=waiver)
    left = left if accepted is None else _beyond(left, accepted)
    if left is None:
        return Weighed(issue=issue, accepted=True)
    if policy.fixable_only and issue.kind in {Kind.OUTDATED, Kind.EXPLOITABLE} and not issue.update_to:
        return Weighed(issue=issue, unfixable=True)
    return Weighed(issue=issue, counts_as=_at_worst(left), known_as=_as_known(left), has_grace=has_grace)


def _beyond(issue: Issue, accepted: AcceptedIssue) -> Issue | None:
    """What of an issue is worse than what was accepted; ``None`` if nothing is."""
    if issue.kind is not Kind.EXPLOITABLE or accepted.kind is not Kind.EXPLOITABLE:
        same = issue.kind is accepted.kind and not _is_worse(issue.severity, accepted.severity)
        return None if same else issue
    new = _new_exploits(issue.exploits, accepted.exploits)
    if new:
        return with_exploits(issue, new)
    if issue.exploits:
        return None
    # Written, or stored, before exploits were kept: its risk is all there is to compare.
    known = accepted.risk is None or (issue.risk is not None and issue.risk <= accepted.risk)
    return None if known and not _is_worse(issue.severity, accepted.severity) else issue


def _new_exploits(exploits: Iterable[IssueExploit], accepted: Iterable[AcceptedExploit]) -> tuple[IssueExploit, ...]:
    """Those that were not accepted, or not at their risk; each accepted one stands for one."""
    left = list(accepted)
    new = []
    for exploit in exploits:
        match = next((one for one in left if _is_covered(exploit, one)), None)
        if match is None:
            new.append(exploit)
        else:
            left.remove(match)
    return tuple(new)


def _is_covered(exploit: IssueExploit, accepted: AcceptedExploit) -> bool:
    if exploit.cve and accepted.cve:
        # Under the vendor's identifier another one may stand by now.
        same = exploit.cve == accepted.cve
    elif exploit.cve or exploit.id or accepted.cve or accepted.id:
        same = bool(exploit.id and exploit.id == accepted.id)
    else:
        same = exploit.title == accepted.title
    if exploit.risk is None:
        return same and accepted.risk is None
    return same and accepted.risk is not None and exploit.risk <= accepted.risk


def with_exploits(issue: Issue, exploits: Sequence[IssueExploit]) -> Issue:
    """The issue as if only these exploits stood behind it."""
    risks = [exploit.risk for exploit in exploits]
    known = [risk for risk in risks if risk is not None]
    risk = None if len(known) < len(risks) else max(known, default=None)
    return replace(issue, exploits=tuple(exploits), risk=risk, severity=severity_of(issue.kind, risk))


def _as_known(issue: Issue) -> Issue | None:
    if issue.kind is not Kind.EXPLOITABLE:
        return issue
    known = [exploit for exploit in issue.exploits if exploit.risk is not None]
    if not issue.exploits:
        return None if issue.risk is None else issue
    return with_exploits(issue, known) if known else None


def _at_worst(issue: Issue) -> Issue:
    if issue.kind is not Kind.EXPLOITABLE:
        return issue
    unknown = any(exploit.risk is None for exploit in issue.exploits) if issue.exploits else issue.risk is None
    return replace(issue, risk=_WORST_RISK, severity=Severity.CRITICAL) if unknown else issue


def _is_worse(severity: Severity, than: Severity) -> bool:
    return SEVERITIES.index(severity) < SEVERITIES.index(than)


def is_in_grace(issue: Issue, severity: Severity | None, policy: Policy, now: float) -> bool:
    """Whether the issue does not count yet against a limit on this severity and worse; ``None``: a limit on all.

    It counts once it has had that severity or worse for the grace of its present severity: so one that got worse counts
    meanwhile as what it was.
    """
    grace: float | None = getattr(policy.grace, issue.severity.value)
    if not grace:
        return False
    return 0 <= now - issue.counts_since(severity) < grace


T = TypeVar("T")
_ORDER = itemgetter(0, 1)


class Worst(Generic[T]):
    """What an answer lists of a large fleet, in bounded memory: things with a badness, the least being the worst.

    Equally bad ones stay in the order in which they came. It keeps all of them until `keep` says how many are enough.
    ``count`` counts the others, too.
    """

    def __init__(self) -> None:
        self.count = 0
        self._kept: list[tuple[tuple[object, ...], int, T]] = []

    def add(self, badness: tuple[object, ...], place: int, one: T) -> None:
        """Add one; ``place`` grows from one to the next."""
        self.count += 1
        self._kept.append((badness, place, one))

    def keep(self, most: int) -> None:
        """Forget all but the worst, so that never more than twice as many are kept."""
        if len(self._kept) > 2 * most:
            self._kept.sort(key=_ORDER)
            del self._kept[most:]

    def entries(self) -> list[tuple[tuple[object, ...], int, T]]:
        """What is kept, the worst first, with badness and place."""
        return sorted(self._kept, key=_ORDER)

    def first(self, most: int) -> list[T]:
        """The worst."""
        return [one for _, _, one in self.entries()[:most]]


def merged(*parts: Worst[T]) -> list[T]:
    """What several keep, the worst first."""
    entries = [entry for part in parts for entry in part.entries()]
    return [one for _, _, one in sorted(entries, key=_ORDER)]
