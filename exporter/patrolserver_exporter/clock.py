"""The time, passed in: the logic never asks the system for it."""

from __future__ import annotations

import threading
import time
from typing import NamedTuple, Protocol


class Clock(Protocol):
    """The source of the time."""

    def now(self) -> float:
        """Seconds since the epoch, UTC; may jump when the system's clock is set."""
        ...

    def monotonic(self) -> float:
        """Seconds since some moment; never jumps and never goes back."""
        ...


class SystemClock:
    """The machine's own clocks."""

    def now(self) -> float:
        """Seconds since the epoch, UTC."""
        return time.time()

    def monotonic(self) -> float:
        """Seconds since some moment; never goes back."""
        return time.monotonic()


TOLERANCE = 5.0
"""Seconds by which the system's clock may be set without the state having to follow."""
_SLEW = 0.01
"""Seconds in a second by which a clock that is ahead is slowed down."""


class Moment(NamedTuple):
    """A moment of this process, by both clocks as they were then."""

    at: float
    monotonic: float


class SteadyClock:
    """The system's clock, but what happens later in this process always has the later time. Threads may share it.

    What is set by less than `TOLERANCE` seconds is followed: ahead at once, back by going slower. A larger step is
    only told, by `step`; the time goes on as it was until `adopt` is called, in the transaction in which the state
    follows the step. Else a poll could seem to have started after an event that came in later.

    ``strict``: the clock may be late by a moment and is never early, and no `moment` may be, either.
    """

    def __init__(self, clock: Clock, *, strict: bool = False) -> None:
        self._clock = clock
        self._strict = strict
        self._lock = threading.Lock()
        self._read_at = clock.monotonic()
        self._offset = clock.now() - self._read_at

    def begin_again(self) -> None:
        """Take what the clock says now as it is: only now it tells the time that counts, and nobody has set it."""
        with self._lock:
            self._read_at = self._clock.monotonic()
            self._offset = self._clock.now() - self._read_at

    def now(self) -> float:
        """Seconds since the epoch, UTC."""
        moment, _ = self._read()
        return moment.at

    def monotonic(self) -> float:
        """Seconds since some moment; never goes back."""
        return self._clock.monotonic()

    def moment(self) -> Moment:
        """This moment."""
        moment, ahead = self._read()
        return moment._replace(at=moment.at - ahead) if self._strict else moment

    def _read(self) -> tuple[Moment, float]:
        """This moment, and by how much it is ahead of the clock, which it waits for."""
        with self._lock:
            monotonic = self._clock.monotonic()
            offset = self._clock.now() - monotonic
            ahead = self._offset - offset
            if -TOLERANCE < ahead <= 0.0:
                self._offset = offset
            elif 0.0 < ahead < TOLERANCE:
                self._offset = max(offset, self._offset - _SLEW * (monotonic - self._read_at))
            self._read_at = monotonic
            left = self._offset - offset
            return Moment(monotonic + self._offset, monotonic), left if 0.0 < left < TOLERANCE else 0.0

    def time_of(self, moment: Moment) -> float:
        """When a moment was, by the clock as it is now, and not later than it was thought to be then."""
        with self._lock:
            return min(moment.at, moment.monotonic + self._offset)

    def step(self) -> float:
        """By how many seconds the system's clock was set and not followed; 0 for less than `TOLERANCE`."""
        with self._lock:
            step = self._clock.now() - self._clock.monotonic() - self._offset
        return step if abs(step) >= TOLERANCE else 0.0

    def adopt(self, step: float) -> None:
        """Go on at another time, so many seconds later or, below zero, earlier."""
        with self._lock:
            self._offset += step
