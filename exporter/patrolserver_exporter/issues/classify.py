"""What one installed software amounts to: its state, what is wrong with it, and how bad that is."""

from __future__ import annotations

from typing import TYPE_CHECKING

from patrolserver_exporter.issues.model import SEVERITIES, Kind, Severity, State

if TYPE_CHECKING:
    from collections.abc import Iterable

    from patrolserver_exporter.patrolserver.models import Exploit, Software

_KINDS = {State.OUTDATED: Kind.OUTDATED, State.UNSUPPORTED: Kind.UNSUPPORTED}


def state_of(software: Software) -> State:
    """How a software stands, worded as the vendor's own scanner does (C).

    Without a version, or while ``supported`` is missing, nobody knows: ``UNKNOWN``, never unsupported.
    """
    if software.shown_version is None or software.supported is None:
        return State.UNKNOWN
    if software.supported:
        return State.SUPPORTED
    return State.OUTDATED if software.newest_bugfix_release else State.UNSUPPORTED


def kind_of(software: Software) -> Kind | None:
    """What is wrong with its version: ``OUTDATED``, ``UNSUPPORTED``, or nothing that is known."""
    return _KINDS.get(state_of(software))


def counted_exploits(software: Software, exploit_risk: float) -> tuple[Exploit, ...]:
    """Its known exploits at or above ``exploit_risk``; empty too while the exploits are unknown.

    One whose risk nobody knows may be the worst, so it always counts.
    """
    return tuple(exploit for exploit in software.exploits or () if exploit.risk is None or exploit.risk >= exploit_risk)


def severity_of(kind: Kind, risk: float | None = None) -> Severity:
    """How severe an issue of that kind is; ``risk`` (0 to 10, ``None``: unknown) matters to ``EXPLOITABLE`` alone."""
    if kind is Kind.EXPLOITABLE:
        return severity_of_risk(risk)
    return Severity.MEDIUM if kind is Kind.OUTDATED else Severity.HIGH


def severity_of_risk(risk: float | None) -> Severity:
    """How severe an exploit of that risk is; one whose risk is unknown is high."""
    if risk is None:
        return Severity.HIGH
    if risk >= 9:
        return Severity.CRITICAL
    if risk >= 7:
        return Severity.HIGH
    return Severity.MEDIUM if risk >= 4 else Severity.LOW


def is_worse(severity: Severity, than: Severity) -> bool:
    """Whether one severity is above the other."""
    return SEVERITIES.index(severity) < SEVERITIES.index(than)


def worst(severities: Iterable[Severity]) -> Severity:
    """The worst of some severities, at least one."""
    return min(severities, key=SEVERITIES.index)
