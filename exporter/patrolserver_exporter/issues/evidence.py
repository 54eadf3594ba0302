"""What is known of the servers that a deploy gate asks for."""

from __future__ import annotations

import msgspec

from patrolserver_exporter.issues.model import Issue


class ServerEvidence(msgspec.Struct, frozen=True, kw_only=True):
    """One server as the gate sees it. Times are seconds since the epoch."""

    account: str
    server_id: int
    name: str
    last_poll_at: float | None
    """Start of the last successful poll."""
    poll_success: bool
    """The last poll, successful or not, succeeded."""
    poll_complete: bool = True
    """Every entry of the last successful poll could be read."""
    last_scan_at: float | None = None
    """End of the last scan seen."""
    software: tuple[int, int, int, int] | None = None
    """Counts in the order of ``STATES``; ``None`` until the first successful poll."""
    exploits_unknown: int = 0
    """Software for which the API's reply carried no exploits at all."""
    uncounted_risk: float = 0.0
    """Highest risk of the known exploits that no issue stands for, because they are below ``issues.exploit_risk``."""
    issues: tuple[Issue, ...] = ()
    """The open ones, the waived among them; fixed ones do not count."""
    unconfirmed_event: bool = False
    """An event of the server waits to be fetched, merged or confirmed by a poll."""
    account_refused: bool = False
    """The API refuses the account's credentials."""
    account_reachable: bool = True
    """The last call for the account's server list succeeded."""


class UnknownServer(msgspec.Struct, frozen=True, kw_only=True):
    """A server that was asked for and cannot be told."""

    selector: str
    """The name or id that was asked for."""
    account: str | None = None
    """The account that was asked for, if one was."""
    ambiguous_in: tuple[str, ...] = ()
    """Accounts that all have such a server; empty if none has."""
    never_listed: bool = False
    """The account's server list was never read, so that nobody can tell what a glob means there."""


Evidence = ServerEvidence | UnknownServer
