"""The poller: asks the API for server lists, software and running scans, as often as due and as the budget allows."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from patrolserver_exporter.logs import log_fields
from patrolserver_exporter.store import StoreError, StoreUnavailable
from patrolserver_exporter.sync import scans
from patrolserver_exporter.sync.account import stopped
from patrolserver_exporter.sync.calls import RETRY_BASE, Results, ServerCalls, ServerList, StoppedError
from patrolserver_exporter.sync.schedule import Job, Task
from patrolserver_exporter.sync.threads import Threads

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from patrolserver_exporter.clock import SteadyClock
    from patrolserver_exporter.live.own_metrics import Telemetry
    from patrolserver_exporter.store import Store, fleet
    from patrolserver_exporter.sync.account import OnPolled, RunningAccount

log = logging.getLogger(__name__)


class AccountPoller:
    """Polls one account's servers with a few threads.

    ``pump`` starts what is due; whoever finishes a call pumps again, so the threads never wait for a tick.
    """

    def __init__(self, account: RunningAccount, store: Store, clock: SteadyClock, telemetry: Telemetry) -> None:
        self.account = account
        self._clock = clock
        self._telemetry = telemetry
        self._threads = Threads(account.config.poll.concurrency + 1, f"poll-{account.name}")
        self._results = Results(account, store, telemetry)
        self._list = ServerList(account, self._results, clock)
        self._calls = ServerCalls(account, self._results, clock)

    def resume(self, records: Sequence[fleet.ServerRecord]) -> None:
        """Plan the servers of the restored state as they were planned; what is overdue is spread over time."""
        account, now = self.account, self._clock.now()
        account.set_servers(record.server_id for record in records)
        turns = _waits(records, now, account.interval, account.config.poll.max_pause)
        waits = {}
        for record in records:
            wait = turns[record.server_id]
            if record.state.settle_poll_at is not None:
                wait = min(wait, max(record.state.settle_poll_at - now, 0.0))
            state = record.state
            doubted_since = max(state.event_received_at or 0.0, state.in_doubt_since or 0.0, state.returned_at or 0.0)
            if (record.state.last_poll_at or 0.0) < doubted_since:
                # The poll at once after an event or a new name did not come about before the stop.
                wait = 0.0
            waits[Task(Job.POLL, record.server_id)] = wait
            if scans.is_awaited(record.state):
                waits[Task(Job.CHECK_SCAN, record.server_id)] = 0.0
        account.plan_all(waits)

    def plan(self, job: Job, server_id: int) -> None:
        """Have a job done now."""
        self.account.plan(Task(job, server_id))
        self.pump()

    def refresh(self, server_id: int, done: OnPolled) -> None:
        """Poll a server now; ``done`` hears, once, how a poll that starts from now on ended: the error, or ``None``."""
        refusal = self.account.await_poll(server_id, done)
        if refusal is None:
            self.plan(Job.POLL, server_id)
        else:
            done(refusal)

    def list_now(self) -> None:
        """Ask for the server list at once, unless a trouble spaces such calls out."""
        self.account.ask_for_list()
        self.pump()

    def begin_stop(self) -> None:
        """Start nothing more, and keep nothing of what is under way."""
        in_vain = self.account.stop()
        self._threads.shutdown(wait=False, cancel_futures=True)
        self._results.polled(in_vain, stopped(self.account.name))

    def join(self, patience: float) -> None:
        """Wait for the calls under way, at most ``patience`` seconds."""
        self._threads.join(patience)

    def pump(self) -> None:
        """Start what is due, as far as health, budget and threads allow."""
        due = self.account.take_due()
        if due.list_servers:
            self._threads.submit(self._run, self._list_servers)
        for task in due.tasks:
            call = self._calls.poll if task.job is Job.POLL else self._calls.check_scan
            self._threads.submit(self._run, self._finish, task, call)
        if due.passed_over:
            self._threads.submit(self._run, self._calls.mark_unpolled, due.passed_over)
        self._results.polled(due.refused, f"The account {self.account.name} cannot be polled now: {due.why}")

    def _run(self, work: Callable[..., None], *arguments: object) -> None:
        try:
            work(*arguments)
        except StoppedError:
            log.debug("A late result was left out", extra=log_fields(account=self.account.name))
        except StoreUnavailable as error:
            # The store has said it itself, once and not for each server.
            self._telemetry.error("poller")
            log.debug("A poll's result could not be kept", extra=log_fields(account=self.account.name, err=str(error)))
        except StoreError as error:
            self._telemetry.error("poller")
            log.exception(
                "A poll's result could not be kept", extra=log_fields(account=self.account.name, err=str(error))
            )
        except Exception:
            self._telemetry.error("poller")
            log.exception("The poller failed; this is a bug", extra=log_fields(account=self.account.name))
        self.pump()

    def _list_servers(self) -> None:
        try:
            self._list.ask()
        finally:
            self.account.list_ended()

    def _finish(self, task: Task, call: Callable[[int], None]) -> None:
        try:
            call(task.server_id)
        except BaseException:
            # What failed for a reason of our own must not fall out of the schedule.
            self.account.plan_turn(task, RETRY_BASE)
            raise
        finally:
            self.account.task_ended(task)


def _waits(records: Sequence[fleet.ServerRecord], now: float, interval: float, max_pause: float) -> dict[int, float]:
    """Seconds to the next poll of each server.

    What is overdue is spread over its part of the interval, and so is what seems to be planned for later than any poll
    is: the clock was set back since.
    """
    waits = {r.server_id: max((r.next_poll_at or now) - now, 0.0) for r in records}
    unplanned = {r.server_id for r in records if r.next_poll_at is None}
    longest = max(interval * 5 / 4, max_pause)
    overdue = [i for i, wait in waits.items() if i not in unplanned and not 0.0 < wait <= longest]
    spread = interval * len(overdue) / max(len(records), 1)
    return waits | {server_id: spread * place / len(overdue) for place, server_id in enumerate(overdue)}
