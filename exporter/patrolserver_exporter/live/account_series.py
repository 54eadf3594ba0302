"""The series of the accounts and of their fleets as a whole, and the sums of servers that they show.

They are few, so the client library renders them. The sums are kept while servers change: a scrape counts nothing.
"""

from __future__ import annotations

import math
from itertools import accumulate
from typing import TYPE_CHECKING, NamedTuple

import msgspec
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.utils import floatToGoString

from patrolserver_exporter.issues.model import SEVERITIES, STATES, State
from patrolserver_exporter.live.encoding import SnapshotCollector, encodable
from patrolserver_exporter.store.history import FIX_DURATION_BOUNDS, Tally

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from prometheus_client.core import Metric

    from patrolserver_exporter.issues.summary import ServerSummary


OLD = 86_400.0
"""Seconds after which a poll is too old to be trusted; the gate's own default."""
STANDINGS = (*(severity.value for severity in SEVERITIES), "none", "unknown")
"""The labels of affected servers."""
_UNKNOWN_STATE = STATES.index(State.UNKNOWN)
_NO_ISSUES = (0, 0, 0, 0)


class AccountSums(NamedTuple):
    """One account's servers in sum. Issues are in the order of ``SEVERITIES``, servers in that of ``STANDINGS``."""

    issues: tuple[int, ...] = _NO_ISSUES
    servers: tuple[int, ...] = (0,) * len(STANDINGS)
    """A server with an open issue and untrusted data is counted twice: it has the issue, and may have more."""


class _Server(NamedTuple):
    """What one server adds."""

    issues: tuple[int, int, int, int]
    worst: int | None
    """Place of its worst open issue in ``SEVERITIES``."""
    vouched_at: float | None
    """Start of the poll whose data is trusted, in seconds since the epoch; ``None`` without one."""

    @classmethod
    def of(cls, summary: ServerSummary) -> _Server:
        issues = summary.open_issues or _NO_ISSUES
        worst = next((place for place, count in enumerate(issues) if count), None)
        return cls(issues, worst, summary.last_poll_at if _is_vouched_for(summary) else None)


def _is_vouched_for(summary: ServerSummary) -> bool:
    """Whether its last poll was whole."""
    return (
        summary.poll_success
        and summary.poll_complete
        and not summary.in_doubt
        and summary.exploits is not None
        and summary.software is not None
        and any(summary.software)
        and not summary.software[_UNKNOWN_STATE]
    )


class _Account:
    """The servers of one account, and their sums."""

    __slots__ = ("clean", "doubted", "issues", "oldest", "servers", "worst")

    def __init__(self) -> None:
        self.servers: dict[int, _Server] = {}
        self.issues = [0] * len(SEVERITIES)
        self.worst = [0] * len(SEVERITIES)
        self.clean = 0
        self.doubted = 0
        self.oldest = math.inf
        """No trusted poll of a server started before this."""

    def put(self, server_id: int, server: _Server) -> None:
        self.take(server_id)
        self.servers[server_id] = server
        self._add(server, 1)
        if server.vouched_at is not None:
            self.oldest = min(self.oldest, server.vouched_at)

    def take(self, server_id: int) -> None:
        server = self.servers.pop(server_id, None)
        if server is not None:
            self._add(server, -1)

    def _add(self, server: _Server, sign: int) -> None:
        for place, count in enumerate(server.issues):
            self.issues[place] += sign * count
        if server.worst is not None:
            self.worst[server.worst] += sign
        if server.vouched_at is None:
            self.doubted += sign
        elif server.worst is None:
            self.clean += sign

    def doubt_old(self, now: float) -> None:
        """Stop trusting what is older than ``OLD``; looks at all servers about once in that time."""
        if now - self.oldest <= OLD:
            return
        vouched = [(i, server) for i, server in self.servers.items() if server.vouched_at is not None]
        self.oldest = math.inf
        for server_id, server in vouched:
            old = server.vouched_at is not None and now - server.vouched_at > OLD
            self.put(server_id, server._replace(vouched_at=None) if old else server)


class SumsOfAccounts:
    """The sums of all accounts. For one thread at a time."""

    def __init__(self) -> None:
        self._accounts: dict[str, _Account] = {}

    def put(self, summary: ServerSummary) -> None:
        """Count a server as it is now."""
        self._accounts.setdefault(summary.account, _Account()).put(summary.server_id, _Server.of(summary))

    def doubt(self, account: str, server_id: int) -> None:
        """Trust a server's data no more until it is counted again."""
        found = self._accounts.get(account)
        if found is not None and server_id in found.servers:
            found.put(server_id, found.servers[server_id]._replace(vouched_at=None))

    def remove(self, account: str, server_id: int) -> None:
        """Count a server no more."""
        if account in self._accounts:
            self._accounts[account].take(server_id)

    def of(self, account: str, now: float, *, reachable: bool) -> AccountSums:
        """One account's sums. Servers of an account that is not ``reachable`` are unknown."""
        found = self._accounts.get(account)
        if found is None:
            return AccountSums()
        found.doubt_old(now)
        clean, doubted = (found.clean, found.doubted) if reachable else (0, len(found.servers))
        return AccountSums(tuple(found.issues), (*found.worst, clean, doubted))


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


class AccountCollector:
    """Makes the client library's families of a snapshot. Tallies of accounts that are not listed are not shown."""

    def __init__(
        self,
        accounts: Iterable[AccountSeries] = (),
        tallies: Iterable[Tally] = (),
        sums: Mapping[str, AccountSums] | None = None,
    ) -> None:
        self._accounts = tuple(accounts)
        self._tallies = {(tally.account, tally.severity): tally for tally in tallies}
        self._sums = sums or {}

    def collect(self) -> Iterator[Metric]:
        """Give the families; the headers come even without an account."""
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
            cumulative = accumulate(tally.buckets)
            duration.add_metric(values, list(zip(_BOUND_LABELS, cumulative, strict=True)), tally.duration_sum)
        return iter((opened, fixed, worsened, duration))

    def _zero_filled(self) -> Iterator[Tally]:
        for series in self._accounts:
            for severity in SEVERITIES:
                key = (series.account, severity)
                yield self._tallies.get(key) or Tally(account=series.account, severity=severity)


class AccountNow(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of an account in memory. Times are seconds since the epoch; what is ``None`` has no series."""

    account: str
    webhook_enabled: bool
    """It has a token, so deliveries can reach it."""
    owned: bool
    """This process polls it and works its inbox; not while another one may have taken the store over."""
    last_delivery_at: float | None = None
    """Reception of the last delivery that was accepted, duplicates included."""
    pause_until: float | None = None
    """The API asked the account to wait until then."""
    clock_offset: float | None = None
    """Seconds by which the own clock is ahead of the API's."""


class AccountNowCollector(SnapshotCollector[AccountNow]):
    """Shows accounts as they are in memory."""

    def families(self, found: Iterable[AccountNow]) -> tuple[Metric, ...]:
        """Give their families."""
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
        owner = GaugeMetricFamily(
            "patrolserver_exporter_account_owner",
            "Whether this exporter polls the account (1) or another one does or may (0).",
            labels=["account"],
        )
        for one in found:
            labels = [encodable(one.account)]
            owner.add_metric(labels, int(one.owned))
            enabled.add_metric(labels, int(one.webhook_enabled))
            if one.last_delivery_at is not None:
                delivery.add_metric(labels, one.last_delivery_at)
            if one.pause_until is not None:
                pause.add_metric(labels, one.pause_until)
            if one.clock_offset is not None:
                offset.add_metric(labels, one.clock_offset)
        return enabled, delivery, pause, offset, owner
