"""Reads beside the writer: a few connections that cannot write, each with a thread of its own.

Nobody who only reads waits for a unit of work or holds one up. What one read finds is one state of the store, and
nothing less than what was committed when it began. SQLite must not run into the WAL-reset bug that it has before
3.51.3, which takes two connections that write or checkpoint: readers do neither.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import queue
import threading
import time
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, Final, TypeVar

import sqlalchemy as sa

from patrolserver_exporter.store.errors import StoreBusy, StoreUnavailable

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Iterator

T = TypeVar("T")
READERS: Final = 4
"""Reads at the same time; others wait. Reading costs mostly our own computing time, so more would finish no sooner."""
TURN_TIMEOUT: Final = 20.0
"""Seconds that a read waits for its turn; less than the 30 s that whoever asks waits for an answer by default."""
_END_TIMEOUT: Final = 5.0
"""Seconds that the store's end waits for reads under way."""
_STOP: Final = object()


class _Read:
    __slots__ = ("future", "work")

    def __init__(self, work: Callable[[sa.Connection], Any]) -> None:
        self.work = work
        self.future: Future[Any] = Future()


class Readers:
    """Runs reads, a bounded number at the same time, in the order in which they came.

    ``engine`` makes connections that cannot write, at most ``READERS``, whose transactions see one state. ``on_idle``
    is called when the last read ended while they are paused. Raises what the engine raises.
    """

    def __init__(
        self, engine: sa.Engine, on_idle: Callable[[], object] = lambda: None, turn_timeout: float = TURN_TIMEOUT
    ) -> None:
        self._engine = engine
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
        """Queue a read, however long its turn may take to come."""
        read = _Read(work)
        with self._state:
            if not self._stopping:
                self._queue.put(read)
                return read.future
        read.future.set_exception(_closing())
        return read.future

    def run(self, work: Callable[[sa.Connection], T]) -> T:
        """Read, and wait for it; raises what the work raises, ``StoreBusy`` or ``StoreUnavailable``."""
        future = self.submit(work)
        concurrent.futures.wait([future], self._turn_timeout)
        if not future.done() and future.cancel():
            raise _busy(self._turn_timeout)
        return future.result()

    async def run_async(self, work: Callable[[sa.Connection], T]) -> T:
        """Read, and wait for it in an event loop; given up, it is not begun any more."""
        future = self.submit(work)
        waiter = asyncio.wrap_future(future)
        try:
            await asyncio.wait([waiter], timeout=self._turn_timeout)
            if not future.done() and future.cancel():
                raise _busy(self._turn_timeout)
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
            self._queue.put(_STOP)
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
        if read is _STOP:
            return False
        result, failure = None, None
        with self._turn():
            if not read.future.set_running_or_notify_cancel():
                return True
            try:
                result = self._attempt(read.work)
            except Exception as error:  # noqa: BLE001  # It belongs to whoever waits for this read.
                failure = error
        # Only now, so that whoever hears of it finds the connection free.
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
            with self._engine.connect() as connection:
                return work(connection)
        except sa.exc.DataError:
            # It is about what was asked for, and not about the store.
            raise
        except (sa.exc.DBAPIError, OSError) as error:
            raise StoreUnavailable(f"The store cannot be read: {getattr(error, 'orig', None) or error}") from error


def _closing() -> StoreUnavailable:
    return StoreUnavailable("The store is closing.")


def _busy(waited: float) -> StoreBusy:
    return StoreBusy(f"So much is being read that a read did not get its turn within {waited:g} seconds.")
