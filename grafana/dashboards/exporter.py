"""Exporter health: does it get its data, does it keep up, what does it cost."""

from __future__ import annotations

from grafana_foundation_sdk.models.common import BigValueTextMode

from grafana.dashboards import counts
from grafana.dashboards.counts import NO_DATA
from grafana.dashboards.frame import EXPORTER, Page, Row
from grafana.dashboards.look import (
    API_STATE,
    BAD,
    GOOD,
    INBOX_STATES,
    LOADED,
    MUTED,
    OUTCOMES,
    WARN,
    WORST,
    any_is,
)
from grafana.dashboards.panels import About, Placed, Query, lines, stats
from grafana.dashboards.promql import (
    a_minute,
    by_account,
    named_zero,
    or_else,
    own,
    per_account,
    per_server,
    rate,
    state_is,
)

REQUESTS = "patrolserver_exporter_api_requests_total"
FAILURES = "patrolserver_exporter_api_request_failures_total"
WAITING = 'state=~"received|fetching|retry|unverified|blocked"'
INBOX = "patrolserver_exporter_inbox_deliveries"
LAST = ("lastNotNull",)
QUANTILES = {"50 %": (0.5, GOOD), "90 %": (0.9, WARN), "99 %": (0.99, WORST)}


def exporter() -> Page:
    """Where to look when the data is old."""
    return Page(
        uid=EXPORTER,
        title="PatrolServer / Exporter health",
        description="Does PatrolServer answer, is every delivery and poll done in time, what does the exporter cost.",
        rows=(
            Row("Now", _numbers()),
            Row("API", (_requests(), _failures(), _latency(), _budget(), _interval(), _poll_age())),
            Row("Webhook and inbox", (_deliveries(), _inbox(), _inbox_age(), _lag(), _lost()), collapsed=True),
            Row("Process", (_cpu(), _memory(), _descriptors(), _errors(), _dropped()), collapsed=True),
        ),
        hidden=frozenset({"server", "severity"}),
        scans_marked=False,
    )


def _error_ratio() -> str:
    return f"sum({rate(by_account(FAILURES))}) / sum({rate(by_account(REQUESTS))}) >= 0"


def _numbers() -> tuple[Placed, ...]:
    waiting, dead = own(INBOX, WAITING), own(INBOX, state_is("dead"))
    no_failures = f"0 * sum({rate(by_account(REQUESTS))})"
    return (
        stats(
            About(
                "Scrape",
                "Whether Prometheus reaches the exporter. fails: is the process running, does /-/healthy answer?",
                6,
                3,
                "no target",
            ),
            [Query(f"min({own('up')})", "up")],
            mapping=API_STATE,
        ),
        stats(
            About(
                "Version",
                "The running build. Several: a roll-out is under way, or was forgotten half-way.",
                6,
                3,
                NO_DATA,
            ),
            [Query(f"count by (version) ({own('patrolserver_exporter_build_info')})", "{{version}}")],
            base="text",
            text=BigValueTextMode.NAME,
        ),
        stats(
            About(
                "PatrolServer API",
                "Whether the last call for each account's server list succeeded. fails: the panel API failures"
                " names the reason.",
                6,
                3,
                NO_DATA,
            ),
            [Query(per_account("patrolserver_up"), "{{account}}")],
            mapping=API_STATE,
        ),
        stats(
            About(
                "API errors",
                "Share of the API calls that failed. Single ones are retried; from 5 % on look at the reasons.",
                6,
                3,
                NO_DATA,
            ),
            [Query(or_else(_error_ratio(), no_failures), "errors")],
            unit="percentunit",
            limits=((0.01, WARN), (0.05, BAD), (0.5, WORST)),
            decimals=1,
        ),
        stats(
            About(
                "Waiting deliveries",
                "Deliveries not yet applied. A few are normal; hundreds that do not fall are a flood or a "
                "stuck worker.",
                6,
                3,
                NO_DATA,
            ),
            [Query(f"sum({waiting})", "deliveries")],
            limits=((100.0, WARN), (1000.0, BAD)),
        ),
        stats(
            About(
                "Dead deliveries",
                "Deliveries whose reply could not be understood: patrolserver-exporter inbox list "
                "--state=dead, then replay or drop.",
                6,
                3,
                NO_DATA,
            ),
            [Query(f"sum({dead})", "deliveries")],
            limits=any_is(WORST),
        ),
        counts.data_age(6, 3),
        stats(
            About(
                "Configuration",
                "Whether the last reload succeeded. failed: the exporter goes on with the old file; its log names "
                "the key and line.",
                6,
                3,
                NO_DATA,
            ),
            [Query(f"min({own('patrolserver_exporter_config_last_reload_successful')})", "loaded")],
            mapping=LOADED,
        ),
    )


def _requests() -> Placed:
    about = About(
        "API calls a minute",
        "Calls to PatrolServer a minute, by endpoint. software is the poll of each server; event grows with "
        "deliveries.",
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
    failed = a_minute("reason", by_account(FAILURES))
    none = named_zero(by_account("patrolserver_up"), "reason", "no failures")
    colors = {"no failures": GOOD, "credentials": WORST, "rate_limited": WARN, "server_error": BAD, "not_found": MUTED}
    return lines(about, [Query(or_else(failed, none), "{{reason}}")], colors=colors)


def _latency() -> Placed:
    buckets = rate(by_account("patrolserver_exporter_api_request_duration_seconds_bucket"))
    about = About(
        "API latency",
        "How long calls take: half, 90 and 99 of a hundred are faster. Near poll.timeout (10 s unless set) "
        "calls start to fail.",
        8,
        8,
    )
    queries = [Query(f"histogram_quantile({q}, sum by (le) ({buckets}))", name) for name, (q, _) in QUANTILES.items()]
    return lines(about, queries, unit="s", colors={name: color for name, (_, color) in QUANTILES.items()})


def _budget() -> Placed:
    about = About(
        "Call budget left",
        "Calls that may still be made this minute, by account. At 0 polls wait: raise max_requests_per_minute "
        "if PatrolServer allows it.",
        8,
        8,
    )
    left = per_account("patrolserver_exporter_api_budget_available_requests")
    return lines(about, [Query(left, "{{account}}")], unit="none", decimals=0)


def _interval() -> Placed:
    about = About(
        "Poll interval",
        "Effective time between two polls of a server. Longer than configured: the fleet needs more calls than"
        " the budget has.",
        8,
        8,
    )
    interval = per_account("patrolserver_exporter_poll_interval_seconds")
    return lines(about, [Query(interval, "{{account}}")], unit="s")


def _poll_age() -> Placed:
    age = f"time() - {per_server('patrolserver_server_last_poll_timestamp_seconds')}"
    about = About(
        "Poll age",
        "Time since the last successful poll, over all servers. The oldest should stay near the poll interval.",
        8,
        8,
    )
    queries = [Query(f"quantile({q}, {age})", name) for name, (q, _) in QUANTILES.items() if name != "99 %"]
    return lines(
        about,
        [*queries, Query(f"max({age})", "oldest")],
        unit="s",
        colors={"50 %": GOOD, "90 %": WARN, "oldest": WORST},
        decimals=1,
    )


def _deliveries() -> Placed:
    about = About(
        "Deliveries a minute",
        "Webhook deliveries a minute, by outcome. refused and rejected: somebody without the token, or forged "
        "ones. failed: the store could not write, look at the disk.",
        8,
        8,
    )
    taken = a_minute("outcome", own("patrolserver_exporter_webhook_deliveries_total"))
    return lines(about, [Query(taken, "{{outcome}}")], colors=OUTCOMES, legend_values=LAST)


def _inbox() -> Placed:
    about = About(
        "Inbox by state",
        "Deliveries not yet applied, by state. retry: the API fails, they come again. blocked: credentials "
        "refused. unverified: probably forged. dead: replay or drop by hand.",
        8,
        8,
    )
    unfinished = own(INBOX, 'state!~"applied|rejected|expired"')
    states = f"sum by (state) ({unfinished})"
    return lines(about, [Query(states, "{{state}}")], colors=INBOX_STATES, stacked=True, decimals=0, legend_values=LAST)


def _inbox_age() -> Placed:
    oldest = own("patrolserver_exporter_inbox_oldest_timestamp_seconds", WAITING)
    about = About(
        "Oldest waiting delivery",
        "Age of the oldest delivery not yet applied, by state. An alert fires when one waits 15 minutes for "
        "its first try.",
        8,
        8,
    )
    none = named_zero(own("patrolserver_exporter_build_info"), "state", "none waits")
    queries = [Query(or_else(f"time() - min by (state) ({oldest} > 0)", none), "{{state}}")]
    return lines(about, queries, unit="s", colors={**INBOX_STATES, "none waits": GOOD})


def _lag() -> Placed:
    buckets = rate(own("patrolserver_exporter_event_lag_seconds_bucket"))
    about = About(
        "Event lag",
        "From a delivery's reception to its effect in /metrics. Seconds are right; minutes mean that event "
        "calls wait for budget or for the API.",
        12,
        8,
        "No delivery has been applied in this time",
    )
    queries = [Query(f"histogram_quantile({q}, sum by (le) ({buckets}))", name) for name, (q, _) in QUANTILES.items()]
    return lines(about, queries, unit="s", colors={name: color for name, (_, color) in QUANTILES.items()})


def _lost() -> Placed:
    about = About(
        "Overflows and oddities a minute",
        "Deliveries that met a full inbox (a poll catches up; raise inbox_limit if they were genuine), and fields in "
        "PatrolServer's replies that look unlike its documentation: the log tells which; report them.",
        12,
        8,
    )
    overflows = a_minute("account", by_account("patrolserver_exporter_inbox_overflows_total"))
    odd = a_minute("account", by_account("patrolserver_exporter_wire_oddities_total"))
    queries = [Query(overflows, "overflows {{account}}"), Query(odd, "oddities {{account}}")]
    return lines(about, queries, decimals=0)


def _cpu() -> Placed:
    about = About(
        "CPU",
        "Share of a core used by each exporter. A steady 100 % is too much: raise the poll interval or lower the "
        "concurrency.",
        8,
        8,
    )
    return lines(about, [Query(rate(own("process_cpu_seconds_total")), "{{instance}}")], unit="percentunit", decimals=1)


def _memory() -> Placed:
    about = About(
        "Memory",
        "Resident memory of each exporter. It follows the number of servers and then stands; one that climbs "
        "for days is a leak: report it.",
        8,
        8,
    )
    return lines(about, [Query(own("process_resident_memory_bytes"), "{{instance}}")], unit="bytes")


def _descriptors() -> Placed:
    about = About(
        "Open files",
        "Share of the allowed open files and sockets in use. Near 100 % deliveries are lost: raise the limit, "
        "or find who holds connections open.",
        8,
        8,
    )
    share = f"{own('process_open_fds')} / {own('process_max_fds')}"
    return lines(about, [Query(share, "{{instance}}")], unit="percentunit", decimals=2)


def _errors() -> Placed:
    about = About(
        "Unexpected errors a minute",
        "Errors that the exporter did not expect, by component. Each is in the log with its trace: report it.",
        12,
        8,
    )
    errors = a_minute("component", own("patrolserver_exporter_errors_total"))
    return lines(about, [Query(errors, "{{component}}")], decimals=0, legend_values=LAST)


def _dropped() -> Placed:
    about = About(
        "Dropped series a minute",
        "Software series left out, by limit. Raise metrics.software_limit_… if Prometheus can bear "
        "it; the counts stay right all the same.",
        12,
        8,
    )
    dropped = a_minute("reason", own("patrolserver_exporter_series_dropped_total"))
    return lines(about, [Query(dropped, "{{reason}}")], decimals=0, legend_values=LAST)
