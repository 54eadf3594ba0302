"""The API lists no issues: what the installed software shows as wrong is what is open."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from patrolserver_exporter.issues.classify import counted_risks, kind_of, severity_of, state_of
from patrolserver_exporter.issues.model import SEVERITIES, Identity, IssueClass, Kind, Severity, State

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

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

    @property
    def identity(self) -> Identity:
        """Its identity within the account and the server."""
        return Identity(self.canonical_name, self.location, self.issue_class)


def derive(software: Sequence[Software], exploit_risk: float) -> tuple[Finding, ...]:
    """What is wrong on a server, one finding an identity, whatever the order of ``software``.

    A software that is listed twice with the same name and location is one: its worst finding stands.
    """
    worst: dict[Identity, Finding] = {}
    for installed in software:
        for finding in _findings(installed, exploit_risk):
            held = worst.get(finding.identity)
            if held is None or _badness(finding) > _badness(held):
                worst[finding.identity] = finding
    return tuple(worst[identity] for identity in sorted(worst, key=lambda identity: identity.order))


def undecided(software: Sequence[Software]) -> frozenset[Identity]:
    """Identities that a poll lists without telling whether something is wrong: no reason to call an issue fixed."""
    return frozenset(
        Identity(installed.canonical_name, installed.location, issue_class)
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
        yield _finding(installed, IssueClass.VERSION, kind, None)
    risks = counted_risks(installed, exploit_risk)
    if risks:
        yield _finding(installed, IssueClass.EXPLOIT, Kind.EXPLOITABLE, max(risks))


def _finding(installed: Software, issue_class: IssueClass, kind: Kind, risk: float | None) -> Finding:
    return Finding(
        canonical_name=installed.canonical_name,
        location=installed.location,
        issue_class=issue_class,
        kind=kind,
        severity=severity_of(kind, risk),
        software=installed.name,
        version=installed.shown_version,
        update_to=installed.newest_bugfix_release or None,
        parent=installed.parent,
        risk=risk,
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
