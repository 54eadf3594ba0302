"""The series of the accounts and of their fleets as a whole: few, so the client library renders them."""

from __future__ import annotations

from bisect import bisect_left
from itertools import accumulate
from typing import TYPE_CHECKING

import msgspec
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.utils import floatToGoString

from patrolserver_exporter.issues.model import SEVERITIES, Severity
from patrolserver_exporter.live.account_sums import STANDINGS, AccountSums

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from prometheus_client.core import Metric

_HOUR = 3_600.0
_DAY = 24 * _HOUR
FIX_DURATION_BOUNDS = (
    _HOUR,
    6 * _HOUR,
    _DAY,
    3 * _DAY,
    7 * _DAY,
    14 * _DAY,
    30 * _DAY,
    60 * _DAY,
    90 * _DAY,
    180 * _DAY,
)
"""Upper bounds in seconds, each included; above the last one is one more bucket without bound."""
_NO_FIXES = (0,) * (len(FIX_DURATION_BOUNDS) + 1)
_BOUND_LABELS = tuple(floatToGoString(bound) for bound in (*FIX_DURATION_BOUNDS, float("inf")))  # type: ignore[no-untyped-call]


class AccountSeries(msgspec.Struct, frozen=True, kw_only=True):
    """One account as its series show it. What is ``None`` has no series."""

    account: str
    up: bool | None = None
    """The last call for the server list succeeded; ``None`` before the first."""
    last_success_at: float | None = None
    """Seconds since the epoch."""
    servers: int | None = None
    list_complete: bool | None = None
    """The last successful server list was whole; ``None`` before the first."""


class SeverityTally(msgspec.Struct, frozen=True, kw_only=True):
    """What was opened, got worse and was fixed in one account at one severity, since the state began."""

    account: str
    severity: Severity
    opened: int = 0
    fixed: int = 0
    worsened: int = 0
    fix_duration_buckets: tuple[int, ...] = _NO_FIXES
    """Fixes in each bucket, *not* cumulative: one number for each of ``FIX_DURATION_BOUNDS`` and a last one above."""
    fix_duration_sum: float = 0.0
    """Seconds."""


def fix_duration_bucket(seconds: float) -> int:
    """Which of ``fix_duration_buckets`` counts a fix that took so long."""
    return bisect_left(FIX_DURATION_BOUNDS, seconds)


class AccountCollector:
    """Makes the client library's families of a snapshot. Tallies of accounts that are not listed are not shown."""

    def __init__(
        self,
        accounts: Iterable[AccountSeries] = (),
        tallies: Iterable[SeverityTally] = (),
        sums: Mapping[str, AccountSums] | None = None,
    ) -> None:
        self._accounts = tuple(accounts)
        self._tallies = {(tally.account, tally.severity): tally for tally in tallies}
        self._sums = sums or {}

    def collect(self) -> Iterator[Metric]:
        """Give the families, with their header also when there is no account."""
        yield from self._account_gauges()
        yield from self._sum_families()
        yield from self._tally_families()

    def _account_gauges(self) -> Iterator[Metric]:
        up = GaugeMetricFamily(
            "patrolserver_up",
            "Whether the last call for the account's server list succeeded (1) or not (0).",
            labels=["account"],
        )
        success = GaugeMetricFamily(
            "patrolserver_last_success_timestamp_seconds",
            "When the account's server list was last read.",
            labels=["account"],
        )
        servers = GaugeMetricFamily("patrolserver_servers", "Watched servers of the account.", labels=["account"])
        complete = GaugeMetricFamily(
            "patrolserver_list_complete",
            "Whether the last successful server list of the account was whole (1) or only a part (0).",
            labels=["account"],
        )
        for series in self._accounts:
            for family, value in (
                (up, series.up),
                (success, series.last_success_at),
                (servers, series.servers),
                (complete, series.list_complete),
            ):
                if value is not None:
                    family.add_metric([encodable(series.account)], value)
        return iter((up, success, servers, complete))

    def _sum_families(self) -> Iterator[Metric]:
        labels = ["account", "severity"]
        issues = GaugeMetricFamily(
            "patrolserver_account_issues",
            "Open issues of all servers of the account that no waiver covers.",
            labels=labels,
        )
        affected = GaugeMetricFamily(
            "patrolserver_account_servers_affected",
            "Servers by their worst open issue: none are known and clean, unknown are those that nobody can vouch for.",
            labels=labels,
        )
        for series in self._accounts:
            sums = self._sums.get(series.account, AccountSums())
            for severity, count in zip(SEVERITIES, sums.issues, strict=True):
                issues.add_metric([encodable(series.account), severity.value], count)
            for standing, count in zip(STANDINGS, sums.servers, strict=True):
                affected.add_metric([encodable(series.account), standing], count)
        return iter((issues, affected))

    def _tally_families(self) -> Iterator[Metric]:
        labels = ["account", "severity"]
        opened = CounterMetricFamily(
            "patrolserver_issues_opened", "Issues that were opened or re-opened.", labels=labels
        )
        fixed = CounterMetricFamily("patrolserver_issues_fixed", "Issues that were fixed.", labels=labels)
        worsened = CounterMetricFamily(
            "patrolserver_issues_worsened",
            "Issues that became more severe, or got another exploit, by the severity reached.",
            labels=labels,
        )
        duration = HistogramMetricFamily(
            "patrolserver_issue_fix_duration_seconds", "From first seen to fixed.", labels=labels
        )
        for tally in self._zero_filled():
            values = [encodable(tally.account), tally.severity.value]
            opened.add_metric(values, tally.opened)
            fixed.add_metric(values, tally.fixed)
            worsened.add_metric(values, tally.worsened)
            cumulative = accumulate(tally.fix_duration_buckets)
            duration.add_metric(values, list(zip(_BOUND_LABELS, cumulative, strict=True)), tally.fix_duration_sum)
        return iter((opened, fixed, worsened, duration))

    def _zero_filled(self) -> Iterator[SeverityTally]:
        for series in self._accounts:
            for severity in SEVERITIES:
                key = (series.account, severity)
                yield self._tallies.get(key) or SeverityTally(account=series.account, severity=severity)


class AccountNow(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of an account in memory. Times are seconds since the epoch; what is ``None`` has no series."""

    account: str
    webhook_enabled: bool
    """It has a token, so deliveries can reach it."""
    last_delivery_at: float | None = None
    """Reception of the last delivery that was accepted, duplicates included."""
    pause_until: float | None = None
    """The API asked the account to wait until then."""
    clock_offset: float | None = None
    """Seconds by which the own clock is ahead of the API's."""


class AccountNowCollector:
    """Shows accounts as they are in memory at the time of a scrape."""

    def __init__(self, snapshot: Callable[[], Iterable[AccountNow]]) -> None:
        self._snapshot = snapshot

    def describe(self) -> Iterable[Metric]:
        """Give the families without samples."""
        return self._families(())

    def collect(self) -> Iterator[Metric]:
        """Give the families."""
        return iter(self._families(self._snapshot()))

    @staticmethod
    def _families(accounts: Iterable[AccountNow]) -> tuple[Metric, ...]:
        enabled = GaugeMetricFamily(
            "patrolserver_webhook_enabled",
            "Whether deliveries can reach the account (1) or it has no webhook token (0).",
            labels=["account"],
        )
        delivery = GaugeMetricFamily(
            "patrolserver_webhook_last_delivery_timestamp_seconds",
            "When a delivery of the account was last accepted, duplicates included.",
            labels=["account"],
        )
        pause = GaugeMetricFamily(
            "patrolserver_exporter_api_pause_end_timestamp_seconds",
            "Until when the API asked the whole account to wait; absent without a pause.",
            labels=["account"],
        )
        offset = GaugeMetricFamily(
            "patrolserver_exporter_clock_offset_seconds",
            "Own clock minus the clock of the account's API, to the second.",
            labels=["account"],
        )
        for one in accounts:
            labels = [encodable(one.account)]
            enabled.add_metric(labels, int(one.webhook_enabled))
            if one.last_delivery_at is not None:
                delivery.add_metric(labels, one.last_delivery_at)
            if one.pause_until is not None:
                pause.add_metric(labels, one.pause_until)
            if one.clock_offset is not None:
                offset.add_metric(labels, one.clock_offset)
        return enabled, delivery, pause, offset


def encodable(value: str) -> str:
    """Replace what UTF-8 cannot carry: one lone surrogate would fail the client library's whole scrape."""
    return value.encode("utf-8", "replace").decode()
