# Copyright: (c) 2026, The patrolserver-exporter founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a gate may wait for before it asks for the verdict: fresh polls, and the end of scans. Always bounded."""

from __future__ import annotations

from ansible_collections.patrolserver.monitoring.plugins.module_utils.durations import moment
from ansible_collections.patrolserver.monitoring.plugins.module_utils.errors import PatrolServerError, TimedOut
from ansible_collections.patrolserver.monitoring.plugins.module_utils.scanning import PASSING, Clock


class Wait:
    """Waits on one exporter within one bound for everything; ``pause`` seconds between two looks."""

    def __init__(self, exporter, bound: float, pause: float, clock: Clock | None = None) -> None:
        self._exporter = exporter
        self._bound = bound
        self._pause = max(pause, 0.05)
        self._clock = clock or Clock()
        self._begun = self._clock.elapsed()

    def refresh(self, selection: dict) -> int:
        """Have every selected server polled now, and wait for all of it; returns how many were asked for.

        :raises PatrolServerError: if one failed, or the bound was reached.
        """
        pending = []
        for server in list(self._exporter.servers(selection)):
            self._check("not every server could be asked for a refresh")
            pending.append(self._exporter.refresh(server))
        asked = len(pending)
        while True:
            pending = [operation for operation in pending if not self._is_done(operation)]
            if not pending:
                return asked
            self._rest("{0} of {1} refreshes were not done".format(len(pending), asked))
            pending = [self._looked_at(operation) for operation in pending]

    def for_scans(self, selection: dict, since: float | None) -> None:
        """Wait until no selected server is being scanned and a poll has seen what the last scan found.

        ``since`` (seconds since the epoch) asks for a scan that ended after that time on each of them.
        """
        while True:
            try:
                servers = list(self._exporter.servers(selection))
                waiting = [server["name"] for server in servers if not settled(server, since)]
                if servers and not waiting:
                    return
                told = ", ".join(waiting[:5]) + (", …" if len(waiting) > 5 else "")
                reason = "the scans were not seen to end on " + told if servers else "there was no server to wait for"
            except PatrolServerError as error:
                # A failed look is not the end of a scan; the bound decides how long it may last.
                if getattr(error, "status", None) not in (None, *PASSING):
                    raise
                reason = str(error)
            self._rest(reason)

    def _looked_at(self, operation: dict) -> dict:
        try:
            return self._exporter.operation(operation["id"])
        except PatrolServerError as error:
            if getattr(error, "status", None) not in (None, *PASSING):
                raise
            return operation

    def _is_done(self, operation: dict) -> bool:
        if operation.get("state") == "failed":
            raise PatrolServerError("the refresh of a server failed: {0}".format(operation.get("error") or "no reason given"))
        return operation.get("state") == "done"

    def _rest(self, reason: str) -> None:
        self._check(reason)
        self._clock.sleep(self._pause)

    def _check(self, reason: str) -> None:
        if self._clock.elapsed() - self._begun + self._pause > self._bound:
            raise TimedOut("{0}, after {1:g} seconds".format(reason, self._bound))


def settled(server: dict, since: float | None) -> bool:
    """Tell whether nothing is under way on a server, and a poll is newer than its last scan."""
    if server.get("scanning") or server.get("unconfirmed_event"):
        return False
    scanned = _moment(server.get("last_scan_at"))
    polled = _moment(server.get("last_poll_at"))
    if since is not None and (scanned is None or scanned < since):
        return False
    return scanned is None or (polled is not None and polled >= scanned)


def _moment(text: str | None) -> float | None:
    return None if text is None else moment(text)
