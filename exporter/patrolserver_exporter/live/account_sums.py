"""How the servers of an account stand in sum, kept while they change: a scrape counts nothing."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

from patrolserver_exporter.issues.model import SEVERITIES, STATES, State

if TYPE_CHECKING:
    from patrolserver_exporter.issues.summary import ServerSummary

OLD = 86_400.0
"""Seconds after which nobody vouches for what a poll showed; the gate's own default."""
STANDINGS = (*(severity.value for severity in SEVERITIES), "none", "unknown")
"""The labels of affected servers."""
_UNKNOWN_STATE = STATES.index(State.UNKNOWN)
_NO_ISSUES = (0, 0, 0, 0)


class AccountSums(NamedTuple):
    """One account's servers in sum. Issues are in the order of ``SEVERITIES``, servers in that of ``STANDINGS``."""

    issues: tuple[int, ...] = _NO_ISSUES
    servers: tuple[int, ...] = (0,) * len(STANDINGS)
    """A server with an open issue that nobody can vouch for is counted twice: it has the issue, and may have more."""


class _Server(NamedTuple):
    """What one server adds."""

    issues: tuple[int, int, int, int]
    worst: int | None
    """Place of its worst open issue in ``SEVERITIES``."""
    vouched_at: float | None
    """Start of the poll that vouches for it, in seconds since the epoch; ``None`` when nothing does."""

    @classmethod
    def of(cls, summary: ServerSummary) -> _Server:
        issues = summary.open_issues or _NO_ISSUES
        worst = next((place for place, count in enumerate(issues) if count), None)
        return cls(issues, worst, summary.last_poll_at if _is_vouched_for(summary) else None)


def _is_vouched_for(summary: ServerSummary) -> bool:
    """Whether its last poll tells all that there is to know of it."""
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
        """No poll that vouches for a server started before this."""

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

    def doubt_old(self, now: float) -> None:
        """Stop vouching for what is older than ``OLD``; looks at all servers about once in that time."""
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

    def put(self, summary: ServerSummary) -> None:
        """Count a server as it is now."""
        self._accounts.setdefault(summary.account, _Account()).put(summary.server_id, _Server.of(summary))

    def doubt(self, account: str, server_id: int) -> None:
        """Vouch for a server no more until it is counted anew."""
        found = self._accounts.get(account)
        if found is not None and server_id in found.servers:
            found.put(server_id, found.servers[server_id]._replace(vouched_at=None))

    def remove(self, account: str, server_id: int) -> None:
        """Count a server no more."""
        if account in self._accounts:
            self._accounts[account].take(server_id)

    def of(self, account: str, now: float, *, reachable: bool) -> AccountSums:
        """One account's sums. Nobody vouches for servers of an account that is not ``reachable``."""
        found = self._accounts.get(account)
        if found is None:
            return AccountSums()
        found.doubt_old(now)
        clean, doubted = (found.clean, found.doubted) if reachable else (0, len(found.servers))
        return AccountSums(tuple(found.issues), (*found.worst, clean, doubted))
