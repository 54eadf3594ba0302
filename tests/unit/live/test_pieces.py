from __future__ import annotations

import gzip
import zlib

from hypothesis import given
from hypothesis import strategies as st

from patrolserver_exporter.live.encoding import EMPTY, batches, deflate, gzip_member, inflate, plain

texts = st.lists(st.binary(max_size=2_000), max_size=8)


@given(texts)
def test_member_is_the_pieces_in_a_row(parts: list[bytes]) -> None:
    """A reader that stops after the first gzip member has read everything, and the checksum holds."""
    body = b"".join(gzip_member(map(deflate, parts)))
    reader = zlib.decompressobj(31)
    assert reader.decompress(body) == b"".join(parts)
    assert reader.eof
    assert reader.unused_data == b""
    assert gzip.decompress(body) == b"".join(parts)


@given(texts)
def test_plain_is_the_same_text(parts: list[bytes]) -> None:
    """A client without gzip reads what the others read."""
    assert b"".join(plain(map(deflate, parts))) == b"".join(parts)


@given(st.binary(max_size=300_000))
def test_inflate_undoes_deflate(text: bytes) -> None:
    """A text survives being compressed."""
    piece = deflate(text)
    assert inflate(piece) == text
    assert piece.length == len(text)
    assert piece.crc == zlib.crc32(text)


def test_nothing_takes_no_bytes() -> None:
    """An empty text is no piece at all."""
    assert deflate(b"") == EMPTY


@given(st.lists(st.binary(max_size=50_000), max_size=20))
def test_batches_keep_the_bytes(parts: list[bytes]) -> None:
    """Joining for the sends neither loses nor reorders, and all but the last are large."""
    joined = list(batches(parts))
    assert b"".join(joined) == b"".join(parts)
    assert all(len(batch) >= 65_536 for batch in joined[:-1])
