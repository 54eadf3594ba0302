"""The budget of calls to the API: never more than so many in any minute, and never all at once."""

from __future__ import annotations

import math
import threading
from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from patrolserver_exporter.clock import Clock

WINDOW = 60.0
_BURST_SHARE = 6
_ROUNDING = 1e-6


class RequestBudget:
    """How many calls one account may make a minute; safe to share between threads.

    Two rules, and a call needs both: a log of the last minute's calls, which makes sure that no window of 60 s ever has
    more than ``per_minute``, and a bucket that refills evenly, which bounds a burst to a sixth of that (at least 1).
    """

    def __init__(self, per_minute: int, clock: Clock) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._taken: deque[float] = deque()
        self._per_minute = max(per_minute, 0)
        self._tokens = self._burst
        self._filled_at = clock.monotonic()

    def try_take(self) -> bool:
        """Take one call if there is one now."""
        with self._lock:
            now = self._refresh()
            if self._available() < 1.0:
                return False
            self._tokens -= 1.0
            self._taken.append(now)
            return True

    def give_back(self, calls: int) -> None:
        """Return calls that were taken last and not made."""
        with self._lock:
            for _ in range(min(calls, len(self._taken))):
                self._taken.pop()
                self._tokens = min(self._tokens + 1.0, self._burst)

    def available(self) -> float:
        """Calls that could be made now, 0 to the size of a burst; a part of one is on its way."""
        with self._lock:
            self._refresh()
            return self._available()

    def seconds_until_available(self) -> float:
        """Seconds to the next call that may be made, 0 when one may be made now, infinity with a budget of 0."""
        with self._lock:
            now = self._refresh()
            if self._per_minute == 0:
                return math.inf
            refill = max(1.0 - self._tokens, 0.0) * WINDOW / self._per_minute
            if len(self._taken) < self._per_minute:
                return refill
            return max(refill, self._taken[-self._per_minute] + WINDOW - now)

    def resize(self, per_minute: int) -> None:
        """Change the budget; the calls of the last minute count against the new one."""
        with self._lock:
            self._refresh()
            self._per_minute = max(per_minute, 0)
            self._tokens = min(self._tokens, self._burst)

    @property
    def _burst(self) -> float:
        return 0.0 if self._per_minute == 0 else max(1.0, self._per_minute / _BURST_SHARE)

    def _available(self) -> float:
        # Waiting as long as was told must suffice, whatever the rounding; the log keeps the promise.
        tokens = self._tokens + _ROUNDING
        return max(min(tokens, float(self._per_minute - len(self._taken))), 0.0)

    def _refresh(self) -> float:
        """Refill the bucket and forget calls that are out of the window; returns the time."""
        now = self._clock.monotonic()
        refilled = (now - self._filled_at) * self._per_minute / WINDOW
        self._tokens = min(self._tokens + refilled, self._burst)
        self._filled_at = now
        while self._taken and now >= self._taken[0] + WINDOW:
            self._taken.popleft()
        return now
