"""Whether an account's API can be used: the list call is the judge, every other failure only asks for its verdict."""

from __future__ import annotations

import random
from enum import StrEnum
from typing import TYPE_CHECKING

from patrolserver_exporter.inbox.retry import back_off
from patrolserver_exporter.patrolserver.errors import NotFound, PatrolServerError, RateLimited, Refused, ServerFailure

if TYPE_CHECKING:
    from collections.abc import Callable

LIST_EVERY = 60.0
"""Seconds between calls for the server list; a shorter ``poll.interval`` shortens it."""
PROBE_EVERY = 120.0
"""Seconds between calls while the credentials are refused."""
_BACK_OFF_BASE = 5.0
_BACK_OFF_CAP = 60.0
"""Seconds; an API that works again shall show within a minute, and a call a minute burdens none."""
_SUSPICIOUS_FAILURES = 5


class Trouble(StrEnum):
    """Why an account's calls are paused."""

    NONE = "none"
    CREDENTIALS = "credentials"
    UNREACHABLE = "unreachable"


class Health:
    """One account's health. Times are monotonic seconds. Guarded by the lock of whoever owns it."""

    def __init__(self, draw: Callable[[], float] = random.random) -> None:
        self._draw = draw
        self._list_failures = 0
        self._other_failures = 0
        self.judged = False
        """A list call has ended since the start, so that what is said of troubles holds."""
        self.trouble = Trouble.NONE
        self.detail: str | None = None
        """What the last failed list call said, free of credentials."""
        self.list_at = 0.0
        """When the server list is to be asked for next."""
        self.paused_until = 0.0
        """No call but the list's before then: the API asked to wait."""

    def allows_calls(self, now: float) -> bool:
        """Whether anything but the list call may be made."""
        return self.trouble is Trouble.NONE and now >= self.paused_until

    def allows_events(self, now: float) -> bool:
        """Whether events may be fetched: they have a budget and back-offs of their own, so a slow API is no reason."""
        return self.trouble is not Trouble.CREDENTIALS and now >= self.paused_until

    def listed(self, now: float, interval: float) -> bool:
        """The list call succeeded; True if that ended a trouble."""
        self.judged = True
        recovered = self.trouble is not Trouble.NONE
        self.trouble, self.detail = Trouble.NONE, None
        self._list_failures = self._other_failures = 0
        self.list_at = now + min(LIST_EVERY, interval)
        return recovered

    def list_failed(self, now: float, error: PatrolServerError, interval: float = LIST_EVERY) -> bool:
        """The list call failed; True if that began a trouble, or changed its nature.

        Whoever polls more often than once a minute (``interval``, in seconds) wants to see a recovery as soon.
        """
        self.judged = True
        before = self.trouble
        self._list_failures += 1
        self.detail = str(error)
        if isinstance(error, Refused):
            self.trouble = Trouble.CREDENTIALS
            self.list_at = now + PROBE_EVERY
        else:
            self.trouble = Trouble.UNREACHABLE
            self.list_at = now + back_off(
                self._list_failures,
                base=_BACK_OFF_BASE,
                cap=min(_BACK_OFF_CAP, max(interval, _BACK_OFF_BASE)),
                retry_after=error.retry_after,
                draw=self._draw,
            )
        return before is not self.trouble

    def call_failed(self, now: float, error: PatrolServerError) -> None:
        """Another call failed: wait if the API asked to, and have the list call judge if it looks like more.

        That something is not found says nothing against the API; forged events must not call for lists.
        """
        if isinstance(error, NotFound):
            return
        self._other_failures += 1
        if isinstance(error, (RateLimited, ServerFailure)) and error.retry_after:
            self.paused_until = max(self.paused_until, now + error.retry_after)
        elif isinstance(error, RateLimited):
            self.paused_until = max(self.paused_until, now + _BACK_OFF_BASE * (1.0 + self._draw()))
        if isinstance(error, Refused) or self._other_failures >= _SUSPICIOUS_FAILURES:
            self._other_failures = 0
            self.ask_for_list(now)

    def call_succeeded(self) -> None:
        """Another call succeeded."""
        self._other_failures = 0

    def ask_for_list(self, now: float) -> None:
        """Make the list call due, unless a trouble spaces them out already."""
        if self.trouble is Trouble.NONE:
            self.list_at = min(self.list_at, now)
