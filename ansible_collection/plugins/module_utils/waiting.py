# Copyright: (c) 2026, The patrolserver-exporter founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a gate may wait for before it asks for the verdict: fresh polls, and the end of scans. Always bounded."""

from __future__ import annotations

from ansible_collections.patrolserver.monitoring.plugins.module_utils.durations import moment
from ansible_collections.patrolserver.monitoring.plugins.module_utils.errors import (
    InvalidInput,
    PatrolServerError,
    TimedOut,
    had_no_effect,
)
from ansible_collections.patrolserver.monitoring.plugins.module_utils.exporter import unknown_servers
from ansible_collections.patrolserver.monitoring.plugins.module_utils.scanning import PASSING, Clock


class Wait:
    """Waits on one exporter within one bound for everything; ``pause`` seconds between two looks.

    ``asked`` tells whether the exporter has taken a refresh, or may have.
    """

    def __init__(self, exporter, bound: float, pause: float, clock: Clock | None = None) -> None:
        self._exporter = exporter
        self._bound = bound
        self._pause = max(pause, 0.05)
        self._clock = clock or Clock()
        self._begun = self._clock.elapsed()
        self.asked = False

    def refresh(self, selection: dict) -> int:
        """Have every selected server polled now, and wait for all of it; returns how many were asked for.

        :raises PatrolServerError: if one failed, or the bound was reached.
        """
        done = self.refresh_each(selection)
        for _server, operation in done:
            self._check_done(operation)
        return len(done)

    def refresh_each(self, selection: dict) -> list:
        """Have every selected server polled now, and wait until each is done or has failed; returns pairs of server and operation.

        It is one request, and one for each look, however many servers there are; an older exporter gets one for each server.

        :raises TimedOut: at the bound.
        """
        refresh = self._ask(self._exporter.refresh_many, selection)
        if refresh is None:
            return self._refresh_one_by_one(selection)
        while True:
            pending = sum(not _is_over(one) for one in refresh["servers"])
            if not pending:
                return [
                    ({"account": one.get("account"), "id": one.get("server_id"), "name": one.get("server")}, one)
                    for one in refresh["servers"]
                ]
            self._rest("{0} of {1} refreshes were not done".format(pending, len(refresh["servers"])))
            refresh = self._looked_at(refresh, self._exporter.refresh_of_many)

    def _refresh_one_by_one(self, selection: dict) -> list:
        unknown = self._exporter.unknown_of(selection)
        if unknown:
            raise InvalidInput(unknown_servers(unknown))
        asked = []
        for server in list(self._exporter.servers(selection)):
            self._check("not every server could be asked for a refresh")
            asked.append((server, self._ask(self._exporter.refresh, server)))
        while True:
            pending = sum(not _is_over(operation) for _server, operation in asked)
            if not pending:
                return asked
            self._rest("{0} of {1} refreshes were not done".format(pending, len(asked)))
            look = self._exporter.operation
            asked = [
                (server, operation if _is_over(operation) else self._looked_at(operation, look))
                for server, operation in asked
            ]

    def _ask(self, refresh, wanted: dict):
        try:
            taken = refresh(wanted)
        except PatrolServerError as error:
            self.asked = self.asked or not had_no_effect(error)
            raise
        self.asked = self.asked or taken is not None
        return taken

    def for_scans(self, selection: dict, since: float | None) -> None:
        """Wait until no selected server is being scanned and a poll has seen what the last scan found.

        ``since`` (seconds since the epoch) asks for a scan that ended after that time on each of them.

        :raises InvalidInput: if nobody would tell the exporter of the scan.
        """
        while True:
            try:
                servers = list(self._exporter.servers(selection))
                waiting = [server for server in servers if not settled(server, since)]
                if servers and not waiting:
                    return
                self._check_told([server for server in waiting if not _is_under_way(server, since)])
                told = ", ".join(server["name"] for server in waiting[:5]) + (", …" if len(waiting) > 5 else "")
                reason = "the scans were not seen to end on " + told if servers else "there was no server to wait for"
            except InvalidInput:
                raise
            except PatrolServerError as error:
                # A failed look is not the end of a scan; the bound decides how long it may last.
                if getattr(error, "status", None) not in (None, *PASSING):
                    raise
                reason = str(error)
            self._rest(reason)

    def _looked_at(self, operation: dict, look) -> dict:
        try:
            return look(operation["id"])
        except PatrolServerError as error:
            if getattr(error, "status", None) not in (None, *PASSING):
                raise
            return operation

    def _check_told(self, servers: list) -> None:
        """Without webhooks the exporter hears of no scan; it then sees one only if a poll happens to fall into it."""
        if not servers:
            return
        deaf = {account["name"] for account in self._exporter.status()["accounts"] if account.get("webhook") is False}
        affected = sorted({server["account"] for server in servers} & deaf)
        if affected:
            raise InvalidInput(
                "wait_for_scan: the exporter gets no webhooks for account {0}, so it would not learn of the scan of {1}. Give "
                "the account a webhook token; or wait with wait: true of patrolserver.monitoring.scan, and have the gate "
                "refresh: true instead".format(", ".join(affected), servers[0]["name"])
            )

    def _check_done(self, operation: dict) -> None:
        if operation.get("state") == "failed":
            raise PatrolServerError("the refresh of a server failed: {0}".format(operation.get("error") or "no reason given"))

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


def _is_under_way(server: dict, since: float | None) -> bool:
    """Tell whether what is waited for goes on by itself: the exporter knows of the scan, or has seen it end."""
    scanned = _moment(server.get("last_scan_at"))
    return bool(
        server.get("scanning") or server.get("unconfirmed_event") or (scanned is not None and scanned >= (since or 0.0))
    )


def _is_over(operation: dict) -> bool:
    return operation.get("state") in ("done", "failed")


def _moment(text: str | None) -> float | None:
    return None if text is None else moment(text)
