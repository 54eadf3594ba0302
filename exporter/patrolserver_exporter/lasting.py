"""What would fill the log: a trouble that lasts, and what clients do wrong again and again.

A trouble is said when it begins, again each quarter of an hour, and when it is over; for the rest see `ThrottledLog`.
"""

from __future__ import annotations

import datetime as dt
import logging
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from patrolserver_exporter.logs import log_fields

if TYPE_CHECKING:
    from collections.abc import Callable

    from patrolserver_exporter.clock import Clock
    from patrolserver_exporter.logs import Field

SAY_EVERY = 900.0
"""Seconds from one line in the log to the next at the trouble's level; whatever is said between is for debugging."""


class LastingTrouble:
    """One trouble and its messages in the log. For one thread at a time."""

    def __init__(self, log: logging.Logger, clock: Clock, level: int = logging.WARNING) -> None:
        self._log = log
        self._clock = clock
        self._level = level
        self._since: float | None = None
        """Seconds since the epoch; ``None`` while there is no trouble."""
        self._tries = 0
        self._said_at = 0.0
        """Monotonic seconds."""

    def lasts(self, message: str, **fields: Field) -> None:
        """It is still so, or begins."""
        now = self._clock.monotonic()
        self._tries += 1
        if self._since is None:
            self._since, self._said_at = self._clock.now(), now
            self._log.log(self._level, message, extra=log_fields(**fields))
            return
        level = logging.DEBUG
        if now - self._said_at >= SAY_EVERY:
            level, self._said_at = self._level, now
        lasting: dict[str, Field] = {"since": _utc(self._since), "tries": self._tries}
        self._log.log(level, "Still so: %s", message, extra=log_fields(**fields, **lasting))

    def is_over(self, message: str, **fields: Field) -> None:
        """It is over; said only if it was there."""
        if self._since is not None:
            lasted: dict[str, Field] = {"since": _utc(self._since), "tries": self._tries}
            self._log.info(message, extra=log_fields(**fields, **lasted))
        self.forget()

    def forget(self) -> None:
        """The next one is a new one."""
        self._since, self._tries = None, 0


def _utc(at: float) -> str:
    return dt.datetime.fromtimestamp(at, dt.UTC).isoformat(timespec="seconds")


SAID_AT_ONCE = 5
"""Lines of one kind that are said as they come."""
ONE_IN = 60.0
"""Seconds in which one more may be said after those."""


class ThrottledLog:
    """What clients do wrong, which they could do without end. For one thread at a time.

    Of each kind the first lines are said as they come, then one a minute, which tells how many were left out; those
    are for debugging. Kinds are of a closed set.
    """

    def __init__(
        self, log: logging.Logger, monotonic: Callable[[], float] = time.monotonic, level: int = logging.WARNING
    ) -> None:
        self._log = log
        self._monotonic = monotonic
        self._level = level
        self._kinds: dict[str, _Allowance] = {}

    def say(self, kind: str, message: str, **fields: Field) -> None:
        """Say it, or count it."""
        now = self._monotonic()
        allowance = self._kinds.setdefault(kind, _Allowance(SAID_AT_ONCE, now))
        allowance.lines = min(SAID_AT_ONCE, allowance.lines + (now - allowance.at) / ONE_IN)
        allowance.at = now
        if allowance.lines < 1:
            allowance.left_out += 1
            self._log.debug(message, extra=log_fields(**fields))
            return
        allowance.lines -= 1
        if allowance.left_out:
            fields = {**fields, "left_out": allowance.left_out}
            allowance.left_out = 0
        self._log.log(self._level, message, extra=log_fields(**fields))


@dataclass(slots=True)
class _Allowance:
    """Of one kind."""

    lines: float
    at: float
    """Monotonic seconds."""
    left_out: int = 0
