"""The API lists no issues: what the installed software shows as wrong is what is open."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

import msgspec
from msgspec.structs import replace

from patrolserver_exporter.issues.classify import (
    counted_exploits,
    kind_of,
    known_risk,
    order,
    severity_of,
    severity_of_exploits,
    state_of,
)
from patrolserver_exporter.issues.model import SEVERITIES, Identity, IssueClass, Kind, Severity, State
from patrolserver_exporter.patrolserver.models import Exploit

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from patrolserver_exporter.patrolserver.models import Software


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """What one poll shows of one issue; the fields mean what they mean in ``Issue``."""

    canonical_name: str
    location: str | None
    issue_class: IssueClass
    kind: Kind
    severity: Severity
    software: str
    version: str | None
    update_to: str | None
    parent: str | None
    risk: float | None
    exploits: tuple[Exploit, ...] = ()
    """Those at or above ``exploit_risk``, worst first."""

    @property
    def identity(self) -> Identity:
        """Its identity within the account and the server."""
        return Identity(self.canonical_name, self.location, self.issue_class)


def derive(software: Sequence[Software], exploit_risk: float) -> tuple[Finding, ...]:
    """What is wrong on a server, one finding an identity, whatever the order of ``software``.

    A software that is listed twice with the same name and location is one: its worst finding stands, for the exploits
    of all of them.
    """
    found: dict[Identity, list[Finding]] = defaultdict(list)
    for installed in software:
        for finding in _findings(installed, exploit_risk):
            found[finding.identity].append(finding)
    return tuple(_joined(found[identity]) for identity in sorted(found, key=lambda identity: identity.order))


def tells_of_exploits(software: Iterable[Software]) -> bool:
    """Whether a reply said anything of exploits: no entry has them where the API left them out."""
    return any(installed.exploits is not None for installed in software)


def undecided(software: Sequence[Software]) -> frozenset[Identity]:
    """Identities that a poll lists without telling whether something is wrong: no reason to call an issue fixed.

    However they are spelt: to be compared with those that are ``folded``.
    """
    return frozenset(
        Identity(installed.canonical_name, installed.location, issue_class).folded
        for installed in software
        for issue_class, unknown in (
            (IssueClass.VERSION, state_of(installed) is State.UNKNOWN),
            (IssueClass.EXPLOIT, installed.exploits is None),
        )
        if unknown
    )


def _findings(installed: Software, exploit_risk: float) -> Iterator[Finding]:
    kind = kind_of(installed)
    if kind is not None:
        yield _finding(installed, IssueClass.VERSION, kind)
    exploits = _distinct(counted_exploits(installed, exploit_risk))
    if exploits:
        yield _finding(installed, IssueClass.EXPLOIT, Kind.EXPLOITABLE, exploits)


def _joined(found: Sequence[Finding]) -> Finding:
    if len(found) == 1:
        return found[0]
    worst = max(found, key=_badness)
    exploits = tuple(exploit for finding in found for exploit in finding.exploits)
    if not exploits:
        return worst
    exploits = _distinct(exploits)
    return replace(worst, exploits=exploits, severity=severity_of_exploits(exploits), risk=known_risk(exploits))


def _distinct(exploits: Iterable[Exploit]) -> tuple[Exploit, ...]:
    """The same entry twice is one exploit. Exploits without a name are only counted."""
    nameless: list[Exploit] = []
    named: dict[tuple[object, ...], Exploit] = {}
    for exploit in exploits:
        if exploit.reference or exploit.title:
            named.setdefault((exploit.id, exploit.cve, exploit.title, exploit.risk), exploit)
        else:
            nameless.append(exploit)
    return tuple(sorted((*named.values(), *nameless), key=order))


def _finding(installed: Software, issue_class: IssueClass, kind: Kind, exploits: tuple[Exploit, ...] = ()) -> Finding:
    return Finding(
        canonical_name=installed.canonical_name,
        location=installed.location,
        issue_class=issue_class,
        kind=kind,
        severity=severity_of_exploits(exploits) if exploits else severity_of(kind),
        software=installed.name,
        version=installed.shown_version,
        update_to=installed.newest_bugfix_release or None,
        parent=installed.parent,
        risk=known_risk(exploits),
        exploits=exploits,
    )


def _badness(finding: Finding) -> tuple[int, float, str, str, str, str]:
    """Sort key; after severity and risk only there so that the choice does not depend on the order of the list."""
    return (
        -SEVERITIES.index(finding.severity),
        finding.risk or 0.0,
        finding.version or "",
        finding.update_to or "",
        finding.software,
        finding.parent or "",
    )
