"""Fleet overview: what needs attention first. Its figures are sums that exporters and rules make, not this page."""

from __future__ import annotations

from typing import TYPE_CHECKING

from grafana.alerting import recorded
from grafana.dashboards import counts
from grafana.dashboards.counts import NO_DATA
from grafana.dashboards.fleet_freshness import freshness
from grafana.dashboards.frame import FLEET, Page, Row, server_link
from grafana.dashboards.look import BAD, RISK, SEVERITIES, any_is, issue_age, poll_age, scan_age
from grafana.dashboards.panels import (
    HOURS,
    About,
    Column,
    Placed,
    Query,
    bars,
    colored_cell,
    lines,
    rows,
    stats,
    unit,
)
from grafana.dashboards.promql import (
    ANY_SEVERITY,
    SERVER_LABELS,
    by_account,
    per_account,
    severity,
)

if TYPE_CHECKING:
    from grafana.settings import Settings, Thresholds

ISSUES = "patrolserver_account_issues"
AFFECTED = "patrolserver_account_servers_affected"


def fleet(settings: Settings) -> Page:
    """The page an operator opens in the morning."""
    limits = settings.thresholds
    return Page(
        uid=FLEET,
        title="PatrolServer / Fleet overview",
        description="Which servers run vulnerable software, worst first; is it getting better; is the data fresh.",
        rows=(
            Row("What needs attention first", (*_numbers(limits), _worst_servers(limits))),
            Row("Trend", (_trend(), _opened_and_fixed())),
            Row("Time to fix", (_time_to_fix(limits), _time_to_fix_trend()), collapsed=True),
            Row("Freshness", freshness(limits), collapsed=True),
        ),
        # Its figures are of whole accounts.
        hidden=frozenset({"server"}),
        scans_marked=False,
    )


def issues_of(name: str) -> str:
    """Open issues of the chosen accounts with that severity."""
    return f"sum({per_account(ISSUES, matchers=severity(name))})"


def _numbers(limits: Thresholds) -> tuple[Placed, ...]:
    urgent = per_account(AFFECTED, "severity", matchers=('severity=~"critical|high"',))
    unknown = per_account(AFFECTED, matchers=('severity="unknown"',))
    return (
        stats(
            About(
                "Open issues",
                "Open issues of the accounts' servers, waived ones left out. Work from left to right: critical today, "
                "high "
                "this week.",
                8,
                4,
                NO_DATA,
            ),
            [Query(issues_of(name), name) for name in SEVERITIES],
            each={name: any_is(color) for name, color in SEVERITIES.items()},
        ),
        stats(
            About(
                "To act on",
                "Servers with at least one critical or high issue: the upper rows of the table below.",
                4,
                4,
                NO_DATA,
            ),
            [Query(f"sum({urgent})", "servers")],
            limits=any_is(BAD),
        ),
        stats(
            About(
                "Unknown",
                "Servers that nobody can vouch for: never polled, the last poll failed or showed only a part or "
                "nothing, an "
                "event or a new name waits for a poll, or their account cannot be read. They are not clean.",
                4,
                4,
                NO_DATA,
            ),
            [Query(f"sum({unknown})", "servers")],
            limits=any_is(BAD),
        ),
        counts.oldest_urgent(4, limits),
        counts.oldest_poll(4, limits),
    )


def _worst_servers(limits: Thresholds) -> Placed:
    columns = [
        # Names of servers have all the width that is left.
        Column("server", "Server", None, server_link("Open the server's dashboard"), 195),
        Column("account", "Account", 80),
    ]
    queries: list[Query] = []
    for name, color in SEVERITIES.items():
        columns.append(Column(f"Value #{chr(ord('A') + len(queries))}", name.title(), 86, colored_cell(any_is(color))))
        queries.append(Query(_of_worst(recorded.WORST_ISSUES, *severity(name))))
    columns.append(Column("Value #E", "Risk", 60, (*colored_cell(RISK), *unit("none", 1))))
    queries.append(Query(_of_worst(recorded.WORST_RISK)))
    for title, times, late in (
        ("Oldest", _of_worst(recorded.WORST_OLDEST, *ANY_SEVERITY, pick="min"), issue_age(limits)),
        ("Last poll", _of_worst(recorded.WORST_POLL), poll_age(limits)),
        ("Last scan", _of_worst(recorded.WORST_SCAN), scan_age(limits)),
    ):
        source = f"Value #{chr(ord('A') + len(queries))}"
        columns.append(Column(source, title, 88, (*colored_cell(late), *unit("s", 1))))
        queries.append(Query(f"time() - {times}"))
    about = About(
        "Worst servers",
        f"The {recorded.SHOWN_SERVERS} servers of each account with the worst open issues; click a name for its "
        "software and what to update it to. A poll or scan in colour is late: what the row says may be old. Oldest "
        "counts from when an "
        "issue got "
        "its severity.",
        24,
        10,
        "No open issue is known in this selection. If the numbers above are missing, nothing was scraped; if Unknown "
        "is not "
        "0, some servers were not looked at.",
    )
    return rows(
        about, queries, columns, sort=[name.title() for name in SEVERITIES], key="Server", hidden=("server_id",)
    )


def _of_worst(series: str, *matchers: str, pick: str = "max") -> str:
    return f"{pick} by ({', '.join(SERVER_LABELS)}) ({by_account(series, *matchers)})"


def _trend() -> Placed:
    about = About(
        "Open issues by severity",
        "Open issues over time. It should fall; a step upwards is a new release or a new exploit: see which servers "
        "it hit "
        "in the table above, and which software on the dashboard Software and progress.",
        12,
        8,
    )
    queries = [Query(issues_of(name), name) for name in SEVERITIES]
    return lines(about, queries, colors=SEVERITIES, stacked=True, decimals=0)


def _freshest(series: str) -> str:
    return f"{series} and on ({recorded.EXPORTERS_ACCOUNT}) {by_account(recorded.LIST_FRESHEST)}"


def _opened_and_fixed() -> Placed:
    def queries(metric: str, word: str) -> list[Query]:
        # A bar stands where its time begins, and the last one is not yet full: nothing waits for its end.
        rises = {
            name: _freshest(f"increase({by_account(metric, *severity(name))}[$__interval] offset -$__interval)")
            for name in SEVERITIES
        }
        return [Query(f"round(sum by (severity) ({rise}))", f"{name} {word}") for name, rise in rises.items()]

    about = About(
        "Opened and fixed",
        "Issues opened (above the line) and fixed (below), each bar the time from it to the next. Without bars nothing "
        "was opened or fixed. When more is below than above for a week, you are winning.",
        12,
        8,
    )
    return bars(
        about,
        queries("patrolserver_issues_opened_total", "opened"),
        queries("patrolserver_issues_fixed_total", "fixed"),
        colors=SEVERITIES,
        most=28,
    )


def increase(metric: str, window: str, *labels: str, matchers: tuple[str, ...] = ANY_SEVERITY) -> str:
    """How much a counter of issues rose, by severity, as the exporter counts that knows the account best."""
    series = _freshest(f"increase({by_account(metric, *matchers)}[{window}])")
    return f"sum by ({', '.join(('severity', *labels))}) ({series})"


def _durations(window: str) -> str:
    return increase("patrolserver_issue_fix_duration_seconds_bucket", window, "le")


def _time_to_fix(limits: Thresholds) -> Placed:
    number = increase("patrolserver_issue_fix_duration_seconds_count", "$__range")
    took = increase("patrolserver_issue_fix_duration_seconds_sum", "$__range")
    queries = [
        Query(f"round({number}) > 0"),
        Query(f"{took} / ({number} > 0.5)"),
        Query(f"histogram_quantile(0.5, {_durations('$__range')}) >= 0"),
        Query(f"histogram_quantile(0.9, {_durations('$__range')}) >= 0"),
    ]
    ages = (*colored_cell(issue_age(limits)), *unit("s", 1))
    columns = [
        Column("severity", "Severity", 72),
        Column("Value #A", "Fixed", 58, unit("none", 0)),
        Column("Value #B", "On average", None, ages),
        Column("Value #C", "Half within", None, ages),
        Column("Value #D", "90 % within", None, ages),
    ]
    about = About(
        "Time to fix",
        "From an issue's first sight to the poll that no longer showed it, for what was fixed in the selected time. "
        "The "
        "average is exact, to the minute; half and 90 % are read between bounds of an hour, a day and more.",
        12,
        8,
        "Nothing was fixed in the selected time",
    )
    return rows(about, queries, columns, sort=["90 % within"])


def _time_to_fix_trend() -> Placed:
    about = About(
        "Time to fix on average, over the 7 days before",
        "What was fixed in the 7 days before each moment took so long on average. A rising critical curve needs a "
        "word with "
        "the owners of those servers.",
        12,
        8,
        "Nothing was fixed in the 7 days before",
    )
    queries = [Query(f"{one.expr} / 3600", one.legend) for one in took_on_average("7d")]
    return lines(about, queries, unit=HOURS, colors=SEVERITIES, legend_values=("lastNotNull",))


def took_on_average(window: str) -> list[Query]:
    """How long the fixes of a time took, a query for each severity: others would come by alphabet."""
    queries = []
    for name in SEVERITIES:
        took, number = (
            increase(f"patrolserver_issue_fix_duration_seconds_{part}", window, matchers=severity(name))
            for part in ("sum", "count")
        )
        queries.append(Query(f"{took} / ({number} > 0.5)", name))
    return queries
