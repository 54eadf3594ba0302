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
    title: str | None = None
    """Only for an issue of the server itself, which has no software to be distinguished by."""

    @property
    def folded(self) -> Identity:
        """The same however it is spelt: in other capitals, or with ``/`` or nothing as the system's own place."""
        location = None if self.location in {"", "/"} else self.location
        return self._replace(canonical_name=self.canonical_name.casefold(), location=location)

    @property
    def order(self) -> tuple[str, str, bool, bool, str]:
        """Sort key: by name, then location (unknown first), then class (version first), then title."""
        return (
            self.canonical_name,
            self.location or "",
            self.location is not None,
            self.issue_class is not IssueClass.VERSION,
            self.title or "",
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
    WORSENED = "worsened"
    """It has a higher severity, or one more exploit at or above ``issues.exploit_risk``."""
    EASED = "eased"
    """It has a lower severity."""
    WAIVED = "waived"
    UNWAIVED = "unwaived"


class IssueExploit(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A known exploit at or above ``issues.exploit_risk`` that an issue stands for."""

    id: str | None = None
    """The vendor's identifier."""
    cve: str | None = None
    title: str | None = None
    risk: float | None = None
    """0 to 10; ``None``: nobody knows, so it may be the worst."""
    first_seen: float = 0.0
    """Seconds since the epoch."""
    waived_until: dt.date | None = None
    waived_reason: str | None = None
    """Set while a waiver covers it."""

    @property
    def name(self) -> str | None:
        """What people know it by, if it has a name: its CVE, else the vendor's identifier, else its title."""
        return self.cve or self.id or self.title

    @property
    def waived(self) -> bool:
        """A waiver covers it."""
        return self.waived_until is not None


SHORT_BREAK = 24 * 3600.0
"""Seconds for which an issue has to stay fixed, or less severe, so that a grace begins anew when it comes back."""


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
    """Where waivers cover some of its exploits, that of the others."""
    software: str
    """Display name; empty for an issue of the server itself."""
    version: str | None = None
    update_to: str | None = None
    parent: str | None = None
    risk: float | None = None
    """Highest known risk of its exploits, 0 to 10, of those that count; only for exploitable ones."""
    exploits: tuple[IssueExploit, ...] = ()
    """What an exploitable one stands for, worst first. Empty if an earlier version stored it and no poll told since."""
    title: str | None = None
    description: str | None = None
    first_seen: float
    severity_since: float = 0.0
    """When it got today's severity, waivers left aside. Not given: with ``first_seen``."""
    at_least_since: tuple[float | None, ...] = ()
    """Since when it has been so severe or worse, in the order of ``SEVERITIES``. Not given: since ``first_seen``."""
    since_before: tuple[float | None, ...] = ()
    """``at_least_since`` of before: it was fixed or less severe for less than `SHORT_BREAK`, or its software moved."""
    last_seen: float
    fixed_at: float | None = None
    event_received_at: float | None = None
    """When an event last reported it."""
    polled: bool
    """A poll has shown it. Until then only an event reported it, and ``settle`` protects it from polls."""
    age_unknown: bool = False
    """Before a poll showed it, polls listed the software without telling whether something is wrong with it."""
    waived_until: dt.date | None = None
    waived_reason: str | None = None
    """Set while waivers cover it, with all its exploits; that of the one which ends first."""

    def __post_init__(self) -> None:
        """Fill in what is not given, as in the state of an earlier version."""
        if not self.severity_since:
            msgspec.structs.force_setattr(self, "severity_since", self.first_seen)
        if not self.at_least_since:
            rank = SEVERITIES.index(self.severity)
            since = tuple(self.first_seen if place >= rank else None for place in range(len(SEVERITIES)))
            msgspec.structs.force_setattr(self, "at_least_since", since)

    @property
    def identity(self) -> Identity:
        """Its identity within the account and the server."""
        title = None if self.canonical_name else self.title
        return Identity(self.canonical_name, self.location, self.issue_class, title)

    def since(self, severity: Severity) -> float | None:
        """Since when it has been so severe or worse without a break, waivers left aside; ``None``: it is less."""
        return self.at_least_since[SEVERITIES.index(severity)]

    def counts_since(self, severity: Severity | None) -> float:
        """Since when it has been so severe or worse (``None``: open at all), short breaks left out.

        A fix that held for less than a day, or for one poll, may have been none: a reply that lacks a software does it.
        """
        if severity is None:
            known = (self.first_seen, *self.since_before[-1:])
        else:
            place = SEVERITIES.index(severity)
            since = self.at_least_since[place]
            known = (self.severity_since if since is None else since, *self.since_before[place : place + 1])
        return min(at for at in known if at is not None)

    @property
    def is_open(self) -> bool:
        """Not fixed; a waived one is open too, but counted apart."""
        return self.fixed_at is None

    @property
    def waived(self) -> bool:
        """A waiver covers it."""
        return self.waived_until is not None


def not_after(issue: Issue, now: float, back: float = 0.0) -> Issue:
    """The issue as if nothing of it had happened later than ``now``: the clock was set back.

    By ``back`` seconds, below 0, where that is known: what is old stays as old as it is.
    """

    def past(at: float | None) -> float | None:
        return None if at is None else min(at + back, now)

    return msgspec.structs.replace(
        issue,
        first_seen=min(issue.first_seen + back, now),
        severity_since=min(issue.severity_since + back, now),
        at_least_since=tuple(map(past, issue.at_least_since)),
        since_before=tuple(map(past, issue.since_before)),
        exploits=tuple(
            msgspec.structs.replace(exploit, first_seen=min(exploit.first_seen + back, now))
            for exploit in issue.exploits
        ),
        last_seen=min(issue.last_seen + back, now),
        event_received_at=past(issue.event_received_at),
        fixed_at=past(issue.fixed_at),
    )


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
    if identity.title is not None:
        parts.append(identity.title)
    return hashlib.blake2b(msgspec.json.encode(parts), digest_size=_BYTES).hexdigest()
