"""The leases: who has one may write, and what a late one writes is refused.

A row of the table ``leases`` is for one account, for what belongs to no account (`COMMON`), or for everything
(`STORE`). It says who holds it, and until when by the database's clock. The holder renews its rows every few seconds,
on a connection of its own, as long as it makes progress. Each transaction that writes begins with the *fence*: one
statement that only the holder's rows let through. So who was stopped or cut off until another one took a lease over
writes nothing more under it, whatever it still has in hand.

Exporters that share a database have a lease for each account that they poll. Who needs a database for itself takes
the one for everything, and finds nobody else there or gives it back.

Who takes deliveries in beside these transactions counts his own in a row that nobody else locks. A database that went
back behind either of the two has lost what was acknowledged, and that is said before anything is read from it.

With SQLite the row for everything is taken and each transaction is fenced by it. The lock on the file keeps others off,
so it does not run out and is not renewed. The fence finds those who got around the lock.
"""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import socket
import threading
import time
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import sqlalchemy as sa

from patrolserver_exporter.clock import SystemClock
from patrolserver_exporter.lasting import LastingTrouble
from patrolserver_exporter.logs import log_fields
from patrolserver_exporter.store import database_time, replicas
from patrolserver_exporter.store.database_time import boot_time
from patrolserver_exporter.store.errors import LeaseLost, StoreLocked, StoreUnavailable
from patrolserver_exporter.store.lease_rows import (
    COMMON,
    COUNT_INTAKE,
    END_INTAKE,
    END_OTHERS,
    END_STUCK,
    FENCE_MANY,
    FORGET_INTAKES,
    INTAKE,
    LEASE,
    OF_BEFORE,
    POSITION,
    RENEW,
    STORE,
    WENT_ELSEWHERE,
    Holder,
    Position,
    holder_of,
    knows_handed,
    read_holder,
    read_position,
    select_holders,
    statements,
)
from patrolserver_exporter.store.tables import insert, leases

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    from patrolserver_exporter.store.database_time import DatabaseTime
    from patrolserver_exporter.store.replicas import Announced


log = logging.getLogger(__name__)

RENEW_EVERY: Final = 3.0

_RETRY: Final = 1.0
"""Seconds to the next try of a renewal that failed."""

_LOOK_AGAIN: Final = 0.25
"""Seconds between two looks of who waits for a lease to run out."""

_GIVE_UP: Final = 3 * LEASE
"""Seconds that a start waits at most."""

_JOIN: Final = 2.0

_ACCOUNTS_EVERY: Final = 60.0
"""Seconds from one time that an exporter tells which accounts it has configured to the next."""

_WENT_BACK: Final = 2**62
"""More than is ever counted: whatever the row says, the database went back."""


class Left(NamedTuple):
    """What whoever had a lease before left behind."""

    handed: bytes | None
    """What it passed on when it gave the lease back."""
    uncleanly_at: float | None
    """When it was last heard of, by the database's clock, if it did not hand over what it left behind."""
    set_back: float = 0.0
    """Seconds by which the database's clock was set back since it was last heard of, at least."""


class Taken(NamedTuple):
    """A lease that was just taken."""

    epoch: int
    version: int
    left: tuple[Left, ...]
    """By those who had it, or the one for everything, which holds for it, too."""


class Fenced(NamedTuple):
    """A transaction that writes has begun."""

    lost: Mapping[str, LeaseLost]
    """The leases that it must not write under."""
    committed: Callable[[], None]
    """To be called once it is committed."""
    finishing: Callable[[], None] = lambda: None
    """To be called as its last statement."""


class _Held:
    """A lease that this process has, as far as it knows."""

    __slots__ = ("epoch", "renewed_at", "version")

    def __init__(self, epoch: int, version: int, renewed_at: float) -> None:
        self.epoch = epoch
        self.version = version
        """Of the last transaction of ours."""
        self.renewed_at = renewed_at
        """When the last renewal that succeeded began, in seconds of `boot_time`."""

    @property
    def may_have_run_out(self) -> bool:
        """Whether the last renewal began so long ago that somebody else can have it."""
        return boot_time() - self.renewed_at >= LEASE


class Lease:
    """This process' leases on a database.

    ``runs_out``: others may take one when it was not renewed for `LEASE` seconds. ``name`` is for people.
    ``on_setback`` is called in the first transaction after the database lost commits of ours. ``time`` hears of the
    database's clock with each renewal. ``shared``: several exporters may have the database open, and each has a lease
    for each account that it polls; otherwise there is one, for everything, which `acquire` takes.
    """

    def __init__(
        self,
        *,
        runs_out: bool,
        name: str = "",
        on_setback: Callable[[sa.Connection], None] = lambda _: None,
        time: DatabaseTime | None = None,
        shared: bool = False,
    ) -> None:
        self.owner = secrets.token_hex(16)
        self._runs_out = runs_out
        self._shared = shared
        self._held: dict[str, _Held] = {}
        self._lost: dict[str, str] = {}
        """Leases that another one took, and who that is, in words."""
        self._seen = Position("", {})
        """The latest state of each lease that this process has read or written."""
        self._seen_at = float("-inf")
        """When the last look at the database that succeeded began, in seconds of `boot_time`."""
        self._announced: Announced | None = None
        self._announced_at = float("-inf")
        """When the accounts were last told (monotonic seconds)."""
        self._told_at = float("-inf")
        """When the others were last told that this exporter lives, in seconds of `boot_time`."""
        self.name = name
        self._intake = INTAKE + self.owner
        self._seeing = threading.Lock()
        self._counting = threading.Lock()
        self._taken_in = 0
        """The last transaction of ours that took deliveries in."""
        self._on_setback = on_setback
        self._time = time
        self._moved: set[str] = set()
        self._made: set[str] = set()
        """Leases that have rows."""
        self._left_of_all: tuple[Left, ...] = ()
        """What the one before left behind, who had the lease for everything."""
        self._left_of: Mapping[str, tuple[Left, ...]] = {}
        """The same of those who had accounts' leases."""
        self.passes_on: bytes | None = None
        """What is left to the next one who has it."""
        self._failing: tuple[float, str] | None = None
        """Since when renewals fail (monotonic seconds), and why the last one did."""
        self._trouble = LastingTrouble(log, SystemClock(), logging.ERROR)
        self._makes_progress: Callable[[], bool] = lambda: True
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    # Taking one

    def acquire(self, engine: sa.Engine, what: str, is_needless: Callable[[], bool] = lambda: False) -> bool:
        """Take the lease for everything; `StoreLocked` if somebody holds it, False if it became needless meanwhile.

        One that was not given back is waited for until it runs out: its holder may have been killed. One that is
        renewed meanwhile has a living holder. ``what`` names the database.
        """
        first: Holder | None = None
        end = time.monotonic() + _GIVE_UP
        while (holder := self._try(engine)) is not None:
            if first is None:
                first = holder
                if self._runs_out:
                    log.warning(
                        "Another exporter holds the database, or did so until it was killed; waiting until its lease "
                        "runs out",
                        extra=log_fields(holder=holder.described, seconds=round(max(holder.until - holder.now, 0.0))),
                    )
            is_another = (holder.owner, holder.epoch) != (first.owner, first.epoch)
            if is_another and self._shared:
                # One that starts as this one does, and is about to make it needless.
                first = holder
            elif is_another or holder.until > first.until or time.monotonic() > end:
                raise StoreLocked(_refusal(what, holder))
            time.sleep(_LOOK_AGAIN)
            if is_needless():
                return False
        return True

    def _try(self, engine: sa.Engine) -> Holder | None:
        """Take the lease for everything if it is free; returns who holds it otherwise."""
        began = boot_time()
        with engine.begin() as connection:
            _limit_waits(connection, lock="500ms")
            # A file's lock is ours already, so whoever held the row is gone.
            taken = self.take(connection, [STORE], by_force=not self._runs_out)
            found = read_holder(connection)
        self._heard(found.now, began)
        if STORE not in taken:
            return found
        self.took(taken, began)
        self._left_of_all = taken[STORE].left
        # Unless this process makes calls itself, the next one goes on from what the one before has left.
        self.passes_on = self._left_of_all[0].handed
        return None

    def take(self, connection: sa.Connection, names: Collection[str], *, by_force: bool = False) -> dict[str, Taken]:
        """Take those of these leases that are free, without waiting; `took` is to be called after the commit.

        None is while another one has the database for itself.
        """
        dialect = connection.dialect.name
        if not self.knows(names):
            self.make_rows(connection, names)
        # One that is locked is being written under, or taken by another one.
        query = select_holders(connection).where(leases.c.account.in_(sorted(names))).order_by(leases.c.account)
        hands_over = STORE not in names or knows_handed(connection)
        handed = leases.c.handed if hands_over else sa.null().label("handed")
        query = query.add_columns(handed)
        rows = connection.execute(query.with_for_update(skip_locked=True)).all()
        # Those that are locked are there; but a failover may have lost one.
        locked = set(names).difference(row.account for row in rows)
        self._made.difference_update(locked)
        if locked and dialect == "postgresql":
            _end_stuck(connection, locked)
        of_all = select_holders(connection).add_columns(handed).where(leases.c.account == STORE)
        alone = connection.execute(of_all).one_or_none()
        if alone is not None and alone.owner not in {None, self.owner} and not holder_of(alone).is_free:
            # For everything, if that is what is wanted, as well.
            rows = rows if by_force else []
        taken = {}
        for row in rows:
            before = holder_of(row)
            # Ours: the end of a commit that took it was not heard.
            if not (before.is_free or before.owner == self.owner or by_force):
                continue
            taken[row.account] = Taken(
                epoch=before.epoch + 1,
                version=before.version + 1,
                left=(self._left(row), *(() if alone is None or row.account == STORE else (self._left(alone),))),
            )
        if taken:
            connection.execute(
                statements(dialect).take if hands_over else statements(dialect).take_before_it_hands_over,
                [
                    {
                        "account": name,
                        "owner": self.owner,
                        "name": self.name,
                        "host": socket.gethostname(),
                        "pid": os.getpid(),
                    }
                    for name in taken
                ],
            )
        return taken

    def knows(self, names: Collection[str]) -> bool:
        """Whether these leases are known to have rows."""
        return self._made.issuperset(names)

    def make_rows(self, connection: sa.Connection, names: Collection[str]) -> None:
        """Make rows for those of these leases that have none."""
        # Looked for first: to find by an insert that one is there waits for whoever writes it.
        there = connection.execute(sa.select(leases.c.account).where(leases.c.account.in_(sorted(names)))).scalars()
        missing = sorted(set(names) - set(there))
        if missing:
            new = insert(connection.dialect.name, leases).on_conflict_do_nothing(index_elements=["account"])
            connection.execute(new, [{"account": name, "epoch": 0, "version": 0} for name in missing])
        self._made.update(names)

    def prolong(self, connection: sa.Connection, names: Collection[str]) -> None:
        """Renew these leases, which this transaction has taken, so that they hold from its end on."""
        connection.execute(statements(connection.dialect.name).prolong, [self._mine(name) for name in sorted(names)])

    def _mine(self, name: str) -> dict[str, object]:
        return {"account": name, "owner": self.owner}

    def _left(self, row: sa.Row[Any]) -> Left:
        holder = holder_of(row)
        set_back = max(holder.last_at - holder.now, 0.0)
        if row.owner is not None:
            return Left(None, holder.last_at if self._runs_out else None, set_back)
        # An account's that was given back in haste: what calls were made, nobody told.
        is_of_account = row.account not in {STORE, COMMON}
        return Left(row.handed, row.until if is_of_account and row.handed is None else None, set_back)

    def left_behind(self, account: str) -> tuple[Left, ...]:
        """What those left behind who had everything, or this account, before we took the lease for everything."""
        return (*self._left_of_all, *self._left_of.get(account, ()))

    def took(self, taken: Mapping[str, Taken], began: float) -> None:
        """These were taken by a transaction that is committed now, and began then by `boot_time`."""
        for name, one in taken.items():
            self._lost.pop(name, None)
            self._held[name] = _Held(one.epoch, one.version, began)

    @property
    def is_announced(self) -> bool:
        """Whether others know that this exporter lives: until they do, none is to be taken."""
        return boot_time() - self._told_at < LEASE

    def end_those_of_accounts(self, connection: sa.Connection) -> None:
        """Nobody lives who has one, but who has stood still may go on: it must find that its leases are over."""
        _limit_waits(connection, lock="5s")
        query = select_holders(connection).add_columns(leases.c.handed).where(leases.c.since.is_not(None))
        others = query.where(leases.c.account.not_in((STORE, COMMON)))
        self._left_of = {row.account: (self._left(row),) for row in connection.execute(others)}
        connection.execute(END_OTHERS, {"owner": self.owner})

    # Keeping them

    def keep(self, engine: sa.Engine) -> None:
        """Renew it from now on, on a connection of this engine, until `close`."""
        self._thread = threading.Thread(target=self._run, args=(engine,), name="store-lease", daemon=True)
        self._thread.start()

    def watch(self, makes_progress: Callable[[], bool]) -> None:
        """Renew it only while this says that the service makes progress: one that hangs must not keep others off."""
        self._makes_progress = makes_progress

    def _run(self, engine: sa.Engine) -> None:
        wait = RENEW_EVERY
        while not self._stopping.wait(wait) and (self._shared or not self._lost):
            wait = self._renew_or_tell(engine)

    def _renew_or_tell(self, engine: sa.Engine) -> float:
        """Returns the seconds to the next renewal."""
        if not self._makes_progress():
            self._cannot_renew("the service makes no progress")
            return _RETRY
        try:
            self._renew(engine)
            self._tell_that_it_lives(engine)
        except (sa.exc.SQLAlchemyError, OSError) as error:
            self._cannot_renew(str(getattr(error, "orig", None) or error))
            return _RETRY
        self._failing = None
        self._trouble.is_over("The lease on the database is renewed again")
        return RENEW_EVERY

    def _renew(self, engine: sa.Engine) -> None:
        held = dict(self._held)
        if not held:
            return
        began = boot_time()
        with engine.begin() as connection:
            _limit_waits(connection, lock="1s")
            wanted = {"accounts": list(held), "epochs": [one.epoch for one in held.values()], "owner": self.owner}
            rows = connection.execute(RENEW, wanted).all()
            renewed = {row.account for row in rows}
            # What a transaction of ours has locked, it renews by its fence.
            left = {name: read_holder(connection, name) for name in held if name not in renewed}
        for row in rows:
            self._heard(row.now, began)
        for name, one in held.items():
            if name in renewed:
                one.renewed_at = max(one.renewed_at, began)
            elif (left[name].owner, left[name].epoch) != (self.owner, one.epoch) and self._held.get(name) is one:
                self._told_lost(name, left[name])

    def announce(self, told: Announced, engine: sa.Engine) -> None:
        """Tell the others this, now and from time to time; where that fails, it is tried again with each renewal."""
        self._announced, self._announced_at = told, float("-inf")
        with contextlib.suppress(sa.exc.SQLAlchemyError, OSError):
            self._tell_that_it_lives(engine)

    def _tell_that_it_lives(self, engine: sa.Engine) -> None:
        if not self._shared or self._announced is None:
            return
        began, now = boot_time(), time.monotonic()
        with_accounts = now - self._announced_at >= _ACCOUNTS_EVERY
        with engine.begin() as connection:
            _limit_waits(connection, lock="1s")
            replicas.announce(connection, self.owner, self.name, self._announced, with_accounts=with_accounts)
            if with_accounts:
                connection.execute(FORGET_INTAKES)
            # Beside the follower: one look of its may take longer than what it saw before vouches for anything.
            position, _ = read_position(connection)
            seen_at = database_time.read(connection)
        self.has_seen(position, asked_at=began, now=seen_at)
        self._told_at = began
        if with_accounts:
            self._announced_at = now

    def _heard(self, now: float, asked_at: float) -> None:
        if self._time is not None:
            self._time.heard(now, asked_at=asked_at)

    def _cannot_renew(self, reason: str) -> None:
        since = time.monotonic() if self._failing is None else self._failing[0]
        self._failing = since, reason
        self._trouble.lasts(
            "The lease on the database cannot be renewed; once it has run out, deliveries and reads get a 503 and no "
            "calls are made until it can",
            err=reason,
        )

    # Writing under them

    def fence(self, connection: sa.Connection, names: Collection[str]) -> Fenced:
        """Begin a transaction that writes under these leases.

        It renews them, too, and holds their rows until the transaction ends.
        """
        lost = {name: self._refused(name) for name in names if name in self._lost or name not in self._held}
        held = {name: self._held[name] for name in sorted(names) if name not in lost}
        if not held:
            return Fenced(lost, _nothing)
        began, taken_in = boot_time(), self._taken_in
        found = {row.account: row for row in connection.execute(*self._fencing(held)).all()}
        lost |= {name: self._told_lost(name, read_holder(connection, name)) for name in held if name not in found}
        for row in found.values():
            # Whatever this transaction finds came in before, so what it is dated by must not be earlier.
            self._heard(row.now, began)
        moved = {name for name, row in found.items() if row.version != held[name].version + 1}
        counted = max((row.taken_in for row in found.values()), default=taken_in)
        went_back = counted < taken_in or any(found[name].version <= held[name].version for name in moved)
        if went_back:
            moved = set(found)
            log.error(
                "The database went back to an earlier state, as after a failover to a standby that lacked the last "
                "commits, or a restored backup: all servers are polled, and are unknown to the gate until then",
            )
            self._on_setback(connection)
        elif moved:
            log.warning("A commit whose end was not heard took effect; everything is shown again")

        def finishing() -> None:
            # Where it took long, the leases would run out with it, or soon after.
            nonlocal began
            if self._runs_out and boot_time() - began > RENEW_EVERY:
                began = boot_time()
                self.prolong(connection, found)

        def committed() -> None:
            self._moved |= moved
            if went_back:
                self._taken_in = counted
            for name, row in found.items():
                held[name].version = row.version
                held[name].renewed_at = max(held[name].renewed_at, began)

        return Fenced(lost, committed, finishing)

    def _fencing(self, held: Mapping[str, _Held]) -> tuple[sa.TextClause, dict[str, object]]:
        if len(held) == 1:
            ((name, one),) = held.items()
            mine = {"owner": self.owner, "intake": self._intake}
            return statements(self._dialect).fence, {"account": name, "epoch": one.epoch, **mine}
        epochs = [one.epoch for one in held.values()]
        mine = {"owner": self.owner, "intake": self._intake}
        return FENCE_MANY, {"accounts": list(held), "epochs": epochs, **mine}

    @property
    def _dialect(self) -> str:
        return "postgresql" if self._runs_out else "sqlite"

    def _refused(self, name: str) -> LeaseLost:
        return LeaseLost(self._lost.get(name, _READS_ONLY))

    def count_intake(self, connection: sa.Connection, _: Collection[str]) -> Fenced:
        """Begin a transaction that takes deliveries in beside the others; as `fence`, but it needs no lease.

        A delivery that is on disk is worked by whoever has the account's.
        """
        counted = connection.execute(COUNT_INTAKE, {"account": self._intake}).scalar()
        if counted is None:
            return Fenced({INTAKE: LeaseLost(WENT_ELSEWHERE)}, _nothing)

        def committed() -> None:
            with self._counting:
                self._taken_in = counted if counted > self._taken_in else _WENT_BACK

        return Fenced({}, committed)

    def take_moved(self) -> frozenset[str]:
        """Leases under which the state is not what our commits made of it, so that it is read again; said once."""
        moved, self._moved = self._moved, set()
        return frozenset(moved)

    # Reading beside it

    def reading(self) -> Callable[[sa.Connection], None]:
        """Before a read's snapshot is taken: what is to be called first in it.

        That raises `LeaseLost`, or `StoreUnavailable` where the snapshot lacks something that we have committed.
        """
        if self._shared:
            return self._follow_reading()
        one = self._held.get(STORE)
        if one is None:
            raise LeaseLost(self._lost.get(STORE, _READS_ONLY))
        epoch, least, taken_in = one.epoch, one.version, self._taken_in

        def vouch(connection: sa.Connection) -> None:
            found_owner, found_epoch, version, counted = connection.execute(POSITION, {"intake": self._intake}).one()
            if (found_owner, found_epoch) != (self.owner, epoch):
                raise self._told_lost(STORE, read_holder(connection))
            if version < least or counted < taken_in:
                raise StoreUnavailable(OF_BEFORE)

        return vouch

    def _follow_reading(self) -> Callable[[sa.Connection], None]:
        """Whoever has the leases: the snapshot is vouched for unless it lacks what this process has seen or written."""
        seen, taken_in = self._seen, self._taken_in
        mine = Position(seen.history, {name: one.version for name, one in self._held.copy().items()})

        def vouch(connection: sa.Connection) -> None:
            found, doubt = read_position(connection)
            if doubt is not None:
                raise StoreUnavailable(doubt)
            lacks_mine = found._replace(history=mine.history).lacks(mine)
            if lacks_mine or found.lacks(seen) or found.versions.get(self._intake, 0) < taken_in:
                raise StoreUnavailable(OF_BEFORE)

        return vouch

    def has_seen(self, position: Position, *, asked_at: float, now: float) -> None:
        """A look that began then, by `boot_time`, has found the database in this state, and that it is ``now``.

        One that went back in the same history is not believed: whoever has a lease begins another one.
        """
        with self._seeing:
            if not position.lacks(self._seen):
                if position.history != self._seen.history:
                    # Deliveries, too, are counted from where it goes on; who only reads has no fence to learn that by.
                    with self._counting:
                        self._taken_in = position.versions.get(self._intake, 0)
                self._seen = position
            self._seen_at = max(self._seen_at, asked_at)
        self._heard(now, asked_at)

    @property
    def taken_in(self) -> int:
        """The last transaction of ours that took deliveries in."""
        return self._taken_in

    @property
    def seen(self) -> Position:
        """The latest state of each lease that this process has read."""
        return self._seen

    def went_back(self, connection: sa.Connection) -> bool:
        """Whether the database lacks commits that this process has seen of others."""
        # Before the state is read: what is seen meanwhile may be newer than that.
        seen, taken_in = self._seen, self._taken_in
        return self.is_before(read_position(connection)[0], seen, taken_in)

    def is_before(self, position: Position, seen: Position, taken_in: int) -> bool:
        """Whether it lacks commits that this process had ``seen``, or ``taken_in``, when it was asked for."""
        if position.lacks(seen):
            return True
        return position.history == seen.history and position.versions.get(self._intake, 0) < taken_in

    def _told_lost(self, name: str, holder: Holder) -> LeaseLost:
        if name not in self._lost:
            by = "nobody holds it now" if holder.owner is None else f"it is held by {holder.described}"
            what = f"for the account {name}" if self._shared and name != COMMON else "on the database"
            then = "It only reads there from now on." if self._shared else "It writes nothing more and ends."
            self._lost[name] = (
                f"This exporter lost its lease {what}: it was stopped or cut off for longer than "
                f"{LEASE:g} seconds, and another one took over ({by}). {then}"
            )
            self._held.pop(name, None)
            self._made.discard(name)
            log.log(logging.WARNING if self._shared else logging.ERROR, self._lost[name])
        return LeaseLost(self._lost[name])

    # How they stand

    def is_held(self, name: str) -> bool:
        """Whether nobody else can hold it: the last renewal began less than `LEASE` seconds ago."""
        one = self._held.get(name)
        return one is not None and not (self._runs_out and one.may_have_run_out)

    def check_current(self) -> None:
        """`StoreUnavailable` unless what is read and written now can be vouched for.

        Where the database is shared, somebody else may have the lease; but this process must have seen the database a
        moment ago, so that nothing is answered that was read before it was stopped.
        """
        if not self._shared:
            self.check(STORE)
        elif boot_time() - self._seen_at >= LEASE:
            reason = "" if self._failing is None else f": {self._failing[1]}"
            raise StoreUnavailable(f"The database cannot be followed{reason}.")

    @property
    def names(self) -> tuple[str, ...]:
        """The leases that are ours as far as we know."""
        return tuple(self._held)

    def has(self, name: str) -> bool:
        """Whether it is ours as far as we know, even if it may have run out."""
        return name in self._held

    def check(self, name: str) -> None:
        """`StoreUnavailable` unless `is_held`, since another one may have written meanwhile: `LeaseLost` if one did."""
        if name not in self._held:
            raise self._refused(name)
        if not self.is_held(name):
            reason = "" if self._failing is None else f": {self._failing[1]}"
            raise StoreUnavailable(f"The lease on the database ran out and could not be renewed{reason}.")

    def lost(self, name: str) -> str | None:
        """That another one took it, in words; ``None`` while that is not known."""
        return self._lost.get(name)

    @property
    def failing(self) -> tuple[float, str] | None:
        """Since when it cannot be renewed (monotonic seconds), and why; ``None`` while it can."""
        return self._failing

    # Giving them back

    def hand_over(self, connection: sa.Connection, name: str, handed: bytes | None) -> None:
        """Write that nobody holds it, and what the next one has to know; nothing more is written under it by us."""
        one = self._held.pop(name, None)
        if one is not None:
            mine = {"account": name, "owner": self.owner, "epoch": one.epoch, "handed": handed}
            connection.execute(statements(connection.dialect.name).give_back, mine)

    def tell_that_it_leaves(self, connection: sa.Connection) -> None:
        """Others are to leave no account to this exporter any more."""
        if self._announced is not None:
            self._announced = self._announced._replace(config=replicas.LEAVES)
            replicas.announce(connection, self.owner, self.name, self._announced, with_accounts=False)

    def close(self, engine: sa.Engine) -> None:
        """Give all back, so that the next process need not wait for them to run out; a silent database keeps them."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join(_JOIN)
        held = dict(self._held)
        # In a thread, since a session that is silent would never end the wait.
        giving = threading.Thread(target=self.give_back, args=(engine,), daemon=True)
        giving.start()
        giving.join(_JOIN)
        # Who still asks for something hears from the store that it is closing, and not that somebody else has it.
        self._held = held

    def give_back(self, engine: sa.Engine) -> None:
        """Write that nobody holds it; does nothing where that cannot be written."""
        if self._shared:
            with contextlib.suppress(sa.exc.SQLAlchemyError, OSError), engine.begin() as connection:
                _limit_waits(connection, lock="1s")
                replicas.leave(connection, self.owner)
                if self._taken_in:
                    connection.execute(END_INTAKE, {"account": self._intake})
        with contextlib.suppress(sa.exc.SQLAlchemyError, OSError), engine.begin() as connection:
            _limit_waits(connection, lock="1s")
            for name in sorted(self._held):
                self.hand_over(connection, name, self.passes_on if name == STORE else None)


def _nothing() -> None:
    """There is nothing to do after the commit."""


def _refusal(what: str, holder: Holder) -> str:
    return (
        f"{what} is in use by another patrolserver-exporter: {holder.described}. One exporter at a time works on a "
        "database. Stop that one and start this one again, or give this one another store.url."
    )


_READS_ONLY: Final = "Another exporter has the lease; this one only reads."


def _end_stuck(connection: sa.Connection, names: Collection[str]) -> None:
    """Let go of leases that ran out and are locked by a process that stands still; the next try may take them."""
    for row in connection.execute(END_STUCK, {"accounts": sorted(names)}):
        log.warning(
            "The session of an exporter that stands still was ended, since it kept an account's lease locked",
            extra=log_fields(account=row.account, ended=row.ended),
        )


def _limit_waits(connection: sa.Connection, *, lock: str) -> None:
    """For a transaction that only looks after the lease."""
    if connection.dialect.name == "postgresql":
        connection.exec_driver_sql(
            f"SELECT set_config('lock_timeout', '{lock}', true), set_config('statement_timeout', '5s', true), "
            "set_config('idle_in_transaction_session_timeout', '3s', true)"
        )
