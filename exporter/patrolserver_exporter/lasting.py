"""A trouble that lasts: said when it begins, again each quarter of an hour, and when it is over."""

from __future__ import annotations

import datetime as dt
import logging
from typing import TYPE_CHECKING

from patrolserver_exporter.logs import log_fields

if TYPE_CHECKING:
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
