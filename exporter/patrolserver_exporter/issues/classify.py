"""What one installed software amounts to: its state, what is wrong with it, and how bad that is."""

from __future__ import annotations

from typing import TYPE_CHECKING

from patrolserver_exporter.issues.model import Kind, Severity, State

if TYPE_CHECKING:
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


def risk_of(exploit: Exploit, exploit_risk: float) -> float:
    """The exploit's risk, 0 to 10.

    One whose risk is unknown counts as just at ``exploit_risk``: an exploit that nobody rated is no reason to let go.
    """
    return exploit_risk if exploit.risk is None else exploit.risk


def counted_risks(software: Software, exploit_risk: float) -> tuple[float, ...]:
    """Risks of its known exploits at or above ``exploit_risk``; empty too while the exploits are unknown."""
    risks = (risk_of(exploit, exploit_risk) for exploit in software.exploits or ())
    return tuple(risk for risk in risks if risk >= exploit_risk)


def severity_of(kind: Kind, risk: float | None = None) -> Severity:
    """How severe an issue of that kind is; ``risk`` (0 to 10) matters to ``EXPLOITABLE`` alone."""
    if kind is Kind.EXPLOITABLE:
        return _severity_of_risk(0.0 if risk is None else risk)
    return Severity.MEDIUM if kind is Kind.OUTDATED else Severity.HIGH


def _severity_of_risk(risk: float) -> Severity:
    if risk >= 9:
        return Severity.CRITICAL
    if risk >= 7:
        return Severity.HIGH
    return Severity.MEDIUM if risk >= 4 else Severity.LOW
