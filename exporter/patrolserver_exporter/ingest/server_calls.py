"""The calls about one server: its software, and whether a scan of it is running."""

from __future__ import annotations

import functools
import logging
from typing import TYPE_CHECKING

from patrolserver_exporter.ingest import scans, units
from patrolserver_exporter.ingest.health import LIST_EVERY, back_off
from patrolserver_exporter.ingest.results import stopped, unknown
from patrolserver_exporter.ingest.schedule import Job, Task
from patrolserver_exporter.logs import log_fields
from patrolserver_exporter.patrolserver.errors import NotFound, PatrolServerError
from patrolserver_exporter.store import StoreError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from patrolserver_exporter.clock import Clock
    from patrolserver_exporter.ingest.account import WatchedAccount
    from patrolserver_exporter.ingest.results import Results
    from patrolserver_exporter.store import Unit
    from patrolserver_exporter.store.fleet import ServerState

log = logging.getLogger(__name__)

RETRY_BASE = 30.0
_CHUNK = 100


class ServerCalls:
    """What is asked about an account's servers; each call ends by planning the server's next turn."""

    def __init__(self, watched: WatchedAccount, results: Results, clock: Clock) -> None:
        self._watched = watched
        self._results = results
        self._clock = clock

    def poll(self, server_id: int) -> None:
        """Ask for a server's software, and tell those who wait; raises `StoreError` and `StoppedError`."""
        with self._watched.lock:
            waiting = self._watched.waiting.pop(server_id, [])
        try:
            outcome = self._ask_for_software(server_id)
        except BaseException:
            watched = self._watched
            self._results.tell(
                waiting, stopped(watched.name) if watched.stopping else "The poll's result could not be kept."
            )
            raise
        self._results.tell(waiting, outcome)

    def _ask_for_software(self, server_id: int) -> str | None:
        """Returns what went wrong."""
        watched, started_at = self._watched, self._clock.now()
        try:
            parsed = watched.client.software(server_id)
        except PatrolServerError as error:
            self._poll_failed(server_id, error)
            return str(error)
        with watched.lock:
            watched.health.call_succeeded()
            watched.failures.pop(server_id, None)
        self._results.note(parsed.oddities, f"software of server {server_id}")
        wait = watched.turn_after(server_id, started_at)

        def work(unit: Unit) -> ServerState | None:
            return units.apply_poll(
                unit,
                watched.name,
                server_id,
                parsed.value,
                complete=parsed.complete,
                started_at=started_at,
                next_poll_at=started_at + wait,
                now=self._clock.now(),
                rules=watched.rules,
            )

        state = self._results.keep(work)
        if state is None:
            return unknown(watched.name, server_id)
        if state.settle_poll_at is not None:
            wait = min(wait, max(state.settle_poll_at - self._clock.now(), 0.0))
        watched.plan_turn(Task(Job.POLL, server_id), wait)
        return None

    def _poll_failed(self, server_id: int, error: PatrolServerError) -> None:
        watched = self._watched
        with watched.lock:
            watched.health.call_failed(self._clock.monotonic(), error)
            failures = watched.failures.get(server_id, 0) + 1
            if watched.watches(server_id):
                watched.failures[server_id] = failures
            if isinstance(error, NotFound) and failures == 1:
                # Perhaps it is gone. If the list still has it, asking again at each try would tell nothing new.
                watched.health.ask_for_list(self._clock.monotonic())
        wait = back_off(
            failures, base=RETRY_BASE, cap=watched.interval, retry_after=error.retry_after, draw=watched.draw
        )
        watched.plan_turn(Task(Job.POLL, server_id), wait)
        next_poll_at, name = self._clock.now() + wait, None
        try:
            name = self._results.keep(
                lambda unit: units.apply_poll_failure(unit, watched.name, server_id, next_poll_at=next_poll_at)
            )
        finally:
            level = logging.WARNING if failures == 1 else logging.DEBUG
            # With the name, since that is what people look for in the log.
            who = {"account": watched.name, "server": name, "server_id": server_id}
            fields = log_fields(**who, err=str(error), retry_seconds=round(wait))
            log.log(level, "A server could not be polled; its old data stays and is marked as old", extra=fields)

    def check_scan(self, server_id: int) -> None:
        """Ask whether a scan is running; raises `StoreError` and `StoppedError`."""
        watched, asked_at = self._watched, self._clock.now()
        try:
            running = watched.client.is_scanning(server_id)
        except PatrolServerError as error:
            with watched.lock:
                watched.health.call_failed(self._clock.monotonic(), error)
            if isinstance(error, NotFound):
                # Asked no more, so nothing may wait for the answer.
                self._results.keep(lambda unit: scans.apply_silence(unit, watched.name, server_id))
            else:
                watched.plan_turn(Task(Job.CHECK_SCAN, server_id), LIST_EVERY)
            return
        with watched.lock:
            watched.health.call_succeeded()
        state, ended = self._results.keep(
            lambda unit: scans.apply_check(unit, watched.name, server_id, running=running, asked_at=asked_at)
        )
        if state is not None and scans.is_watched(state):
            watched.plan_turn(Task(Job.CHECK_SCAN, server_id), scans.next_check_after(state))
        if ended:
            watched.plan_turn(Task(Job.POLL, server_id))

    def mark_unpolled(self, server_ids: Sequence[int]) -> None:
        """Mark servers as not polled whose turn came while no call could be made."""
        next_poll_at = self._clock.now()

        def work(unit: Unit, chunk: Sequence[int]) -> None:
            for server_id in chunk:
                units.apply_poll_failure(unit, self._watched.name, server_id, next_poll_at=next_poll_at)

        # A whole fleet in one unit would hold up deliveries.
        for start in range(0, len(server_ids), _CHUNK):
            try:
                self._results.keep(functools.partial(work, chunk=server_ids[start : start + _CHUNK]))
            except StoreError:
                # They must not seem to be polled as soon as the store can write again, so their turn comes once more.
                self._try_again(server_ids[start:])
                raise

    def _try_again(self, server_ids: Sequence[int]) -> None:
        with self._watched.lock:
            self._watched.passed_over.difference_update(server_ids)
        for server_id in server_ids:
            self._watched.plan_turn(Task(Job.POLL, server_id), RETRY_BASE)
