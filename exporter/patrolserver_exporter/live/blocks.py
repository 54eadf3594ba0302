"""Up to 256 servers side by side, family by family, kept only as deflated text.

A column is one family in one block. It keeps no line that is in its piece: with the lengths of the lines it finds them
again in the inflated text. Inflating adds about half to what deflating costs anyway, and saves most of the memory that
kept lines take.
"""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING

from patrolserver_exporter.live.gzip_parts import EMPTY, Piece, deflate, inflate

if TYPE_CHECKING:
    from collections.abc import Sequence

BLOCK_ROWS = 256
"""Measured: the texts of larger blocks leave the sizes that malloc keeps at hand, which makes a scrape a third slower
after changes all over the fleet; smaller ones compress worse, and cost more when nothing changed.
"""

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

    def settle(self) -> None:
        """Deflate what changed, so that no line is kept beside."""
        for column in self._columns:
            column.piece()
