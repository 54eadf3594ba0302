"""The poller: asks the API for server lists, software and running scans, as often as due and as the budget allows."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from patrolserver_exporter.logs import log_fields
from patrolserver_exporter.store import StoreError, StoreUnavailable
from patrolserver_exporter.sync import scans
from patrolserver_exporter.sync.calls import (
    RETRY_BASE,
    Results,
    ServerCalls,
    ServerList,
    StoppedError,
    stopped,
    unknown,
)
from patrolserver_exporter.sync.health import LIST_EVERY, Trouble
from patrolserver_exporter.sync.schedule import Job, Task
from patrolserver_exporter.sync.threads import Threads

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from patrolserver_exporter.clock import Clock
    from patrolserver_exporter.live.own_metrics import Telemetry
    from patrolserver_exporter.store import Store, fleet
    from patrolserver_exporter.sync.account import Listener, WatchedAccount

log = logging.getLogger(__name__)
_PATIENCE = 60.0
"""Seconds that somebody who asked for a poll waits for a pause to end, at most."""


class AccountPoller:
    """Polls one account's servers with a few threads.

    ``pump`` starts what is due; whoever finishes a call pumps again, so the threads never wait for a tick.
    """

    def __init__(self, watched: WatchedAccount, store: Store, clock: Clock, telemetry: Telemetry) -> None:
        self.watched = watched
        self._clock = clock
        self._telemetry = telemetry
        self._threads = Threads(watched.settings.poll.concurrency + 1, f"poll-{watched.name}")
        self._results = Results(watched, store, telemetry)
        self._list = ServerList(watched, self._results, clock)
        self._calls = ServerCalls(watched, self._results, clock)
        self._listing = False

    def resume(self, records: Sequence[fleet.ServerRecord]) -> None:
        """Plan the servers of the restored state as they were planned; what is overdue is spread over time."""
        watched, now, mono = self.watched, self._clock.now(), self._clock.monotonic()
        watched.watch(record.server_id for record in records)
        waits = _waits(records, now, watched.interval)
        with watched.lock:
            for record in records:
                wait = waits[record.server_id]
                if record.state.settle_poll_at is not None:
                    wait = min(wait, max(record.state.settle_poll_at - now, 0.0))
                if (record.state.last_poll_at or 0.0) < (record.state.event_received_at or 0.0):
                    # The poll at once after an event did not come about before the stop.
                    wait = 0.0
                watched.schedule.put(Task(Job.POLL, record.server_id), mono + wait)
                if scans.is_watched(record.state):
                    watched.schedule.put(Task(Job.CHECK_SCAN, record.server_id), mono)

    def plan(self, job: Job, server_id: int, wait: float = 0.0) -> None:
        """Have a job done in ``wait`` seconds at the latest."""
        with self.watched.lock:
            self.watched.schedule.put(Task(job, server_id), self._clock.monotonic() + wait)
        self.pump()

    def plan_all(self, server_ids: Sequence[int]) -> None:
        """Poll these servers soon, spread over half of what the budget allows."""
        self.watched.plan_spread(server_ids)

    def refresh(self, server_id: int, done: Listener) -> None:
        """Poll a server now; ``done`` hears, once, how a poll that starts from now on ended: the error, or ``None``."""
        refusal = None
        with self.watched.lock:
            if self.watched.stopping:
                refusal = stopped(self.watched.name)
            elif not self.watched.watches(server_id):
                refusal = unknown(self.watched.name, server_id)
            else:
                self.watched.waiting.setdefault(server_id, []).append(done)
        if refusal is None:
            self.plan(Job.POLL, server_id)
        else:
            done(refusal)

    def list_now(self) -> None:
        """Ask for the server list at once, unless a trouble spaces such calls out."""
        with self.watched.lock:
            self.watched.health.ask_for_list(self._clock.monotonic())
        self.pump()

    def begin_stop(self) -> None:
        """Start nothing more, and keep nothing of what is under way."""
        with self.watched.lock:
            self.watched.stopping = True
            waiting = self._take_waiting()
        self.watched.close()
        self._threads.shutdown(wait=False, cancel_futures=True)
        self._results.tell(waiting, stopped(self.watched.name))

    def _take_waiting(self) -> list[Listener]:
        waiting = [done for of_server in self.watched.waiting.values() for done in of_server]
        self.watched.waiting.clear()
        return waiting

    def join(self, patience: float) -> None:
        """Wait for the calls under way, at most ``patience`` seconds."""
        self._threads.join(patience)

    def pump(self) -> None:
        """Start what is due, as far as health, budget and threads allow."""
        watched = self.watched
        refused: list[Listener] = []
        with watched.lock:
            now = self._clock.monotonic()
            if self.watched.stopping:
                return
            if not self._listing and now >= watched.health.list_at and watched.polls.try_take():
                self._listing = True
                self._threads.submit(self._run, self._list_servers)
            if watched.health.allows_calls(now):
                self._start_due(now)
            elif watched.health.trouble is not Trouble.NONE:
                refused = self._take_waiting()
                self._pass_over_due(now)
            elif watched.health.paused_until - now > _PATIENCE:
                # Nobody may take for polled what will not be polled for hours.
                refused = self._take_waiting()
                self._pass_over_due(now)
            why = watched.health.detail or "the API asked to wait."
        self._results.tell(refused, f"The account {watched.name} cannot be polled now: {why}")

    def _start_due(self, now: float) -> None:
        watched = self.watched
        while len(watched.in_flight) < watched.settings.poll.concurrency:
            due_at = watched.schedule.next_at()
            if due_at is None or due_at > now or not watched.polls.try_take():
                return
            task = watched.schedule.pop_due(now)
            if task is None:
                return
            if task in watched.in_flight:
                watched.again.add(task)
                watched.polls.give_back(1)
                continue
            watched.in_flight.add(task)
            work = self._calls.poll if task.job is Job.POLL else self._calls.check_scan
            self._threads.submit(self._run, self._finish, task, work)

    def _pass_over_due(self, now: float) -> None:
        watched, passed = self.watched, []
        while (task := watched.schedule.pop_due(now)) is not None:
            if task.job is Job.CHECK_SCAN:
                watched.schedule.put(task, now + LIST_EVERY)
            elif task.server_id not in watched.passed_over:
                passed.append(task.server_id)
        if passed:
            watched.passed_over.update(passed)
            self._threads.submit(self._run, self._calls.mark_unpolled, passed)

    def _run(self, work: Callable[..., None], *arguments: object) -> None:
        try:
            work(*arguments)
        except StoppedError:
            log.debug("A late result was left out", extra=log_fields(account=self.watched.name))
        except StoreUnavailable as error:
            # The store has said it itself, once and not for each server.
            self._telemetry.error("poller")
            log.debug("A poll's result could not be kept", extra=log_fields(account=self.watched.name, err=str(error)))
        except StoreError as error:
            self._telemetry.error("poller")
            log.exception(
                "A poll's result could not be kept", extra=log_fields(account=self.watched.name, err=str(error))
            )
        except Exception:
            self._telemetry.error("poller")
            log.exception("The poller failed; this is a bug", extra=log_fields(account=self.watched.name))
        self.pump()

    def _list_servers(self) -> None:
        try:
            self._list.ask()
        finally:
            self._listing = False

    def _finish(self, task: Task, work: Callable[[int], None]) -> None:
        try:
            work(task.server_id)
        except BaseException:
            # What failed for a reason of our own must not fall out of the schedule.
            self.watched.plan_turn(task, RETRY_BASE)
            raise
        finally:
            with self.watched.lock:
                self.watched.in_flight.discard(task)
                if task in self.watched.again:
                    self.watched.again.discard(task)
                    self.watched.schedule.put(task, self._clock.monotonic())


def _waits(records: Sequence[fleet.ServerRecord], now: float, interval: float) -> dict[int, float]:
    """Seconds to the next poll of each server.

    What is overdue is spread over its part of the interval, and so is what seems to be planned for later than any poll
    is: the clock was set back since.
    """
    waits = {r.server_id: max((r.next_poll_at or now) - now, 0.0) for r in records}
    unplanned = {r.server_id for r in records if r.next_poll_at is None}
    overdue = [i for i, wait in waits.items() if i not in unplanned and not 0.0 < wait <= interval * 5 / 4]
    spread = interval * len(overdue) / max(len(records), 1)
    return waits | {server_id: spread * place / len(overdue) for place, server_id in enumerate(overdue)}
