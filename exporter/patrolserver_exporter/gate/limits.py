"""The limits of a policy, and which issues are over them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from patrolserver_exporter.issues.model import SEVERITIES, Issue, Kind, Severity

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from patrolserver_exporter.gate.policy import Policy


@dataclass(frozen=True, slots=True)
class Limit:
    """At most ``allowed`` of the issues that it ``counts``."""

    name: str
    """As in the policy, ``max_by_severity.high``."""
    flag: str
    """The command's, ``--max-high``."""
    allowed: int
    wording: str
    """What it counts, after "issues that"."""
    counts: Callable[[Issue], bool]
    severity: Severity | None = None
    """It counts this one and worse; ``None``: any. A grace is counted from when an issue got so bad."""


def limits_of(policy: Policy) -> tuple[Limit, ...]:
    """All limits that the policy sets. A new one is a field of the policy, and its rule here."""
    return (*_by_severity(policy), *_by_kind(policy), *_overall(policy))


def _by_severity(policy: Policy) -> Iterable[Limit]:
    for severity in SEVERITIES:
        allowed: int | None = getattr(policy.max_by_severity, severity.value)
        if allowed is not None:
            counted = frozenset(SEVERITIES[: SEVERITIES.index(severity) + 1])
            wording = f"are {severity.value}" if len(counted) == 1 else f"are {severity.value} or worse"
            name, flag = f"max_by_severity.{severity.value}", f"--max-{severity.value}"
            yield Limit(name, flag, allowed, wording, _has_severity(counted), severity)


def _by_kind(policy: Policy) -> Iterable[Limit]:
    for kind in Kind:
        allowed: int | None = getattr(policy.max_by_kind, kind.value)
        if allowed is not None:
            yield Limit(
                f"max_by_kind.{kind.value}", f"--max-{kind.value}", allowed, f"are {kind.value}", _has_kind(kind)
            )


def _overall(policy: Policy) -> Iterable[Limit]:
    if policy.max_total is not None:
        yield Limit("max_total", "--max-total", policy.max_total, "count", lambda _: True)
    if policy.max_risk is not None:
        above = f"have a risk above {policy.max_risk:g}"
        yield Limit("max_risk", "--max-risk", 0, above, _has_risk_above(policy.max_risk))


def _has_severity(severities: frozenset[Severity]) -> Callable[[Issue], bool]:
    return lambda issue: issue.severity in severities


def _has_kind(kind: Kind) -> Callable[[Issue], bool]:
    return lambda issue: issue.kind is kind


def _has_risk_above(max_risk: float) -> Callable[[Issue], bool]:
    """An exploit without a known risk may be anything."""
    return lambda issue: issue.kind is Kind.EXPLOITABLE and not (issue.risk is not None and issue.risk <= max_risk)
