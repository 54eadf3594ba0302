"""The store's threads: one that writes, and beside it a few that cannot.

Every unit of work runs on the one that writes, and what waits together is committed together. SQLite gets the one
connection that writes this way, webhooks get group commit (one sync of the disk for all that arrived in the meantime),
and who hears of the results hears them in the order of the commits.

Nobody who only reads waits for a unit of work or holds one up. What one read finds is one state of the store, and
nothing less than what was committed when it began. SQLite must not run into the WAL-reset bug that it has before
3.51.3, which takes two connections that write or checkpoint: readers do neither.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import logging
import math
import queue
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol, TypeVar

import sqlalchemy as sa

from patrolserver_exporter.clock import SystemClock
from patrolserver_exporter.lasting import LastingTrouble
from patrolserver_exporter.store.errors import LeaseLost, StoreBusy, StoreError, StoreUnavailable

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Collection, Iterator, Mapping


log = logging.getLogger(__name__)
T = TypeVar("T")
_MOST_UNITS: Final = 512
_CALM: Final = 30.0
"""Seconds without a failure after which the log says that a trouble is over: a full disk lets a commit through now and
then.
"""
_STEADY: Final = 3.0
"""Seconds without a failure after which a write that succeeds shows that the store can write."""
_SLOW: Final = 10.0
"""Seconds after which a group that is still under way is a trouble: the disk or the database is silent."""
_AGAIN_FOR: Final = 4.0
"""Seconds in which batches that failed are done once more; whoever sends deliveries waits for twice as long."""


class Said(NamedTuple):
    """What the log says of a thread's trouble."""

    begins: str
    ends: str


_OF_THE_STORE: Final = Said(
    "The store cannot commit: deliveries get a 503 and old data stays; make room on its disk, or bring the database "
    "back, and it goes on by itself",
    "The store commits again",
)
OF_THE_INTAKE: Final = Said(
    "Deliveries cannot be written to the database and get a 503; once they can, it goes on by itself",
    "Deliveries are written again",
)
_CURES: Final = {
    "42P01": "; tables of the exporter are gone: restore the database, or drop the others too and restart the "
    "exporters",
    "42501": "; give the exporter's user all rights on its tables and sequences, or make it their owner",
}
"""What to do, by PostgreSQL's code for what does not pass by itself."""
_STOP: Final = object()


class StoreTrouble(NamedTuple):
    """The store cannot write."""

    since: float
    """Monotonic seconds."""
    reason: str


class _Fenced(Protocol):
    """A transaction that writes has begun (see ``lease.Fenced``)."""

    @property
    def lost(self) -> Mapping[str, LeaseLost]: ...

    @property
    def committed(self) -> Callable[[], None]: ...

    @property
    def finishing(self) -> Callable[[], None]: ...


class Unit:
    """One unit of work: its connection, and the effects that others have to see once it is committed."""

    __slots__ = ("connection", "effects")

    def __init__(self, connection: sa.Connection) -> None:
        self.connection = connection
        self.effects: list[object] = []


class _Task:
    __slots__ = ("future", "leases", "work")

    def __init__(self, work: Callable[[Unit], Any], leases: Collection[str]) -> None:
        self.work = work
        self.leases = leases
        self.future: Future[Any] = Future()

    def finish(self, result: Any, error: BaseException | None) -> None:
        if not self.future.set_running_or_notify_cancel():
            # The caller does not wait any more; the commit holds.
            return
        if error is None:
            self.future.set_result(result)
        else:
            self.future.set_exception(error)


class _Emitted:
    """Effects that go with no commit."""

    __slots__ = ("effects",)

    def __init__(self, effects: Sequence[object]) -> None:
        self.effects = list(effects)


BatchWork = Callable[[Unit, list[Any]], Sequence[Any]]


class _Item:
    """One item of a batch, awaited on an event loop."""

    __slots__ = ("future", "item", "loop", "work")

    def __init__(self, work: BatchWork, item: object) -> None:
        self.work = work
        self.item = item
        self.loop = asyncio.get_running_loop()
        self.future: asyncio.Future[Any] = self.loop.create_future()


class _Batch:
    """The items of one group that share their work: done by one statement, told with one wake-up of the loop."""

    __slots__ = ("_of_all", "items", "leases", "work")

    def __init__(self, work: BatchWork, items: list[_Item], leases: Collection[str]) -> None:
        self.items = items
        self.leases = leases
        self.work = lambda unit: work(unit, [item.item for item in items])
        self._of_all = work

    def one_by_one(self) -> list[_Batch]:
        """A batch for each item."""
        return [_Batch(self._of_all, [item], self.leases) for item in self.items]

    def finish(self, results: Sequence[Any] | None, error: BaseException | None) -> None:
        loops: dict[asyncio.AbstractEventLoop, list[tuple[asyncio.Future[Any], Any]]] = defaultdict(list)
        for index, item in enumerate(self.items):
            loops[item.loop].append((item.future, error if results is None else results[index]))
        for loop, outcomes in loops.items():
            try:
                loop.call_soon_threadsafe(_resolve, outcomes)
            except RuntimeError:
                log.warning("%d deliveries are finished, and their senders are gone", len(outcomes))


def _resolve(outcomes: list[tuple[asyncio.Future[Any], Any]]) -> None:
    for future, outcome in outcomes:
        if future.cancelled():
            continue
        if isinstance(outcome, BaseException):
            future.set_exception(outcome)
        else:
            future.set_result(outcome)


class _Unfenced(NamedTuple):
    lost: Mapping[str, LeaseLost]
    committed: Callable[[], None]
    finishing: Callable[[], None]


def _unfenced(_: sa.Connection, __: Collection[str]) -> _Unfenced:
    return _Unfenced({}, _nothing, _nothing)


class StoreThread:
    """Runs units of work one after the other and commits them in groups.

    ``on_commit`` is called on this thread with the effects of a committed group, before a caller that waits for one
    of its units goes on; so with the answer its effect is seen everywhere. ``after_group`` is called on it whenever
    nothing is under way. ``fence`` begins each transaction that may write: it gets the leases that the group's units
    write under, and tells which of those are lost; the units under these are not done. ``lease`` is that of units that
    name none. ``tries_again``: batches of a group that failed, by a deadlock or a
    connection that was cut, are done once more, item by item; who waits for them must not mind doing them twice.
    ``proof`` is tried while nothing can be written: it ends well where the thread's work could be done again.
    """

    def __init__(  # noqa: PLR0913  # What tests shorten, beside what it works with.
        self,
        engine: sa.Engine,
        on_commit: Callable[[list[object]], None],
        *,
        calm: float = _CALM,
        steady: float = _STEADY,
        slow: float = _SLOW,
        after_group: Callable[[], None] = lambda: None,
        fence: Callable[[sa.Connection, Collection[str]], _Fenced] = _unfenced,
        lease: str | None = None,
        name: str = "store",
        tries_again: bool = False,
        said: Said = _OF_THE_STORE,
        proof: Callable[[Unit], None] | None = None,
    ) -> None:
        self._engine = engine
        self._proof = proof or _rewrite
        self._said = said
        self._tries_again = tries_again
        self._fence = fence
        self._leases = () if lease is None else (lease,)
        self._calm = calm
        self._steady = steady
        self._slow = slow
        self._on_commit = on_commit
        self._after_group = after_group
        self._queue: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._queue_lock = threading.Lock()
        """Nothing may be queued behind the stop: it would never be answered."""
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._stopping = threading.Event()
        self.last_progress = time.monotonic()
        """When the thread last finished a group (monotonic seconds); the watchdog looks at it."""
        self.last_success = self.last_progress
        """When a transaction last came to its end (monotonic seconds): all that was committed till then is shown."""
        self.last_failure: tuple[float, str] | None = None
        """When a group last could not be committed (monotonic seconds), and why."""
        self._reason: str | None = None
        """Why nothing can be committed; ``None`` while it can."""
        self._trouble = LastingTrouble(log, SystemClock(), logging.ERROR)
        self._failing_since: float | None = None
        """Since when nothing could be written; monotonic seconds. ``None`` while the store can write."""
        self._busy_since: float | None = None
        """Since when a group is under way; monotonic seconds."""
        self._thread.start()

    def submit(self, work: Callable[[Unit], T], *, under: Collection[str] | None = None) -> Future[T]:
        """Queue a unit of work, which writes under these leases; its future ends after the commit."""
        task = _Task(work, self._leases if under is None else under)
        with self._queue_lock:
            if not self._stopping.is_set():
                self._queue.put(task)
                return task.future
        task.future.set_exception(StoreUnavailable("The store is closing."))
        return task.future

    def prove(self) -> None:
        """Have the thread show that it makes progress and, while it cannot write, try whether it can again."""
        if self._failing_since is None:
            self.submit(_prove, under=())
        else:
            under = () if self._proof is _rewrite else None
            self.submit(self._proof, under=under).add_done_callback(self._proven)

    def _proven(self, future: Future[None]) -> None:
        if future.exception() is None:
            self._wrote(something=False)

    def emit(self, effects: Sequence[object]) -> None:
        """Give these effects to ``on_commit``, behind those of what was queued before."""
        with self._queue_lock:
            if not self._stopping.is_set():
                self._queue.put(_Emitted(effects))

    @property
    def trouble(self) -> StoreTrouble | None:
        """That it cannot write, as long as that is so."""
        failing_since, busy_since, failure = self._failing_since, self._busy_since, self.last_failure
        if failing_since is not None and failure is not None:
            return StoreTrouble(failing_since, failure[1])
        if busy_since is not None and time.monotonic() - busy_since > self._slow:
            return StoreTrouble(busy_since, "The store cannot write: its disk or its database does not answer.")
        return None

    async def submit_item(self, work: BatchWork, item: object) -> Any:
        """Do ``work`` on this item together with all others that wait for the same work; ends after the commit."""
        entry = _Item(work, item)
        with self._queue_lock:
            if self._stopping.is_set():
                raise StoreUnavailable("The store is closing.")
            self._queue.put(entry)
        return await entry.future

    def run(self, work: Callable[[Unit], T], *, under: Collection[str] | None = None) -> T:
        """Do a unit of work and wait for its commit."""
        return self.submit(work, under=under).result()

    def close(self, patience: float | None = None) -> None:
        """Finish what is queued, then end the thread; a silent database is left behind after ``patience`` seconds."""
        with self._queue_lock:
            if not self._stopping.is_set():
                self._stopping.set()
                self._queue.put(_STOP)
        self._thread.join(patience)

    def _run(self) -> None:
        while True:
            tasks, told, stop = self._next_group()
            self._busy_since = time.monotonic()
            if tasks:
                self._commit(tasks, tries_again=self._tries_again)
                self._after_group()
            if told:
                self._publish(told)
            self._busy_since = None
            self.last_progress = time.monotonic()
            if stop:
                return

    def _next_group(self) -> tuple[list[_Task | _Batch], list[object], bool]:
        tasks: list[_Task | _Batch] = []
        told: list[object] = []
        items: dict[BatchWork, list[_Item]] = defaultdict(list)
        entry, taken = self._queue.get(), 0
        while entry is not _STOP:
            if isinstance(entry, _Item):
                items[entry.work].append(entry)
            elif isinstance(entry, _Emitted):
                told += entry.effects
            else:
                tasks.append(entry)
            taken += 1
            if taken == _MOST_UNITS:
                break
            try:
                entry = self._queue.get_nowait()
            except queue.Empty:
                break
        tasks += [_Batch(work, batch, self._leases) for work, batch in items.items()]
        return tasks, told, entry is _STOP

    def _commit(self, tasks: list[_Task | _Batch], *, tries_again: bool = False) -> bool:
        """Do them in one transaction, or once more one by one; whether the store is fine."""
        finished: list[tuple[_Task | _Batch, Any, BaseException | None]]
        effects: list[object] = []
        failure: StoreUnavailable | None = None
        try:
            with self._engine.begin() as connection:
                # Before the first savepoint: in one, the fence would vanish when its unit is rolled back. A proof that
                # nothing hangs writes nothing, so an idle service leaves the disk alone.
                writing = [task for task in tasks if task.work not in {_prove, _rewrite}]
                under = frozenset(lease for task in writing for lease in task.leases)
                fenced = self._fence(connection, under) if writing else _unfenced(connection, under)
                alone = len(tasks) == 1
                finished = []
                for task in tasks:
                    lost = _first_lost(task.leases, fenced.lost)
                    done = (None, lost) if lost else self._attempt(connection, task, effects, alone=alone)
                    finished.append((task, *done))
                fenced.finishing()
            fenced.committed()
            self.last_success = time.monotonic()
        except _Alone as alone:
            finished = [(tasks[0], None, alone.error)]
            self.last_success = time.monotonic()
        except (sa.exc.SQLAlchemyError, OSError) as error:
            if tries_again:
                return self._commit_one_by_one(tasks)
            failure = self._failed(error, len(tasks))
            finished = [(task, None, failure) for task in tasks]
            effects = []
        if effects:
            self._publish(effects)
            self._wrote()
        for task, result, problem in finished:
            task.finish(result, problem)
        return failure is None

    def _commit_one_by_one(self, tasks: list[_Task | _Batch]) -> bool:
        """Whether all could be done. Where one cannot, the others are not tried any more: the database is away."""
        end = time.monotonic() + _AGAIN_FOR
        left: list[_Task | _Batch] = []
        for task in tasks:
            left += task.one_by_one() if isinstance(task, _Batch) else [task]
        while left and time.monotonic() < end:
            if not self._commit([left.pop(0)]):
                break
        for task in left:
            task.finish(None, StoreUnavailable("The store cannot write now."))
        return not left

    def _failed(self, error: Exception, units: int) -> StoreUnavailable:
        """Remember the failure, and say it now and then: it may last for hours, and the log may be on the full disk."""
        told = getattr(error, "orig", None) or error
        reason = str(told) + _CURES.get(getattr(told, "sqlstate", None) or "", "")
        if reason != self._reason:
            self._trouble.forget()
        self._reason = reason
        self._trouble.lasts(self._said.begins, err=reason, units=units)
        failure = StoreUnavailable(f"The store cannot write: {reason}")
        now = time.monotonic()
        self.last_failure = (now, str(failure))
        self._failing_since = self._failing_since or now
        return failure

    def _wrote(self, *, something: bool = True) -> None:
        """A commit came to its end, of ``something`` that was to be written or of a proof."""
        if self.last_failure is None:
            return
        now = time.monotonic()
        calm_for = now - self.last_failure[0]
        if self._failing_since is not None and calm_for >= self._steady:
            self._failing_since = None
        elif self._failing_since is not None and something:
            # One that is let through proves little, but something could be taken in. A proof took nothing in.
            self._failing_since = now
        if calm_for >= self._calm:
            self._reason = None
            self._trouble.is_over(self._said.ends)

    def _attempt(
        self, connection: sa.Connection, task: _Task | _Batch, effects: list[object], *, alone: bool
    ) -> tuple[Any, BaseException | None]:
        unit = Unit(connection)
        try:
            if alone:
                result = task.work(unit)
            else:
                with connection.begin_nested():
                    result = task.work(unit)
        except sa.exc.DBAPIError as error:
            if not isinstance(error, (sa.exc.IntegrityError, sa.exc.DataError)):
                # The whole transaction may be gone with it (disk full, connection lost): nobody in the group is safe.
                raise
            if alone:
                raise _Alone(error) from error
            return None, error
        except Exception as error:  # It belongs to the caller of this unit, not to the others of its group.
            if alone:
                raise _Alone(error) from error
            return None, error
        effects.extend(unit.effects)
        return result, None

    def _publish(self, effects: list[object]) -> None:
        try:
            self._on_commit(effects)
        except Exception:
            log.exception("A committed change could not be shown")


def _first_lost(leases: Collection[str], lost: Mapping[str, LeaseLost]) -> LeaseLost | None:
    # The lease has said it itself; the disk or the database is not at fault.
    return next((lost[lease] for lease in leases if lease in lost), None) if lost else None


def _prove(_: Unit) -> None:
    """Do nothing, to show that the thread makes progress and that the database answers."""


def _nothing() -> None:
    """There is nothing to do after the commit."""


def _rewrite(unit: Unit) -> None:
    """Write something that changes nothing; every store has this row."""
    unit.connection.exec_driver_sql("UPDATE alembic_version SET version_num = version_num")


class _Alone(StoreError):
    """Carries the error of a group's only unit out of the transaction, which is rolled back without a savepoint."""

    def __init__(self, error: BaseException) -> None:
        super().__init__(str(error))
        self.error = error


READERS: Final = 4
"""Reads at the same time; others wait. Reading costs mostly our own computing time, so more would finish no sooner."""
TURN_TIMEOUT: Final = 20.0
"""Seconds that a read waits for its turn; less than the 30 s that a client waits for an answer by default."""
_END_TIMEOUT: Final = 5.0
"""Seconds that the store's end waits for reads under way."""
_READ_TIMEOUT: Final = 15.0
"""Seconds that a read of PostgreSQL may take once it has begun. A session that went silent would never end it."""
_LOOK_AGAIN: Final = 0.5
"""Seconds after which who waits for a read looks whether that is in vain."""
_STOP_READING: Final = object()


class _ReadFuture(Future[Any]):
    """The end of a read, and when it began (monotonic seconds)."""

    began = math.inf


class _Read:
    __slots__ = ("future", "work")

    def __init__(self, work: Callable[[sa.Connection], Any]) -> None:
        self.work = work
        self.future = _ReadFuture()


class Readers:
    """Runs reads, a bounded number at the same time, in the order in which they came.

    ``engine`` makes connections that cannot write, at most ``READERS``, whose transactions see one state. ``on_idle``
    is called when the last read ended while they are paused. ``check`` raises when what is read cannot be vouched for;
    then nobody waits for a read any longer. ``reading`` is asked before a snapshot is taken; what it returns is called
    first in it, and may refuse it. Raises what the engine raises.
    """

    def __init__(
        self,
        engine: sa.Engine,
        on_idle: Callable[[], object] = lambda: None,
        turn_timeout: float = TURN_TIMEOUT,
        check: Callable[[], None] = lambda: None,
        reading: Callable[[], Callable[[sa.Connection], None]] = lambda: _nothing_first,
    ) -> None:
        self._engine = engine
        # A file's disk may be slow, but there is nobody who could be silent.
        self._read_timeout = math.inf if engine.dialect.name == "sqlite" else _READ_TIMEOUT
        self._check = check
        self._reading = reading
        self._on_idle = on_idle
        self._turn_timeout = turn_timeout
        self._files: list[sqlite3.Connection] = []
        if engine.dialect.name == "sqlite":
            self._open_files()
        self._queue: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._state = threading.Condition()
        """Guards the next three."""
        self._active = 0
        self._paused = False
        self._stopping = False
        self._threads = [threading.Thread(target=self._run, name="store-reader", daemon=True) for _ in range(READERS)]
        for thread in self._threads:
            thread.start()

    def _open_files(self) -> None:
        # Now, all of them, with the log: opened later, one could get a file that somebody has put in place of ours.
        sa.event.listen(self._engine, "connect", lambda connection, _: self._files.append(connection))
        with contextlib.ExitStack() as opened:
            for _ in range(READERS):
                connection = opened.enter_context(self._engine.connect())
                connection.exec_driver_sql("SELECT name FROM sqlite_master LIMIT 1")

    def submit(self, work: Callable[[sa.Connection], T]) -> Future[T]:
        """Queue a read, even if its turn comes late."""
        read = _Read(work)
        with self._state:
            if not self._stopping:
                self._queue.put(read)
                return read.future
        read.future.set_exception(_closing())
        return read.future

    def run(self, work: Callable[[sa.Connection], T], *, turn_timeout: float | None = None) -> T:
        """Read, and wait for it; raises what the work raises, ``StoreBusy`` or ``StoreUnavailable``."""
        future = self.submit(work)
        turn = _Turn(self._turn_timeout if turn_timeout is None else turn_timeout, self._read_timeout, self._check)
        turn.look(future)
        while not future.done():
            concurrent.futures.wait([future], turn.patience)
            turn.look(future)
        return future.result()

    async def run_async(self, work: Callable[[sa.Connection], T]) -> T:
        """Read, and wait for it in an event loop; given up, it is not begun any more."""
        future = self.submit(work)
        waiter = asyncio.wrap_future(future)
        turn = _Turn(self._turn_timeout, self._read_timeout, self._check)
        try:
            turn.look(future)
            while not future.done():
                await asyncio.wait([waiter], timeout=turn.patience)
                # Also of one that is done: the process may have been stopped since its snapshot was taken.
                turn.look(future)
            return await waiter
        finally:
            waiter.cancel()

    def pause(self) -> bool:
        """Begin no read until `resume`; whether none is under way."""
        with self._state:
            self._paused = True
            return not self._active

    def resume(self) -> None:
        """Begin reads again."""
        with self._state:
            self._paused = False
            self._state.notify_all()

    def close(self) -> None:
        """Refuse what waits, end what is under way, and close the connections."""
        with self._state:
            self._stopping = True
            self._state.notify_all()
        for _ in self._threads:
            self._queue.put(_STOP_READING)
        end = time.monotonic() + _END_TIMEOUT
        for thread in self._threads:
            while thread.is_alive() and time.monotonic() < end:
                for connection in self._files:
                    connection.interrupt()
                thread.join(0.05)
        self._engine.dispose()

    def _run(self) -> None:
        # Nothing of a read stays in a variable here: what a gate has found is large, and the next read may be far off.
        while self._serve(self._queue.get()):
            pass

    def _serve(self, read: Any) -> bool:
        """Do one read and tell its outcome; False at the end."""
        if read is _STOP_READING:
            return False
        result, failure = None, None
        with self._turn():
            if not read.future.set_running_or_notify_cancel():
                return True
            read.future.began = time.monotonic()
            try:
                result = self._attempt(read.work)
            except Exception as error:  # noqa: BLE001  # It belongs to the caller of this read.
                failure = error
        # Only now, so that the caller finds the connection free.
        if failure is None:
            read.future.set_result(result)
        else:
            read.future.set_exception(failure)
        return True

    @contextlib.contextmanager
    def _turn(self) -> Iterator[None]:
        with self._state:
            self._state.wait_for(lambda: self._stopping or not self._paused)
            self._active += 1
        try:
            yield
        finally:
            with self._state:
                self._active -= 1
                waited_for = self._paused and not self._active
            if waited_for:
                self._on_idle()

    def _attempt(self, work: Callable[[sa.Connection], T]) -> T:
        if self._stopping:
            raise _closing()
        try:
            vouch = self._reading()
            with self._engine.connect() as connection:
                vouch(connection)
                return work(connection)
        except sa.exc.DataError:
            # It is about what was asked for, and not about the store.
            raise
        except (sa.exc.DBAPIError, OSError) as error:
            raise StoreUnavailable(f"The store cannot be read: {getattr(error, 'orig', None) or error}") from error


def _nothing_first(_: sa.Connection) -> None:
    """Whatever is read is as good as any."""


class _Turn:
    """A read is waited for: until its turn comes, and then until it ends or cannot be vouched for any more."""

    def __init__(self, timeout: float, read_timeout: float, check: Callable[[], None]) -> None:
        self._timeout = timeout
        self._end = time.monotonic() + timeout
        self._read_timeout = read_timeout
        self._check = check

    @property
    def patience(self) -> float:
        """Seconds until somebody has to look again."""
        left = self._end - time.monotonic()
        return min(left, _LOOK_AGAIN) if left > 0 else _LOOK_AGAIN

    def look(self, future: Future[T]) -> None:
        """Raise if waiting on is in vain; a database that went silent would never end the read."""
        try:
            self._check()
        except StoreUnavailable:
            future.cancel()
            raise
        now = time.monotonic()
        if now >= self._end and future.cancel():
            raise _busy(self._timeout)
        # Also of one that is done: the process may have been stopped since, and others may have written.
        if isinstance(future, _ReadFuture) and now - future.began >= self._read_timeout:
            raise StoreUnavailable(f"The database did not answer a read within {self._read_timeout:g} seconds.")


def _closing() -> StoreUnavailable:
    return StoreUnavailable("The store is closing.")


def _busy(waited: float) -> StoreBusy:
    return StoreBusy(f"So much is being read that a read did not get its turn within {waited:g} seconds.")
