"""The store as a whole: open, use, close."""

from __future__ import annotations

import contextlib
import logging
from typing import TYPE_CHECKING, Self, TypeVar

import sqlalchemy as sa

from patrolserver_exporter.store import deliveries, engine, files, schema
from patrolserver_exporter.store.documents import check
from patrolserver_exporter.store.errors import StoreCorrupt, StoreUnavailable
from patrolserver_exporter.store.unit import StoreThread, Unit

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Future
    from pathlib import Path

    from patrolserver_exporter.store.delivery import Acceptance, NewDelivery

log = logging.getLogger(__name__)
T = TypeVar("T")


def rebuild(url: str) -> list[Path]:
    """Set a damaged SQLite file aside, so that the state is built anew; returns where its parts are now.

    A sound one stays, and so does one that another process holds (`StoreLocked`).
    """
    file = engine.database_file(url)
    if file is None or not file.exists():
        return []
    with files.FileLock(file):
        try:
            if _is_sound(file):
                return []
            probe = engine.create_engine(url)
            try:
                engine.migrate(probe)
                check_documents(probe, file)
            finally:
                probe.dispose()
        except StoreCorrupt:
            return files.set_aside(file)
    return []


def _is_sound(file: Path) -> bool:
    """Look for damage before anything is written; `StoreCorrupt` tells what was found.

    False if only the documents were not looked at, because a migration has to come first.
    """
    engine.check_file(file)
    if not file.exists() or file.stat().st_size == 0:
        return False
    reader = engine.create_reader(file)
    try:
        if not engine.is_current(reader):
            return False
        check_documents(reader, file)
    except sa.exc.DatabaseError as error:
        raise files.corrupt(file, f"{error.orig}.") from error
    finally:
        reader.dispose()
    return True


def check_documents(database: sa.Engine, file: Path) -> None:
    """Hold every sealed document against its checksum; `StoreCorrupt` if one does not match."""
    columns = (
        schema.servers.c.state,
        schema.servers.c.summary,
        schema.servers.c.software,
        schema.issues.c.document,
        schema.changes.c.document,
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


class Store:
    """The state of the service, in SQLite or PostgreSQL.

    ``on_commit`` gets the effects of every committed group of units, in the order of the commits (see ``StoreThread``).
    Raises ``StoreLocked``, ``StoreCorrupt`` or ``StoreUnavailable`` when it cannot be opened.
    """

    def __init__(self, url: str, on_commit: Callable[[list[object]], None] = lambda _: None) -> None:
        self._file = engine.database_file(url)
        self._lock = None if self._file is None else files.FileLock(self._file)
        sound = False
        with contextlib.ExitStack() as undo:
            if self._file is not None and self._lock is not None:
                self._claim_file(self._file, self._lock)
                undo.callback(self._lock.release)
                sound = _is_sound(self._file)
            self._engine = engine.create_engine(url)
            undo.callback(self._engine.dispose)
            engine.migrate(self._engine)
            if self._file is not None and not sound:
                check_documents(self._engine, self._file)
            undo.pop_all()
        self._thread = StoreThread(self._engine, on_commit)
        if self._file is not None:
            released = self.run(deliveries.release_claims)
            if released:
                log.info(
                    "Deliveries that were being fetched at the last stop are due again",
                    extra={"fields": {"deliveries": released}},
                )

    @staticmethod
    def _claim_file(file: Path, lock: files.FileLock) -> None:
        try:
            files.check_folder(file)
            lock.acquire(f"The state file {file}")
            files.open_privately(file)
        except OSError as error:
            lock.release()
            raise StoreUnavailable(
                f"Cannot use the state file {file}: {error.strerror}. Let the exporter's user write it and its folder, "
                "or correct store.url."
            ) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def last_progress(self) -> float:
        """When the store's thread last finished something (monotonic seconds)."""
        return self._thread.last_progress

    @property
    def last_failure(self) -> tuple[float, str] | None:
        """When something last could not be written (monotonic seconds), and why."""
        return self._thread.last_failure

    def run(self, work: Callable[[Unit], T]) -> T:
        """Do a unit of work and wait for its commit; raises what the work raises, or ``StoreUnavailable``."""
        return self._thread.run(work)

    def submit(self, work: Callable[[Unit], T]) -> Future[T]:
        """Queue a unit of work."""
        return self._thread.submit(work)

    async def accept(
        self,
        delivery: NewDelivery,
        work: Callable[[Unit, list[NewDelivery]], list[Acceptance]],
    ) -> Acceptance:
        """Take a delivery in, together with all that arrive meanwhile; ends after the disk has it."""
        outcome: Acceptance = await self._thread.submit_item(work, delivery)
        return outcome

    def close(self) -> None:
        """Finish what is queued, leave the file sealed, and give it free."""
        self._thread.close()
        if self._file is not None:
            with contextlib.suppress(sa.exc.DatabaseError), self._engine.connect() as connection:
                connection.exec_driver_sql("COMMIT")
                connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")
        self._engine.dispose()
        if self._file is not None and self._lock is not None:
            with contextlib.suppress(OSError):
                files.leave_sum(self._file)
            self._lock.release()
