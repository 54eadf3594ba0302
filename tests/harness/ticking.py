"""A clock that goes only when a test says so."""

from __future__ import annotations

START = 1_800_000_000.0
"""A Friday in January 2027, 08:00 UTC."""


class HeldClock:
    """Wall clock and monotonic clock, apart from each other."""

    def __init__(self, now: float = START) -> None:
        self._now = now
        self._monotonic = 1000.0

    def now(self) -> float:
        """Seconds since the epoch."""
        return self._now

    def monotonic(self) -> float:
        """Seconds since some moment."""
        return self._monotonic

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self._now += seconds
        self._monotonic += seconds

    def set(self, now: float) -> None:
        """Set the wall clock, as an operator or NTP does."""
        self._now = now
