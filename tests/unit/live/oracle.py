"""The same series as a plain collector of the client library makes them: what the exposition is held against."""

from __future__ import annotations

from itertools import accumulate
from typing import TYPE_CHECKING

from prometheus_client import Counter, Gauge, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.utils import floatToGoString

from patrolserver_exporter.gate.verdict import Verdict
from patrolserver_exporter.issues.model import SEVERITIES as ALL_SEVERITIES
from patrolserver_exporter.live.account_counters import REQUEST_BOUNDS
from patrolserver_exporter.live.account_series import STANDINGS, AccountSums
from patrolserver_exporter.live.encoding import encodable
from patrolserver_exporter.store.history import FIX_DURATION_BOUNDS, Tally

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from prometheus_client.core import Metric

    from patrolserver_exporter.issues.summary import ServerSummary
    from patrolserver_exporter.live.account_series import AccountNow, AccountSeries
    from patrolserver_exporter.live.gate_series import Judged

SEVERITIES = ("critical", "high", "medium", "low")
STATES = ("supported", "outdated", "unsupported", "unknown")


class OracleCollector:
    """Makes every series again from the summaries at each scrape."""

    def __init__(
        self,
        summaries: Iterable[ServerSummary],
        *,
        software: bool = True,
        exploits: bool = True,
        accounts: Iterable[AccountSeries] = (),
        tallies: Iterable[Tally] = (),
        now: float = 0.0,
    ) -> None:
        self.summaries = summaries
        self._software = software
        self._exploits = exploits
        self._accounts = tuple(accounts)
        self._tallies = tuple(tallies)
        self._now = now

    def collect(self) -> Iterator[Metric]:
        """Give all families, each with its header also when nobody has such a series."""
        summaries = tuple(self.summaries)
        sums = {series.account: sums_of(summaries, series, self._now) for series in self._accounts}
        yield from AccountCollector(self._accounts, self._tallies, sums).collect()
        families = _server_families()
        for summary in summaries:
            _add_server(families, summary)
        if not self._software:
            del families["software_info"]
        if not self._exploits:
            del families["exploit_info"]
        yield from families.values()


def _server_families() -> dict[str, GaugeMetricFamily]:
    extra = {
        "info": ("A watched server; always 1.", ["verified"]),
        "issues": ("Open issues of the server that no waiver covers.", ["severity"]),
        "issues_waived": ("Open issues of the server that a waiver covers.", []),
        "software": ("Software installed on the server.", ["state"]),
        "exploits": ("Known exploits of the server's software at or above the configured risk.", []),
        "exploits_unknown_risk": ("Those of the server's exploits whose risk nobody knows: they may be the worst.", []),
        "exploit_risk_max": ("Highest risk of a known exploit of the server's software, from 0 to 10.", []),
        "oldest_issue_timestamp_seconds": (
            "Since when the open issue that has had this severity the longest has had it.",
            ["severity"],
        ),
        "scanning": (
            "Whether PatrolServer is scanning the server (1) or not (0), as far as that was announced or looked for.",
            [],
        ),
        "last_scan_timestamp_seconds": ("End of the last scan seen.", []),
        "last_poll_timestamp_seconds": ("Start of the last successful poll of the server.", []),
        "poll_success": (
            "Whether the last poll of the server brought data and the store kept it (1) or not (0).",
            [],
        ),
        "poll_complete": (
            "Whether the last successful poll of the server was whole and not empty (1) or not (0).",
            [],
        ),
        "software_info": (
            "Software that is outdated, unsupported, exploitable or reported; always 1.",
            ["software", "version", "update_to", "state", "severity", "risk", "location", "parent"],
        ),
        "exploit_info": (
            "Known exploits of the server's software at or above the configured risk; always 1.",
            ["software", "exploit", "risk"],
        ),
    }
    return {
        name: GaugeMetricFamily(f"patrolserver_server_{name}", text, labels=["account", "server_id", "server", *labels])
        for name, (text, labels) in extra.items()
    }


def _add_server(families: dict[str, GaugeMetricFamily], summary: ServerSummary) -> None:
    labels = [summary.account, str(summary.server_id), summary.name]
    verified = {True: "true", False: "false", None: "unknown"}[summary.verified]
    families["info"].add_metric([*labels, verified], 1)
    if summary.open_issues is not None:
        for severity, count in zip(SEVERITIES, summary.open_issues, strict=True):
            families["issues"].add_metric([*labels, severity], count)
        families["issues_waived"].add_metric(labels, summary.waived_issues)
    _add_software(families, labels, summary)
    for severity, since in zip(SEVERITIES, summary.oldest_issue, strict=True):
        if since is not None:
            families["oldest_issue_timestamp_seconds"].add_metric([*labels, severity], since)
    families["scanning"].add_metric(labels, 1 if summary.scanning else 0)
    if summary.last_scan_at is not None:
        families["last_scan_timestamp_seconds"].add_metric(labels, summary.last_scan_at)
    if summary.last_poll_at is not None:
        families["last_poll_timestamp_seconds"].add_metric(labels, summary.last_poll_at)
    families["poll_success"].add_metric(labels, 1 if summary.poll_success else 0)
    families["poll_complete"].add_metric(labels, 1 if summary.poll_complete else 0)
    _add_infos(families, summary, labels)


def _add_infos(families: dict[str, GaugeMetricFamily], summary: ServerSummary, labels: list[str]) -> None:
    for info in summary.software_info:
        value = [info.software, info.version, info.update_to, info.state, info.severity, info.risk]
        families["software_info"].add_metric([*labels, *value, info.location, info.parent], 1)
    for exploit in summary.exploit_info:
        families["exploit_info"].add_metric([*labels, exploit.software, exploit.exploit, exploit.risk], 1)


def _add_software(families: dict[str, GaugeMetricFamily], labels: list[str], summary: ServerSummary) -> None:
    if summary.software is None:
        return
    for state, count in zip(STATES, summary.software, strict=True):
        families["software"].add_metric([*labels, state], count)
    unknown = None if summary.exploits is None else summary.exploits_unknown_risk
    for name, value in (
        ("exploits", summary.exploits),
        ("exploits_unknown_risk", unknown),
        ("exploit_risk_max", summary.exploit_risk_max),
    ):
        if value is not None:
            families[name].add_metric(labels, value)


def sums_of(summaries: Iterable[ServerSummary], series: AccountSeries, now: float) -> AccountSums:
    """The account's servers, counted again."""
    mine = [summary for summary in summaries if summary.account == series.account]
    worst = [next((place for place, count in enumerate(one.open_issues or ()) if count), None) for one in mine]
    vouched = [series.up is not False and _is_vouched_for(one, now) for one in mine]
    none = sum(place is None and sure for place, sure in zip(worst, vouched, strict=True))
    return AccountSums(
        tuple(sum((one.open_issues or (0,) * 4)[place] for one in mine) for place in range(4)),
        (*(worst.count(place) for place in range(4)), none, vouched.count(False)),
    )


def _is_vouched_for(summary: ServerSummary, now: float) -> bool:
    if not (summary.poll_success and summary.poll_complete) or summary.in_doubt or summary.last_poll_at is None:
        return False
    installed = summary.software or (0, 0, 0, 0)
    if summary.exploits is None:
        return False
    return now - summary.last_poll_at <= 86_400.0 and sum(installed) > 0 and installed[3] == 0


_BOUND_LABELS = tuple(floatToGoString(bound) for bound in (*FIX_DURATION_BOUNDS, float("inf")))  # type: ignore[no-untyped-call]


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
            if series.servers is None and not any(sums.servers):
                continue
            for severity, count in zip(ALL_SEVERITIES, sums.issues, strict=True):
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
            for severity in ALL_SEVERITIES:
                key = (series.account, severity)
                yield self._tallies.get(key) or Tally(account=series.account, severity=severity)


def now_families(found: Iterable[AccountNow]) -> tuple[Metric, ...]:
    """Accounts as they are in memory."""
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


def gate_families(found: Iterable[Judged]) -> tuple[Metric, ...]:
    """What the gate would say."""
    family = GaugeMetricFamily(
        "patrolserver_gate_servers",
        "Servers by what the gate would say now of each of them alone.",
        labels=("account", "policy", "verdict"),
    )
    for judged in found:
        for verdict in Verdict:
            labels = (encodable(judged.account), encodable(judged.policy), verdict.value)
            family.add_metric(labels, judged.servers.get(verdict, 0))
    return (family,)


class CountersOracle:
    """What `AccountCounters` counts, in the client library's own metrics."""

    def __init__(self) -> None:
        account, endpoint = ("account",), ("account", "endpoint")
        name = "patrolserver_exporter"
        self.requests = Counter(f"{name}_api_requests", "Calls of the PatrolServer API.", endpoint, registry=None)
        self.failures = Counter(
            f"{name}_api_request_failures",
            "Calls of the PatrolServer API that failed.",
            (*endpoint, "reason"),
            registry=None,
        )
        self.durations = Histogram(
            f"{name}_api_request_duration_seconds",
            "Duration of PatrolServer API calls.",
            endpoint,
            buckets=REQUEST_BOUNDS,
            registry=None,
        )
        self.budget = Gauge(
            f"{name}_api_budget_available_requests",
            "Calls that the account's budget allows right now.",
            account,
            registry=None,
        )
        self.interval = Gauge(
            f"{name}_poll_interval_seconds", "Effective interval between two polls of a server.", account, registry=None
        )
        self.overflows = Counter(
            f"{name}_inbox_overflows",
            "Deliveries accepted without room in the inbox; a catch-up poll takes their place.",
            account,
            registry=None,
        )
        self.oddities = Counter(
            f"{name}_wire_oddities",
            "Values in PatrolServer's replies that could not be read and were left out.",
            account,
            registry=None,
        )

    def collect(self) -> Iterator[Metric]:
        """Give the families."""
        for metric in (
            self.requests,
            self.failures,
            self.durations,
            self.budget,
            self.interval,
            self.overflows,
            self.oddities,
        ):
            yield from metric.collect()

    def watch(self, account: str, endpoints: Iterable[str], reasons: Iterable[str]) -> None:
        """Start at zero."""
        for endpoint in endpoints:
            self.requests.labels(account, endpoint)
            self.durations.labels(account, endpoint)
            for reason in reasons:
                self.failures.labels(account, endpoint, reason)
        self.overflows.labels(account)
        self.oddities.labels(account)

    def call(self, account: str, endpoint: str, seconds: float, reason: str | None) -> None:
        """Count a call."""
        self.requests.labels(account, endpoint).inc()
        self.durations.labels(account, endpoint).observe(seconds)
        if reason is not None:
            self.failures.labels(account, endpoint, reason).inc()

    def forget(self, account: str) -> None:
        """End an account's series."""
        for metric in (
            self.requests,
            self.failures,
            self.durations,
            self.budget,
            self.interval,
            self.overflows,
            self.oddities,
        ):
            metric.remove_by_labels({"account": account})
