"""From the nouns of the issues and the store to what the API shows."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING

from patrolserver_exporter.issues.classify import state_of
from patrolserver_exporter.web.api import cursors, types

if TYPE_CHECKING:
    from patrolserver_exporter.inbox.delivery import Delivery
    from patrolserver_exporter.issues.model import Issue, IssueExploit
    from patrolserver_exporter.patrolserver.models import Software
    from patrolserver_exporter.store.fleet import ServerRecord
    from patrolserver_exporter.store.history import StoredChange


def time_of(at: float) -> dt.datetime:
    """Seconds since the epoch as a time in UTC."""
    return dt.datetime.fromtimestamp(at, dt.UTC)


def maybe_time(at: float | None) -> dt.datetime | None:
    """The same, or nothing."""
    return None if at is None else time_of(at)


def server(record: ServerRecord, *, now: float, in_doubt: bool) -> types.Server:
    """A server; ``in_doubt`` when a delivery of its account waits to be looked at."""
    summary, state = record.summary, record.state
    return types.Server(
        account=record.account,
        id=record.server_id,
        name=record.name,
        verified=state.verified,
        issues=_issue_counts(summary.open_issues, summary.waived_issues),
        software=None if summary.software is None else types.SoftwareCounts(**_by_state(summary.software)),
        exploits=summary.exploits,
        exploits_unknown_risk=summary.exploits_unknown_risk,
        exploit_risk_max=summary.exploit_risk_max,
        scanning=state.scanning,
        last_scan_at=maybe_time(state.last_scan_at),
        last_poll_at=maybe_time(state.last_poll_at),
        poll_success=state.poll_success,
        poll_complete=state.poll_complete,
        data_age_seconds=None if state.last_poll_at is None else now - state.last_poll_at,
        unconfirmed_event=in_doubt or state.event_received_at is not None,
    )


def _issue_counts(counts: tuple[int, int, int, int] | None, waived: int) -> types.IssueCounts | None:
    if counts is None:
        return None
    critical, high, medium, low = counts
    return types.IssueCounts(critical=critical, high=high, medium=medium, low=low, total=sum(counts), waived=waived)


def _by_state(counts: tuple[int, int, int, int]) -> dict[str, int]:
    return dict(zip(types.SoftwareCounts.__struct_fields__, counts, strict=True))


def issue(found: Issue, server_name: str) -> types.Issue:
    """An issue of the server of that name."""
    return types.Issue(
        fingerprint=found.fingerprint,
        account=found.account,
        server_id=found.server_id,
        server=server_name,
        issue_class=found.issue_class,
        kind=found.kind,
        severity=found.severity,
        software=found.software,
        canonical_name=found.canonical_name,
        version=found.version,
        update_to=found.update_to,
        location=found.location,
        parent=found.parent,
        risk=found.risk,
        exploits=tuple(_exploit_of_issue(exploit) for exploit in found.exploits),
        title=found.title,
        description=found.description,
        first_seen=time_of(found.first_seen),
        severity_since=time_of(found.severity_since),
        last_seen=time_of(found.last_seen),
        fixed_at=maybe_time(found.fixed_at),
        confirmed=found.polled,
        waived=found.waived,
        waiver=_waiver(found),
    )


def _exploit_of_issue(exploit: IssueExploit) -> types.IssueExploit:
    return types.IssueExploit(
        id=exploit.id,
        cve=exploit.cve,
        title=exploit.title,
        risk=exploit.risk,
        first_seen=time_of(exploit.first_seen),
        waived=exploit.waived,
        waiver=_waiver(exploit),
    )


def _waiver(waived: Issue | IssueExploit) -> types.WaiverOnIssue | None:
    if waived.waived_until is None:
        return None
    return types.WaiverOnIssue(until=waived.waived_until, reason=waived.waived_reason or "")


def software(installed: Software) -> types.Software:
    """An installed software."""
    exploits = None
    if installed.exploits is not None:
        exploits = tuple(
            types.Exploit(id=exploit.id, cve=exploit.cve, title=exploit.title, url=exploit.url, risk=exploit.risk)
            for exploit in installed.exploits
        )
    return types.Software(
        id=installed.id,
        name=installed.name,
        canonical_name=installed.canonical_name,
        version=installed.version,
        candidates=installed.candidates,
        state=state_of(installed),
        update_to=installed.newest_bugfix_release or None,
        parent=installed.parent,
        location=installed.location,
        exploits=exploits,
    )


def change(stored: StoredChange) -> types.Change:
    """An entry of the change feed."""
    return types.Change(
        id=cursors.write(cursors.ChangesCursor(stored.id)),
        change=stored.kind,
        at=time_of(stored.at),
        issue=issue(stored.issue, stored.server),
    )


def inbox_item(delivery: Delivery) -> types.InboxItem:
    """A delivery."""
    return types.InboxItem(
        id=delivery.id,
        account=delivery.account,
        webhook_id=delivery.webhook_id,
        event_id=delivery.event_id,
        identifier=delivery.identifier,
        state=delivery.state,
        attempts=delivery.attempts,
        received_at=time_of(delivery.received_at),
        updated_at=time_of(delivery.updated_at),
        next_attempt_at=maybe_time(delivery.next_attempt_at),
        last_error=delivery.last_error,
    )
