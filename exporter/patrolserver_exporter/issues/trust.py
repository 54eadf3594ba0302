"""How far a poll's list of software can be believed, and what is known of the software after it.

A list that is empty, or that suddenly lost most of what it had, is more often a fault than the truth: it closes
nothing, and what it does not show stays known, in doubt. So is one in which software of the same versions lost most of
its exploits at once. An exploit that had a risk and now has 0 is one that nobody rated.

Times are seconds since the epoch.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import msgspec
from msgspec.structs import replace

from patrolserver_exporter.patrolserver.models import Software

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from patrolserver_exporter.patrolserver.models import Exploit

_ENOUGH_TO_LOSE = 4
"""Of fewer, most may well be removed at once."""
_ENOUGH_TO_BE_CURED = 2
"""Software that loses its exploits and stays as it is: one may, if its fix was taken back into its version."""

_Place = tuple[str, str | None]
_NOT_KNOWN = object()


class Collapse(msgspec.Struct, frozen=True, kw_only=True):
    """A list that lost more than half, and waits to be shown once more."""

    since: float
    """Start of the first poll that showed it."""
    shown: str
    """What it showed, as a hash."""


class Reading(msgspec.Struct, frozen=True, kw_only=True):
    """A successful poll of a server's software, and what it is worth."""

    whole: bool
    """What it does not show is not there."""
    empty: bool
    """It could be read completely, and shows no software at all."""
    collapse: Collapse | None
    """It lost more than half, and no poll ``settle`` later showed the same yet."""
    exploits_unknown: int
    """Software in it whose exploits it does not tell."""
    listed: tuple[Software, ...]
    """What it shows."""
    software: tuple[Software, ...]
    """What is known of the software after it."""


def read(  # noqa: PLR0913  # what a poll brings and what it is held against, by keyword
    known: Sequence[Software] | None,
    listed: Sequence[Software],
    *,
    complete: bool,
    started_at: float,
    settle: float,
    collapse: Collapse | None,
) -> Reading:
    """What a poll that started at ``started_at`` is worth.

    ``known`` is the software after the poll before it, ``None`` if there was none, and ``collapse`` what that left
    open. ``complete``: every entry could be read, and nothing says that there are more. ``settle`` is in seconds.
    """
    empty = complete and not listed
    listed = _with_known_risks(listed, known or ())
    collapse = _collapse(known or (), listed, started_at, collapse) if complete and listed else None
    if collapse is not None and started_at >= collapse.since + settle and collapse.since < started_at:
        collapse = None
    whole = complete and bool(listed) and collapse is None
    software = _with_known_exploits(listed, known or (), whole=whole)
    if not whole:
        shown = {_place(one) for one in listed}
        software = (*software, *(one for one in known or () if _place(one) not in shown))
    return Reading(
        whole=whole,
        empty=empty,
        collapse=collapse,
        exploits_unknown=sum(one.exploits is None for one in listed),
        listed=listed,
        software=software,
    )


def _collapse(
    known: Sequence[Software], listed: Sequence[Software], started_at: float, before: Collapse | None
) -> Collapse | None:
    """Software is counted by what tells it apart: a list in which all is another has lost all."""
    had, has = {_place(one) for one in known}, {_place(one) for one in listed}
    had_exploits, lost_exploits = {_place(one) for one in known if one.exploits}, _cured(known, listed)
    is_cured = len(lost_exploits) >= _ENOUGH_TO_BE_CURED and 2 * len(lost_exploits) > len(had_exploits)
    if not is_cured and (len(had) < _ENOUGH_TO_LOSE or 2 * len(had - has) <= len(had)):
        return None
    shown = _hash(has) + (_hash(lost_exploits) if is_cured else "")
    return before if before is not None and before.shown == shown else Collapse(since=started_at, shown=shown)


def _hash(places: Iterable[_Place]) -> str:
    ordered = sorted(places, key=lambda place: (place[0], place[1] is not None, place[1] or ""))
    return hashlib.blake2b(msgspec.json.encode(ordered), digest_size=8).hexdigest()


def _cured(known: Sequence[Software], listed: Sequence[Software]) -> set[_Place]:
    """What had exploits, and has none at the same version."""
    before = {_place(one): one.shown_version for one in known if one.exploits}
    return {
        _place(one) for one in listed if one.exploits == () and before.get(_place(one), _NOT_KNOWN) == one.shown_version
    }


def _with_known_exploits(listed: Sequence[Software], known: Sequence[Software], *, whole: bool) -> tuple[Software, ...]:
    """What is listed, with the exploits known before where the poll does not tell them, or is not whole."""
    cured: set[_Place] = set() if whole else _cured(known, listed)
    if all(one.exploits is not None for one in listed) and not cured:
        return tuple(listed)
    before: dict[_Place, tuple[Exploit, ...]] = {}
    for one in known:
        if one.exploits is not None:
            before.setdefault(_place(one), one.exploits)
    return tuple(
        replace(one, exploits=before.get(_place(one))) if one.exploits is None or _place(one) in cured else one
        for one in listed
    )


def _with_known_risks(listed: Sequence[Software], known: Sequence[Software]) -> tuple[Software, ...]:
    """What is listed, with the risk known before where an exploit of the same software is given 0 now."""
    risks = {
        (_place(one), exploit.reference or exploit.title): exploit.risk
        for one in known
        for exploit in one.exploits or ()
        if exploit.risk and (exploit.reference or exploit.title)
    }
    if not risks:
        return tuple(listed)

    def rated(place: _Place, exploit: Exploit) -> Exploit:
        before = risks.get((place, exploit.reference or exploit.title))
        return replace(exploit, risk=before) if exploit.risk == 0 and before else exploit

    return tuple(
        replace(one, exploits=tuple(rated(_place(one), exploit) for exploit in one.exploits)) if one.exploits else one
        for one in listed
    )


def _place(software: Software) -> _Place:
    return software.canonical_name, software.location
