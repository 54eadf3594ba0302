"""One gzip member from parts that were compressed before."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from isal import isal_zlib

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator


def accepts_gzip(accept_encoding: str | None) -> bool:
    """Tell whether gzip is acceptable and at least as welcome as no coding; an unreadable weight refuses its coding."""
    weights = dict(map(weighed, (accept_encoding or "").lower().split(",")))
    gzip = weights.get("gzip", weights.get("x-gzip", weights.get("*", 0.0)))
    return gzip > 0 and gzip >= weights.get("identity", 0.0)


def weighed(item: str) -> tuple[str, float]:
    """Take one item of an Accept header, in small letters, apart: what it names, and how welcome that is (0 to 1)."""
    coding, *parameters = (part.strip() for part in item.split(";"))
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name.strip() == "q":
            return coding, _weight(value.strip())
    return coding, 1.0


def _weight(value: str) -> float:
    try:
        weight = float(value)
    except ValueError:
        return 0.0
    return weight if 0 <= weight <= 1 else 0.0


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
