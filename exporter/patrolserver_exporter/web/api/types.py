"""What the JSON API takes and gives. The OpenAPI document is made from these types.

Times are RFC 3339 in UTC; ids are numbers up to 2⁵³−1; ages are seconds.
"""

from __future__ import annotations

import datetime as dt
from enum import StrEnum
from typing import Annotated

import msgspec

from patrolserver_exporter.inbox.delivery import DeliveryState
from patrolserver_exporter.issues.model import ChangeKind, IssueClass, Kind, Severity, State
from patrolserver_exporter.patrolserver.models import MAX_ID

Id = Annotated[int, msgspec.Meta(ge=1, le=MAX_ID)]
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


class StoreReport(msgspec.Struct, frozen=True, kw_only=True):
    """How the store stands."""

    writable: bool
    trouble: str | None
    """Why nothing can be written; null when it can."""


class Status(msgspec.Struct, frozen=True, kw_only=True):
    """The exporter itself."""

    version: str
    accounts: tuple[AccountReport, ...]
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
