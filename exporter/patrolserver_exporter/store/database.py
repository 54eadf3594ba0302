"""The database: opening it, with checks and migrations, using it, and closing it."""

from __future__ import annotations

import contextlib
import logging
import sqlite3
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self, TypeVar

import sqlalchemy as sa
from sqlalchemy.pool import QueuePool, StaticPool

from patrolserver_exporter.store import files, tables
from patrolserver_exporter.store.errors import StoreCorrupt, StoreUnavailable
from patrolserver_exporter.store.tables import check
from patrolserver_exporter.store.threads import READERS, TURN_TIMEOUT, Readers, StoreThread, StoreTrouble, Unit

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from concurrent.futures import Future


HEAD = "0002"
"""The newest migration; held against ``migrations/versions`` by a test."""

_LOCK = int.from_bytes(b"patrols", "big")
"""PostgreSQL's advisory lock that a transaction of ours holds."""

_LOCK_SECONDS = 15

_GIVE_UP = {
    "connect_timeout": 5,
    "keepalives_idle": 5,
    "keepalives_interval": 5,
    "keepalives_count": 2,
    "tcp_user_timeout": 15_000,
}
"""How libpq notices that the database's host is gone. The system's defaults would wait for minutes or hours, and every
delivery with them. Seconds, but for the last one, which is in milliseconds."""


_MAX_LOG_BYTES: Final = 64 * 2**20


def database_file(url: str) -> Path | None:
    """The state file of a SQLite URL; ``None`` for PostgreSQL."""
    parsed = sa.make_url(url)
    if parsed.get_backend_name() != "sqlite":
        return None
    return Path(parsed.database or "patrolserver.db").absolute()


def redacted(url: str) -> str:
    """The URL without its password."""
    return sa.make_url(url).render_as_string(hide_password=True)


def create_engine(url: str) -> sa.Engine:
    """The engine that writes: exactly one connection of it is ever open."""
    if database_file(url) is None:
        engine = _create_postgresql_engine(url, pool_size=1)
        sa.event.listen(engine, "begin", _begin_writing_postgresql)
        return engine
    engine = sa.create_engine(url, poolclass=StaticPool, connect_args=_SQLITE_ARGUMENTS)
    sa.event.listen(engine, "connect", _prepare_sqlite)
    sa.event.listen(engine, "begin", _begin_writing_sqlite)
    return engine


def create_reading_engine(url: str) -> sa.Engine:
    """An engine of at most `READERS` connections that cannot write; a transaction sees one state of the database."""
    file = database_file(url)
    if file is None:
        engine = _create_postgresql_engine(
            url,
            pool_size=READERS,
            execution_options={"isolation_level": "REPEATABLE READ", "postgresql_readonly": True},
        )
        sa.event.listen(engine, "begin", _begin_postgresql)
        return engine
    engine = sa.create_engine(
        "sqlite://",
        poolclass=QueuePool,
        pool_size=READERS,
        max_overflow=0,
        creator=lambda: _open_reader(file, **_SQLITE_ARGUMENTS),
    )
    sa.event.listen(engine, "connect", _prepare_sqlite_reader)
    sa.event.listen(engine, "begin", _begin_reading_sqlite)
    return engine


_SQLITE_ARGUMENTS: Final[dict[str, Any]] = {"check_same_thread": False, "timeout": 5, "cached_statements": 256}


def _create_postgresql_engine(url: str, *, pool_size: int, **options: Any) -> sa.Engine:
    return sa.create_engine(
        url,
        pool_size=pool_size,
        max_overflow=0,
        pool_timeout=5,
        pool_pre_ping=True,
        connect_args={"application_name": "patrolserver-exporter", **_GIVE_UP},
        **options,
    )


def _prepare_sqlite(connection: Any, _record: object) -> None:
    _set_pragmas(connection, "journal_mode=WAL", "synchronous=FULL", "temp_store=MEMORY", "cache_size=-16384")


def _prepare_sqlite_reader(connection: Any, _record: object) -> None:
    _set_pragmas(connection, "query_only=ON", "temp_store=MEMORY")


def _set_pragmas(connection: Any, *pragmas: str) -> None:
    # sqlite3's own transactions begin too late for savepoints; SQLAlchemy's documentation asks for this.
    connection.isolation_level = None
    cursor = connection.cursor()
    for pragma in pragmas:
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _begin_writing_sqlite(connection: sa.Connection) -> None:
    connection.exec_driver_sql("BEGIN IMMEDIATE")


def _begin_reading_sqlite(connection: sa.Connection) -> None:
    connection.exec_driver_sql("BEGIN")


def _begin_writing_postgresql(connection: sa.Connection) -> None:
    # As SQLite does: one writer at a time, whatever the number of replicas. Units read, decide and write, and two that
    # do so for the same server or counter at once would lose what one of them found out.
    _begin_postgresql(connection)
    connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_LOCK})")


def _begin_postgresql(connection: sa.Connection) -> None:
    connection.exec_driver_sql(f"SET LOCAL lock_timeout = '{_LOCK_SECONDS}s'")
    connection.exec_driver_sql(f"SET LOCAL idle_in_transaction_session_timeout = '{_LOCK_SECONDS}s'")


def check_file(database: Path) -> None:
    """Look for damage before anything is written; ``StoreCorrupt`` tells what was found.

    Runs before the engine's connection exists, and read-only, so that a damaged file stays as it is: another connection
    would write the log of a crash back into it.
    """
    if not database.exists() or database.stat().st_size == 0:
        files.forget_sum(database)
        return
    files.check_sum(database)
    try:
        with contextlib.closing(_open_reader(database)) as connection:
            found = [str(row[0]) for row in connection.execute("PRAGMA quick_check(5)")]
    except sqlite3.DatabaseError as error:
        raise files.corrupt(database, f"{error}.") from error
    if found != ["ok"]:
        raise files.corrupt(database, f"quick_check says: {'; '.join(found)}.")


def create_reader(database: Path) -> sa.Engine:
    """An engine that cannot write, and whose end leaves the log of a crash where it is."""
    return sa.create_engine("sqlite://", poolclass=StaticPool, creator=lambda: _open_reader(database))


def _open_reader(database: Path, **arguments: Any) -> sqlite3.Connection:
    connection: sqlite3.Connection = sqlite3.connect(f"{database.as_uri()}?mode=ro", uri=True, **arguments)
    return connection


def is_current(engine: sa.Engine) -> bool:
    """Whether its schema is at ``HEAD``."""
    with engine.connect() as connection:
        return _revision(connection) == HEAD


def migrate(engine: sa.Engine) -> None:
    """Bring the schema to ``HEAD``; does nothing, and imports nothing, when it is there already."""
    try:
        with engine.begin() as connection:
            revision = _revision(connection)
            if revision == HEAD:
                return
            if revision is not None and revision > HEAD:
                raise StoreUnavailable(
                    f"The state was written by a newer patrolserver-exporter (schema {revision}, not {HEAD}). "
                    "Install that version again, or restore the state from before the upgrade."
                )
            _upgrade(connection)
    except sa.exc.OperationalError as error:
        raise StoreUnavailable(f"Cannot open the store {redacted(str(engine.url))}: {error.orig}.") from error
    except sa.exc.DatabaseError as error:
        raise StoreCorrupt(f"The store {redacted(str(engine.url))} cannot be read: {error.orig}.") from error


def _revision(connection: sa.Connection) -> str | None:
    if not sa.inspect(connection).has_table("alembic_version"):
        return None
    return connection.execute(sa.text("SELECT version_num FROM alembic_version")).scalar()


def _upgrade(connection: sa.Connection) -> None:
    # Alembic takes a fifth of a second to import, which a start that has nothing to migrate should not pay.
    from alembic import command  # noqa: PLC0415
    from alembic.config import Config  # noqa: PLC0415

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    config.attributes["connection"] = connection
    command.upgrade(config, "head")


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
    with files.FileLock(file):
        try:
            if _is_sound(file):
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


def _is_sound(file: Path) -> bool:
    """Look for damage before anything is written; `StoreCorrupt` tells what was found.

    False if only the documents were not looked at, because a migration has to come first.
    """
    check_file(file)
    if not file.exists() or file.stat().st_size == 0:
        return False
    reader = create_reader(file)
    try:
        if not is_current(reader):
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


class Store:
    """The state of the service, in SQLite or PostgreSQL.

    Who reads gets a connection that cannot write (`read`); who writes gets a `Unit` on the one thread that does
    (`run`). A caller that waited for a unit finds what it wrote in every later read.

    ``on_commit`` gets the effects of every committed group of units, in the order of the commits (see ``StoreThread``).
    ``turn_timeout`` is how many seconds a read waits until it may begin. ``max_log_bytes`` is what SQLite's log may
    grow to before it is emptied in a moment without reads.
    Raises ``StoreLocked``, ``StoreCorrupt`` or ``StoreUnavailable`` when it cannot be opened.
    """

    def __init__(
        self,
        url: str,
        on_commit: Callable[[list[object]], None] = lambda _: None,
        *,
        turn_timeout: float = TURN_TIMEOUT,
        max_log_bytes: int = _MAX_LOG_BYTES,
    ) -> None:
        self._file = database_file(url)
        self._max_log_bytes = max_log_bytes
        self._lock = None if self._file is None else files.FileLock(self._file)
        sound = False
        with contextlib.ExitStack() as undo:
            if self._file is not None and self._lock is not None:
                self._claim_file(self._file, self._lock)
                undo.callback(self._lock.release)
                sound = _is_sound(self._file)
            self._engine = create_engine(url)
            undo.callback(self._engine.dispose)
            migrate(self._engine)
            if self._file is not None and not sound:
                check_documents(self._engine, self._file)
            self._readers = self._open_readers(url, turn_timeout)
            undo.pop_all()
        self._thread = StoreThread(self._engine, on_commit, after_group=self._bound_log)

    def _open_readers(self, url: str, turn_timeout: float) -> Readers:
        engine = create_reading_engine(url)
        try:
            return Readers(engine, on_idle=lambda: self.submit(lambda _: None), turn_timeout=turn_timeout)
        except sa.exc.DBAPIError as error:
            engine.dispose()
            raise StoreUnavailable(f"Cannot open the store {redacted(url)} for reading: {error.orig}.") from error

    @property
    def is_exclusive(self) -> bool:
        """No other process can use this store, so whatever was claimed in it is ours."""
        return self._file is not None

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

    @property
    def trouble(self) -> StoreTrouble | None:
        """That nothing can be written, as long as that is so."""
        return self._thread.trouble

    def prove(self) -> None:
        """Have the store show that it makes progress; while it cannot write, this finds out when it can again."""
        self._thread.prove()

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

    def submit_read(self, work: Callable[[sa.Connection], T]) -> Future[T]:
        """Queue a read, even if its turn comes late."""
        return self._readers.submit(work)

    def run(self, work: Callable[[Unit], T]) -> T:
        """Do a unit of work and wait for its commit; raises what the work raises, or ``StoreUnavailable``."""
        return self._thread.run(work)

    def submit(self, work: Callable[[Unit], T]) -> Future[T]:
        """Queue a unit of work."""
        return self._thread.submit(work)

    async def run_together(self, item: Item, work: Callable[[Unit, list[Item]], list[T]]) -> T:
        """Do ``work`` on this item and all others that wait for the same work; ends after the disk has it."""
        result: T = await self._thread.submit_item(work, item)
        return result

    def close(self) -> None:
        """End the reads, finish what is queued, leave the file sealed, and give it free."""
        # Only the last connection of all takes the log away, and it has to be the one that may write.
        self._readers.close()
        self._thread.close()
        if self._file is not None:
            self._empty_log()
        self._engine.dispose()
        if self._file is not None and self._lock is not None:
            with contextlib.suppress(OSError):
                files.leave_sum(self._file)
            self._lock.release()

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


def _log_size(database: Path) -> int:
    """Bytes of SQLite's log beside the file; 0 where there is none to be seen."""
    try:
        return database.with_name(database.name + "-wal").stat().st_size
    except OSError:
        return 0
