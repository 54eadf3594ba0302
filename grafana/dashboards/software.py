"""Software and progress: what is wrong by software and exploit, what changed, and what a manager asks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from grafana.alerting import recorded
from grafana.dashboards.counts import NO_DATA
from grafana.dashboards.fleet import increase, took_on_average
from grafana.dashboards.frame import FLEET, KEPT, SOFTWARE, Page, Row, to_owner
from grafana.dashboards.look import BAD, GOOD, MUTED, OUTCOMES, SEVERITIES, SOFTWARE_STATES, WARN, WORST, any_is, words
from grafana.dashboards.panels import (
    WRAPPED,
    About,
    Column,
    Placed,
    Query,
    colored_cell,
    lines,
    link,
    rows,
    said,
    stats,
    unit,
)
from grafana.dashboards.promql import ANY_SEVERITY, by_account, own, per_account, severity
from grafana.dashboards.server import CVE_SEARCH, rank_words, ranked, weighed_by_risk, weighed_by_severity
from grafana.settings import seconds
from grafana.settings import words as told

if TYPE_CHECKING:
    from grafana.settings import Settings, Thresholds

AFFECTED = "patrolserver_account_servers_affected"
ISSUES = "patrolserver_account_issues"
SERVERS = f"sum({per_account('patrolserver_servers')})"
MOST_ROWS = 100
DAY, WEEK = "1d", "7d"


def software(settings: Settings) -> Page:
    """What to tell a manager, and what to plan."""
    limits = settings.thresholds
    return Page(
        uid=SOFTWARE,
        title="PatrolServer / Software and progress",
        description="How the fleet stands and where it goes; by software and by exploit; gate, waivers, webhooks, "
        "alerts.",
        rows=(
            Row(
                "For managers",
                (*_shares(limits), _clean_trend(), _urgent_trend(), _time_to_fix(), *_by_owner(settings.owner_labels)),
            ),
            Row("By software and exploit", (_by_software(), _by_exploit())),
            Row("What changed", (_by_severity(), _software_changes(), _states()), collapsed=True),
            Row(
                "Gate, waivers, webhooks and alerts",
                (*_gate(), *_webhooks(), _waivers(limits), _firing()),
                collapsed=True,
            ),
        ),
        hidden=frozenset({"server"}),
        scans_marked=False,
    )


def _affected(name: str) -> str:
    matcher = f'severity="{name}"'
    return f"sum({per_account(AFFECTED, matchers=(matcher,))})"


def _shares(limits: Thresholds) -> tuple[Placed, ...]:
    waivers = own("patrolserver_waiver_expiry_timestamp_seconds")
    labels = "server, software, exploit, kind, max_severity"
    end = f"max by ({labels}) ({waivers}) - time()"
    ending = f"count(({end} > 0) < {seconds(limits.waiver_ending)})"
    return (
        _share(
            "Clean",
            "Share of the servers that the last poll showed without an open issue, and that somebody can vouch for.",
            f"{_affected('none')} / {SERVERS}",
            ((0.5, WARN), (0.9, GOOD)),
            BAD,
        ),
        _share(
            "Unknown",
            "Share of the servers that nobody can vouch for: not polled, partial, in doubt, or their account cannot "
            "be read. "
            "The exporter's page names them.",
            f"{_affected('unknown')} / {SERVERS}",
            ((0.000001, WARN), (0.1, BAD)),
        ),
        _share(
            "Overdue",
            f"Share of the servers with an issue beyond its time: {told(limits.overdue.critical)} for a critical one, "
            f"{told(limits.overdue.high)} high, {told(limits.overdue.medium)} medium, {told(limits.overdue.low)} low, "
            "counted from when it got the severity.",
            f"sum({by_account(recorded.OVERDUE_SERVERS)}) / {SERVERS}",
            ((0.000001, BAD), (0.1, WORST)),
        ),
        stats(
            About("Servers", "Watched servers of the chosen accounts.", 4, 4, NO_DATA),
            [Query(SERVERS, "servers")],
            base="transparent",
        ),
        stats(
            About("Waived", "Issues that are accepted in the configuration until a date.", 4, 4, NO_DATA),
            [Query(f"sum({by_account(recorded.WAIVED)})", "issues")],
            limits=any_is(MUTED),
        ),
        stats(
            About(
                "Ending soon",
                f"Waivers that end within {told(limits.waiver_ending)}: what they cover is open from then on.",
                4,
                4,
                NO_DATA,
            ),
            [Query(f"{ending} or on () 0 * {SERVERS}", "waivers")],
            limits=any_is(WARN),
        ),
    )


def _time_to_fix() -> Placed:
    return stats(
        About(
            "Time to fix, 30 days",
            "How long what was fixed in the 30 days before took on average, by severity.",
            6,
            8,
            "nothing fixed",
        ),
        took_on_average("30d"),
        unit="s",
        decimals=1,
        base="transparent",
    )


def _share(title: str, text: str, expr: str, limits: tuple[tuple[float, str], ...], base: str = GOOD) -> Placed:
    return stats(
        About(title, text, 4, 4, NO_DATA),
        [Query(f"{expr} >= 0", title.lower())],
        unit="percentunit",
        decimals=1,
        limits=limits,
        base=base,
    )


def _clean_trend() -> Placed:
    clean = per_account(AFFECTED, matchers=('severity="none"',))
    about = About(
        "Clean servers by account",
        "Share of each account's servers that are known and clean. It should rise; a fall is a new release or "
        "exploit, or "
        "servers that are not known any more.",
        9,
        8,
    )
    share = f"{clean} / ({per_account('patrolserver_servers')} > 0)"
    return lines(about, [Query(share, "{{account}}")], unit="percentunit", highest=1, legend_values=("lastNotNull",))


def _urgent_trend() -> Placed:
    urgent = per_account(ISSUES, "severity", matchers=('severity=~"critical|high"',))
    about = About(
        "Critical and high issues by account",
        "Open issues that are critical or high, by account: who needs help with patching.",
        9,
        8,
    )
    return lines(about, [Query(f"sum by (account) ({urgent})", "{{account}}")], decimals=0, step=True)


def _by_owner(labels: tuple[str, ...]) -> tuple[Placed, ...]:
    if not labels:
        return ()
    titles = {label: label.replace("_", " ").capitalize() for label in labels}
    by = f"sum by (account, {', '.join(labels)})"
    queries = [Query(f"{by} ({by_account(recorded.OWNERS_SERVERS)})")]
    columns = [
        *(Column(label, title, None, link("Their servers", to_owner(titles)), 110) for label, title in titles.items()),
        Column("account", "Account", None, (), 90),
        Column("Value #A", "Servers", 85),
    ]
    for name, color in SEVERITIES.items():
        columns.append(Column(f"Value #{chr(ord('A') + len(queries))}", name.title(), 90, colored_cell(any_is(color))))
        queries.append(Query(f"{by} ({by_account(recorded.OWNERS_ISSUES, *severity(name))})"))
    about = About(
        "By owner",
        f"Open issues by {' and '.join(labels)}, as accounts[].labels of the configuration gives them; click one for "
        "its servers. A row without a name is of the servers that the configuration gives no such label.",
        24,
        8,
    )
    return (rows(about, queries, columns, sort=[name.title() for name in SEVERITIES], key=titles[labels[0]]),)


def _by_software() -> Placed:
    by = "software, state, severity"
    of_each = _by_state(*severity("SEVERITY"))
    # The worst, and not those on the most servers: something critical on one server is not left out.
    listed = f"topk({MOST_ROWS}, {weighed_by_severity(of_each)})"
    rank = ranked(f"({of_each} * 0 + 1)")
    states = words(
        {
            "exploitable": ("exploitable", WORST),
            "reported": ("reported", BAD),
            **{name: (name, SOFTWARE_STATES[name]) for name in ("unsupported", "outdated")},
        }
    )
    columns = [
        Column("Value #B", "Severity", 106, said(rank_words())),
        Column("software", "Software", None, (WRAPPED,), 150),
        Column("state", "State", 98, said(states)),
        Column("Value #A", "Servers", 104),
    ]
    about = About(
        "By software",
        "On how many servers each software is critical, high, medium or low, and why: one roll-out of the uppermost "
        "rows helps "
        f"most. At most {MOST_ROWS} rows.",
        24,
        11,
        "No software is known to be outdated or exploitable. If the numbers above are missing, nothing was scraped; "
        "if Unknown "
        "is not 0, some servers were not looked at.",
    )
    return rows(
        about,
        [Query(f"{_by_state(*ANY_SEVERITY)} and on ({by}) {listed}"), Query(f"({rank}) and on ({by}) {listed}")],
        columns,
        sort=["Severity", "Servers"],
        key="Software",
        hidden=("severity", "rank"),
        filterable=True,
    )


def _by_state(*matchers: str) -> str:
    """On how many servers each software is; what is current or of unknown state is listed for its exploits only."""
    has_exploits = 'state=~"supported|unknown"'
    others = by_account(recorded.SOFTWARE_SERVERS, 'state!~"supported|unknown"', *matchers)
    exploitable = f"sum by (software, severity) ({by_account(recorded.SOFTWARE_SERVERS, has_exploits, *matchers)})"
    named = f'label_replace({exploitable}, "state", "exploitable", "", "")'
    return f"(sum by (software, state, severity) ({others}) or {named})"


def _by_exploit() -> Placed:
    by = "exploit, software, risk"
    counted = f"sum by ({by}) ({by_account(recorded.EXPLOIT_SERVERS)})"
    weighed = weighed_by_risk(f"sum by ({by}) ({by_account(recorded.EXPLOIT_SERVERS, 'RISK')})")
    columns = [
        Column("risk", "Risk", 79),
        Column("exploit", "Exploit", 124, link("What is known of it", f"{CVE_SEARCH}${{__value.raw}}", elsewhere=True)),
        Column("software", "Software", None, (WRAPPED,), 150),
        Column("Value", "Servers", 104),
    ]
    about = About(
        "By exploit",
        "On how many servers each known exploit at or above exploit_risk can be used. Click one for what is known of "
        "it. At "
        f"most {MOST_ROWS} rows.",
        24,
        11,
        "No exploit is known. If the numbers above are missing, nothing was scraped; if Unknown is not 0, some "
        "servers were not "
        "looked at.",
    )
    return rows(
        about,
        [Query(f"{counted} and on ({by}) topk({MOST_ROWS}, {weighed})")],
        columns,
        sort=["Risk", "Servers"],
        key="Software",
        filterable=True,
    )


def _before(series: str, window: str) -> str:
    """How much more than so long ago; nothing where Prometheus does not know what was then."""
    known = f"count({by_account(recorded.ACCOUNT_ISSUES)} offset {window})"
    return f"{series.replace('AT', '')} - {series.replace('AT', f' offset {window}')} and on () {known}"


def _by_severity() -> Placed:
    series = f"sum by (severity) ({by_account(recorded.ACCOUNT_ISSUES, *ANY_SEVERITY)}AT)"
    queries = [Query(series.replace("AT", "")), Query(_before(series, DAY)), Query(_before(series, WEEK))]
    titles = ["Open now", "Change, 1 d", "Change, 7 d"]
    for window in (DAY, WEEK):
        for metric, title in (("opened", "Opened"), ("worsened", "Worse"), ("fixed", "Fixed")):
            queries.append(Query(f"round({increase(f'patrolserver_issues_{metric}_total', window)})"))
            titles.append(f"{title}, {window[0]} d")
    columns = [Column("severity", "Severity", 75)]
    changed = colored_cell(((0.5, WARN),))
    for index, title in enumerate(titles):
        look = changed if title.startswith("Change") else ()
        columns.append(Column(f"Value #{chr(ord('A') + index)}", title, None, look, 80))
    about = About(
        "Issues since yesterday and last week",
        "How many more are open than a day and a week before the end of the selected time, and what was opened, got "
        "worse and "
        "was fixed since. Empty, or no such column: Prometheus does not know what was then.",
        24,
        6,
    )
    return rows(about, queries, columns, sort=["Open now"])


def _software_changes() -> Placed:
    now = f"sum by (software) ({by_account(recorded.SOFTWARE_SERVERS, *ANY_SEVERITY)})"
    yesterday, last_week = (
        f"sum by (software) ({by_account(recorded.SOFTWARE_SERVERS, *ANY_SEVERITY)} offset {window})"
        for window in (DAY, WEEK)
    )

    def since(then: str, window: str) -> str:
        known = f"count({by_account(recorded.ACCOUNT_ISSUES)} offset {window})"
        more = f"{_or_none(now, yesterday, last_week)} - {_or_none(then, now, yesterday, last_week)}"
        return f"({more}) and on () {known}"

    changes = since(yesterday, DAY), since(last_week, WEEK)
    changed = " or ".join(f"topk({MOST_ROWS}, abs({change}) > 0)" for change in changes)
    look = (*colored_cell(((0.5, WARN),)), *unit("none", 0))
    columns = [
        Column("software", "Software"),
        Column("Value #A", "Servers", 100),
        Column("Value #B", "Since yesterday", 160, look),
        Column("Value #C", "Since last week", 160, look),
    ]
    about = About(
        "Software since yesterday and last week",
        "On how many more (or, below 0, fewer) servers each software is not fine than a day and a week before the end "
        f"of the selected time: the {MOST_ROWS} with the most change since each. No such column: Prometheus does not "
        "know what was then.",
        24,
        9,
        "Nothing changed, or Prometheus does not know what was then",
    )
    queries = [
        Query(f"({shown}) and on (software) ({changed})") for shown in (_or_none(now, yesterday, last_week), *changes)
    ]
    return rows(about, queries, columns, sort=["Since yesterday", "Since last week"], key="Software")


def _or_none(counted: str, *others: str) -> str:
    """The same, with 0 for what only the others count."""
    return f"({counted} or {' or '.join(f'0 * {other}' for other in others if other != counted)})"


def _states() -> Placed:
    about = About(
        "Software that is not current",
        "Installed software of the fleet that is outdated (update it), unsupported (move to another line) or of "
        "unknown state "
        "(its version was not detected). A falling curve is what patch days look like.",
        24,
        8,
    )
    queries = []
    for name in ("unsupported", "outdated", "unknown"):
        matcher = f'state="{name}"'
        queries.append(Query(f"sum({by_account(recorded.SOFTWARE, matcher)})", name))
    return lines(about, queries, colors=SOFTWARE_STATES, stacked=True, decimals=0)


def _gate() -> tuple[Placed, ...]:
    def judged(verdict: str) -> str:
        matcher = f'verdict="{verdict}"'
        return f"sum by (policy) ({by_account(recorded.GATE_SERVERS, matcher)})"

    columns = [
        Column("policy", "Policy"),
        Column("Value #A", "Pass", 80),
        Column("Value #B", "Fail", 80, colored_cell(any_is(BAD))),
        Column("Value #C", "Unknown", 80, colored_cell(any_is(WARN))),
    ]
    about = About(
        "What the gate would say now",
        "Servers by what a deploy of each alone would be told now, by policy. patrolserver-exporter gate SERVER says "
        "why.",
        12,
        7,
        "No policy has judged yet",
    )
    return (
        rows(about, [Query(judged(one)) for one in ("pass", "fail", "unknown")], columns, sort=["Fail"], key="Policy"),
    )


def _webhooks() -> tuple[Placed, ...]:
    last = f"time() - max by (account) ({by_account('patrolserver_webhook_last_delivery_timestamp_seconds')})"
    enabled = f"max by (account) ({by_account('patrolserver_webhook_enabled')})"
    taken = own("patrolserver_exporter_webhook_deliveries_total", 'outcome!~"accepted|duplicate"')
    refused = f"round(sum by (outcome) (increase({taken}[1d])))"
    return (
        stats(
            About(
                "Last delivery",
                "Time since the last webhook delivery of each account that has a token. PatrolServer tells of each "
                "scan, and "
                "scans once a day.",
                6,
                7,
                "none yet",
            ),
            [Query(f"{last} and on (account) {enabled} == 1", "{{account}}")],
            unit="s",
            decimals=1,
            limits=((1.5 * 86_400, WARN), (2 * 86_400, BAD)),
        ),
        stats(
            About(
                "Not taken, 24 hours",
                "Deliveries that were refused (no valid token), rejected (not to be read) or failed (the store could "
                "not keep "
                "them).",
                6,
                7,
                NO_DATA,
            ),
            [Query(refused, "{{outcome}}")],
            each={name: any_is(color) for name, color in OUTCOMES.items()},
        ),
    )


def _waivers(limits: Thresholds) -> Placed:
    labels = ("server", "software", "exploit", "kind", "max_severity")
    end = f"max by ({', '.join(labels)}) ({own('patrolserver_waiver_expiry_timestamp_seconds')}) - time()"
    soon = seconds(limits.waiver_ending)
    columns = [
        *(Column(name, name.replace("_", " ").capitalize(), None, (WRAPPED,)) for name in labels),
        Column(
            "Value", "Ends in", None, (*colored_cell(((0.0, WARN), (float(soon), "transparent")), BAD), *unit("s", 1))
        ),
    ]
    about = About(
        "Waivers",
        f"Waivers of the configuration, as written there. Yellow: it ends within {told(limits.waiver_ending)}. "
        "Orange, below 0: "
        f"it has ended. The {MOST_ROWS} that end first.",
        24,
        7,
        "No waiver is configured, or no exporter was scraped",
    )
    return rows(about, [Query(f"bottomk({MOST_ROWS}, {end})")], columns, sort=[], key="Ends in")


def _firing() -> Placed:
    severities = words({"3": ("critical", WORST), "2": ("warning", WARN), "1": ("info", SEVERITIES["low"])})
    by_rank = {
        rank: own(recorded.FIRING, f'severity="{name}"')
        for name, rank in (("critical", 3), ("warning", 2), ("info", 1))
    }
    ranks = " or ".join(
        f"{rank} * (max by (alertname, severity, account) ({series}) * 0 + 1)" for rank, series in by_rank.items()
    )
    columns = [
        Column("Value #B", "Severity", 80, said(severities)),
        Column("alertname", "Alert", None, link("Fleet overview", f"/d/{FLEET}?{KEPT}"), 220),
        Column("account", "Account", 80),
        Column("Value #A", "Firing", 70),
    ]
    about = About(
        "Firing alerts",
        "Alerts of these rules that fire now, those of the last minute included. The runbook of each says what to do.",
        24,
        8,
        "No alert fires, or Prometheus lacks the rules",
    )
    queries = [Query(f"sum by (alertname, severity, account) ({own(recorded.FIRING)})"), Query(ranks)]
    return rows(about, queries, columns, sort=["Severity"], key="Alert", hidden=("severity",))
