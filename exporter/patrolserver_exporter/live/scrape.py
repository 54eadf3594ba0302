"""One answer to a scrape: format and coding as the client asked, the fleet's kept pieces and the own metrics."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

from patrolserver_exporter.live.gzip_parts import accepts_gzip, batches, deflate, gzip_member, plain
from patrolserver_exporter.live.text_format import EOF, encode, negotiate

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from prometheus_client.registry import Collector

    from patrolserver_exporter.live.fleet import FleetExposition
    from patrolserver_exporter.live.own_metrics import Telemetry
    from patrolserver_exporter.live.text_format import Format

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ScrapeResponse:
    """What to send."""

    content_type: str
    content_encoding: str | None
    content_length: int
    """Bytes of the whole body."""
    body: Iterable[bytes]
    """Parts of some 64 KiB, to be sent one by one. To be read once: they are made while they are read, so that a large
    body is never in memory as a whole.
    """


class Scrape:
    """Answers scrapes. Blocks for as long as rendering takes: to be called in a thread, from as many as you like."""

    def __init__(self, fleet: FleetExposition, telemetry: Telemetry) -> None:
        self._fleet = fleet
        self._telemetry = telemetry

    def render(self, accept: str | None, accept_encoding: str | None, names: Sequence[str] = ()) -> ScrapeResponse:
        """Render for the request's Accept and Accept-Encoding headers; ``names`` are its ``name[]`` parameters."""
        chosen = negotiate(accept)
        wanted = frozenset(names) or None
        end = EOF if chosen.openmetrics else b""
        pieces = self._fleet.pieces(chosen, wanted)
        pieces.append(deflate(self._own_metrics(chosen, wanted) + end))
        if accepts_gzip(accept_encoding):
            body = gzip_member(pieces)
            return ScrapeResponse(chosen.content_type, "gzip", sum(map(len, body)), batches(body))
        length = sum([piece.length for piece in pieces])
        return ScrapeResponse(chosen.content_type, None, length, batches(plain(pieces)))

    def _own_metrics(self, chosen: Format, names: frozenset[str] | None) -> bytes:
        return b"".join([self._collected(collector, chosen, names) for collector in self._telemetry.collectors])

    def _collected(self, collector: Collector, chosen: Format, names: frozenset[str] | None) -> bytes:
        try:
            return encode(collector.collect(), chosen, names)
        except Exception:  # noqa: BLE001  # whatever one raises, the others go on; it is logged and counted
            _log.exception("the exporter's own metrics are incomplete: %s raised", type(collector).__name__)
            self._telemetry.error("exposition")
            return b""
