"""The SQLite file from outside: one process at a time, and no damage passes unseen.

SQLite keeps no checksums of its own, so a flipped byte inside a value would go unnoticed. Within the file sums over the
rows close the gap (``sums``); beside it, ``.sum`` tells what the file must hold. While a process works on it, that is
how many commits it has seen; after a clean stop, it is the digest of the whole file.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import re
import stat
import struct
import time
import zlib
from typing import TYPE_CHECKING, Final, Self

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
    try:
        is_there = stat.S_ISDIR(database.parent.stat().st_mode)
    except PermissionError:
        raise StoreUnavailable(
            f"The folder {database.parent} of the state file {database.name} may not be looked into by this user. Run "
            "this as the exporter's user, or let that user use it."
        ) from None
    except OSError:
        is_there = False
    if not is_there:
        raise StoreUnavailable(
            f"The folder {database.parent} of the state file {database.name} does not exist. Create it for the "
            "exporter's user, or correct store.url."
        )


_MAX_LINKS = 40
"""As many as Linux follows."""


def beside(database: Path, end: str) -> Path:
    """What belongs to the file: it lies beside the file itself and not beside a link to it, as SQLite has it."""
    for _ in range(_MAX_LINKS):
        if not database.is_symlink():
            break
        database = database.parent / database.readlink()
    return database.with_name(database.name + end)


class FileLock:
    """Keeps a second process off the state file, for as long as this one lives, and says which one it is.

    It finds one that uses the same path; `FileHold` finds the others.
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


_HELD: Final[set[tuple[int, int]]] = set()
"""Device and inode of the files that this process holds: SQLite's locks are the process's, so this has to be, too."""
_OUR_BYTE = 2**62
"""Behind all that SQLite locks, and all that a file can be long."""
_LOCK_FORMAT: Final = "@hhqqi4x"
"""Of the system's ``struct flock``."""


class FileHold:
    """Holds the state file itself, by device and inode: under whatever name, and if its ``.lock`` was removed.

    The lock lies on one byte that SQLite never uses, and belongs to the descriptor, not to the process (an *open file
    description lock*). So it does not touch SQLite's own, and ``.backup`` goes on. Closing a descriptor of the file
    would drop SQLite's locks: it is opened before SQLite does so, and `release` comes after SQLite has closed it.
    """

    def __init__(self, database: Path) -> None:
        self._path = database
        self._log = beside(database, "-wal")
        self._descriptor = -1
        self._file = (0, 0)
        self._log_file: tuple[int, int] | None = None

    def __enter__(self) -> Self:
        self.acquire()
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def acquire(self) -> None:
        """Take hold of the file, and begin an empty one where there is none.

        It is its owner's alone, and so is what SQLite puts beside it; SQLite itself would let everybody read them.
        Raises ``StoreLocked``, or ``OSError`` where the file cannot be written.
        """
        if _identity(self._path) in _HELD:
            raise self._locked()
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, _OWNER_ONLY)
        if not _lock_byte(descriptor):
            os.close(descriptor)
            raise self._locked()
        self._descriptor = descriptor
        found = os.fstat(descriptor)
        self._file = found.st_dev, found.st_ino
        _HELD.add(self._file)

    def _locked(self) -> StoreLocked:
        return StoreLocked(
            f"The state file {self._path} is in use by another patrolserver-exporter, under another name or without "
            "its lock file. Stop that one, or give this one another store.url."
        )

    def check(self) -> None:
        """``OSError`` if the file, or SQLite's log of it, is not there any more: what is written would be lost."""
        if (found := _identity(self._path)) != self._file:
            raise StateFileGone(self._path, "removed" if found is None else "replaced by another one")
        found = _identity(self._log)
        if self._log_file is None:
            self._log_file = found
        elif found != self._log_file:
            raise StateFileGone(self._log, "removed" if found is None else "replaced by another one")

    @property
    def is_there(self) -> bool:
        """Whether the path still leads to this file."""
        return _identity(self._path) == self._file

    def release(self) -> None:
        """Give it free; SQLite must have closed it."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
            _HELD.discard(self._file)


def is_held(database: Path) -> bool:
    """Whether a process has the state file open; it is only asked."""
    command = getattr(fcntl, "F_OFD_GETLK", None)
    if command is None:
        return False
    asked = struct.pack(_LOCK_FORMAT, fcntl.F_WRLCK, os.SEEK_SET, _OUR_BYTE, 1, 0)
    with database.open("rb") as file:
        kind: int = struct.unpack(_LOCK_FORMAT, fcntl.fcntl(file, command, asked))[0]
    return kind != fcntl.F_UNLCK


class StateFileGone(OSError):
    """The state file was removed or replaced while it is in use."""

    def __init__(self, path: Path, what: str) -> None:
        super().__init__(
            f"{path} was {what} while the exporter uses it, so nothing would be kept. Put the file back, or restart "
            "the exporter to go on with what is there now."
        )


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        found = os.stat(path)  # noqa: PTH116  # For each commit; pathlib's takes twice as long.
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _lock_byte(descriptor: int) -> bool:
    command = getattr(fcntl, "F_OFD_SETLK", None)
    if command is None:  # Linux alone has it; elsewhere the lock file has to do.
        return True
    wanted = struct.pack(_LOCK_FORMAT, fcntl.F_WRLCK, os.SEEK_SET, _OUR_BYTE, 1, 0)
    try:
        fcntl.fcntl(descriptor, command, wanted)
    except OSError as error:
        # Some network file systems have no such locks.
        return error.errno not in {errno.EACCES, errno.EAGAIN}
    return True


_MARK = re.compile(rb"commits ([0-9a-f]{16}) ([0-9]{20}) ([0-9a-f]{8})\n")
_MARK_LENGTH = 55
_MARKS = 2


class CommitMarks:
    """Keeps beside the file, in ``.sum``, how many commits it has seen.

    Written after each commit without waiting for the disk: it outlives the process, and after a loss of power it is
    behind the state. It is never ahead, so a state that is behind it has lost commits. Of two marks, written in turn,
    one is always whole.
    """

    def __init__(self, database: Path) -> None:
        self._path = sum_file(database)
        self._descriptor = -1

    def open(self, state: int, count: int) -> None:
        """Begin with these."""
        with contextlib.suppress(OSError):  # Without it less is proved, and nothing else is wrong.
            flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
            self._descriptor = os.open(self._path, flags, _OWNER_ONLY)
        for place in range(_MARKS):
            self._write_at(place, state, count)

    def write(self, state: int, count: int) -> None:
        """Note another commit."""
        self._write_at(count % _MARKS, state, count)

    def _write_at(self, place: int, state: int, count: int) -> None:
        if self._descriptor < 0:
            return
        told = b"%016x %020d" % (state, count)
        with contextlib.suppress(OSError):
            os.pwrite(self._descriptor, b"commits %s %08x\n" % (told, zlib.crc32(told)), place * _MARK_LENGTH)

    def close(self) -> None:
        """Leave it as it is."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def marked_commits(database: Path) -> tuple[int, int] | None:
    """The state and its commits by the newest whole mark; None where there is none."""
    try:
        content = sum_file(database).read_bytes()
    except OSError:
        return None
    found = [
        (int(state, 16), int(count))
        for state, count, check in _MARK.findall(content)
        if int(check, 16) == zlib.crc32(b"%s %s" % (state, count))
    ]
    return max(found, key=lambda mark: mark[1], default=None)


def check_marks(database: Path, state: int, count: int) -> None:
    """``StoreCorrupt`` if the file lacks commits that it has seen, or is another state's."""
    marked = marked_commits(database)
    if marked is None or marked == (state, count) or (marked[0] == state and marked[1] < count):
        return
    is_another = state and marked[0] != state
    lost = "it is another state than the last process wrote to." if is_another else _lost(marked[1] - count)
    raise corrupt(database, f"{lost} {_on_purpose(database)}")


def check_emptiness(database: Path) -> None:
    """``StoreCorrupt`` if an empty file has seen commits."""
    marked = marked_commits(database)
    if marked is not None and marked[1]:
        raise corrupt(database, f"{_lost(marked[1])} {_on_purpose(database)}")


def _lost(commits: int) -> str:
    return f"it lacks the last {commits} commits. Its log (the file that ends in -wal) is lost, cut or damaged."


def _on_purpose(database: Path) -> str:
    return f"(If you put another file there on purpose, remove {sum_file(database).name}.)"


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "blake2b").hexdigest()


def sum_file(database: Path) -> Path:
    """What the last process left beside the file, so that the next one knows that nothing is lost."""
    return beside(database, ".sum")


def check_sum(database: Path) -> None:
    """Hold the file against the digest that the last clean stop left; ``StoreCorrupt`` if they differ.

    The digest is consumed: from here on the file changes, and a crash must not leave a stale one. Where the last
    process was killed there is none, but its `CommitMarks`.
    """
    if fits_sum(database):
        forget_sum(database)


def fits_sum(database: Path) -> bool:
    """Whether there is a digest of the last clean stop, and the file has it; ``StoreCorrupt`` if it has another."""
    try:
        expected = sum_file(database).read_bytes()
    except FileNotFoundError:
        return False
    if _looks_like_marks(expected):
        return False
    if expected.strip() != _digest(database).encode():
        raise corrupt(database, f"it is not what the last stop wrote. {_on_purpose(database)}")
    return True


def _looks_like_marks(content: bytes) -> bool:
    """Whatever bit is flipped: marks are as long as they are, and a digest is longer."""
    return len(content) <= _MARKS * _MARK_LENGTH


def try_sum(database: Path) -> None:
    """``OSError`` if it is there and may not be read and written, as when root copied the state."""
    with contextlib.suppress(FileNotFoundError), sum_file(database).open("r+b"):
        pass


def forget_sum(database: Path) -> None:
    """Where the file starts again: a digest of one that was removed would condemn this one after a crash."""
    sum_file(database).unlink(missing_ok=True)


def leave_sum(database: Path) -> None:
    """After a clean stop: leave the file's digest beside it, durably."""
    if any(beside(database, end).exists() for end in ("-wal", "-journal")):
        return
    left = sum_file(database)
    temporary = left.with_name(left.name + ".new")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, _OWNER_ONLY)
    with os.fdopen(descriptor, "w", encoding="ascii") as file:
        file.write(_digest(database) + "\n")
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(left)


def set_aside(database: Path) -> list[Path]:
    """Move a damaged state file and its companions out of the way; returns where they are now."""
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    moved = []
    for end in ("", "-wal", "-shm", "-journal", ".sum"):
        path = beside(database, end)
        if path.exists():
            moved.append(path.rename(beside(database, f".set-aside-{stamp}{end}")))
    return moved
