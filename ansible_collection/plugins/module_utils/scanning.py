# Copyright: (c) 2026, The patrolserver-exporter founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A scan from its request to its end. Only what was seen counts."""

from __future__ import annotations

import time

from ansible_collections.patrolserver.monitoring.plugins.module_utils.durations import rfc3339
from ansible_collections.patrolserver.monitoring.plugins.module_utils.errors import (
    ConnectionFailed,
    PatrolServerError,
    Refused,
    TimedOut,
    Unreadable,
)

PASSING = (408, 429, 500, 502, 503, 504)


class Clock:
    """The time, and waiting."""

    def now(self) -> float:
        """Return seconds since the epoch."""
        return time.time()

    def elapsed(self) -> float:
        """Return seconds that only ever grow."""
        return time.monotonic()

    def sleep(self, duration: float) -> None:
        """Wait for so many seconds."""
        time.sleep(duration)


class Bounds:
    """How long to wait, in seconds, and how many looks in a row may fail."""

    def __init__(self, start: float, whole: float, pause: float, errors: int) -> None:
        self.start = start
        self.whole = whole
        self.pause = max(pause, 0.05)
        self.errors = errors


class Scan:
    """One scan of one server; fills ``result`` with what it sees, so that it is right wherever an error ends it."""

    def __init__(self, api, server_id: int, bounds: Bounds, clock: Clock, result: dict) -> None:
        self._api = api
        self._server_id = server_id
        self._bounds = bounds
        self._clock = clock
        self._result = result

    def begin(self, dry: bool) -> None:
        """Start a scan unless one runs."""
        if self._api.is_scanning(self._server_id):
            now = rfc3339(self._clock.now())
            self._result.update(state="running", requested_at=now, running_at=now)
            return
        self._result.update(changed=True, requested_at=rfc3339(self._clock.now()))
        if dry:
            self._result["state"] = "would_start"
            return
        try:
            self._api.start_scan(self._server_id)
        except ConnectionFailed as error:
            # It may have arrived all the same: what the answer would have said is unknown.
            self._result.update(state="unknown", changed=error.sent)
            raise
        except PatrolServerError:
            self._result["changed"] = False
            raise
        self._result.update(state="requested", started=True)

    def follow(self) -> None:
        """Wait until the scan was seen running, and then seen to run no more.

        :raises TimedOut: at the bound of either wait.
        """
        begun = self._clock.elapsed()
        if self._result["state"] != "running":
            pause = min(self._bounds.pause, 1.0)
            self._until(True, begun, min(self._bounds.start, self._bounds.whole), pause, "was not seen running")
            self._result.update(state="running", running_at=rfc3339(self._clock.now()))
        self._until(False, begun, self._bounds.whole, self._bounds.pause, "was not seen to finish")
        self._result.update(state="finished", finished=True, finished_at=rfc3339(self._clock.now()))

    def _until(self, wanted: bool, begun: float, bound: float, pause: float, missed: str) -> None:
        failures = 0
        while True:
            try:
                if self._api.is_scanning(self._server_id) is wanted:
                    return
                failures = 0
            except (ConnectionFailed, Unreadable) as error:
                failures = self._count(failures, error)
            except Refused as error:
                if error.status not in PASSING:
                    raise
                failures = self._count(failures, error)
            if self._clock.elapsed() - begun + pause > bound:
                raise TimedOut("the scan {0} within {1:g} seconds".format(missed, bound))
            self._clock.sleep(pause)

    def _count(self, failures: int, error: PatrolServerError) -> int:
        if failures + 1 >= self._bounds.errors:
            raise error
        return failures + 1
