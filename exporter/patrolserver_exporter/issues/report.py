"""One entry of an event's ``new_issues``, seen from the issues that are there already."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec.structs import replace

from patrolserver_exporter.issues.classify import severity_of
from patrolserver_exporter.issues.fingerprint import fingerprint
from patrolserver_exporter.issues.model import Identity, Issue, IssueClass, Kind

if TYPE_CHECKING:
    from collections.abc import Container, Iterable

    from patrolserver_exporter.patrolserver.models import ReportedIssue, ReportedSoftware


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
    software = report.software
    identity = Identity(software.canonical_name, software.location, IssueClass.VERSION)
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


def reopen_reported(issue: Issue, report: ReportedIssue, received_at: float) -> Issue:
    """A fixed issue that an event brings back, under its old fingerprint.

    What exactly is wrong is for the next poll to say, so it is of the class that reported issues have.
    """
    software = report.software
    return replace(
        issue,
        issue_class=IssueClass.VERSION,
        kind=Kind.REPORTED,
        severity=severity_of(Kind.REPORTED),
        software=software.name,
        version=software.shown_version,
        update_to=None,
        risk=None,
        title=report.title or issue.title,
        description=report.description or issue.description,
        first_seen=received_at,
        last_seen=received_at,
        fixed_at=None,
        event_received_at=received_at,
        polled=False,
    )


def tell(issue: Issue, report: ReportedIssue, received_at: float) -> Issue:
    """The open ``issue`` with what the report adds; a report older than the last one only fills gaps."""
    if issue.event_received_at is not None and received_at < issue.event_received_at:
        return replace(issue, title=issue.title or report.title, description=issue.description or report.description)
    return replace(
        issue,
        version=issue.version if issue.polled else report.software.shown_version or issue.version,
        title=report.title or issue.title,
        description=report.description or issue.description,
        last_seen=max(issue.last_seen, received_at),
        event_received_at=received_at,
    )


def _may_lie_at(issue: Issue, location: str | None) -> bool:
    return location is None or issue.location is None or issue.location == location
