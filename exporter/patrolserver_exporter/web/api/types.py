"""What the JSON API takes and gives, and how it is made of the nouns of the issues and the store.

The OpenAPI document is made from these types. Times are RFC 3339 in UTC; ids are numbers up to 2⁵³−1; ages are seconds.
"""

from __future__ import annotations

import datetime as dt
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import msgspec

from patrolserver_exporter.inbox.deliveries import DeliveryState
from patrolserver_exporter.issues.classify import state_of
from patrolserver_exporter.issues.model import ChangeKind, IssueClass, Kind, Severity, State
from patrolserver_exporter.patrolserver.models import MAX_ID
from patrolserver_exporter.web.api import cursors
from patrolserver_exporter.web.standing import Doubt, doubts_of

if TYPE_CHECKING:
    from patrolserver_exporter.inbox.deliveries import Delivery
    from patrolserver_exporter.issues import model
    from patrolserver_exporter.patrolserver import models
    from patrolserver_exporter.store.fleet import ServerRecord
    from patrolserver_exporter.store.history import StoredChange


Id = Annotated[int, msgspec.Meta(ge=1, le=MAX_ID)]
Asked = Id | Annotated[str, msgspec.Meta(max_length=1024)]
"""A server as a body names it: an id, a name or a glob on names."""
_Count = Annotated[int, msgspec.Meta(ge=0)]
_Time = dt.datetime


class IssueCounts(msgspec.Struct, frozen=True, kw_only=True):
    """Open issues that are not waived, by severity, and the waived ones."""

    critical: _Count
    high: _Count
    medium: _Count
    low: _Count
    total: _Count
    waived: _Count


class SoftwareCounts(msgspec.Struct, frozen=True, kw_only=True):
    """Installed software by state."""

    supported: _Count
    outdated: _Count
    unsupported: _Count
    unknown: _Count


class Server(msgspec.Struct, frozen=True, kw_only=True):
    """A watched server."""

    account: str
    id: Id
    name: str
    verified: bool | None
    issues: IssueCounts | None
    """Null until a poll or an event told something."""
    software: SoftwareCounts | None
    """Null until the first successful poll."""
    exploits: _Count | None
    """Null while the exploits of no software are known."""
    exploits_unknown_risk: _Count
    """Those of them whose risk nobody knows: they may be the worst."""
    exploit_risk_max: float | None
    """The highest known risk; null when none is known."""
    scanning: bool
    last_scan_at: _Time | None
    last_poll_at: _Time | None
    """Start of the last successful poll."""
    poll_success: bool
    poll_complete: bool
    """The last successful poll was whole and not empty."""
    data_age_seconds: float | None
    unconfirmed_event: bool
    labels: dict[str, str]
    """Those that accounts[].labels gives it."""
    unknown_because: tuple[Doubt, ...]
    """Why nobody can vouch for its numbers; empty when they hold."""


class WaiverOnIssue(msgspec.Struct, frozen=True, kw_only=True):
    """The waiver that covers an issue, or one of its exploits."""

    until: dt.date
    reason: str


class IssueExploit(msgspec.Struct, frozen=True, kw_only=True):
    """A known exploit at or above issues.exploit_risk that an issue stands for."""

    id: str | None
    """The vendor's identifier."""
    cve: str | None
    title: str | None
    risk: float | None
    """Null: nobody knows it, so it may be the worst."""
    first_seen: _Time
    waived: bool
    waiver: WaiverOnIssue | None


class Issue(msgspec.Struct, frozen=True, kw_only=True):
    """An issue of a server, open or fixed."""

    fingerprint: str
    account: str
    server_id: Id
    server: str
    issue_class: IssueClass = msgspec.field(name="class")
    kind: Kind
    severity: Severity
    """Where waivers cover some of its exploits, that of the others."""
    software: str
    """Empty for an issue of the server itself, like the next."""
    canonical_name: str
    version: str | None
    update_to: str | None
    location: str | None
    parent: str | None
    risk: float | None
    """The highest known risk of the exploits that count."""
    exploits: tuple[IssueExploit, ...]
    """Worst first."""
    title: str | None
    description: str | None
    first_seen: _Time
    severity_since: _Time
    """When it got today's severity, waivers left aside."""
    last_seen: _Time
    fixed_at: _Time | None
    confirmed: bool
    """A poll has shown it; until then only an event told of it."""
    waived: bool
    waiver: WaiverOnIssue | None


class Exploit(msgspec.Struct, frozen=True, kw_only=True):
    """A known exploit."""

    id: str | None
    """The vendor's identifier."""
    cve: str | None
    title: str | None
    url: str | None
    risk: float | None
    """Null: nobody knows it, so it may be the worst."""


class Software(msgspec.Struct, frozen=True, kw_only=True):
    """An installed software, as the last successful poll showed it."""

    id: int | None
    name: str
    canonical_name: str
    version: str | None
    candidates: tuple[str, ...]
    state: State
    update_to: str | None
    parent: str | None
    location: str | None
    exploits: tuple[Exploit, ...] | None
    """Null when the API's reply did not carry them."""


Cursor = Annotated[str, msgspec.Meta(extra_json_schema={"format": "cursor"})]


class ServerPage(msgspec.Struct, frozen=True, kw_only=True):
    """Servers by account and id."""

    items: tuple[Server, ...]
    next_cursor: Cursor | None
    """Null on the last page."""


class IssuePage(msgspec.Struct, frozen=True, kw_only=True):
    """Issues in the order in which they became known."""

    items: tuple[Issue, ...]
    next_cursor: Cursor | None


class SoftwarePage(msgspec.Struct, frozen=True, kw_only=True):
    """Software by name and location."""

    items: tuple[Software, ...]
    next_cursor: Cursor | None


class Coverage(msgspec.Struct, frozen=True, kw_only=True):
    """How much of the fleet a list over it can speak for: on the other servers there may be anything."""

    servers: _Count
    """Those that account, server and label choose."""
    unknown: _Count
    """Those of them that nobody can vouch for."""
    never_polled: _Count
    """Those of them that no poll has looked at yet."""


class FleetSoftware(msgspec.Struct, frozen=True, kw_only=True):
    """A version of a software that is not fine, and how many servers have it."""

    software: str
    canonical_name: str
    version: str | None
    kinds: tuple[Kind, ...]
    """Empty: its state is not known anywhere."""
    severity: Severity | None
    """The worst of its issues that are not waived."""
    risk: float | None
    """The highest known risk of the exploits that count."""
    risk_unknown: bool
    """The risk of one of them is not known: it may be the worst."""
    exploits: tuple[str, ...]
    """CVE, else id, else title of each that counts."""
    update_to: tuple[str, ...]
    """Several where servers were told different releases."""
    servers: _Count
    """On which it is not fine, or nobody knows whether it is; those where it is waived are left out."""
    servers_waived: _Count
    """On which waivers cover all of it."""
    servers_state_unknown: _Count
    """Those of `servers` where PatrolServer did not tell the version, or whether it is supported."""
    servers_doubtful: _Count
    """Those of `servers` whose data nobody can vouch for now."""


class FleetSoftwarePage(msgspec.Struct, frozen=True, kw_only=True):
    """Software over the fleet, by canonical name and version."""

    items: tuple[FleetSoftware, ...]
    next_cursor: Cursor | None
    coverage: Coverage


class ServerWithExploit(msgspec.Struct, frozen=True, kw_only=True):
    """A server that has an exploit."""

    account: str
    id: Id
    name: str
    waived: bool
    doubtful: bool
    """Nobody can vouch for its data now."""


class FleetExploit(msgspec.Struct, frozen=True, kw_only=True):
    """A known exploit at or above issues.exploit_risk, and the servers that have it."""

    id: str | None
    """The vendor's identifier."""
    cve: str | None
    title: str | None
    url: str | None
    """Where its CVE is told of."""
    risk: float | None
    """The highest that was told; null: nobody knows it, so it may be the worst."""
    risk_unknown: bool
    """Somewhere its risk was not told."""
    severity: Severity | None
    """Null where it is waived everywhere."""
    software: tuple[str, ...]
    """Canonical names."""
    servers: _Count
    """On which it is not waived."""
    servers_waived: _Count
    servers_doubtful: _Count
    """Those of `servers` whose data nobody can vouch for now."""
    on: tuple[ServerWithExploit, ...]
    """By account and id; with `servers` above 1000 not all, and /servers?exploit= has them."""


class FleetExploitPage(msgspec.Struct, frozen=True, kw_only=True):
    """Exploits over the fleet, by CVE, id or title."""

    items: tuple[FleetExploit, ...]
    next_cursor: Cursor | None
    coverage: Coverage


class ConfiguredWaiver(msgspec.Struct, frozen=True, kw_only=True):
    """A waiver of `issues.waivers`, and what it covers."""

    server: str
    software: str
    exploit: str | None
    kind: Kind | None
    max_severity: Severity | None
    until: dt.date
    reason: str
    expired: bool
    """Its last day is over, so that it covers nothing any more."""
    issues: _Count
    """Open issues that it covers wholly or in part, or would cover if it had not expired."""
    servers: _Count
    """On which these are."""


class WaiverList(msgspec.Struct, frozen=True, kw_only=True):
    """The waivers of the configuration, in its order."""

    items: tuple[ConfiguredWaiver, ...]
    coverage: Coverage


class Target(msgspec.Struct, frozen=True, kw_only=True):
    """A server as a target of Prometheus (http_sd)."""

    targets: tuple[str, ...]
    """The server's name."""
    labels: dict[str, str]


class OperationState(StrEnum):
    """Where a refresh stands."""

    PENDING = "pending"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"


class Operation(msgspec.Struct, frozen=True, kw_only=True):
    """A refresh that was asked for."""

    id: str
    state: OperationState
    account: str
    server_id: Id
    created_at: _Time
    finished_at: _Time | None = None
    error: str | None = None


class OperationReply(msgspec.Struct, frozen=True, kw_only=True):
    """An operation."""

    operation: Operation


class RefreshedServer(msgspec.Struct, frozen=True, kw_only=True):
    """How the poll of one of the servers stands."""

    account: str
    server_id: Id
    server: str
    state: OperationState
    error: str | None = None


class FleetRefresh(msgspec.Struct, frozen=True, kw_only=True):
    """A refresh of many servers. It is over once each of them is; failed when one of them is."""

    id: str
    state: OperationState
    created_at: _Time
    finished_at: _Time | None = None
    servers: tuple[RefreshedServer, ...]


class FleetRefreshReply(msgspec.Struct, frozen=True, kw_only=True):
    """A refresh of many servers."""

    refresh: FleetRefresh


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """What happened to an issue, and the issue after it."""

    id: Cursor
    change: ChangeKind
    at: _Time
    issue: Issue


class ChangePage(msgspec.Struct, frozen=True, kw_only=True):
    """Changes in order. Go on with ``after`` = ``next_cursor``."""

    items: tuple[Change, ...]
    next_cursor: Cursor


class InboxItem(msgspec.Struct, frozen=True, kw_only=True):
    """A webhook delivery."""

    id: Id
    account: str
    webhook_id: Id
    event_id: Id
    identifier: str
    state: DeliveryState
    attempts: _Count
    received_at: _Time
    updated_at: _Time
    next_attempt_at: _Time | None
    last_error: str | None


class InboxItemWithBody(InboxItem, frozen=True, kw_only=True):
    """A webhook delivery with the reply that could not be understood."""

    body: str | None
    """As text, secrets masked; null when none was kept."""


class InboxPage(msgspec.Struct, frozen=True, kw_only=True):
    """Deliveries by id."""

    items: tuple[InboxItem, ...]
    next_cursor: Cursor | None


class AccountReport(msgspec.Struct, frozen=True, kw_only=True):
    """How an account stands."""

    name: str
    up: bool | None
    """The last call for the server list succeeded; null before the first."""
    last_success_at: _Time | None
    servers: _Count
    poll_interval_seconds: float
    """In force; longer than configured when the budget needs it."""
    trouble: str | None
    credentials_refused: bool
    webhook: bool
    """Deliveries can reach it."""
    list_complete: bool | None
    """The last successful server list was whole; null before the first."""
    list_partial_because: tuple[str, ...]
    """What says that it was not."""
    servers_missing: _Count
    """Servers that the last list lacked, which another one has to confirm."""
    paused_until: _Time | None
    """The API asked the whole account to wait until then; null without a pause."""
    pause_reason: str | None
    proxy: str | None
    """What its calls go through and where that is named, free of credentials; null without a proxy."""


class StoreReport(msgspec.Struct, frozen=True, kw_only=True):
    """How the store stands."""

    writable: bool
    trouble: str | None
    """Why nothing can be written; null when it can."""


class ReplicaReport(msgspec.Struct, frozen=True, kw_only=True):
    """An exporter that works on the store."""

    name: str | None
    """`store.replica_name`; null without one."""
    host: str
    pid: int
    version: str
    this: bool
    """It is the one that answers."""
    accounts: tuple[str, ...]
    """Those that it polls."""
    config_differs: bool
    """Its configuration is another one than that of the one that answers."""


class Status(msgspec.Struct, frozen=True, kw_only=True):
    """The exporter itself."""

    version: str
    accounts: tuple[AccountReport, ...]
    replicas: tuple[ReplicaReport, ...]
    """The exporters that share the store, the one that answers first."""
    inbox: dict[str, int]
    """Deliveries by state."""
    store: StoreReport
    troubles: tuple[str, ...]
    """What is wrong, as ``/-/ready`` tells it."""


class Problem(msgspec.Struct, frozen=True, kw_only=True):
    """An error (RFC 9457). Further members name what is wrong."""

    type: str
    title: str
    status: int
    detail: str | None = None


def time_of(at: float) -> dt.datetime:
    """Seconds since the epoch as a time in UTC."""
    return dt.datetime.fromtimestamp(at, dt.UTC)


def maybe_time(at: float | None) -> dt.datetime | None:
    """The same, or nothing."""
    return None if at is None else time_of(at)


def server_of(record: ServerRecord, *, now: float, in_doubt: bool, labels: dict[str, str], reachable: bool) -> Server:
    """A server; ``in_doubt`` when a delivery of its account waits to be looked at.

    ``reachable``: the account's server list can be read.
    """
    summary, state = record.summary, record.state
    return Server(
        account=record.account,
        id=record.server_id,
        name=record.name,
        verified=state.verified,
        issues=_issue_counts(summary.open_issues, summary.waived_issues),
        software=None if summary.software is None else SoftwareCounts(**_by_state(summary.software)),
        exploits=summary.exploits,
        exploits_unknown_risk=summary.exploits_unknown_risk,
        exploit_risk_max=summary.exploit_risk_max,
        scanning=state.scanning,
        last_scan_at=maybe_time(state.last_scan_at),
        last_poll_at=maybe_time(state.last_poll_at),
        poll_success=state.poll_success,
        poll_complete=state.poll_complete,
        data_age_seconds=None if state.last_poll_at is None else now - state.last_poll_at,
        unconfirmed_event=in_doubt or state.unconfirmed_event,
        labels=labels,
        unknown_because=doubts_of(summary, now, reachable=reachable, waits=in_doubt),
    )


def _issue_counts(counts: tuple[int, int, int, int] | None, waived: int) -> IssueCounts | None:
    if counts is None:
        return None
    critical, high, medium, low = counts
    return IssueCounts(critical=critical, high=high, medium=medium, low=low, total=sum(counts), waived=waived)


def _by_state(counts: tuple[int, int, int, int]) -> dict[str, int]:
    return dict(zip(SoftwareCounts.__struct_fields__, counts, strict=True))


def issue_of(found: model.Issue, server_name: str) -> Issue:
    """An issue of the server of that name."""
    return Issue(
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


def _exploit_of_issue(exploit: model.IssueExploit) -> IssueExploit:
    return IssueExploit(
        id=exploit.id,
        cve=exploit.cve,
        title=exploit.title,
        risk=exploit.risk,
        first_seen=time_of(exploit.first_seen),
        waived=exploit.waived,
        waiver=_waiver(exploit),
    )


def _waiver(waived: model.Issue | model.IssueExploit) -> WaiverOnIssue | None:
    if waived.waived_until is None:
        return None
    return WaiverOnIssue(until=waived.waived_until, reason=waived.waived_reason or "")


def software_of(installed: models.Software) -> Software:
    """An installed software."""
    exploits = None
    if installed.exploits is not None:
        exploits = tuple(
            Exploit(id=exploit.id, cve=exploit.cve, title=exploit.title, url=exploit.url, risk=exploit.risk)
            for exploit in installed.exploits
        )
    return Software(
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


def change_of(stored: StoredChange) -> Change:
    """An entry of the change feed."""
    return Change(
        id=cursors.write(cursors.ChangesCursor(stored.id, stored.history)),
        change=stored.kind,
        at=time_of(stored.at),
        issue=issue_of(stored.issue, stored.server),
    )


def inbox_item_of(delivery: Delivery) -> InboxItem:
    """A delivery."""
    return InboxItem(
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
