"""Numbers that more than one dashboard shows, said once."""

from __future__ import annotations

from typing import TYPE_CHECKING

from grafana.alerting import recorded
from grafana.dashboards.look import (
    MUTED,
    NONE_OPEN,
    RISK,
    SEVERITIES,
    SOFTWARE_STATES,
    any_is,
    issue_age,
    poll_age,
    words,
)
from grafana.dashboards.panels import About, Placed, Query, lines, stats
from grafana.dashboards.promql import SERVER_LABELS, by_account, per_server, selected, severity, state_is
from grafana.settings import words as told

if TYPE_CHECKING:
    from grafana.settings import Thresholds

ISSUES = "patrolserver_server_issues"
BY_SERVER = f"sum by ({', '.join(SERVER_LABELS)})"
NO_DATA = "no data"


def _open(name: str) -> str:
    """Open issues of a severity."""
    matchers = severity(name)
    return selected("sum", recorded.OWNERS_ISSUES, per_server(ISSUES, matchers=matchers), *matchers)


def all_exploits() -> str:
    """Known exploits that count."""
    return selected("sum", recorded.OWNERS_EXPLOITS, per_server("patrolserver_server_exploits"))


def worst_risk() -> str:
    """The highest risk of any."""
    return selected("max", recorded.OWNERS_RISK, per_server("patrolserver_server_exploit_risk_max"))


def open_issues(width: int, what_to_do: str) -> Placed:
    """Four big numbers, worst first, and a fifth for what is waived."""
    queries = [Query(_open(name), name) for name in SEVERITIES]
    waived = selected("sum", recorded.OWNERS_WAIVED, per_server("patrolserver_server_issues_waived"))
    queries.append(Query(waived, "waived"))
    limits = {name: any_is(color) for name, color in SEVERITIES.items()} | {"waived": any_is(MUTED)}
    return stats(About("Open issues", what_to_do, width, 4, NO_DATA), queries, each=limits)


def issue_trend(width: int, what_to_do: str) -> Placed:
    """Open issues over time, stacked by severity, the worst at the bottom."""
    queries = [Query(_open(name), name) for name in SEVERITIES]
    return lines(
        About("Open issues by severity", what_to_do, width, 8), queries, colors=SEVERITIES, stacked=True, decimals=0
    )


def software_trend(width: int) -> Placed:
    """Installed software that is not fine, over time."""
    queries = [
        Query(
            selected(
                "sum",
                recorded.OWNERS_SOFTWARE,
                per_server("patrolserver_server_software", matchers=(state_is(name),)),
                state_is(name),
            ),
            name,
        )
        for name in SOFTWARE_STATES
        if name != "supported"
    ]
    about = About(
        "Software that is not current",
        "Installed software that is outdated (update it), unsupported (move to another line) or of unknown state (its "
        "version was not detected). A falling curve is what patch days look like.",
        width,
        8,
    )
    return lines(about, queries, colors=SOFTWARE_STATES, stacked=True, decimals=0)


def exploits(width: int, what_to_do: str) -> Placed:
    """Known exploits that count."""
    queries = [Query(all_exploits(), "exploits")]
    return stats(About("Exploits", what_to_do, width, 4, NO_DATA), queries, limits=any_is(SEVERITIES["high"]))


def highest_risk(width: int) -> Placed:
    """The worst exploit's risk."""
    about = About(
        "Highest risk",
        "Risk of the worst known exploit, 0 to 10 like CVSS. 9 and more is critical: update or shut it off today.",
        width,
        4,
        NO_DATA,
    )
    queries = [Query(worst_risk(), "risk")]
    return stats(about, queries, limits=RISK, decimals=1, unit="none")


def oldest_urgent(width: int, limits: Thresholds) -> Placed:
    """How long the oldest critical or high issue has been so."""
    oldest, known = by_account(recorded.OLDEST_URGENT), by_account(recorded.SERVERS)
    about = About(
        "Oldest high",
        f"How long the oldest issue that is high or critical has been so. After {told(limits.high_too_long)} an alert"
        f" fires for a high one, after {told(limits.overdue.critical)} a critical one is overdue. none: no such issue "
        "is open.",
        width,
        4,
        NO_DATA,
    )
    queries = [Query(f"time() - min({oldest}) or on () 0 * count({known})", "age")]
    return stats(about, queries, unit="s", limits=issue_age(limits), decimals=1, mapping=NONE_OPEN)


def oldest_poll(width: int, limits: Thresholds, height: int = 4) -> Placed:
    """How old the data of the fleet's oldest server is."""
    polled, servers = f"min({by_account(recorded.OLDEST_POLL)})", f"sum({by_account(recorded.SERVERS)})"
    return _age_of_polls(width, limits, height, polled, servers)


def data_age(width: int, limits: Thresholds) -> Placed:
    """How old the data of the oldest of the selected servers is."""
    polled = per_server("patrolserver_server_last_poll_timestamp_seconds")
    servers = selected("sum", recorded.OWNERS_SERVERS, per_server("patrolserver_server_info"))
    return _age_of_polls(width, limits, 4, selected("min", recorded.OWNERS_POLL, polled), servers)


NEVER = words({"-1": ("never", SEVERITIES["medium"])})


def age_or_never(time: str, servers: str) -> str:
    """How long ago the time is; -1, which ``NEVER`` shows in a word, where there are servers and no such time."""
    return f"time() - {time} or on () -1 * ({servers} > 0 > bool 0)"


def _age_of_polls(width: int, limits: Thresholds, height: int, polled: str, servers: str) -> Placed:
    about = About(
        "Oldest poll",
        "Time since the last successful poll of the server that was polled longest ago. Yellow after "
        f"{told(limits.data_stale_after)}: open the exporter's dashboard and look at API failures and budget. Red "
        f"after {told(limits.data_stale_at_most)}: the deploy gate answers unknown. never: no poll has succeeded.",
        width,
        height,
        NO_DATA,
    )
    queries = [Query(age_or_never(polled, servers), "age")]
    return stats(about, queries, unit="s", limits=poll_age(limits), decimals=1, mapping=NEVER)
