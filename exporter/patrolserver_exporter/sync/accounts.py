"""What watches one account: its poller and its worker."""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING

import msgspec

from patrolserver_exporter.inbox import transitions, view
from patrolserver_exporter.inbox.delivery import DeliveryState
from patrolserver_exporter.live.own_metrics import InboxState
from patrolserver_exporter.logs import log_fields
from patrolserver_exporter.store import Store, StoreError
from patrolserver_exporter.sync import restore
from patrolserver_exporter.sync.account import Budgets, WatchedAccount
from patrolserver_exporter.sync.clock_steps import ClockWatch
from patrolserver_exporter.sync.health import Trouble
from patrolserver_exporter.sync.housekeeping import Housekeeping
from patrolserver_exporter.sync.poller import AccountPoller
from patrolserver_exporter.sync.rules import Rules
from patrolserver_exporter.sync.worker import AccountWorker

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Mapping, Sequence
    from concurrent.futures import Future

    from patrolserver_exporter.clock import Clock
    from patrolserver_exporter.config.schema import Account, Config
    from patrolserver_exporter.live.own_metrics import Telemetry
    from patrolserver_exporter.live.publisher import Publisher
    from patrolserver_exporter.patrolserver.client import ApiCall
    from patrolserver_exporter.store.fleet import ServerRecord


class Watch(msgspec.Struct, frozen=True):
    """An account's poller and worker."""

    poller: AccountPoller
    worker: AccountWorker

    def begin_stop(self) -> None:
        """Start nothing more; the worker first, because it plans polls."""
        self.worker.begin_stop()
        self.poller.begin_stop()

    def join(self, patience: float) -> None:
        """Wait for the calls under way, at most ``patience`` seconds."""
        self.worker.join(patience)
        self.poller.join(patience)


def stop_all(watches: Sequence[Watch], patience: float, clock: Clock) -> None:
    """End them, and wait at most ``patience`` seconds for their calls."""
    for watch in watches:
        watch.begin_stop()
    end = clock.monotonic() + patience
    for watch in watches:
        watch.join(max(end - clock.monotonic(), 0.0))


log = logging.getLogger(__name__)
_PATIENCE = 5.0
"""Seconds that a reload waits for the calls of accounts that it stops."""


class AccountStatus(msgspec.Struct, frozen=True, kw_only=True):
    """How an account stands, for people and for ``/-/ready``."""

    name: str
    servers: int
    poll_interval: float
    """Seconds, as in force."""
    trouble: str | None
    """What is wrong with its API, free of credentials; ``None`` when nothing is."""
    credentials_refused: bool
    judged: bool = True
    """A list call has ended since the start; before that, nobody knows whether the credentials still hold."""
    webhook: bool
    """It has a token, so deliveries can reach it."""


class Ingest:
    """Watches the configured accounts.

    Build it with the store's ``publisher``, then ``start``; ``tick`` wants to be called a few times a second.
    """

    def __init__(self, store: Store, publisher: Publisher, telemetry: Telemetry, clock: Clock) -> None:
        self._store = store
        self._publisher = publisher
        self._telemetry = telemetry
        self._clock = clock
        self._watches: dict[str, Watch] = {}
        self._names: frozenset[str] = frozenset()
        """The configured accounts: late calls of others must not bring their series back."""
        self._lock = threading.Lock()
        self._clock_watch = ClockWatch(clock)
        self._housekeeping = Housekeeping(store, telemetry, clock)
        self._ready = False
        self._budgets: dict[str, Budgets] = {}
        """Of the configured accounts: a reload that watches one anew must not let it make its calls twice."""
        self._unfinished: Config | None = None
        """What to go back to after a reload that the store did not let happen."""
        self._step = 0.0
        """Seconds by which the clock was set and which nothing has followed yet."""
        self.last_tick = clock.monotonic()
        """When the dispatcher last ticked (monotonic seconds); the watchdog looks at it."""
        self._inbox: tuple[InboxState, ...] = ()
        self._inbox_moved = True
        publisher.on_inbox(self._inbox_changed)
        telemetry.watch_inbox(lambda: self._inbox)

    def start(self, config: Config) -> None:
        """Restore the series from the store and begin to watch the accounts."""
        if self._store.is_exclusive:
            released = self._store.run(transitions.release_claims)
            if released:
                log.info(
                    "Deliveries that were being fetched at the last stop are due again",
                    extra=log_fields(deliveries=released),
                )
        with self._lock:
            self._watch_all(config)

    def reload(self, config: Config, before: Config) -> None:
        """Go over to another configuration: accounts whose settings are the same go on undisturbed."""
        with self._lock:
            try:
                self._watch_all(config)
            except StoreError:
                # Some accounts may have been stopped already; the next ticks bring the old ones back.
                self._unfinished = before
                raise
            self._unfinished = None

    def _go_back(self) -> None:
        """Bring back what a failed reload has stopped; as long as the store cannot, the rest goes on without it."""
        with self._lock:
            if self._unfinished is None:
                return
            try:
                self._watch_all(self._unfinished)
            except StoreError as error:
                self._telemetry.error("poller")
                log.debug("The old configuration is not back yet", extra=log_fields(err=str(error)))
            else:
                self._unfinished = None

    def _watch_all(self, config: Config) -> None:
        rules = {account.name: Rules.of(config, account) for account in config.accounts}
        self._names = frozenset(rules)
        keep = {
            account.name: watch
            for account in config.accounts
            if (watch := self._watches.get(account.name)) and watch.poller.watched.is_as(config, account)
        }
        self._stop_all_but(keep)
        for account in config.accounts:
            if account.name in keep:
                # Before the restore: it finds all that was judged by the old rules.
                watched = keep[account.name].poller.watched
                watched.settings, watched.account, watched.rules = config, account, rules[account.name]
        state = self._store.run(lambda unit: restore.restore(unit, rules, config.metrics, now=self._clock.now()))
        if state.set_aside:
            log.warning(
                "Deliveries of accounts that are not configured any more were set aside as expired",
                extra=log_fields(deliveries=state.set_aside),
            )
        self._ready = self._ready or any(record.up or record.last_success_at for record in state.accounts.values())
        for account in config.accounts:
            if account.name in keep:
                keep[account.name].poller.list_now()
            else:
                self._watches[account.name] = self._watch(config, account, state.servers[account.name])
                webhook_hint(account)
        self._housekeeping.configure(config, rules, state.stale)

    def _stop_all_but(self, keep: Container[str]) -> None:
        stopped = [name for name in self._watches if name not in keep]
        stop_all([self._watches.pop(name) for name in stopped], _PATIENCE, self._clock)
        for name in stopped:
            if name not in self._names:
                self._telemetry.forget_account(name)
                self._budgets.pop(name, None)

    def _watch(self, config: Config, account: Account, servers: list[ServerRecord]) -> Watch:
        self._telemetry.watch_account(account.name)
        watched = WatchedAccount(
            config, account, clock=self._clock, observer=self._observe, budgets=self._budgets.get(account.name)
        )
        self._budgets[account.name] = watched.budgets
        poller = AccountPoller(watched, self._store, self._clock, self._telemetry)
        poller.resume(servers)
        worker = AccountWorker(poller, self._store, self._clock, self._telemetry)
        return Watch(poller, worker)

    def _observe(self, call: ApiCall) -> None:
        if call.account not in self._names:
            return
        reason = None if call.reason is None else call.reason.value
        self._telemetry.api_call(call.account, call.endpoint.value, call.seconds, reason)

    def stop(self, grace: float = 5.0) -> None:
        """End the accounts' threads, at most ``grace`` seconds after now; a call that takes longer is left behind.

        What such a call brings is not kept: its delivery is due again at the next start.
        """
        with self._lock:
            stop_all(list(self._watches.values()), grace, self._clock)
            self._watches.clear()

    def tick(self) -> None:
        """Start what is due. Called by the dispatcher, a few times a second, from one thread."""
        if self._unfinished is not None:
            self._go_back()
        self._step += self._clock_watch.step()
        watches = dict(self._watches)
        if self._step:
            self._follow_clock(self._step, watches)
        for name, watch in watches.items():
            watched = watch.poller.watched
            watch.poller.pump()
            if name in self._names:
                self._telemetry.api_budget(name, watched.polls.available())
                self._telemetry.poll_interval(name, watched.interval)
            self._ready = self._ready or watched.list_read_at is not None
        if self._inbox_moved:
            self._inbox_moved = False
            self._store.submit_read(view.census).add_done_callback(self._count_inbox)
        self._housekeeping.tick({name: watch.poller for name, watch in watches.items()})
        self.last_tick = self._clock.monotonic()

    def _follow_clock(self, step: float, watches: Mapping[str, Watch]) -> None:
        rules = {name: watch.poller.watched.rules for name, watch in watches.items()}
        now = self._clock.now()
        try:
            self._store.run(lambda unit: restore.follow_clock(unit, step, now=now, rules=rules))
        except StoreError as error:
            # The next tick makes up for it; what else there is to do must not wait for the store.
            self._telemetry.error("store")
            log.debug("The state does not follow the clock yet", extra=log_fields(err=str(error)))
            return
        self._step = 0.0
        log.warning("The system's clock was set; timers follow it", extra=log_fields(seconds=round(step, 3)))
        for watch in watches.values():
            watched = watch.poller.watched
            if watched.list_read_at is not None:
                watched.list_read_at += step
            if step < 0:
                watch.poller.plan_all(watched.server_ids)

    def _inbox_changed(self) -> None:
        self._inbox_moved = True
        for watch in list(self._watches.values()):
            watch.worker.wake()

    def _count_inbox(self, future: Future[list[view.StateCount]]) -> None:
        if future.exception() is not None:
            self._inbox_moved = True
            return
        census = future.result()
        counted = {c.state: c for c in census}
        self._inbox = tuple(
            InboxState(
                state=state.value,
                deliveries=counted[state.value].count if state.value in counted else 0,
                oldest_at=counted[state.value].oldest if state.value in counted else None,
            )
            for state in DeliveryState
        )

    # What the web layer asks

    @property
    def ready(self) -> bool:
        """An account answered once, or the state of an earlier run was restored."""
        return self._ready

    @property
    def last_worker_progress(self) -> float:
        """When the slowest account's worker last went round (monotonic seconds)."""
        times = [watch.worker.last_progress for watch in list(self._watches.values())]
        return min(times, default=self._clock.monotonic())

    def refresh(self, account: str, server_id: int, done: Callable[[str | None], None]) -> None:
        """Poll a server now; ``done`` hears the error, or ``None``, perhaps at once and perhaps in another thread."""
        watch = self._watches.get(account)
        if watch is None:
            done(f"There is no account {account}.")
        else:
            watch.poller.refresh(server_id, done)

    def statuses(self) -> tuple[AccountStatus, ...]:
        """How each account stands."""
        return tuple(_status(watch.poller.watched) for watch in list(self._watches.values()))


def _status(watched: WatchedAccount) -> AccountStatus:
    health = watched.health
    return AccountStatus(
        name=watched.name,
        servers=len(watched.server_ids),
        poll_interval=watched.interval,
        trouble=None if health.trouble is Trouble.NONE else health.detail,
        credentials_refused=health.trouble is Trouble.CREDENTIALS,
        judged=health.judged,
        webhook=bool(watched.account.webhook_tokens),
    )


def webhook_hint(account: Account) -> None:
    """Say how to turn the webhook on, where it is off."""
    if not account.webhook_tokens:
        log.info(
            # Anything right behind /webhook/ would be masked, as a token is.
            "The webhook is off for this account, so news comes with the polls; to turn it on, put a random token "
            "(openssl rand -hex 24) into webhook_tokens or PATROLSERVER_WEBHOOK_TOKEN_FILE, and enter "
            "https://THIS-HOST/webhook/ with the token behind it at PatrolServer",
            extra=log_fields(account=account.name),
        )
