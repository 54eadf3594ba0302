"""A model of exporters that share a database, by a clock that is held."""

from __future__ import annotations

import heapq
import itertools
from collections import Counter
from typing import TYPE_CHECKING, NamedTuple

from patrolserver_exporter.store.replicas import LEAVES, LIVES_FOR, Replica
from patrolserver_exporter.sync.shares import Seen, Shares

if TYPE_CHECKING:
    from collections.abc import Sequence

LOOKS_EVERY = 0.25


def living(owner: str, *, config: str = "same", version: str = "2.0.0") -> Replica:
    """An exporter as a look tells of it."""
    return Replica(owner, "", "host", 1, version, config)


class Kind(NamedTuple):
    """What an exporter of the model is like."""

    can_take: bool
    phase: float
    """When it looks, within the time from one look to the next."""
    delay: float
    """Seconds from a look until what follows of it is done."""


class Event(NamedTuple):
    """Something happens to an exporter."""

    at: float
    exporter: int
    what: str


class Model:
    """A database with leases, and exporters that look at it."""

    def __init__(self, kinds: Sequence[Kind], accounts: int) -> None:
        self.kinds = kinds
        self.owners: dict[str, str | None] = {f"account{number:03}": None for number in range(accounts)}
        self.free_since = dict.fromkeys(self.owners, 0.0)
        self.longest_free = 0.0
        self.moves: list[float] = []
        self.up: dict[int, str] = {}
        self.shares: dict[str, Shares] = {}
        self.rows: dict[str, Replica] = {}
        self._todo: list[tuple[float, int, Sequence[object]]] = []
        self._order = itertools.count()
        self._ids = itertools.count()

    def later(self, at: float, *what: object) -> None:
        """Do that then."""
        heapq.heappush(self._todo, (at, next(self._order), what))

    def run(self, until: float) -> None:
        """Let time pass."""
        while self._todo and self._todo[0][0] <= until:
            now, _, (what, *arguments) = heapq.heappop(self._todo)
            getattr(self, str(what))(now, *arguments)
        self._judge(until)

    def start(self, now: float, number: int) -> None:
        """An exporter starts, with a new id, and looks from now on."""
        if number not in self.up:
            self.up[number] = owner = f"{number}-{now:.2f}-{next(self._ids)}"
            self.shares[owner] = Shares(owner, "2.0.0")
            self._change_rows(now, owner, living(owner))
            self.later(now + self.kinds[number].phase, "look", number, owner)

    def kill(self, now: float, number: int) -> None:
        """It is gone, and its leases run out."""
        if (owner := self.up.pop(number, None)) is not None:
            self.later(now + LIVES_FOR, "end", owner)

    def leave(self, now: float, number: int) -> None:
        """It gives everything back, and is there for a moment longer."""
        if (owner := self.up.pop(number, None)) is not None:
            self._free(now, [name for name, has in self.owners.items() if has == owner])
            self._change_rows(now, owner, living(owner, config=LEAVES))
            self.later(now + 2.0, "end", owner)

    def end(self, now: float, owner: str) -> None:
        """Nothing of it is left."""
        self._free(now, [name for name, has in self.owners.items() if has == owner])
        self._change_rows(now, owner, None)

    def look(self, now: float, number: int, owner: str) -> None:
        """An exporter looks; what it does comes a moment later."""
        if self.up.get(number) == owner:
            self.later(now + self.kinds[number].delay, "act", number, owner, self.seen(now))
            self.later(now + LOOKS_EVERY, "look", number, owner)

    def seen(self, _now: float) -> Seen:
        """What a look finds."""
        free = sorted(name for name, has in self.owners.items() if has is None)
        held = Counter(has for has in self.owners.values() if has is not None)
        return Seen(list(self.rows.values()), held, free)

    def act(self, now: float, number: int, owner: str, look: Seen) -> None:
        """It takes and gives, as it has seen it; the leases decide."""
        if self.up.get(number) != owner:
            return
        mine = [name for name, has in self.owners.items() if has == owner]
        look = look._replace(held={**look.held, owner: len(mine)}, free=[n for n in look.free if n not in mine])
        names = self.shares[owner].take(look, now)
        if self.kinds[number].can_take:
            for name in names:
                if self.owners[name] is None:
                    self._judge(now)
                    self.owners[name] = owner
                    self.moves.append(now)
                    del self.free_since[name]
                    self.took(now, number, name)
        if not names:
            self._free(now, self.give(now, owner, look, mine))

    def took(self, now: float, number: int, name: str) -> None:
        """An exporter polls this account from now on."""

    def give(self, now: float, owner: str, look: Seen, mine: Sequence[str]) -> list[str]:
        """What an exporter gives back of its accounts."""
        return self.shares[owner].give(look, mine, "same", now)

    def _free(self, now: float, names: Sequence[str]) -> None:
        for name in names:
            self.owners[name] = None
            self.free_since[name] = now

    def _change_rows(self, now: float, owner: str, row: Replica | None) -> None:
        self._judge(now)
        self.rows.pop(owner, None)
        if row is not None:
            self.rows[owner] = row

    def _judge(self, now: float) -> None:
        """How long the longest account is free for now that somebody could have taken."""
        able = [float(owner.split("-")[1]) for number, owner in self.up.items() if self.kinds[number].can_take]
        if able and self.free_since:
            since = max(min(able), min(self.free_since.values()))
            self.longest_free = max(self.longest_free, now - since)

    def loads(self) -> list[int]:
        """How many accounts each has that can take any."""
        held = Counter(self.owners.values())
        return [held[owner] for number, owner in sorted(self.up.items()) if self.kinds[number].can_take]
