"""How accounts fall to the exporters that share a database; many of them in a model, by a clock that is held."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tests.unit.sync.sharing import LOOKS_EVERY, Event, Kind, Model, living

from patrolserver_exporter.store.replicas import LEAVES
from patrolserver_exporter.sync.shares import CALM, FORGIVEN_AFTER, LONGEST, TAKES_WITHIN, Seen, Shares, version_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from patrolserver_exporter.store.replicas import Replica

SETTLED = 180.0
"""Seconds after which whatever moved has come to rest: a handful of hand-overs for each of the exporters."""


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


def test_who_polls_accounts_is_trusted_again_soon() -> None:
    """Each time: of such a one others may only have seen at another moment what falls to whom."""
    shares, free, none = Shares("a", "2.0.0"), seen("x", a=8, b=1), seen(a=9, b=1)
    for at in (0.0, 100.0):
        shares.take(free, at)
        shares.take(free, at + TAKES_WITHIN)
        for later, gives in ((FORGIVEN_AFTER / 4 - 0.01, 0), (FORGIVEN_AFTER / 4, 2)):
            shares.take(none, at + TAKES_WITHIN + later)
            assert len(shares.give(none, MINE[:9], "same", at + TAKES_WITHIN + later)) == gives


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


_QUICK = Kind(can_take=True, phase=0, delay=0)
_SLOW = Kind(can_take=True, phase=0.12, delay=0.17)
_IDLE = Kind(can_take=False, phase=0, delay=0)


@pytest.mark.slow
# Whoever gave one back had it again before any other took it.
@example([_SLOW, _IDLE, _IDLE, _QUICK, _IDLE, _IDLE], 6, [])
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
