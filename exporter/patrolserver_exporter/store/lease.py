"""The lease: the one process that may write to a database holds it, and what a late one writes is refused.

A row of the table ``leases`` says who holds it, and until when by the database's clock. The holder renews it every few
seconds, on a connection of its own, as long as it makes progress. Each transaction that writes begins with the *fence*:
one statement that only the holder's row lets through. So who was stopped or cut off until another one took the lease
over writes nothing more, whatever it still has in hand.

Who takes deliveries in beside these transactions counts his own in a row that nobody else locks. A database that went
back behind either of the two has lost what was acknowledged, and that is said before anything is read from it.

With SQLite the same row is taken and each transaction is fenced by it. The lock on the file keeps others off, so it
does not run out and is not renewed. The fence finds those who got around the lock.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import functools
import logging
import os
import secrets
import socket
import threading
import time
from typing import TYPE_CHECKING, Final, NamedTuple

import sqlalchemy as sa

from patrolserver_exporter.clock import SystemClock
from patrolserver_exporter.lasting import LastingTrouble
from patrolserver_exporter.logs import log_fields
from patrolserver_exporter.store import replicas
from patrolserver_exporter.store.database_time import NOW, boot_time, now_in
from patrolserver_exporter.store.errors import LeaseLost, StoreLocked, StoreUnavailable
from patrolserver_exporter.store.tables import feed, insert, leases

if TYPE_CHECKING:
    from collections.abc import Callable

    from patrolserver_exporter.store.database_time import DatabaseTime
    from patrolserver_exporter.store.replicas import Announced

log = logging.getLogger(__name__)

LEASE: Final = 10.0
"""Seconds that a lease holds without being renewed."""
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
STORE: Final = ""
"""The lease's name in the row: an account's, or none for all that belongs to no account. This one guards everything."""

INTAKE: Final = "/intake"
"""The row that counts the transactions of who takes deliveries in; no account can have this name. Nobody holds it."""
_WENT_BACK: Final = 2**62
"""More than is ever counted: whatever the row says, the database went back."""


class Position(NamedTuple):
    """Which state of a database somebody has seen."""

    history: str
    """Of the feed: another one is another state, in which versions begin anew."""
    version: int


class Holder(NamedTuple):
    """Who holds a lease. Names, host and process id are for people; only ``owner`` and ``epoch`` are compared."""

    owner: str | None
    """``None``: it was given back."""
    epoch: int
    version: int
    until: float
    """Seconds since the epoch, by the database's clock."""
    since: float
    name: str
    host: str
    pid: int
    now: float
    """When this was read, by the same clock."""

    @property
    def described(self) -> str:
        """As it stands in messages."""
        since = dt.datetime.fromtimestamp(self.since, dt.UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
        named = f"{self.name!r}, " if self.name else ""
        return f"{named}process {self.pid} on host {self.host}, since {since}"


class Lease:
    """This process' lease on a database. Build it, `acquire` it, and `keep` it.

    ``runs_out``: others may take it when it was not renewed for `LEASE` seconds. ``name`` is for people. ``on_setback``
    is called in the first transaction after the database lost commits of ours. ``time`` hears of the database's clock
    with each renewal. ``shared``: several exporters may have the database open, and this one reads while another one
    has the lease.
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
        self._seen = Position("", 0)
        """The latest state that this process has read or written."""
        self._seen_at = float("-inf")
        """When the last look at the database that succeeded began, in seconds of `boot_time`."""
        self.left_uncleanly_at: float | None = None
        """Until when the one before held it, by the database's clock, if that one did not give it back."""
        self._announced: Announced | None = None
        self._announced_at = float("-inf")
        self._name = name
        self._epoch = 0
        self._version = 0
        """Of the last transaction of ours."""
        self._taken_in = 0
        """The last transaction of ours that took deliveries in."""
        self._renewed_at = float("-inf")
        """When the last renewal that succeeded began, in seconds of `boot_time`."""
        self._on_setback = on_setback
        self._time = time
        self._moved = False
        self._lost: str | None = None
        self._failing: tuple[float, str] | None = None
        """Since when renewals fail (monotonic seconds), and why the last one did."""
        self._trouble = LastingTrouble(log, SystemClock(), logging.ERROR)
        self._makes_progress: Callable[[], bool] = lambda: True
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    # Taking it

    def acquire(self, engine: sa.Engine, what: str) -> None:
        """Take the lease; `StoreLocked` if somebody holds it.

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
            is_alive = (holder.owner, holder.epoch) != (first.owner, first.epoch) or holder.until > first.until
            if is_alive or time.monotonic() > end:
                raise StoreLocked(_refusal(what, holder))
            time.sleep(_LOOK_AGAIN)

    def _try(self, engine: sa.Engine) -> Holder | None:
        """Take it if it is free; returns who holds it otherwise."""
        began = boot_time()
        try:
            with engine.begin() as connection:
                _limit_waits(connection, lock="500ms")
                new = insert(connection.dialect.name, leases).values(account=STORE, epoch=0, version=0)
                connection.execute(new.on_conflict_do_nothing(index_elements=["account"]))
                before = _read(connection)
                taken = connection.execute(
                    _statements(connection.dialect.name).take,
                    {
                        "account": STORE,
                        "owner": self.owner,
                        "name": self._name,
                        "host": socket.gethostname(),
                        "pid": os.getpid(),
                        # A file's lock is ours already, so whoever held the row is gone.
                        "by_force": not self._runs_out,
                    },
                ).rowcount
                found = _read(connection)
        except sa.exc.OperationalError as error:
            if not _is_lock_timeout(error):
                raise
            # Whoever holds the row is writing, or was stopped in the middle of it.
            with engine.begin() as connection:
                return _read(connection)
        self._heard(found.now, began)
        if not taken:
            return found
        self.left_uncleanly_at = None if before.owner is None or not self._runs_out else before.until - LEASE
        self._lost = None
        self._epoch, self._version = found.epoch, found.version
        self._renewed_at = began
        return None

    def take_over(self, engine: sa.Engine) -> Holder | None:
        """Take it if it is free, without waiting; returns who holds it otherwise. ``None``: it is ours now."""
        return self._try(engine)

    # Keeping it

    def keep(self, engine: sa.Engine) -> None:
        """Renew it from now on, on a connection of this engine, until `close`."""
        self._thread = threading.Thread(target=self._run, args=(engine,), name="store-lease", daemon=True)
        self._thread.start()

    def watch(self, makes_progress: Callable[[], bool]) -> None:
        """Renew it only while this says that the service makes progress: one that hangs must not keep others off."""
        self._makes_progress = makes_progress

    def _run(self, engine: sa.Engine) -> None:
        wait = 0.0 if self._shared else RENEW_EVERY
        while not self._stopping.wait(wait) and (self._shared or self._lost is None):
            wait = self._renew_or_tell(engine)

    def _renew_or_tell(self, engine: sa.Engine) -> float:
        """Returns the seconds to the next renewal."""
        if not self._makes_progress():
            self._cannot_renew("the service makes no progress")
            return _RETRY
        try:
            self._tell_that_it_lives(engine)
            if self._epoch and self._lost is None:
                self._renew(engine)
        except LeaseLost:
            return RENEW_EVERY if self._shared else 0.0
        except (sa.exc.SQLAlchemyError, OSError) as error:
            if isinstance(error, sa.exc.OperationalError) and _is_lock_timeout(error):
                # A transaction of ours that takes long holds the row, and renews it by its fence.
                return _RETRY
            self._cannot_renew(str(getattr(error, "orig", None) or error))
            return _RETRY
        self._failing = None
        self._trouble.is_over("The lease on the database is renewed again")
        return RENEW_EVERY

    def _renew(self, engine: sa.Engine) -> None:
        began = boot_time()
        with engine.begin() as connection:
            _limit_waits(connection, lock="1s")
            now = connection.execute(_statements(connection.dialect.name).renew, self._mine).scalar_one_or_none()
            if now is None:
                raise self._told_lost(_read(connection))
            self._heard(now, began)
        self._renewed_at = max(self._renewed_at, began)

    def announce(self, told: Announced) -> None:
        """Tell the others this, from the next renewal on."""
        self._announced, self._announced_at = told, float("-inf")

    def _tell_that_it_lives(self, engine: sa.Engine) -> None:
        if not self._shared or self._announced is None:
            return
        now = time.monotonic()
        with_accounts = now - self._announced_at >= _ACCOUNTS_EVERY
        with engine.begin() as connection:
            _limit_waits(connection, lock="1s")
            replicas.announce(connection, self.owner, self._name, self._announced, with_accounts=with_accounts)
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

    # Writing under it

    def fence(self, connection: sa.Connection) -> Callable[[], None]:
        """Begin a transaction that writes: `LeaseLost` if the lease is another one's by now.

        It renews the lease, too, and holds the row until the transaction ends. What it returns is to be called once the
        transaction is committed.
        """
        if self._lost is not None:
            raise LeaseLost(self._lost)
        if not self._epoch:
            raise LeaseLost(_READS_ONLY)
        began = boot_time()
        statement = _statements(connection.dialect.name).fence
        found, followed = self._version, None
        position = {"version": found, "taken_in": self._taken_in}
        now = connection.execute(statement, {**self._mine, **position}).scalar_one_or_none()
        if now is None:
            found, followed = self._follow(connection)
        else:
            # Whatever this transaction finds came in before, so what it is dated by must not be earlier.
            self._heard(now, began)

        def committed() -> None:
            if followed is not None:
                self._moved, self._taken_in = True, followed
            self._version = found + 1
            self._renewed_at = max(self._renewed_at, began)

        return committed

    def count_intake(self, connection: sa.Connection) -> Callable[[], None]:
        """Begin a transaction that takes deliveries in beside the others; as `fence`, but whoever holds the lease may.

        A delivery that is on disk is worked by whoever that is.
        """
        counted = connection.execute(_COUNT_INTAKE, {"account": INTAKE}).scalar_one()

        def committed() -> None:
            self._taken_in = counted if counted > self._taken_in else _WENT_BACK

        return committed

    def _follow(self, connection: sa.Connection) -> tuple[int, int]:
        """The rows are not as we left them: go on from there if the lease is still ours. Returns what they count."""
        found, taken_in = _read(connection), connection.execute(_TAKEN_IN).scalar_one()
        if (found.owner, found.epoch) != (self.owner, self._epoch):
            raise self._told_lost(found)
        began = boot_time()
        statement = _statements(connection.dialect.name).fence
        position = {"version": found.version, "taken_in": 0}
        now = connection.execute(statement, {**self._mine, **position}).scalar_one_or_none()
        if now is None:
            raise self._told_lost(_read(connection))
        self._heard(now, began)
        if found.version < self._version or taken_in < self._taken_in:
            log.error(
                "The database went back to an earlier state, as after a failover to a standby that lacked the last "
                "commits, or a restored backup: all servers are polled, and are unknown to the gate until then",
                extra=log_fields(commits=max(self._version - found.version, 0)),
            )
            self._on_setback(connection)
        else:
            log.warning("A commit whose end was not heard took effect; everything is shown again")
        return found.version, taken_in

    def take_moved(self) -> bool:
        """Whether the state is not what our commits made of it, so that it has to be read again; said once."""
        moved, self._moved = self._moved, False
        return moved

    # Reading beside it

    def reading(self) -> Callable[[sa.Connection], None]:
        """Before a read's snapshot is taken: what is to be called first in it.

        That raises `LeaseLost`, or `StoreUnavailable` where the snapshot lacks something that we have committed.
        """
        if self._shared:
            return self._follow_reading()
        least, taken_in = self._version, self._taken_in

        def vouch(connection: sa.Connection) -> None:
            owner, epoch, version, counted = connection.execute(_POSITION).one()
            if (owner, epoch) != (self.owner, self._epoch):
                raise self._told_lost(_read(connection))
            if version < least or counted < taken_in:
                raise StoreUnavailable("The database went back to an earlier state, which is being read again.")

        return vouch

    def _follow_reading(self) -> Callable[[sa.Connection], None]:
        """Whoever has the lease: the snapshot is vouched for unless it lacks what this process has seen."""
        seen, mine = self._seen, self._version if self.is_held else 0

        def vouch(connection: sa.Connection) -> None:
            found, same_cluster = read_position(connection)
            if (
                not same_cluster
                or found.version < mine
                or (found.history == seen.history and found.version < seen.version)
            ):
                raise StoreUnavailable("The database went back to an earlier state, which is being read again.")

        return vouch

    def has_seen(self, position: Position, *, asked_at: float) -> None:
        """A look that began then, by `boot_time`, has found the database in this state.

        One that went back in the same history is not believed: whoever has the lease begins another one.
        """
        if position.history != self._seen.history or position.version > self._seen.version:
            self._seen = position
        self._seen_at = max(self._seen_at, asked_at)

    def went_back(self, connection: sa.Connection) -> bool:
        """Whether the database lacks commits that this process has seen of others."""
        found, _ = read_position(connection)
        return found.history == self._seen.history and found.version <= self._seen.version

    @property
    def _mine(self) -> dict[str, object]:
        return {"account": STORE, "owner": self.owner, "epoch": self._epoch}

    def _told_lost(self, holder: Holder) -> LeaseLost:
        if self._lost is None:
            by = "nobody holds it now" if holder.owner is None else f"it is held by {holder.described}"
            then = "It only reads from now on." if self._shared else "It writes nothing more and ends."
            self._lost = (
                "This exporter lost its lease on the database: it was stopped or cut off for longer than "
                f"{LEASE:g} seconds, and another one took over ({by}). {then}"
            )
            log.log(logging.WARNING if self._shared else logging.ERROR, self._lost)
        return LeaseLost(self._lost)

    # How it stands

    @property
    def is_held(self) -> bool:
        """Whether nobody else can hold it: it is not lost, and the last renewal began less than `LEASE` seconds ago."""
        if self._lost is not None or not self._epoch:
            return False
        return not self._runs_out or boot_time() - self._renewed_at < LEASE

    def check_current(self) -> None:
        """`StoreUnavailable` unless what is read and written now can be vouched for.

        Where the database is shared, somebody else may have the lease; but this process must have seen the database a
        moment ago, so that nothing is answered that was read before it was stopped.
        """
        if not self._shared:
            self.check()
        elif boot_time() - max(self._seen_at, self._renewed_at) >= LEASE:
            reason = "" if self._failing is None else f": {self._failing[1]}"
            raise StoreUnavailable(f"The database cannot be followed{reason}.")

    def check(self) -> None:
        """`StoreUnavailable` unless `is_held`, since another one may have written meanwhile: `LeaseLost` if one did."""
        if self._lost is not None:
            raise LeaseLost(self._lost)
        if not self._epoch:
            raise LeaseLost(_READS_ONLY)
        if not self.is_held:
            reason = "" if self._failing is None else f": {self._failing[1]}"
            raise StoreUnavailable(f"The lease on the database ran out and could not be renewed{reason}.")

    @property
    def lost(self) -> str | None:
        """That another one took it, in words; ``None`` while that is not known."""
        return self._lost

    @property
    def failing(self) -> tuple[float, str] | None:
        """Since when it cannot be renewed (monotonic seconds), and why; ``None`` while it can."""
        return self._failing

    # Giving it back

    def close(self, engine: sa.Engine) -> None:
        """Give it back, so that the next process need not wait for it to run out; a silent database keeps it."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join(_JOIN)
        # In a thread, since a session that is silent would never end the wait.
        giving = threading.Thread(target=self.give_back, args=(engine,), daemon=True)
        giving.start()
        giving.join(_JOIN)

    def give_back(self, engine: sa.Engine) -> None:
        """Write that nobody holds it; does nothing where that cannot be written."""
        if self._shared:
            with contextlib.suppress(sa.exc.SQLAlchemyError, OSError), engine.begin() as connection:
                _limit_waits(connection, lock="1s")
                replicas.leave(connection, self.owner)
        if self._lost is None and self._epoch:
            with contextlib.suppress(sa.exc.SQLAlchemyError, OSError), engine.begin() as connection:
                _limit_waits(connection, lock="1s")
                connection.execute(_statements(connection.dialect.name).give_back, self._mine)


def _refusal(what: str, holder: Holder) -> str:
    return (
        f"{what} is in use by another patrolserver-exporter: {holder.described}. One exporter at a time works on a "
        "database. Stop that one and start this one again, or give this one another store.url."
    )


class _Statements(NamedTuple):
    take: sa.TextClause
    renew: sa.TextClause
    fence: sa.TextClause
    give_back: sa.TextClause


_COUNTED: Final = f"coalesce((SELECT version FROM leases WHERE account = '{INTAKE}'), 0)"  # noqa: S608
_TAKEN_IN = sa.text(f"SELECT {_COUNTED}")
_COUNT_INTAKE = sa.text(
    "INSERT INTO leases (account, epoch, version) VALUES (:account, 0, 1) "
    "ON CONFLICT (account) DO UPDATE SET version = leases.version + 1 RETURNING version"
)


@functools.cache
def _statements(dialect: str) -> _Statements:
    now = NOW[dialect]
    mine = "WHERE account = :account AND owner = :owner AND epoch = :epoch"
    renewed = f"until = {now} + {LEASE}"
    return _Statements(
        take=sa.text(
            f"UPDATE leases SET owner = :owner, name = :name, host = :host, pid = :pid, since = {now}, "  # noqa: S608  # No input.
            f"epoch = epoch + 1, version = version + 1, {renewed} WHERE account = :account AND (owner IS NULL "
            # Farther ahead than a renewal reaches: the database's clock was set back since.
            # Ours: the end of a commit that took it was not heard.
            f"OR owner = :owner OR :by_force OR until <= {now} OR until > {now} + {2 * LEASE})"
        ),
        renew=sa.text(f"UPDATE leases SET {renewed} {mine} RETURNING {now}"),  # noqa: S608
        fence=sa.text(
            f"UPDATE leases SET version = version + 1, {renewed} {mine} AND version = :version "  # noqa: S608
            f"AND {_COUNTED} >= CAST(:taken_in AS bigint) RETURNING {now}"
        ),
        give_back=sa.text(f"UPDATE leases SET owner = NULL, until = NULL {mine}"),  # noqa: S608
    )


def _read(connection: sa.Connection) -> Holder:
    now = now_in(connection.dialect.name)
    row = connection.execute(sa.select(*leases.c, now.label("now")).where(leases.c.account == STORE)).one()
    return Holder(
        owner=row.owner,
        epoch=row.epoch,
        version=row.version,
        until=row.until or 0.0,
        since=row.since or 0.0,
        name=row.name or "",
        host=row.host or "unknown",
        pid=row.pid or 0,
        now=row.now,
    )


def holder(connection: sa.Connection) -> Holder:
    """Who holds the lease."""
    return _read(connection)


def read_position(connection: sa.Connection) -> tuple[Position, bool]:
    """Which state this is, and whether the database is still the one that the feed was written in."""
    row = connection.execute(_WHERE_IT_STANDS).one()
    if connection.dialect.name != "postgresql":
        return Position(row.history, row.version), True
    return Position(row.history, row.version), row.cluster in {None, cluster(connection)}


def cluster(connection: sa.Connection) -> str:
    """Which PostgreSQL this is, and its timeline, which a failover or a restore changes, as a mark."""
    return str(
        connection.exec_driver_sql(
            "SELECT system_identifier || '/' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8) "
            "FROM pg_control_system()"
        ).scalar_one()
    )


_WHERE_IT_STANDS = (
    sa.select(feed.c.history, feed.c.cluster, leases.c.version)
    .select_from(feed.join(leases, sa.true()))
    .where(leases.c.account == STORE)
)
_READS_ONLY: Final = "Another exporter has the lease on the database; this one only reads."


def _limit_waits(connection: sa.Connection, *, lock: str) -> None:
    """For a transaction that only looks after the lease."""
    if connection.dialect.name == "postgresql":
        connection.exec_driver_sql(
            f"SELECT set_config('lock_timeout', '{lock}', true), set_config('statement_timeout', '5s', true), "
            "set_config('idle_in_transaction_session_timeout', '3s', true)"
        )


_POSITION = sa.select(
    leases.c.owner, leases.c.epoch, leases.c.version, sa.literal_column(_COUNTED, sa.BigInteger())
).where(leases.c.account == STORE)
_LOCK_NOT_AVAILABLE = "55P03"


def _is_lock_timeout(error: sa.exc.DBAPIError) -> bool:
    return getattr(error.orig, "sqlstate", None) == _LOCK_NOT_AVAILABLE


def lease_holders(connection: sa.Connection) -> list[tuple[str, Holder]]:
    """Every lease that was ever taken: whose it is (``STORE`` or an account's name), and who has or had it."""
    now = now_in(connection.dialect.name).label("now")
    names = (leases.c[name] for name in Holder._fields if name != "now")
    taken = sa.select(leases.c.account, *names, now).where(leases.c.since.is_not(None)).order_by(leases.c.account)
    return [(account, Holder(*fields)) for account, *fields in connection.execute(taken)]
