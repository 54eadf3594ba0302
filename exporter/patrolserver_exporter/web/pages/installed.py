"""Installed software as a server's page shows it, grouped by state."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from patrolserver_exporter.issues.classify import risk_of, state_of
from patrolserver_exporter.issues.model import State
from patrolserver_exporter.web.pages.words import counted, place

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from patrolserver_exporter.patrolserver.models import Software

SOFTWARE = 500
"""Software of one state on a page."""
_ORDER = (State.UNSUPPORTED, State.OUTDATED, State.UNKNOWN, State.SUPPORTED)
_MEANING = {
    State.UNSUPPORTED: "gets no more fixes: upgrade to a supported release",
    State.OUTDATED: "a newer bug-fix release exists: update",
    State.UNKNOWN: "PatrolServer did not tell the version, or whether it is supported",
    State.SUPPORTED: "nothing to do",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class SoftwareRow:
    """An installed software."""

    name: str
    version: str
    update_to: str
    place: str
    exploits: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SoftwareGroup:
    """All installed software of one state."""

    state: str
    meaning: str
    count: int
    rows: tuple[SoftwareRow, ...]
    cut: int
    """Rows that did not fit."""


def software_groups(software: Sequence[Software], exploit_risk: float) -> tuple[SoftwareGroup, ...]:
    """Group what is installed by its state, the worst first; empty groups are left out."""
    found: dict[State, list[Software]] = {state: [] for state in _ORDER}
    for item in software:
        found[state_of(item)].append(item)
    return tuple(
        SoftwareGroup(
            state=state.value,
            meaning=_MEANING[state],
            count=len(items),
            rows=tuple(_software_row(item, exploit_risk) for item in _dangerous_first(items)[:SOFTWARE]),
            cut=max(len(items) - SOFTWARE, 0),
        )
        for state, items in found.items()
        if items
    )


def _dangerous_first(items: Iterable[Software]) -> list[Software]:
    return sorted(items, key=lambda item: (not item.exploits, item.name.lower(), item.location or ""))


def _software_row(item: Software, exploit_risk: float) -> SoftwareRow:
    exploits = ""
    if item.exploits:
        worst = max(risk_of(exploit, exploit_risk) for exploit in item.exploits)
        names = [exploit.reference for exploit in item.exploits if exploit.reference][:3]
        exploits = f"{counted(len(item.exploits), 'exploit')}, risk up to {worst:g}"
        exploits += f" ({', '.join(names)})" if names else ""
    return SoftwareRow(
        name=item.name or item.canonical_name,
        version=item.shown_version or "",
        update_to=item.newest_bugfix_release or "",
        place=place(item.location, item.parent),
        exploits=exploits,
    )
