"""Exporter health: does it get its data, does it keep up, what does it cost."""

from __future__ import annotations

from typing import TYPE_CHECKING

from grafana_foundation_sdk.models.common import BigValueTextMode

from grafana.dashboards import counts
from grafana.dashboards.counts import NO_DATA
from grafana.dashboards.exporter_api import FAILURES, REQUESTS, api
from grafana.dashboards.exporter_inbox import INBOX, LAST, WAITING, inbox
from grafana.dashboards.frame import EXPORTER, Page, Row
from grafana.dashboards.look import (
    API_STATE,
    BAD,
    LIST_STATE,
    LOADED,
    NO_PAUSE,
    OWNER,
    SAME,
    STORE_STATE,
    WARN,
    WORST,
    any_is,
)
from grafana.dashboards.panels import (
    WRAPPED,
    About,
    Column,
    Placed,
    Query,
    colored_cell,
    lines,
    rows,
    said,
    stats,
    unit,
)
from grafana.dashboards.promql import (
    a_minute,
    by_account,
    each_exporter,
    named_zero,
    or_else,
    own,
    rate,
    state_is,
)
from grafana.settings import seconds, words

if TYPE_CHECKING:
    from grafana.settings import Settings, Thresholds


def exporter(settings: Settings) -> Page:
    """Where to look when the data is old."""
    return Page(
        uid=EXPORTER,
        title="PatrolServer / Exporter health",
        description="Does PatrolServer answer, is every delivery and poll done in time, what does the exporter cost.",
        rows=(
            Row("Now", (*_numbers(settings.thresholds), _owners(settings.thresholds))),
            Row("API", api()),
            Row("Webhook and inbox", inbox(), collapsed=True),
            Row("Process", (_cpu(), _memory(), _descriptors(), _errors(), _dropped()), collapsed=True),
        ),
        hidden=frozenset({"server", "severity"}),
        scans_marked=False,
    )


def _error_ratio() -> str:
    return f"sum({rate(by_account(FAILURES))}) / sum({rate(by_account(REQUESTS))}) >= 0"


def _doubts() -> tuple[Placed, ...]:
    pause = each_exporter("patrolserver_exporter_api_pause_end_timestamp_seconds")
    none = named_zero(by_account("patrolserver_up"), "account", "no pause")
    offset = own("patrolserver_exporter_clock_offset_seconds", 'account=~"$account"')
    return (
        stats(
            About(
                "Store",
                "Whether what is polled and delivered can be kept. cannot write: make room on its disk, or bring the "
                "database back.",
                6,
                3,
                NO_DATA,
            ),
            [Query(f"min({own('patrolserver_exporter_store_writable')})", "store")],
            mapping=STORE_STATE,
        ),
        stats(
            About(
                "Server lists",
                "Whether the last server list of each account was whole. a part: the exporter's /-/ready tells what "
                "said so; globs over the account are unknown to the gate.",
                6,
                3,
                NO_DATA,
            ),
            [Query(each_exporter("patrolserver_list_complete", pick="min"), "{{account}}")],
            mapping=LIST_STATE,
        ),
        stats(
            About(
                "Pause ends in",
                "PatrolServer asked an account to wait. If that happens often, lower poll.max_requests_per_minute.",
                6,
                3,
                NO_DATA,
            ),
            [Query(or_else(f"({pause} - time()) > 0", none), "{{account}}")],
            unit="s",
            limits=any_is(WARN),
            mapping=NO_PAUSE,
        ),
        stats(
            About(
                "Clock",
                "The own clock minus PatrolServer's, where they are most apart. From minutes on ages and waivers are "
                "wrong: look at NTP on the exporter's machine.",
                6,
                3,
                NO_DATA,
            ),
            [Query(f"max(abs({offset}))", "offset")],
            unit="s",
            limits=((60.0, WARN), (300.0, WORST)),
            decimals=0,
        ),
    )


def _numbers(limits: Thresholds) -> tuple[Placed, ...]:
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
            base="transparent",
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
            [Query(each_exporter("patrolserver_up", "instance", pick="min"), "{{account}} {{instance}}")],
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
        counts.oldest_poll(6, limits, 3),
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
        *_doubts(),
    )


def _owners(limits: Thresholds) -> Placed:
    owner = f"max by (account, instance) ({by_account('patrolserver_exporter_account_owner')})"

    def beside(value: str) -> str:
        """A value of an exporter, in each of its accounts' rows."""
        return f"{owner} * 0 + on (instance) group_left () max by (instance) ({value})"

    followed = own("patrolserver_exporter_last_follow_timestamp_seconds")
    late = ((float(seconds(limits.follow)), WARN),)
    columns = [
        Column("account", "Account", None, (WRAPPED,)),
        Column("instance", "Exporter", None, (WRAPPED,)),
        Column("Value #A", "Polls it", 80, said(OWNER)),
        Column("Value #B", "Exporters on store", 150),
        Column("Value #C", "Configuration", 115, said(SAME)),
        Column("Value #D", "Behind its store", 135, (*colored_cell(late), *unit("s", 1))),
    ]
    about = About(
        "Who polls which account",
        "Of exporters that share a store exactly one polls an account, and the others take its deliveries in, show "
        "it and answer for it. No yes: nobody polls the account, or who does is not scraped. differs: give all on one "
        "store the same configuration; who polls an account judges it. Behind its store: how old what it shows is; "
        f"yellow after {words(limits.follow)}.",
        24,
        6,
        NO_DATA,
    )
    queries = [
        Query(owner),
        Query(beside(own("patrolserver_exporter_replicas"))),
        Query(beside(own("patrolserver_exporter_replicas_config_differs"))),
        Query(beside(f"time() - {followed}")),
    ]
    return rows(about, queries, columns, sort=[], key="Account")


def _cpu() -> Placed:
    about = About(
        "CPU",
        "Share of a core used by each exporter. A steady 100 % is too much: raise the poll interval or lower the "
        "concurrency.",
        8,
        8,
    )
    return lines(about, [Query(rate(own("process_cpu_seconds_total")), "{{instance}}")], unit="percentunit")


def _memory() -> Placed:
    about = About(
        "Memory",
        "Resident memory of each exporter. It follows the number of servers and then stands; one that climbs "
        "for days is a leak: report it.",
        8,
        8,
    )
    return lines(
        about,
        [Query(own("process_resident_memory_bytes"), "{{instance}}")],
        unit="bytes",
        legend_values=("lastNotNull",),
    )


def _descriptors() -> Placed:
    about = About(
        "Open files",
        "Share of the allowed open files and sockets in use. Near 100 % deliveries are lost: raise the limit, "
        "or find who holds connections open.",
        8,
        8,
    )
    share = f"{own('process_open_fds')} / {own('process_max_fds')}"
    return lines(about, [Query(share, "{{instance}}")], unit="percentunit")


def _errors() -> Placed:
    about = About(
        "Unexpected errors a minute",
        "Errors that the exporter did not expect, by component. Each is in the log with its trace: report it.",
        12,
        8,
    )
    errors = a_minute("component", own("patrolserver_exporter_errors_total"))
    return lines(about, [Query(errors, "{{component}}")], legend_values=LAST)


def _dropped() -> Placed:
    about = About(
        "Dropped series a minute",
        "Software series left out, by limit, counted with each poll. Raise metrics.software_limit_… if Prometheus can "
        "bear it; the counts stay right all the same.",
        12,
        8,
    )
    dropped = a_minute("reason", own("patrolserver_exporter_series_dropped_total"))
    return lines(about, [Query(dropped, "{{reason}}")], legend_values=LAST)
