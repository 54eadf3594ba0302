"""The same series as a plain collector of the client library makes them: what the exposition is held against."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client.core import GaugeMetricFamily

from patrolserver_exporter.live.account_series import AccountCollector, AccountSums

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from prometheus_client.core import Metric

    from patrolserver_exporter.issues.summary import ServerSummary
    from patrolserver_exporter.live.account_series import AccountSeries
    from patrolserver_exporter.store.history import Tally

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
        "oldest_issue_timestamp_seconds": ("When the oldest open issue was first seen.", ["severity"]),
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
