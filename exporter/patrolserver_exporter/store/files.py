"""The SQLite file from outside: one process at a time, and no damage passes unseen.

SQLite keeps no checksums of its own, so a flipped byte inside a value would go unnoticed. Two seals close the gap: each
document carries a CRC (``documents``), and a clean stop leaves the digest of the whole file beside it (``.sum``).
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import time
from typing import TYPE_CHECKING, Self

from patrolserver_exporter.store.errors import StoreCorrupt, StoreLocked, StoreUnavailable

if TYPE_CHECKING:
    from pathlib import Path

_OWNER_ONLY = 0o600
"""Only the owner may read which weak spots a fleet has."""
_HOW_TO_GO_ON = (
    "Nothing was changed. Restore the file from a backup, or start once with --store.rebuild: that sets the file aside "
    "and rebuilds the state from the API (first_seen times and the change feed start over)."
)


def corrupt(path: Path, what: str) -> StoreCorrupt:
    """The error for a damaged state file, with the ways out."""
    return StoreCorrupt(f"The state file {path} is damaged: {what} {_HOW_TO_GO_ON}")


def check_folder(database: Path) -> None:
    """`StoreUnavailable` when the folder is missing: made silently, a mistyped path would begin an empty state."""
    if not database.parent.is_dir():
        raise StoreUnavailable(
            f"The folder {database.parent} of the state file {database.name} does not exist. Create it for the "
            "exporter's user, or correct store.url."
        )


def open_privately(database: Path) -> None:
    """Try to write the file, and begin an empty one where there is none: raises ``OSError``.

    It is its owner's alone, and so is what SQLite puts beside it; SQLite itself would let everybody read them.
    """
    os.close(os.open(database, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, _OWNER_ONLY))


class FileLock:
    """Keeps a second process off the state file, for as long as this one lives.

    It is a file of its own, because closing any descriptor of the database would drop SQLite's locks on it.
    """

    def __init__(self, database: Path) -> None:
        self._path = database.with_name(database.name + ".lock")
        self._descriptor = -1

    def __enter__(self) -> Self:
        self.acquire(f"The state file for {self._path.stem}")
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def acquire(self, what: str) -> None:
        """Take the lock or raise ``StoreLocked`` that names the holder."""
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, _OWNER_ONLY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(descriptor, 32, 0).decode("ascii", "replace").strip() or "unknown"
            os.close(descriptor)
            raise StoreLocked(
                f"{what} is in use by another patrolserver-exporter (process {holder}). Stop that one, or give this "
                f"one another store.url."
            ) from None
        except OSError:
            os.close(descriptor)
            raise
        self._descriptor = descriptor
        with contextlib.suppress(OSError):  # A full disk keeps the process id out of a message, no more.
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)

    def release(self) -> None:
        """Give the lock back; the file stays, since removing it would race with a next process."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "blake2b").hexdigest()


def _sum_file(database: Path) -> Path:
    return database.with_name(database.name + ".sum")


def check_sum(database: Path) -> None:
    """Hold the file against the digest that the last clean stop left; ``StoreCorrupt`` if they differ.

    The digest is consumed: from here on the file changes, and a crash must not leave a stale one.
    """
    sum_file = _sum_file(database)
    try:
        expected = sum_file.read_text("ascii", errors="replace").strip()
    except FileNotFoundError:
        return
    if expected != _digest(database):
        raise corrupt(
            database,
            f"it is not what the last stop wrote. (If you put another file there on purpose, remove {sum_file.name}.)",
        )
    sum_file.unlink()


def forget_sum(database: Path) -> None:
    """Where the file starts again: a digest of one that was removed would condemn this one after a crash."""
    _sum_file(database).unlink(missing_ok=True)


def leave_sum(database: Path) -> None:
    """After a clean stop: leave the file's digest beside it, durably."""
    if any(database.with_name(database.name + end).exists() for end in ("-wal", "-journal")):
        return
    sum_file = _sum_file(database)
    temporary = sum_file.with_name(sum_file.name + ".new")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, _OWNER_ONLY)
    with os.fdopen(descriptor, "w", encoding="ascii") as file:
        file.write(_digest(database) + "\n")
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(sum_file)


def set_aside(database: Path) -> list[Path]:
    """Move a damaged state file and its companions out of the way; returns where they are now."""
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    moved = []
    for end in ("", "-wal", "-shm", "-journal", ".sum"):
        path = database.with_name(database.name + end)
        if path.exists():
            moved.append(path.rename(path.with_name(f"{database.name}.set-aside-{stamp}{end}")))
    return moved
