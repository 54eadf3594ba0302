"""Recording rules: which exporter is asked about an account and a server, and what it says.

Several exporters may watch one fleet, each with what it knows. A value is taken from the one whose knowledge is the
freshest, never from all of them: one that lost the API would show its old issues for ever. Recorded series keep the
``instance`` that they were taken from.
"""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING

from grafana.alerting.rule import Record
from grafana.settings import seconds

if TYPE_CHECKING:
    from grafana.settings import Settings

ACCOUNT = "job, account"
EXPORTERS_ACCOUNT = "job, instance, account"
SERVER = "job, account, server_id, server"
EXPORTERS_SERVER = "job, instance, account, server_id, server"

JOB_COUNT = "job:patrolserver_exporters:count"
LIST_KNOWN = "account:patrolserver_last_success_timestamp_seconds:known"
LIST_CURRENT = "account:patrolserver_last_success_timestamp_seconds:current"
LIST_FRESHEST = "account:patrolserver_last_success_timestamp_seconds:freshest"
SERVERS = "account:patrolserver_servers:freshest"
ACCOUNT_ISSUES = "account_severity:patrolserver_account_issues:freshest"
AFFECTED = "account_severity:patrolserver_account_servers_affected:freshest"
GATE_SERVERS = "account_policy_verdict:patrolserver_gate_servers:freshest"
POLL = "account_server:patrolserver_server_last_poll_timestamp_seconds:freshest"
INFO = "account_server:patrolserver_server_info:freshest"
ISSUES = "account_server_severity:patrolserver_server_issues:freshest"
OLDEST = "account_server_severity:patrolserver_server_oldest_issue_timestamp_seconds:freshest"
SCAN = "account_server:patrolserver_server_last_scan_timestamp_seconds:freshest"
WEIGHT = "account_server:patrolserver_server_issues:weight"
CRITICAL = "account_server_severity:patrolserver_server_issues:critical"
OVERDUE = "account_server_severity:patrolserver_overdue_issue_age_seconds:freshest"
OVERDUE_SERVERS = "account:patrolserver_servers_overdue:count"
CRITICAL_SOFTWARE = "account_server_software:patrolserver_server_software_info:critical"
CRITICAL_SERVERS = "account_software:patrolserver_critical_servers:count"
SPREAD = "account_server_software:patrolserver_critical_servers:spread"
SOFTWARE = "account_state:patrolserver_server_software:sum"
SOFTWARE_SERVERS = "account_software_state_severity:patrolserver_server_software_info:count"
EXPLOIT_SERVERS = "account_software_exploit_risk:patrolserver_server_exploit_info:count"
OLDEST_POLL = "account:patrolserver_server_last_poll_timestamp_seconds:min"
HALF_POLL = "account:patrolserver_server_last_poll_timestamp_seconds:median"
OLDEST_SCAN = "account:patrolserver_server_last_scan_timestamp_seconds:min"
HALF_SCAN = "account:patrolserver_server_last_scan_timestamp_seconds:median"

WORST = "account_server:patrolserver_server_issues:worst"
WORST_ISSUES = "account_server_severity:patrolserver_server_issues:worst"
WORST_OLDEST = "account_server_severity:patrolserver_server_oldest_issue_timestamp_seconds:worst"
WORST_POLL = "account_server:patrolserver_server_last_poll_timestamp_seconds:worst"
WORST_SCAN = "account_server:patrolserver_server_last_scan_timestamp_seconds:worst"
WORST_RISK = "account_server:patrolserver_server_exploit_risk_max:worst"
OLDEST_URGENT = "account:patrolserver_server_oldest_urgent_issue_timestamp_seconds:min"
POLLS_FAILED = "account:patrolserver_servers_poll_failed:count"
PARTIAL = "account:patrolserver_servers_poll_incomplete:count"
UNKNOWN_RISKS = "account:patrolserver_server_exploits_unknown_risk:sum"
SCANS_LATE = "account:patrolserver_servers_scan_late:count"
NEVER_SCANNED = "account:patrolserver_servers_never_scanned:count"
OWNERS_ISSUES = "account_owner_severity:patrolserver_server_issues:sum"
OWNERS_SERVERS = "account_owner:patrolserver_servers:count"
OWNERS_WAIVED = "account_owner:patrolserver_server_issues_waived:sum"
OWNERS_SOFTWARE = "account_owner_state:patrolserver_server_software:sum"
OWNERS_EXPLOITS = "account_owner:patrolserver_server_exploits:sum"
OWNERS_RISK = "account_owner:patrolserver_server_exploit_risk_max:max"
OWNERS_SCANNING = "account_owner:patrolserver_server_scanning:sum"
OWNERS_POLL = "account_owner:patrolserver_server_last_poll_timestamp_seconds:min"
OWNERS_SCAN = "account_owner:patrolserver_server_last_scan_timestamp_seconds:min"
WAIVED = "account:patrolserver_server_issues_waived:sum"
FIRING = "alertname:patrolserver_alerts_firing:count"

SHOWN_SERVERS = 50
"""Worst servers that a table lists, of each account."""
FUTURE = "60"
"""Seconds by which a time may lie ahead of Prometheus' clock: an exporter with a fast clock is not fresh for that."""
WEIGHTS = {"critical": "1e9", "high": "1e6", "medium": "1e3", "low": "1"}


def exporters(settings: Settings) -> tuple[Record, ...]:
    """Which exporters know an account, and which of them knows it best."""
    gap, behind = settings.thresholds.gap, seconds(settings.thresholds.exporter_behind)
    return (
        Record(JOB_COUNT, f"count by (job) (up{{job=~{settings.jobs}}})"),
        Record(
            LIST_KNOWN,
            f"""
            last_over_time(patrolserver_last_success_timestamp_seconds[{gap}]) <= time() + {FUTURE}
            or on ({EXPORTERS_ACCOUNT}) 0 * last_over_time(patrolserver_up[{gap}])
            """,
        ),
        Record(
            LIST_CURRENT,
            f"""
            {LIST_KNOWN}
            >= on ({ACCOUNT}) group_left () (max by ({ACCOUNT}) ({LIST_KNOWN}) - {behind})
            """,
        ),
        Record(LIST_FRESHEST, f"topk by ({ACCOUNT}) (1, {LIST_CURRENT})"),
        *(
            Record(name, f"last_over_time({metric}[{gap}]) and on ({EXPORTERS_ACCOUNT}) {LIST_FRESHEST}")
            for name, metric in (
                (SERVERS, "patrolserver_servers"),
                (ACCOUNT_ISSUES, "patrolserver_account_issues"),
                (AFFECTED, "patrolserver_account_servers_affected"),
                (GATE_SERVERS, "patrolserver_gate_servers"),
            )
        ),
    )


def critical_servers(settings: Settings) -> tuple[Record, ...]:
    """Which exporter knows a server best, and which servers are critical there: what a page waits for, and no more."""
    gap = settings.thresholds.gap
    return (
        Record(
            POLL,
            f"""
            topk by ({SERVER}) (1,
              (
                last_over_time(patrolserver_server_last_poll_timestamp_seconds[{gap}]) <= time() + {FUTURE}
                or on ({EXPORTERS_SERVER})
                  0 * max by ({EXPORTERS_SERVER}) (last_over_time(patrolserver_server_info[{gap}]))
              )
              and on ({EXPORTERS_ACCOUNT}) {LIST_CURRENT}
            )
            """,
        ),
        # One series for each server, that of the last sample: after a restart of Prometheus the one with the labels of
        # before is seen for minutes beside the one with today's, and rules that join two for one server fail.
        Record(
            INFO,
            f"""
            topk by ({SERVER}) (1,
              (
                timestamp(patrolserver_server_info)
                or on ({EXPORTERS_SERVER}) last_over_time(patrolserver_server_info[{gap}])
              )
              and on ({EXPORTERS_SERVER}) {POLL}
            ) * 0 + 1
            """,
        ),
        Record(
            CRITICAL,
            f"""
            last_over_time(patrolserver_server_issues{{severity="critical"}}[{gap}]) > 0
            and on ({EXPORTERS_SERVER}) {POLL}
            """,
        ),
        Record(CRITICAL_SOFTWARE, _critical_software(settings)),
        Record(CRITICAL_SERVERS, _critical_servers(settings)),
        Record(SPREAD, _spread(settings)),
    )


def servers(settings: Settings) -> tuple[Record, ...]:
    """What the exporter that knows a server best says of its issues and scans."""
    gap = settings.thresholds.gap
    weighted = "\n              or ".join(
        f'{weight} * {ISSUES}{{severity="{name}"}}' for name, weight in WEIGHTS.items()
    )
    return (
        Record(ISSUES, f"last_over_time(patrolserver_server_issues[{gap}]) and on ({EXPORTERS_SERVER}) {POLL}"),
        Record(
            OLDEST,
            f"""
            last_over_time(patrolserver_server_oldest_issue_timestamp_seconds[{gap}])
            and on ({EXPORTERS_SERVER}, severity) {ISSUES} > 0
            """,
        ),
        Record(
            SCAN,
            f"""
            topk by ({SERVER}) (1, last_over_time(patrolserver_server_last_scan_timestamp_seconds[{gap}]))
            and on ({SERVER}) {POLL}
            """,
        ),
        Record(
            WEIGHT,
            f"""
            sum by ({EXPORTERS_SERVER}) (
              {weighted}
            )
            """,
        ),
        Record(OVERDUE, overdue(settings)),
    )


def overdue(settings: Settings) -> str:
    """The age of the oldest issue of each severity, where it is more than allowed."""
    allowed = settings.thresholds.overdue
    ages = (
        f'time() - {OLDEST}{{severity="{name}"}} > {seconds(getattr(allowed, name))}'
        for name in ("critical", "high", "medium", "low")
    )
    return "\nor\n".join(ages)


def _critical_software(settings: Settings) -> str:
    # Labels of this series change with the software's state: what was there before must not linger while it is scraped.
    critical = 'patrolserver_server_software_info{severity="critical"}'
    return f"""
        max by ({EXPORTERS_SERVER}, software) (
          (
            {critical}
            or (
              last_over_time({critical}[{settings.thresholds.gap}])
              unless on (job, instance) up{{job=~{settings.jobs}}} == 1
            )
          )
          and on ({EXPORTERS_SERVER}) {POLL}
        )
        and on ({SERVER}) {CRITICAL}
        """


def _critical_servers(settings: Settings) -> str:
    named = owned(f"max by ({SERVER}, software) ({CRITICAL_SOFTWARE})", settings)
    critical = f"max by ({SERVER}) ({CRITICAL})"
    unnamed = owned(f"(\n  {critical}\n  unless on ({SERVER}) {CRITICAL_SOFTWARE}\n)", settings)
    owners = owners_account(settings)
    return f"count by ({owners}, software) (\n{_in(named)}\n)\nor\ncount by ({owners}) (\n{_in(unnamed)}\n)"


def _spread(settings: Settings) -> str:
    """Servers that were not critical ten minutes ago, by software that was so elsewhere."""
    before = "[15m] offset 10m"
    named = owned(
        f"(\n  max by ({SERVER}, software) ({CRITICAL_SOFTWARE})\n"
        f"  unless on ({SERVER}, software) last_over_time({CRITICAL_SOFTWARE}{before})\n)",
        settings,
    )
    unnamed = owned(
        f"(\n  max by ({SERVER}) ({CRITICAL})\n"
        f"  unless on ({SERVER}) {CRITICAL_SOFTWARE}\n"
        f"  unless on ({SERVER}) last_over_time({CRITICAL}{before})\n)",
        settings,
    )
    elsewhere = f"and on ({owners_account(settings)}, software) last_over_time({CRITICAL_SERVERS}{before})"
    return f"(\n{_in(named)}\n  or\n{_in(unnamed)}\n)\n{elsewhere}"


def owners_account(settings: Settings) -> str:
    """The labels of an account's servers that are somebody's."""
    return ", ".join((ACCOUNT, *settings.owner_labels))


def _in(text: str) -> str:
    return textwrap.indent(text, "  ")


def owned(expr: str, settings: Settings) -> str:
    """With the labels that say whose a server is, where it has them; ``expr`` keeps its values."""
    if not settings.owner_labels:
        return expr
    labels = ", ".join(settings.owner_labels)
    return f"{expr}\n* on ({SERVER}) group_left ({labels}) {INFO}"


def trends(settings: Settings) -> tuple[Record, ...]:
    """What only dashboards read, over long times: sums, so that none of them reads the series of each server.

    They are apart by ``instance`` as well: each server is counted where it was taken from, so the sum is right.
    """
    gap = settings.thresholds.gap
    here = f"and on ({EXPORTERS_SERVER}) {POLL}"
    firing = 'ALERTS{alertstate="firing",alertname=~"PatrolServer.+"}'
    return (
        Record(
            SOFTWARE,
            f"""
            sum by ({EXPORTERS_ACCOUNT}, state) (
              last_over_time(patrolserver_server_software[{gap}]) {here}
            )
            """,
        ),
        *(
            Record(
                name,
                f"""
                count by ({EXPORTERS_ACCOUNT}, {labels}) (
                  count by ({EXPORTERS_SERVER}, {labels}) ({metric} {here})
                )
                """,
            )
            for name, metric, labels in (
                (SOFTWARE_SERVERS, "patrolserver_server_software_info", "software, state, severity"),
                (EXPLOIT_SERVERS, "patrolserver_server_exploit_info", "software, exploit, risk"),
            )
        ),
        Record(
            OVERDUE_SERVERS,
            f"count by ({EXPORTERS_ACCOUNT}) (count by ({EXPORTERS_SERVER}) ({OVERDUE}))\n"
            f"or on ({EXPORTERS_ACCOUNT}) 0 * {SERVERS}",
        ),
        *(
            Record(name, f"{aggregation} by ({EXPORTERS_ACCOUNT}) ({quantile}{series} > 0)")
            for name, aggregation, quantile, series in (
                (OLDEST_POLL, "min", "", POLL),
                (HALF_POLL, "quantile", "0.5, ", POLL),
                (OLDEST_SCAN, "min", "", SCAN),
                (HALF_SCAN, "quantile", "0.5, ", SCAN),
            )
        ),
        Record(
            WAIVED,
            f"sum by ({EXPORTERS_ACCOUNT}) (last_over_time(patrolserver_server_issues_waived[{gap}]) {here})",
        ),
        *_by_owner(settings),
        *_worst(gap),
        *_counts(settings),
        # Alerts of the fleet have no instance, and dashboards select by it.
        Record(
            FIRING,
            f"""
            count by (job, instance, account, alertname, severity) (
              label_replace({firing}, "instance", "fleet", "instance", "")
            )
            """,
        ),
    )


def _by_owner(settings: Settings) -> tuple[Record, ...]:
    """The sums of each owner's servers; those of all servers, where no labels say whose one is."""
    gap = settings.thresholds.gap
    by = ", ".join((EXPORTERS_ACCOUNT, *settings.owner_labels))
    owner = f"group_left ({', '.join(settings.owner_labels)}) {INFO}"

    def latest(metric: str) -> str:
        return f"last_over_time({metric}[{gap}])"

    return (
        *(
            Record(
                name,
                f"""
                {aggregation} by ({", ".join((by, *labels))}) (
                  {series}
                  * on ({EXPORTERS_SERVER}) {owner}
                )
                """,
            )
            for name, aggregation, series, *labels in (
                (OWNERS_ISSUES, "sum", ISSUES, "severity"),
                (OWNERS_WAIVED, "sum", latest("patrolserver_server_issues_waived")),
                (OWNERS_SOFTWARE, "sum", latest("patrolserver_server_software"), "state"),
                (OWNERS_EXPLOITS, "sum", latest("patrolserver_server_exploits")),
                (OWNERS_RISK, "max", latest("patrolserver_server_exploit_risk_max")),
                (OWNERS_SCANNING, "sum", latest("patrolserver_server_scanning")),
                (OWNERS_POLL, "min", f"({POLL} > 0)"),
            )
        ),
        # The end of a scan may be known to another exporter than the one that polled last.
        Record(
            OWNERS_SCAN,
            f"""
            min by ({by}) (
              {SCAN}
              * on ({SERVER}) {owner}
            )
            """,
        ),
        Record(OWNERS_SERVERS, f"count by ({by}) ({INFO})"),
    )


def _worst(gap: str) -> tuple[Record, ...]:
    """The rows of a table, so that it need not look through all servers for each of its columns."""
    here = f"and on ({EXPORTERS_SERVER}) {WORST}"
    return (
        Record(WORST, f"topk by ({ACCOUNT}) ({SHOWN_SERVERS}, {WEIGHT} > 0)"),
        *(
            Record(name, f"{series} {here}")
            for name, series in (
                (WORST_ISSUES, ISSUES),
                (WORST_OLDEST, OLDEST),
                (WORST_POLL, f"{POLL} > 0"),
                (WORST_RISK, f"last_over_time(patrolserver_server_exploit_risk_max[{gap}])"),
            )
        ),
        Record(WORST_SCAN, f"{SCAN} and on ({SERVER}) {WORST}"),
    )


def _counts(settings: Settings) -> tuple[Record, ...]:
    """Of an account's servers: how many are in which trouble, 0 included."""
    gap = settings.thresholds.gap
    here = f"and on ({EXPORTERS_SERVER}) {POLL}"
    none = f"or on ({EXPORTERS_ACCOUNT}) 0 * {SERVERS}"
    late = seconds(settings.thresholds.scan_overdue)
    return (
        Record(OLDEST_URGENT, f'min by ({EXPORTERS_ACCOUNT}) ({OLDEST}{{severity=~"critical|high"}})'),
        *(
            Record(name, f"{aggregation} by ({EXPORTERS_ACCOUNT}) ({expr})\n{none}")
            for name, aggregation, expr in (
                (POLLS_FAILED, "count", f"last_over_time(patrolserver_server_poll_success[{gap}]) == 0 {here}"),
                (PARTIAL, "count", f"last_over_time(patrolserver_server_poll_complete[{gap}]) == 0 {here} > 0"),
                (UNKNOWN_RISKS, "sum", f"last_over_time(patrolserver_server_exploits_unknown_risk[{gap}]) {here}"),
                (SCANS_LATE, "count", f"time() - {SCAN} > {late}"),
                (NEVER_SCANNED, "count", f"{POLL} unless on ({SERVER}) {SCAN}"),
            )
        ),
    )
