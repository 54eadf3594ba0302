"""What becomes of a delivery whose event the API did not confirm: pure. docs/webhooks.md has the table of states.

The grades D, C and ? are those of docs/patrolserver-api.md.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from patrolserver_exporter.inbox.deliveries import DeliveryState
from patrolserver_exporter.patrolserver.errors import NotFound, PatrolServerError, Refused

if TYPE_CHECKING:
    from collections.abc import Callable

BASE = 5.0
CAP = 6 * 3600.0
RETRY_AFTER_CAP = 24 * 3600.0
KEPT_FOR = 30 * 86_400.0
"""Seconds that PatrolServer keeps an event (D)."""
UNVERIFIED_WAITS = (5.0, 10.0, 20.0, 40.0, 80.0, 160.0, 300.0)
"""Seconds between the tries of an event that the API does not know: it may know it late, by ten minutes at most."""
BUG_TRIES = 5
"""Tries of a delivery whose event we fail to apply, before it is left to the operator."""
EXPIRY_TRIES = 8
"""Tries of an event before its age counts: it may seem old only because the system's clock was set."""


class NextStep(NamedTuple):
    """The delivery's next state, its attempts so far, and seconds to the next one."""

    state: DeliveryState
    attempts: int
    wait: float | None


def back_off(attempt: int, *, base: float, cap: float, retry_after: float | None, draw: Callable[[], float]) -> float:
    """Seconds to wait after the ``attempt``-th failure (1 is the first): full jitter, doubling up to ``cap``.

    Never less than the API asked for, and never so little that the call is repeated at once.
    """
    ceiling = min(cap, base * 2.0 ** min(attempt - 1, 40))
    return max(ceiling * draw(), min(base, 1.0), retry_after or 0.0)


def next_step_after_bug(*, state_attempts: int, draw: Callable[[], float]) -> NextStep:
    """The next step after a failure of our own: another try after a longer wait, or left to the operator."""
    attempts = state_attempts + 1
    if attempts >= BUG_TRIES:
        return NextStep(DeliveryState.DEAD, attempts, None)
    return NextStep(
        DeliveryState.RETRY, attempts, max(back_off(attempts, base=BASE, cap=CAP, retry_after=None, draw=draw), BASE)
    )


def next_step_after(  # noqa: PLR0913  # What decides it, by keyword.
    error: PatrolServerError,
    *,
    received_at: float,
    state_attempts: int,
    credentials_are_good: bool,
    now: float,
    draw: Callable[[], float],
) -> NextStep:
    """The next step after a failed fetch.

    ``credentials_are_good``: the list call works, so a refusal is about this event, like a 404. Times are seconds since
    the epoch. An event expires by a failed try after 30 days, never the first few, and not by the clock alone.
    """
    if isinstance(error, Refused) and not credentials_are_good:
        return NextStep(DeliveryState.BLOCKED, state_attempts, None)
    attempts = state_attempts + 1
    asked = min(error.retry_after or 0.0, RETRY_AFTER_CAP)
    wait = back_off(attempts, base=BASE, cap=CAP, retry_after=asked, draw=draw)
    old = now - received_at >= KEPT_FOR
    if isinstance(error, (NotFound, Refused)):
        if attempts > len(UNVERIFIED_WAITS):
            return NextStep(DeliveryState.EXPIRED if old else DeliveryState.REJECTED, attempts, None)
        # The event may not be there yet, so the tries must not all be over within a moment.
        return NextStep(DeliveryState.UNVERIFIED, attempts, max(UNVERIFIED_WAITS[attempts - 1], asked))
    if old and attempts >= EXPIRY_TRIES:
        return NextStep(DeliveryState.EXPIRED, attempts, None)
    return NextStep(DeliveryState.RETRY, attempts, wait)
