"""Sealed documents: JSON behind a checksum, so that a flipped bit is found and never shown as a number."""

from __future__ import annotations

import zlib
from typing import TypeVar

import msgspec

from patrolserver_exporter.store.errors import StoreCorrupt

T = TypeVar("T")
_SEAL_BYTES = 4
_encode = msgspec.json.Encoder().encode
_decoders: dict[object, msgspec.json.Decoder[object]] = {}


def seal(value: object) -> bytes:
    """A value as JSON behind its CRC-32."""
    body = _encode(value)
    return zlib.crc32(body).to_bytes(_SEAL_BYTES, "big") + body


def check(document: bytes) -> None:
    """``StoreCorrupt`` if a sealed document is not what was written."""
    if zlib.crc32(memoryview(document)[_SEAL_BYTES:]).to_bytes(_SEAL_BYTES, "big") != document[:_SEAL_BYTES]:
        raise StoreCorrupt("A stored document does not match its checksum.")


def unseal(document: bytes, type_: type[T]) -> T:
    """The value of a sealed document; ``StoreCorrupt`` if it is not what was written."""
    check(document)
    body = memoryview(document)[_SEAL_BYTES:]
    decoder = _decoders.get(type_)
    if decoder is None:
        decoder = _decoders.setdefault(type_, msgspec.json.Decoder(type_))
    try:
        return decoder.decode(body)  # type: ignore[return-value]  # The decoder is keyed by its type.
    except msgspec.MsgspecError as error:
        raise StoreCorrupt(f"A stored {getattr(type_, '__name__', type_)} cannot be read: {error}") from error
