"""The worker: takes deliveries from the inbox, has the API confirm their events, and lets them take effect."""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING

from patrolserver_exporter.inbox import deliveries
from patrolserver_exporter.inbox.deliveries import DeliveryState
from patrolserver_exporter.inbox.retry import NextStep, back_off, next_step_after, next_step_after_bug
from patrolserver_exporter.live.effects import InboxMoved
from patrolserver_exporter.logs import log_fields
from patrolserver_exporter.patrolserver.errors import PatrolServerError, Refused
from patrolserver_exporter.store import ClaimLost, StoreError, StoreUnavailable
from patrolserver_exporter.sync.account import EVENTS_AT_ONCE
from patrolserver_exporter.sync.poller import Results, StoppedError
from patrolserver_exporter.sync.schedule import Job
from patrolserver_exporter.sync.server_updates import FollowUp, conclude, needs_server, note_failure

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from patrolserver_exporter.clock import Moment, SteadyClock
    from patrolserver_exporter.inbox.deliveries import Delivery
    from patrolserver_exporter.live.own_metrics import Telemetry
    from patrolserver_exporter.patrolserver.models import Event, Parsed
    from patrolserver_exporter.store import Store, Unit
    from patrolserver_exporter.sync.poller import AccountPoller

log = logging.getLogger(__name__)

_IDLE = 1.0
"""Seconds after which the inbox is looked at again even if nobody said that something moved."""
_TRIED_AGAIN = "The delivery will be tried again when its lease runs out"
_UNKEPT_WAIT = 2.0
"""Seconds until a delivery is due again after the store failed to keep what came of it.

It doubles while the store goes on failing, as a full disk does, which lets claims through but no results.
"""
_LIST_TRUSTED_FOR = 10.0
"""Seconds in which a successful list call shows that the credentials are good.

Shorter than the tries of a delivery take before it is rejected: at one of them a revocation is always noticed.
"""


class InboxDispatcher:
    """Claims what is due, for all accounts, on a thread of its own; their workers have it fetched."""

    def __init__(self, store: Store, telemetry: Telemetry, clock: SteadyClock) -> None:
        self._store = store
        self._telemetry = telemetry
        self._clock = clock
        self._workers: dict[str, AccountWorker] = {}
        self._condition = threading.Condition()
        self._woken = False
        self._stopping = False
        self.last_progress = clock.monotonic()
        """When it last went round (monotonic seconds); the watchdog looks at it."""
        self._thread: threading.Thread | None = None

    def put(self, worker: AccountWorker) -> None:
        """Claim for this account from now on, in the place of an earlier worker of it."""
        with self._condition:
            self._workers[worker.name] = worker
            if self._thread is None and not self._stopping:
                self._thread = threading.Thread(target=self._run, name="inbox", daemon=True)
                self._thread.start()
        self.wake()

    def remove(self, worker: AccountWorker) -> None:
        """Claim for it no more."""
        with self._condition:
            if self._workers.get(worker.name) is worker:
                del self._workers[worker.name]

    def wake(self) -> None:
        """Something may be due, or can be taken again."""
        with self._condition:
            self._woken = True
            self._condition.notify()

    def begin_stop(self) -> None:
        """Claim nothing more."""
        self._stopping = True
        self.wake()

    def join(self, patience: float) -> None:
        """Wait for the thread's end; a store that is silent would keep it for ever."""
        if self._thread is not None:
            self._thread.join(patience)

    def _run(self) -> None:
        wait = 0.0
        while not self._stopping:
            with self._condition:
                if not self._woken:
                    self._condition.wait(wait)
                self._woken = False
                workers = dict(self._workers)
            try:
                wait = self._dispatch(workers)
            except StoreError as error:
                wait = self._failed("The inbox cannot be read", error)
            except Exception as error:
                log.exception("The inbox could not be worked; this is a bug")
                wait = self._failed("The inbox is worked on", error)
            self.last_progress = self._clock.monotonic()

    def _failed(self, what: str, error: Exception) -> float:
        _failed(self._telemetry, what, error)
        return _IDLE

    def _dispatch(self, workers: Mapping[str, AccountWorker]) -> float:
        """Claim what is due and can be fetched now; returns how long there is nothing to do, in seconds."""
        # The store is asked only where it may be one of many, since it looks at all that waits; and first, since of
        # hundreds of accounts nearly all have nothing due.
        if len(workers) > 1 and not self._stopping and any(not worker.idle_for() for worker in workers.values()):
            workers = self._due_of(workers)
        idle = {name: worker.idle_for() for name, worker in workers.items()}
        due = [name for name, seconds in idle.items() if not seconds]
        claimed: dict[str, list[Delivery]] = {}
        if due and not self._stopping:

            def work(unit: Unit) -> None:
                for name in due:
                    claimed[name] = workers[name].claim(unit)

            try:
                self._store.run(work, *due)
            except BaseException:
                for name, taken in claimed.items():
                    workers[name].let_go(len(taken))
                raise
        for name, taken in claimed.items():
            workers[name].fetch(taken)
        if any(claimed.values()):
            # There may be more.
            return 0.0
        return min((seconds for seconds in idle.values() if seconds), default=_IDLE)

    def _due_of(self, workers: Mapping[str, AccountWorker]) -> dict[str, AccountWorker]:
        now = self._clock.now()
        due = set(self._store.read_patiently(lambda connection: deliveries.due_accounts(connection, now=now)))
        return {name: worker for name, worker in workers.items() if name in due or worker.has_unkept}


def _failed(telemetry: Telemetry, what: str, error: Exception, account: str | None = None) -> None:
    telemetry.error("store" if isinstance(error, StoreError) else "worker")
    # What the store cannot do, it has said itself, once and not for each delivery.
    level = logging.DEBUG if isinstance(error, StoreUnavailable) else logging.ERROR
    of_account = {} if account is None else {"account": account}
    log.log(level, what, extra=log_fields(**of_account, err=str(error)))


class Unkept:
    """Deliveries of an account whose event was fetched while the store could not keep what came of it.

    Nobody works on them, though their claims run for minutes: they are to be due again.
    """

    def __init__(self, clock: SteadyClock, draw: Callable[[], float], longest_wait: float) -> None:
        """``longest_wait`` in seconds: after it their claims have run out anyway."""
        self._clock = clock
        self._draw = draw
        self._longest_wait = longest_wait
        self._lock = threading.Lock()
        self._deliveries: list[Delivery] = []
        self._failures = 0
        self._due_at = 0.0
        """Monotonic seconds."""

    def add(self, delivery: Delivery) -> None:
        """The store failed to keep what came of it. What fails together is one failure."""
        now = self._clock.monotonic()
        with self._lock:
            self._deliveries.append(delivery)
            if now >= self._due_at:
                self._failures += 1
                self._due_at = now + back_off(
                    self._failures, base=_UNKEPT_WAIT, cap=self._longest_wait, retry_after=None, draw=self._draw
                )

    def succeeded(self) -> None:
        """The store keeps results again."""
        with self._lock:
            self._failures = 0

    def is_due(self) -> bool:
        """Whether some are to be made due again."""
        with self._lock:
            return bool(self._deliveries) and self._clock.monotonic() >= self._due_at

    def release(self, unit: Unit) -> Sequence[Delivery]:
        """Make them due again, where their claims are still the same; `forget` them once that is committed."""
        if not self.is_due():
            return ()
        with self._lock:
            released = tuple(self._deliveries)
        for delivery in released:
            deliveries.let_go(unit, delivery)
        return released

    def forget(self, released: Sequence[Delivery]) -> None:
        """It is committed that they are due again."""
        with self._lock:
            self._deliveries = [delivery for delivery in self._deliveries if delivery not in released]


class AccountWorker:
    """Works one account's inbox, a few deliveries at the same time.

    A claim fences every write: what comes back after its lease ran out changes nothing.
    """

    def __init__(
        self,
        poller: AccountPoller,
        store: Store,
        clock: SteadyClock,
        telemetry: Telemetry,
        wake: Callable[[], None],
    ) -> None:
        """``wake`` is called when it could take another delivery."""
        self._poller = poller
        self._account = poller.account
        self._results = Results(self._account, store, telemetry)
        self._store = store
        self._clock = clock
        self._telemetry = telemetry
        self._wake = wake
        self._lease = 4 * self._account.config.poll.timeout + 30.0
        self._lock = threading.Lock()
        self._free = EVENTS_AT_ONCE
        self._stopping = False
        self._list_asked_for: Moment | None = None
        """When a list call was last wanted that shows whether the credentials are good."""
        self._threads = poller.threads
        self._unkept = Unkept(clock, self._account.draw, self._lease)
        self._released: Sequence[Delivery] = ()
        """Of the unkept: which ones are made due again with the claims that are being committed."""

    @property
    def name(self) -> str:
        """The account's."""
        return self._account.name

    def begin_stop(self) -> None:
        """Take nothing more. What is claimed already is let go by its thread."""
        self._stopping = True

    def idle_for(self) -> float:
        """Seconds for which it can take no delivery, as far as that is known; 0 if it can."""
        if self._stopping or not self._account.allows_events():
            return _IDLE
        with self._lock:
            if not self._free:
                # The next one that ends wakes us up.
                return _IDLE
        return min(self._account.budgets.events.seconds_until_available(), _IDLE)

    @property
    def has_unkept(self) -> bool:
        """Whether a claim would find some that are not due yet for all others."""
        return self._unkept.is_due()

    def claim(self, unit: Unit) -> list[Delivery]:
        """Claim what is due and can be fetched now; `let_go` if that cannot be committed, else `fetch`."""
        self._released = ()
        if self._stopping or not self._account.allows_events():
            return []
        budget = self._account.budgets.events
        with self._lock:
            granted = 0
            while granted < self._free and budget.try_take():
                granted += 1
            self._free -= granted
        claimed: list[Delivery] = []
        try:
            self._released = self._unkept.release(unit)
            if granted:
                claimed = deliveries.claim(unit, self.name, now=self._clock.now(), lease=self._lease, limit=granted)
        finally:
            self.let_go(granted - len(claimed))
        return claimed

    def let_go(self, count: int) -> None:
        """So many were granted, and are not fetched."""
        if count:
            self._account.budgets.events.give_back(count)
            with self._lock:
                self._free += count

    def fetch(self, claimed: Iterable[Delivery]) -> None:
        """Have these fetched, and let them take effect."""
        self._unkept.forget(self._released)
        for delivery in claimed:
            self._threads.submit_urgent(self._handle, delivery)

    def _handle(self, delivery: Delivery) -> None:
        parsed = None
        try:
            parsed = self._fetch(delivery)
            if parsed is not None:
                self._apply(delivery, parsed)
            self._unkept.succeeded()
        except StoppedError:
            self._let_go(delivery)
        except ClaimLost as error:
            log.warning("A late result was left out", extra=log_fields(account=delivery.account, err=str(error)))
        except StoreError as error:
            self._unkept.add(delivery)
            _failed(self._telemetry, "An event could not be kept; it will be fetched again", error, delivery.account)
        except Exception as error:
            log.exception("An event could not be applied; this is a bug", extra=log_fields(delivery=delivery.id))
            self._telemetry.error("worker")
            self._put_off(delivery, error, None if parsed is None else parsed.body)
        finally:
            with self._lock:
                self._free += 1
            self._wake()

    def _put_off(self, delivery: Delivery, error: Exception, body: bytes | None) -> None:
        """Try a delivery again that met a bug, or leave it to the operator; else it would be tried at each lease."""
        next_step = next_step_after_bug(state_attempts=delivery.attempts, draw=self._account.draw)
        settle = self._account.config.issues.settle
        why = f"The event could not be applied, which is a bug: {type(error).__name__}; the log has the details"
        try:
            self._store.run(
                lambda unit: note_failure(
                    unit, delivery, next_step, now=self._clock.now(), error=why, settle=settle, body=body
                ),
                self.name,
            )
        except StoreError as unkept:
            self._unkept.add(delivery)
            _failed(self._telemetry, _TRIED_AGAIN, unkept, delivery.account)

    def _let_go(self, delivery: Delivery) -> None:
        """Leave a delivery to the account's next run: what it asks for may need another configuration."""

        def work(unit: Unit) -> None:
            deliveries.let_go(unit, delivery)
            unit.effects.append(InboxMoved())

        try:
            self._store.run(work, self.name)
        except StoreError as unkept:
            _failed(self._telemetry, _TRIED_AGAIN, unkept, delivery.account)

    def _fetch(self, delivery: Delivery) -> Parsed[Event] | None:
        """What the API says of a delivery's event; ``None`` if it did not confirm it, and then its end is written."""
        account = self._account
        if account.is_stopping:
            raise StoppedError
        try:
            parsed = account.client.event(delivery.webhook_id, delivery.event_id)
        except PatrolServerError as error:
            if not isinstance(error, Refused) and account.call_failed(error):
                self._results.keep_pause()
            self._not_confirmed(delivery, self._next_step(delivery, error), str(error))
            return None
        account.call_succeeded()
        return parsed

    def _next_step(self, delivery: Delivery, error: PatrolServerError) -> NextStep:
        trusted = isinstance(error, Refused) and self._credentials_are_good()
        return next_step_after(
            error,
            received_at=delivery.received_at,
            state_attempts=delivery.attempts,
            credentials_are_good=trusted,
            now=self._clock.now(),
            draw=self._account.draw,
        )

    def _credentials_are_good(self) -> bool:
        """A refused event may be somebody else's: only the list call tells whether our credentials are refused.

        The poller makes it, so that what it tells takes effect, and the delivery waits for it.
        """
        account, read_at = self._account, self._account.list_read_at or 0.0
        with self._lock:
            asked = self._list_asked_for
            if asked is None or read_at >= self._clock.time_of(asked):
                trusted = asked is not None and self._clock.now() - read_at < _LIST_TRUSTED_FOR
                self._list_asked_for = asked if trusted else self._clock.moment()
                return trusted and not account.credentials_refused
        return False

    def _not_confirmed(self, delivery: Delivery, next_step: NextStep, error: str) -> None:
        settle = self._account.config.issues.settle
        self._results.keep(
            lambda unit: note_failure(unit, delivery, next_step, now=self._clock.now(), error=error, settle=settle)
        )
        if next_step.state is DeliveryState.BLOCKED:
            # Only now, since a list that is read lets go what is blocked.
            self._poller.list_now()
        level = logging.DEBUG if next_step.state is DeliveryState.RETRY and next_step.attempts > 1 else logging.WARNING
        fields = log_fields(account=delivery.account, delivery=delivery.id, state=next_step.state.value, err=error)
        log.log(level, "An event could not be confirmed", extra=fields)

    def _apply(self, delivery: Delivery, parsed: Parsed[Event]) -> None:
        account, server_id = self._account, parsed.value.server_id
        if parsed.oddities:
            self._telemetry.wire_oddity(account.name, len(parsed.oddities))
        list_read_at = account.list_read_at
        fresh = list_read_at is not None and list_read_at >= delivery.received_at

        def work(unit: Unit) -> FollowUp:
            return conclude(unit, delivery, parsed, list_is_fresh=fresh, now=self._clock.now(), rules=account.rules)

        follow_up = self._results.keep(work)
        if follow_up is FollowUp.LIST:
            self._poller.list_now()
        elif server_id is not None:
            self._follow_up(server_id, follow_up)
        elif needs_server(delivery.identifier) or parsed.partial_because:
            fields = log_fields(account=delivery.account, delivery=delivery.id, odd="; ".join(parsed.oddities[:5]))
            log.warning("An event names no server; its body is kept in the inbox", extra=fields)

    def _follow_up(self, server_id: int, follow_up: FollowUp) -> None:
        if follow_up in {FollowUp.POLL, FollowUp.POLL_AND_CHECK_SCAN}:
            self._poller.plan(Job.POLL, server_id)
        if follow_up in {FollowUp.CHECK_SCAN, FollowUp.POLL_AND_CHECK_SCAN}:
            self._poller.plan(Job.CHECK_SCAN, server_id)
