"""How far a poll's list of software can be believed, and what is known of the software after it.

A list that is empty, or that suddenly lost most of what it had, is more often a fault than the truth: it closes
nothing, and what it does not show stays known, in doubt. So is one in which software got better all at once though no
version rose: it lost its exploits or the worst of them, or came to be supported again. Of one software that may be a
fix, but not where several servers of an account get better like that within an interval of polls. An exploit that had
a risk and now has 0 is one that nobody rated.

Times are seconds since the epoch.
"""

from __future__ import annotations

import bisect
import hashlib
import math
import re
import threading
from typing import TYPE_CHECKING, NamedTuple, Self

import msgspec
from msgspec.structs import replace

from patrolserver_exporter.patrolserver.models import Software

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from patrolserver_exporter.patrolserver.models import Exploit

_ENOUGH_TO_LOSE = 4
"""Of fewer, most may well be removed at once."""
_ENOUGH_TO_BE_CURED = 2
"""Software that gets better and stays as it is: one may, if its fix was taken back into its version."""
_ENOUGH_SERVERS = 3
"""Servers that get better like that: one or two may have been mended."""
_ENOUGH_OF_ALL = 0.1
"""Of the servers that were ailing: of many, so few may well be mended at once."""
_PLACES_LOOKED_AT = 20
"""Of software that is listed at more places, whether it moved is told by the first."""
_NOT_RATED = 11.0
"""An exploit whose risk nobody knows may be worse than any."""
_OF_A_VERSION = re.compile(r"[0-9]+|[a-z]+")

_Place = tuple[str, str | None]


class Collapse(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A list that lost more than half, or in which too much got better, and that waits to be shown once more."""

    since: float
    """Start of the first poll that showed it."""
    shown: str
    """What it showed, as a hash."""
    alike: bool = False
    """What got better would have been believed, had other servers not got better like it."""


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
    eased: bool
    """Something got better that no newer version explains: exploits or an end of life, or software that had them."""
    worse: bool
    """The other way round: what got better like that before is as it was, or something new is wrong."""
    ailing: bool
    """It was whole, and shows exploits or an end of life, and all that was known of them."""
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
    alike: bool = False,
) -> Reading:
    """What a poll that started at ``started_at`` is worth.

    ``known`` is the software after the poll before it, ``None`` if there was none, and ``collapse`` what that left
    open. ``complete``: every entry could be read, and nothing says that there are more. ``settle`` is in seconds.
    ``alike``: other servers got better within an interval, so that what got better here is no fix of its own.
    """
    empty = complete and not listed
    listed = _with_known_risks(listed, known or ())
    eased = _Eased()
    if is_readable := complete and bool(listed):
        eased = _Eased.between(known or (), listed)
        collapse = _collapse(known or (), listed, started_at, collapse, eased=eased, alike=alike)
        if collapse is not None and started_at >= collapse.since + settle and collapse.since < started_at:
            collapse = None
    # One that tells nothing in between neither confirms nor denies it.
    whole = is_readable and collapse is None
    software = _with_known_exploits(listed, known or (), whole=whole)
    if not whole:
        shown = {_spelt_place(one) for one in listed}
        software = (*software, *(one for one in known or () if _spelt_place(one) not in shown))
    return Reading(
        whole=whole,
        empty=empty,
        collapse=collapse,
        exploits_unknown=sum(one.exploits is None for one in listed),
        eased=bool(eased.places),
        worse=is_readable and bool(_Eased.between(listed, known or ()).places),
        ailing=is_readable and not eased.places and any(one.exploits or one.supported is False for one in listed),
        listed=listed,
        software=software,
    )


class Alike:
    """Whether the servers of an account get better one like the other though no version rises.

    Each by itself may have been mended; all of them within an interval of polls are a fault of the API more likely. It
    is kept in memory only: who takes an account over begins anew. Thread-safe.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._eased: dict[int, float] = {}
        """When polls started that first showed servers better than before, by server."""
        self._ailing: dict[int, float] = {}
        """When polls started that showed servers as they were."""
        self._believed: set[int] = set()
        """Of those that got better, the ones of which nobody asked for more than one poll."""

    def are_suspicious(self, server_id: int, started_at: float, interval: float) -> bool:
        """Whether this server would be one too many to get better; ``interval`` is that of the polls, in seconds.

        It is with the last ones that got better, if fewer have stayed as they were since the first of those.
        """
        with self._lock:
            eased, ailing = (
                sorted(at for other, at in those.items() if other != server_id and started_at - at <= interval)
                for those in (self._eased, self._ailing)
            )
        least = max(_ENOUGH_SERVERS, math.ceil(_ENOUGH_OF_ALL * len(ailing)))
        # How many are better with this one, and how many were seen to be as before since the first of them.
        runs = (
            (count, len(ailing) - bisect.bisect(ailing, eased[1 - count])) for count in range(least, len(eased) + 2)
        )
        return any(count > as_before for count, as_before in runs)

    def note(  # noqa: PLR0913  # what a poll was, and when
        self,
        server_id: int,
        started_at: float,
        interval: float,
        reading: Reading,
        *,
        settle: float = 0.0,
        confirmed: bool = False,
    ) -> None:
        """Note what a poll of the server has shown, and forget what is longer ago than an interval.

        Whoever got better counts until a poll ``settle`` later, whatever polls in between show, unless it is worse
        again. ``confirmed``: it showed what another one had shown before.
        """
        with self._lock:
            self._ailing.pop(server_id, None)
            if reading.ailing:
                self._ailing[server_id] = started_at
            first = self._eased.get(server_id)
            if reading.worse or (first is not None and started_at >= first + settle):
                self._eased.pop(server_id, None)
                self._believed.discard(server_id)
            if reading.eased and not (reading.whole and confirmed) and server_id not in self._eased:
                self._eased[server_id] = started_at
                if reading.whole:
                    self._believed.add(server_id)
            # They stand in the order in which they came: there may be 100,000, and each poll comes here.
            for those in (self._eased, self._ailing):
                while those and started_at - (oldest := next(iter(those.items())))[1] > max(interval, settle):
                    del those[oldest[0]]
            self._believed &= self._eased.keys()

    @property
    def believed(self) -> frozenset[int]:
        """Servers that one poll has shown to be better, that no later one confirmed, and that nobody doubted yet."""
        with self._lock:
            return frozenset(self._believed)

    def doubted(self, server_ids: Iterable[int]) -> None:
        """These are doubted now."""
        with self._lock:
            self._believed.difference_update(server_ids)


class _Eased(NamedTuple):
    """What of the known software got better though no version rose, by place."""

    cured: frozenset[_Place] = frozenset()
    """It lost its exploits, or the worst of them."""
    rated: frozenset[_Place] = frozenset()
    """Of those, the ones whose exploits only have a risk now that nobody knew before."""
    supported_again: frozenset[_Place] = frozenset()
    gone: frozenset[_Place] = frozenset()
    """It had exploits or was at the end of its life, and is not listed any more."""

    @classmethod
    def between(cls, known: Sequence[Software], listed: Sequence[Software]) -> Self:
        if known == listed:
            # As nearly always.
            return cls()
        there = {_place(one) for one in listed}
        gone = [one for one in known if (one.exploits or one.supported is False) and _place(one) not in there]
        # What only moved is not gone. A server may have 100,000 packages.
        named: dict[str, list[Software]] = {one.canonical_name.casefold(): [] for one in gone}
        for one in listed if gone else ():
            if (same := named.get(one.canonical_name.casefold())) is not None and len(same) < _PLACES_LOOKED_AT:
                same.append(one)
        gone_places = frozenset(
            _place(one)
            for one in gone
            if not any(_is_no_better(other, one) for other in named[one.canonical_name.casefold()])
        )
        cured = frozenset(_cured(known, listed))
        before, now = (_worst_by_place(some) for some in (known, listed))
        rated = frozenset(place for place in cured if now.get(place, -1.0) >= max(before.get(place, -1.0), 0.0))
        return cls(cured, rated, frozenset(_supported_again(known, listed)), gone_places)

    @property
    def places(self) -> frozenset[_Place]:
        """All but what got a risk: that is known better, and not better."""
        return (self.cured - self.rated) | self.supported_again | self.gone


def _collapse(  # noqa: PLR0913  # what a list is held against
    known: Sequence[Software],
    listed: Sequence[Software],
    started_at: float,
    before: Collapse | None,
    *,
    eased: _Eased,
    alike: bool,
) -> Collapse | None:
    """Software is counted by what tells it apart: a list in which all is another has lost all."""
    had, has = {_spelt_place(one) for one in known}, {_spelt_place(one) for one in listed}
    exploitable = {_place(one) for one in known if one.exploits}
    unsupported = {_place(one) for one in known if one.supported is False}
    # Of the rest of a list in which something got better, some may be other at each poll.
    better = eased.places | eased.rated
    of_list, of_eased = _hash(has), _hash(better)
    if before is not None and before.shown in ({of_list, of_eased} if better else {of_list}):
        return before
    is_better = any(
        len(lost) >= _ENOUGH_TO_BE_CURED and 2 * len(lost) > len(of_all)
        for of_all, lost in ((exploitable, eased.cured), (unsupported, eased.supported_again))
    )
    # Once doubted it stays so, also when the others have been polled again meanwhile.
    is_alike = bool(eased.places) and not is_better and (alike or (before is not None and before.alike))
    if is_better or is_alike:
        return Collapse(since=started_at, shown=of_eased, alike=is_alike)
    if len(had) >= _ENOUGH_TO_LOSE and 2 * len(had - has) > len(had):
        return Collapse(since=started_at, shown=of_list)
    return None


def _hash(places: Iterable[_Place]) -> str:
    ordered = sorted(places, key=lambda place: (place[0], place[1] is not None, place[1] or ""))
    return hashlib.blake2b(msgspec.json.encode(ordered), digest_size=8).hexdigest()


def _is_no_better(other: Software, one: Software) -> bool:
    """Whether software at another place is at least as bad."""
    is_as_exploitable = other.exploits is None or _worst(other.exploits) >= _worst(one.exploits or ())
    return is_as_exploitable and (one.supported is not False or other.supported is not True)


def _cured(known: Sequence[Software], listed: Sequence[Software]) -> set[_Place]:
    """What lost its exploits, or the worst of them, without a newer version."""
    before: dict[_Place, Software] = {}
    for one in known:
        if one.exploits and (place := _place(one)) not in before:
            before[place] = one
    return {
        place
        for one in listed
        if one.exploits is not None
        and (was := before.get(place := _place(one))) is not None
        and _worst(one.exploits) < _worst(was.exploits or ())
        and not _is_newer(one.shown_version, was.shown_version)
    }


def _supported_again(known: Sequence[Software], listed: Sequence[Software]) -> set[_Place]:
    """What was not supported, and is without a newer version."""
    before = {_place(one): one.shown_version for one in known if one.supported is False}
    return {
        place
        for one in listed
        if one.supported is True
        and (place := _place(one)) in before
        and not _is_newer(one.shown_version, before[place])
    }


def _worst(exploits: Iterable[Exploit]) -> float:
    """The highest risk; below all where there is no exploit."""
    return max((_NOT_RATED if exploit.risk is None else exploit.risk for exploit in exploits), default=-1.0)


def _worst_by_place(software: Iterable[Software]) -> dict[_Place, float]:
    """The highest risk that is known, where there is one."""
    worst: dict[_Place, float] = {}
    for one in software:
        for exploit in one.exploits or ():
            if exploit.risk is not None:
                worst[_place(one)] = max(exploit.risk, worst.get(_place(one), 0.0))
    return worst


def _is_newer(version: str | None, before: str | None) -> bool:
    """Whether a version is a later one. The same one spelt otherwise is not, nor is one of which nobody knows."""
    return version is not None and before is not None and _order(version) > _order(before)


def _order(version: str) -> list[tuple[bool, int, str]]:
    """The numbers and words of a version, to be compared; ``8.1``, ``v8.1`` and ``8.1.0`` are the same."""
    parts = _OF_A_VERSION.findall(version.casefold())
    if parts[:1] == ["v"]:
        del parts[0]
    while parts and not parts[-1].strip("0"):
        parts.pop()
    return [(part[0] <= "9", int(part) if part[0] <= "9" else 0, part.lstrip("0")) for part in parts]


def _with_known_exploits(listed: Sequence[Software], known: Sequence[Software], *, whole: bool) -> tuple[Software, ...]:
    """What is listed, with what was known before of its exploits and its support where the poll does not tell it.

    A poll that is not whole tells nothing that would be better.
    """
    cured: set[_Place] = set() if whole else _cured(known, listed)
    supported_again: set[_Place] = set() if whole else _supported_again(known, listed)
    if all(one.exploits is not None for one in listed) and not cured and not supported_again:
        return tuple(listed)
    before: dict[_Place, tuple[Exploit, ...]] = {}
    for one in known:
        if one.exploits is not None and not before.get(place := _place(one)):
            before[place] = one.exploits

    def with_known(one: Software) -> Software:
        place = _place(one)
        if one.exploits is None or place in cured:
            one = replace(one, exploits=before.get(place))
        return replace(one, supported=False) if place in supported_again else one

    return tuple(with_known(one) for one in listed)


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


def _spelt_place(software: Software) -> _Place:
    """What tells software apart."""
    return software.canonical_name, software.location


def _place(software: Software) -> _Place:
    """The same, however it is spelt."""
    return software.canonical_name.casefold(), None if software.location in {"", "/"} else software.location
