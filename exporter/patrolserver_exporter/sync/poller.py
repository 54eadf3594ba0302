"""The poller: asks the API for server lists, software and running scans, as often as due and as the budget allows."""

from __future__ import annotations

import functools
import logging
from typing import TYPE_CHECKING, TypeVar

from patrolserver_exporter.inbox import deliveries
from patrolserver_exporter.inbox.retry import back_off
from patrolserver_exporter.issues.trust import Alike
from patrolserver_exporter.lasting import LastingTrouble
from patrolserver_exporter.live.effects import InboxMoved, PollLost
from patrolserver_exporter.logs import log_fields
from patrolserver_exporter.patrolserver.errors import NotFound, PatrolServerError
from patrolserver_exporter.store import StoreError, StoreUnavailable
from patrolserver_exporter.sync import account_updates, operations, server_updates
from patrolserver_exporter.sync.account import ListStanding, stopped, unknown
from patrolserver_exporter.sync.health import LIST_EVERY, Trouble
from patrolserver_exporter.sync.schedule import Job, Task
from patrolserver_exporter.sync.server_updates import OtherPolls

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    import sqlalchemy as sa

    from patrolserver_exporter.clock import SteadyClock
    from patrolserver_exporter.live.own_metrics import Telemetry
    from patrolserver_exporter.patrolserver.models import Parsed, Server
    from patrolserver_exporter.store import Store, Unit
    from patrolserver_exporter.store.fleet import ServerState
    from patrolserver_exporter.sync.account import OnPolled, RunningAccount
    from patrolserver_exporter.sync.restore import Planned
    from patrolserver_exporter.sync.rules import Rules
    from patrolserver_exporter.sync.threads import AccountThreads


log = logging.getLogger(__name__)
T = TypeVar("T")


class StoppedError(Exception):
    """The account was restarted or removed: the result of a call under way is not kept."""


class Results:
    """Keeps the results of one account's calls."""

    def __init__(self, account: RunningAccount, store: Store, telemetry: Telemetry) -> None:
        self._account = account
        self._store = store
        self._telemetry = telemetry
        self._noted: dict[str, int] = {}
        """What was odd about a reply when it was last read, as a hash: said once and not at every poll."""

    def keep(self, work: Callable[[Unit], T]) -> T:
        """Have the store do a unit of work; `StoppedError` if the account was restarted or removed meanwhile."""

        def unless_stopped(unit: Unit) -> T:
            if self._account.is_stopping:
                raise StoppedError
            return work(unit)

        return self._store.run(unless_stopped, self._account.name)

    def read(self, work: Callable[[sa.Connection], T]) -> T:
        """Read the store; `StoppedError` if the account was restarted or removed meanwhile."""
        found = self._store.read_patiently(work)
        if self._account.is_stopping:
            raise StoppedError
        return found

    def keep_pause(self) -> None:
        """Keep until when the account makes no calls, which has just changed; raises as `keep` does."""
        self.keep(lambda unit: account_updates.save_pause(unit, self._account.name, self._account.pause))

    def lost(self, server_id: int) -> None:
        """Show that what the server's turn brought could not be kept, unless it is tried again at once."""
        if not self._account.is_stopping:
            self._store.emit([PollLost(self._account.name, server_id)])

    def note(self, oddities: Sequence[str], about: str) -> None:
        """Count what was odd about a reply, and say it if it is news."""
        if not oddities:
            self._noted.pop(about, None)
            return
        self._telemetry.wire_oddity(self._account.name, len(oddities))
        said = hash(tuple(oddities))
        level = logging.DEBUG if self._noted.get(about) == said else logging.WARNING
        self._noted[about] = said
        fields = log_fields(account=self._account.name, about=about, odd="; ".join(oddities[:5]))
        log.log(level, "The API's reply was odd", extra=fields)

    def polled(self, awaiting: Iterable[OnPolled], error: str | None) -> None:
        """Tell those who wait for a poll that it ended, with this error or well."""
        for done in awaiting:
            try:
                done(error)
            except Exception:
                self._telemetry.error("poller")
                log.exception("The end of a poll could not be reported to those who wait for it")


class ServerList:
    """One account's list, asked for by one thread at a time."""

    def __init__(self, account: RunningAccount, results: Results, clock: SteadyClock) -> None:
        self._account = account
        self._results = results
        self._clock = clock
        self._last: object = None
        """The list that is in the state, and the rules it was read by."""
        self._down = LastingTrouble(log, clock, logging.ERROR)
        self._partial = LastingTrouble(log, clock)
        self._shrunk = LastingTrouble(log, clock)

    def ask(self) -> None:
        """Make the call, and let it take effect; raises `StoreError` and `StoppedError`."""
        account, began = self._account, self._clock.moment()
        try:
            parsed = account.client.servers()
        except PatrolServerError as error:
            self._failed(error)
            return
        self._results.note(parsed.oddities, "servers")

        rules = account.rules
        because = parsed.partial_because
        news = (parsed.value, because, rules)
        # Noted before the write, so that a store that cannot write does not turn into a storm of calls.
        recovered = account.list_succeeded()
        listed = self._keep(parsed, rules) if news != self._last else self._keep_unchanged()
        self._last = news if listed.confirm_in is None else None
        account.list_was_read(ListStanding(parsed.complete, because, listed.missing), self._clock.time_of(began))
        self._say(because, listed)
        self._follow(listed)
        # Not only at a recovery, whose list may not have been kept.
        account.plan_spread(account.take_passed_over())
        self._down.is_over("The API answers again", account=account.name)
        if recovered:
            self._results.keep(self._hasten_deliveries)

    def _keep_unchanged(self) -> account_updates.Listed:
        # Nearly always: the whole fleet need not be read to see that nothing changed.
        def work(unit: Unit) -> account_updates.Listed:
            self._unblock_deliveries(unit)
            account_updates.save_reachability(
                unit, self._account.name, up=True, now=self._clock.now(), pause=self._account.pause
            )
            return account_updates.Listed()

        return self._results.keep(work)

    def _keep(self, parsed: Parsed[tuple[Server, ...]], rules: Rules) -> account_updates.Listed:
        """Let a list take effect: some of its servers at a time, for a large fleet in one unit holds up deliveries."""
        account, began = self._account, self._clock.moment()
        plan = self._results.read(
            lambda connection: account_updates.plan_list(
                connection,
                account.name,
                parsed.value,
                complete=parsed.complete,
                partial_because=parsed.partial_because,
                now=began.at,
                rules=rules,
                watched=account.server_ids,
            )
        )
        # Should it end in the middle, the next list is held against the state even if it is the one before this.
        self._last = None
        *parts, last = account_updates.parts_of(plan.server_ids) or [()]

        def apply(unit: Unit, part: Sequence[int]) -> float:
            # The clock may be set between two units, and the state follows it.
            now = self._clock.time_of(began)
            account_updates.apply_part(unit, plan, part, now=now, rules=rules)
            return now

        for part in parts:
            self._results.keep(functools.partial(apply, part=part))

        def end(unit: Unit) -> account_updates.Listed:
            self._unblock_deliveries(unit)
            now = apply(unit, last)
            return account_updates.end_list(unit, plan, now=now, rules=rules, pause=account.pause)

        return self._results.keep(end)

    def _unblock_deliveries(self, unit: Unit) -> None:
        if deliveries.unblock(unit, self._account.name):
            unit.effects.append(InboxMoved())

    def _hasten_deliveries(self, unit: Unit) -> None:
        if deliveries.hasten(unit, self._account.name):
            unit.effects.append(InboxMoved())

    def _follow(self, listed: account_updates.Listed) -> None:
        account = self._account
        if listed.confirm_in is not None:
            account.ask_for_list(listed.confirm_in)
        if not listed.is_news:
            return
        in_vain = account.change_servers(added=listed.added, gone=listed.gone, renamed=listed.renamed)
        for done, server_id in in_vain:
            self._results.polled([done], unknown(account.name, server_id))
        counts = {"added": len(listed.added), "gone": len(listed.gone), "renamed": len(listed.renamed)}
        fields = log_fields(account=account.name, **counts)
        log.info("The account's servers changed", extra=fields)

    def _say(self, because: tuple[str, ...], listed: account_updates.Listed) -> None:
        name = self._account.name
        if because:
            self._partial.lasts(
                "The account's server list is a part of the whole: servers that it lacks are kept, globs over the "
                "account are unknown to the gate",
                account=name,
                because="; ".join(because),
            )
        else:
            self._partial.is_over("The account's server list is whole again", account=name)
        if listed.confirm_in is not None:
            self._shrunk.lasts(
                "The account's server list lost so many servers that another one has to confirm it; until then the "
                "missing ones are unknown to the gate",
                account=name,
                missing=listed.missing,
                confirm_seconds=round(listed.confirm_in),
            )
        elif not because:
            self._shrunk.is_over("The account's server list is believed again", account=name)

    def _failed(self, error: PatrolServerError) -> None:
        account = self._account
        began, trouble = account.list_failed(error)
        if began:
            self._down.forget()
        self._down.lasts(_TROUBLES[trouble], account=account.name, err=str(error))
        answer = None
        if error.leaves_doubt:
            answer = error.what_happened
            account.list_was_read(account.list_standing._replace(complete=False, partial_because=(answer,)))
            # The next list is held against the state even if it is the one before this answer.
            self._last = None
        self._results.keep(
            lambda unit: account_updates.save_reachability(
                unit,
                account.name,
                up=False,
                now=self._clock.now(),
                pause=account.pause,
                answer=answer,
                standing=account.standing,
            )
        )
        account.try_new_credentials()


_TROUBLES = {
    Trouble.CREDENTIALS: "The API refuses the credentials: its calls are paused, and one try is made every few minutes",
    Trouble.UNREACHABLE: "The API cannot be used: old data stays and is marked as old until it answers again",
    Trouble.NONE: "The API answers",
}


RETRY_BASE = 30.0
_SOON = 5.0
"""Seconds from seeing a scan run to asking again."""
_REASONS = 3
"""What made a poll partial, told of one server."""
_CHUNK = 100


class ServerCalls:
    """What is asked about an account's servers; each call ends by planning the server's next turn."""

    def __init__(self, account: RunningAccount, results: Results, clock: SteadyClock) -> None:
        self._account = account
        self._results = results
        self._clock = clock
        self._alike = Alike()

    def poll(self, server_id: int) -> None:
        """Ask for a server's software, and tell those who wait; raises `StoreError` and `StoppedError`."""
        account = self._account
        awaiting = account.take_awaiting(server_id)
        asked = [one.refresh_id for one in awaiting if isinstance(one, operations.AskedFor)]
        try:
            error = self._ask_for_software(server_id, asked)
        except BaseException:
            self._results.lost(server_id)
            self._results.polled(
                awaiting, stopped(account.name) if account.is_stopping else "The poll's result could not be kept."
            )
            raise
        self._results.polled(awaiting, error)

    def _ask_for_software(self, server_id: int, asked: Sequence[str]) -> str | None:
        """Returns what went wrong; the refreshes ``asked`` for end in the same transaction as the poll."""
        account, began = self._account, self._clock.moment()
        try:
            parsed = account.client.software(server_id)
        except PatrolServerError as error:
            self._poll_failed(server_id, error, asked)
            return str(error)
        if failures := account.failures_of(server_id):
            fields = log_fields(account=account.name, server_id=server_id, tries=failures)
            log.info("A server can be polled again", extra=fields)
        go_on = account.call_succeeded(polled=server_id)
        self._results.note(parsed.oddities, f"software of server {server_id}")
        wait = account.turn_after(server_id, began.at)
        others = OtherPolls(self._alike, account.interval)

        def work(unit: Unit) -> ServerState | None:
            if go_on:
                account_updates.save_pause(unit, account.name, None)
            started_at = self._clock.time_of(began)
            state = server_updates.apply_poll(
                unit,
                account.name,
                server_id,
                parsed.value,
                complete=parsed.complete,
                incomplete_because="; ".join(parsed.partial_because[:_REASONS]) or None,
                started_at=started_at,
                next_poll_at=started_at + wait,
                now=self._clock.now(),
                rules=account.rules,
                others=others,
            )
            operations.finish(unit, asked, None if state is not None else unknown(account.name, server_id))
            return state

        state = self._results.keep(work)
        self._alike.doubted(others.doubted)
        for other in others.doubted:
            account.plan_turn(Task(Job.POLL, other), account.rules.settle)
        if state is None:
            return unknown(account.name, server_id)
        if state.settle_poll_at is not None:
            wait = min(wait, max(state.settle_poll_at - self._clock.now(), 0.0))
        account.plan_turn(Task(Job.POLL, server_id), wait)
        if server_updates.is_scan_due(state, now := self._clock.now()):
            account.plan_look(server_id, at_least=(state.scan_put_off_until or now) - now)
        return None

    def _poll_failed(self, server_id: int, error: PatrolServerError, asked: Sequence[str]) -> None:
        account = self._account
        paused = account.call_failed(error, server_id)
        failures = account.poll_failed(server_id)
        if isinstance(error, NotFound) and failures == 1:
            # Perhaps it is gone. If the list still has it, asking again at each try would tell nothing new.
            account.ask_for_list()
        asked_to_wait = account.wait_for(error)
        wait = back_off(failures, base=RETRY_BASE, cap=account.interval, retry_after=asked_to_wait, draw=account.draw)
        account.plan_turn(Task(Job.POLL, server_id), wait)
        now, name = self._clock.now(), None
        put_off_until = None if asked_to_wait is None else now + asked_to_wait

        def work(unit: Unit) -> str | None:
            operations.finish(unit, asked, str(error))
            if paused:
                account_updates.save_pause(unit, account.name, account.pause)
            # A server that the list has, and that the API does not know, may be anything.
            leaves_doubt = error.leaves_doubt or isinstance(error, NotFound)
            answer = error.what_happened if leaves_doubt else None
            return server_updates.apply_poll_failure(
                unit, account.name, server_id, next_poll_at=now + wait, answer=answer, put_off_until=put_off_until
            )

        try:
            name = self._results.keep(work)
        finally:
            if paused and (pause := account.pause):
                fields = log_fields(account=account.name, until=pause.until, err=pause.reason)
                log.warning("The API put off several calls, so the account makes only the list call", extra=fields)
            level = logging.WARNING if failures == 1 else logging.DEBUG
            # With the name, since that is what people look for in the log.
            who = {"account": account.name, "server": name, "server_id": server_id}
            fields = log_fields(**who, err=str(error), retry_seconds=round(wait))
            log.log(level, "A server could not be polled; its old data stays and is marked as old", extra=fields)

    def check_scan(self, server_id: int) -> None:
        """Ask whether a scan is running; raises `StoreError` and `StoppedError`."""
        account, began = self._account, self._clock.moment()
        try:
            running = account.client.is_scanning(server_id)
        except PatrolServerError as error:
            if isinstance(error, NotFound):
                account.call_failed(error, server_id)
                # Asked no more, so nothing may wait for the answer.
                self._results.keep(lambda unit: server_updates.apply_silence(unit, account.name, server_id))
            else:
                account.plan_turn(Task(Job.CHECK_SCAN, server_id), max(LIST_EVERY, account.wait_for(error) or 0.0))
                self._scan_check_failed(server_id, error)
            return
        account.call_succeeded()
        state, ended = self._results.keep(
            lambda unit: server_updates.apply_check(
                unit, account.name, server_id, running=running, asked_at=self._clock.time_of(began)
            )
        )
        if state is not None and server_updates.is_scan_awaited(state):
            account.plan_turn(Task(Job.CHECK_SCAN, server_id), server_updates.next_scan_check_after(state))
        if ended:
            account.plan_turn(Task(Job.POLL, server_id))

    def look_for_scan(self, server_id: int) -> None:
        """Ask whether a scan runs that nobody announced; raises `StoreError` and `StoppedError`."""
        account, began = self._account, self._clock.moment()
        try:
            running = account.client.is_scanning(server_id)
        except PatrolServerError as error:
            # Nobody waits for the answer, and the next poll plans another look.
            self._scan_check_failed(server_id, error)
            return
        account.call_succeeded()
        if not running:
            account.plan_look(server_id)
            return
        self._results.keep(
            lambda unit: server_updates.apply_check(
                unit, account.name, server_id, running=True, asked_at=self._clock.time_of(began)
            )
        )
        account.plan_turn(Task(Job.CHECK_SCAN, server_id), _SOON)

    def _scan_check_failed(self, server_id: int, error: PatrolServerError) -> None:
        """Keep how long the API asked to wait: a restart, or another exporter, must not call into that."""
        account = self._account
        paused, asked_to_wait = account.call_failed(error, server_id), account.wait_for(error)
        until = None if asked_to_wait is None else self._clock.now() + asked_to_wait

        def work(unit: Unit) -> None:
            if paused:
                account_updates.save_pause(unit, account.name, account.pause)
            if until is not None:
                server_updates.put_scan_check_off(unit, account.name, server_id, until)

        if paused or until is not None:
            self._results.keep(work)

    def mark_unpolled(self, server_ids: Sequence[int]) -> None:
        """Mark servers as not polled whose turn came while no call could be made."""
        next_poll_at = self._clock.now()

        def work(unit: Unit, chunk: Sequence[int]) -> None:
            for server_id in chunk:
                server_updates.apply_poll_failure(unit, self._account.name, server_id, next_poll_at=next_poll_at)

        # A whole fleet in one unit would hold up deliveries.
        for start in range(0, len(server_ids), _CHUNK):
            try:
                self._results.keep(functools.partial(work, chunk=server_ids[start : start + _CHUNK]))
            except StoreError:
                # They must not seem to be polled as soon as the store can write again, so their turn comes once more.
                self._account.give_turns_back(server_ids[start:], RETRY_BASE)
                raise


class AccountPoller:
    """Polls one account's servers.

    ``pump`` starts what is due; a thread that finishes a call pumps again, so the threads never wait for a tick.
    """

    def __init__(
        self, account: RunningAccount, threads: AccountThreads, store: Store, clock: SteadyClock, telemetry: Telemetry
    ) -> None:
        self.account = account
        self._clock = clock
        self._telemetry = telemetry
        self.threads = threads
        self._results = Results(account, store, telemetry)
        self._list = ServerList(account, self._results, clock)
        self._calls = ServerCalls(account, self._results, clock)
        self._call_of = {
            Job.POLL: self._calls.poll,
            Job.CHECK_SCAN: self._calls.check_scan,
            Job.LOOK_FOR_SCAN: self._calls.look_for_scan,
        }

    def resume(self, records: Sequence[Planned]) -> None:
        """Plan the servers of the restored state as they were planned; what is overdue is spread over time."""
        account, now = self.account, self._clock.now()
        account.set_servers(record.server_id for record in records)
        turns = _waits(records, now, account.interval, account.config.poll.max_pause)
        waits = {}
        for record in records:
            wait = turns[record.server_id]
            state = record.state
            if state.settle_poll_at is not None:
                wait = min(wait, max(state.settle_poll_at - now, 0.0))
            doubts = (state.event_received_at, state.in_doubt_since, state.came_back_at)
            if (state.last_poll_at or 0.0) < max(at or 0.0 for at in doubts):
                # The poll at once after an event, a new name or a return did not come about before the stop.
                wait = 0.0
            put_off, scan_put_off = (
                min(max((until or now) - now, 0.0), account.config.poll.max_pause)
                for until in (state.put_off_until, state.scan_put_off_until)
            )
            waits[Task(Job.POLL, record.server_id)] = max(wait, put_off)
            if server_updates.is_scan_awaited(state):
                waits[Task(Job.CHECK_SCAN, record.server_id)] = max(put_off, scan_put_off)
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
        self.threads.drop_waiting()
        self._results.polled(in_vain, stopped(self.account.name))

    def pump(self) -> None:
        """Start what is due, as far as health, budget and threads allow."""
        due = self.account.take_due()
        if due.list_servers:
            self.threads.submit(self._run, self._list_servers)
        for task in due.tasks:
            self.threads.submit(self._run, self._finish, task, self._call_of[task.job])
        if due.passed_over:
            self.threads.submit(self._run, self._calls.mark_unpolled, due.passed_over)
        self._results.polled(due.refused, f"The account {self.account.name} cannot be polled now: {due.why}")

    def _run(self, work: Callable[..., None], *arguments: object) -> None:
        try:
            work(*arguments)
        except StoppedError:
            log.debug("A late result was left out", extra=log_fields(account=self.account.name))
        except StoreUnavailable as error:
            # The store has said it itself, once and not for each server.
            self._telemetry.error("store")
            log.debug("A poll's result could not be kept", extra=log_fields(account=self.account.name, err=str(error)))
        except StoreError as error:
            self._telemetry.error("store")
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


def _waits(records: Sequence[Planned], now: float, interval: float, max_pause: float) -> dict[int, float]:
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
