"""Exporter health, the row on the webhook: what is delivered, what waits, how long until it shows."""

from __future__ import annotations

from grafana.dashboards.look import GOOD, INBOX_STATES, OUTCOMES, QUANTILES
from grafana.dashboards.panels import About, Placed, Query, lines
from grafana.dashboards.promql import a_minute, by_account, named_zero, or_else, own, rate

INBOX = "patrolserver_exporter_inbox_deliveries"
WAITING = 'state=~"received|fetching|retry|unverified|blocked"'
LAST = ("lastNotNull",)


def inbox() -> tuple[Placed, ...]:
    """Deliveries from their arrival to their effect, and what was lost on the way."""
    return _deliveries(), _states(), _inbox_age(), _lag(), _lost()


def _deliveries() -> Placed:
    about = About(
        "Deliveries a minute",
        "Webhook deliveries a minute, by outcome. refused and rejected: somebody without the token, or forged "
        "ones. failed: the store could not write, look at the disk.",
        8,
        8,
    )
    taken = a_minute("outcome", own("patrolserver_exporter_webhook_deliveries_total"))
    return lines(about, [Query(taken, "{{outcome}}")], colors=OUTCOMES, legend_values=())


def _states() -> Placed:
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
    queries = [Query(or_else(f"(time() - min by (state) ({oldest} > 0)) / 60", none), "{{state}}")]
    return lines(about, queries, unit="m", colors={**INBOX_STATES, "none waits": GOOD})


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
    # Without any event in a window there is no number, and a curve of such has no axis.
    queries = [
        Query(f"histogram_quantile({q}, sum by (le) ({buckets})) >= 0", name) for name, (q, _) in QUANTILES.items()
    ]
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
    return lines(about, queries)
