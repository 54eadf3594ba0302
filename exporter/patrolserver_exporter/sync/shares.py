"""How accounts fall to the exporters that share a database: which free ones this one takes, and which it gives back.

Each exporter decides for itself, by what its last look at the database has told, and the leases decide in the end. So
nothing here has to be agreed on; it only has to lead all of them to the same.

- **Free accounts are dealt out**, in the order of their names, each to the exporter that has the fewest by then. Who
  sees the same deals the same, so no two try for the same account, and nobody waits.
- **What one does not take** within `TAKES_WITHIN` is dealt to the others, and so on until nothing is free. Who was late
  once before plays no part in that: not all may know of it, and they would wait for each other. To one that was late
  twice nothing is dealt, or who gave an account back would be the first to have it again, without an end.
- **What speaks against an exporter** by `ways` goes first: of those against whom least speaks, it is the one with the
  fewest. Who cannot reach an account's API gives it up, if there is somebody who may reach it.
- **Who has too many gives some back**, a few at a time, if somebody who can take them has at least two fewer, and only
  while nothing else moves. Nobody gives below its fair share. To one that was late nothing is given for a minute, and
  the second time nothing until exporters come or go, or it is seen to take something after all; to one that polls
  accounts nothing for a quarter of that time.
"""

from __future__ import annotations

import functools
import math
import re
from collections import defaultdict
from typing import TYPE_CHECKING, Final, NamedTuple

from patrolserver_exporter.sync.ways import LAST_RESORT, Ways

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from patrolserver_exporter.store.replicas import Replica
    from patrolserver_exporter.sync.ways import Against, Unreached

TAKES_WITHIN: Final = 0.75
"""Seconds in which an exporter takes an account that fell to it, or it cannot."""
LONGEST: Final = 4 * TAKES_WITHIN
"""Seconds after which a free account is taken by whoever can, to whomever it falls."""
FORGIVEN_AFTER: Final = 60.0
"""Seconds for which nothing is given to an exporter that was late for the first time: a busy one may be."""
CALM: Final = 5.0
"""Seconds from one hand-over to the next, and since exporters came or went until the first one."""
_EACH_TIME: Final = 4
"""What part of its surplus an exporter gives back at a time: one of so many."""
_AT_LEAST: Final = 2
"""Accounts of a surplus that are given back at a time at least; and by how many two differ who are not levelled out."""


class Seen(NamedTuple):
    """What a look has told."""

    living: Collection[Replica]
    held: Mapping[str, int]
    """How many accounts each exporter polls, by its id."""
    free: Sequence[str]
    """Accounts that nobody polls, sorted."""
    ways: Ways = Ways()


class _Fell(NamedTuple):
    owner: str
    at: float
    held: int
    """How many accounts its new owner had then."""


class _PassedOver(NamedTuple):
    held: int
    """How many accounts it polled at least since."""
    left: set[str]
    """What it did not take."""
    until: float


class _Dealt:
    """Who has how many accounts while some are dealt out."""

    def __init__(self, ways: Ways, counts: dict[str, int]) -> None:
        self._ways = ways
        self.counts = counts
        self._gets: defaultdict[str, list[str]] = defaultdict(list)

    def against(self, name: str, owner: str) -> Against:
        """What speaks against that this one gets it, too."""
        return self._ways.against(name, owner, self._gets[owner])

    def receiver(self, name: str) -> str:
        """To whom it falls."""
        return self._least(name, self.counts)

    def who_may_reach(self, name: str, within: float) -> str | None:
        """To whom it falls of those that are known to have called since it cannot be reached, for so many seconds."""
        known = [owner for owner in self.counts if self._ways.is_known(name, owner, within)]
        return self._least(name, known) if known else None

    def _least(self, name: str, owners: Iterable[str]) -> str:
        return min(owners, key=lambda owner: (self.against(name, owner), self.counts[owner], owner))

    def give(self, name: str, owner: str) -> None:
        """It is this one's now."""
        self.counts[owner] += 1
        self._gets[owner].append(name)


class Shares:
    """One exporter's view of who gets what. ``owner`` is its id; times are monotonic seconds."""

    def __init__(self, owner: str, version: str) -> None:
        self._owner = owner
        self._version = version_of(version)
        self._living: frozenset[Replica] = frozenset()
        self._calm_since = -math.inf
        """Since when the same exporters live."""
        self._gave_at = -math.inf
        self._free_since: dict[str, float] = {}
        self._fell: dict[str, _Fell] = {}
        self._late: set[str] = set()
        """Those that did not take in time what fell to them, while something is free."""
        self._passed_over: dict[str, _PassedOver] = {}
        """Those that nothing is given to."""
        self._late_before: set[str] = set()
        """Those that were passed over once."""

    def may_take(self, seen: Seen) -> bool:
        """Whether this exporter takes anything: not while one with a newer version lives."""
        return all(version_of(one.version) <= self._version for one in seen.living)

    def take(self, seen: Seen, now: float) -> list[str]:
        """The free accounts that this exporter takes now."""
        self._look_at(seen, now)
        if not self.may_take(seen):
            return []
        takers = self._takers(seen)
        dealt = self._deal(seen, takers, now)
        if late := self._find_late(seen, now):
            self._late |= late
            self._pass_over(late, seen, now)
            dealt = self._deal(seen, takers, now)
        return [name for name in seen.free if dealt[name] == self._owner or now - self._free_since[name] >= LONGEST]

    def cannot_be_taken(self, names: Iterable[str]) -> None:
        """Nobody can take these, so it is no fault of those that did not."""
        for owner, passed_over in list(self._passed_over.items()):
            passed_over.left.difference_update(names)
            if not passed_over.left:
                self._trust(owner)

    def give(self, seen: Seen, mine: Collection[str], config: str, now: float) -> list[str]:
        """Those of ``mine`` that this exporter gives back now; to be asked after `take`, about the same look.

        ``config`` is the mark of its configuration: others would judge by other rules.
        """
        if seen.free or now - max(self._gave_at, self._calm_since) < CALM:
            return []
        others = {owner: seen.held.get(owner, 0) for owner in self._able(seen, config)}
        if not others or len(mine) - min(others.values()) < _AT_LEAST:
            return []
        fair = math.ceil((sum(others.values()) + len(mine)) / (len(others) + 1))
        surplus = len(mine) - fair
        if surplus <= 0:
            # All but a few have their share; of those that could give one, one does.
            most = max((count, owner) for owner, count in (*others.items(), (self._owner, len(mine))))
            surplus = 1 if most[1] == self._owner else 0
        given = []
        if surplus > 0:
            given = self._some_of(seen, mine, others, min(surplus, max(_AT_LEAST, math.ceil(surplus / _EACH_TIME))))
        if given:
            self._gave_at = now
        return given

    def _some_of(self, seen: Seen, mine: Collection[str], others: Mapping[str, int], number: int) -> list[str]:
        """Of ``mine`` so many at most that fall to one of the ``others`` who has fewer.

        One that is polled well may fare worse there, so what fails here is no reason to give it.
        """
        failing = {name for name in mine if seen.ways.fails(name)}
        dealt, given = _Dealt(seen.ways, {**others, self._owner: len(mine)}), list[str]()
        for name in sorted(mine, key=lambda name: (name in failing, name), reverse=True):
            if len(given) == number:
                break
            has = dealt.counts[self._owner]
            dealt.counts[self._owner] -= 1
            owner = dealt.receiver(name)
            counted = has if name in failing else has - len(failing.difference(given))
            # Where something speaks against all of them, what does so may change as soon as it is free.
            if counted - dealt.counts[owner] >= _AT_LEAST and not dealt.against(name, owner):
                dealt.give(name, owner)
                given.append(name)
            else:
                dealt.counts[self._owner] = has
        return sorted(given)

    def give_up(self, seen: Seen, unreached: Mapping[str, Unreached], config: str) -> list[str]:
        """Those of its accounts whose API this exporter cannot reach, and which it gives to somebody who may reach it.

        To be asked after `take`, about the same look; ``config`` as with `give`.
        """
        dealt, given = _Dealt(seen.ways, {owner: seen.held.get(owner, 0) for owner in self._able(seen, config)}), []
        for name, failing in sorted(unreached.items()):
            if failing.seconds < LAST_RESORT and not seen.ways.may_give_up(name, self._owner):
                continue
            owner = dealt.who_may_reach(name, failing.seconds)
            if owner is not None and dealt.against(name, owner) <= failing.bears:
                dealt.give(name, owner)
                given.append(name)
        return given

    def _able(self, seen: Seen, config: str) -> set[str]:
        """Those that are given something, if they have not too many."""
        same = {one.owner for one in seen.living if one.config == config}
        return (self._takers(seen) & same).difference(self._passed_over, [self._owner])

    def _look_at(self, seen: Seen, now: float) -> None:
        living = frozenset(seen.living)
        if living != self._living:
            self._living, self._calm_since = living, now
            self._passed_over.clear()
            self._late_before.clear()
        for owner, before in list(self._passed_over.items()):
            held = seen.held.get(owner, 0)
            if held > before.held:
                self._trust(owner)
            elif now >= before.until:
                del self._passed_over[owner]
            else:
                self._passed_over[owner] = before._replace(held=held)
        self._free_since = {name: self._free_since.get(name, now) for name in seen.free}
        if not seen.free:
            self._late.clear()

    def _deal(self, seen: Seen, takers: set[str], now: float) -> dict[str, str]:
        """What falls to whom. Of what one takes, nothing that falls to another one changes."""
        refuse = {owner for owner, passed_over in self._passed_over.items() if math.isinf(passed_over.until)}
        to = _Dealt(seen.ways, {owner: seen.held.get(owner, 0) for owner in takers.difference(self._late, refuse)})
        dealt: dict[str, str] = {}
        before, self._fell = self._fell, {}
        for name in seen.free:
            owner = to.receiver(name)
            to.give(name, owner)
            dealt[name] = owner
            fell = before.get(name)
            is_same = fell is not None and fell.owner == owner
            self._fell[name] = fell if fell and is_same else _Fell(owner, now, seen.held.get(owner, 0))
        return dealt

    def _find_late(self, seen: Seen, now: float) -> set[str]:
        """Those that took nothing in time though something fell to them."""
        return {
            fell.owner
            for fell in self._fell.values()
            if now - fell.at >= TAKES_WITHIN and seen.held.get(fell.owner, 0) <= fell.held and fell.owner != self._owner
        }

    def _pass_over(self, late: set[str], seen: Seen, now: float) -> None:
        for owner in late.difference(self._passed_over):
            held = seen.held.get(owner, 0)
            # Of one that polls accounts, others may only have seen at another moment what falls to whom.
            patience = FORGIVEN_AFTER / 4 if held else math.inf if owner in self._late_before else FORGIVEN_AFTER
            until = now + patience
            left = {name for name, fell in self._fell.items() if fell.owner == owner}
            self._passed_over[owner] = _PassedOver(held, left, until)
            self._late_before.add(owner)

    def _trust(self, owner: str) -> None:
        del self._passed_over[owner]
        self._late_before.discard(owner)

    def _takers(self, seen: Seen) -> set[str]:
        """Those that take accounts, this one among them unless a newer version lives."""
        versions = {one.owner: version_of(one.version) for one in seen.living} | {self._owner: self._version}
        newest = max(versions.values())
        leaving = {one.owner for one in seen.living if one.leaves}
        return {owner for owner, version in versions.items() if version == newest and owner not in leaving}


@functools.cache
def version_of(written: str) -> tuple[int, ...]:
    """The numbers of a version, to compare; what is no number ends it."""
    return tuple(int(part) for part in re.findall(r"\d+", written.partition("+")[0])[:3])
