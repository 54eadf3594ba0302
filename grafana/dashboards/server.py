"""One server, or a few: what to update, and how it got there."""

from __future__ import annotations

from typing import TYPE_CHECKING

from grafana.alerting import recorded
from grafana.dashboards import counts
from grafana.dashboards.counts import BY_SERVER, ISSUES, NO_DATA
from grafana.dashboards.frame import SERVER, Page, Row, server_link
from grafana.dashboards.look import (
    BAD,
    CALM,
    RISK,
    SEVERITIES,
    SOFTWARE_STATES,
    YES_NO,
    issue_age,
    poll_age,
    scan_age,
    words,
)
from grafana.dashboards.panels import (
    DAYS,
    UNFILTERED,
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
from grafana.dashboards.promql import (
    ALL,
    ANY_SEVERITY,
    OWNERS,
    SERVER_LABELS,
    by_account,
    by_server,
    most_now,
    named,
    per_server,
    selected,
    severity,
)

if TYPE_CHECKING:
    from grafana_foundation_sdk.models.dashboard import ValueMap

    from grafana.settings import Settings, Thresholds

MOST_LINES = 6
"""Curves of single servers: more cannot be distinguished."""


def server(settings: Settings) -> Page:
    """Where the fleet's worst-servers table leads."""
    limits = settings.thresholds
    return Page(
        uid=SERVER,
        title="PatrolServer / Server",
        description="What is wrong on the selected servers, what to update it to, exploits, scans and polls.",
        rows=(
            Row("Now", (*_numbers(limits), _software(settings))),
            Row("Issues", (_history(), _by_server())),
            Row(
                "Software and exploits",
                (counts.software_trend(8), _exploits(), _risk(), _each_exploit()),
                collapsed=True,
            ),
            Row("Scans and polls", (_scanning(), _scan_age(), _servers(settings)), collapsed=True),
        ),
        scans_marked=True,
    )


def _numbers(limits: Thresholds) -> tuple[Placed, ...]:
    scanned = per_server("patrolserver_server_last_scan_timestamp_seconds")
    oldest = selected("min", recorded.OWNERS_SCAN, scanned)
    servers = selected("sum", recorded.OWNERS_SERVERS, per_server("patrolserver_server_info"))
    return (
        counts.open_issues(
            8,
            "Open issues of the selected servers. waived: accepted in the configuration until a date, and "
            "counted apart. The table below says what to install.",
        ),
        counts.exploits(
            4,
            "Known exploits at or above exploit_risk in the software of the selected servers. Update that "
            "software first.",
        ),
        counts.highest_risk(4),
        counts.data_age(4, limits),
        stats(
            About(
                "Oldest scan",
                "Time since the last seen scan ended, for the server that was scanned longest ago. "
                "PatrolServer scans once a day; after 2 days start one by hand. never: none was seen.",
                4,
                4,
                NO_DATA,
            ),
            [Query(counts.age_or_never(oldest, servers), "age")],
            unit="s",
            limits=scan_age(limits),
            decimals=1,
            mapping=counts.NEVER,
        ),
    )


MOST_ROWS = 200
"""Software that a table lists."""
MOST_SERVERS = 50
"""Servers whose software and exploits a table lists."""
CVE_SEARCH = "https://www.cve.org/CVERecord/SearchResults?query="
_ORDER = {"critical": "4", "high": "3", "medium": "2", "low": "1"}
_RISKS = {"4": "9.*|10.*", "3": "[78].*|[^0-9]*", "2": "[4-6].*", "1": "[0-3].*"}
"""Weight → risks, of which the first that fits holds; one that is unknown counts as high."""


def worst_servers() -> str:
    """Those of the selected servers whose open issues are the worst, each as the exporter knows it that polled it last.

    What a table lists is looked up for them only: of thousands of servers all software would take seconds.
    """
    weight = f"max by ({recorded.EXPORTERS_SERVER}) ({by_server(recorded.WEIGHT)})"
    return f"topk({MOST_SERVERS}, {weight} and on ({', '.join(SERVER_LABELS)}) {by_server(recorded.INFO, OWNERS)})"


def of_worst_servers(series: str, labels: tuple[str, ...]) -> str:
    """One value for each of these labels of the worst servers."""
    by = ", ".join((*SERVER_LABELS, *labels))
    return f"max by ({by}) (({series}) and on ({recorded.EXPORTERS_SERVER}) {worst_servers()})"


def ranked(series: str) -> str:
    """Number a series by its label ``severity``: 4 is critical."""
    ranks = (
        f'label_replace({number} * {series.replace("SEVERITY", name)}, "rank", "{name}", "", "")'
        for name, number in _ORDER.items()
    )
    return " or ".join(ranks)


def rank_words() -> ValueMap:
    """The ranks in words."""
    return words({number: (name, SEVERITIES[name]) for name, number in _ORDER.items()})


def weighed_by_risk(series: str) -> str:
    """What is counted, whose matcher RISK is replaced: a higher class of risk weighs more than any number.

    A risk is a label, which PromQL does not compare; a list of the most servers would leave the worst exploit out.
    """
    matchers = {number: f'risk=~"{risks}"' for number, risks in _RISKS.items()}
    return " or ".join(f"({number}e6 + {series.replace('RISK', matcher)})" for number, matcher in matchers.items())


def weighed_by_severity(series: str) -> str:
    """The same of a series whose matchers SEVERITY are replaced."""
    return " or ".join(f"({number}e6 + {series.replace('SEVERITY', name)})" for name, number in _ORDER.items())


def _software(settings: Settings) -> Placed:
    states = words(
        {
            **{name: (name, color) for name, color in SOFTWARE_STATES.items()},
            "reported": ("reported", BAD),
            # Only what is not fine is listed: what is current all the same has a known exploit.
            "supported": ("exploitable", SEVERITIES["critical"]),
            "unknown": ("exploitable", SEVERITIES["critical"]),
        }
    )
    labels = ("software", "version", "update_to", "state", "severity", "risk", "location")
    software = by_server("patrolserver_server_software_info", *severity("SEVERITY"))
    listed = of_worst_servers(ranked(software), labels)
    worst = f"topk({MOST_ROWS}, {listed})"
    exploits = of_worst_servers(by_server("patrolserver_server_exploit_info"), ("software", "risk", "exploit"))
    exploit = f"topk by (account, server_id, server, software, risk) (1, {exploits})"
    with_exploit = f"{worst} * on (account, server_id, server, software, risk) group_left (exploit) {exploit}"
    everything = f"({with_exploit} or on (account, server_id, server, software, version, location, severity) {worst})"
    oldest = f"max by ({', '.join(SERVER_LABELS)}, severity) ({by_server(recorded.OLDEST, *ANY_SEVERITY)})"
    since = f"(time() - {oldest})"
    # Without the exploit, which only the rows have: they are merged by what both have.
    age = f"({worst} * 0 + on (account, server_id, server, severity) group_left () {since})"
    columns = [
        # Together no wider than the panel on a page of 1000 pixels. On a wider one, names of servers and software share
        # alike what the others leave. Headings that are as wide as their column have no filter.
        Column("Value #A", "Severity", 76, (*said(rank_words()), UNFILTERED)),
        Column("server", "Server", None, server_link("Only this server"), 150),
        Column("place", "Software", None, (WRAPPED,), 150),
        Column("risk", "Risk", 52, (UNFILTERED,)),
        Column("exploit", "Exploit", 124, link("What is known of it", f"{CVE_SEARCH}${{__value.raw}}", elsewhere=True)),
        Column("version", "Installed", 72, (WRAPPED, UNFILTERED)),
        Column("update_to", "Update to", 80, (WRAPPED, UNFILTERED)),
        Column("Value #B", "Since", 76, (*colored_cell(issue_age(settings.thresholds)), *unit("s", 1), UNFILTERED)),
        Column("state", "State", 98, said(states)),
        Column("account", "Account", 68, (WRAPPED, UNFILTERED)),
    ]
    about = About(
        "What to update, the worst first",
        "Each software that is not fine, with the path where it was found unless it is the system's own: critical, "
        "high, medium or low; the highest risk of its exploits and the exploit "
        "that has it; the version to install. outdated: install it. unsupported: no fix will come, move to another "
        "line. "
        "exploitable: current or of unknown state, with a known exploit: switch it off or shield it until there is a "
        "fix. "
        "reported: PatrolServer's event told of it, and the next poll tells more. Since: how long the server "
        "has had "
        f"an issue of this severity. Waived software is listed, too. At most {MOST_ROWS} rows, of the {MOST_SERVERS} "
        "selected servers with the worst issues. An empty Installed "
        "means that "
        "the version was not detected.",
        24,
        11,
        "Nothing to update is known of this selection. If the numbers above are missing, nothing was scraped; if the "
        "oldest "
        "poll says never, nothing was looked at.",
    )
    return rows(
        about,
        [Query(_placed(everything)), Query(_placed(age))],
        columns,
        sort=["Severity", "Risk"],
        key="Server",
        hidden=("server_id", "severity", "software", "location"),
        filterable=True,
    )


def _placed(series: str) -> str:
    """With the label ``place``: the software and, unless that is ``/`` as nearly everywhere, its location."""
    joined = f'label_join({series}, "place", " ", "software", "location")'
    return f'label_replace({joined}, "place", "$1", "place", "(.+) /?")'


def _each_exploit() -> Placed:
    labels = ("software", "exploit", "risk")
    about = About(
        "Known exploits",
        "Each known exploit at or above exploit_risk, on each of the selected servers. Click one for what is known of "
        f"it. At most {MOST_ROWS} rows, those of the highest risks, of the {MOST_SERVERS} selected servers with the "
        "worst issues.",
        24,
        8,
        "No known exploit in this selection",
    )
    columns = [
        Column("risk", "Risk", 60),
        Column("exploit", "Exploit", 180, link("What is known of it", f"{CVE_SEARCH}${{__value.raw}}", elsewhere=True)),
        Column("software", "Software"),
        Column("server", "Server", None, server_link("Only this server")),
        Column("account", "Account"),
    ]
    exploits = weighed_by_risk(by_server("patrolserver_server_exploit_info", "RISK"))
    listed = f"topk({MOST_ROWS}, {of_worst_servers(exploits, labels)})"
    return rows(about, [Query(listed)], columns, sort=["Risk"], key="Server", hidden=("Value", "server_id"))


def _history() -> Placed:
    return counts.issue_trend(
        12,
        "Open issues of the selected servers over time; blue marks are ended scans. After an update the curve "
        "falls with the next scan.",
    )


def _by_server() -> Placed:
    total, now = (
        f"{BY_SERVER} ({named(per_server(ISSUES, 'severity', matchers=ANY_SEVERITY, at=at))})"
        for at in ("", " @ end()")
    )
    # What is recorded of the fleet's worst: the curves of thousands of servers would be read for a few.
    worst = by_account(recorded.WORST_ISSUES, ALL, *ANY_SEVERITY)
    labels = ", ".join(SERVER_LABELS)
    owned = f"{worst} @ end() and on ({labels}) {by_account(recorded.INFO, ALL, OWNERS)} @ end()"
    of_all, now_of_all = (f"{BY_SERVER} (max by ({labels}, severity) ({series}))" for series in (worst, owned))
    about = About(
        "Open issues by server",
        f"The {MOST_LINES} selected servers with the most open issues now. Servers that should be alike and are"
        f" not missed a roll-out. With All servers: of the {recorded.SHOWN_SERVERS} worst of each account; a gap means "
        "that a server was not among them.",
        12,
        8,
    )
    return lines(
        about,
        [
            Query(most_now(MOST_LINES, total, now), "{{server}}"),
            Query(most_now(MOST_LINES, of_all, now_of_all), "{{server}}"),
        ],
        step=True,
        decimals=0,
        legend_values=(),
        fill=0,
    )


def _exploits() -> Placed:
    about = About(
        "Exploits over time",
        "Known exploits at or above exploit_risk. It rises when one is published, without any change on the server: "
        "update what the table above lists, or shield it until there is a fix. It falls with the scan after that.",
        8,
        8,
    )
    return lines(
        about,
        [Query(counts.all_exploits(), "exploits")],
        colors={"exploits": SEVERITIES["high"]},
        decimals=0,
        step=True,
    )


def _risk() -> Placed:
    about = About(
        "Highest risk over time",
        "The worst exploit's risk, 0 to 10; from 9 on it is a critical issue, from 7 on a high one. Update the "
        "software that has it before all other.",
        8,
        8,
    )
    return lines(
        about,
        [Query(counts.worst_risk(), "highest risk")],
        unit="none",
        colors={"highest risk": SEVERITIES["critical"]},
        highest=10,
        decimals=1,
        step=True,
    )


def _scanning() -> Placed:
    about = About(
        "Scans running",
        "How many of the selected servers PatrolServer is scanning. One that never returns to 0 hangs: ask "
        "PatrolServer.",
        12,
        7,
    )
    return lines(
        about,
        [
            Query(
                selected("sum", recorded.OWNERS_SCANNING, per_server("patrolserver_server_scanning")),
                "scanning",
            )
        ],
        colors={"scanning": CALM},
        decimals=0,
        step=True,
    )


def _scan_age() -> Placed:
    ended = "patrolserver_server_last_scan_timestamp_seconds"
    oldest = f"-1 * {per_server(ended, at=' @ end()')}"
    age = named(most_now(MOST_LINES, f"((time() - {per_server(ended)}) / 86400)", oldest))
    of_all = f"(time() - min({by_account(recorded.OWNERS_SCAN, ALL, OWNERS)})) / 86400"
    about = About(
        "Time since the last scan",
        f"Saw teeth of a day are right. The {MOST_LINES} servers scanned longest ago. A line that climbs for two "
        "days: "
        "start a scan in PatrolServer, and see whether the server is verified there and can be reached from outside. "
        "With All servers: the one that was scanned longest ago.",
        12,
        7,
        "No scan has been seen yet",
    )
    queries = [Query(age, "{{server}}"), Query(of_all, "scanned longest ago")]
    return lines(about, queries, unit=DAYS, legend_values=(), fill=0)


def _servers(settings: Settings) -> Placed:
    limits = settings.thresholds
    columns = [
        # Names of servers have all the width that is left.
        Column("server", "Server", None, server_link("Only this server"), 205),
        Column("account", "Account", 100),
        Column("server_id", "Id", 80),
        Column("verified", "Verified", 85),
        Column("Value #B", "Poll succeeded", 130, said(YES_NO)),
        Column("Value #C", "Last poll", 95, (*colored_cell(poll_age(limits)), *unit("s", 1))),
        Column("Value #D", "Last scan", 95, (*colored_cell(scan_age(limits)), *unit("s", 1))),
        Column("Value #E", "Highest risk", 125, (*colored_cell(RISK), *unit("none", 1))),
    ]
    about = About(
        "Servers",
        "The selected servers as PatrolServer knows them. Not verified: PatrolServer does not scan it before "
        "its ownership is proved. Last scan empty: none was seen. "
        f"At most {MOST_SERVERS}, those with the worst issues.",
        24,
        8,
        "No server of this selection is known",
    )
    queries = [
        Query(_of_listed(per_server("patrolserver_server_info", "verified"))),
        Query(_of_listed(per_server("patrolserver_server_poll_success", pick="min"))),
        Query(f"time() - {_of_listed(per_server('patrolserver_server_last_poll_timestamp_seconds'))}"),
        Query(f"time() - {_of_listed(per_server('patrolserver_server_last_scan_timestamp_seconds'))}"),
        Query(_of_listed(per_server("patrolserver_server_exploit_risk_max"))),
    ]
    return rows(about, queries, columns, sort=["Highest risk"], key="Server", hidden=("Value #A",))


def _of_listed(values: str) -> str:
    return f"({values} and on ({', '.join(SERVER_LABELS)}) {worst_servers()})"
