"""What a command gives out: files that were asked for, standard output, and remarks for people.

A file that cannot be written is an error of the command. Standard output is not: its reader may have had enough
(``| head``), and the exit code is about what the command was asked to do.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import sys
import tempfile
from pathlib import Path
from typing import TextIO

STDOUT = "-"
_MAX_LINKS = 40
_FOLDER_REFUSES = {errno.EACCES, errno.EPERM, errno.EROFS, errno.EBUSY, errno.EXDEV}
"""No file can be put beside or in place of it, which says nothing about writing the file itself."""


def is_stdout(path: str) -> bool:
    """Whether that name stands for standard output."""
    return path == STDOUT or _descriptor(Path(path)) == 1


def is_same(one: str, other: str) -> bool:
    """Whether both names lead to one file, of which the second text would replace the first."""
    if is_stdout(one) or is_stdout(other):
        return is_stdout(one) and is_stdout(other)
    paths = [Path(os.path.realpath(path)) for path in (one, other)]
    try:
        modes = [path.stat().st_mode for path in paths]
        if not all(stat.S_ISREG(mode) for mode in modes):
            return False
        return paths[0].samefile(paths[1])
    except OSError:
        return paths[0] == paths[1]


def is_terminal() -> bool:
    """Whether standard output is a screen."""
    try:
        return os.isatty(1)
    except OSError:
        return False


def quoted(text: str) -> str:
    """Return an argument as a message may show it: on one line, and cut where it is long."""
    shown = "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in text[:60])
    return f"{shown}…" if len(text) > 60 else shown


def show(text: str) -> None:
    """Write to standard output, as far as somebody reads it. Letters that it cannot show are replaced."""
    _write(sys.stdout, text)


def remark(text: str) -> None:
    """Tell people something beside the output, on standard error."""
    _write(sys.stderr, text + "\n")


def _write(stream: TextIO | None, text: str) -> None:
    if stream is None:
        return
    try:
        encoding = getattr(stream, "encoding", None) or "utf-8"
        stream.write(text.encode(encoding, "replace").decode(encoding))
        stream.flush()
    except (OSError, ValueError):
        _abandon(stream)
    except KeyboardInterrupt:
        _abandon(stream)
        raise


def _abandon(stream: TextIO) -> None:
    """Send the rest nowhere: what is left in its buffer would be tried again at the end, and change the exit code."""
    with contextlib.suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)


def write_file(path: str, text: str) -> None:
    """Write a file that was asked for, or standard output where it is called so. Raises ``OSError``.

    A regular file is replaced as a whole, so that nobody ever sees a part of it; a link stays, and what it leads to is
    replaced. A device, a FIFO and a file whose folder takes no other file are written in place.
    """
    if is_stdout(path):
        show(text)
        return
    target = _target(Path(path))
    data = text.encode("utf-8", "backslashreplace")
    descriptor = _descriptor(target)
    if descriptor is not None:
        _write_all(os.dup(descriptor), data)
        return
    try:
        before = target.stat()
    except FileNotFoundError:
        before = None
    if before is not None and not stat.S_ISREG(before.st_mode):
        _write_in_place(target, data)
        return
    try:
        _replace(target, data, before)
    except OSError as error:
        if before is None or error.errno not in _FOLDER_REFUSES:
            raise
        _write_in_place(target, data)


def _target(path: Path) -> Path:
    """Where the links lead; a descriptor of a process (``/dev/stdout``) is not a name that could be replaced."""
    for _ in range(_MAX_LINKS):
        if not path.is_symlink() or _descriptor(path) is not None:
            return path
        path = path.parent / path.readlink()
    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(path))


def _descriptor(path: Path) -> int | None:
    """The number of our own descriptor that the path stands for, as ``/dev/stdout`` or ``/dev/fd/3``."""
    for _ in range(_MAX_LINKS):
        parent = Path(os.path.realpath(path.parent))
        if path.name.isdecimal() and parent in {Path("/dev/fd"), Path(f"/proc/{os.getpid()}/fd")}:
            return int(path.name)
        if not path.is_symlink():
            return None
        path = parent / path.readlink()
    return None


def _replace(target: Path, data: bytes, before: os.stat_result | None) -> None:
    handle, name = tempfile.mkstemp(prefix=".patrolserver-", dir=target.parent)
    try:
        if before is None:
            umask = os.umask(0)
            os.umask(umask)
            os.fchmod(handle, 0o666 & ~umask)
        else:
            # A root in a container must not take a user's file away; where it may not be given, it stays ours.
            with contextlib.suppress(OSError):
                os.fchown(handle, before.st_uid, before.st_gid)
            os.fchmod(handle, stat.S_IMODE(before.st_mode))
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        Path(name).replace(target)
    except BaseException:
        with contextlib.suppress(OSError):
            Path(name).unlink()
        raise


def _write_in_place(target: Path, data: bytes) -> None:
    _write_all(os.open(target, os.O_WRONLY | os.O_TRUNC), data)


def _write_all(handle: int, data: bytes) -> None:
    try:
        while data:
            data = data[os.write(handle, data) :]
    finally:
        os.close(handle)
