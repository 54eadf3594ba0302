"""Few of many cases of a test."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Mapping

T = TypeVar("T")


def spread(cases: Mapping[T, str], few: int) -> set[T]:
    """At most so many cases of each test, from all over its table, the first one among them.

    ``cases`` have the names that pytest gives them: a test's, and behind it what is special in brackets.
    """
    of: dict[str, list[T]] = defaultdict(list)
    for case, name in cases.items():
        of[name.partition("[")[0]].append(case)
    return {case for table in of.values() for case in table[:: -(-len(table) // few)]}
