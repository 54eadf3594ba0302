"""Whether an account's API can be used: the list call is the judge, every other failure only asks for its verdict."""

from __future__ import annotations

import random
from enum import StrEnum
from typing import TYPE_CHECKING

from patrolserver_exporter.inbox.retry import back_off
from patrolserver_exporter.patrolserver.errors import NotFound, PatrolServerError, RateLimited, Refused, ServerFailure
from patrolserver_exporter.sync.ways import Unreached, lost_way

if TYPE_CHECKING:
    from collections.abc import Callable

    from patrolserver_exporter.patrolserver.errors import FailureReason

LIST_EVERY = 60.0
"""Seconds between calls for the server list; a shorter ``poll.interval`` shortens it."""
PROBE_EVERY = 120.0
"""Seconds between calls while the credentials are refused."""
_BACK_OFF_BASE = 5.0
_BACK_OFF_CAP = 60.0
"""Seconds: a recovery has to show within a minute, and a call a minute is no burden."""
_SUSPICIOUS_FAILURES = 5
_SEVERAL = 3
"""Different calls that the API puts off within `_WITHIN` seconds, after which it means the account."""
_WITHIN = 90.0
_TRY_EVERY = 60.0
"""Seconds from one try that an operator may have during a pause to the next, after it was refused."""


def puts_off(error: PatrolServerError) -> bool:
    """Whether the API asked to call later."""
    return isinstance(error, RateLimited) or (isinstance(error, ServerFailure) and bool(error.retry_after))


class Trouble(StrEnum):
    """Why an account's calls are paused."""

    NONE = "none"
    CREDENTIALS = "credentials"
    UNREACHABLE = "unreachable"

    @classmethod
    def _missing_(cls, value: object) -> Trouble | None:
        """One that a newer version has written, of an account that it polled."""
        return cls.UNREACHABLE if isinstance(value, str) else None


class Health:
    """One account's health. Times are monotonic seconds. Guarded by the lock of its owner.

    No pause is longer than ``max_pause`` seconds, whatever the API asks for.
    """

    def __init__(self, draw: Callable[[], float] = random.random, max_pause: float = 3600.0) -> None:
        self._draw = draw
        self._max_pause = max_pause
        self._put_off: dict[int | None, float] = {}
        """What the API has put off, and when: servers by id, and all events as one."""
        self._tried_at: float | None = None
        self.list_failures = 0
        """List calls in a row that failed."""
        self._unreached = 0
        """Those of them that this process made, and that may have failed for its way to the API."""
        self._unreached_since = 0.0
        self._other_failures = 0
        self.list_was_tried = False
        """A list call has ended since the start, so that what is said of troubles holds."""
        self.trouble = Trouble.NONE
        self.detail: str | None = None
        """What the last failed list call said, free of credentials."""
        self.reason: FailureReason | None = None
        """Why it failed."""
        self.list_at = 0.0
        """When the server list is to be asked for next."""
        self.paused_until = 0.0
        """No call but the list's before then: the API asked to wait."""
        self.pause_reason: str | None = None
        """What it said when it did, free of credentials."""

    def allows_calls(self, now: float) -> bool:
        """Whether anything but the list call may be made."""
        return self.trouble is Trouble.NONE and now >= self.paused_until

    def allows_events(self, now: float) -> bool:
        """Whether events may be fetched: they have a budget and back-offs of their own, so a slow API is no reason."""
        return self.trouble is not Trouble.CREDENTIALS and now >= self.paused_until

    def listed(self, now: float, interval: float) -> bool:
        """The list call succeeded; True if that ended a trouble."""
        self.list_was_tried = True
        recovered = self.trouble is not Trouble.NONE
        self.trouble, self.detail, self.reason = Trouble.NONE, None, None
        self.list_failures = self._other_failures = self._unreached = 0
        self.list_at = now + min(LIST_EVERY, interval)
        return recovered

    def list_failed(self, now: float, error: PatrolServerError, interval: float = LIST_EVERY) -> bool:
        """The list call failed; True if that began a trouble, or changed its nature.

        An account that polls more often than once a minute (``interval``, in seconds) sees a recovery as soon.
        """
        self.list_was_tried = True
        before = self.trouble
        self.list_failures += 1
        self.detail, self.reason = str(error), error.reason
        if not self._unreached:
            self._unreached_since = now
        self._unreached = self._unreached + 1 if lost_way(error) else 0
        if isinstance(error, Refused):
            self.trouble = Trouble.CREDENTIALS
            self.list_at = now + PROBE_EVERY
        else:
            self.trouble = Trouble.UNREACHABLE
            self.list_at = now + back_off(
                self.list_failures,
                base=_BACK_OFF_BASE,
                cap=min(_BACK_OFF_CAP, max(interval, _BACK_OFF_BASE)),
                retry_after=self.wait_for(error),
                draw=self._draw,
            )
            if puts_off(error) and error.retry_after:
                self.pause(self.list_at, str(error))
        return before is not self.trouble

    def unreached(self, now: float) -> Unreached | None:
        """How the list calls of this process fail, if somebody else might reach the API."""
        return Unreached(self._unreached, now - self._unreached_since) if self._unreached else None

    def go_on_in_trouble(
        self, trouble: Trouble, detail: str | None, reason: FailureReason | None, failures: int, list_at: float
    ) -> None:
        """Another process found the API like this; nothing was tried since."""
        self.trouble, self.detail, self.reason = trouble, detail, reason
        self.list_failures, self.list_at = failures, max(list_at, self.list_at)

    def call_failed(self, now: float, error: PatrolServerError, server_id: int | None = None) -> None:
        """Another call failed, for this server or for an event: have the list call decide if it looks like more.

        A call that the API puts off is put off alone, unless it does that to several: then the account has to wait.
        That something is not found says nothing against the API; forged events must not call for lists.
        """
        if isinstance(error, NotFound):
            return
        self._other_failures += 1
        if puts_off(error):
            self._put_off = {one: at for one, at in self._put_off.items() if now - at < _WITHIN} | {server_id: now}
            if len(self._put_off) >= _SEVERAL:
                self.pause(now + (self.wait_for(error) or _BACK_OFF_BASE * (1.0 + self._draw())), str(error))
        if isinstance(error, Refused) or self._other_failures >= _SUSPICIOUS_FAILURES:
            self._other_failures = 0
            self.ask_for_list(now)

    def wait_for(self, error: PatrolServerError) -> float | None:
        """Seconds that the API asked to wait, as far as that is followed."""
        return None if error.retry_after is None else min(error.retry_after, self._max_pause)

    def pause(self, until: float, reason: str) -> None:
        """Make no call but the list's before then."""
        if until > self.paused_until:
            self.paused_until, self.pause_reason = until, reason

    def end_pause(self) -> None:
        """Go on: a try in the middle of a pause was answered."""
        self.paused_until, self.pause_reason = 0.0, None
        self._put_off.clear()

    def try_in_pause(self, now: float) -> bool:
        """Let an operator have the list call made at once, and one call beside it; False soon after the last time."""
        if self._tried_at is not None and now - self._tried_at < _TRY_EVERY:
            return False
        self._tried_at = now
        self.list_at = now
        return True

    def call_succeeded(self) -> None:
        """Another call succeeded."""
        self._other_failures = 0

    def ask_for_list(self, now: float) -> None:
        """Make the list call due, unless a trouble spaces them out already."""
        if self.trouble is Trouble.NONE:
            self.list_at = min(self.list_at, now)
