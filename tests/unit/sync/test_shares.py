"""How accounts fall to the exporters that share a database; many of them in a model, by a clock that is held."""

from __future__ import annotations

import heapq
import itertools
from collections import Counter
from typing import TYPE_CHECKING, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from patrolserver_exporter.store.replicas import LEAVES, LIVES_FOR, Replica
from patrolserver_exporter.sync.shares import CALM, FORGIVEN_AFTER, LONGEST, TAKES_WITHIN, Seen, Shares, version_of

if TYPE_CHECKING:
    from collections.abc import Sequence

LOOKS_EVERY = 0.25
SETTLED = 180.0
"""Seconds after which whatever moved has come to rest: a handful of hand-overs for each of the exporters."""


def living(owner: str, *, config: str = "same", version: str = "2.0.0") -> Replica:
    """An exporter as a look tells of it."""
    return Replica(owner, "", "host", 1, version, config)


def seen(free: Sequence[str] = (), /, **held: int) -> Seen:
    """A look in which each of these exporters polls so many accounts."""
    return Seen([living(owner) for owner in held], held, sorted(free))


def beside(other: Replica, free: Sequence[str] = (), *, a: int, version: str = "2.0.0") -> Seen:
    """A look of ``a``, which polls so many accounts, while another one lives that polls none."""
    return Seen([living("a", version=version), other], {"a": a}, sorted(free))


def test_who_is_alone_takes_everything_at_once() -> None:
    """Also while it holds some already."""
    shares = Shares("a", "2.0.0")
    assert shares.take(seen(["w", "x", "y"], a=5), 0.0) == ["w", "x", "y"]


def test_each_takes_its_part_at_once() -> None:
    """The parts are disjoint, leave nothing, and make all have the same."""
    look = seen("uvwxyz", a=0, b=3, c=1)
    parts = [Shares(owner, "2.0.0").take(look, 0.0) for owner in "abc"]
    assert sorted(itertools.chain(*parts)) == list("uvwxyz")
    assert [len(part) for part in parts] == [4, 0, 2]


def test_what_one_has_taken_changes_nothing_for_the_others() -> None:
    """Whoever looks a moment later deals on from there."""
    first = seen("uvwxyz", a=0, b=1, c=0)
    taken, part = Shares("a", "2.0.0").take(first, 0.0), Shares("b", "2.0.0").take(first, 0.0)
    later = seen([name for name in "uvwxyz" if name not in taken], a=len(taken), b=1, c=0)
    assert Shares("b", "2.0.0").take(later, 0.2) == part


def test_what_nobody_takes_goes_to_the_others() -> None:
    """Within the time that each has for it."""
    shares, look = Shares("a", "2.0.0"), seen("wxyz", a=0, b=0)
    assert shares.take(look, 0.0) == ["w", "y"]
    left = seen("xz", a=2, b=0)
    assert shares.take(left, TAKES_WITHIN - 0.01) == []
    assert shares.take(left, TAKES_WITHIN) == ["x", "z"]
    # The next time it falls to that one again: others may not know that it was late.
    assert shares.take(seen(a=4, b=0), 2.0) == []
    assert shares.take(seen("mno", a=4, b=0), 10.0) == []


def test_nothing_is_taken_while_a_newer_version_lives() -> None:
    """The newer one takes all of it at once."""
    look = beside(living("b", version="2.0.10"), "xyz", a=3, version="2.0.9")
    assert Shares("a", "2.0.9").take(look, 0.0) == []
    assert Shares("b", "2.0.10").take(look, 0.0) == ["x", "y", "z"]


def test_nothing_falls_to_one_that_leaves() -> None:
    """It is still there, and answers for a moment, but has given its accounts away."""
    look = beside(living("b", config=LEAVES), "xyz", a=3)
    assert Shares("a", "2.0.0").take(look, 0.0) == ["x", "y", "z"]


def test_what_is_free_for_long_is_taken_by_whoever_can() -> None:
    """However it is dealt out meanwhile."""
    shares = Shares("a", "2.0.0")
    for turn in range(5):
        # Each time it falls to a newcomer that dies at once.
        assert shares.take(seen("x", a=9, **{f"n{turn}": 0}), turn * 0.7) == []
    assert shares.take(seen("x", a=9, z=0), LONGEST) == ["x"]


MINE = [f"m{number}" for number in range(9)]


def given_back(look: Seen, *, mine: Sequence[str] = MINE, version: str = "2.0.0", after: float = CALM) -> list[str]:
    """What ``a`` gives back when it has seen the same for so long."""
    shares = Shares("a", version)
    shares.take(look, 0.0)
    shares.take(look, after)
    return shares.give(look, mine, "same", after)


def test_who_has_too_many_gives_some_back() -> None:
    """A few at a time, and not again before the calm has passed."""
    look, shares = seen(a=9, b=0), Shares("a", "2.0.0")
    shares.take(look, 0.0)
    assert shares.give(look, MINE, "same", CALM - 0.1) == []
    assert shares.give(look, MINE, "same", CALM) == ["m7", "m8"]
    assert shares.give(seen(a=7, b=2), MINE[:7], "same", 2 * CALM - 0.1) == []
    assert shares.give(seen(a=7, b=2), MINE[:7], "same", 2 * CALM) == ["m5", "m6"]
    assert shares.give(seen(a=5, b=4), MINE[:5], "same", 3 * CALM) == []


@pytest.mark.parametrize(
    "look",
    [
        seen(a=9),
        seen(a=9, b=8),
        seen("x", a=9, b=0),
        beside(living("b", config="other"), a=9),
        beside(living("b", config=LEAVES), a=9),
        beside(living("b", version="1.9.9"), a=9),
    ],
    ids=["alone", "one fewer", "something is free", "another configuration", "leaves", "older"],
)
def test_nothing_is_given_to_who_could_not_or_need_not_take_it(look: Seen) -> None:
    """Nor while what was given before is not taken yet."""
    assert given_back(look) == []


def test_a_newer_version_is_given_its_share() -> None:
    """So that an upgrade of one after the other levels out as well."""
    look = beside(living("b", version="2.0.1"), a=9)
    assert given_back(look) == ["m7", "m8"]


def test_who_did_not_take_what_was_given_gets_nothing_more() -> None:
    """After one more try for as long as the same exporters live."""
    look, given, shares = seen(a=9, b=0), seen(["m7", "m8"], a=7, b=0), Shares("a", "2.0.0")
    shares.take(look, 0.0)
    for at in (CALM, CALM + TAKES_WITHIN + FORGIVEN_AFTER):
        shares.take(look, at - 0.1)
        assert shares.give(look, MINE, "same", at - 0.1) == []
        shares.take(look, at)
        assert shares.give(look, MINE, "same", at) == ["m7", "m8"]
        assert shares.take(given, at) == []
        assert shares.take(given, at + TAKES_WITHIN) == ["m7", "m8"]
    for number in range(2, 100):
        shares.take(look, 100.0 * number)
        assert shares.give(look, MINE, "same", 100.0 * number) == []
    shares.take(seen(a=9, b=0, c=0), 1e5)
    assert shares.give(seen(a=9, b=0, c=0), MINE, "same", 1e5 + CALM) == ["m7", "m8"]


def refused() -> Shares:
    """Of ``a``, who has seen that ``b`` is late twice."""
    shares, free, none = Shares("a", "2.0.0"), seen("x", a=8, b=0), seen(a=9, b=0)
    for at in (0.0, 100.0):
        shares.take(free, at)
        shares.take(free, at + TAKES_WITHIN)
        shares.take(none, at + 1.0)
    return shares


@pytest.mark.parametrize(
    ("look", "gives"),
    [(seen(a=9, b=0), 0), (seen(a=8, b=1), 2), (seen(a=9, b=0, c=0), 2)],
    ids=["nothing happens", "takes one after all", "others live"],
)
def test_who_was_late_is_trusted_again(look: Seen, gives: int) -> None:
    """Once it is seen to take something, or when exporters come or go."""
    shares = refused()
    for at in (200.0, 1e4):
        shares.take(look, at)
    assert len(shares.give(look, MINE[: look.held["a"]], "same", 1e4)) == gives


def test_what_is_damaged_is_nobodys_fault() -> None:
    """One that could not take it is given its share all the same."""
    shares = refused()
    shares.cannot_be_taken(["x"])
    shares.take(seen(a=9, b=0), 200.0)
    assert shares.give(seen(a=9, b=0), MINE, "same", 200.0) == ["m7", "m8"]


def test_of_several_that_have_one_too_many_one_gives() -> None:
    """Where all gave, some would have to take theirs back."""
    look = seen(a=3, b=3, c=3, d=1)
    gave = [shares_of(owner, look).give(look, MINE[:3], "same", CALM) for owner in "abc"]
    assert sorted(map(len, gave)) == [0, 0, 1]


def shares_of(owner: str, look: Seen) -> Shares:
    """Of one that has seen that."""
    shares = Shares(owner, "2.0.0")
    shares.take(look, 0.0)
    return shares


@pytest.mark.parametrize(
    ("written", "numbers"),
    [("1.0.0", (1, 0, 0)), ("2.1.3.dev4+gabc", (2, 1, 3)), ("0.10.1", (0, 10, 1)), ("", ())],
)
def test_versions_are_compared_by_their_numbers(written: str, numbers: tuple[int, ...]) -> None:
    """What follows the third is left aside."""
    assert version_of(written) == numbers


# Many of them


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
            self.up[number] = owner = f"{number}-{now:.2f}"
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
            free = sorted(name for name, has in self.owners.items() if has is None)
            held = Counter(has for has in self.owners.values() if has is not None)
            look = Seen(list(self.rows.values()), held, free)
            self.later(now + self.kinds[number].delay, "act", number, owner, look)
            self.later(now + LOOKS_EVERY, "look", number, owner)

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
        if not names:
            self._free(now, self.shares[owner].give(look, mine, "same", now))

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


KINDS = st.builds(
    Kind,
    can_take=st.sampled_from([True, True, True, False]),
    phase=st.integers(0, 24).map(lambda n: n / 100),
    delay=st.integers(0, 25).map(lambda n: n / 100),
)
EVENTS = st.builds(
    Event,
    at=st.integers(0, 3000).map(lambda n: n / 100),
    exporter=st.integers(0, 5),
    what=st.sampled_from(["start", "start", "kill", "leave"]),
)


@settings(max_examples=20)
@given(st.lists(KINDS, min_size=1, max_size=6), st.integers(1, 24), st.lists(EVENTS, max_size=14))
def test_all_come_to_have_the_same_and_then_nothing_moves(
    kinds: list[Kind], accounts: int, events: list[Event]
) -> None:
    """Whoever starts, is killed or leaves, whenever each looks, and though some never take what falls to them.

    Meanwhile no account is free for long that somebody could have taken.
    """
    model = Model(kinds, accounts)
    for number in range(len(kinds)):
        model.later(0.0, "start", number)
    for event in events:
        if event.exporter < len(kinds):
            model.later(event.at, event.what, event.exporter)
    model.run(SETTLED)
    loads, moved = model.loads(), len(model.moves)
    if loads:
        assert sum(loads) == accounts
        assert max(loads) - min(loads) <= 1
    assert model.longest_free <= LONGEST + 3 * LOOKS_EVERY
    model.run(SETTLED + 60.0)
    assert len(model.moves) == moved


def test_three_hundred_accounts_level_out_within_two_minutes() -> None:
    """One has all of them when two others start; each account moves once at most."""
    model = Model([Kind(can_take=True, phase=n / 10, delay=0.1) for n in range(3)], 300)
    model.later(0.0, "start", 0)
    model.run(1.0)
    assert model.loads() == [300]
    for number in (1, 2):
        model.later(1.0, "start", number)
    model.run(121.0)
    assert model.loads() == [100, 100, 100]
    assert len(model.moves) == 300 + 200
