"""What a deploy gate asks for: the policy, and the limits that it sets."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import msgspec

from patrolserver_exporter.issues.model import SEVERITIES, Issue, Kind, Severity, Waiver

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Iterable, Sequence


_DAY = 86_400.0
_Count = Annotated[int, msgspec.Meta(ge=0)]
_Seconds = Annotated[float, msgspec.Meta(ge=0)]
_Risk = Annotated[float, msgspec.Meta(ge=0, le=10)]


class SeverityLimits(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How many issues of a severity *and worse* are accepted; ``None``: any number."""

    critical: _Count = 0
    high: _Count | None = None
    medium: _Count | None = None
    low: _Count | None = None


class KindLimits(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How many issues of a kind are accepted; ``None``: any number."""

    unsupported: _Count | None = None
    outdated: _Count | None = None
    exploitable: _Count | None = None
    reported: _Count | None = None


class Policy(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A gate's policy. Limits count over all servers that are asked for; ages are seconds."""

    max_by_severity: SeverityLimits = SeverityLimits()
    max_by_kind: KindLimits = KindLimits()
    max_total: _Count | None = None
    max_risk: _Risk | None = None
    """No exploit above it, 0 to 10."""
    max_age: _Seconds = _DAY
    """Of the last successful poll."""
    max_scan_age: _Seconds | None = None
    """Of the end of the last scan seen."""
    max_unknown_software: _Count = 0
    """Software in a state that nobody knows, up to which a server's data still counts as known."""
    baseline: frozenset[str] = frozenset()
    """Fingerprints of issues that do not count."""
    waivers: tuple[Waiver, ...] = ()
    """In addition to those of the configuration."""


@dataclass(frozen=True, slots=True)
class Limit:
    """At most ``allowed`` of the issues that it ``counts``."""

    name: str
    """As in the policy, ``max_by_severity.high``."""
    allowed: int
    wording: str
    """What it counts, after "issues that"."""
    counts: Callable[[Issue], bool]


def limits_of(policy: Policy) -> tuple[Limit, ...]:
    """All limits that the policy sets."""
    return (*_by_severity(policy), *_by_kind(policy), *_overall(policy))


def broken(limits: Iterable[Limit], issues: Sequence[Issue]) -> tuple[tuple[Limit, int], ...]:
    """The limits that the issues exceed, each with how many it counts."""
    counted = ((limit, sum(map(limit.counts, issues))) for limit in limits)
    return tuple((limit, count) for limit, count in counted if count > limit.allowed)


def _by_severity(policy: Policy) -> Iterable[Limit]:
    for severity in SEVERITIES:
        allowed: int | None = getattr(policy.max_by_severity, severity.value)
        if allowed is not None:
            counted = frozenset(SEVERITIES[: SEVERITIES.index(severity) + 1])
            wording = f"are {severity.value}" if len(counted) == 1 else f"are {severity.value} or worse"
            yield Limit(f"max_by_severity.{severity.value}", allowed, wording, _has_severity(counted))


def _by_kind(policy: Policy) -> Iterable[Limit]:
    for kind in Kind:
        allowed: int | None = getattr(policy.max_by_kind, kind.value)
        if allowed is not None:
            yield Limit(f"max_by_kind.{kind.value}", allowed, f"are {kind.value}", _has_kind(kind))


def _overall(policy: Policy) -> Iterable[Limit]:
    if policy.max_total is not None:
        yield Limit("max_total", policy.max_total, "count", lambda _: True)
    if policy.max_risk is not None:
        above = f"have a risk above {policy.max_risk:g}"
        yield Limit("max_risk", 0, above, _has_risk_above(policy.max_risk))


def _has_severity(severities: Container[Severity]) -> Callable[[Issue], bool]:
    return lambda issue: issue.severity in severities


def _has_kind(kind: Kind) -> Callable[[Issue], bool]:
    return lambda issue: issue.kind is kind


def _has_risk_above(max_risk: float) -> Callable[[Issue], bool]:
    """An exploit without a known risk may be anything."""
    return lambda issue: issue.kind is Kind.EXPLOITABLE and not (issue.risk is not None and issue.risk <= max_risk)
