"""Fleet overview, the row on freshness: how old is what the other rows show."""

from __future__ import annotations

from typing import TYPE_CHECKING

from grafana.alerting import recorded
from grafana.dashboards.counts import NO_DATA
from grafana.dashboards.look import API_STATE, BAD, GOOD, MUTED, WARN, WORST, any_is, poll_age
from grafana.dashboards.panels import DAYS, About, Placed, Query, lines, stats
from grafana.dashboards.promql import by_account, each_exporter, per_account
from grafana.settings import words

if TYPE_CHECKING:
    from grafana.settings import Thresholds

AGES = {"half of the servers": GOOD, "oldest": WARN}


def freshness(limits: Thresholds) -> tuple[Placed, ...]:
    """Ages of lists, polls and scans, and how many servers are late."""
    return (
        stats(
            About(
                "API",
                "Whether any exporter's last call for the account's server list succeeded. fails: see the exporter's "
                "dashboard for the reason, and which of several it is.",
                4,
                4,
                NO_DATA,
            ),
            [Query(each_exporter("patrolserver_up"), "{{account}}")],
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
            base="transparent",
        ),
        stats(
            About(
                "Polls failed",
                "Servers whose last poll did not succeed, or has not come yet; they show what was known before. Each "
                "is tried again by itself. If the number stays: the panel API failures of the exporter's dashboard "
                "has "
                "the reason, the exporter's log the servers.",
                4,
                4,
                NO_DATA,
            ),
            [Query(f"sum({by_account(recorded.POLLS_FAILED)})", "servers")],
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
            [Query(f"time() - min({each_exporter('patrolserver_last_success_timestamp_seconds')})", "age")],
            unit="s",
            limits=poll_age(limits),
            decimals=1,
        ),
        stats(
            About(
                "Scan late",
                f"Servers whose last seen scan ended more than {words(limits.scan_overdue)} ago: start one in "
                "PatrolServer, and see "
                "whether the server can be reached from outside.",
                4,
                4,
                NO_DATA,
            ),
            [Query(f"sum({by_account(recorded.SCANS_LATE)})", "servers")],
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
            [Query(f"sum({by_account(recorded.NEVER_SCANNED)})", "servers")],
            limits=any_is(WARN),
        ),
        lines(
            About(
                "Age of polls",
                "Time since the last successful poll: half of the servers (of the slowest account), and the oldest. "
                "The oldest should stay near "
                "the poll interval; if it climbs, look at API failures and budget on the exporter's dashboard.",
                12,
                8,
            ),
            [
                Query(f"(time() - min({by_account(recorded.HALF_POLL)})) / 60", "half of the servers"),
                Query(f"(time() - min({by_account(recorded.OLDEST_POLL)})) / 60", "oldest"),
            ],
            unit="m",
            colors=AGES,
        ),
        lines(
            About(
                "Age of scans",
                "Time since the last seen scan ended: half of the servers (of the slowest account), and the oldest. "
                "Saw teeth of a day "
                "are right; a straight climb is a server that PatrolServer no longer scans.",
                12,
                8,
            ),
            [
                Query(f"(time() - min({by_account(recorded.HALF_SCAN)})) / 86400", "half of the servers"),
                Query(f"(time() - min({by_account(recorded.OLDEST_SCAN)})) / 86400", "oldest"),
            ],
            unit=DAYS,
            colors=AGES,
        ),
        *_what_is_unknown(),
    )


def _what_is_unknown() -> tuple[Placed, ...]:
    judged = per_account("patrolserver_gate_servers", "policy", "verdict", matchers=('verdict!="pass"',))
    return (
        lines(
            About(
                "Servers that the gate would stop",
                "What a deploy of each server alone would be told now, by policy: fail for its issues, unknown where "
                "nobody can vouch for it (dashed). patrolserver-exporter gate SERVER says why.",
                12,
                8,
            ),
            [Query(f"sum by (policy, verdict) ({judged})", "{{policy}}: {{verdict}}")],
            unit="none",
            colors={"builtin: fail": WORST, "builtin: unknown": MUTED},
            decimals=0,
            legend_values=("lastNotNull",),
            dashed="/: unknown$/",
        ),
        stats(
            About(
                "Partial or empty",
                "Servers whose last successful poll showed only a part, or no software at all: the exporter's page "
                "names the worst, its log what was missing.",
                6,
                8,
                NO_DATA,
            ),
            [Query(f"sum({by_account(recorded.PARTIAL)})", "servers")],
            limits=any_is(WARN),
        ),
        stats(
            About(
                "Unknown risks",
                "Known exploits without a risk that can be read. They count as high, and as the worst at the gate: "
                "look them up by CVE.",
                6,
                8,
                NO_DATA,
            ),
            [Query(f"sum({by_account(recorded.UNKNOWN_RISKS)})", "exploits")],
            limits=any_is(WARN),
        ),
    )
