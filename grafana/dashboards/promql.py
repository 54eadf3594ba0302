"""Selectors and aggregations that every panel shares.

What is known of an account or server is taken from the exporter whose knowledge is the freshest, as recording rules
pick it. Series of an exporter (``patrolserver_exporter_*``) are its own: they are summed or shown one by one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from grafana.alerting import recorded

if TYPE_CHECKING:
    from collections.abc import Sequence

TARGET = 'job=~"$job", instance=~"$instance"'
SERVER_LABELS = ("account", "server_id", "server")
ACCOUNTS = {
    "patrolserver_servers": recorded.SERVERS,
    "patrolserver_account_issues": recorded.ACCOUNT_ISSUES,
    "patrolserver_account_servers_affected": recorded.AFFECTED,
    "patrolserver_gate_servers": recorded.GATE_SERVERS,
}
"""Metric of an account → the recorded series of the freshest exporter."""
SERVERS = {
    "patrolserver_server_info": recorded.INFO,
    "patrolserver_server_issues": recorded.ISSUES,
    "patrolserver_server_oldest_issue_timestamp_seconds": recorded.OLDEST,
    "patrolserver_server_last_poll_timestamp_seconds": recorded.POLL,
    "patrolserver_server_last_scan_timestamp_seconds": recorded.SCAN,
}
"""The same of a server."""


OWNERS = "OWNERS"
"""Stands where the matchers of the owner's labels belong, since only the settings know those: `with_owners`."""


def with_owners(text: str, labels: Sequence[str]) -> str:
    """Put the variables of the owner's labels in; a server without such a label is among All."""
    return text.replace(f", {OWNERS}", "".join(f', {label}=~"${label}"' for label in labels))


def own(metric: str, *matchers: str) -> str:
    """A series of an exporter that has no account label."""
    return f"{metric}{{{', '.join((TARGET, *matchers))}}}"


ALL = 'every=~"$server"'
NAMED = 'every!~"$server"'
"""No series has this label. So the one fits where All servers are chosen, whose value is ``.*``, and the other where
servers are named; and Prometheus finds nothing to read for the one that does not."""


def by_account(metric: str, *matchers: str) -> str:
    """A series with an account label."""
    return own(metric, 'account=~"$account"', *matchers)


def by_server(metric: str, *matchers: str) -> str:
    """A series with the labels of a server."""
    return by_account(metric, 'server=~"$server"', *matchers)


def per_account(metric: str, *labels: str, matchers: tuple[str, ...] = (), pick: str = "max") -> str:
    """One value an account (and ``labels``): that of the exporter which knows it best."""
    series = by_account(ACCOUNTS.get(metric, metric), *matchers)
    if metric not in ACCOUNTS:
        series = f"{series} and on ({recorded.EXPORTERS_ACCOUNT}) {by_account(recorded.LIST_FRESHEST)}"
    return f"{pick} by ({', '.join(('account', *labels))}) ({series})"


def each_exporter(metric: str, *labels: str, matchers: tuple[str, ...] = (), pick: str = "max") -> str:
    """One value an account (and ``labels``), over all exporters that have their own."""
    return f"{pick} by ({', '.join(('account', *labels))}) ({by_account(metric, *matchers)})"


def per_server(
    metric: str,
    *labels: str,
    matchers: tuple[str, ...] = (),
    pick: str = "max",
    at: str = "",
) -> str:
    """One value a server (and ``labels``): that of the exporter which polled it last; ``at``: ``@ end()``, say."""
    series = f"{by_server(SERVERS.get(metric, metric), *matchers)}{at}"
    if metric == "patrolserver_server_last_poll_timestamp_seconds":
        # The time 0 stands for a server that was never polled.
        series = f"{series} > 0"
    elif metric not in SERVERS:
        series = f"{series} and on ({recorded.EXPORTERS_SERVER}) {by_server(recorded.POLL)}{at}"
    series = f"{series} and on ({', '.join(SERVER_LABELS)}) {by_server(recorded.INFO, OWNERS)}{at}"
    return f"{pick} by ({', '.join((*SERVER_LABELS, *labels))}) ({series})"


def named(expr: str) -> str:
    """The same, and nothing where All servers are chosen."""
    chosen = 'server=~"$server"'
    return expr.replace(chosen, f"{chosen}, {NAMED}")


def selected(operation: str, owners: str, series: str, *matchers: str) -> str:
    """One number of the selected servers: of All from what is recorded by owner, of named ones from their ``series``.

    Of thousands of servers, their own series over weeks would take seconds.
    """
    everything = f"{operation}({by_account(owners, ALL, OWNERS, *matchers)})"
    return f"({everything} or {operation}({named(series)}))"


def most_now(number: int, over_time: str, now: str) -> str:
    """The curves of the ``number`` highest servers at the end of the time range: the same ones all the way."""
    return f"{over_time} and on (account, server_id) topk({number}, {now})"


def severity(name: str) -> tuple[str, ...]:
    """One severity, unless the dashboard's filter leaves it out."""
    return (f'severity="{name}"', 'severity=~"$severity"')


def state_is(name: str) -> str:
    """One state of software or deliveries."""
    return f'state="{name}"'


ANY_SEVERITY = ('severity=~"$severity"',)


def rate(selector: str) -> str:
    """Per second, over the window that Grafana finds long enough."""
    return f"rate({selector}[$__rate_interval])"


def a_minute(label: str, selector: str) -> str:
    """How many a minute, by ``label``."""
    return f"60 * sum by ({label}) ({rate(selector)})"


def or_else(expression: str, fallback: str) -> str:
    """``fallback`` when nothing matches: a healthy system has no failures, and its panel says so."""
    return f"{expression} or on () {fallback}"


def named_zero(known: str, label: str, name: str) -> str:
    """A zero called ``name``, as long as ``known`` exists at all: an empty Prometheus is not a healthy one."""
    return f'label_replace(0 * count({known}), "{label}", "{name}", "", "")'
