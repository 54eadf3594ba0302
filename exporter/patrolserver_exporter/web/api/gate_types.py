"""What the gate takes and gives over HTTP."""

from __future__ import annotations

import datetime as dt
from typing import Annotated

import msgspec

from patrolserver_exporter.gate.policy import KindLimits, SeverityLimits
from patrolserver_exporter.gate.verdict import KindCounts, ReasonCode, Verdict
from patrolserver_exporter.issues.model import Kind
from patrolserver_exporter.web.api.types import Id, Issue

_Count = Annotated[int, msgspec.Meta(ge=0)]
LONGEST_AGE = 100 * 365 * 86_400.0
MAX_SELECTED = 10_000
MAX_WAIVERS = 500
MAX_TEXT = 1024
_Line = Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_TEXT, extra_json_schema={"format": "line"})]
"""One line of printable text without blanks around it."""


class Waiver(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """An accepted issue, as in the configuration."""

    server: _Line
    """Glob on the server's name."""
    software: _Line
    """Glob on the software's canonical name."""
    kind: Kind | None = None
    until: dt.date
    """Last day, in UTC, on which it holds."""
    reason: _Line


Age = (
    Annotated[float, msgspec.Meta(ge=0, le=LONGEST_AGE)]
    | Annotated[str, msgspec.Meta(extra_json_schema={"format": "go-duration", "examples": ["24h", "1h30m"]})]
)


class Policy(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the gate asks for; limits count over all servers that are judged."""

    max_by_severity: SeverityLimits = SeverityLimits()
    """At most so many of that severity and worse."""
    max_by_kind: KindLimits = KindLimits()
    max_total: _Count | None = None
    max_risk: Annotated[float, msgspec.Meta(ge=0, le=10)] | None = None
    """No exploit above it."""
    max_age: Age = 86_400.0
    """Of the last successful poll: seconds, or a duration such as 24h."""
    max_scan_age: Age | None = None
    max_unknown_software: _Count = 0
    """Per server: software of unknown state, or with unknown exploits, up to which the data counts as known."""
    baseline: tuple[Annotated[str, msgspec.Meta(max_length=MAX_TEXT)], ...] = ()
    """Fingerprints of issues that do not count."""
    waivers: Annotated[tuple[Waiver, ...], msgspec.Meta(max_length=MAX_WAIVERS)] = ()


Selector = Id | Annotated[str, msgspec.Meta(max_length=MAX_TEXT)]


class GateBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The question to the gate."""

    servers: Annotated[tuple[Selector, ...], msgspec.Meta(max_length=MAX_SELECTED)]
    """Ids, names or globs on names, at most 100 of them globs; none at all is judged unknown."""
    account: str | None = None
    policy: Policy = Policy()


class Reason(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that led to the verdict, or is worth knowing."""

    code: ReasonCode
    message: str
    blocking: bool
    """It alone keeps the verdict from being pass."""
    account: str | None
    server_id: int | None
    server: str | None


class GateCounts(msgspec.Struct, frozen=True, kw_only=True):
    """Open issues that count, by severity and kind, and those that do not."""

    critical: _Count
    high: _Count
    medium: _Count
    low: _Count
    total: _Count
    waived: _Count
    baseline: _Count
    by_kind: KindCounts


class JudgedServer(msgspec.Struct, frozen=True, kw_only=True):
    """One server's part. One that is not known has no id, and as its name what was asked for."""

    account: str | None
    id: int | None
    name: str
    verdict: Verdict
    data_age_seconds: float | None
    scan_age_seconds: float | None
    counts: GateCounts
    reasons: tuple[Reason, ...]


class Violation(msgspec.Struct, frozen=True, kw_only=True):
    """A limit that is exceeded, and the issues that it counts."""

    limit: str
    allowed: _Count
    found: _Count
    issues: tuple[Issue, ...]


class GateReply(msgspec.Struct, frozen=True, kw_only=True):
    """The verdict; only pass lets a deploy go on."""

    verdict: Verdict
    passed: bool
    judged_at: dt.datetime
    reasons: tuple[Reason, ...]
    counts: GateCounts
    servers: tuple[JudgedServer, ...]
    violations: tuple[Violation, ...]
    waived: tuple[Issue, ...]
    expired_waivers: tuple[Waiver, ...]
    unused_waivers: tuple[Waiver, ...]
    data_age_seconds: float | None
    """Of the oldest data among the servers; null when there is none."""
