"""What a deploy gate asks for."""

from __future__ import annotations

from typing import Annotated

import msgspec

from patrolserver_exporter.issues.model import Waiver

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
