"""Finished parts of one gzip member.

A piece is raw deflate data that ends with a full flush: it refers to nothing before it, so pieces can be made at
different times and stand in any order. A scrape puts a header before them, an empty final block and the trailer behind
them, and combines their CRCs arithmetically. It has to be *one* member: curl, wget, httpx and Python's zlib stop
silently after the first.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from isal import isal_zlib

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_RAW = -15
_LEVEL = 2
_HEADER = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff"
"""No name, no time, unknown system: the same text always makes the same bytes."""
_FINAL_BLOCK = b"\x03\x00"
_SIZE_MODULUS = 2**32
_BATCH = 65_536


class Piece(NamedTuple):
    """Some text, deflated."""

    data: bytes
    crc: int
    """CRC-32 of the text."""
    length: int
    """Bytes of the text."""


EMPTY = Piece(b"", 0, 0)


def deflate(text: bytes) -> Piece:
    """Compress a text so that it can stand anywhere in a member; no text takes no bytes."""
    if not text:
        return EMPTY
    compressor = isal_zlib.compressobj(_LEVEL, isal_zlib.DEFLATED, _RAW)
    data = compressor.compress(text) + compressor.flush(isal_zlib.Z_FULL_FLUSH)
    return Piece(data, isal_zlib.crc32(text), len(text))


def inflate(piece: Piece) -> bytes:
    """Give the text back."""
    if not piece.length:
        return b""
    # With room for one byte more than needed the result is not moved to a larger buffer, which would cost more than
    # the inflating.
    return isal_zlib.decompress(piece.data + _FINAL_BLOCK, _RAW, piece.length + 1)


def gzip_member(pieces: Iterable[Piece]) -> list[bytes]:
    """Make one gzip member of the pieces, as the parts to be sent one after the other."""
    parts = [_HEADER]
    crc = length = 0
    combine = isal_zlib.crc32_combine
    for data, piece_crc, piece_length in pieces:
        parts.append(data)
        crc = combine(crc, piece_crc, piece_length)
        length += piece_length
    trailer = crc.to_bytes(4, "little") + (length % _SIZE_MODULUS).to_bytes(4, "little")
    parts.append(_FINAL_BLOCK + trailer)
    return parts


def batches(parts: Iterable[bytes]) -> Iterator[bytes]:
    """Join small parts while they are sent: many sends cost more than the copies, one join of all costs memory."""
    batch: list[bytes] = []
    size = 0
    for part in parts:
        batch.append(part)
        size += len(part)
        if size >= _BATCH:
            yield b"".join(batch)
            batch, size = [], 0
    if batch:
        yield b"".join(batch)


def plain(pieces: Iterable[Piece]) -> Iterator[bytes]:
    """Give the text of the pieces one by one, so that the whole text is never in memory."""
    return (inflate(piece) for piece in pieces)
