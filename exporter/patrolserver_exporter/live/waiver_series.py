"""When the configured waivers end."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING

from prometheus_client.core import GaugeMetricFamily

from patrolserver_exporter.issues.model import Waiver
from patrolserver_exporter.live.encoding import SnapshotCollector, encodable

if TYPE_CHECKING:
    from collections.abc import Iterable

    from prometheus_client.core import Metric


_LABELS = ("server", "software", "exploit", "kind", "max_severity")


def end_of(waiver: Waiver) -> float:
    """When it ends: with its last day, in UTC; seconds since the epoch."""
    return dt.datetime.combine(waiver.until, dt.time.min, dt.UTC).timestamp() + 86_400.0


class WaiverCollector(SnapshotCollector[Waiver]):
    """Shows the waivers that are configured, those that have ended among them."""

    def families(self, found: Iterable[Waiver]) -> tuple[Metric, ...]:
        """Give one series for each set of labels, up to the latest end of those that share it."""
        ends: dict[tuple[str, ...], float] = {}
        for waiver in found:
            labels = tuple(encodable(_text(getattr(waiver, name))) for name in _LABELS)
            ends[labels] = max(end_of(waiver), ends.get(labels, 0.0))
        family = GaugeMetricFamily(
            "patrolserver_waiver_expiry_timestamp_seconds",
            "When a configured waiver ends; of waivers that are written alike, the latest end.",
            labels=_LABELS,
        )
        for labels, end in ends.items():
            family.add_metric(labels, end)
        return (family,)


def _text(written: object) -> str:
    return "" if written is None else str(written)
