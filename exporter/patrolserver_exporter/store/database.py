"""The store: opening it, using it, and closing it."""

from __future__ import annotations

import concurrent.futures
import contextlib
import logging
import math
import secrets
from typing import TYPE_CHECKING, Final, NamedTuple, Self, TypeVar

import sqlalchemy as sa

from patrolserver_exporter.store import copying, database_time, files, tables
from patrolserver_exporter.store.database_time import boot_time
from patrolserver_exporter.store.engines import (
    create_engine,
    create_lease_engine,
    create_reading_engine,
    database_file,
    redacted,
)
from patrolserver_exporter.store.errors import StoreCorrupt, StoreUnavailable
from patrolserver_exporter.store.guard import FileGuard, check_file, is_alone
from patrolserver_exporter.store.lease import Lease
from patrolserver_exporter.store.lease_rows import COMMON, INTAKE, STORE, holders, read_position
from patrolserver_exporter.store.opening import begin_again, follow_cluster, join, take_for_itself
from patrolserver_exporter.store.schema import HEAD, migrate
from patrolserver_exporter.store.tables import check
from patrolserver_exporter.store.threads import (
    OF_THE_INTAKE,
    TURN_TIMEOUT,
    Readers,
    StoreThread,
    StoreTrouble,
    Unit,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence
    from concurrent.futures import Future
    from pathlib import Path

    from patrolserver_exporter.store.database_time import DatabaseTime
    from patrolserver_exporter.store.lease import Left, Taken
    from patrolserver_exporter.store.lease_rows import Holder, Position
    from patrolserver_exporter.store.replicas import Announced


_MAX_LOG_BYTES: Final = 64 * 2**20

_LOOK_AGAIN: Final = 0.25
"""Seconds after which who waits for a transaction looks whether that is still wanted."""

_END_TIMEOUT: Final = 10.0
"""Seconds that the store's end waits for PostgreSQL to take what is queued."""

log = logging.getLogger(__name__)

T = TypeVar("T")

Item = TypeVar("Item")


def rebuild(url: str) -> list[Path]:
    """Set a damaged SQLite file aside, so that the state is rebuilt; returns where its parts are now.

    A sound one stays, and so does one that another process holds (`StoreLocked`).
    """
    file = database_file(url)
    if file is None or not file.exists():
        return []
    with files.FileLock(file), files.FileHold(file):
        try:
            if check_file(file, HEAD):
                return []
            probe = create_engine(url)
            try:
                migrate(probe)
                check_documents(probe, file)
            finally:
                probe.dispose()
        except StoreCorrupt:
            return files.set_aside(file)
    return []


def check_documents(database: sa.Engine, file: Path) -> None:
    """Hold every sealed document against its checksum; `StoreCorrupt` if one does not match."""
    columns = (
        tables.accounts.c.state,
        tables.servers.c.state,
        tables.servers.c.summary,
        tables.servers.c.software,
        tables.issues.c.document,
        tables.changes.c.document,
    )
    try:
        with database.connect() as connection:
            for column in columns:
                for (document,) in connection.execute(sa.select(column)).yield_per(1000):
                    if document is not None:
                        check(document)
    except (StoreCorrupt, sa.exc.DatabaseError, TypeError, ValueError, OverflowError, MemoryError) as error:
        # A damaged row may hold a value of another type where the document should be.
        raise files.corrupt(file, str(getattr(error, "orig", error))) from error


class Look(NamedTuple):
    """What a look at a shared database sees: one state."""

    connection: sa.Connection
    position: Position
    is_same: bool
    """It is the state that the feed was written in: of the same database, and of before nothing that was seen. Nor does
    it go on elsewhere."""
    holders: Mapping[str, Holder]
    """Of the leases that somebody has or had."""


class Store:
    """The state of the service, in SQLite or PostgreSQL.

    Who reads gets a connection that cannot write (`read`); who writes gets a `Unit` on the one thread that does
    (`run`). A caller that waited for a unit finds what it wrote in every later read.

    ``on_commit`` gets the effects of every committed group of units, in the order of the commits (see ``StoreThread``).
    ``turn_timeout`` is how many seconds a read waits until it may begin. ``max_log_bytes`` is what SQLite's log may
    grow to before it is emptied in a moment without reads. ``name`` tells people who holds the lease (see ``lease``).
    ``time`` is kept as the database's clock shows it. ``even_moved``: open it even if its state goes on elsewhere.
    ``shared``: on PostgreSQL others may have it open, too. Then this one reads and takes deliveries in, and writes all
    else only under the leases that it could `take_over`; a unit names the accounts whose leases it needs. Where it is
    not shared, there is one lease for everything, and names do not matter.
    Raises ``StoreLocked``, ``StoreCorrupt`` or ``StoreUnavailable`` when it cannot be opened.
    """

    def __init__(  # noqa: PLR0913  # What tests shorten, beside what it is opened with.
        self,
        url: str,
        on_commit: Callable[[list[object]], None] = lambda _: None,
        *,
        turn_timeout: float = TURN_TIMEOUT,
        max_log_bytes: int = _MAX_LOG_BYTES,
        name: str = "",
        time: DatabaseTime | None = None,
        even_moved: bool = False,
        shared: bool = False,
    ) -> None:
        self.shown = redacted(url)
        """Its URL, as people may see it."""
        self._file = database_file(url)
        self._max_log_bytes = max_log_bytes
        self._guard = None if self._file is None else FileGuard(self._file)
        self.is_shared = shared and self._file is None
        """Others may have it open, too."""
        self._lease = Lease(
            runs_out=self._file is None, name=name, on_setback=begin_again, time=time, shared=self.is_shared
        )
        sound = alone = False
        with contextlib.ExitStack() as undo:
            if self._file is not None and self._guard is not None:
                self._guard.claim()
                undo.callback(self._guard.release)
                alone = is_alone(self._file)
                sound = check_file(self._file, HEAD)
            self._engine = create_engine(url)
            undo.callback(self._engine.dispose)
            if self._file is not None and self._guard is not None:
                self._lease_engine = self._engine
                migrate(self._engine)
                if not sound:
                    check_documents(self._engine, self._file)
                self._guard.keep_sums(self._engine)
                self._lease.acquire(self._engine, f"The state file {self._file}")
                if alone and sound:
                    with self._engine.begin() as connection:
                        begin_again(connection)
                    log.warning(
                        "The state file is a backup, or its .sum was removed, so it may be old: all servers are "
                        "polled, and are unknown to the gate until then"
                    )
            else:
                self._lease_engine = create_lease_engine(url)
                undo.callback(self._lease_engine.dispose)
                prepare = join if self.is_shared else take_for_itself
                prepare(self._lease_engine, self._lease)
            undo.callback(self._lease.give_back, self._lease_engine)
            if not even_moved:
                with self._lease_engine.begin() as connection:
                    copying.refuse_moved(connection, self.shown)
            self._readers = self._open_readers(url, turn_timeout)
            self._following = create_reading_engine(url, connections=1) if self.is_shared else None
            undo.pop_all()
        self._thread = StoreThread(
            self._engine,
            on_commit,
            after_group=self._bound_log,
            fence=self._lease.fence,
            lease=COMMON if self.is_shared else STORE,
        )
        self._intake_engine, self._intake = self._engine, self._thread
        if self.is_shared:
            self.follow(lambda _: None)
        if self._file is None:
            self._intake_engine = create_engine(url)
            self._intake = StoreThread(
                self._intake_engine,
                self._thread.emit,
                name="store-intake",
                tries_again=True,
                said=OF_THE_INTAKE,
                proof=_take_in_nothing,
                fence=self._lease.count_intake,
                lease=INTAKE,
            )
            self._lease.keep(self._lease_engine)

    def _open_readers(self, url: str, turn_timeout: float) -> Readers:
        engine = create_reading_engine(url)
        if self._guard is not None:
            sa.event.listen(engine, "begin", self._guard.check)
        try:
            return Readers(
                engine,
                on_idle=lambda: self.submit(lambda _: None),
                turn_timeout=turn_timeout,
                check=self._lease.check_current,
                reading=self._lease.reading,
            )
        except sa.exc.DBAPIError as error:
            engine.dispose()
            raise StoreUnavailable(f"Cannot open the store {redacted(url)} for reading: {error.orig}.") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def last_progress(self) -> float:
        """When the slowest of the store's threads last finished something (monotonic seconds)."""
        return min(self._thread.last_progress, self._intake.last_progress)

    @property
    def last_success(self) -> float:
        """When a transaction last came to its end (monotonic seconds): all that was committed till then is shown."""
        return self._thread.last_success

    @property
    def last_failure(self) -> tuple[float, str] | None:
        """When something last could not be written (monotonic seconds), and why."""
        return self._thread.last_failure

    @property
    def trouble(self) -> StoreTrouble | None:
        """That nothing can be written, as long as that is so."""
        if self.lost is not None:
            return StoreTrouble(float("-inf"), self.lost)
        failing = self._lease.failing
        if self._thread.trouble is None and failing is not None:
            return StoreTrouble(failing[0], f"The lease on the database cannot be renewed: {failing[1]}")
        troubles = [trouble for trouble in (self._thread.trouble, self._intake.trouble) if trouble is not None]
        return min(troubles, key=lambda trouble: trouble.since, default=None)

    def take_moved(self) -> frozenset[str]:
        """Accounts whose state is not what our commits made of it, so that it has to be read again; said once.

        Where the store is not shared, whatever is in there concerns all.
        """
        return self._lease.take_moved()

    @property
    def lost(self) -> str | None:
        """That another process took the store over, in words, where two must not have it open; else ``None``."""
        return None if self.is_shared else self._lease.lost(STORE)

    @property
    def accounts_held(self) -> tuple[str, ...]:
        """The accounts whose leases this process has, as far as it knows; where the store is shared."""
        return tuple(name for name in self._lease.names if name not in {STORE, COMMON})

    def has_lost(self, account: str) -> bool:
        """Whether this process does not have the account's lease (any more)."""
        return self.is_shared and not self._lease.has(account)

    def take_over(
        self,
        names: Collection[str],
        work: Callable[[Unit, Mapping[str, Taken]], T],
        is_wanted: Callable[[], bool] = lambda: True,
    ) -> T | None:
        """Take those of these leases that are free, and do ``work`` in the same transaction; ``None`` if none is free.

        Waits for nobody who has one. `StoreLocked` if the state went elsewhere; `StoreUnavailable` soon after it is not
        ``is_wanted`` any more: what is taken all the same then runs out. For a shared store only.
        """
        if not self._lease.is_announced:
            return None

        def take(unit: Unit) -> tuple[Mapping[str, Taken], T | None, float]:
            copying.refuse_moved(unit.connection, self.shown)
            went_back = self._lease.went_back(unit.connection)
            taken = self._lease.take(unit.connection, names)
            if not taken:
                return taken, None, 0.0
            follow_cluster(unit.connection, went_back=went_back)
            done = work(unit, taken)
            # Reading a large account may take longer than a lease holds.
            began = boot_time()
            self._lease.prolong(unit.connection, taken)
            return taken, done, began

        if not self._lease.knows(names):
            # By themselves: others would wait for rows that are only made by a long transaction.
            made = self._thread.submit(lambda unit: self._lease.make_rows(unit.connection, names), under=())
            _wait_for(made, is_wanted)
        taken, done, began = _wait_for(self._thread.submit(take, under=()), is_wanted)
        self._lease.took(taken, began)
        return done

    def hand_over(self, handed: Mapping[str, bytes | None], *, leaves: bool = False) -> Future[None]:
        """Give these leases back, behind all that was queued; the next owners get what is told them here.

        ``leaves``: this exporter takes none any more, which others hear with it.
        """

        def work(unit: Unit) -> None:
            for name in sorted(handed):
                self._lease.hand_over(unit.connection, name, handed[name])
            if leaves:
                self._lease.tell_that_it_leaves(unit.connection)

        return self._thread.submit(work, under=())

    def pass_on(self, handed: bytes) -> None:
        """Leave this to whoever opens the store next; where it is not shared."""
        self._lease.passes_on = handed

    def left_behind(self, account: str) -> tuple[Left, ...]:
        """What those who had the account before left behind; where the store is not shared."""
        return self._lease.left_behind(account)

    def follow_cluster(self) -> Future[None]:
        """The state seems not to be the one that the feed was written in: begin another history if so."""

        def work(unit: Unit) -> None:
            follow_cluster(unit.connection, went_back=self._lease.went_back(unit.connection))

        # Under all leases, since what went back behind one of them is not read before a transaction has met it.
        return self._thread.submit(work, under=self._lease.names)

    def follow(self, work: Callable[[Look], T]) -> T:
        """Look at the database on a connection of its own; on one thread. For a shared store only.

        What ``work`` gets is one state.
        """
        if self._following is None:
            raise StoreUnavailable("There is nobody to follow.")
        asked_at, seen, taken_in = boot_time(), self._lease.seen, self._lease.taken_in
        try:
            with self._following.connect() as connection:
                now = database_time.read(connection)
                position, doubt = read_position(connection)
                is_same = doubt is None and not self._lease.is_before(position, seen, taken_in)
                found = work(Look(connection, position, is_same, holders(connection)))
        except (sa.exc.DBAPIError, sa.exc.TimeoutError, OSError) as error:
            raise StoreUnavailable(f"The store cannot be read: {getattr(error, 'orig', None) or error}") from error
        self._lease.has_seen(position, asked_at=asked_at, now=now)
        return found

    def announce(self, told: Announced) -> None:
        """Tell other exporters on this store what this one has configured."""
        self._lease.announce(told, self._lease_engine)

    @property
    def answers(self) -> bool:
        """Whether the database took something from this process a moment ago, where others may have it open."""
        return self._lease.is_announced

    @property
    def name(self) -> str:
        """What people call this exporter; empty without a name."""
        return self._lease.name

    @property
    def owner(self) -> str:
        """The id by which this process has the lease."""
        return self._lease.owner

    @property
    def is_held(self) -> bool:
        """Whether nobody else can have taken over the store, or what belongs to no account where it is shared."""
        return self._lease.is_held(COMMON if self.is_shared else STORE)

    def holds(self, account: str) -> bool:
        """Whether nobody else can have taken the account over; while that is not sure, no calls are to be made."""
        return self._lease.is_held(account if self.is_shared else STORE)

    def check_held(self, account: str) -> None:
        """`StoreUnavailable` unless it is held: `LeaseLost` if another process took the account over."""
        self._lease.check(account if self.is_shared else STORE)

    def watch(self, makes_progress: Callable[[], bool]) -> None:
        """Keep other processes off only while this says that the service makes progress."""
        self._lease.watch(makes_progress)

    def prove(self) -> None:
        """Have the store show that it makes progress; while it cannot write, this finds out when it can again."""
        self._thread.prove()
        if self._intake is not self._thread:
            self._intake.prove()

    def emit(self, effects: Sequence[object]) -> None:
        """Give effects that need no commit to ``on_commit``, behind those of what was queued before."""
        self._thread.emit(effects)

    def read(self, work: Callable[[sa.Connection], T]) -> T:
        """Read one state of the store, and wait for it; raises what the work raises, or ``StoreUnavailable``.

        What ``work`` returns must not read on. Too much reading at once is a ``StoreBusy``.
        """
        return self._readers.run(work)

    async def read_async(self, work: Callable[[sa.Connection], T]) -> T:
        """`read` for an event loop; a read that nobody waits for any more is not begun."""
        return await self._readers.run_async(work)

    def read_patiently(self, work: Callable[[sa.Connection], T]) -> T:
        """`read`, even if its turn comes late."""
        return self._readers.run(work, turn_timeout=math.inf)

    def submit_read(self, work: Callable[[sa.Connection], T]) -> Future[T]:
        """Queue a read, even if its turn comes late."""
        return self._readers.submit(work)

    def run(self, work: Callable[[Unit], T], *accounts: str) -> T:
        """Do a unit of work and wait for its commit; raises what the work raises, or ``StoreUnavailable``.

        ``accounts`` are those under whose leases it writes; none: what belongs to no account.
        """
        return self._thread.run(work, under=self._leases_of(accounts))

    def submit(self, work: Callable[[Unit], T], *accounts: str) -> Future[T]:
        """Queue a unit of work, as `run` does it."""
        return self._thread.submit(work, under=self._leases_of(accounts))

    def _leases_of(self, accounts: tuple[str, ...]) -> tuple[str, ...] | None:
        """``None``: the one of units that name none."""
        return accounts if accounts and self.is_shared else None

    def submit_anywhere(self, work: Callable[[Unit], T]) -> Future[T]:
        """Queue a unit of work that needs no lease: one statement on rows that every exporter may write."""
        return self._intake.submit(work)

    async def run_together(self, item: Item, work: Callable[[Unit, list[Item]], list[T]]) -> T:
        """Do ``work`` on this item and all others that wait for the same work; ends after the disk has it.

        On PostgreSQL beside all other units, on a connection of its own. There the work may be done a second time.
        """
        # Where nobody knows whether the database still answers, a sender need not wait for one that is silent.
        self._lease.check_current()
        result: T = await self._intake.submit_item(work, item)
        return result

    def close(self) -> None:
        """End the reads, finish what is queued, leave the file sealed, and give it free."""
        # Only the last connection of all takes the log away, and it has to be the one that may write.
        self._readers.close()
        self._intake.close(self._patience())
        self._thread.close(self._patience())
        self._lease.close(self._lease_engine)
        if self._file is not None:
            self._empty_log()
        self._engine.dispose()
        self._intake_engine.dispose()
        self._lease_engine.dispose()
        if self._following is not None:
            self._following.dispose()
        if self._guard is not None:
            self._guard.leave_sum()
            self._guard.release()

    def _patience(self) -> float | None:
        """Seconds that the end waits for what is queued; a file takes it, or says at once that it cannot."""
        if self._file is not None:
            return None
        return _END_TIMEOUT if self._thread.trouble is None else 1.0

    def _bound_log(self) -> None:
        """Empty SQLite's log when it is large; called between two transactions.

        SQLite starts it again only in a moment in which nobody reads. Reads that overlap leave none, and the log would
        grow until the disk is full.
        """
        if self._file is None:
            return
        if _log_size(self._file) > self._max_log_bytes:
            if not self._readers.pause():
                # The last of the reads that are under way calls for another unit, and that brings us back.
                return
            self._empty_log()
        self._readers.resume()

    def _empty_log(self) -> None:
        with contextlib.suppress(sa.exc.DatabaseError), self._engine.connect() as connection:
            connection.exec_driver_sql("COMMIT")
            connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")


def _take_in_nothing(unit: Unit) -> None:
    """Write a delivery as it is taken in, and take it back: what the database lets through elsewhere proves nothing."""
    unit.connection.execute(sa.select(tables.inbox.c.id).limit(1))
    delivery = tables.insert(unit.connection.dialect.name, tables.inbox).values(
        account="", webhook_id=0, event_id=secrets.randbits(48), identifier="", state="", received_at=0, updated_at=0
    )
    tried = unit.connection.begin_nested()
    unit.connection.execute(
        delivery.on_conflict_do_update(index_elements=["account", "webhook_id", "event_id"], set_={"updated_at": 0})
    )
    tried.rollback()


def _wait_for(future: Future[T], is_wanted: Callable[[], bool]) -> T:
    while not future.done():
        concurrent.futures.wait([future], _LOOK_AGAIN)
        if not future.done() and not is_wanted():
            raise StoreUnavailable("The store did not answer for as long as it was asked.")
    return future.result()


def _log_size(database: Path) -> int:
    """Bytes of SQLite's log beside the file; 0 where there is none to be seen."""
    try:
        return files.beside(database, "-wal").stat().st_size
    except OSError:
        return 0
