"""What a deploy gate answers."""

from __future__ import annotations

from enum import StrEnum

import msgspec

from patrolserver_exporter.issues.model import Issue, Waiver


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


class Judgement(msgspec.Struct, frozen=True, kw_only=True):
    """The verdict on a selection of servers, and all that led to it."""

    verdict: Verdict
    servers: tuple[ServerJudgement, ...]
    counts: Counts
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
