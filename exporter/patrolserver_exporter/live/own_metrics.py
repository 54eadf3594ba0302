"""The exporter's metrics about itself. Callers say what happened; how it is counted stays in here."""

from __future__ import annotations

import platform
from typing import TYPE_CHECKING, Literal, get_args

import msgspec
from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    GCCollector,
    Histogram,
    PlatformCollector,
    ProcessCollector,
)
from prometheus_client.core import GaugeMetricFamily

from patrolserver_exporter.live.account_counters import AccountCounters
from patrolserver_exporter.live.encoding import AlwaysRendered, KeptMetric, SnapshotCollector
from patrolserver_exporter.patrolserver.errors import FailureReason
from patrolserver_exporter.patrolserver.models import Identifier

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from prometheus_client.core import Metric
    from prometheus_client.registry import Collector

    from patrolserver_exporter.live.encoding import Shown

Outcome = Literal["accepted", "duplicate", "rejected", "refused", "failed"]
Endpoint = Literal["servers", "server", "software", "is_scanning", "event", "other"]
Component = Literal["poller", "worker", "store", "web", "exposition"]
DropReason = Literal["server_limit", "total_limit"]

OTHER = "other"
IDENTIFIERS = (*(identifier.value for identifier in Identifier), OTHER)
OUTCOMES: tuple[Outcome, ...] = get_args(Outcome)
ENDPOINTS: tuple[Endpoint, ...] = get_args(Endpoint)
COMPONENTS: tuple[Component, ...] = get_args(Component)
DROP_REASONS: tuple[DropReason, ...] = get_args(DropReason)

_LAG_BOUNDS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0, 3600.0)


class InboxState(msgspec.Struct, frozen=True, kw_only=True):
    """How many deliveries of the inbox are in one state."""

    state: str
    deliveries: int
    oldest_at: float | None = None
    """When the oldest of them was received, in seconds since the epoch; ``None`` without any."""


class Telemetry:
    """The exporter's own metrics, in a registry of their own: nothing here touches the library's global one."""

    def __init__(self, *, version: str, revision: str, process_metrics: bool = True) -> None:
        """Take what ``build_info`` tells; ``process_metrics`` are the ``process_*`` and ``python_*`` families."""
        self._registry = CollectorRegistry(auto_describe=True)
        self._shown: list[Shown] = []
        build = Gauge(
            "patrolserver_exporter_build_info",
            "The running build; always 1.",
            ("version", "revision", "pythonversion"),
            registry=None,
        )
        build.labels(version, revision, platform.python_version()).set(1)
        self._keep(build)
        self._deliveries, self._deliveries_kept = self._counter(
            "webhook_deliveries", "Webhook deliveries by what became of them.", ("identifier", "outcome")
        )
        self._accounts = AccountCounters()
        self.show(self._accounts)
        self._reloaded, self._reloaded_kept = self._kept_gauge(
            "config_last_reload_successful", "Whether the last reload of the configuration succeeded (1) or not (0)."
        )
        self._reloaded_at, self._reloaded_at_kept = self._kept_gauge(
            "config_last_reload_success_timestamp_seconds", "When the configuration was last loaded successfully."
        )
        self._lag = Histogram(
            "patrolserver_exporter_event_lag_seconds",
            "From the reception of a delivery until its effect shows in the metrics.",
            buckets=_LAG_BOUNDS,
            registry=None,
        )
        self._lag_kept = self._keep(self._lag)
        self._dropped, self._dropped_kept = self._counter(
            "series_dropped",
            "Series of software and exploits that a limit cut off, counted again with each poll of their server.",
            ("reason",),
        )
        self._errors, self._errors_kept = self._counter(
            "errors", "Unexpected errors; the log tells more.", ("component",)
        )
        self._fill_closed_sets()
        if process_metrics:
            self.register(ProcessCollector(registry=None))
            self._keep(PlatformCollector(registry=None))
            self.register(_garbage_collector())

    def show(self, shown: Shown) -> None:
        """Show some more families; ``ValueError`` when a name is taken."""
        self._registry.register(_Names(shown))
        self._shown.append(shown)

    def register(self, collector: Collector) -> None:
        """Show one more collector's families, rendered at each scrape; ``ValueError`` when a name is taken."""
        self.show(AlwaysRendered(collector))

    @property
    def shown(self) -> tuple[Shown, ...]:
        """All that is to be scraped."""
        return tuple(self._shown)

    def watch_inbox(self, snapshot: Callable[[], Iterable[InboxState]]) -> None:
        """Ask for the inbox's states at each scrape, from the scraping thread; the snapshot zero-fills them."""
        self.show(_InboxCollector(snapshot))

    def watch_store(
        self,
        *,
        writable: Callable[[], bool],
        last_follow_at: Callable[[], float],
        replicas: Callable[[], tuple[int, int]] = lambda: (1, 0),
    ) -> None:
        """Ask at each scrape whether the store can write, up to when its commits are shown, and who else is there.

        ``replicas`` tells how many exporters share the store, and how many have another configuration.
        """
        self._gauge("replicas", "Exporters that work on this store, this one included.").set_function(
            lambda: replicas()[0]
        )
        self._gauge(
            "replicas_config_differs", "Whether exporters on this store have different configurations (1) or not (0)."
        ).set_function(lambda: int(replicas()[1] > 0))
        self._gauge("store_writable", "Whether the store can write (1) or not (0).").set_function(
            lambda: int(writable())
        )
        self._gauge("last_follow_timestamp_seconds", "Up to when everything that was committed is shown.").set_function(
            last_follow_at
        )

    def watch_account(self, account: str) -> None:
        """Start an account's closed sets at zero."""
        self._accounts.watch(account, ENDPOINTS, [reason.value for reason in FailureReason])

    def forget_account(self, account: str) -> None:
        """End all series of an account that is no longer configured."""
        self._accounts.forget(account)

    def delivery(self, identifier: str, outcome: Outcome) -> None:
        """Count a webhook delivery; an identifier outside the closed set counts as ``other``."""
        self._delivered[identifier if identifier in IDENTIFIERS else OTHER, outcome].inc()
        self._deliveries_kept.changed()

    def api_call(self, account: str, endpoint: str, seconds: float, reason: str | None) -> None:
        """Count a call of the PatrolServer API and its duration; ``reason`` is why it failed, if it did."""
        self._accounts.call(account, endpoint if endpoint in ENDPOINTS else OTHER, seconds, reason)

    def api_budget(self, account: str, requests: float) -> None:
        """Tell how many calls an account's budget allows right now."""
        self._accounts.set_budget(account, requests)

    def poll_interval(self, account: str, seconds: float) -> None:
        """Tell the effective interval between two polls of a server."""
        self._accounts.set_interval(account, seconds)

    def disown(self, account: str) -> None:
        """End what only the exporter that polls an account shows of it."""
        self._accounts.disown(account)

    def config_loaded(self, at: float) -> None:
        """Tell that the configuration was loaded, at seconds since the epoch."""
        self._reloaded.set(1)
        self._reloaded_at.set(at)
        self._reloaded_kept.changed()
        self._reloaded_at_kept.changed()

    def config_failed(self) -> None:
        """Tell that loading the configuration failed, so that the old one stays in force."""
        self._reloaded.set(0)
        self._reloaded_kept.changed()

    def event_visible(self, lag: float) -> None:
        """Observe the seconds from a delivery's reception until its effect shows in the metrics."""
        self._lag.observe(lag)
        self._lag_kept.changed()

    def series_dropped(self, reason: DropReason, count: int) -> None:
        """Count series of software or exploits that a limit cut off, each time it does."""
        self._dropped.labels(reason).inc(count)
        self._dropped_kept.changed()

    def inbox_overflow(self, account: str) -> None:
        """Count a delivery that was accepted without room in the inbox."""
        self._accounts.overflow(account)

    def error(self, component: Component) -> None:
        """Count an unexpected error, which the caller has logged."""
        self._errors.labels(component).inc()
        self._errors_kept.changed()

    def wire_oddity(self, account: str, count: int = 1) -> None:
        """Count values in PatrolServer's replies that could not be read."""
        self._accounts.oddity(account, count)

    def _fill_closed_sets(self) -> None:
        # Kept, because finding a child by its labels costs more than counting.
        self._delivered = {
            (identifier, outcome): self._deliveries.labels(identifier, outcome)
            for identifier in IDENTIFIERS
            for outcome in OUTCOMES
        }
        for reason in DROP_REASONS:
            self._dropped.labels(reason)
        for component in COMPONENTS:
            self._errors.labels(component)

    def _keep(self, metric: Collector) -> KeptMetric:
        kept = KeptMetric(metric)
        self.show(kept)
        return kept

    def _counter(self, name: str, text: str, labels: tuple[str, ...]) -> tuple[Counter, KeptMetric]:
        counter = Counter(f"patrolserver_exporter_{name}_total", text, labels, registry=None)
        return counter, self._keep(counter)

    def _kept_gauge(self, name: str, text: str) -> tuple[Gauge, KeptMetric]:
        gauge = Gauge(f"patrolserver_exporter_{name}", text, registry=None)
        return gauge, self._keep(gauge)

    def _gauge(self, name: str, text: str) -> Gauge:
        """One that is asked at each scrape."""
        gauge = Gauge(f"patrolserver_exporter_{name}", text, registry=None)
        self.register(gauge)
        return gauge


class _Names:
    """Families as the client library's registry has to know them: it finds names that are taken."""

    def __init__(self, shown: Shown) -> None:
        self._shown = shown

    def describe(self) -> Iterable[Metric]:
        return self._shown.describe()

    def collect(self) -> Iterable[Metric]:
        return self._shown.describe()


class _InboxCollector(SnapshotCollector[InboxState]):
    """The inbox's states."""

    def families(self, found: Iterable[InboxState]) -> tuple[Metric, Metric]:
        deliveries = GaugeMetricFamily(
            "patrolserver_exporter_inbox_deliveries", "Deliveries in the inbox.", labels=["state"]
        )
        oldest = GaugeMetricFamily(
            "patrolserver_exporter_inbox_oldest_timestamp_seconds",
            "When the oldest delivery in the inbox was received.",
            labels=["state"],
        )
        for entry in found:
            deliveries.add_metric([entry.state], entry.deliveries)
            if entry.oldest_at is not None:
                oldest.add_metric([entry.state], entry.oldest_at)
        return deliveries, oldest


def _garbage_collector() -> Collector:
    # Unlike its siblings it has to be built with a registry; this one is thrown away.
    return GCCollector(registry=CollectorRegistry())
