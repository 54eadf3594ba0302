"""The worker: takes deliveries from the inbox, has the API confirm their events, and lets them take effect."""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING

from patrolserver_exporter.inbox import deliveries
from patrolserver_exporter.inbox.deliveries import DeliveryState
from patrolserver_exporter.inbox.retry import NextStep, next_step_after, next_step_after_bug
from patrolserver_exporter.live.effects import InboxMoved
from patrolserver_exporter.logs import log_fields
from patrolserver_exporter.patrolserver.errors import PatrolServerError, Refused
from patrolserver_exporter.store import ClaimLost, StoreError, StoreUnavailable
from patrolserver_exporter.sync.account import EVENT_THREADS
from patrolserver_exporter.sync.poller import Results, StoppedError, Threads
from patrolserver_exporter.sync.schedule import Job
from patrolserver_exporter.sync.server_updates import FollowUp, conclude, needs_server, note_failure

if TYPE_CHECKING:
    from patrolserver_exporter.clock import Clock
    from patrolserver_exporter.inbox.deliveries import Delivery
    from patrolserver_exporter.live.own_metrics import Telemetry
    from patrolserver_exporter.patrolserver.models import Event, Parsed
    from patrolserver_exporter.store import Store, Unit
    from patrolserver_exporter.sync.poller import AccountPoller

log = logging.getLogger(__name__)

_IDLE = 1.0
"""Seconds after which the worker looks again even if nobody woke it."""
_LIST_TRUSTED_FOR = 10.0
"""Seconds in which a successful list call shows that the credentials are good.

Shorter than the tries of a delivery take before it is rejected: at one of them a revocation is always noticed.
"""


class AccountWorker:
    """Works one account's inbox with a few threads.

    A claim fences every write: what comes back after its lease ran out changes nothing.
    """

    def __init__(self, poller: AccountPoller, store: Store, clock: Clock, telemetry: Telemetry) -> None:
        self._poller = poller
        self._account = poller.account
        self._results = Results(self._account, store, telemetry)
        self._store = store
        self._clock = clock
        self._telemetry = telemetry
        self._lease = 4 * self._account.config.poll.timeout + 30.0
        self._free = EVENT_THREADS
        self._wake = threading.Condition()
        self._woken = True
        self._stopping = False
        self._trusted_at: float | None = None
        """Start of the last list call of ours that succeeded (monotonic seconds)."""
        self._threads = Threads(EVENT_THREADS, f"event-{self._account.name}")
        self.last_progress = clock.monotonic()
        """When the worker last went round (monotonic seconds); the watchdog looks at it."""
        self._dispatcher = threading.Thread(target=self._run, name=f"inbox-{self._account.name}", daemon=True)
        self._dispatcher.start()

    def wake(self) -> None:
        """Something may be due."""
        with self._wake:
            self._woken = True
            self._wake.notify()

    def begin_stop(self) -> None:
        """Take nothing more."""
        self._stopping = True
        self.wake()

    def join(self, patience: float) -> None:
        """Wait for the calls under way, at most ``patience`` seconds."""
        end = self._clock.monotonic() + patience
        # A store that is silent would keep it for ever.
        self._dispatcher.join(patience)
        # What is claimed already is let go by its thread, so no thread is cancelled.
        self._threads.shutdown(wait=False, cancel_futures=False)
        self._threads.join(max(end - self._clock.monotonic(), 0.0))

    def _run(self) -> None:
        wait = 0.0
        while not self._stopping:
            with self._wake:
                if not self._woken:
                    self._wake.wait(wait)
                self._woken = False
            try:
                wait = self._dispatch()
            except StoreError as error:
                wait = self._failed("The inbox cannot be read", error)
            except Exception as error:
                log.exception("The worker failed; this is a bug", extra=log_fields(account=self._account.name))
                wait = self._failed("The worker goes on", error)
            self.last_progress = self._clock.monotonic()

    def _failed(self, what: str, error: Exception) -> float:
        self._telemetry.error("store" if isinstance(error, StoreError) else "worker")
        # What the store cannot do, it has said itself, once and not for each delivery.
        level = logging.DEBUG if isinstance(error, StoreUnavailable) else logging.ERROR
        log.log(level, what, extra=log_fields(account=self._account.name, err=str(error)))
        return _IDLE

    def _dispatch(self) -> float:
        """Claim what is due and can be fetched now; returns how long there is nothing to do, in seconds."""
        account = self._account
        if not account.allows_events():
            return _IDLE
        with self._wake:
            wanted = self._free
        granted = 0
        while granted < wanted and account.budgets.events.try_take():
            granted += 1
        if not granted:
            # With no thread free, the next free one wakes us up.
            return _IDLE if not wanted else min(account.budgets.events.seconds_until_available(), _IDLE)
        claimed: list[Delivery] = []
        try:
            now = self._clock.now()
            claimed = self._store.run(
                lambda unit: deliveries.claim(unit, account.name, now=now, lease=self._lease, limit=granted)
            )
        finally:
            account.budgets.events.give_back(granted - len(claimed))
        with self._wake:
            self._free -= len(claimed)
        for delivery in claimed:
            self._threads.submit(self._handle, delivery)
        return 0.0 if len(claimed) == granted else _IDLE

    def _handle(self, delivery: Delivery) -> None:
        parsed = None
        try:
            parsed = self._fetch(delivery)
            if parsed is not None:
                self._apply(delivery, parsed)
        except StoppedError:
            self._let_go(delivery)
        except ClaimLost as error:
            log.warning("A late result was left out", extra=log_fields(account=delivery.account, err=str(error)))
        except StoreError as error:
            # The row keeps its claim; when the lease runs out it is due again.
            self._failed("An event could not be kept; it will be fetched again", error)
        except Exception as error:
            log.exception("An event could not be applied; this is a bug", extra=log_fields(delivery=delivery.id))
            self._telemetry.error("worker")
            self._put_off(delivery, error, None if parsed is None else parsed.body)
        finally:
            with self._wake:
                self._free += 1
            self.wake()

    def _put_off(self, delivery: Delivery, error: Exception, body: bytes | None) -> None:
        """Try a delivery again that met a bug, or leave it to the operator; else it would be tried at each lease."""
        next_step = next_step_after_bug(state_attempts=delivery.attempts, draw=self._account.draw)
        settle = self._account.config.issues.settle
        why = f"The event could not be applied, which is a bug: {type(error).__name__}; the log has the details"
        try:
            self._store.run(
                lambda unit: note_failure(
                    unit, delivery, next_step, now=self._clock.now(), error=why, settle=settle, body=body
                )
            )
        except StoreError as unkept:
            self._failed("The delivery will be tried again when its lease runs out", unkept)

    def _let_go(self, delivery: Delivery) -> None:
        """Leave a delivery to the account's next run: what it asks for may need another configuration."""

        def work(unit: Unit) -> None:
            deliveries.let_go(unit, delivery)
            unit.effects.append(InboxMoved())

        try:
            self._store.run(work)
        except StoreError as unkept:
            self._failed("The delivery will be tried again when its lease runs out", unkept)

    def _fetch(self, delivery: Delivery) -> Parsed[Event] | None:
        """What the API says of a delivery's event; ``None`` if it did not confirm it, and then its end is written."""
        account = self._account
        if account.is_stopping:
            raise StoppedError
        try:
            parsed = account.client.event(delivery.webhook_id, delivery.event_id)
        except PatrolServerError as error:
            if not isinstance(error, Refused):
                account.call_failed(error)
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

        Such events must not use up the calls that the polls need, so a call that would be too much is left to the
        poller, and the delivery waits for it.
        """
        account = self._account
        if account.credentials_refused:
            return False
        now = self._clock.monotonic()
        if self._trusted_at is not None and now - self._trusted_at < _LIST_TRUSTED_FOR:
            return True
        if not account.budgets.polls.try_take():
            return False
        try:
            account.client.servers()
        except PatrolServerError as error:
            account.call_failed(error)
            return False
        self._trusted_at = now
        return True

    def _not_confirmed(self, delivery: Delivery, next_step: NextStep, error: str) -> None:
        settle = self._account.config.issues.settle
        self._results.keep(
            lambda unit: note_failure(unit, delivery, next_step, now=self._clock.now(), error=error, settle=settle)
        )
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
