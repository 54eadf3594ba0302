"""What has to be done now and then: waivers, retention, catch-up polls, new secrets."""

from __future__ import annotations

import datetime as dt
import logging
from typing import TYPE_CHECKING, TypeVar

import sqlalchemy as sa

from patrolserver_exporter.inbox.deliveries import DeliveryState
from patrolserver_exporter.issues.waive import day_of
from patrolserver_exporter.lasting import SAY_EVERY
from patrolserver_exporter.live.effects import InboxMoved
from patrolserver_exporter.logs import log_fields
from patrolserver_exporter.store import StoreUnavailable, fleet, history
from patrolserver_exporter.store.tables import changes, inbox, issues, servers
from patrolserver_exporter.sync import account_updates, restore
from patrolserver_exporter.sync.health import Trouble

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping
    from concurrent.futures import Future

    from patrolserver_exporter.clock import Clock
    from patrolserver_exporter.config.schema import Config
    from patrolserver_exporter.live.own_metrics import Telemetry
    from patrolserver_exporter.store import Store, Unit
    from patrolserver_exporter.sync.account import RunningAccount
    from patrolserver_exporter.sync.rules import Rules

    T = TypeVar("T")


REJECTED_FOR = 3600.0
"""Seconds: a forged delivery must not live for 30 days, only long enough to be looked at."""

AT_ONCE = 1000
"""Rows of each kind that go in one purge, at most."""


def purge(unit: Unit, *, now: float, retention: float, limit: int = AT_ONCE) -> int:
    """Remove what is older than ``retention`` seconds, at most ``limit`` rows of each kind; returns how many went.

    Deliveries that wait are never purged, and neither is the newest change: its id is where the feed stands. Changes
    go from the oldest on and leave no gap, for a reader could not tell one: a change may be dated before others that
    came in before it, because its event was confirmed late.
    """
    before = now - retention
    ended = (DeliveryState.APPLIED, DeliveryState.EXPIRED, DeliveryState.DEAD)
    newest = sa.select(sa.func.max(changes.c.id)).scalar_subquery()
    kept = sa.select(sa.func.min(changes.c.id)).where(changes.c.at >= before).scalar_subquery()
    doomed = (
        (inbox, sa.and_(inbox.c.state == DeliveryState.REJECTED, inbox.c.updated_at < now - REJECTED_FOR)),
        (inbox, sa.and_(inbox.c.state.in_(ended), inbox.c.updated_at < before)),
        (issues, issues.c.fixed_at < before),
        (changes, changes.c.id < sa.func.coalesce(kept, newest)),
    )
    gone = 0
    for table, condition in doomed:
        ids = sa.select(table.c.id).where(condition).order_by(table.c.id).limit(limit)
        if table is changes:
            history.note_purge(unit.connection, ids)
        gone += unit.connection.execute(table.delete().where(table.c.id.in_(ids))).rowcount
    return gone + _purge_gone_servers(unit, before, limit)


def _purge_gone_servers(unit: Unit, before: float, limit: int) -> int:
    keys = unit.connection.execute(
        sa.select(servers.c.account, servers.c.server_id).where(servers.c.gone_at < before).limit(limit)
    ).all()
    for account, server_id in keys:
        for table in (issues, servers):
            unit.connection.execute(table.delete().where(table.c.account == account, table.c.server_id == server_id))
    return len(keys)


log = logging.getLogger(__name__)

_PURGE_EVERY = 600.0
_PURGE_ON = 1.0
"""Seconds to the next purge after one that took all that it may."""
_WAIVERS_EVERY = 10.0
"""Seconds until a sweep that failed is tried again; one that succeeded holds for the day."""
_CATCH_UP_EVERY = 10.0
_SECRETS_EVERY = 5.0


class Housekeeping:
    """Runs on the dispatcher's thread; its units of work go to the store without being waited for."""

    def __init__(self, store: Store, telemetry: Telemetry, clock: Clock) -> None:
        self._store = store
        self._telemetry = telemetry
        self._clock = clock
        self._rules: Mapping[str, Rules] = {}
        self._retention = 0.0
        self._swept_on: dt.date | None = None
        self._sweep: Future[int | None] | None = None
        self._sweeping: list[tuple[str, int]] = []
        """Accounts whose waivers are left to be looked at, and the server up to which the first one's have been."""
        self._stale: tuple[restore.Key, ...] = ()
        self._reclassifying: Future[None] | None = None
        self._due: dict[str, float] = {}
        self._caught_up_at: dict[str, float] = {}

    def configure(self, config: Config, rules: Mapping[str, Rules], stale: tuple[restore.Key, ...] = ()) -> None:
        """Take the configuration in force; waivers are applied again, and ``stale`` servers classified again."""
        self._stale = stale
        self._rules = rules
        self._retention = config.store.retention
        self._swept_on, self._sweep, self._sweeping = None, None, []
        self._due.pop("waivers", None)

    def tick(self, accounts: Collection[RunningAccount]) -> None:
        """Do what is due."""
        if self._stale and (self._reclassifying is None or self._reclassifying.done()):
            self._reclassify()
        today = day_of(self._clock.now())
        if today != self._swept_on and self._is_due("waivers", _WAIVERS_EVERY):
            self._swept_on, self._sweep = today, None
            self._sweeping = [(account, 0) for account in self._rules]
        self._sweep_on()
        if self._is_due("purge", _PURGE_EVERY):
            self._submit(self._purge)
        if self._is_due("catch_up", _CATCH_UP_EVERY):
            self._catch_up(accounts)
        if self._is_due("secrets", _SECRETS_EVERY):
            self._look_for_new_secrets(accounts)
        if self._is_due("failing", SAY_EVERY):
            self._say_what_fails(accounts)

    def _is_due(self, what: str, every: float) -> bool:
        now = self._clock.monotonic()
        if now < self._due.get(what, 0.0):
            return False
        self._due[what] = now + every
        return True

    def _submit(self, work: Callable[[Unit], T]) -> Future[T]:
        def look_at(future: Future[T]) -> None:
            error = future.exception()
            if error is not None:
                self._telemetry.error("store")
                # What the store cannot do, it has said itself, once and not at each try.
                level = logging.DEBUG if isinstance(error, StoreUnavailable) else logging.ERROR
                log.log(level, "Housekeeping failed and will be tried again", extra=log_fields(err=str(error)))

        submitted = self._store.submit(work)
        submitted.add_done_callback(look_at)
        return submitted

    def _reclassify(self) -> None:
        """A few servers a tick, so that deliveries and polls go on between; one that fails waits for its next poll."""
        batch, self._stale = self._stale[: restore.RECLASSIFIED_AT_ONCE], self._stale[restore.RECLASSIFIED_AT_ONCE :]
        rules = self._rules
        self._reclassifying = self._submit(lambda unit: restore.reclassify(unit, batch, rules, now=self._clock.now()))

    def _purge(self, unit: Unit) -> None:
        gone = purge(unit, now=self._clock.now(), retention=self._retention)
        # One may have come in for an account just while a reload removed it, or another exporter had it until now.
        set_aside = restore.retire_others(unit, tuple(self._rules), now=self._clock.now())
        if gone or set_aside:
            unit.effects.append(InboxMoved())
        if gone >= AT_ONCE:
            # There may be more than a purge takes at once; else a busy inbox would grow for ever.
            self._due["purge"] = self._clock.monotonic() + _PURGE_ON

    def _sweep_on(self) -> None:
        """A few servers a tick, so that deliveries and polls go on between."""
        if self._sweep is not None:
            if not self._sweep.done():
                return
            account, _ = self._sweeping.pop(0)
            if self._sweep.exception() is not None:
                self._swept_on, self._sweeping = None, []
            elif (last := self._sweep.result()) is not None:
                self._sweeping.insert(0, (account, last))
            self._sweep = None
        if self._sweeping:
            account, after = self._sweeping[0]
            rules = self._rules[account]
            self._sweep = self._submit(
                lambda unit: account_updates.sweep_waivers(
                    unit, account, after=after, now=self._clock.now(), rules=rules
                )
            )

    def _catch_up(self, accounts: Collection[RunningAccount]) -> None:
        """Poll all servers of an account that wants a catch-up, at most once an interval."""
        running = {account.name: account for account in accounts}

        def work(unit: Unit) -> list[str]:
            wanted = fleet.to_be_caught_up(unit.connection, self._clock.now())
            return [name for name in wanted if name in running and not account_updates.finish_catch_up(unit, name)]

        def plan(future: Future[list[str]]) -> None:
            for name in future.result() if future.exception() is None else ():
                self._plan_catch_up(running[name])

        self._submit(work).add_done_callback(plan)

    def _plan_catch_up(self, account: RunningAccount) -> None:
        now = self._clock.monotonic()
        if now < self._caught_up_at.get(account.name, 0.0):
            return
        self._caught_up_at[account.name] = now + account.interval
        log.warning(
            "Deliveries did not fit into the inbox, or the API did not know their events, so all servers are polled to "
            "find what they would have told; if this goes on, somebody may know the webhook's token: make a new one",
            extra=log_fields(account=account.name),
        )
        account.plan_spread(account.server_ids)

    def _say_what_fails(self, accounts: Collection[RunningAccount]) -> None:
        """One line for all servers of an account: there may be thousands."""
        now, monotonic = self._clock.now(), self._clock.monotonic()
        for account in accounts:
            failing = account.failing_for(SAY_EVERY)
            if not failing or account.standing.trouble is not Trouble.NONE:
                # A trouble of the account is said by itself.
                continue
            longest = min(failing, key=lambda server_id: failing[server_id].since)
            since = dt.datetime.fromtimestamp(now - monotonic + failing[longest].since, dt.UTC)
            log.warning(
                "Servers still cannot be polled; their old data stays and is marked as old",
                extra=log_fields(
                    account=account.name,
                    servers=len(failing),
                    server_id=longest,
                    since=since.isoformat(timespec="seconds"),
                    tries=failing[longest].times,
                ),
            )

    def _look_for_new_secrets(self, accounts: Collection[RunningAccount]) -> None:
        for account in accounts:
            account.try_new_credentials()
