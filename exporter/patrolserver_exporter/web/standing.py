"""What a server's data is worth: why nobody can vouch for it, as in ``patrolserver_account_servers_affected``."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING

from patrolserver_exporter.issues.model import SEVERITIES, STATES, State

if TYPE_CHECKING:
    from patrolserver_exporter.issues.summary import ServerSummary
    from patrolserver_exporter.store.views import PollState

OLD = 86_400.0
"""Seconds after which a server's data is called old; the gate's own default."""
_UNKNOWN_STATE = STATES.index(State.UNKNOWN)


class Doubt(StrEnum):
    """Why nobody can vouch for a server's data."""

    NEVER_POLLED = "never_polled"
    """No poll succeeded yet."""
    ACCOUNT_DOWN = "account_down"
    """The account's server list cannot be read."""
    POLL_FAILED = "poll_failed"
    """The last poll brought nothing."""
    OLD = "old"
    """The last successful poll is more than 24 hours ago."""
    PARTIAL = "partial"
    """The last poll showed only a part."""
    EMPTY = "empty"
    """PatrolServer lists no software."""
    WAITS_FOR_POLL = "waits_for_poll"
    """An event, a new name or a list waits for a poll."""
    EXPLOITS_UNKNOWN = "exploits_unknown"
    """The exploits of no software are known."""
    SOFTWARE_UNKNOWN = "software_unknown"
    """Some of its software is in a state that nobody knows."""


NOT_LOOKED_AT = frozenset({Doubt.NEVER_POLLED, Doubt.EMPTY})
"""With one of these, that no issue is known tells nothing: PatrolServer showed nothing that could have any."""


def doubts_of(
    server: ServerSummary | PollState, now: float, *, reachable: bool, waits: bool = False
) -> tuple[Doubt, ...]:
    """Why nobody can vouch for it; empty for one whose numbers hold.

    ``reachable``: its account's list can be read. ``waits``: an event that is not confirmed yet may be about it.
    """
    found = [] if reachable else [Doubt.ACCOUNT_DOWN]
    if server.last_poll_at is None:
        return (Doubt.NEVER_POLLED, *found)
    software = server.software
    # One question after the other: of a large fleet each page asks this of every server, and most have no doubt.
    if not server.poll_success:
        found.append(Doubt.POLL_FAILED)
    if now - server.last_poll_at > OLD:
        found.append(Doubt.OLD)
    empty = software is None or not any(software)
    if empty:
        found.append(Doubt.EMPTY)
    elif not server.poll_complete:
        found.append(Doubt.PARTIAL)
    if server.in_doubt or waits:
        found.append(Doubt.WAITS_FOR_POLL)
    if server.exploits is None and not empty:
        found.append(Doubt.EXPLOITS_UNKNOWN)
    if software and software[_UNKNOWN_STATE]:
        found.append(Doubt.SOFTWARE_UNKNOWN)
    return tuple(found)


def worst_of(server: ServerSummary | PollState) -> str:
    """The worst severity of which an issue is open and not waived; ``none`` or ``unknown`` without one."""
    if server.open_issues is None:
        return "unknown"
    return next((one.value for one, count in zip(SEVERITIES, server.open_issues, strict=True) if count), "none")
