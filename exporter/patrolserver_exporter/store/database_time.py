"""The database's clock, by which several processes agree on what came before what.

Between two replies the process counts on by itself. What it says then is never later than the database's clock: a reply
is older than the moment at which it is read. So a call that seems to have started after a delivery came in did so.
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Final

import sqlalchemy as sa

from patrolserver_exporter.clock import SteadyClock

if TYPE_CHECKING:
    from collections.abc import Callable

    from patrolserver_exporter.clock import Clock

NOW: Final = {
    "postgresql": "CAST(extract(epoch FROM clock_timestamp()) AS double precision)",
    "sqlite": "((julianday('now') - 2440587.5) * 86400.0)",
}
"""The database's clock, in seconds since the epoch, by the dialect of SQL. On SQLite it is this process'."""


def now_in(dialect: str) -> sa.ColumnElement[float]:
    """The database's clock as part of a statement."""
    return sa.literal_column(NOW[dialect], sa.Double())


def read(connection: sa.Connection) -> float:
    """Seconds since the epoch by the database's clock, now and not at the transaction's begin."""
    return float(connection.execute(sa.select(now_in(connection.dialect.name))).scalar_one())


def boot_time() -> float:
    """Seconds since the machine started, those in which it was suspended included."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


class DatabaseTime:
    """A `Clock` that shows the database's time, and until that is known the process' own. Threads may share it."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._offset: float | None = None
        """From `boot_time` to the database's time, at least."""
        self._when_known: Callable[[], None] = lambda: None
        """Called when the database is heard for the first time."""

    def heard(self, at: float, *, asked_at: float) -> None:
        """The database has just replied that it is ``at``; ``asked_at`` is the `boot_time` before the question."""
        least, most = at - boot_time(), at - asked_at
        with self._lock:
            is_first = self._offset is None
            # Above what is possible: the database's clock was set back.
            if self._offset is None or self._offset > most:
                self._offset = least
            else:
                self._offset = max(self._offset, least)
        if is_first:
            self._when_known()

    def steady(self) -> SteadyClock:
        """A clock that goes by it. What is heard first is no step, whatever the process' own clock said before."""
        steady = SteadyClock(self, strict=True)
        self._when_known = steady.begin_again
        return steady

    def now(self) -> float:
        """Seconds since the epoch, UTC."""
        with self._lock:
            return self._clock.now() if self._offset is None else boot_time() + self._offset

    def monotonic(self) -> float:
        """Seconds since some moment of this process; never goes back."""
        return self._clock.monotonic()
