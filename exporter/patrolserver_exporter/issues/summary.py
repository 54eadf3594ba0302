"""What is counted of one server: all that its series show, and no more."""

from __future__ import annotations

import msgspec


class SoftwareInfo(msgspec.Struct, frozen=True, kw_only=True, order=True):
    """Labels of one ``patrolserver_server_software_info`` series: cut to length, unique within the server."""

    software: str
    version: str
    update_to: str
    state: str
    location: str
    parent: str


class ServerSummary(msgspec.Struct, frozen=True, kw_only=True):
    """One server as its series show it. Times are seconds since the epoch.

    ``open_issues`` and ``oldest_issue`` are in the order of ``SEVERITIES``, ``software`` in that of ``STATES``.
    """

    account: str
    server_id: int
    name: str
    verified: bool | None = None
    open_issues: tuple[int, int, int, int] | None = None
    """``None`` while nothing is known: neither a poll nor an event told. Then no such series exist."""
    waived_issues: int = 0
    oldest_issue: tuple[float | None, float | None, float | None, float | None] = (None, None, None, None)
    software: tuple[int, int, int, int] | None = None
    """``None`` until the first successful poll."""
    exploits: int = 0
    exploit_risk_max: float = 0.0
    scanning: bool = False
    last_scan_at: float | None = None
    last_poll_at: float | None = None
    """Start of the last successful poll."""
    poll_success: bool = False
    software_info: tuple[SoftwareInfo, ...] = ()
    software_info_dropped: int = 0
    """Series that the limit per server cut off."""
