"""Fleet overview, the row on freshness: how old is what the other rows show."""

from __future__ import annotations

from grafana.dashboards.counts import NO_DATA
from grafana.dashboards.look import API_STATE, BAD, GOOD, POLL_AGE, WARN, any_is
from grafana.dashboards.panels import About, Placed, Query, lines, stats
from grafana.dashboards.promql import count_where, per_account, per_server

AGES = {"half of the servers": GOOD, "oldest": WARN}


def freshness() -> tuple[Placed, ...]:
    """Ages of lists, polls and scans, and how many servers are late."""
    polled = per_server("patrolserver_server_last_poll_timestamp_seconds")
    scanned = per_server("patrolserver_server_last_scan_timestamp_seconds")
    known = per_server("patrolserver_server_info")
    never = f"count({known} unless on (account, server_id, server) {scanned}) or on () 0 * count({known})"
    return (
        stats(
            About(
                "API",
                "Whether the last call for the account's server list succeeded. fails: see the exporter's "
                "dashboard for the reason.",
                4,
                4,
                NO_DATA,
            ),
            [Query(per_account("patrolserver_up"), "{{account}}")],
            mapping=API_STATE,
        ),
        stats(
            About(
                "Servers",
                "Servers in the accounts' lists. A drop that nobody planned: look in PatrolServer who removed them.",
                4,
                4,
                NO_DATA,
            ),
            [Query(f"sum({per_account('patrolserver_servers')})", "servers")],
            base="text",
            sparkline=True,
        ),
        stats(
            About(
                "Polls failed",
                "Servers whose last poll did not succeed, or has not come yet; they show what was known before. Each "
                "is tried again by itself. If the number stays: the panel API failures of the exporter's dashboard has "
                "the reason, the exporter's log the servers.",
                4,
                4,
                NO_DATA,
            ),
            [Query(count_where(per_server("patrolserver_server_poll_success", pick="min"), "== 0"), "servers")],
            limits=any_is(WARN),
        ),
        stats(
            About(
                "List age",
                "Time since an account's server list was last read; the oldest account counts. Yellow after an hour: "
                "servers that came since are not watched yet. Look for the reason at the exporter's dashboard, in the "
                "panel API failures.",
                4,
                4,
                NO_DATA,
            ),
            [Query(f"time() - min({per_account('patrolserver_last_success_timestamp_seconds')})", "age")],
            unit="s",
            limits=POLL_AGE,
            decimals=1,
        ),
        stats(
            About(
                "Scan late",
                "Servers whose last seen scan ended more than 2 days ago: start one in PatrolServer, and see "
                "whether the server can be reached from outside.",
                4,
                4,
                NO_DATA,
            ),
            [Query(count_where(f"(time() - {scanned})", "> 172800"), "servers")],
            limits=any_is(BAD),
        ),
        stats(
            About(
                "No scan yet",
                "Servers of which no scan has been seen: verify them in PatrolServer, and check the webhook.",
                4,
                4,
                NO_DATA,
            ),
            [Query(never, "servers")],
            limits=any_is(WARN),
        ),
        lines(
            About(
                "Age of polls",
                "Time since the last successful poll: half of the servers, and the oldest. The oldest should stay near "
                "the poll interval; if it climbs, look at API failures and budget on the exporter's dashboard.",
                12,
                8,
            ),
            [
                Query(f"quantile(0.5, time() - {polled})", "half of the servers"),
                Query(f"time() - min({polled})", "oldest"),
            ],
            unit="s",
            colors=AGES,
            decimals=1,
        ),
        lines(
            About(
                "Age of scans",
                "Time since the last seen scan ended: half of the servers, and the oldest. Saw teeth of a day "
                "are right; a straight climb is a server that PatrolServer no longer scans.",
                12,
                8,
            ),
            [
                Query(f"quantile(0.5, time() - {scanned})", "half of the servers"),
                Query(f"time() - min({scanned})", "oldest"),
            ],
            unit="s",
            colors=AGES,
            decimals=1,
        ),
        *_what_is_unknown(),
    )


def _what_is_unknown() -> tuple[Placed, ...]:
    judged = per_account("patrolserver_gate_servers", "policy", "verdict", matchers=('verdict!="pass"',))
    unknown = per_account("patrolserver_account_servers_affected", matchers=('severity="unknown"',))
    partial = per_server("patrolserver_server_poll_complete", pick="min")
    polled = per_server("patrolserver_server_last_poll_timestamp_seconds")
    return (
        lines(
            About(
                "Servers that the gate would stop",
                "What a deploy of each server alone would be told now, by policy: fail for its issues, unknown where "
                "nobody can vouch for it. patrolserver-exporter gate SERVER says why.",
                12,
                8,
            ),
            [Query(f"sum by (policy, verdict) ({judged})", "{{policy}}: {{verdict}}")],
            unit="none",
            decimals=0,
        ),
        stats(
            About(
                "Unknown",
                "Servers that nobody can vouch for: never polled, the last poll failed or showed only a part or "
                "nothing, an event or a new name waits for a poll, or their account cannot be read.",
                4,
                8,
                NO_DATA,
            ),
            [Query(f"sum({unknown})", "servers")],
            limits=any_is(WARN),
        ),
        stats(
            About(
                "Partial or empty",
                "Servers whose last successful poll showed only a part, or no software at all: the exporter's page "
                "names the worst, its log what was missing.",
                4,
                8,
                NO_DATA,
            ),
            [Query(count_where(f"({partial} and on (account, server_id, server) {polled})", "== 0"), "servers")],
            limits=any_is(WARN),
        ),
        stats(
            About(
                "Unknown risks",
                "Known exploits without a risk that can be read. They count as high, and as the worst at the gate: "
                "look them up by CVE.",
                4,
                8,
                NO_DATA,
            ),
            [Query(f"sum({per_server('patrolserver_server_exploits_unknown_risk')})", "exploits")],
            limits=any_is(WARN),
        ),
    )
