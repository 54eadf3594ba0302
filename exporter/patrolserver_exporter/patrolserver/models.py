"""What PatrolServer knows, in strict form: ids are ints, text is clean and of bounded length.

Only ``wire`` makes these from replies; everything above trusts them. The grades in the docstrings are those of
docs/patrolserver-api.md: D documented, C seen in the vendor's clients, ? unknown.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Generic, TypeVar

import msgspec

T = TypeVar("T")

MAX_ID = 2**53 - 1
"""Largest id that JSON readers everywhere keep exact."""


class Exploit(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A known exploit of an installed software (C); all but ``risk`` may be missing (?)."""

    id: str | None = None
    """The vendor's identifier; a number as text."""
    cve: str | None = None
    """Its CVE as ``CVE-2026-0001``, wherever in the entry exactly one was named."""
    title: str | None = None
    url: str | None = None
    """Where to read more, http or https."""
    risk: float | None = None
    """0 to 10, CVSS-like. ``None``: it was missing or could not be read, so it may be the worst."""

    @property
    def reference(self) -> str | None:
        """What people know it by: its CVE, or else the vendor's identifier."""
        return self.cve or self.id


class Software(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One installed software on one server (C)."""

    name: str
    canonical_name: str
    id: int | None = None
    version: str | None = None
    candidates: tuple[str, ...] = ()
    """``versions``: candidates when the exact version is not known."""
    supported: bool | None = None
    """``None``: the API did not say. Never to be read as unsupported."""
    newest_bugfix_release: str | None = None
    parent: str | None = None
    location: str | None = None
    exploits: tuple[Exploit, ...] | None = None
    """``None``: the reply did not tell of them, or they could not be read, so nobody knows; never "none"."""

    @property
    def shown_version(self) -> str | None:
        """The version as the vendor's scanner words it: exact, or ``<=`` and the first candidate."""
        if self.version is not None:
            return self.version
        return f"<={self.candidates[0]}" if self.candidates else None


class Server(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A watched server (C)."""

    id: int
    name: str
    verified: bool | None = None
    has_other_name: bool = False
    """The same list called it differently, too, so that nobody knows which server it is."""
    trouble: str | None = None
    """The member by which the list says that it could not be looked at (?): what is known of it may be from before."""
    claim: str | None = None
    """The member by which the list says that it has exploits (C: ``exploitable``, as a scope)."""


class ReportedSoftware(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The installed software that an event's issue is about (D)."""

    name: str
    canonical_name: str
    version: str | None = None
    candidates: tuple[str, ...] = ()
    location: str | None = None

    @property
    def shown_version(self) -> str | None:
        """The version as the vendor's scanner words it: exact, or ``<=`` and the first candidate."""
        if self.version is not None:
            return self.version
        return f"<={self.candidates[0]}" if self.candidates else None


class ReportedIssue(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One of an event's ``new_issues`` (D). The prose contradicts the data at times: never parse it."""

    software: ReportedSoftware | None = None
    """``None``: it names no software that could be read, so it is an issue of the server."""
    title: str | None = None
    description: str | None = None

    @property
    def about(self) -> ReportedSoftware:
        """The software it names, or else what stands for the server itself: software without a name."""
        return self.software or ReportedSoftware(name="", canonical_name="")


class Event(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An event's data as the API confirms it (D); a test event may be empty."""

    server_id: int | None = None
    new_issues: tuple[ReportedIssue, ...] = ()
    odd_issues: int = 0
    """Entries of ``new_issues`` that could not be read: counted, never dropped in silence."""


class Identifier(StrEnum):
    """The documented identifiers of webhook deliveries (D); anything else is kept and counted as ``other``."""

    TEST = "webhook.test"
    SCAN_STARTED = "webhook.scan_started"
    SCAN_FINISHED = "webhook.scan_finished"
    NEW_SERVER_ISSUES = "webhook.new_server_issues"


@dataclass(frozen=True, slots=True)
class Parsed(Generic[T]):
    """What was read from a reply, or from all pages of one, and how well."""

    value: T
    oddities: tuple[str, ...] = ()
    """What was strange, in words for the log; at most 21 of them."""
    partial_because: tuple[str, ...] = ()
    """Why there may be more than ``value`` holds: an entry that had to be left out, or what the reply says of itself,
    with the member's name, as in ``servers: meta.total says 14, 2 came``. Empty when it is whole."""
    body: bytes = b""
    """The reply as it came, without credentials, where somebody may have to read it: an event's."""

    @property
    def complete(self) -> bool:
        """Whether it is whole: what is not in it is not there."""
        return not self.partial_because
