"""The worst of many, in bounded memory: what an answer lists of a large fleet."""

from __future__ import annotations

from operator import itemgetter
from typing import Generic, TypeVar

T = TypeVar("T")
_ORDER = itemgetter(0, 1)


class Worst(Generic[T]):
    """Things with a badness, the least being the worst; equally bad ones stay in the order in which they came.

    It keeps all of them until `keep` says how many are enough. ``count`` counts the others, too.
    """

    def __init__(self) -> None:
        self.count = 0
        self._kept: list[tuple[tuple[object, ...], int, T]] = []

    def add(self, badness: tuple[object, ...], place: int, one: T) -> None:
        """Add one; ``place`` grows from one to the next."""
        self.count += 1
        self._kept.append((badness, place, one))

    def keep(self, most: int) -> None:
        """Forget all but the worst, so that never more than twice as many are kept."""
        if len(self._kept) > 2 * most:
            self._kept.sort(key=_ORDER)
            del self._kept[most:]

    def entries(self) -> list[tuple[tuple[object, ...], int, T]]:
        """What is kept, the worst first, with badness and place."""
        return sorted(self._kept, key=_ORDER)

    def first(self, most: int) -> list[T]:
        """The worst."""
        return [one for _, _, one in self.entries()[:most]]


def merged(*parts: Worst[T]) -> list[T]:
    """What several keep, the worst first."""
    entries = [entry for part in parts for entry in part.entries()]
    return [one for _, _, one in sorted(entries, key=_ORDER)]
