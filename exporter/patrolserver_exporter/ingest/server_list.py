"""The call for an account's server list, which is also the judge of the API's health."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from patrolserver_exporter.ingest import listing
from patrolserver_exporter.ingest.effects import InboxMoved
from patrolserver_exporter.ingest.health import Trouble
from patrolserver_exporter.ingest.results import unknown
from patrolserver_exporter.ingest.schedule import Job, Task
from patrolserver_exporter.logs import log_fields
from patrolserver_exporter.patrolserver.errors import PatrolServerError
from patrolserver_exporter.store import deliveries

if TYPE_CHECKING:
    from patrolserver_exporter.clock import Clock
    from patrolserver_exporter.ingest.account import WatchedAccount
    from patrolserver_exporter.ingest.results import Results
    from patrolserver_exporter.store import Unit

log = logging.getLogger(__name__)


class ServerList:
    """One account's list, asked for by one thread at a time."""

    def __init__(self, watched: WatchedAccount, results: Results, clock: Clock) -> None:
        self._watched = watched
        self._results = results
        self._clock = clock
        self._last: object = None
        """The list that is in the state, and the rules it was read by."""

    def ask(self) -> None:
        """Make the call, and let it take effect; raises `StoreError` and `StoppedError`."""
        watched, started_at = self._watched, self._clock.now()
        try:
            parsed = watched.client.servers()
        except PatrolServerError as error:
            self._failed(error)
            return
        self._results.note(parsed.oddities, "servers")

        news = (parsed.value, parsed.complete, watched.rules)

        def work(unit: Unit) -> listing.Listed:
            if deliveries.unblock(unit, watched.name):
                unit.effects.append(InboxMoved())
            if news == self._last:
                # Nearly always: the whole fleet need not be read to see that nothing changed.
                listing.save_reachability(unit, watched.name, up=True, now=self._clock.now())
                return listing.Listed()
            return listing.apply_list(
                unit,
                watched.name,
                parsed.value,
                complete=parsed.complete,
                now=self._clock.now(),
                rules=watched.rules,
                watched=watched.server_ids,
            )

        with watched.lock:
            # Set before the write, so that a store that cannot write does not turn into a storm of calls.
            recovered = watched.health.listed(self._clock.monotonic(), watched.settings.poll.interval)
        listed = self._results.keep(work)
        self._last = news
        watched.list_read_at = started_at
        self._follow(listed)
        self._catch_up()
        if recovered:
            log.info("The API answers again", extra=log_fields(account=watched.name))
            self._results.keep(self._hasten_deliveries)

    def _catch_up(self) -> None:
        """Poll the servers whose turn was passed over; not only at a recovery, whose list may not have been kept."""
        watched = self._watched
        with watched.lock:
            if not watched.health.allows_calls(self._clock.monotonic()):
                return
            passed_over, watched.passed_over = sorted(watched.passed_over), set()
        watched.plan_spread([server_id for server_id in passed_over if watched.watches(server_id)])

    def _hasten_deliveries(self, unit: Unit) -> None:
        if deliveries.hasten(unit, self._watched.name):
            unit.effects.append(InboxMoved())

    def _follow(self, listed: listing.Listed) -> None:
        watched = self._watched
        if listed == listing.Listed():
            return
        waiting = []
        with watched.lock:
            watched.watch((set(watched.server_ids) - set(listed.gone)) | set(listed.added))
            now = self._clock.monotonic()
            for server_id in listed.gone:
                watched.schedule.drop(server_id)
                watched.failures.pop(server_id, None)
                waiting += [(done, server_id) for done in watched.waiting.pop(server_id, ())]
            for server_id in (*listed.added, *listed.renamed):
                watched.schedule.put(Task(Job.POLL, server_id), now)
        for done, server_id in waiting:
            self._results.tell([done], unknown(watched.name, server_id))
        counts = {"added": len(listed.added), "gone": len(listed.gone), "renamed": len(listed.renamed)}
        fields = log_fields(account=watched.name, **counts)
        log.info("The account's servers changed", extra=fields)

    def _failed(self, error: PatrolServerError) -> None:
        watched = self._watched
        with watched.lock:
            began = watched.health.list_failed(self._clock.monotonic(), error, watched.settings.poll.interval)
            trouble = watched.health.trouble
        level = logging.ERROR if began else logging.DEBUG
        log.log(level, _TROUBLES[trouble], extra=log_fields(account=watched.name, err=str(error)))
        self._results.keep(lambda unit: listing.save_reachability(unit, watched.name, up=False, now=self._clock.now()))
        if trouble is Trouble.CREDENTIALS:
            watched.try_new_credentials(self._clock.monotonic())


_TROUBLES = {
    Trouble.CREDENTIALS: "The API refuses the credentials: its calls are paused, and one try is made every few minutes",
    Trouble.UNREACHABLE: "The API cannot be used: old data stays and is marked as old until it answers again",
    Trouble.NONE: "The API answers",
}
