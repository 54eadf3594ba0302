"""The same series as a plain collector of the client library makes them: what the exposition is held against."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client.core import GaugeMetricFamily

from patrolserver_exporter.live.account_series import AccountCollector

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from prometheus_client.core import Metric

    from patrolserver_exporter.issues.summary import ServerSummary
    from patrolserver_exporter.live.account_series import AccountSeries, SeverityTally

SEVERITIES = ("critical", "high", "medium", "low")
STATES = ("supported", "outdated", "unsupported", "unknown")


class OracleCollector:
    """Makes every series anew from the summaries at each scrape."""

    def __init__(
        self,
        summaries: Iterable[ServerSummary],
        *,
        software: bool = True,
        accounts: Iterable[AccountSeries] = (),
        tallies: Iterable[SeverityTally] = (),
    ) -> None:
        self.summaries = summaries
        self._software = software
        self._accounts = AccountCollector(accounts, tallies)

    def collect(self) -> Iterator[Metric]:
        """Give all families, each with its header also when nobody has such a series."""
        yield from self._accounts.collect()
        families = _server_families()
        for summary in self.summaries:
            _add_server(families, summary)
        if not self._software:
            del families["software_info"]
        yield from families.values()


def _server_families() -> dict[str, GaugeMetricFamily]:
    extra = {
        "info": ("A watched server; always 1.", ["verified"]),
        "issues": ("Open issues of the server that no waiver covers.", ["severity"]),
        "issues_waived": ("Open issues of the server that a waiver covers.", []),
        "software": ("Software installed on the server.", ["state"]),
        "exploits": ("Known exploits of the server's software at or above the configured risk.", []),
        "exploit_risk_max": ("Highest risk of a known exploit of the server's software, from 0 to 10.", []),
        "oldest_issue_timestamp_seconds": ("When the oldest open issue was first seen.", ["severity"]),
        "scanning": ("Whether PatrolServer is scanning the server (1) or not (0).", []),
        "last_scan_timestamp_seconds": ("End of the last scan seen.", []),
        "last_poll_timestamp_seconds": ("Start of the last successful poll of the server.", []),
        "poll_success": ("Whether the last poll of the server succeeded (1) or not (0).", []),
        "software_info": (
            "Software that is outdated, unsupported or exploitable; always 1.",
            ["software", "version", "update_to", "state", "location", "parent"],
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
    for info in summary.software_info:
        families["software_info"].add_metric(
            [*labels, info.software, info.version, info.update_to, info.state, info.location, info.parent], 1
        )


def _add_software(families: dict[str, GaugeMetricFamily], labels: list[str], summary: ServerSummary) -> None:
    if summary.software is None:
        return
    for state, count in zip(STATES, summary.software, strict=True):
        families["software"].add_metric([*labels, state], count)
    for name, value in (("exploits", summary.exploits), ("exploit_risk_max", summary.exploit_risk_max)):
        if value is not None:
            families[name].add_metric(labels, value)
