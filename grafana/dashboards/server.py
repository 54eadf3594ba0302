"""One server, or a few: what to update, and how it got there."""

from __future__ import annotations

from grafana.dashboards import counts
from grafana.dashboards.counts import BY_SERVER, ISSUES, NO_DATA
from grafana.dashboards.frame import SERVER, Page, Row, to_server
from grafana.dashboards.look import (
    CALM,
    POLL_AGE,
    RISK,
    SCAN_AGE,
    SEVERITIES,
    SOFTWARE_STATES,
    YES_NO,
    words,
)
from grafana.dashboards.panels import (
    About,
    Column,
    Placed,
    Query,
    colored_cell,
    colored_text,
    lines,
    link,
    rows,
    said,
    stats,
    unit,
)
from grafana.dashboards.promql import ANY_SEVERITY, most_now, per_server

MOST_LINES = 6
"""Curves of single servers: more cannot be distinguished."""


def server() -> Page:
    """Where the fleet's worst-servers table leads."""
    return Page(
        uid=SERVER,
        title="PatrolServer / Server",
        description="What is wrong on the selected servers, what to update it to, exploits, scans and polls.",
        rows=(
            Row("Now", (*_numbers(), _software())),
            Row("Issues", (_history(), _by_server())),
            Row("Software and exploits", (counts.software_trend(8), _exploits(), _risk()), collapsed=True),
            Row("Scans and polls", (_scanning(), _scan_age(), _servers()), collapsed=True),
        ),
        scans_marked=True,
    )


def _numbers() -> tuple[Placed, ...]:
    scanned = per_server("patrolserver_server_last_scan_timestamp_seconds")
    info = per_server("patrolserver_server_info")
    return (
        counts.open_issues(
            8,
            "Open issues of the selected servers. waived: accepted in the configuration until a date, and "
            "counted apart. The table below says what to install.",
            waived=True,
        ),
        counts.exploits(
            4,
            "Known exploits at or above exploit_risk in the software of the selected servers. Update that "
            "software first.",
        ),
        counts.highest_risk(4),
        counts.data_age(4),
        stats(
            About(
                "Oldest scan",
                "Time since the last seen scan ended, for the server that was scanned longest ago. "
                "PatrolServer scans once a day; after 2 days start one by hand. never: none was seen.",
                4,
                4,
                NO_DATA,
            ),
            [Query(f"time() - min({scanned}) or on () -1 * (count({info}) > bool 0)", "age")],
            unit="s",
            limits=SCAN_AGE,
            decimals=1,
            mapping=words({"-1": ("never", SEVERITIES["medium"])}),
        ),
    )


def _software() -> Placed:
    states = words(
        {
            **{name: (name, color) for name, color in SOFTWARE_STATES.items()},
            # Only what is not fine is listed: what is current all the same has a known exploit.
            "supported": ("exploitable", SEVERITIES["critical"]),
            "unknown": ("exploitable", SEVERITIES["critical"]),
        }
    )
    labels = ("software", "version", "update_to", "state", "location", "parent")
    columns = [
        Column("server", "Server", 205, link("Only this server", to_server("Server", "Account"))),
        Column("software", "Software", 190),
        Column("version", "Installed"),
        Column("update_to", "Update to"),
        Column("state", "State", None, said(states)),
        Column("location", "Location"),
        Column("parent", "Part of"),
        Column("account", "Account"),
    ]
    about = About(
        "What to update",
        "Software that is outdated (install the version under Update to), unsupported (no fix will come: move "
        "to another line) or "
        "exploitable (current, or of unknown state, with a known exploit: switch it off or shield it until "
        "there is a fix). An empty Installed means that the version was not detected.",
        24,
        10,
        "Nothing to update in this selection; if the numbers above are missing too, no exporter has been scraped",
    )
    return rows(
        about,
        [Query(per_server("patrolserver_server_software_info", *labels))],
        columns,
        sort=["State"],
        key="Server",
        hidden=("Value", "server_id"),
    )


def _history() -> Placed:
    return counts.issue_trend(
        12,
        "Open issues of the selected servers over time; blue marks are ended scans. After an update the curve "
        "falls with the next scan.",
    )


def _by_server() -> Placed:
    total, now = (
        f"{BY_SERVER} ({per_server(ISSUES, 'severity', matchers=ANY_SEVERITY, at=at)})" for at in ("", " @ end()")
    )
    about = About(
        "Open issues by server",
        f"The {MOST_LINES} selected servers with the most open issues now. Servers that should be alike and are"
        " not missed a roll-out.",
        12,
        8,
    )
    return lines(
        about,
        [Query(most_now(MOST_LINES, total, now), "{{server}}")],
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
        [Query(f"sum({per_server('patrolserver_server_exploits')})", "exploits")],
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
        [Query(f"max({per_server('patrolserver_server_exploit_risk_max')})", "highest risk")],
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
        [Query(f"sum({per_server('patrolserver_server_scanning')})", "scanning")],
        colors={"scanning": CALM},
        decimals=0,
        step=True,
    )


def _scan_age() -> Placed:
    ended = "patrolserver_server_last_scan_timestamp_seconds"
    oldest = f"-1 * {per_server(ended, at=' @ end()')}"
    age = most_now(MOST_LINES, f"(time() - {per_server(ended)})", oldest)
    about = About(
        "Time since the last scan",
        f"Saw teeth of a day are right. The {MOST_LINES} servers scanned longest ago. A line that climbs for two days: "
        "start a scan in PatrolServer, and see whether the server is verified there and can be reached from outside.",
        12,
        7,
        "No scan has been seen yet",
    )
    return lines(about, [Query(age, "{{server}}")], unit="s", decimals=1, legend_values=(), fill=0)


def _servers() -> Placed:
    columns = [
        Column("server", "Server", 205, link("Only this server", to_server("Server", "Account"))),
        Column("account", "Account"),
        Column("server_id", "Id", 80),
        Column("verified", "Verified"),
        Column("Value #B", "Poll succeeded", None, said(YES_NO)),
        Column("Value #C", "Last poll", None, (*colored_text(POLL_AGE), *unit("s", 1))),
        Column("Value #D", "Last scan", None, (*colored_text(SCAN_AGE), *unit("s", 1))),
        Column("Value #E", "Highest risk", None, (*colored_cell(RISK), *unit("none", 1))),
    ]
    about = About(
        "Servers",
        "The selected servers as PatrolServer knows them. Not verified: PatrolServer does not scan it before "
        "its ownership is proved. Last scan empty: none was seen.",
        24,
        8,
    )
    queries = [
        Query(per_server("patrolserver_server_info", "verified")),
        Query(per_server("patrolserver_server_poll_success", pick="min")),
        Query(f"time() - {per_server('patrolserver_server_last_poll_timestamp_seconds')}"),
        Query(f"time() - {per_server('patrolserver_server_last_scan_timestamp_seconds')}"),
        Query(per_server("patrolserver_server_exploit_risk_max")),
    ]
    return rows(about, queries, columns, sort=["Highest risk"], key="Server", hidden=("Value #A",))
