"""The poller: asks the API for server lists, software and running scans, as often as due and as the budget allows."""

from __future__ import annotations

import functools
import logging
from typing import TYPE_CHECKING, TypeVar

from patrolserver_exporter.ingest import listing, scans, units
from patrolserver_exporter.ingest.effects import InboxMoved
from patrolserver_exporter.ingest.health import LIST_EVERY, Trouble, back_off
from patrolserver_exporter.ingest.schedule import Job, Task
from patrolserver_exporter.ingest.threads import Threads
from patrolserver_exporter.logs import log_fields
from patrolserver_exporter.patrolserver.errors import NotFound, PatrolServerError
from patrolserver_exporter.store import StoreError, deliveries, fleet

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from patrolserver_exporter.clock import Clock
    from patrolserver_exporter.exposition.telemetry import Telemetry
    from patrolserver_exporter.ingest.account import WatchedAccount
    from patrolserver_exporter.store import Store, Unit
    from patrolserver_exporter.store.fleet import ServerState

log = logging.getLogger(__name__)
T = TypeVar("T")
_RETRY_BASE = 30.0
_CHUNK = 100
_PATIENCE = 60.0
"""Seconds that somebody who asked for a poll waits for a pause to end, at most."""


class _StoppedError(Exception):
    """The account is watched anew, or no longer: what a call still brought is not kept."""


class AccountPoller:
    """Polls one account's servers with a few threads.

    ``pump`` starts what is due; whoever finishes a call pumps again, so the threads never wait for a tick.
    """

    def __init__(self, watched: WatchedAccount, store: Store, clock: Clock, telemetry: Telemetry) -> None:
        self.watched = watched
        self._store = store
        self._clock = clock
        self._telemetry = telemetry
        self._threads = Threads(watched.settings.poll.concurrency + 1, f"poll-{watched.name}")
        self._listing = False
        self._listed: object = None
        """The list that is in the state, and the rules it was read by."""
        self._stopping = False
        self._noted: dict[str, int] = {}
        """What was odd about a reply when it was last read, as a hash: said once and not at every poll."""

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
        pace = 120.0 / self.watched.settings.poll.max_requests_per_minute
        with self.watched.lock:
            start = self._clock.monotonic()
            for place, server_id in enumerate(server_ids):
                self.watched.schedule.put(Task(Job.POLL, server_id), start + pace * place)

    def refresh(self, server_id: int, done: Callable[[str | None], None]) -> None:
        """Poll a server now; ``done`` hears, once, how a poll that starts from now on ended: the error, or ``None``."""
        refusal = None
        with self.watched.lock:
            if self._stopping:
                refusal = self._stopped()
            elif not self.watched.watches(server_id):
                refusal = self._unknown(server_id)
            else:
                self.watched.waiting.setdefault(server_id, []).append(done)
        if refusal is None:
            self.plan(Job.POLL, server_id)
        else:
            done(refusal)

    def _unknown(self, server_id: int) -> str:
        return f"Server {server_id} is no longer in account {self.watched.name}."

    def _stopped(self) -> str:
        return f"The account {self.watched.name} is no longer watched as it was; ask again."

    def list_now(self) -> None:
        """Ask for the server list at once, unless a trouble spaces such calls out."""
        with self.watched.lock:
            self.watched.health.ask_for_list(self._clock.monotonic())
        self.pump()

    def begin_stop(self) -> None:
        """Start nothing more, and keep nothing of what is under way."""
        with self.watched.lock:
            self._stopping = True
            waiting = self._take_waiting()
        self.watched.close()
        self._threads.shutdown(wait=False, cancel_futures=True)
        _tell(waiting, self._stopped())

    def _take_waiting(self) -> list[Callable[[str | None], None]]:
        waiting = [done for of_server in self.watched.waiting.values() for done in of_server]
        self.watched.waiting.clear()
        return waiting

    def _keep(self, work: Callable[[Unit], T]) -> T:
        """Have the store do a unit of work, unless the account is watched anew, or no longer, by then."""

        def unless_stopped(unit: Unit) -> T:
            if self._stopping:
                raise _StoppedError
            return work(unit)

        return self._store.run(unless_stopped)

    def join(self, patience: float) -> None:
        """Wait for the calls under way, at most ``patience`` seconds."""
        self._threads.join(patience)

    def pump(self) -> None:
        """Start what is due, as far as health, budget and threads allow."""
        watched = self.watched
        refused: list[Callable[[str | None], None]] = []
        with watched.lock:
            now = self._clock.monotonic()
            if self._stopping:
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
                refused = self._take_waiting()
            why = watched.health.detail or "the API asked to wait."
        _tell(refused, f"The account {watched.name} cannot be polled now: {why}")

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
            work = self._poll if task.job is Job.POLL else self._check_scan
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
            self._threads.submit(self._run, self._mark_unpolled, passed)

    def _mark_unpolled(self, server_ids: Sequence[int]) -> None:
        next_poll_at = self._clock.now()

        def work(unit: Unit, chunk: Sequence[int]) -> None:
            for server_id in chunk:
                units.apply_poll_failure(unit, self.watched.name, server_id, next_poll_at=next_poll_at)

        # A whole fleet in one unit would hold up deliveries.
        for start in range(0, len(server_ids), _CHUNK):
            self._keep(functools.partial(work, chunk=server_ids[start : start + _CHUNK]))

    def _run(self, work: Callable[..., None], *arguments: object) -> None:
        try:
            work(*arguments)
        except _StoppedError:
            log.debug("A late result was left out", extra=log_fields(account=self.watched.name))
        except StoreError as error:
            self._telemetry.error("poller")
            log.exception(
                "A poll's result could not be kept", extra=log_fields(account=self.watched.name, err=str(error))
            )
        except Exception:
            self._telemetry.error("poller")
            log.exception("The poller failed; this is a bug", extra=log_fields(account=self.watched.name))
        self.pump()

    def _finish(self, task: Task, work: Callable[[int], None]) -> None:
        try:
            work(task.server_id)
        except BaseException:
            # What failed for a reason of our own must not fall out of the schedule.
            self._plan_next(task, _RETRY_BASE)
            raise
        finally:
            with self.watched.lock:
                self.watched.in_flight.discard(task)
                if task in self.watched.again:
                    self.watched.again.discard(task)
                    self.watched.schedule.put(task, self._clock.monotonic())

    def _plan_next(self, task: Task, wait: float) -> None:
        """Plan a server's next turn, unless the account no longer has it."""
        with self.watched.lock:
            if self.watched.watches(task.server_id):
                self.watched.schedule.put(task, self._clock.monotonic() + wait)

    def _note(self, oddities: Sequence[str], about: str) -> None:
        if not oddities:
            self._noted.pop(about, None)
            return
        self._telemetry.wire_oddity(self.watched.name, len(oddities))
        said = hash(tuple(oddities))
        level = logging.DEBUG if self._noted.get(about) == said else logging.WARNING
        self._noted[about] = said
        fields = log_fields(account=self.watched.name, about=about, odd="; ".join(oddities[:5]))
        log.log(level, "The API's reply was odd", extra=fields)

    # The server list

    def _list_servers(self) -> None:
        try:
            self._ask_for_list()
        finally:
            self._listing = False

    def _ask_for_list(self) -> None:
        watched, started_at = self.watched, self._clock.now()
        try:
            parsed = watched.client.servers()
        except PatrolServerError as error:
            self._list_failed(error)
            return
        self._note(parsed.oddities, "servers")

        news = (parsed.value, parsed.complete, watched.rules)

        def work(unit: Unit) -> listing.Listed:
            if deliveries.unblock(unit, watched.name):
                unit.effects.append(InboxMoved())
            if news == self._listed:
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
            )

        with watched.lock:
            # Set before the write, so that a store that cannot write does not turn into a storm of calls.
            recovered = watched.health.listed(self._clock.monotonic(), watched.settings.poll.interval)
        listed = self._keep(work)
        self._listed = news
        watched.list_read_at = started_at
        self._plan_listed(listed)
        self._catch_up()
        if recovered:
            log.info("The API answers again", extra=log_fields(account=watched.name))
            self._keep(self._hasten_deliveries)

    def _catch_up(self) -> None:
        """Poll the servers whose turn was passed over; not only at a recovery, whose list may not have been kept."""
        watched = self.watched
        with watched.lock:
            passed_over, watched.passed_over = sorted(watched.passed_over), set()
        self.plan_all([server_id for server_id in passed_over if watched.watches(server_id)])

    def _hasten_deliveries(self, unit: Unit) -> None:
        if deliveries.hasten(unit, self.watched.name):
            unit.effects.append(InboxMoved())

    def _plan_listed(self, listed: listing.Listed) -> None:
        watched = self.watched
        if not listed.added and not listed.gone:
            return
        waiting = []
        with watched.lock:
            watched.watch((set(watched.server_ids) - set(listed.gone)) | set(listed.added))
            now = self._clock.monotonic()
            for server_id in listed.gone:
                watched.schedule.drop(server_id)
                watched.failures.pop(server_id, None)
                waiting += [(done, server_id) for done in watched.waiting.pop(server_id, ())]
            for server_id in listed.added:
                watched.schedule.put(Task(Job.POLL, server_id), now)
        for done, server_id in waiting:
            _tell([done], self._unknown(server_id))
        fields = log_fields(account=watched.name, added=len(listed.added), gone=len(listed.gone))
        log.info("The account's servers changed", extra=fields)

    def _list_failed(self, error: PatrolServerError) -> None:
        watched = self.watched
        with watched.lock:
            began = watched.health.list_failed(self._clock.monotonic(), error, watched.settings.poll.interval)
            trouble = watched.health.trouble
        level = logging.ERROR if began else logging.DEBUG
        log.log(level, _TROUBLES[trouble], extra=log_fields(account=watched.name, err=str(error)))
        self._keep(lambda unit: listing.save_reachability(unit, watched.name, up=False, now=self._clock.now()))
        if trouble is Trouble.CREDENTIALS:
            watched.try_new_credentials(self._clock.monotonic())

    # One server's software

    def _poll(self, server_id: int) -> None:
        with self.watched.lock:
            waiting = self.watched.waiting.pop(server_id, [])
        try:
            outcome = self._ask_for_software(server_id)
        except BaseException:
            _tell(waiting, self._stopped() if self._stopping else "The poll's result could not be kept.")
            raise
        _tell(waiting, outcome)

    def _ask_for_software(self, server_id: int) -> str | None:
        """Poll a server; returns what went wrong."""
        watched, started_at = self.watched, self._clock.now()
        try:
            parsed = watched.client.software(server_id)
        except PatrolServerError as error:
            self._poll_failed(server_id, error)
            return str(error)
        with watched.lock:
            watched.health.call_succeeded()
            watched.failures.pop(server_id, None)
        self._note(parsed.oddities, f"software of server {server_id}")
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

        state = self._keep(work)
        if state is None:
            return self._unknown(server_id)
        if state.settle_poll_at is not None:
            wait = min(wait, max(state.settle_poll_at - self._clock.now(), 0.0))
        self._plan_next(Task(Job.POLL, server_id), wait)
        return None

    def _poll_failed(self, server_id: int, error: PatrolServerError) -> None:
        watched = self.watched
        with watched.lock:
            watched.health.call_failed(self._clock.monotonic(), error)
            failures = watched.failures.get(server_id, 0) + 1
            if watched.watches(server_id):
                watched.failures[server_id] = failures
            if isinstance(error, NotFound):
                watched.health.ask_for_list(self._clock.monotonic())
        wait = back_off(
            failures, base=_RETRY_BASE, cap=watched.interval, retry_after=error.retry_after, draw=watched.draw
        )
        level = logging.WARNING if failures == 1 else logging.DEBUG
        fields = log_fields(account=watched.name, server_id=server_id, err=str(error), retry_seconds=round(wait))
        log.log(level, "A server could not be polled; its old data stays and is marked as old", extra=fields)
        self._plan_next(Task(Job.POLL, server_id), wait)
        next_poll_at = self._clock.now() + wait
        self._keep(lambda unit: units.apply_poll_failure(unit, watched.name, server_id, next_poll_at=next_poll_at))

    # A server's running scan

    def _check_scan(self, server_id: int) -> None:
        watched, asked_at = self.watched, self._clock.now()
        try:
            running = watched.client.is_scanning(server_id)
        except PatrolServerError as error:
            with watched.lock:
                watched.health.call_failed(self._clock.monotonic(), error)
            if isinstance(error, NotFound):
                # Asked no more, so nothing may wait for the answer.
                self._keep(lambda unit: scans.apply_silence(unit, watched.name, server_id))
            else:
                self._plan_next(Task(Job.CHECK_SCAN, server_id), LIST_EVERY)
            return
        with watched.lock:
            watched.health.call_succeeded()
        state, ended = self._keep(
            lambda unit: scans.apply_check(unit, watched.name, server_id, running=running, asked_at=asked_at)
        )
        if state is not None and scans.is_watched(state):
            self.plan(Job.CHECK_SCAN, server_id, scans.next_check_after(state))
        if ended:
            self.plan(Job.POLL, server_id)


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


def _tell(waiting: Sequence[Callable[[str | None], None]], outcome: str | None) -> None:
    for done in waiting:
        try:
            done(outcome)
        except Exception:
            log.exception("Nobody could be told how a poll ended")


_TROUBLES = {
    Trouble.CREDENTIALS: "The API refuses the credentials: its calls are paused, and one try is made every few minutes",
    Trouble.UNREACHABLE: "The API cannot be used: old data stays and is marked as old until it answers again",
    Trouble.NONE: "The API answers",
}
