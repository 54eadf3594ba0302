"""Issues as a server's page shows them: what is open with advice, and what happened."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from patrolserver_exporter.issues.model import Kind
from patrolserver_exporter.web.pages.ages import moment, span
from patrolserver_exporter.web.pages.words import place

if TYPE_CHECKING:
    from collections.abc import Iterable

    from patrolserver_exporter.issues.model import Issue
    from patrolserver_exporter.web.pages.ages import Moment

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
