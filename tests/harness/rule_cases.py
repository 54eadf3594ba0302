"""What has to be said when: each alert over a time that a table tells, for one exporter and for two."""

from __future__ import annotations

from dataclasses import dataclass

JOB = 'job="patrolserver"'
FIRST, SECOND = "first:10058", "second:10058"
MAIN = 'account="main"'
WEB = 'account="main",server="web-01.example.org",server_id="7"'
MINUTES = 240


def name(metric: str, *labels: str, instance: str = FIRST) -> str:
    """A series as an exporter's target has it."""
    target = f'{JOB},instance="{instance}"'
    return f"{metric}{{{','.join((target, *filter(None, labels)))}}}"


HEALTHY = {
    ("up", ""): "1x{n}",
    ("patrolserver_up", MAIN): "1x{n}",
    ("patrolserver_last_success_timestamp_seconds", MAIN): "0+60x{n}",
    ("patrolserver_servers", MAIN): "1x{n}",
    ("patrolserver_list_complete", MAIN): "1x{n}",
    ("patrolserver_account_servers_affected", f'{MAIN},severity="unknown"'): "0x{n}",
    ("patrolserver_webhook_enabled", MAIN): "1x{n}",
    ("patrolserver_webhook_last_delivery_timestamp_seconds", MAIN): "0+60x{n}",
    ("patrolserver_exporter_poll_interval_seconds", MAIN): "900x{n}",
    ("patrolserver_exporter_store_writable", ""): "1x{n}",
    ("patrolserver_exporter_last_follow_timestamp_seconds", ""): "0+60x{n}",
    ("patrolserver_exporter_config_last_reload_successful", ""): "1x{n}",
    ("patrolserver_exporter_replicas", ""): "1x{n}",
    ("patrolserver_exporter_account_owner", MAIN): "1x{n}",
    ("patrolserver_server_info", f'{WEB},verified="true"'): "1x{n}",
    ("patrolserver_server_last_poll_timestamp_seconds", WEB): "0+60x{n}",
    ("patrolserver_server_last_scan_timestamp_seconds", WEB): "0+60x{n}",
    ("patrolserver_server_poll_complete", WEB): "1x{n}",
    ("patrolserver_server_exploits_unknown_risk", WEB): "0x{n}",
    **{
        ("patrolserver_server_issues", f'{WEB},severity="{one}"'): "0x{n}"
        for one in ("critical", "high", "medium", "low")
    },
}
"""What an exporter shows of one server while all is well; a minute from one sample to the next."""


@dataclass(frozen=True)
class Case:
    """Series that are not as they are while all is well, and how many alerts fire at which minute."""

    alert: str
    what: str
    series: dict[tuple[str, str], str]
    firing: dict[int, int]
    """Minute → number with one exporter."""
    each: bool = False
    """Every exporter has its own alert: with two that show the same there are twice as many."""
    severity: str = ""
    not_as: str = ""
    """A severity with which it does not fire at any of these minutes."""
    minutes: int = MINUTES
    step: int = 1
    """Minutes from one sample to the next."""
    second: dict[tuple[str, str], str] | None = None
    """What the second exporter shows otherwise than the first; for cases that need two."""
    alone: bool = True
    """It is run with one exporter, too."""


def software(severity: str, canonical: str, server: str = WEB) -> str:
    """Labels of a software's series."""
    return (
        f'{server},software="{canonical}",version="1",update_to="2",state="outdated",'
        f'location="",parent="",risk="9.8",severity="{severity}"'
    )


def issues(severity: str, server: str = WEB) -> tuple[str, str]:
    """The series that counts issues."""
    return ("patrolserver_server_issues", f'{server},severity="{severity}"')


def oldest(severity: str) -> tuple[str, str]:
    """The series of the oldest issue."""
    return ("patrolserver_server_oldest_issue_timestamp_seconds", f'{WEB},severity="{severity}"')


INFO = ("patrolserver_server_software_info", software("critical", "openssl"))
POLLED = ("patrolserver_server_last_poll_timestamp_seconds", WEB)
SCANNED = ("patrolserver_server_last_scan_timestamp_seconds", WEB)
READ = ("patrolserver_last_success_timestamp_seconds", MAIN)
UP = ("up", "")
API = ("patrolserver_up", MAIN)
UNKNOWN = ("patrolserver_account_servers_affected", f'{MAIN},severity="unknown"')
REFUSED = ("patrolserver_exporter_api_request_failures_total", f'{MAIN},endpoint="servers",reason="credentials"')
OWNER = ("patrolserver_exporter_account_owner", MAIN)
REPLICAS = ("patrolserver_exporter_replicas", "")
DELIVERED = ("patrolserver_webhook_last_delivery_timestamp_seconds", MAIN)


def deliveries(outcome: str) -> tuple[str, str]:
    """The counter of deliveries."""
    return ("patrolserver_exporter_webhook_deliveries_total", f'identifier="other",outcome="{outcome}"')


def waiting(state: str) -> tuple[str, str]:
    """The oldest delivery in a state."""
    return ("patrolserver_exporter_inbox_oldest_timestamp_seconds", f'state="{state}"')


CRITICAL_AND_FIXED = {issues("critical"): "0x4 2x30 0x30", INFO: "_x5 1x29 stale"}
AWAY_FOR_AN_HOUR = {**dict.fromkeys((UP, API), "1x60 stale _x60 1x100"), READ: "0+60x60 stale _x60 7200+60x100"}
THROUGH_A_GAP = {issues("critical"): "1x10 stale _x10 1x20", INFO: "1x10 stale _x10 1x20", UP: "1x10 0x10 1x20"}

CASES = (
    Case(
        "PatrolServerCriticalIssueOpen",
        "fires at once and resolves at once",
        CRITICAL_AND_FIXED,
        {4: 0, 5: 1, 34: 1, 36: 0},
        severity="critical",
    ),
    Case(
        "PatrolServerCriticalIssueOpen",
        "a restart or a gap of minutes does not end it",
        THROUGH_A_GAP,
        {9: 1, 12: 1, 20: 1, 25: 1},
    ),
    Case(
        "PatrolServerCriticalIssueOpen",
        "a critical issue without a series of its software is counted all the same",
        {issues("critical"): "0x4 2x30 0x30"},
        {4: 0, 5: 1, 36: 0},
        severity="critical",
    ),
    Case(
        "PatrolServerServerCritical",
        "fires and ends with the server's issue",
        CRITICAL_AND_FIXED,
        {4: 0, 5: 1, 36: 0},
        severity="warning",
    ),
    Case("PatrolServerServerCritical", "outlasts a gap", THROUGH_A_GAP, {9: 1, 20: 1, 25: 1}),
    Case(
        "PatrolServerCriticalIssueSpreads",
        "fires when one more server has it, through a gap, and ends when the number stands",
        {
            issues("critical"): "1x29 stale _x3 1x90",
            INFO: "1x29 stale _x3 1x90",
            UP: "1x29 0x3 1x90",
            ("patrolserver_server_info", 'account="main",server="web-02",server_id="8",verified="true"'): "1x120",
            issues("critical", 'account="main",server="web-02",server_id="8"'): "0x40 1x80",
            (
                "patrolserver_server_software_info",
                software("critical", "openssl", 'account="main",server="web-02",server_id="8"'),
            ): "_x41 1x80",
        },
        {30: 0, 40: 0, 41: 1, 45: 1, 70: 0},
        severity="critical",
    ),
    Case(
        "PatrolServerCriticalIssueSpreads",
        "fires when another server has it while one was mended, so that the number stays",
        {
            issues("critical"): "1x30 0x60",
            INFO: "1x30 stale",
            **{
                series: values
                for number, critical, software_ in ((8, "1x90", "1x90"), (9, "0x33 1x56", "_x34 1x56"))
                for labels in (f'account="main",server="web-{number}",server_id="{number}"',)
                for series, values in {
                    ("patrolserver_server_info", f'{labels},verified="true"'): "1x90",
                    issues("critical", labels): critical,
                    ("patrolserver_server_software_info", software("critical", "openssl", labels)): software_,
                }.items()
            },
        },
        {32: 0, 35: 1, 50: 0},
        severity="critical",
    ),
    Case(
        "PatrolServerCriticalIssueSpreads",
        "fires for software without a series, too",
        {
            issues("critical"): "1x90",
            ("patrolserver_server_info", 'account="main",server="web-02",server_id="8",verified="true"'): "1x90",
            issues("critical", 'account="main",server="web-02",server_id="8"'): "0x33 1x56",
        },
        {32: 0, 35: 1, 50: 0},
        severity="critical",
    ),
    Case(
        "PatrolServerCriticalIssueSpreads",
        "says nothing of the first servers, which are news of another alert",
        CRITICAL_AND_FIXED,
        {4: 0, 5: 0, 10: 0, 20: 0},
    ),
    Case(
        "PatrolServerHighIssueOpenTooLong",
        "fires after seven days, through a restart, and ends with the fix",
        {oldest("high"): "-604200x20 stale _x5 -604200x10 stale", issues("high"): "1x20 stale _x5 1x10 0x10"},
        {9: 0, 12: 1, 24: 1, 30: 1, 40: 0},
    ),
    Case(
        "PatrolServerHighIssueOpenTooLong",
        "a medium one has more time",
        {oldest("medium"): "-604800x60", issues("medium"): "1x60"},
        {30: 0},
    ),
    Case(
        "PatrolServerRemediationOverdue",
        "outlasts a gap and ends with the fix",
        {oldest("critical"): "-258900x10 stale _x8 -258900x5 stale", issues("critical"): "1x10 stale _x8 1x5 0x10"},
        {0: 0, 9: 1, 15: 1, 22: 1, 30: 0},
    ),
    Case(
        "PatrolServerRemediationOverdue",
        "each severity has its own limit, counted from when it got the severity",
        {
            oldest("critical"): "-255600x240",
            oldest("high"): "-2592000x240",
            oldest("medium"): "-7776000x240",
            oldest("low"): "-15548400x240",
            **{issues(one): "1x240" for one in ("critical", "high", "medium", "low")},
        },
        {0: 0, 1: 2, 55: 2, 65: 4},
    ),
    *(
        Case(
            alert,
            "fires after an hour, through a gap",
            {series: "1x30 stale _x8 1x60 0x60"},
            {59: 0, 61: 1, 102: 0},
            severity=severity,
        )
        for alert, severity, series in (
            (
                "PatrolServerUnsupportedSoftware",
                "info",
                ("patrolserver_server_software", f'{WEB},state="unsupported"'),
            ),
            ("PatrolServerExploitRiskUnknown", "warning", ("patrolserver_server_exploits_unknown_risk", WEB)),
        )
    ),
    Case(
        "PatrolServerPollIncomplete",
        "fires after an hour, through a gap",
        {("patrolserver_server_poll_complete", WEB): "0x30 stale _x8 0x60 1x60"},
        {59: 0, 62: 1, 102: 0},
    ),
    Case(
        "PatrolServerPollIncomplete",
        "goes on while polls fail, since nobody knows better, and ends with a whole poll",
        {
            ("patrolserver_server_poll_complete", WEB): "0x120 1x60",
            ("patrolserver_server_poll_success", WEB): "1x30 0x90 1x60",
            POLLED: "0+60x30 1800x90 7200+60x60",
        },
        {59: 0, 62: 1, 119: 1, 122: 0},
    ),
    Case(
        "PatrolServerScanOverdue",
        "fires after two days, outlasts a gap, and ends with a scan",
        {SCANNED: "-171000x30 stale _x8 -171000x30 4800x100"},
        {20: 0, 50: 1, 80: 0},
    ),
    Case(
        "PatrolServerNeverScanned",
        "fires two days after the server appeared, through a restart, and ends with the first scan",
        {
            SCANNED: "_x610 183300+300x30",
            ("patrolserver_server_info", f'{WEB},verified="true"'): "1x300 stale _x1 1x339",
        },
        {47 * 60: 0, 49 * 60: 1, 52 * 60: 0},
        minutes=53 * 60,
        step=5,
    ),
    Case(
        "PatrolServerNeverScanned",
        "says nothing where no webhook is enabled, since no scan is seen there",
        {SCANNED: "_x720", ("patrolserver_webhook_enabled", MAIN): "0x720"},
        {49 * 60: 0},
        minutes=50 * 60,
        step=5,
    ),
    Case(
        "PatrolServerServersUnknown",
        "fires after an hour in which nobody knows, through a gap, and ends",
        {UNKNOWN: "0x10 2x40 stale _x8 2x40 0x60"},
        {60: 0, 75: 1, 98: 1, 118: 0},
    ),
    Case(
        "PatrolServerServersUnknown",
        "is silent while the API is away, of which other alerts tell",
        {UNKNOWN: "0x10 1x200", API: "1x10 0x200", READ: "0+60x10 600x200", POLLED: "0+60x10 600x200"},
        {80: 0, 150: 0, 200: 0},
    ),
    Case(
        "PatrolServerServersUnknown",
        "leaves a server whose polls are partial or fail to the alert on that",
        {
            UNKNOWN: "0x10 1x200",
            ("patrolserver_server_poll_complete", WEB): "1x10 0x80 1x200",
            ("patrolserver_server_poll_success", WEB): "1x90 0x40 1x100",
        },
        {75: 0, 125: 0, 180: 0, 200: 1},
    ),
    Case(
        "PatrolServerServersDisappeared",
        "fires when the list is shorter, through a gap, and ends when that has stood for six hours",
        {("patrolserver_servers", MAIN): "20x30 stale _x5 17x500"},
        {29: 0, 60: 1, 300: 1, 440: 0},
        minutes=480,
    ),
    Case(
        "PatrolServerServersDisappeared",
        "fires for an account that nobody has configured any more, and ends when that has stood for six hours",
        {("patrolserver_servers", MAIN): "20x30 stale", API: "1x30 stale", READ: "0+60x30 stale"},
        {29: 0, 80: 1, 300: 1, 440: 0},
        minutes=480,
    ),
    Case(
        "PatrolServerServersDisappeared",
        "leaves an account whose exporter is away to the alert on that",
        {("patrolserver_servers", MAIN): "20x30 stale", API: "1x30 stale", UP: "1x30 0x450"},
        {29: 0, 80: 0, 300: 0},
        minutes=480,
    ),
    Case(
        "PatrolServerWaiverEnding",
        "fires fourteen days before, through a gap, and ends with the waiver",
        {
            (
                "patrolserver_waiver_expiry_timestamp_seconds",
                'server="*",software="php",exploit="",kind="",max_severity=""',
            ): "1213200x100 stale _x8 1213200x50 2000000x50"
        },
        {50: 0, 70: 1, 104: 1, 170: 0},
    ),
    Case(
        "PatrolServerExporterDown",
        "fires when none answers, and resolves",
        {UP: "1x10 0x20 1x30"},
        {14: 0, 17: 1, 33: 0},
        severity="critical",
    ),
    Case(
        "PatrolServerExporterDown",
        "one of two is a warning, and pages nobody",
        {UP: "1x10 0x20 1x30"},
        {14: 0, 17: 1, 33: 0},
        severity="warning",
        not_as="critical",
        second={UP: "1x60"},
        alone=False,
    ),
    Case(
        "PatrolServerExporterDown",
        "no target at all is as bad",
        {UP: "_x60"},
        {4: 0, 6: 1},
        severity="critical",
    ),
    Case(
        "PatrolServerExporterDown",
        "fires once when all targets leave service discovery, and resolves",
        {UP: "1x10 stale _x20 1x30"},
        {10: 0, 17: 1, 30: 1, 34: 0},
        severity="critical",
    ),
    Case(
        "PatrolServerExporterMissing",
        "an exporter that leaves service discovery is missed while another stays, until it is back",
        {UP: "1x60 stale _x60 1x100"},
        {60: 0, 70: 1, 110: 1, 125: 0},
        second={UP: "1x240"},
        alone=False,
    ),
    Case(
        "PatrolServerExporterMissing",
        "a gap of Prometheus itself is no loss",
        {UP: "1x60 _x10 1x100"},
        {60: 0, 68: 0, 80: 0},
    ),
    Case(
        "PatrolServerAccountUnwatched",
        "fires when the only exporter of an account left, and ends when it is back",
        AWAY_FOR_AN_HOUR,
        {60: 0, 70: 0, 80: 1, 130: 0},
        second={key: "_x1" for key in HEALTHY if MAIN in key[1]},
        alone=False,
        severity="critical",
    ),
    Case(
        "PatrolServerAccountUnwatched",
        "is silent while another exporter watches the account",
        AWAY_FOR_AN_HOUR,
        {80: 0},
        second={},
        alone=False,
    ),
    Case(
        "PatrolServerApiUnreachable",
        "fires after a quarter of an hour, through a gap, and ends",
        {API: "1x5 0x10 stale _x5 0x20 1x30"},
        {18: 0, 23: 1, 30: 1, 45: 0},
        each=True,
    ),
    Case(
        "PatrolServerApiUnreachable",
        "names the one of two that is cut",
        {API: "1x5 0x60"},
        {19: 0, 22: 1},
        second={},
        alone=False,
    ),
    Case(
        "PatrolServerApiUnreachable",
        "is silent when the credentials are the reason",
        {API: "1x5 0x60", REFUSED: "0x5 0+1x60"},
        {40: 0},
    ),
    Case(
        "PatrolServerApiUnreachable",
        "is silent about an exporter that leaves the account to another one whose credentials are refused",
        {API: "1x5 0x60", REFUSED: "0x5 0+1x60"},
        {40: 0},
        second={API: "1x5 0x60", OWNER: "0x65"},
        alone=False,
    ),
    Case(
        "PatrolServerApiUnreachable",
        "is told by each exporter on a store whose account cannot be read",
        {API: "1x5 0x60"},
        {19: 0, 22: 2},
        second={API: "1x5 0x60", OWNER: "0x65"},
        alone=False,
    ),
    Case(
        "PatrolServerCredentialsRefused",
        "fires after five minutes, through a gap, and ends",
        {API: "1x5 0x20 stale _x5 0x20 1x30", REFUSED: "0x5 0+1x20 _x6 21+1x20 41x60"},
        {9: 0, 13: 1, 29: 1, 40: 1, 56: 0},
        each=True,
        severity="critical",
    ),
    Case(
        "PatrolServerCredentialsRefused",
        "is a warning while another exporter is let in, wakes nobody up, and ends",
        {API: "1x5 0x60 1x60", REFUSED: "0x5 0+1x60 60x60"},
        {9: 0, 13: 1, 70: 0},
        severity="warning",
        not_as="critical",
        second={},
        alone=False,
    ),
    Case(
        "PatrolServerCallsPaused",
        "fires after a quarter of an hour, through a gap, and ends",
        {("patrolserver_exporter_api_pause_end_timestamp_seconds", MAIN): "3600x10 stale _x3 3600x30 stale"},
        {14: 0, 17: 1, 60: 0},
        each=True,
    ),
    Case(
        "PatrolServerCallsPaused",
        "fires for one short pause after another, also where no scrape falls into some, and ends",
        {
            ("patrolserver_exporter_api_pause_end_timestamp_seconds", MAIN): " ".join(
                f"{60 * minute + 45}" if minute % 4 else "stale" for minute in range(1, 40)
            )
        },
        {10: 0, 18: 1, 38: 1, 43: 0},
        each=True,
    ),
    Case(
        "PatrolServerCallsPaused",
        "says nothing of a pause of ten minutes",
        {("patrolserver_exporter_api_pause_end_timestamp_seconds", MAIN): "600x10 stale"},
        {14: 0, 17: 0, 30: 0},
    ),
    Case(
        "PatrolServerListIncomplete",
        "fires after half an hour, through a gap, and ends",
        {("patrolserver_list_complete", MAIN): "0x10 stale _x8 0x30 1x30"},
        {29: 0, 31: 1, 60: 0},
        each=True,
    ),
    Case(
        "PatrolServerListIncomplete",
        "is silent when no list can be read, of which another alert tells",
        {("patrolserver_list_complete", MAIN): "1x5 0x60", API: "1x5 0x60"},
        {40: 0},
        each=True,
    ),
    Case(
        "PatrolServerListIncomplete",
        "fires where every second call fails and the others bring a part",
        {("patrolserver_list_complete", MAIN): "1x5 0x60", API: f"1x5 {'0x1 1x1 ' * 15}1x5"},
        {34: 0, 37: 1, 60: 1},
        each=True,
    ),
    Case(
        "PatrolServerWireOddities",
        "fires while they come, through a restart, and ends an hour after the last",
        {("patrolserver_exporter_wire_oddities_total", MAIN): "0x10 1+1x20 stale _x3 0+1x10 10x120"},
        {10: 0, 28: 1, 40: 1, 115: 0},
        each=True,
    ),
    Case(
        "PatrolServerDataStale",
        "pages when nobody has fresh data, through a gap, and ends",
        {READ: "0+60x60 3600x30 stale _x5 3600x60 9600x30"},
        {120: 0, 130: 1, 150: 1, 160: 0},
        each=True,
        severity="critical",
    ),
    Case(
        "PatrolServerDataStale",
        "goes on to page when an exporter has lost its state, and ends when the list is read",
        {READ: "0+60x60 3600x60 _x60 10860+60x60", API: "1x60 0x120 1x60"},
        {120: 0, 130: 1, 150: 1, 178: 1, 190: 0},
        each=True,
        severity="critical",
    ),
    Case(
        "PatrolServerAccountNeverRead",
        "pages when the list has not been read within the first hour, and ends when it is",
        {READ: "_x120 7260+60x120", API: "0x120 1x120"},
        {59: 0, 64: 1, 119: 1, 125: 0},
        each=True,
        severity="critical",
    ),
    Case(
        "PatrolServerAccountNeverRead",
        "pages nobody for an exporter whose clock is minutes fast",
        {READ: "300+60x240"},
        {64: 0, 200: 0},
        not_as="critical",
    ),
    Case(
        "PatrolServerAccountNeverRead",
        "pages nobody for an exporter that has not read the list, while another one has",
        {READ: "_x240", API: "0x240"},
        {64: 0, 200: 0},
        not_as="critical",
        second={},
        alone=False,
    ),
    Case(
        "PatrolServerDataStale",
        "is a warning for the one of two that is cut, wakes nobody up, and ends",
        {READ: "0+60x60 3600x100 9720+60x60"},
        {120: 0, 130: 1, 165: 0},
        severity="warning",
        not_as="critical",
        second={},
        alone=False,
    ),
    Case(
        "PatrolServerServerDataStale",
        "fires for the one server, through a gap, and ends with a poll",
        {POLLED: "60+60x20 1260x50 stale _x5 1260x50 7860x50"},
        {80: 0, 100: 1, 120: 1, 140: 0},
    ),
    Case(
        "PatrolServerServerDataStale",
        "is silent while another exporter polls the server",
        {POLLED: "60+60x20 1260x180"},
        {120: 0},
        second={},
        alone=False,
    ),
    Case(
        "PatrolServerServerDataStale",
        "an interval that was stretched to a day hides no server that fails for days",
        {("patrolserver_exporter_poll_interval_seconds", MAIN): "86400x1500", POLLED: "60x1500"},
        {23 * 60: 0, 25 * 60: 1},
        minutes=26 * 60,
        step=5,
    ),
    Case(
        "PatrolServerServerNeverPolled",
        "fires after six hours, through a restart, and ends with a poll",
        {
            POLLED: "_x420 25200+60x60",
            ("patrolserver_server_info", f'{WEB},verified="true"'): "1x100 stale _x5 1x400",
        },
        {350: 0, 365: 1, 425: 0},
        minutes=440,
    ),
    Case(
        "PatrolServerMostServersStale",
        "fires when most of ten and more are stale, through a gap, and ends",
        {
            (metric, f'account="main",server="s{i}",server_id="{i}"{extra}'): values
            for i in range(100, 112)
            for metric, extra, values in (
                ("patrolserver_server_info", ',verified="true"', "1x70 stale _x5 1x160"),
                ("patrolserver_server_last_poll_timestamp_seconds", "", "60x70 stale _x5 60x60 8200x100"),
            )
        },
        {60: 0, 85: 1, 120: 1, 140: 0},
        severity="critical",
    ),
    Case("PatrolServerMostServersStale", "one server is a ticket", {POLLED: "60x200"}, {120: 0}),
    *(
        Case(
            "PatrolServerDeliveriesNotTaken",
            f"tells of deliveries that were {outcome}, through a restart, and ends an hour later",
            {deliveries(outcome): "0x10 1x20 stale _x3 0x90"},
            {10: 0, 12: 1, 40: 1, 80: 0},
            each=True,
        )
        for outcome in ("refused", "rejected", "failed")
    ),
    Case(
        "PatrolServerDeliveriesNotTaken",
        "accepted ones and duplicates are as they should be",
        {deliveries("accepted"): "0+1x60", deliveries("duplicate"): "0+1x60"},
        {40: 0},
    ),
    Case(
        "PatrolServerWebhookSilent",
        "fires two days after the last delivery, through a gap, and ends",
        {DELIVERED: "60x600 stale _x1 60x50 195000x100"},
        {47 * 60: 0, 49 * 60: 1, 3245: 1, 3300: 0},
        minutes=56 * 60,
        step=5,
    ),
    Case(
        "PatrolServerWebhookSilent",
        "fires where none has come since it was enabled two days ago",
        {DELIVERED: "_x600"},
        {47 * 60: 0, 49 * 60: 1},
        minutes=50 * 60,
        step=5,
    ),
    Case(
        "PatrolServerWebhookSilent",
        "is silent without a webhook",
        {DELIVERED: "_x600", ("patrolserver_webhook_enabled", MAIN): "0x720"},
        {49 * 60: 0},
        minutes=50 * 60,
        step=5,
    ),
    Case(
        "PatrolServerInboxStuck",
        "a first try is late after a quarter of an hour, through a restart",
        {waiting("received"): "60x10 stale _x1 60x30 3000x30"},
        {15: 0, 23: 1, 60: 0},
        each=True,
    ),
    Case(
        "PatrolServerInboxStuck",
        "another try has six hours",
        {waiting("retry"): "60x400"},
        {350: 0, 368: 1},
        each=True,
        minutes=400,
    ),
    Case(
        "PatrolServerInboxOverflow",
        "fires at once, through a restart, and ends after a quarter of an hour",
        {("patrolserver_exporter_inbox_overflows_total", MAIN): "0x10 5x5 stale _x3 0x60"},
        {10: 0, 12: 1, 40: 0},
        each=True,
    ),
    Case(
        "PatrolServerDeadDeliveries",
        "fires after five minutes, through a gap, and ends",
        {("patrolserver_exporter_inbox_deliveries", 'state="dead"'): "0x10 2x10 stale _x8 2x10 0x30"},
        {14: 0, 17: 1, 28: 1, 45: 0},
        each=True,
    ),
    Case(
        "PatrolServerEventLagHigh",
        "fires when one in ten takes minutes, through a gap, and ends",
        {
            ("patrolserver_exporter_event_lag_seconds_bucket", 'le="300"'): "0x10 0+1x20 _x5 21+1x20 41x60",
            ("patrolserver_exporter_event_lag_seconds_bucket", 'le="900"'): "0x10 0+10x20 _x5 210+10x20 410x60",
            ("patrolserver_exporter_event_lag_seconds_bucket", 'le="+Inf"'): "0x10 0+10x20 _x5 210+10x20 410x60",
        },
        {10: 0, 25: 1, 45: 1, 100: 0},
        each=True,
    ),
    Case(
        "PatrolServerStoreNotWritable",
        "pages within two minutes, through a scrape that is missing, and ends",
        {("patrolserver_exporter_store_writable", ""): "1x10 0x5 _x1 0x5 1x30"},
        {10: 0, 12: 1, 17: 1, 24: 0},
        each=True,
        severity="critical",
    ),
    Case(
        "PatrolServerConfigReloadFailed",
        "fires after five minutes, through a gap, and ends",
        {("patrolserver_exporter_config_last_reload_successful", ""): "1x10 0x10 _x2 0x10 1x30"},
        {14: 0, 22: 1, 30: 1, 36: 0},
        each=True,
    ),
    Case(
        "PatrolServerExporterErrors",
        "fires when errors go on for a quarter of an hour, through a restart, and ends",
        {("patrolserver_exporter_errors_total", 'component="store"'): "0x10 0+1x20 stale _x2 0+1x20 20x60"},
        {20: 0, 30: 1, 50: 1, 80: 0},
        each=True,
    ),
    *(
        Case(
            "PatrolServerClockOff",
            f"fires when it is {value} s off, through a gap, and ends",
            {("patrolserver_exporter_clock_offset_seconds", MAIN): f"0x10 {value}x10 stale _x5 {value}x10 1x30"},
            {14: 0, 17: 1, 24: 1, 45: 0},
            each=True,
        )
        for value in (90, -90)
    ),
    Case(
        "PatrolServerClockOff",
        "fires when it is ahead of Prometheus, whatever PatrolServer's is",
        {("patrolserver_exporter_last_follow_timestamp_seconds", ""): "120+60x60"},
        {4: 0, 6: 1},
        each=True,
    ),
    Case(
        "PatrolServerExporterBehind",
        "fires within minutes, through a gap, and ends",
        {("patrolserver_exporter_last_follow_timestamp_seconds", ""): "0+60x10 600x10 _x3 600x10 2100+60x30"},
        {11: 0, 15: 1, 22: 1, 40: 0},
        each=True,
    ),
    Case(
        "PatrolServerReplicasDiffer",
        "fires after ten minutes, through a gap, and ends",
        {("patrolserver_exporter_replicas_config_differs", ""): "0x10 1x10 _x2 1x10 0x30"},
        {19: 0, 22: 1, 30: 1, 36: 0},
        each=True,
    ),
    Case(
        "PatrolServerAccountOwners",
        "fires when nobody polls an account for two minutes, through a gap, and ends",
        {OWNER: "1x9 0x3 _x2 0x3 1x30"},
        {11: 0, 12: 1, 15: 1, 19: 1, 20: 0},
    ),
    Case(
        "PatrolServerAccountOwners",
        "says nothing while an account moves to the other of two that share a store, nor when its owner is killed",
        {OWNER: "1x9 0x11 1x20", REPLICAS: "2x21 1x20"},
        {9: 0, 10: 0, 12: 0, 20: 0, 21: 0, 22: 0, 23: 0, 35: 0},
        second={OWNER: "0x10 1x9 stale", REPLICAS: "2x20 stale"},
        alone=False,
    ),
    Case(
        "PatrolServerAccountOwners",
        "fires when both of two that share a store poll, and ends",
        {OWNER: "1x40", REPLICAS: "2x40"},
        {10: 0, 11: 0, 12: 1, 19: 1, 20: 0},
        second={OWNER: "0x9 1x9 0x20", REPLICAS: "2x40"},
        alone=False,
    ),
    Case(
        "PatrolServerSeriesDropped",
        "fires while a limit cuts, through a restart, and ends an hour later",
        {("patrolserver_exporter_series_dropped_total", 'reason="total_limit"'): "0x10 0+5x20 stale _x2 0+5x10 50x90"},
        {10: 0, 30: 1, 40: 1, 110: 0},
        each=True,
        severity="info",
    ),
)
