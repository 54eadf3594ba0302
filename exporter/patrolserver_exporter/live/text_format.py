"""What the client library does for us: choose the format, and render collectors in it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from prometheus_client.core import Metric
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, choose_encoder

from patrolserver_exporter.live.gzip_parts import weighed

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator

    from prometheus_client.registry import Collector

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
    better is known. A version that is no number makes the library raise; here it gets the plain text format. And the
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
    would reach into whoever else uses it in the process.
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
