"""What has to be done now and then: waivers, retention, catch-up polls, new secrets."""

from __future__ import annotations

import concurrent.futures
import datetime as dt
import functools
import logging
import time
from typing import TYPE_CHECKING, TypeVar

import sqlalchemy as sa

from patrolserver_exporter.inbox import deliveries
from patrolserver_exporter.inbox.deliveries import DeliveryState
from patrolserver_exporter.issues.waive import day_of
from patrolserver_exporter.lasting import SAY_EVERY, LastingTrouble
from patrolserver_exporter.live.effects import InboxMoved
from patrolserver_exporter.logs import log_fields
from patrolserver_exporter.store import StoreError, StoreUnavailable, fleet, history, replicas
from patrolserver_exporter.store.tables import changes, inbox, issues, servers
from patrolserver_exporter.sync import account_updates, operations, restore
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
        # Once more, since another transaction may have changed a row that this one waits for.
        gone += unit.connection.execute(table.delete().where(table.c.id.in_(ids), condition)).rowcount
    return gone + operations.forget_old(unit.connection, now) + _purge_gone_servers(unit, before, limit)


def _purge_gone_servers(unit: Unit, before: float, limit: int) -> int:
    keys = unit.connection.execute(
        sa.select(servers.c.account, servers.c.server_id).where(servers.c.gone_at < before).limit(limit)
    ).all()
    for account, server_id in keys:
        mine = servers.c.account == account, servers.c.server_id == server_id
        # It may be back by now, if another exporter polls the account.
        if unit.connection.execute(servers.delete().where(*mine, servers.c.gone_at < before)).rowcount:
            unit.connection.execute(issues.delete().where(issues.c.account == account, issues.c.server_id == server_id))
    return len(keys)


log = logging.getLogger(__name__)

_PURGE_EVERY = 600.0
_RETIRE_EVERY = 60.0
_RETIRE_TIMEOUT = 5.0
"""Seconds that a tick waits for the database at most, to retire accounts."""
_UNKNOWN_EVERY = 600.0
_PURGE_ON = 1.0
"""Seconds to the next purge after one that took all that it may."""
_WAIVERS_EVERY = 10.0
"""Seconds until a sweep that failed is tried again; one that succeeded holds for the day."""
_CATCH_UP_EVERY = 10.0
_SECRETS_EVERY = 5.0


def _unheard_accounts(connection: sa.Connection) -> list[str]:
    return replicas.unused_accounts(connection, deliveries.WAITING, replicas.UNHEARD_AFTER)


def _of_unknown_kinds(connection: sa.Connection) -> dict[str, int]:
    """How many rows of each kind a newer version has written that are left out here."""
    changes_of = {f"changes {kind!r}": count for kind, count in history.unknown_kinds(connection).items()}
    in_state = {f"deliveries {state!r}": count for state, count in deliveries.unknown_states(connection).items()}
    return changes_of | in_state


def _unused_accounts(connection: sa.Connection) -> list[str]:
    return replicas.unused_accounts(connection, deliveries.WAITING, replicas.KEPT_CONFIGURED)


class Unheard:
    """The accounts of which no exporter tells, and since when, for as long as they are looked at without a gap.

    How long ago the last one told is not enough: while the database was away nobody could.
    """

    def __init__(self) -> None:
        self._since: dict[str, float] = {}
        self._looked_at = float("-inf")

    def begin_again(self) -> None:
        """A look failed."""
        self._since = {}

    def look(self, unheard: Collection[str], now: float) -> list[str]:
        """Returns those of which nobody has told in `KEPT_CONFIGURED`; ``now`` is monotonic seconds."""
        if now - self._looked_at > 2 * _RETIRE_EVERY:
            self.begin_again()
        self._looked_at = now
        self._since = {name: self._since.get(name, now) for name in unheard}
        long = replicas.KEPT_CONFIGURED - replicas.UNHEARD_AFTER
        return [name for name, since in self._since.items() if now - since >= long]


class Housekeeping:
    """Runs on the dispatcher's thread; its units of work go to the store without being waited for."""

    def __init__(self, store: Store, telemetry: Telemetry, clock: Clock) -> None:
        self._store = store
        self._telemetry = telemetry
        self._clock = clock
        self._rules: Mapping[str, Rules] = {}
        self._retention = float("inf")
        """Seconds; nothing is removed before the configuration tells."""
        self._swept_on: dt.date | None = None
        self._sweep: Future[int | None] | None = None
        self._sweeping: list[tuple[str, int]] = []
        """Accounts whose waivers are left to be looked at, and the server up to which the first one's have been."""
        self._stale: tuple[restore.Key, ...] = ()
        self._reclassifying: Future[None] | None = None
        self._due: dict[str, float] = {}
        self._caught_up_at: dict[str, float] = {}
        self._unheard = Unheard()
        self._unknown = LastingTrouble(log, clock)

    def configure(self, config: Config, rules: Mapping[str, Rules], stale: tuple[restore.Key, ...] = ()) -> None:
        """Take the configuration in force; waivers are applied again, and ``stale`` servers classified again."""
        self._stale = stale
        self._rules = rules
        self._retention = config.store.retention
        self._swept_on, self._sweep, self._sweeping = None, None, []
        self._due.pop("waivers", None)

    def own(self, rules: Mapping[str, Rules], stale: tuple[restore.Key, ...] = ()) -> None:
        """Keep house for these accounts, too; their waivers are applied, and ``stale`` servers classified again."""
        self._rules = {**self._rules, **rules}
        self._stale += stale
        self._sweeping += [(account, 0) for account in rules]

    def disown(self, names: Collection[str]) -> None:
        """Other exporters keep house for these accounts."""
        self._rules = {name: rules for name, rules in self._rules.items() if name not in names}
        self._stale = tuple(key for key in self._stale if key[0] not in names)
        # The first one's sweep may be under way, and takes it from the list at its end.
        under_way = self._sweeping[:1] if self._sweep is not None else []
        self._sweeping = under_way + [one for one in self._sweeping[len(under_way) :] if one[0] not in names]

    def tick(self, running: Callable[[], Collection[RunningAccount]]) -> None:
        """Do what is due; ``running`` tells the accounts of this process, of which there may be hundreds."""
        if self._stale and (self._reclassifying is None or self._reclassifying.done()):
            self._reclassify()
        today = day_of(self._clock.now())
        if today != self._swept_on and self._is_due("waivers", _WAIVERS_EVERY):
            self._swept_on, self._sweep = today, None
            self._sweeping = [(account, 0) for account in self._rules]
        self._sweep_on()
        if self._store.is_held and self._is_due("purge", _PURGE_EVERY):
            self._submit(self._purge)
        if self._is_due("unknown", _UNKNOWN_EVERY):
            self._store.submit_read(_of_unknown_kinds).add_done_callback(self._tell_of_unknown)
        if self._store.is_shared and self._store.is_held and self._is_due("retire", _RETIRE_EVERY):
            self._retire_unused()
        if self._is_due("catch_up", _CATCH_UP_EVERY):
            self._catch_up(running())
        if self._is_due("secrets", _SECRETS_EVERY):
            self._look_for_new_secrets(running())
        if self._is_due("failing", SAY_EVERY):
            self._say_what_fails(running())

    def _is_due(self, what: str, every: float) -> bool:
        now = self._clock.monotonic()
        if now < self._due.get(what, 0.0):
            return False
        self._due[what] = now + every
        return True

    def _submit(self, work: Callable[[Unit], T], *accounts: str) -> Future[T]:
        def look_at(future: Future[T]) -> None:
            error = future.exception()
            if error is not None:
                self._telemetry.error("store")
                # What the store cannot do, it has said itself, once and not at each try.
                level = logging.DEBUG if isinstance(error, StoreUnavailable) else logging.ERROR
                log.log(level, "Housekeeping failed and will be tried again", extra=log_fields(err=str(error)))

        submitted = self._store.submit(work, *accounts)
        submitted.add_done_callback(look_at)
        return submitted

    def _reclassify(self) -> None:
        """A few servers a tick, so that deliveries and polls go on between; one that fails waits for its next poll."""
        batch, self._stale = self._stale[: restore.RECLASSIFIED_AT_ONCE], self._stale[restore.RECLASSIFIED_AT_ONCE :]
        rules = self._rules
        self._reclassifying = self._submit(
            lambda unit: restore.reclassify(unit, batch, rules, now=self._clock.now()), *{key[0] for key in batch}
        )

    def _purge(self, unit: Unit) -> None:
        gone = purge(unit, now=self._clock.now(), retention=self._retention)
        # One may have come in for an account just while a reload removed it.
        set_aside = 0 if self._store.is_shared else self._set_aside(unit)
        if gone or set_aside:
            unit.effects.append(InboxMoved())
        if gone >= AT_ONCE:
            # There may be more than a purge takes at once; else a busy inbox would grow for ever.
            self._due["purge"] = self._clock.monotonic() + _PURGE_ON

    def _tell_of_unknown(self, found: Future[dict[str, int]]) -> None:
        if found.exception() is not None:
            return
        if counted := found.result():
            self._unknown.lasts(
                "A newer version has written what this one does not know, so that is left out: upgrade this one",
                rows="; ".join(f"{count} {what}" for what, count in counted.items()),
            )
        else:
            self._unknown.is_over("Nothing that a newer version has written is left out any more")

    def _set_aside(self, unit: Unit) -> int:
        return deliveries.follow_accounts(unit, tuple(self._rules), now=self._clock.now())

    def _retire_unused(self) -> None:
        """Retire accounts that no living exporter has had configured for a while, each under its own lease."""
        # The end of the process waits for this, and must not wait for a database that is silent.
        end = time.monotonic() + _RETIRE_TIMEOUT
        try:
            noted = self._store.submit(lambda unit: replicas.note_unheard(unit.connection, deliveries.WAITING))
            noted.result(_RETIRE_TIMEOUT)
            unheard = self._store.submit_read(_unheard_accounts).result(max(end - time.monotonic(), 0.0))
            for name in self._unheard.look(unheard, self._clock.monotonic()):
                retire = functools.partial(self._retire, name=name)
                retired = self._store.take_over([name], retire, lambda: time.monotonic() < end)
                if retired is not None:
                    self._store.hand_over({name: None})
        except (StoreError, concurrent.futures.TimeoutError) as error:
            self._unheard.begin_again()
            self._telemetry.error("store")
            log.debug("Unused accounts are not retired yet", extra=log_fields(err=str(error)))

    def _retire(self, unit: Unit, _: object, *, name: str) -> bool:
        if name not in _unused_accounts(unit.connection):
            return False
        log.info("An account that no exporter has configured any more is retired", extra=log_fields(account=name))
        restore.retire(unit, name, now=self._clock.now())
        if deliveries.set_aside(unit, name, now=self._clock.now()):
            unit.effects.append(InboxMoved())
        return True

    def _sweep_on(self) -> None:
        """A few servers a tick, so that deliveries and polls go on between."""
        if self._sweep is not None:
            if not self._sweep.done():
                return
            account, _ = self._sweeping.pop(0)
            if account in self._rules and self._sweep.exception() is not None:
                self._swept_on, self._sweeping = None, []
            elif (last := self._sweep.result()) is not None and account in self._rules:
                self._sweeping.insert(0, (account, last))
            self._sweep = None
        if self._sweeping:
            account, after = self._sweeping[0]
            rules = self._rules.get(account)
            if rules is None:
                self._sweeping.pop(0)
                return
            self._sweep = self._submit(
                lambda unit: account_updates.sweep_waivers(
                    unit, account, after=after, now=self._clock.now(), rules=rules
                ),
                account,
            )

    def _catch_up(self, accounts: Collection[RunningAccount]) -> None:
        """Poll all servers of an account that wants a catch-up, at most once an interval."""
        running = {account.name: account for account in accounts}

        def go_on(name: str, finished: Future[bool]) -> None:
            if finished.exception() is None and not finished.result():
                self._plan_catch_up(running[name])

        def finish(wanted: Future[list[str]]) -> None:
            for name in wanted.result() if wanted.exception() is None else ():
                if name in running:
                    finished = self._submit(lambda unit, name=name: account_updates.finish_catch_up(unit, name), name)  # type: ignore[misc]
                    finished.add_done_callback(functools.partial(go_on, name))

        now = self._clock.now()
        asked = self._store.submit_anywhere(lambda unit: fleet.to_be_caught_up(unit.connection, now))
        asked.add_done_callback(finish)

    def _plan_catch_up(self, account: RunningAccount) -> None:
        now = self._clock.monotonic()
        if now < self._caught_up_at.get(account.name, 0.0):
            return
        self._caught_up_at[account.name] = now + account.interval
        log.warning(
            "All servers are polled, to find what is not known: deliveries did not fit into the inbox, or the API did "
            "not know their events, or the state may be old (a backup, a copy, a database that lost commits); if this "
            "goes on without a restore, somebody may know the webhook's token: make a new one",
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
