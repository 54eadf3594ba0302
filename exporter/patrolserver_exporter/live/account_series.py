"""The series of the accounts and of their fleets as a whole, and the sums of servers that they show.

There may be hundreds of accounts, so the lines are kept finished. The sums are kept while servers change: a scrape
counts nothing.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import msgspec
from prometheus_client.utils import floatToGoString

from patrolserver_exporter.issues.model import SEVERITIES, STATES, Severity, State
from patrolserver_exporter.live.blocks import Rows, SnapshotRows
from patrolserver_exporter.live.effects import NewsWaits
from patrolserver_exporter.live.families import SeriesFamily, escape, histogram_lines, number
from patrolserver_exporter.store.history import FIX_DURATION_BOUNDS, Tally

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from patrolserver_exporter.issues.summary import ServerSummary
    from patrolserver_exporter.live.encoding import Format, Piece


OLD = 86_400.0
"""Seconds after which a poll is too old to be trusted; the gate's own default."""
STANDINGS = (*(severity.value for severity in SEVERITIES), "none", "unknown")
"""The labels of affected servers."""
_UNKNOWN_STATE = STATES.index(State.UNKNOWN)
_NO_ISSUES = (0, 0, 0, 0)


class AccountSums(NamedTuple):
    """One account's servers in sum. Issues are in the order of ``SEVERITIES``, servers in that of ``STANDINGS``."""

    issues: tuple[int, ...] = _NO_ISSUES
    servers: tuple[int, ...] = (0,) * len(STANDINGS)
    """A server with an open issue and untrusted data is counted twice: it has the issue, and may have more."""


class _Server(NamedTuple):
    """What one server adds."""

    issues: tuple[int, int, int, int]
    worst: int | None
    """Place of its worst open issue in ``SEVERITIES``."""
    vouched_at: float | None
    """Start of the poll whose data is trusted, in seconds since the epoch; ``None`` without one."""

    @classmethod
    def of(cls, summary: ServerSummary) -> _Server:
        issues = summary.open_issues or _NO_ISSUES
        worst = next((place for place, count in enumerate(issues) if count), None)
        return cls(issues, worst, summary.last_poll_at if _is_vouched_for(summary) else None)


def _is_vouched_for(summary: ServerSummary) -> bool:
    """Whether its last poll was whole."""
    return (
        summary.poll_success
        and summary.poll_complete
        and not summary.in_doubt
        and summary.exploits is not None
        and summary.software is not None
        and any(summary.software)
        and not summary.software[_UNKNOWN_STATE]
    )


class _Account:
    """The servers of one account, and their sums."""

    __slots__ = ("clean", "doubted", "issues", "oldest", "servers", "worst")

    def __init__(self) -> None:
        self.servers: dict[int, _Server] = {}
        self.issues = [0] * len(SEVERITIES)
        self.worst = [0] * len(SEVERITIES)
        self.clean = 0
        self.doubted = 0
        self.oldest = math.inf
        """No trusted poll of a server started before this."""

    def put(self, server_id: int, server: _Server) -> None:
        self.take(server_id)
        self.servers[server_id] = server
        self._add(server, 1)
        if server.vouched_at is not None:
            self.oldest = min(self.oldest, server.vouched_at)

    def take(self, server_id: int) -> None:
        server = self.servers.pop(server_id, None)
        if server is not None:
            self._add(server, -1)

    def _add(self, server: _Server, sign: int) -> None:
        for place, count in enumerate(server.issues):
            self.issues[place] += sign * count
        if server.worst is not None:
            self.worst[server.worst] += sign
        if server.vouched_at is None:
            self.doubted += sign
        elif server.worst is None:
            self.clean += sign

    def doubted_before(self, since: float) -> tuple[int, int]:
        """Clean and doubted ones if only polls that started then or later can be trusted."""
        if self.oldest >= since:
            return self.clean, self.doubted
        vouched = [one for one in self.servers.values() if one.vouched_at is not None]
        self.oldest = min((one.vouched_at for one in vouched if one.vouched_at is not None), default=math.inf)
        old = [one for one in vouched if one.vouched_at is not None and one.vouched_at < since]
        return self.clean - sum(one.worst is None for one in old), self.doubted + len(old)

    def doubt_old(self, now: float) -> None:
        """Stop trusting what is older than ``OLD``; looks at all servers about once in that time."""
        if now - self.oldest <= OLD:
            return
        vouched = [(i, server) for i, server in self.servers.items() if server.vouched_at is not None]
        self.oldest = math.inf
        for server_id, server in vouched:
            old = server.vouched_at is not None and now - server.vouched_at > OLD
            self.put(server_id, server._replace(vouched_at=None) if old else server)


class SumsOfAccounts:
    """The sums of all accounts. For one thread at a time."""

    def __init__(self) -> None:
        self._accounts: dict[str, _Account] = {}
        self.changed: set[str] = set()
        """Accounts that were counted again since `take_changed`."""
        self._news = NewsWaits(frozenset(), {})

    def take_changed(self, now: float) -> set[str]:
        """Accounts whose sums may be others than before, also because what is known has become old."""
        changed = self.changed | {name for name, account in self._accounts.items() if now - account.oldest > OLD}
        self.changed = set()
        return changed

    def put(self, summary: ServerSummary) -> None:
        """Count a server as it is now."""
        self.changed.add(summary.account)
        self._accounts.setdefault(summary.account, _Account()).put(summary.server_id, _Server.of(summary))

    def doubt(self, account: str, server_id: int) -> None:
        """Trust a server's data no more until it is counted again."""
        found = self._accounts.get(account)
        if found is not None and server_id in found.servers:
            self.changed.add(account)
            found.put(server_id, found.servers[server_id]._replace(vouched_at=None))

    def doubt_by(self, news: NewsWaits) -> None:
        """Trust no servers that deliveries may be about which are not confirmed yet."""
        before, self._news = self._news, news
        self.changed |= before.waiting ^ news.waiting
        told = dict(before.since.items() ^ news.since.items())
        self.changed.update(told)

    def remove(self, account: str, server_id: int) -> None:
        """Count a server no more."""
        if account in self._accounts:
            self.changed.add(account)
            self._accounts[account].take(server_id)

    def of(self, account: str, now: float, *, reachable: bool) -> AccountSums:
        """One account's sums. Servers of an account that is not ``reachable`` are unknown."""
        found = self._accounts.get(account)
        if found is None:
            return AccountSums()
        found.doubt_old(now)
        clean, doubted = 0, len(found.servers)
        if reachable and account not in self._news.waiting:
            clean, doubted = found.doubted_before(self._news.since.get(account, -math.inf))
        return AccountSums(tuple(found.issues), (*found.worst, clean, doubted))


_BOUND_LABELS = tuple(floatToGoString(bound) for bound in (*FIX_DURATION_BOUNDS, float("inf")))  # type: ignore[no-untyped-call]


class AccountSeries(msgspec.Struct, frozen=True, kw_only=True):
    """One account as its series show it. What is ``None`` has no series."""

    account: str
    up: bool | None = None
    """The last call for the server list succeeded; ``None`` before the first."""
    last_success_at: float | None = None
    """Seconds since the epoch."""
    servers: int | None = None
    list_complete: bool | None = None
    """The last successful server list was whole; ``None`` before the first."""


FAMILIES = (
    SeriesFamily("patrolserver_up", "Whether the last call for the account's server list succeeded (1) or not (0)."),
    SeriesFamily("patrolserver_last_success_timestamp_seconds", "When the account's server list was last read."),
    SeriesFamily("patrolserver_servers", "Watched servers of the account."),
    SeriesFamily(
        "patrolserver_list_complete",
        "Whether the last successful server list of the account was whole (1) or only a part (0).",
    ),
    SeriesFamily("patrolserver_account_issues", "Open issues of all servers of the account that no waiver covers."),
    SeriesFamily(
        "patrolserver_account_servers_affected",
        "Servers by their worst open issue: none are known and clean, unknown are those that nobody can vouch for.",
    ),
    SeriesFamily("patrolserver_issues_opened", "Issues that were opened or re-opened.", "counter"),
    SeriesFamily("patrolserver_issues_fixed", "Issues that were fixed.", "counter"),
    SeriesFamily(
        "patrolserver_issues_worsened",
        "Issues that became more severe, or got another exploit, by the severity reached.",
        "counter",
    ),
    SeriesFamily("patrolserver_issue_fix_duration_seconds", "From first seen to fixed.", "histogram"),
)
_OF_SUMS, _OF_TALLIES = 4, 6
"""Places in ``FAMILIES`` where those begin that show the sums, and those of the tallies."""


def _series_lines(series: AccountSeries) -> list[str]:
    account = escape(series.account)
    values = (series.up, series.last_success_at, series.servers, series.list_complete)
    return [
        "" if value is None else f'{family.name}{{account="{account}"}} {number(float(value))}\n'
        for family, value in zip(FAMILIES[:_OF_SUMS], values, strict=True)
    ]


def _sums_lines(account: str, sums: AccountSums) -> list[str]:
    account = escape(account)
    shown = ((SEVERITIES, sums.issues), (STANDINGS, sums.servers))
    return [
        "".join(
            [
                f'{family.name}{{account="{account}",severity="{label}"}} {number(count)}\n'
                for label, count in zip(labels, counts, strict=True)
            ]
        )
        for family, (labels, counts) in zip(FAMILIES[_OF_SUMS:_OF_TALLIES], shown, strict=True)
    ]


def _tallies_lines(account: str, tallies: Sequence[Tally]) -> list[str]:
    opened, fixed, worsened, duration = FAMILIES[_OF_TALLIES:]
    before = f'account="{escape(account)}"'
    counted = [
        "".join(
            [
                f'{family.name}_total{{{before},severity="{tally.severity}"}} {number(getattr(tally, counter))}\n'
                for tally in tallies
            ]
        )
        for family, counter in ((opened, "opened"), (fixed, "fixed"), (worsened, "worsened"))
    ]
    durations = [
        histogram_lines(
            duration.name, (before, f'severity="{tally.severity}"'), _BOUND_LABELS, tally.buckets, tally.duration_sum
        )
        for tally in tallies
    ]
    return [*counted, "".join(durations)]


class AccountExposition:
    """The accounts' series, kept finished. For one thread at a time."""

    def __init__(self) -> None:
        self._accounts: dict[str, AccountSeries] = {}
        self._tallies: dict[str, dict[Severity, Tally]] = {}
        self._rows: Rows[str] = Rows(FAMILIES)
        self._sums = SumsOfAccounts()

    def show(self, series: AccountSeries) -> None:
        """Show an account as it is now."""
        known = self._accounts.get(series.account)
        if series == known:
            return
        self._accounts[series.account] = series
        self._rows.put(series.account, _series_lines(series))
        self._sums.changed.add(series.account)
        if known is None:
            self._put_tallies(series.account)

    def tally(self, tallies: Iterable[Tally]) -> None:
        """Show these counters, once their account is shown; severities without one are zero."""
        changed = set()
        for tally in tallies:
            of_account = self._tallies.setdefault(tally.account, {})
            if of_account.get(tally.severity) != tally:
                of_account[tally.severity] = tally
                changed.add(tally.account)
        for account in changed & self._accounts.keys():
            self._put_tallies(account)

    def _put_tallies(self, account: str) -> None:
        known = self._tallies.get(account, {})
        tallies = [known.get(severity) or Tally(account=account, severity=severity) for severity in SEVERITIES]
        self._rows.put(account, _tallies_lines(account, tallies), first=_OF_TALLIES)

    def count(self, summary: ServerSummary) -> None:
        """Count a server as it is now."""
        self._sums.put(summary)

    def doubt(self, account: str, server_id: int) -> None:
        """Trust a server's data no more until it is counted again."""
        self._sums.doubt(account, server_id)

    def doubt_by(self, news: NewsWaits) -> None:
        """Trust no servers that deliveries may be about which are not confirmed yet."""
        self._sums.doubt_by(news)

    def uncount(self, account: str, server_id: int) -> None:
        """Count a server no more."""
        self._sums.remove(account, server_id)

    def pieces(self, chosen: Format, names: frozenset[str] | None, now: float) -> Iterator[Piece]:
        """All series; with ``names`` only samples so named."""
        for account in self._sums.take_changed(now):
            if (series := self._accounts.get(account)) is not None:
                sums = self._sums.of(account, now, reachable=series.up is not False)
                # Zeros of a list that was never read would look like a clean account.
                is_known = series.servers is not None or any(sums.servers)
                lines = _sums_lines(account, sums) if is_known else ["", ""]
                self._rows.put(account, lines, first=_OF_SUMS)
        return self._rows.pieces(chosen, names)


class AccountNow(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of an account in memory. Times are seconds since the epoch; what is ``None`` has no series."""

    account: str
    webhook_enabled: bool
    """It has a token, so deliveries can reach it."""
    owned: bool
    """This process polls it and works its inbox; not while another one may have taken the store over."""
    last_delivery_at: float | None = None
    """Reception of the last delivery that was accepted, duplicates included."""
    pause_until: float | None = None
    """The API asked the account to wait until then."""
    clock_offset: float | None = None
    """Seconds by which the own clock is ahead of the API's."""


NOW_FAMILIES = (
    SeriesFamily(
        "patrolserver_webhook_enabled",
        "Whether deliveries can reach the account (1) or it has no webhook token (0).",
    ),
    SeriesFamily(
        "patrolserver_webhook_last_delivery_timestamp_seconds",
        "When a delivery of the account was last accepted, duplicates included.",
    ),
    SeriesFamily(
        "patrolserver_exporter_api_pause_end_timestamp_seconds",
        "Until when the API asked the whole account to wait; absent without a pause.",
    ),
    SeriesFamily(
        "patrolserver_exporter_clock_offset_seconds", "Own clock minus the clock of the account's API, to the second."
    ),
    SeriesFamily(
        "patrolserver_exporter_account_owner",
        "Whether this exporter polls the account (1) or another one does or may (0).",
    ),
)


def accounts_now(snapshot: Callable[[], Iterable[AccountNow]]) -> SnapshotRows[AccountNow]:
    """Show accounts as they are in memory."""
    return SnapshotRows(NOW_FAMILIES, snapshot, key=lambda one: one.account, lines=_now_lines)


def _now_lines(one: AccountNow) -> list[str]:
    account = escape(one.account)
    values = (one.webhook_enabled, one.last_delivery_at, one.pause_until, one.clock_offset, one.owned)
    return [
        "" if value is None else f'{family.name}{{account="{account}"}} {number(float(value))}\n'
        for family, value in zip(NOW_FAMILIES, values, strict=True)
    ]
