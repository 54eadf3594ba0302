"""What happens to the software of a server. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from .software import Installed, Kind, Software, altered

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


@dataclass(frozen=True, slots=True)
class Change:
    """Something that happens to the software of a server."""

    kind: Kind
    canonical_name: str | None = None
    """``None``: to the first that is fine, or with ``MENDED`` to all that is broken."""
    location: str | None = None
    risk: float = 9.8


def applied(
    installed: Sequence[Installed], change: Change, exploit_ids: Iterator[int]
) -> tuple[tuple[Installed, ...], list[Installed]]:
    """All software after the change, and of it what was changed; nothing is when there is no such software."""
    targets = {one.id for one in installed if _is_target(one.software, change)}
    if change.canonical_name is None and change.kind is not Kind.MENDED:
        targets = {next((one.id for one in installed if one.id in targets), -1)}
    after = []
    for one in installed:
        if one.id in targets:
            serial = next(exploit_ids) if change.kind is Kind.EXPLOITABLE else 0
            fresh = altered(one.software, change.kind, risk=change.risk, serial=serial)
            after.append(Installed(one.id, fresh, one.overrides))
        else:
            after.append(one)
    return tuple(after), [one for one in after if one.id in targets]


def trouble(software: Software) -> Kind | None:
    """What is wrong with it, the worst first."""
    if software.exploits:
        return Kind.EXPLOITABLE
    if software.supported is False:
        return Kind.OUTDATED if software.newest_bugfix_release else Kind.UNSUPPORTED
    return None


def _is_target(software: Software, change: Change) -> bool:
    if change.canonical_name is not None:
        return software.canonical_name == change.canonical_name and change.location in (None, software.location)
    return software.broken if change.kind is Kind.MENDED else not software.broken and software.version is not None
