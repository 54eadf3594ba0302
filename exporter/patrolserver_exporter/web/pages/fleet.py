"""The fleet as its page shows it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from patrolserver_exporter.issues.model import SEVERITIES, STATES, State
from patrolserver_exporter.web.api.sheets import SERVERS, Sheet
from patrolserver_exporter.web.pages.paths import Wanted
from patrolserver_exporter.web.pages.words import counted, maybe, number
from patrolserver_exporter.web.standing import NOT_LOOKED_AT, OLD, doubts_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from patrolserver_exporter.issues.spread import Key
    from patrolserver_exporter.issues.summary import ServerSummary
    from patrolserver_exporter.store.queries import ServerKey
    from patrolserver_exporter.store.views import FleetTotals, PollState
    from patrolserver_exporter.web.api import types
    from patrolserver_exporter.web.overview import Servers
    from patrolserver_exporter.web.pages.accounts import AccountView
    from patrolserver_exporter.web.pages.notices import Notice
    from patrolserver_exporter.web.pages.paths import Paths
    from patrolserver_exporter.web.pages.words import Moment

NO_LABELS: Mapping[str, str] = MappingProxyType({})


class ServerState(StrEnum):
    """How servers stand, as a filter."""

    OPEN = "open"
    CLEAN = "clean"
    UNKNOWN = "unknown"
    NEVER = "never"
    SCANNING = "scanning"


STATE_NAMES: dict[str, str] = {
    ServerState.OPEN: "with open issues",
    ServerState.CLEAN: "known and clean",
    ServerState.UNKNOWN: "unknown: nobody can vouch for them",
    ServerState.NEVER: "never polled",
    ServerState.SCANNING: "being scanned",
}


def is_clean(servers: Servers, key: Key) -> bool:
    """Whether it is known to have no open issue."""
    issues = servers.states[key].open_issues
    return key not in servers.doubts and issues is not None and not any(issues)


def is_in(state: ServerState, servers: Servers, key: Key) -> bool:
    """Whether the server stands so."""
    server = servers.states[key]
    match state:
        case ServerState.OPEN:
            return any(server.open_issues or ())
        case ServerState.CLEAN:
            return is_clean(servers, key)
        case ServerState.UNKNOWN:
            return key in servers.doubts
        case ServerState.NEVER:
            return server.last_poll_at is None
        case ServerState.SCANNING:
            return server.scanning


def _danger(server: PollState) -> tuple[bool, bool, float]:
    return server.exploits is not None, not server.exploits_unknown_risk, -(server.exploit_risk_max or 0.0)


SORTED_HERE: dict[str, Callable[[PollState], Any]] = {
    # What nobody knows comes first: it may be the worst.
    "software": lambda one: -sum(one.software[1:]) if one.software else -math.inf,
    "exploits": _danger,
    "polled": lambda one: -math.inf if one.last_poll_at is None else one.last_poll_at,
    "scanned": lambda one: -math.inf if one.last_scan_at is None else one.last_scan_at,
}
"""Orders that the database does not know."""
COLUMNS = (
    ("name", "Server", False),
    *((severity.value, severity.value.capitalize(), True) for severity in SEVERITIES),
    ("software", "Software", False),
    ("exploits", "Exploits", False),
    ("polled", "Data from", False),
    ("scanned", "Last scan", False),
)


def standing(keys: Sequence[ServerKey], servers: Servers, state: str, sort: str, *, reverse: bool) -> list[ServerKey]:
    """Those of the servers that stand so, in an order that only their standing tells; equal ones stay as they are."""
    known = [key for key in keys if key in servers.states]
    if state in set(ServerState):
        known = [key for key in known if is_in(ServerState(state), servers, key)]
    order = SORTED_HERE.get(sort)
    if order is not None:
        known.sort(key=lambda key: order(servers.states[key]), reverse=reverse)
    return known


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
    """A number of the summary, and the lists behind it and behind its servers."""

    name: str
    tone: str
    count: int
    figure: str
    link: str
    note: str = ""
    note_link: str | None = None


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
    labels: tuple[str, ...] = ()
    """Values of the labels that the configuration gives it."""


def verdict(
    totals: FleetTotals, accounts: Sequence[AccountView], notices: Sequence[Notice], unknown: int = 0
) -> Verdict:
    """Say in one sentence how the fleet stands; never that all is fine when the data has gaps.

    ``unknown``: servers that nobody can vouch for.
    """
    if not totals.servers:
        return Verdict(_without_servers(accounts), "unknown")
    critical, high, *rest = totals.issues
    if critical:
        return Verdict(f"{counted(critical, 'critical issue')} on {counted(totals.affected[0], 'server')}", "bad")
    if high:
        return Verdict(
            f"{counted(high, 'high issue')} on {counted(totals.affected[1], 'server')}, none critical", "bad"
        )
    if any(notice.bad for notice in notices) or all(account.fresh.oldest_at is None for account in accounts):
        return Verdict("No critical issue is known, but the data has gaps", "unknown")
    if unknown:
        servers = counted(unknown, "server is", "servers are")
        return Verdict(f"No critical or high issue is known, but {servers} unknown", "unknown")
    return Verdict("No critical or high issue", "warn") if any(rest) else Verdict("No open issue", "good")


def _without_servers(accounts: Sequence[AccountView]) -> str:
    if any(account.last_success for account in accounts):
        return "No server is watched"
    if any(account.trouble is not None or account.credentials_refused for account in accounts):
        return "No server list was read yet"
    return "Waiting for the first answer of PatrolServer"


def summary_line(totals: FleetTotals, accounts: Sequence[AccountView]) -> str:
    """Say how large the fleet is."""
    if not totals.servers:
        return f"{counted(len(accounts), 'account is', 'accounts are')} configured."
    return f"{counted(totals.servers, 'server')} in {counted(len(accounts), 'account')}."


def tiles(totals: FleetTotals, paths: Paths) -> tuple[Tile, ...]:
    """Show one number a severity: its issues, and the servers that have them; each leads to just those."""
    return tuple(
        Tile(
            name=severity.value,
            tone=severity.value,
            count=totals.issues[index],
            figure=number(totals.issues[index]),
            link=paths.to("issues", Wanted(severity=(severity,), waived="false")),
            note=f"on {counted(totals.affected[index], 'server')}" if totals.affected[index] else "on no server",
            note_link=paths.fleet(Wanted(severity=(severity,))) + "#servers" if totals.affected[index] else None,
        )
        for index, severity in enumerate(SEVERITIES)
    )


def standing_tiles(totals: FleetTotals, servers: Servers, paths: Paths) -> tuple[Tile, ...]:
    """Show how many servers are clean, of how many nobody knows, and what is waived."""
    clean = sum(is_clean(servers, key) for key in servers.states)
    unknown = len(servers.doubts)
    return (
        Tile(
            name="clean servers",
            tone="clean",
            count=clean,
            figure=number(clean),
            link=paths.fleet(Wanted(state=ServerState.CLEAN.value)) + "#servers",
        ),
        Tile(
            name="unknown servers",
            tone="unknown",
            count=unknown,
            figure=number(unknown),
            link=paths.fleet(Wanted(state=ServerState.UNKNOWN.value)) + "#servers",
        ),
        Tile(
            name="waived issues",
            tone="waived",
            count=totals.waived,
            figure=number(totals.waived),
            link=paths.to("issues", Wanted(waived="true")),
        ),
    )


def row(summary: ServerSummary, paths: Paths, now: float, labels: Mapping[str, str] = NO_LABELS) -> Row:
    """Show one server."""
    counts: Sequence[int | None] = summary.open_issues or (None,) * len(SEVERITIES)
    if not NOT_LOOKED_AT.isdisjoint(doubts_of(summary, now, reachable=True)):
        counts = [count or None for count in counts]
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
        labels=tuple(f"{name}: {value}" for name, value in labels.items()),
    )


_COUNTS = range(SERVERS.columns.index("critical"), SERVERS.columns.index("waived") + 1)


def _cells(one: types.Server) -> tuple[object, ...]:
    cells = SERVERS.row(one)
    if NOT_LOOKED_AT.isdisjoint(one.unknown_because):
        return tuple(cells)
    return tuple((cell or None) if index in _COUNTS else cell for index, cell in enumerate(cells))


SHEET = Sheet(SERVERS.columns, _cells)
"""As the API's, but for zeros of servers at which nobody looked: an empty cell is not known."""


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
