"""What the client library does for us: choose the format, and render collectors in it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from prometheus_client.core import Metric
from prometheus_client.exposition import choose_encoder

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator

    from prometheus_client.registry import Collector

EOF = b"# EOF\n"
"""Ends an OpenMetrics exposition."""
_CREATED_KINDS = frozenset({"counter", "histogram", "summary"})
_ESCAPED_NAMES = re.compile(r"(?i)\bescaping=(dots|values)\b")


class Format(NamedTuple):
    """What was agreed with a client."""

    content_type: str
    openmetrics: bool
    encode: Callable[[Collector], bytes]
    """The client library's own encoder."""


def negotiate(accept: str | None) -> Format:
    """Choose text 0.0.4, text 1.0.0 or OpenMetrics by the Accept header, as the client library does.

    Two differences. A version that is no number makes the library raise; here it gets the plain text format. And the
    escapings ``dots`` and ``values`` are answered as ``underscores``, as the Content-Type then says: no name here needs
    escaping, while the library's ``dots`` would double every underscore in every name.
    """
    header = _ESCAPED_NAMES.sub("escaping=underscores", accept or "")
    try:
        encode, content_type = choose_encoder(header)
    except TypeError:  # The library compares the words of such a version with numbers.
        encode, content_type = choose_encoder("")
    return Format(content_type, content_type.startswith("application/openmetrics-text"), encode)


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
