"""The fleet as its page shows it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from patrolserver_exporter.issues.model import SEVERITIES, STATES, State
from patrolserver_exporter.web.pages.accounts import OLD
from patrolserver_exporter.web.pages.words import counted, listed, maybe, number

if TYPE_CHECKING:
    from collections.abc import Sequence

    from patrolserver_exporter.issues.summary import ServerSummary
    from patrolserver_exporter.store.views import FleetFilter, FleetTotals, FleetView
    from patrolserver_exporter.web.pages.accounts import AccountView
    from patrolserver_exporter.web.pages.notices import Notice
    from patrolserver_exporter.web.pages.paths import Paths
    from patrolserver_exporter.web.pages.words import Moment

ROWS = 50
"""Servers on a page."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """The first sentence of the page. ``tone`` is ``bad``, ``warn``, ``good`` or ``unknown``."""

    text: str
    tone: str


@dataclass(frozen=True, slots=True)
class Count:
    """How many issues of a severity; ``None`` while nobody knows."""

    severity: str
    issues: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Tile:
    """A number of the summary, and where it leads."""

    severity: str
    issues: str
    servers: str
    link: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One server in the table."""

    name: str
    account: str
    link: str
    counts: tuple[Count, ...]
    waived: int
    software: str
    exploits: str
    polled: Moment | None
    marker: str
    """Why its data is doubtful; empty when it is not."""
    scanning: bool
    last_scan: Moment | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Pager:
    """Where in the list one is."""

    text: str
    previous: str | None
    next: str | None


def verdict(totals: FleetTotals, accounts: Sequence[AccountView], notices: Sequence[Notice]) -> Verdict:
    """Say in one sentence how the fleet stands; never that all is fine when the data has gaps."""
    if not totals.servers:
        answered = any(account.last_success for account in accounts)
        return Verdict(
            "No server is watched" if answered else "Waiting for the first answer of PatrolServer", "unknown"
        )
    critical, high, *rest = totals.issues
    if critical:
        return Verdict(f"{counted(critical, 'critical issue')} on {counted(totals.affected[0], 'server')}", "bad")
    if high:
        return Verdict(
            f"{counted(high, 'high issue')} on {counted(totals.affected[1], 'server')}, none critical", "bad"
        )
    if any(notice.bad for notice in notices) or all(account.fresh.oldest_at is None for account in accounts):
        return Verdict("No critical issue is known, but the data has gaps", "unknown")
    return Verdict("No critical or high issue", "warn") if any(rest) else Verdict("No open issue", "good")


def summary_line(totals: FleetTotals, accounts: Sequence[AccountView]) -> str:
    """Say how large the fleet is, and what is not in the tiles."""
    if not totals.servers:
        return f"{counted(len(accounts), 'account is', 'accounts are')} configured."
    parts = [f"{number(totals.clean) if totals.clean else 'none'} without an open issue"]
    if totals.waived:
        parts.append(counted(totals.waived, "issue waived", "issues waived"))
    return f"{counted(totals.servers, 'server')} in {counted(len(accounts), 'account')}, {listed(parts)}."


def tiles(totals: FleetTotals, paths: Paths, everything: FleetFilter) -> tuple[Tile, ...]:
    """Show one number a severity."""
    return tuple(
        Tile(
            severity=severity.value,
            issues=number(totals.issues[index]),
            servers=f"on {counted(totals.affected[index], 'server')}" if totals.affected[index] else "on no server",
            link=paths.fleet(type(everything)(severity=severity)) + "#servers",
        )
        for index, severity in enumerate(SEVERITIES)
    )


def row(summary: ServerSummary, paths: Paths, now: float) -> Row:
    """Show one server."""
    counts = summary.open_issues or (None,) * len(SEVERITIES)
    return Row(
        name=summary.name.strip() or f"Server {summary.server_id}",
        account=summary.account,
        link=paths.server(summary.server_id, summary.account),
        counts=tuple(Count(severity.value, count) for severity, count in zip(SEVERITIES, counts, strict=True)),
        waived=summary.waived_issues,
        software=_software(summary),
        exploits=_exploits(summary),
        polled=maybe(summary.last_poll_at, now),
        marker=marker(summary, now),
        scanning=summary.scanning,
        last_scan=maybe(summary.last_scan_at, now),
    )


def marker(summary: ServerSummary, now: float) -> str:
    """Say why the data of a server is doubtful; empty when it is not."""
    if summary.last_poll_at is None:
        return "not polled yet"
    if not summary.poll_success:
        return "last poll failed"
    if now - summary.last_poll_at > OLD:
        return "older than 24 hours"
    if not summary.poll_complete:
        return "partial or empty"
    return "waits for a poll" if summary.in_doubt else ""


def _software(summary: ServerSummary) -> str:
    if summary.software is None:
        return ""
    found = dict(zip(STATES, summary.software, strict=True))
    parts = [
        f"{number(found[state])} {state.value}"
        for state in (State.UNSUPPORTED, State.OUTDATED, State.UNKNOWN)
        if found[state]
    ]
    total = sum(summary.software)
    return f"{', '.join(parts)} of {number(total)}" if parts else f"all {number(total)} supported" if total else "none"


def _exploits(summary: ServerSummary) -> str:
    if not summary.exploits:
        return ""
    risk = "unknown" if summary.exploit_risk_max is None else f"{summary.exploit_risk_max:g}"
    return f"{number(summary.exploits)}, risk {risk}"


def pager(view: FleetView, wanted: FleetFilter, paths: Paths) -> Pager:
    """Say which part of the list this is, and link its neighbours."""
    page = view.offset // ROWS + 1
    last = max(view.matching - 1, 0) // ROWS + 1
    first_row, last_row = view.offset + 1, view.offset + len(view.rows)
    return Pager(
        text=f"{number(first_row)}–{number(last_row)} of {counted(view.matching, 'server')}" if view.rows else "",
        previous=paths.fleet(wanted, page - 1) + "#servers" if page > 1 else None,
        next=paths.fleet(wanted, page + 1) + "#servers" if page < last else None,
    )
