"""The nouns of the issues: what one is, how severe, who waived it."""

from __future__ import annotations

import datetime as dt
import hashlib
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import msgspec

if TYPE_CHECKING:
    from collections.abc import Container


class Severity(StrEnum):
    """How bad an issue is, worst first."""

    CRITICAL = "critical"
    HIGH = "high"
    MEDIUM = "medium"
    LOW = "low"


SEVERITIES = tuple(Severity)
"""Worst first; every per-severity tuple is in this order."""


class Kind(StrEnum):
    """What is wrong."""

    UNSUPPORTED = "unsupported"
    OUTDATED = "outdated"
    EXPLOITABLE = "exploitable"
    REPORTED = "reported"


class IssueClass(StrEnum):
    """The part of an issue's identity that survives a change of kind."""

    VERSION = "version"
    EXPLOIT = "exploit"


class Identity(NamedTuple):
    """What makes an issue the same one within its account and server."""

    canonical_name: str
    location: str | None
    issue_class: IssueClass

    @property
    def order(self) -> tuple[str, str, bool, bool]:
        """Sort key: by name, then location (unknown first), then class (version first)."""
        return (
            self.canonical_name,
            self.location or "",
            self.location is not None,
            self.issue_class is not IssueClass.VERSION,
        )


class State(StrEnum):
    """How an installed software stands, in the order of the metric's label."""

    SUPPORTED = "supported"
    OUTDATED = "outdated"
    UNSUPPORTED = "unsupported"
    UNKNOWN = "unknown"


STATES = tuple(State)


class ChangeKind(StrEnum):
    """What the change feed tells of an issue."""

    OPENED = "opened"
    FIXED = "fixed"
    REOPENED = "reopened"
    WAIVED = "waived"
    UNWAIVED = "unwaived"


class IssueExploit(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An exploit that an issue stands for. ``first_seen`` is in seconds since the epoch."""

    id: str | None = None
    cve: str | None = None
    title: str | None = None
    risk: float | None = None
    """0 to 10; ``None`` while nobody knows it."""
    first_seen: float = 0.0


class Issue(msgspec.Struct, frozen=True, kw_only=True):
    """One issue of one server, open or fixed.

    Its identity is (account, server id, ``canonical_name``, location, class). Times are seconds since the epoch.
    """

    account: str
    server_id: int
    canonical_name: str
    location: str | None
    issue_class: IssueClass
    fingerprint: str
    """Short hash of the identity at birth; stays when the kind or the location becomes known better."""
    kind: Kind
    severity: Severity
    software: str
    """Display name."""
    version: str | None = None
    update_to: str | None = None
    parent: str | None = None
    risk: float | None = None
    """Highest risk of its exploits, 0 to 10; only for exploitable ones."""
    exploits: tuple[IssueExploit, ...] = ()
    title: str | None = None
    description: str | None = None
    severity_since: float = 0.0
    """When it got today's severity."""
    at_least_since: tuple[float | None, float | None, float | None, float | None] = (None, None, None, None)
    """Since when it has been of that severity or worse without a break, in the order of ``SEVERITIES``."""
    first_seen: float
    last_seen: float
    fixed_at: float | None = None
    event_received_at: float | None = None
    """When an event last reported it."""
    polled: bool
    """A poll has shown it. Until then only an event reported it, and ``settle`` protects it from polls."""
    waived_until: dt.date | None = None
    waived_reason: str | None = None
    """Set while a waiver covers it."""

    @property
    def identity(self) -> Identity:
        """Its identity within the account and the server."""
        return Identity(self.canonical_name, self.location, self.issue_class)

    @property
    def is_open(self) -> bool:
        """Not fixed; a waived one is open too, but counted apart."""
        return self.fixed_at is None

    @property
    def waived(self) -> bool:
        """A waiver covers it."""
        return self.waived_until is not None


_LINE: dict[str, Any] = {"min_length": 1, "max_length": 1024, "extra_json_schema": {"format": "line"}}
"""One line of printable text without blanks around it."""
Line = Annotated[str, msgspec.Meta(**_LINE)]
Glob = Annotated[str, msgspec.Meta(**_LINE, extra={"kind": "glob"})]


class Waiver(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """An accepted issue, for a reason and up to a date. The configuration takes its keys from here."""

    server: Glob
    """Servers it holds for, by name."""
    software: Glob
    """Software it holds for, by canonical name."""
    exploit: Glob | None = None
    """Only this exploit, by id or CVE. Null: every exploit of the software."""
    kind: Kind | None = None
    """Only issues of this kind: unsupported, outdated, exploitable or reported. Null: every kind."""
    max_severity: Severity | None = None
    """It does not cover an issue that is worse: critical, high, medium or low. Null: any severity."""
    until: dt.date
    """The last day on which it holds, in UTC, as `YYYY-MM-DD`."""
    reason: Line
    """Why; shown with the issue."""


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """One entry of the change feed."""

    kind: ChangeKind
    at: float
    """Seconds since the epoch."""
    issue: Issue
    """As it is after the change."""


_BYTES = 8


def fingerprint(account: str, server_id: int, identity: Identity, taken: Container[str] = ()) -> str:
    """16 hexadecimal digits of a hash over the identity at birth.

    An issue may have moved on from its identity at birth, as a reported one does when a poll tells its location. If
    another is then born there, the fingerprint is in ``taken``, and the next one of the same sequence is given.
    """
    ordinal = 0
    while (candidate := _hash(account, server_id, identity, ordinal)) in taken:
        ordinal += 1
    return candidate


def _hash(account: str, server_id: int, identity: Identity, ordinal: int) -> str:
    parts = [account, server_id, identity.canonical_name, identity.location, identity.issue_class, ordinal]
    return hashlib.blake2b(msgspec.json.encode(parts), digest_size=_BYTES).hexdigest()
