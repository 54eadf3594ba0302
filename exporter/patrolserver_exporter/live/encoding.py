"""How series are written: snapshots as metrics, the text formats, and one gzip member from parts compressed before."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Generic, NamedTuple, Protocol, TypeVar

from isal import isal_zlib
from prometheus_client.core import Metric
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, choose_encoder

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator

    from prometheus_client.registry import Collector


T = TypeVar("T")
EOF = b"# EOF\n"
"""Ends an OpenMetrics exposition."""
_CREATED_KINDS = frozenset({"counter", "histogram", "summary"})
_ESCAPED_NAMES = re.compile(r"\bescaping=(dots|values)\b")
_PLAIN_TEXT = re.compile(r"(?:^|,)\s*(?:\*/\*|text/\*|text/plain(?!\s*;[^,]*version=(?!0\.0\.4)))")
"""Matches media ranges that plain text 0.0.4 satisfies."""


class Format(NamedTuple):
    """What was agreed with a client."""

    content_type: str
    openmetrics: bool
    encode: Callable[[Collector], bytes]
    """The client library's own encoder."""


def negotiate(accept: str | None) -> Format:
    """Choose text 0.0.4, text 1.0.0 or OpenMetrics by the Accept header, as the client library does.

    Three differences. Weights count: what is refused (``q=0``) is never sent, and what is liked less only when nothing
    better is known. A version that is not a number makes the library raise; here it gets the plain text format. And the
    escapings ``dots`` and ``values`` are answered as ``underscores``, as the Content-Type then says: no name here needs
    escaping, while the library's ``dots`` would double every underscore in every name.
    """
    for header in _by_weight(_ESCAPED_NAMES.sub("escaping=underscores", (accept or "").lower())):
        encode, content_type = _choose(header)
        if content_type != CONTENT_TYPE_PLAIN_0_0_4 or _PLAIN_TEXT.search(header):
            return Format(content_type, content_type.startswith("application/openmetrics-text"), encode)
    encode, content_type = choose_encoder("")
    return Format(content_type, openmetrics=False, encode=encode)


def _choose(header: str) -> tuple[Callable[[Collector], bytes], str]:
    try:
        return choose_encoder(header)
    except TypeError:  # The library compares the words of such a version with numbers.
        return choose_encoder("")


def _by_weight(header: str) -> list[str]:
    """The header's media ranges that are not refused: those of one weight together, the most welcome first."""
    ranges: dict[float, list[str]] = {}
    for item in header.split(","):
        _, weight = weighed(item)
        ranges.setdefault(weight, []).append(item)
    return [",".join(ranges[weight]) for weight in sorted(ranges, reverse=True) if weight > 0]


def encode(metrics: Iterable[Metric], chosen: Format, names: Collection[str] | None) -> bytes:
    """Render families, with ``names`` only samples so named, and without the mark that ends an exposition."""
    return chosen.encode(_Shown(metrics, names)).removesuffix(EOF)


class _Shown:
    """Families without ``_created`` samples, and restricted by name as the library's restricted registry does.

    The library could leave ``_created`` out itself, but only by an environment variable or a module-wide switch, which
    would reach into other users of it in the process.
    """

    def __init__(self, metrics: Iterable[Metric], names: Collection[str] | None) -> None:
        self._metrics = metrics
        self._names = names

    def collect(self) -> Iterator[Metric]:
        for metric in self._metrics:
            created = f"{metric.name}_created" if metric.type in _CREATED_KINDS else None
            samples = [sample for sample in metric.samples if sample.name != created]
            if self._names is not None:
                samples = [sample for sample in samples if sample.name in self._names]
                if not samples:
                    continue
            shown = Metric(metric.name, metric.documentation, metric.type)
            shown.samples = samples
            yield shown


def accepts_gzip(accept_encoding: str | None) -> bool:
    """Whether gzip is acceptable and at least as welcome as no coding; an unreadable weight refuses its coding."""
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


def encodable(value: str) -> str:
    """Replace what UTF-8 cannot carry: one lone surrogate would fail the client library's whole scrape."""
    return value.encode("utf-8", "replace").decode()


class Shown(Protocol):
    """Families that are scraped."""

    def describe(self) -> Iterable[Metric]:
        """Give the families without samples, whose names nobody else may use."""

    def pieces(self, chosen: Format, names: frozenset[str] | None) -> list[Piece]:
        """Give them as they are now; with ``names`` only samples so named. May be called from several threads."""


class SnapshotCollector(ABC, Generic[T]):
    """Shows what is so at the time of a scrape: it asks, and a subclass makes ``families`` of the answer.

    They are made and rendered anew when the answer is another one than the last time.
    """

    def __init__(self, snapshot: Callable[[], Iterable[T]]) -> None:
        self._snapshot = snapshot
        self._kept: dict[bool, tuple[tuple[T, ...], Piece]] = {}

    def describe(self) -> Iterable[Metric]:
        """Give the families without samples."""
        return self.families(())

    def pieces(self, chosen: Format, names: frozenset[str] | None) -> list[Piece]:
        """Give the families as they are now."""
        found = tuple(self._snapshot())
        if names is not None:
            return [deflate(encode(self.families(found), chosen, names))]
        kept = self._kept.get(chosen.openmetrics)
        if kept is None or kept[0] != found:
            kept = self._kept[chosen.openmetrics] = found, deflate(encode(self.families(found), chosen, None))
        return [kept[1]]

    @abstractmethod
    def families(self, found: Iterable[T]) -> Iterable[Metric]:
        """Make families of it."""


class KeptMetric:
    """A metric of the client library that is rendered anew when somebody said that it has `changed`."""

    def __init__(self, metric: Collector) -> None:
        self.metric = metric
        self._state = object()
        """Another object after each change."""
        self._kept: dict[bool, tuple[object, Piece]] = {}

    def describe(self) -> Iterable[Metric]:
        """Give the family without samples."""
        return _described(self.metric)

    def changed(self) -> None:
        """Values were changed, just before this call."""
        self._state = object()

    def pieces(self, chosen: Format, names: frozenset[str] | None) -> list[Piece]:
        """Give the family as it is now."""
        if names is not None:
            return [deflate(encode(self.metric.collect(), chosen, names))]
        state = self._state
        kept = self._kept.get(chosen.openmetrics)
        if kept is None or kept[0] is not state:
            kept = self._kept[chosen.openmetrics] = state, deflate(encode(self.metric.collect(), chosen, None))
        return [kept[1]]


class AlwaysRendered:
    """Collectors of the client library whose values are others at each scrape."""

    def __init__(self, metric: Collector) -> None:
        self.metric = metric

    def describe(self) -> Iterable[Metric]:
        """Give the families without samples."""
        return _described(self.metric)

    def pieces(self, chosen: Format, names: frozenset[str] | None) -> list[Piece]:
        """Give the families as they are now."""
        return [deflate(encode(self.metric.collect(), chosen, names))]


def _described(collector: Collector) -> Iterable[Metric]:
    # Some of the library's cannot say what they would collect.
    describe: Callable[[], Iterable[Metric]] = getattr(collector, "describe", collector.collect)
    return describe()
