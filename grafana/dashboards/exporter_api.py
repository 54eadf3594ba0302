"""Exporter health, the row on PatrolServer's API: does it answer, how fast, and is the budget enough."""

from __future__ import annotations

from grafana.alerting import recorded
from grafana.dashboards.look import BAD, GOOD, MUTED, QUANTILES, WARN, WORST
from grafana.dashboards.panels import About, Placed, Query, lines
from grafana.dashboards.promql import a_minute, by_account, each_exporter, named_zero, or_else, rate

REQUESTS = "patrolserver_exporter_api_requests_total"
FAILURES = "patrolserver_exporter_api_request_failures_total"


def api() -> tuple[Placed, ...]:
    """Calls, their failures and durations, and what the budget makes of the polls."""
    return _requests(), _failures(), _latency(), _budget(), _interval(), _poll_age()


def _requests() -> Placed:
    about = About(
        "API calls a minute",
        "Calls to PatrolServer a minute, by endpoint. software is the poll of each server; event grows with "
        "deliveries: if it alone jumps, see in the panel Deliveries who sends them. Near max_requests_per_minute in "
        "all, polls begin to wait: raise it, or poll less often.",
        8,
        8,
    )
    return lines(about, [Query(a_minute("endpoint", by_account(REQUESTS)), "{{endpoint}}")], legend_values=())


def _failures() -> Placed:
    about = About(
        "API failures a minute",
        "Failed calls a minute, by reason. credentials: put the right key in place, it is re-read. "
        "rate_limited: lower max_requests_per_minute. "
        "timeout, connect, dns, tls: the network between. server_error: PatrolServer's own.",
        8,
        8,
    )
    # Reasons that did not occur are no lines.
    failed = f"{a_minute('reason', by_account(FAILURES))} > 0"
    none = named_zero(by_account("patrolserver_up"), "reason", "no failures")
    colors = {"no failures": GOOD, "credentials": WORST, "rate_limited": WARN, "server_error": BAD, "not_found": MUTED}
    return lines(about, [Query(or_else(f"({failed})", none), "{{reason}}")], colors=colors, legend_values=())


def _latency() -> Placed:
    buckets = rate(by_account("patrolserver_exporter_api_request_duration_seconds_bucket"))
    about = About(
        "API latency",
        "How long calls take: half, 90 and 99 of a hundred are faster. Near poll.timeout (10 s unless set) "
        "calls start to fail.",
        8,
        8,
    )
    # Without any event in a window there is no number, and a curve of such has no axis.
    queries = [
        Query(f"histogram_quantile({q}, sum by (le) ({buckets})) >= 0", name) for name, (q, _) in QUANTILES.items()
    ]
    return lines(about, queries, unit="s", colors={name: color for name, (_, color) in QUANTILES.items()})


def _budget() -> Placed:
    about = About(
        "Call budget left",
        "Calls that may still be made this minute, by account. At 0 polls wait: raise max_requests_per_minute "
        "if PatrolServer allows it.",
        8,
        8,
    )
    left = each_exporter("patrolserver_exporter_api_budget_available_requests")
    return lines(about, [Query(left, "{{account}}")], unit="none", decimals=0)


def _interval() -> Placed:
    about = About(
        "Poll interval",
        "Effective time between two polls of a server. Longer than configured: the fleet needs more calls than"
        " the budget has.",
        8,
        8,
    )
    interval = each_exporter("patrolserver_exporter_poll_interval_seconds")
    return lines(about, [Query(f"{interval} / 60", "{{account}}")], unit="m")


def _poll_age() -> Placed:
    about = About(
        "Poll age",
        "Time since the last successful poll: half of the servers (of the slowest account), and the oldest. The "
        "oldest "
        "should stay near the poll interval; if it climbs, the panels API failures and Call budget left say why.",
        8,
        8,
    )
    queries = [
        Query(f"(time() - min({by_account(recorded.HALF_POLL)})) / 60", "half"),
        Query(f"(time() - min({by_account(recorded.OLDEST_POLL)})) / 60", "oldest"),
    ]
    return lines(about, queries, unit="m", colors={"half": GOOD, "oldest": WORST})
