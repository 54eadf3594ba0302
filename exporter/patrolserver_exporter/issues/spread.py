"""How far software and exploits are spread over the fleet: on how many servers each of them is."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import msgspec

from patrolserver_exporter.issues.classify import severity_of_risk, state_of
from patrolserver_exporter.issues.model import SEVERITIES, IssueExploit, Kind, Severity, State

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from patrolserver_exporter.patrolserver.models import Software

    Key = tuple[str, int]
    """Account and id of a server."""


class SeenIssue(msgspec.Struct, frozen=True, kw_only=True):
    """The part of an open issue that tells what it is about."""

    account: str
    server_id: int
    canonical_name: str
    software: str
    version: str | None = None
    update_to: str | None = None
    kind: Kind
    severity: Severity
    exploits: tuple[IssueExploit, ...] = ()
    waived_until: str | None = None

    @property
    def key(self) -> Key:
        """Its server."""
        return self.account, self.server_id


class Spread:
    """What is common to both: the servers, and how bad it is at worst."""

    __slots__ = ("risk", "risk_unknown", "servers", "severity", "waived")

    def __init__(self) -> None:
        self.servers: set[Key] = set()
        """Those on which it is open and not waived."""
        self.waived: set[Key] = set()
        """Those on which a waiver covers it, there or in another place on the same server."""
        self.severity: Severity | None = None
        """The worst of what is not waived."""
        self.risk: float | None = None
        """The highest known risk."""
        self.risk_unknown = False
        """Nobody knows the risk of one of its exploits: it may be the worst."""

    def see(self, key: Key, severity: Severity, *, waived: bool) -> None:
        """Count it on one server."""
        if waived:
            self.waived.add(key)
            return
        self.servers.add(key)
        if self.severity is None or SEVERITIES.index(severity) < SEVERITIES.index(self.severity):
            self.severity = severity

    def rate(self, risk: float | None) -> None:
        """Take the risk of an exploit in."""
        self.risk_unknown = self.risk_unknown or risk is None
        if risk is not None and (self.risk is None or risk > self.risk):
            self.risk = risk

    @property
    def only_waived(self) -> set[Key]:
        """Servers on which all of it is waived."""
        return self.waived - self.servers

    @property
    def badness(self) -> tuple[int, float, int]:
        """Sort key, worst first: severity, risk, servers."""
        rank = len(SEVERITIES) if self.severity is None else SEVERITIES.index(self.severity)
        risk = 10.0 if self.risk_unknown else self.risk or 0.0
        return rank, -risk, -len(self.servers)


class SoftwareSpread(Spread):
    """One version of a software that is not fine on some servers."""

    __slots__ = ("canonical_name", "exploits", "kinds", "name", "state_unknown", "updates", "version")

    def __init__(self, canonical_name: str, version: str | None) -> None:
        super().__init__()
        self.canonical_name = canonical_name
        self.version = version
        self.name = canonical_name
        self.kinds: set[Kind] = set()
        self.updates: set[str] = set()
        """Newest bug-fix releases; several where servers were told different ones."""
        self.exploits: dict[str, None] = {}
        """Names of its exploits, in the order in which they were seen."""
        self.state_unknown: set[Key] = set()
        """Servers where PatrolServer did not tell its version, or whether it is supported."""

    @property
    def on(self) -> set[Key]:
        """Servers on which it is not fine, or nobody knows whether it is."""
        return self.servers | self.state_unknown


class ExploitSpread(Spread):
    """One known exploit, at or above ``issues.exploit_risk``, that some servers have."""

    __slots__ = ("cve", "id", "software", "title")

    def __init__(self, exploit: IssueExploit) -> None:
        super().__init__()
        self.id, self.cve, self.title = exploit.id, exploit.cve, exploit.title
        self.software: set[str] = set()
        """Canonical names."""


class ExploitKey(NamedTuple):
    """What makes an exploit of one server the same as that of another: its CVE, else its id, else what it is called."""

    name: str
    named_by: str
    software: str = ""


def exploit_key(exploit: IssueExploit, canonical_name: str) -> ExploitKey:
    """An exploit without id and CVE is only known within its software."""
    if exploit.cve:
        return ExploitKey(exploit.cve, "cve")
    if exploit.id:
        return ExploitKey(exploit.id, "id")
    return ExploitKey(exploit.title or "", "title", canonical_name)


SoftwareKey = tuple[str, str]
"""Canonical name and version."""


class SoftwareOverFleet:
    """Collects the software that is not fine."""

    def __init__(self) -> None:
        self.found: dict[SoftwareKey, SoftwareSpread] = {}

    def add(self, issue: SeenIssue) -> None:
        """Take an issue in; one of the server itself is about no software."""
        if not issue.canonical_name:
            return
        spread = self._of(issue.canonical_name, issue.version)
        spread.name = issue.software or spread.name
        spread.see(issue.key, issue.severity, waived=issue.waived_until is not None)
        spread.kinds.add(issue.kind)
        if issue.update_to:
            spread.updates.add(issue.update_to)
        for exploit in issue.exploits:
            spread.rate(exploit.risk)
            if exploit.name:
                spread.exploits[exploit.name] = None

    def add_unknown(self, key: Key, software: Iterable[Software], is_wanted: Callable[[str], bool]) -> None:
        """Take in what a server has installed in a state that nobody knows."""
        for one in software:
            if state_of(one) is State.UNKNOWN and is_wanted(one.canonical_name):
                spread = self._of(one.canonical_name, one.shown_version)
                spread.name = one.name or spread.name
                spread.state_unknown.add(key)

    def _of(self, canonical_name: str, version: str | None) -> SoftwareSpread:
        key = canonical_name, version or ""
        found = self.found.get(key)
        if found is None:
            found = self.found[key] = SoftwareSpread(canonical_name, version)
        return found


class ExploitsOverFleet:
    """Collects known exploits; ``is_wanted`` leaves out those that were not asked for."""

    def __init__(self, is_wanted: Callable[[IssueExploit, Severity, bool], bool] = lambda *_: True) -> None:
        self.found: dict[ExploitKey, ExploitSpread] = {}
        self._is_wanted = is_wanted

    def add(self, issue: SeenIssue) -> None:
        """Take an issue's exploits in, each with its own severity."""
        for exploit in issue.exploits:
            waived = exploit.waived or issue.waived_until is not None
            severity = severity_of_risk(exploit.risk)
            if not self._is_wanted(exploit, severity, waived):
                continue
            key = exploit_key(exploit, issue.canonical_name)
            spread = self.found.get(key)
            if spread is None:
                spread = self.found[key] = ExploitSpread(exploit)
            spread.title = spread.title or exploit.title
            spread.id = spread.id or exploit.id
            spread.see(issue.key, severity, waived=waived)
            spread.rate(exploit.risk)
            if issue.canonical_name:
                spread.software.add(issue.canonical_name)
