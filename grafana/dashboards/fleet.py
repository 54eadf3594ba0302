"""Fleet overview: what needs attention first."""

from __future__ import annotations

from grafana.dashboards import counts
from grafana.dashboards.counts import BY_SERVER, ISSUES, NO_DATA
from grafana.dashboards.fleet_freshness import freshness
from grafana.dashboards.frame import FLEET, Page, Row, to_server
from grafana.dashboards.look import BAD, ISSUE_AGE, POLL_AGE, RISK, SCAN_AGE, SEVERITIES, any_is
from grafana.dashboards.panels import (
    About,
    Column,
    Placed,
    Query,
    bars,
    colored_cell,
    colored_text,
    lines,
    link,
    rows,
    stats,
    unit,
)
from grafana.dashboards.promql import (
    ANY_SEVERITY,
    URGENT,
    by_account,
    count_where,
    per_server,
    severity,
    state_is,
)

SHOWN_SERVERS = 50


def fleet() -> Page:
    """The page an operator opens in the morning."""
    return Page(
        uid=FLEET,
        title="PatrolServer / Fleet overview",
        description="Which servers run vulnerable software, worst first; is it getting better; is the data fresh.",
        rows=(
            Row("What needs attention first", (*_numbers(), _worst_servers())),
            Row("Trend", (_trend(), _opened_and_fixed())),
            Row("Time to fix", (_time_to_fix(), _time_to_fix_trend()), collapsed=True),
            Row("Freshness", freshness(), collapsed=True),
        ),
        scans_marked=False,
    )


def _numbers() -> tuple[Placed, ...]:
    urgent = f"{BY_SERVER} ({per_server(ISSUES, 'severity', matchers=URGENT)})"
    unsupported = per_server("patrolserver_server_software", matchers=(state_is("unsupported"),))
    return (
        counts.open_issues(
            8,
            "Open issues of the selected servers, waived ones left out. Work from left to right: critical "
            "today, high this week.",
        ),
        stats(
            About(
                "To act on",
                "Servers with at least one critical or high issue: the upper rows of the table below.",
                4,
                4,
                NO_DATA,
            ),
            [Query(count_where(urgent, "> 0"), "servers")],
            limits=any_is(BAD),
        ),
        stats(
            About(
                "Unsupported",
                "Installed software that gets no more fixes: plan the move to another line, an update will not do.",
                4,
                4,
                NO_DATA,
            ),
            [Query(f"sum({unsupported})", "software")],
            limits=any_is(BAD),
        ),
        counts.oldest_urgent(4),
        counts.data_age(4),
    )


def _worst_servers() -> Placed:
    weights = {"critical": "1e9", "high": "1e6", "medium": "1e3", "low": "1"}
    weighted = [f"{weight} * {_issues_of(name)}" for name, weight in weights.items()]
    worst = f"topk({SHOWN_SERVERS}, sum by (account, server_id, server) ({' or '.join(_marked(weighted))}) > 0)"
    shown = f"and on (account, server_id) {worst}"
    columns = [
        Column("server", "Server", 205, link("Open the server's dashboard", to_server("Server", "Account"))),
        Column("account", "Account", 80),
    ]
    queries: list[Query] = []
    for name, color in SEVERITIES.items():
        columns.append(
            Column(f"Value #{chr(ord('A') + len(queries))}", name.title(), None, colored_cell(any_is(color)), 76)
        )
        queries.append(Query(f"{_issues_of(name)} {shown}"))
    ages = "patrolserver_server_oldest_issue_timestamp_seconds"
    oldest = f"time() - {per_server(ages, matchers=ANY_SEVERITY, pick='min')}"
    polled = f"time() - {per_server('patrolserver_server_last_poll_timestamp_seconds')}"
    scanned = f"time() - {per_server('patrolserver_server_last_scan_timestamp_seconds')}"
    for title, expr, look in (
        ("Risk", per_server("patrolserver_server_exploit_risk_max"), (*colored_text(RISK), *unit("none", 1))),
        ("Oldest", oldest, (*colored_text(ISSUE_AGE), *unit("s", 1))),
        ("Last poll", polled, (*colored_text(POLL_AGE), *unit("s", 1))),
        ("Last scan", scanned, (*colored_text(SCAN_AGE), *unit("s", 1))),
    ):
        columns.append(
            Column(f"Value #{chr(ord('A') + len(queries))}", title, 60 if title == "Risk" else None, look, 84)
        )
        queries.append(Query(f"({expr}) {shown}"))
    about = About(
        "Worst servers",
        f"The {SHOWN_SERVERS} servers with the worst open issues; click a name for its software and what to "
        "update it to. "
        "A poll or scan in colour is late: what the row says may be old.",
        24,
        10,
        "No open issues in this selection; if the numbers above are missing too, no exporter has been scraped",
    )
    return rows(
        about, queries, columns, sort=[name.title() for name in SEVERITIES], key="Server", hidden=("server_id",)
    )


def _issues_of(name: str) -> str:
    return per_server(ISSUES, matchers=severity(name))


def _marked(terms: list[str]) -> list[str]:
    """Terms that differ in a label, so that ``or`` keeps them all."""
    return [f'label_replace({term}, "term", "{number}", "", "")' for number, term in enumerate(terms)]


def _trend() -> Placed:
    return counts.issue_trend(
        12,
        "Open issues over time. It should fall; a step upwards is a new release or a new exploit: see which "
        "servers it hit in the table above.",
    )


def _opened_and_fixed() -> Placed:
    def query(metric: str, word: str) -> list[Query]:
        # A bar stands where its time begins, and the last one is not yet full: nothing waits for its end.
        increase = f"increase({by_account(metric, *ANY_SEVERITY)}[$__interval] offset -$__interval)"
        return [Query(f"sum by (severity) (max by (account, severity) ({increase}))", f"{{{{severity}}}} {word}")]

    about = About(
        "Opened and fixed",
        "Issues opened (above the line) and fixed (below). When more is below than above for a week, you are winning.",
        12,
        8,
    )
    return bars(
        about,
        query("patrolserver_issues_opened_total", "opened"),
        query("patrolserver_issues_fixed_total", "fixed"),
        colors=SEVERITIES,
        most=28,
    )


def _durations(window: str) -> str:
    buckets = by_account("patrolserver_issue_fix_duration_seconds_bucket", *ANY_SEVERITY)
    return f"sum by (severity, le) (max by (account, severity, le) (increase({buckets}[{window}])))"


def _time_to_fix() -> Placed:
    fixed = by_account("patrolserver_issue_fix_duration_seconds_count", *ANY_SEVERITY)
    queries = [
        Query(f"sum by (severity) (max by (account, severity) (increase({fixed}[$__range])))"),
        Query(f"histogram_quantile(0.5, {_durations('$__range')}) >= 0"),
        Query(f"histogram_quantile(0.9, {_durations('$__range')}) >= 0"),
    ]
    columns = [
        Column("severity", "Severity", 80),
        Column("Value #A", "Fixed", 65, unit("short", 0)),
        Column("Value #B", "Half within", None, (*colored_text(ISSUE_AGE), *unit("s", 1))),
        Column("Value #C", "90 % within", None, (*colored_text(ISSUE_AGE), *unit("s", 1))),
    ]
    about = About(
        "Time to fix",
        "From an issue's first sight to the poll that no longer showed it, for what was fixed in the selected "
        "time. Compare with the limits: 3, 30, 90 and 180 days.",
        10,
        8,
        "Nothing was fixed in the selected time",
    )
    return rows(about, queries, columns, sort=["90 % within"])


def _time_to_fix_trend() -> Placed:
    about = About(
        "Median time to fix, over the 7 days before",
        "Half of the issues fixed in the 7 days before each moment were fixed within this time. A rising "
        "critical curve needs a word with the owners of those servers.",
        14,
        8,
        "Nothing was fixed in the 7 days before",
    )
    queries = [Query(f"histogram_quantile(0.5, {_durations('7d')}) >= 0", "{{severity}}")]
    return lines(about, queries, unit="s", colors=SEVERITIES, decimals=1)
