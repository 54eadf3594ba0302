"""Lines that are kept finished: a change costs the columns it touches, a scrape what changed since the last one.

A block is some rows side by side, family by family, kept only as deflated text. A column is one family in one block. It
keeps no line that is in its piece: with the lengths of the lines it finds them again in the inflated text. Inflating
adds about half to what deflating costs anyway, and saves most of the memory that kept lines take.
"""

from __future__ import annotations

import heapq
from array import array
from threading import Lock
from typing import TYPE_CHECKING, Generic, TypeVar

from prometheus_client.core import Metric

from patrolserver_exporter.live.encoding import EMPTY, Piece, deflate, inflate

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from patrolserver_exporter.live.encoding import Format
    from patrolserver_exporter.live.families import SeriesFamily

K = TypeVar("K")
T = TypeVar("T")

_HASH_OF_NOTHING = hash(b"")


class Column:
    """One family's lines in one block, a row a server. A row may be empty, or hold several lines."""

    __slots__ = ("_changed", "_hashes", "_lengths", "_piece")

    def __init__(self) -> None:
        self._lengths = array("I")
        self._hashes = array("q")
        self._changed: dict[int, bytes] = {}
        self._piece = EMPTY

    def grow(self) -> None:
        """Add an empty row."""
        self._hashes.append(_HASH_OF_NOTHING)
        self._lengths.append(0)

    def load(self, lines: Sequence[bytes]) -> None:
        """Set all rows of an empty column at once, for a third of what it costs one by one."""
        self._lengths = array("I", map(len, lines))
        self._hashes = array("q", map(hash, lines))
        self._piece = deflate(b"".join(lines))

    def put(self, row: int, lines: bytes) -> bool:
        """Set a row, and tell whether that changed it.

        What was there is known by its 64-bit hash, keyed at random in each process: a change goes unseen once in 2⁶⁴.
        """
        fingerprint = hash(lines)
        if self._hashes[row] == fingerprint:
            return False
        self._hashes[row] = fingerprint
        self._changed[row] = lines
        return True

    def lines(self, row: int) -> bytes:
        """What a row holds."""
        if row in self._changed:
            return self._changed[row]
        begin = sum(self._lengths[:row])
        return inflate(self._piece)[begin : begin + self._lengths[row]]

    def piece(self) -> Piece:
        """All rows, deflated."""
        if self._changed:
            self._piece = deflate(self._text())
            self._changed = {}
        return self._piece

    def _text(self) -> bytes:
        lengths, changed = self._lengths, self._changed
        kept = memoryview(inflate(self._piece))
        parts: list[bytes | memoryview] = []
        begin = next_row = 0
        for row in sorted(changed):
            end = begin + sum(lengths[next_row:row])
            parts += (kept[begin:end], changed[row])
            begin = end + lengths[row]
            next_row = row + 1
            lengths[row] = len(changed[row])
        parts.append(kept[begin:])
        return b"".join(parts)


class Block:
    """Some servers' lines in all families."""

    __slots__ = ("_columns",)

    def __init__(self, families: int) -> None:
        self._columns = tuple(Column() for _ in range(families))

    def grow(self) -> None:
        """Add an empty row to each family."""
        for column in self._columns:
            column.grow()

    def load(self, rows: Sequence[Sequence[bytes]]) -> None:
        """Set all rows of an empty block at once, each with one item a family."""
        for column, lines in zip(self._columns, zip(*rows, strict=True), strict=True):
            column.load(lines)

    def put(self, row: int, lines: Sequence[bytes]) -> int:
        """Set a server's lines, one item a family; how many families that changed."""
        return sum([column.put(row, text) for column, text in zip(self._columns, lines, strict=True)])

    def put_one(self, row: int, family: int, lines: bytes) -> bool:
        """Set a server's lines in one family, and tell whether that changed them."""
        return self._columns[family].put(row, lines)

    def lines(self, row: int, family: int) -> bytes:
        """A server's lines in one family."""
        return self._columns[family].lines(row)

    def clear(self, row: int) -> int:
        """Take a server's lines out; from how many families."""
        return sum([column.put(row, b"") for column in self._columns])

    def piece(self, family: int) -> Piece:
        """One family's lines of all servers here."""
        return self._columns[family].piece()

    def deflate_changed(self) -> None:
        """Deflate what changed, so that no line is kept beside."""
        for column in self._columns:
            column.piece()


class Rows(Generic[K]):
    """Some families' lines, a row for each key. For one thread at a time."""

    def __init__(self, families: Sequence[SeriesFamily], block_rows: int = 32) -> None:
        self._families = tuple(families)
        self._headers = {
            openmetrics: tuple(deflate(family.header(openmetrics=openmetrics)) for family in families)
            for openmetrics in (False, True)
        }
        self._block_rows = block_rows
        self._blocks: list[Block] = []
        self._places: dict[K, int] = {}
        self._free: list[int] = []
        self._used = 0

    def put(self, key: K, lines: Iterable[str], first: int = 0) -> None:
        """Set a row's lines in the families from the ``first`` on; the row is new if the key is.

        A lone surrogate, which UTF-8 cannot carry, becomes a ``?``.
        """
        place = self._places.get(key)
        if place is None:
            place = self._places[key] = self._take_place()
        block, row = self._blocks[place // self._block_rows], place % self._block_rows
        for family, text in enumerate(lines, first):
            block.put_one(row, family, text.encode("utf-8", "replace"))

    def remove(self, key: K) -> None:
        """End a row; nothing happens when there is none."""
        place = self._places.pop(key, None)
        if place is not None:
            self._blocks[place // self._block_rows].clear(place % self._block_rows)
            heapq.heappush(self._free, place)

    def pieces(self, chosen: Format, names: frozenset[str] | None) -> Iterator[Piece]:
        """All families with their headers; with ``names`` only samples so named, and no family without one."""
        for index, family in enumerate(self._families):
            if names is not None and not names & family.sample_names:
                continue
            pieces = [piece for block in self._blocks if (piece := block.piece(index)).length]
            if names is not None and not family.sample_names <= names:
                pieces = [deflate(_named(inflate(piece), names)) for piece in pieces]
            # The library shows headers without samples, but not when it was asked for names.
            if pieces or names is None:
                yield self._headers[chosen.openmetrics][index]
                yield from pieces

    def _take_place(self) -> int:
        if self._free:
            return heapq.heappop(self._free)
        if self._used == len(self._blocks) * self._block_rows:
            self._blocks.append(Block(len(self._families)))
        self._blocks[-1].grow()
        self._used += 1
        return self._used - 1


def _named(text: bytes, names: frozenset[str]) -> bytes:
    wanted = tuple(f"{name}{{".encode() for name in names)
    return b"".join([line for line in text.splitlines(keepends=True) if line.startswith(wanted)])


class SnapshotRows(Generic[T]):
    """Shows what is so at the time of a scrape: it asks, and makes lines of what is not as it was the last time.

    ``key`` tells the snapshot's items apart; ``lines`` makes an item's lines, one text a family. Scrapes may come from
    several threads.
    """

    def __init__(
        self,
        families: Sequence[SeriesFamily],
        snapshot: Callable[[], Iterable[T]],
        *,
        key: Callable[[T], object],
        lines: Callable[[T], Iterable[str]],
    ) -> None:
        self._families = tuple(families)
        self._snapshot = snapshot
        self._key = key
        self._lines = lines
        self._lock = Lock()
        self._rows: Rows[object] = Rows(families)
        self._shown: dict[object, T] = {}

    def describe(self) -> Iterable[Metric]:
        """The families, without samples."""
        return describe(self._families)

    def pieces(self, chosen: Format, names: frozenset[str] | None) -> list[Piece]:
        """Their series now."""
        with self._lock:
            found = {self._key(one): one for one in self._snapshot()}
            for key in self._shown.keys() - found.keys():
                self._rows.remove(key)
            for key, one in found.items():
                if key not in self._shown or self._shown[key] != one:
                    self._rows.put(key, self._lines(one))
            self._shown = found
            return list(self._rows.pieces(chosen, names))


def describe(families: Iterable[SeriesFamily]) -> list[Metric]:
    """Families as the client library's registry wants them: without samples."""
    return [Metric(family.name, family.help, family.kind) for family in families]
