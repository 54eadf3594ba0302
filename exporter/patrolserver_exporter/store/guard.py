"""A SQLite state file while a store has it open: looked at before, kept from others, and provable afterwards."""

from __future__ import annotations

import contextlib
import sqlite3
from typing import TYPE_CHECKING, Any

from patrolserver_exporter.store import files, sums
from patrolserver_exporter.store.errors import StoreLocked, StoreUnavailable

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import sqlalchemy as sa


def check_file(database: Path, head: str) -> bool:
    """Look for damage before anything is written; ``StoreCorrupt`` tells what was found.

    ``head`` is the newest version of the tables. Returns whether the sums prove that all is as it was written. A state
    of an older version has none: its documents are looked at when it is migrated.

    Runs before the engine's connection exists, and read-only, so that a damaged file stays as it is: another connection
    would write the log of a crash back into it.
    """
    if not database.exists():
        return False
    files.check_sum(database)
    return check_content(database, head, open_reader)


def check_content(database: Path, head: str, connect: Callable[[Path], sqlite3.Connection]) -> bool:
    """The same for what is in the file, as such a connection sees it."""
    if database.stat().st_size == 0:
        files.check_emptiness(database)
        return False
    try:
        with contextlib.closing(connect(database)) as connection:
            connection.execute("BEGIN")
            found = [str(row[0]) for row in connection.execute("PRAGMA integrity_check(5)")]
            commits = sums.verify(connection, head) if found == ["ok"] else None
    except sums.DAMAGE as error:
        raise files.corrupt(database, _sentence(str(error) or type(error).__name__)) from error
    if found != ["ok"]:
        raise files.corrupt(database, f"integrity_check says: {'; '.join(found)}.")
    if commits is not None:
        files.check_marks(database, commits.state, commits.count)
    return commits not in (None, sums.NO_SUMS)


def is_alone(database: Path) -> bool:
    """Whether nothing beside the file tells what was committed last, as beside a backup: it may lack commits."""
    return database.stat().st_size > 0 and not files.sum_file(database).exists()


def _sentence(told: str) -> str:
    return f"{told.rstrip('.')}."


def open_reader(database: Path, **arguments: Any) -> sqlite3.Connection:
    """A connection that cannot write, and whose end leaves the log of a crash where it is."""
    connection: sqlite3.Connection = sqlite3.connect(f"{database.as_uri()}?mode=ro", uri=True, **arguments)
    return connection


class FileGuard:
    """Keeps other processes off a state file, and its sums in step with it, while a store is open."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._lock = files.FileLock(file)
        self._hold = files.FileHold(file)
        self._marks = files.CommitMarks(file)

    def claim(self) -> None:
        """Keep the others off. Raises ``StoreLocked``, or ``StoreUnavailable`` if the file cannot be used."""
        try:
            files.check_folder(self._file)
            self._lock.acquire(f"The state file {self._file}")
            if not self._file.exists():
                files.forget_sum(self._file)
            files.try_sum(self._file)
            self._hold.acquire()
        except OSError as error:
            self._lock.release()
            raise StoreUnavailable(
                f"Cannot use the state file {error.filename or self._file}: {error.strerror}. Let the exporter's user "
                "write it, the files beside it and their folder, or correct store.url."
            ) from error
        except StoreLocked:
            self._lock.release()
            raise

    def keep_sums(self, engine: sa.Engine) -> None:
        """Have every commit keep the sums, and be marked beside the file."""
        with engine.connect() as connection:
            raw = sums.of(connection)
        commits = raw.keep_sums(self._hold.check, lambda seen: self._marks.write(seen.state, seen.count))
        self._marks.open(commits.state, commits.count)

    def check(self, _: sa.Connection) -> None:
        """``OSError`` if the file is not there any more."""
        self._hold.check()

    def leave_sum(self) -> None:
        """After a clean stop: leave the file's digest beside it."""
        if self._hold.is_there:
            with contextlib.suppress(OSError):
                files.leave_sum(self._file)

    def release(self) -> None:
        """Let others use the file."""
        self._marks.close()
        self._hold.release()
        self._lock.release()
