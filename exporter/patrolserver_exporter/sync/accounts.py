"""The accounts that are configured: started, taken and given back, kept going, reloaded, stopped."""

from __future__ import annotations

import concurrent.futures
import contextlib
import functools
import logging
import math
import threading
from typing import TYPE_CHECKING

from patrolserver_exporter import __version__
from patrolserver_exporter.config.proxy import shown
from patrolserver_exporter.config.told import mark_of
from patrolserver_exporter.inbox import deliveries
from patrolserver_exporter.lasting import LastingTrouble
from patrolserver_exporter.logs import log_fields
from patrolserver_exporter.store import Store, StoreError, StoreLocked, StoreUnavailable
from patrolserver_exporter.store.lease_rows import COMMON, read_position
from patrolserver_exporter.store.replicas import Announced
from patrolserver_exporter.sync import account_updates, handed_budgets, operations, restore
from patrolserver_exporter.sync.account import (
    Budgets,
    ListStanding,
    Pause,
    RunningAccount,
    calls_at_once,
)
from patrolserver_exporter.sync.alone import Alone
from patrolserver_exporter.sync.clock_steps import ClockFollower, OthersClocks, follow_lost_step
from patrolserver_exporter.sync.exporters import LivingExporter, differing, others, this_one
from patrolserver_exporter.sync.follower import Follower
from patrolserver_exporter.sync.health import Trouble
from patrolserver_exporter.sync.housekeeping import Housekeeping
from patrolserver_exporter.sync.inbox_gauges import InboxGauges
from patrolserver_exporter.sync.levelling import Levelling
from patrolserver_exporter.sync.poller import AccountPoller
from patrolserver_exporter.sync.refreshes import Refreshes
from patrolserver_exporter.sync.rules import Rules
from patrolserver_exporter.sync.running import PollerAndWorker, stop_all, webhook_hint
from patrolserver_exporter.sync.statuses import Glimpse, glimpse_of, standing_of, status_of, status_of_others
from patrolserver_exporter.sync.threads import CallThreads
from patrolserver_exporter.sync.worker import AccountWorker, InboxDispatcher

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Container, Iterable, Iterator, Mapping, Sequence

    from patrolserver_exporter.clock import SteadyClock
    from patrolserver_exporter.config.schema import Account, Config
    from patrolserver_exporter.live.own_metrics import Telemetry
    from patrolserver_exporter.live.publisher import Publisher
    from patrolserver_exporter.patrolserver.client import ApiCall
    from patrolserver_exporter.store import Unit
    from patrolserver_exporter.store.fleet import AccountRecord, Reading
    from patrolserver_exporter.store.lease import Left, Taken
    from patrolserver_exporter.store.lease_rows import Position
    from patrolserver_exporter.sync.follower import Found
    from patrolserver_exporter.sync.statuses import AccountStatus


log = logging.getLogger(__name__)
_TELL_EVERY = 1.0
_AT_EACH_TICK = 100
"""Accounts up to which all have their turn at each tick; of twice as many each has it at every second one."""
_TURNS_AT_MOST = 4
"""Ticks until an account's turn comes again."""
"""Seconds from telling the accounts' budgets and intervals to the next time, for hundreds of accounts take a while."""
_HAND_OVER_TIMEOUT = 2.0
"""Seconds that the end waits until leases are given back."""
_PATIENCE = 5.0
"""Seconds that a reload waits for the calls of accounts that it stops."""


class Accounts:
    """Runs the configured accounts.

    Build it with the store's ``publisher``, then ``start``; ``tick`` wants to be called a few times a second.
    """

    def __init__(  # noqa: PLR0913  # The parts that it tells.
        self,
        store: Store,
        publisher: Publisher,
        telemetry: Telemetry,
        clock: SteadyClock,
        hidden: Callable[[], Iterable[str]] = tuple,
        *,
        on_deliveries: Callable[[str, float], None] = lambda _account, _at: None,
    ) -> None:
        self._store = store
        self._telemetry = telemetry
        self._clock = clock
        self._hidden = hidden
        """Every secret: what an API's reply holds of them is masked before anything is kept."""
        self._running: dict[str, PollerAndWorker] = {}
        self._names: frozenset[str] = frozenset()
        """The configured accounts: late calls of others must not bring their series back."""
        self._lock = threading.Lock()
        """Held while accounts are started and stopped."""
        self._ready = False
        self._budgets: dict[str, Budgets] = {}
        """Of the configured accounts: a reload that starts one again must not let it make its calls twice."""
        self._config: Config | None = None
        """What the accounts run by."""
        self._unfinished: Config | None = None
        """What to go back to after a reload that the store did not let happen."""
        self._readings: Mapping[str, Reading] = {}
        """How the configuration has each account's list read."""
        self._ticks = 0
        self._tells = 0
        self._told_at = -math.inf
        self.last_tick = clock.monotonic()
        """When the dispatcher last ticked (monotonic seconds); the watchdog looks at it."""
        self._clock_follower = ClockFollower(store, telemetry, clock)
        self._others_clocks = OthersClocks()
        self._housekeeping = Housekeeping(store, telemetry, clock)
        self._inbox_gauges = InboxGauges(store, publisher, telemetry, clock)
        self._threads = CallThreads()
        self._inbox = InboxDispatcher(store, telemetry, clock)
        publisher.on_inbox(self._inbox.wake)
        self._follower: Follower | Alone = (
            Follower(store, telemetry, clock, on_look=self._look_at, on_deliveries=on_deliveries)
            if store.is_shared
            else Alone()
        )
        self._publisher = publisher
        self._followed: Mapping[str, AccountRecord] = {}
        """Of accounts that other exporters poll."""
        self._levelling = Levelling(store.owner, telemetry, clock)
        self._decided_on: Found | None = None
        """The look by which accounts were last taken or given back."""
        self._giving: frozenset[str] = frozenset()
        """Accounts that are being given to others just now."""
        self._differs = LastingTrouble(log, clock)
        self._leaves = False
        """This process takes no account any more."""
        self._refreshes = Refreshes(store, lambda: tuple(self._running), self.refresh, self._goes_on_elsewhere)
        self._announced: Announced | None = None
        self.refusal: StoreError | None = None
        """Why this process must not use the store any more."""

    def start(self, config: Config) -> None:
        """Show the series from the store, and run the accounts that no other exporter runs."""
        if isinstance(self._follower, Alone):
            self._release_claims()
            self._follow_lost_step(config)
            with self._lock:
                self._go_over_to(config)
            self._store.run(lambda unit: operations.begin_again(unit, tuple(self._names)))
            self.begin_refreshes()
            return
        with self._lock:
            self._follow(config)
        self._follower.look()
        self._level_out(resumes=False)
        if (found := self._follower.last_look) is not None and not found.is_same:
            # A backup that was restored, perhaps with leases that have not run out yet.
            self._store.follow_cluster().result()
        # Once more: that may have taken so long that what was seen before it vouches for nothing any longer.
        self._follower.look()
        self._follower.start()

    def _follow_lost_step(self, config: Config) -> None:
        """Where this process has the store alone."""
        rules = {settings.name: Rules.of(config, settings) for settings in config.accounts}
        # Of the lease for everything only where the account never had one of its own: it may be from long ago.
        set_back = {name: left[-1].set_back for name in rules if (left := self._store.left_behind(name))}
        self._store.run(lambda unit: follow_lost_step(unit, set_back, now=self._clock.now(), rules=rules))

    @property
    def clock_doubt(self) -> float:
        """Seconds by which stored times may be ahead of the clock, since not all have followed it back yet."""
        return self._clock_follower.ahead + self._others_clocks.ahead

    # Who polls what

    def _follow(self, config: Config) -> None:
        """Show what other exporters commit, by this configuration; none of the accounts runs here yet."""
        rules = self._adopt(config)
        self._names = frozenset(rules)
        for name in rules:
            self._telemetry.watch_account(name)
        self._announce(config)
        self._housekeeping.configure(config, {})
        self._follower.show(rules, config.metrics)

    def _adopt(self, config: Config) -> dict[str, Rules]:
        rules = {settings.name: Rules.of(config, settings) for settings in config.accounts}
        # First, since the web layer may ask in between.
        self._readings = {name: of_account.reading for name, of_account in rules.items()}
        self._config = config
        return rules

    def _announce(self, config: Config) -> None:
        if self._store.is_shared:
            accounts = tuple(settings.name for settings in config.accounts)
            self._announced = Announced(__version__, mark_of(config), accounts)
            self._store.announce(self._announced)

    def _look_at(self, found: Found) -> None:
        """What the follower has just found, on its thread."""
        if found.records is not None:
            self._followed = found.records
            self._others_clocks.looked(
                {
                    name: (found.holders[name], record.state.clock_steps)
                    for name, record in found.records.items()
                    if name in self._names and name not in self._running and name in found.holders
                },
                pending=self._clock.step(),
                at=self._clock.monotonic(),
            )
            shown = [record for name, record in found.records.items() if name in self._names]
            self._ready = self._ready or any(record.up or record.last_success_at for record in shown)
        if they := self.differing:
            self._differs.lasts(
                "Exporters on this database have different configurations: each account is judged by the rules of the "
                "one that polls it, so give them the same one",
                others="; ".join(they),
            )
        else:
            self._differs.is_over("All exporters on this database have the same configuration")
        if not found.is_same and self._follower.has_shown:
            # Also where others poll: only this one may know what is missing.
            self._store.follow_cluster()
        if asked := found.asked.intersection(self._running):
            self.begin_refreshes(sorted(asked))

    def begin_refreshes(self, names: Iterable[str] | None = None) -> None:
        """Have servers polled whose refresh was asked for, on whatever exporter; not waited for."""
        self._refreshes.begin(names)

    def _goes_on_elsewhere(self, account: str) -> bool:
        return self._leaves or account in self._giving or self._store.has_lost(account)

    def _follow_leases(self) -> None:
        lost = [name for name in self._running if self._store.has_lost(name)]
        if lost:
            self._become_reader_of(lost)
        self._level_out()

    def _level_out(self, *, resumes: bool = True) -> None:
        """Take of what is free what falls to this exporter, or give some back that others should have.

        Once for each look; ``resumes``: what is taken was polled by somebody else until now, and this is no start.
        """
        found = self._follower.last_look
        if found is None or found is self._decided_on or not self._follower.is_steady:
            return
        if self._clock.step():
            # What this process polls has to follow the clock first, and what it gives away, too.
            return
        if self.refusal is not None or self._leaves or self._announced is None:
            return
        self._decided_on = found
        mine = {name: pair.account for name, pair in dict(self._running).items()}
        look = self._levelling.look(found, () if self._config is None else self._config.accounts, mine)
        names = self._levelling.take(look)
        if self._levelling.takes_common(look, found) and self._store.has_lost(COMMON):
            names.append(COMMON)
        if names:
            self._take_over(names, resumes=resumes)
        elif self._unfinished is None:
            config = self._announced.config
            if unreached := self._levelling.give_up(look, mine, config):
                self._give_up(unreached)
            else:
                self._give(self._levelling.give(look, mine, config))

    def _take_over(self, names: Sequence[str], *, resumes: bool) -> None:
        with self._lock:
            taken = self._take_together(names, resumes=resumes)
            if taken is None and len(names) > 1:
                # What is stored of one of them is damaged, which must not keep the others from being polled.
                taken = [one for name in names for one in self._take_together([name], resumes=resumes) or ()]
        if taken:
            log.info("This exporter polls these accounts from now on", extra=log_fields(accounts=" ".join(taken)))
            self.begin_refreshes(taken)

    def _take_together(self, names: Sequence[str], *, resumes: bool) -> list[str] | None:
        """Take those that are free, all or none; ``None`` if what is stored of one is damaged."""
        config = self._config
        # A stop may have come while this waited.
        if config is None or self._leaves:
            return []
        rules = {one.name: Rules.of(config, one) for one in config.accounts if one.name in names}
        has_shown, shown_already = self._follower.has_shown, self._follower.own(names)
        taken: Mapping[str, Taken] = {}
        state: restore.Restored | None = None
        try:
            take_up = functools.partial(self._take_up, rules=rules)
            taken, state = self._store.take_over(names, take_up, lambda: not self._leaves) or ({}, None)
        except StoreLocked as error:
            self.refusal = error
        except StoreUnavailable as error:
            log.debug("Leases cannot be taken now", extra=log_fields(err=str(error)))
        except StoreError as error:
            if len(names) == 1:
                self._levelling.leave_out(names[0], error)
            return None
        finally:
            self._follower.disown([name for name in names if name not in taken], shown_already)
        accounts = [one for one in config.accounts if one.name in taken]
        if not accounts or state is None:
            return []
        if not has_shown:
            # The follower shows the others, and would not end what another configuration has shown.
            self._unfinished = self._unfinished or config
        self._housekeeping.own({one.name: rules[one.name] for one in accounts}, state.stale)
        for settings in accounts:
            self._budgets.pop(settings.name, None)
            record = state.accounts[settings.name]
            pair = self._run(config, settings, record, state.servers[settings.name], taken[settings.name].left)
            if resumes and record.state.trouble == Trouble.UNREACHABLE:
                pair.account.go_on_in_trouble(standing_of(record))
            self._running[settings.name] = pair
        self._ready = self._ready or any(record.up or record.last_success_at for record in state.accounts.values())
        return [one.name for one in accounts]

    def _take_up(
        self, unit: Unit, taken: Mapping[str, Taken], *, rules: Mapping[str, Rules]
    ) -> tuple[Mapping[str, Taken], restore.Restored]:
        mine = {name: of_account for name, of_account in rules.items() if name in taken}
        operations.begin_again(unit, tuple(mine))
        # What its row tells, and what this process saw of the one before, who may not have come to follow it.
        set_back = {name: max(taken[name].left[0].set_back, self._others_clocks.ahead_of(name)) for name in mine}
        follow_lost_step(unit, set_back, now=self._clock.now(), rules=mine)
        return taken, restore.take_over(unit, mine, now=self._clock.now())

    def _become_reader_of(self, names: Sequence[str]) -> None:
        """Other exporters have the leases of these accounts by now; nothing is waited for."""
        with self._lock:
            # A stop or a reload may have ended some while this waited.
            names = [name for name in names if name in self._running]
            self._stop(names, 0.0)
            for name in names:
                self._budgets.pop(name, None)
                self._telemetry.disown(name)
            self._housekeeping.disown(names)
            self._follower.disown(names)

    def leave(self) -> None:
        """Give all accounts to other exporters, at once, and take none any more."""
        if not self._store.is_shared or self._leaves:
            return
        # First: who waits for the database to take an account over gives up then.
        self._leaves = True
        # Whoever takes them over cannot know of a step that was not followed.
        self._follow_clock()
        with self._locked_within(_HAND_OVER_TIMEOUT) as is_locked:
            if is_locked:
                self._hand_over(list(self._running))
            else:
                log.debug("The accounts' leases will run out, since the database does not answer")

    @contextlib.contextmanager
    def _locked_within(self, patience: float) -> Iterator[bool]:
        """Hold the lock, unless somebody waits for a silent database with it for longer than that."""
        is_locked = self._lock.acquire(timeout=patience)
        try:
            yield is_locked
        finally:
            if is_locked:
                self._lock.release()

    def _give(self, names: Collection[str]) -> None:
        """Give these accounts to exporters that poll fewer, as a stop gives all."""
        with self._lock:
            names = [name for name in names if name in self._running]
            if names and not self._leaves:
                log.info(
                    "This exporter gives these accounts to others, which poll fewer",
                    extra=log_fields(accounts=" ".join(names)),
                )
                self._give_to_others(names)

    def _give_up(self, times: Mapping[str, int]) -> None:
        """Give these accounts, whose API cannot be reached from here, to exporters that may reach it.

        ``times``: how often this exporter did so.
        """

        def note(unit: Unit) -> None:
            for name in names:
                account_updates.give_up(unit, name, self._store.owner, times=times[name], now=self._clock.now())

        with self._lock:
            names = [name for name in times if name in self._running]
            if not names or self._leaves:
                return
            try:
                # By itself and first, so that whoever sees that they are free knows who cannot poll them.
                self._store.submit(note, *names).result(_HAND_OVER_TIMEOUT)
            except (StoreError, concurrent.futures.TimeoutError) as error:
                log.debug("No account can be given up now", extra=log_fields(err=str(error)))
                return
            log.warning(
                "This exporter cannot reach the API of these accounts, and gives them to others on this database, "
                "which may reach it: look at the network, the DNS and the proxy here",
                extra=log_fields(accounts=" ".join(names), err=self._running[names[0]].account.standing.detail),
            )
            self._give_to_others(names)

    def _give_to_others(self, names: Sequence[str]) -> None:
        self._giving = frozenset(names)
        self._hand_over(names)
        self._giving = frozenset()

    def _hand_over(self, names: Sequence[str]) -> None:
        # First, since calls under way may take some seconds, and nothing of them is kept.
        for name in names:
            self._running[name].begin_stop()
        handed: dict[str, bytes | None] = {name: self._handed([name]) for name in names}
        if self._leaves:
            handed[COMMON] = None
        try:
            self._store.hand_over(handed, leaves=self._leaves).result(_HAND_OVER_TIMEOUT)
        except (StoreError, concurrent.futures.TimeoutError) as error:
            log.debug("The accounts' leases will run out", extra=log_fields(err=str(error)))
        self._stop(names, 0.0)
        for name in names:
            self._telemetry.disown(name)
        self._housekeeping.disown(names)
        self._follower.disown(names)

    def _handed(self, names: Iterable[str]) -> bytes:
        budgets = {name: self._budgets[name] for name in names if name in self._budgets}
        return handed_budgets.hand_over(budgets, self._clock.now())

    def _stop(self, names: Sequence[str], patience: float) -> None:
        pairs = [self._running.pop(name) for name in names]
        for pair in pairs:
            self._inbox.remove(pair.worker)
        stop_all(pairs, patience, self._clock)

    def _release_claims(self) -> None:
        """Nobody else works on the store, so what is claimed in it is of those who are gone."""
        released = self._store.run(deliveries.release_claims)
        if released:
            log.info(
                "Deliveries that were in work at the last stop are due again",
                extra=log_fields(deliveries=released),
            )

    def reload(self, config: Config, before: Config) -> None:
        """Use another configuration. Accounts with the same settings are not interrupted."""
        with self._lock:
            try:
                self._go_over_to(config)
            except StoreError:
                # Some accounts may have been stopped already; the next ticks bring the old ones back.
                self._unfinished = before
                raise
            self._unfinished = None
            for pair in self._running.values():
                # An operator's reload allows one try in a pause.
                pair.account.try_list()
                pair.poller.pump()

    def _go_back(self) -> None:
        """Bring back what a failed reload has stopped; as long as the store cannot, the rest goes on without it."""
        with self._lock:
            if self._unfinished is None:
                return
            try:
                self._go_over_to(self._unfinished)
            except StoreError as error:
                self._telemetry.error("poller")
                log.debug("The old configuration is not back yet", extra=log_fields(err=str(error)))
            else:
                self._unfinished = None
                for pair in self._running.values():
                    pair.poller.list_now()

    def _read_again(self, names: Collection[str]) -> None:
        """The state is not what our commits made of it: stop these accounts, to start them from it as at a start.

        Where the store is not shared, these are all.
        """
        with self._lock:
            stopped = names if self._store.is_shared else self._running
            self._stop_all_but([name for name in self._running if name not in stopped])
            self._unfinished = self._unfinished or self._config

    def _go_over_to(self, config: Config) -> None:
        rules = self._adopt(config)
        self._announce(config)
        before, self._names = self._names, frozenset(rules)
        if self._store.is_shared:
            for name in before - self._names:
                self._telemetry.forget_account(name)
            for name in self._names - before:
                self._telemetry.watch_account(name)
        kept = {
            settings.name: pair.account
            for settings in config.accounts
            if (pair := self._running.get(settings.name)) and pair.account.is_configured_as(config, settings)
        }
        self._stop_all_but(kept)
        for settings in config.accounts:
            if settings.name in kept:
                # Before the restore: it finds all that was classified by the old rules.
                kept[settings.name].adopt(config, settings, rules[settings.name])
        state = self._restore(config, rules, kept)
        if state.set_aside:
            log.warning(
                "Deliveries of accounts that are not configured any more were set aside as expired",
                extra=log_fields(deliveries=state.set_aside),
            )
        self._ready = self._ready or any(record.up or record.last_success_at for record in state.accounts.values())
        for settings in config.accounts:
            if settings.name not in kept and settings.name in state.accounts:
                self._running[settings.name] = self._run(
                    config,
                    settings,
                    state.accounts[settings.name],
                    state.servers[settings.name],
                    self._store.left_behind(settings.name),
                )
                webhook_hint(settings)
                if settings.proxy_url is not None:
                    fields = log_fields(account=settings.name, proxy=shown(settings.proxy_url))
                    log.info("The calls to PatrolServer go through a proxy", extra=fields)
        self._housekeeping.configure(config, {name: rules[name] for name in state.accounts}, state.stale)

    def _restore(self, config: Config, rules: Mapping[str, Rules], kept: Container[str]) -> restore.Restored:
        """Show everything by this configuration; returns what the store knows of the accounts that this process has.

        Of those that are not ``kept`` nothing is in work now, whatever the store says: a claim may have been committed
        without that being heard.
        """
        follower, metrics = self._follower, config.metrics

        def take_up(unit: Unit, names: Iterable[str]) -> None:
            stopped = tuple(name for name in names if name not in kept)
            deliveries.take_up(unit, stopped, now=self._clock.now())
            operations.begin_again(unit, stopped)

        if isinstance(follower, Alone):

            def alone(unit: Unit) -> restore.Restored:
                now = self._clock.now()
                take_up(unit, rules)
                operations.end_all_but(unit, tuple(rules), "The account is not configured any more.")
                return restore.restore(unit, rules, metrics, now=now)

            state = self._store.run(alone)
            self._refreshes.begin_later()
            return state
        follower.pause()
        held = self._store.accounts_held
        removed = [name for name in held if name not in rules]
        if removed:
            handed: dict[str, bytes | None] = {name: self._handed([name]) for name in removed}
            self._store.hand_over(handed).result()
        for name in removed:
            self._budgets.pop(name, None)
        owned = sorted(name for name in held if name in rules)
        if not owned:
            follower.show(rules, metrics)
            return restore.Restored(accounts={}, servers={}, set_aside=0, stale=())

        def work(unit: Unit) -> tuple[Position, restore.Restored]:
            # First: what others commit meanwhile is read again.
            position, _ = read_position(unit.connection)
            take_up(unit, owned)
            return position, restore.restore_beside_others(unit, rules, owned, metrics, now=self._clock.now())

        position, state = self._store.run(work, *owned)
        follower.show(rules, metrics, owned, from_there=position)
        return state

    def _stop_all_but(self, kept: Container[str]) -> None:
        ended = [name for name in self._running if name not in kept]
        self._stop(ended, _PATIENCE)
        for name in ended:
            if name not in self._names and not self._store.is_shared:
                self._telemetry.forget_account(name)
                self._budgets.pop(name, None)

    def _run(
        self,
        config: Config,
        settings: Account,
        record: AccountRecord,
        servers: list[restore.Planned],
        left: Sequence[Left],
    ) -> PollerAndWorker:
        """``left``: what those who polled the account before left behind."""
        self._telemetry.watch_account(settings.name)
        account = RunningAccount(
            config,
            settings,
            clock=self._clock,
            observer=self._observe,
            budgets=self._budgets.get(settings.name),
            hidden=self._hidden,
            check_held=functools.partial(self._store.check_held, settings.name),
        )
        if settings.name not in self._budgets:
            handed_budgets.go_on_counting(account, left, self._clock.now())
        self._budgets[settings.name] = account.budgets
        threads = self._threads.of(settings.name, calls_at_once(config))
        poller = AccountPoller(account, threads, self._store, self._clock, self._telemetry)
        account.list_was_read(
            ListStanding(
                record.state.list_complete,
                record.state.list_partial_because,
                sum(server.state.missing_since is not None for server in servers),
            )
        )
        if record.state.paused_until is not None:
            pause = Pause(record.state.paused_until, record.state.pause_reason or "the API asked to wait")
            account.go_on_pausing(pause, without_list=record.up is False)
        poller.resume(servers)
        worker = AccountWorker(poller, self._store, self._clock, self._telemetry, self._inbox.wake)
        self._inbox.put(worker)
        return PollerAndWorker(poller, worker)

    def _observe(self, call: ApiCall) -> None:
        self._threads.note_call()
        if call.account not in self._names:
            return
        reason = None if call.reason is None else call.reason.value
        self._telemetry.api_call(call.account, call.endpoint.value, call.seconds, reason)

    def stop(self, grace: float = 5.0) -> None:
        """End the accounts' threads, at most ``grace`` seconds after now; a call that takes longer is left behind.

        What such a call brings is not kept: its delivery is due again at the next start.
        """
        self.leave()
        self._follower.stop()
        end = self._clock.monotonic() + grace
        with self._locked_within(grace):
            self._leaves = True
            self._inbox.begin_stop()
            stop_all(list(self._running.values()), max(end - self._clock.monotonic(), 0.0), self._clock)
            if not self._store.is_shared:
                self._store.pass_on(self._handed(self._running))
            self._inbox.join(max(end - self._clock.monotonic(), 0.0))
            self._running.clear()
            self._threads.close()

    def tick(self) -> None:
        """Start what is due. Called by the dispatcher, a few times a second, from one thread."""
        self._follower.end_if_alone()
        self._follow_clock()
        self._follow_leases()
        if self._follower.take_restart() and self._running:
            self._unfinished = self._unfinished or self._config
        if moved := self._store.take_moved():
            self._read_again(moved)
        if self._unfinished is not None:
            self._go_back()
        running = dict(self._running)
        # What is due at once is begun at once; what waits for its time may wait for a moment more.
        turns = 1 + min(len(running) // _AT_EACH_TICK, _TURNS_AT_MOST - 1)
        self._ticks += 1
        tells = self._clock.monotonic() - self._told_at >= _TELL_EVERY
        if tells:
            self._told_at = self._clock.monotonic()
            self._tells += 1
            self._refreshes.catch_up()
        for place, (name, pair) in enumerate(running.items()):
            account = pair.account
            if place % turns == self._ticks % turns:
                pair.poller.pump()
            if tells and place % turns == self._tells % turns and name in self._names and name in self._running:
                self._telemetry.api_budget(name, account.budgets.polls.available())
                self._telemetry.poll_interval(name, account.interval)
            self._ready = self._ready or account.list_standing.complete is not None
        self._inbox_gauges.tick()
        self._housekeeping.tick(lambda: [pair.account for pair in running.values()])
        self.last_tick = self._clock.monotonic()

    def _follow_clock(self) -> None:
        running = dict(self._running)
        if running or not self._store.is_shared:
            self._clock_follower.tick(lambda: [pair.account for pair in running.values()], self._others_clocks.followed)
        else:
            # Nothing of this process has to follow: what it reads is dated by the owners.
            step = self._clock.step()
            self._others_clocks.followed(step)
            self._clock.adopt(step)

    # What the web layer asks

    @property
    def ready(self) -> bool:
        """An account answered once, or the state of an earlier run was restored."""
        return self._ready and self.follows

    @property
    def follows(self) -> bool:
        """What is shown follows the store; not while only this exporter cannot follow it, as far as it can know."""
        return self._follower.follows

    def owns(self, account: str) -> bool:
        """Whether this process polls the account, and nobody else can."""
        return account in self._running and self._store.holds(account)

    @property
    def replicas(self) -> tuple[int, int]:
        """How many exporters share the store, and how many of them have another configuration than this one."""
        found = self._follower.last_look
        if found is None or self._announced is None:
            return 1, 0
        return 1 + sum(one.owner != self._store.owner for one in found.living), len(self.differing)

    @property
    def differing(self) -> tuple[str, ...]:
        """The exporters that share the store and have another configuration, as people know them."""
        found = self._follower.last_look
        if found is None or self._announced is None:
            return ()
        return differing(found, self._store.owner, self._announced.config)

    @property
    def exporters(self) -> tuple[LivingExporter, ...]:
        """Those that work on the store, this one first."""
        found = self._follower.last_look
        this = this_one(self._store.name, sorted(self._running))
        if found is None or self._announced is None:
            return (this,)
        return (this, *others(found, self._store.owner, self._announced.config))

    @property
    def last_look_at(self) -> float | None:
        """When the store was last looked at (monotonic seconds), where others may write to it."""
        return self._follower.last_look_at

    @property
    def last_worker_progress(self) -> float:
        """When the inbox was last gone through (monotonic seconds), or the calls last went on, whichever is longer ago.

        While a thread is lacking, that may take as long as a call.
        """
        if not self._running or self._config is None:
            return self._clock.monotonic()
        return min(self._inbox.last_progress, self._threads.last_progress + self._config.poll.timeout)

    def refresh(self, account: str, server_id: int, done: Callable[[str | None], None]) -> None:
        """Poll a server now; ``done`` hears the error, or ``None``, perhaps at once and perhaps in another thread."""
        pair = self._running.get(account)
        if pair is None:
            done(f"There is no account {account}.")
        else:
            pair.poller.refresh(server_id, done)

    def list_now(self) -> None:
        """Ask each account for its server list at once."""
        for pair in list(self._running.values()):
            pair.poller.list_now()

    def have_listed(self) -> bool:
        """Whether a list call of each account has ended since the start, its effects included."""
        return all(pair.account.has_listed for pair in list(self._running.values()))

    def server_ids(self) -> dict[str, tuple[int, ...]]:
        """The servers that are polled, by account."""
        return {name: tuple(sorted(pair.account.server_ids)) for name, pair in list(self._running.items())}

    def glimpses(self) -> tuple[Glimpse, ...]:
        """What each scrape asks of each account."""
        running, config = dict(self._running), self._config
        if config is None or not self._store.is_shared:
            return tuple(glimpse_of(pair.account) for pair in running.values())
        return tuple(
            glimpse_of(running[one.name].account)
            if one.name in running
            else Glimpse(one.name, bool(one.webhook_tokens), self._paused_until(one.name), None)
            for one in config.accounts
        )

    def _paused_until(self, account: str) -> float | None:
        record = self._followed.get(account)
        until = None if record is None else record.state.paused_until
        return until if until is not None and until > self._clock.now() else None

    def statuses(self) -> tuple[AccountStatus, ...]:
        """How each account stands."""
        running, config = dict(self._running), self._config
        if config is None or not self._store.is_shared:
            return tuple(status_of(pair.account) for pair in running.values())
        followed, count = self._followed, self._publisher.count_servers
        return tuple(
            status_of(running[one.name].account)
            if one.name in running
            else status_of_others(config, one, followed.get(one.name), count(one.name), self._readings.get(one.name))
            for one in config.accounts
        )
