"""Few of many cases of a test."""

from __future__ import annotations

import os
from collections import defaultdict
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

T = TypeVar("T")


TURN = int(os.environ.get("PATROLSERVER_TURN") or 0)
"""Which of the cases are taken where only few are: with the next number the next ones. CI counts commits with it."""
TURNS = 3
"""Commits in which each long file with the mark ``turn`` is made once."""


def few_of(cases: Sequence[T], few: int, turn: int = TURN) -> Sequence[T]:
    """At most so many of these, from all over them; in turn each is taken, with turn 0 the first among them."""
    step = max(1, -(-len(cases) // few))
    return cases[turn % step :: step]


def turn_of(place: int | None, turn: int = TURN) -> int | None:
    """Whose turn it is in a file that is made once in `TURNS` commits; ``None``: not in this one.

    ``place`` is that of the mark ``turn``; without it the file is always made.
    """
    if place is None:
        return turn
    return turn // TURNS if turn % TURNS == place else None


def spread(cases: Mapping[T, str], few: int, turn: int = TURN) -> set[T]:
    """At most so many cases of each test.

    ``cases`` have the names that pytest gives them: a test's, and behind it what is special in brackets.
    """
    of: dict[str, list[T]] = defaultdict(list)
    for case, name in cases.items():
        of[name.partition("[")[0]].append(case)
    return {case for table in of.values() for case in few_of(table, few, turn)}
