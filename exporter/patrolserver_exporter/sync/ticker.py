"""The dispatcher: one job of APScheduler that ticks; what is due is the accounts' own schedule.

One job a server would cost more than the polls, and APScheduler's default grace of one second would skip most of them.
"""

from __future__ import annotations

import datetime as dt
import logging
import threading
import time
from typing import TYPE_CHECKING

from apscheduler.executors.pool import ThreadPoolExecutor
from apscheduler.schedulers.background import BackgroundScheduler
from apscheduler.triggers.interval import IntervalTrigger

if TYPE_CHECKING:
    from collections.abc import Callable

log = logging.getLogger(__name__)

TICK = 0.25
_OVERDUE = 5.0


class _Steady(IntervalTrigger):  # type: ignore[misc]  # APScheduler has no types.
    """Every ``TICK``, and once for all that were missed.

    APScheduler coalesces missed times only after it has listed them one by one: a clock set ahead by 40 days would make
    that 14 million.
    """

    def get_next_fire_time(self, previous_fire_time: dt.datetime | None, now: dt.datetime) -> dt.datetime:
        """The next time after ``now``."""
        step = dt.timedelta(seconds=TICK)
        return now if previous_fire_time is None else max(previous_fire_time + step, now + step / 10)


class Dispatcher:
    """Calls ``tick`` four times a second on a thread of its own, never twice at once."""

    def __init__(self, tick: Callable[[], None], on_error: Callable[[], None]) -> None:
        self._tick = tick
        self._on_error = on_error
        self._last = time.monotonic()
        self._realigning = threading.Lock()
        self._scheduler = BackgroundScheduler(executors={"default": ThreadPoolExecutor(1)}, timezone=dt.UTC)
        self._job = self._scheduler.add_job(
            self._run, _Steady(seconds=TICK, timezone=dt.UTC), coalesce=True, max_instances=1, misfire_grace_time=None
        )

    def start(self) -> None:
        """Begin to tick."""
        self._scheduler.start()

    def stop(self) -> None:
        """Stop ticking; a tick under way is waited for. Does nothing if it never began."""
        if self._scheduler.running:
            self._scheduler.shutdown(wait=True)

    def realign(self) -> None:
        """Set the job's next time again if it is overdue.

        APScheduler plans by the wall clock: when that is set back, the next tick would be as far away as it was set.
        """
        with self._realigning:
            if time.monotonic() - self._last > _OVERDUE:
                self._last = time.monotonic()
                self._job.modify(next_run_time=dt.datetime.now(dt.UTC))
                self._scheduler.wakeup()

    def _run(self) -> None:
        self._last = time.monotonic()
        try:
            self._tick()
        except Exception:
            self._on_error()
            log.exception("A tick failed; the next one goes on")
