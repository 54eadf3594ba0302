"""What an open issue weighs in a verdict: what is waived or accepted, what is not fixable, and what nobody can rate.

Pure. Times are seconds since the epoch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
from msgspec.structs import replace

from patrolserver_exporter.issues.classify import severity_of
from patrolserver_exporter.issues.model import SEVERITIES, Issue, IssueExploit, Kind, Severity, Waiver
from patrolserver_exporter.issues.waive import uncovered

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import Iterable, Sequence

    from patrolserver_exporter.gate.policy import AcceptedExploit, AcceptedIssue, Policy

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
    if exploit.cve or exploit.id or accepted.cve or accepted.id:
        same = bool(exploit.cve and exploit.cve == accepted.cve) or bool(exploit.id and exploit.id == accepted.id)
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
    since = issue.first_seen if severity is None else _at_least_since(issue, severity)
    return 0 <= now - since < grace


def _at_least_since(issue: Issue, severity: Severity) -> float:
    since = issue.at_least_since[SEVERITIES.index(severity)]
    return issue.severity_since if since is None else since
