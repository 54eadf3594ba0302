"""Notices when the system's clock is set, so that timers neither fire early nor wait for weeks."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from patrolserver_exporter.clock import Clock

_TOLERANCE = 5.0


class ClockWatch:
    """Compares the wall clock with the monotonic one."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._offset = clock.now() - clock.monotonic()

    def step(self) -> float:
        """By how many seconds the wall clock was set since the last call; 0 for less than five."""
        offset = self._clock.now() - self._clock.monotonic()
        step = offset - self._offset
        if abs(step) < _TOLERANCE:
            return 0.0
        self._offset = offset
        return step
