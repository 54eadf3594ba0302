"""The files that a configuration is in or names."""

from __future__ import annotations

import stat
from typing import TYPE_CHECKING

from patrolserver_exporter.config.problem import Unfit

if TYPE_CHECKING:
    from pathlib import Path


def read_file(path: Path, max_bytes: int, named_by: str = "the path") -> bytes:
    """Return the file's content, and raise `Unfit` where there is none; ``named_by`` tells where the path is given."""
    try:
        with path.open("rb") as file:
            raw = file.read(max_bytes + 1)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not a path"
        raise Unfit(f"cannot be read ({reason}); correct {named_by}, or let the exporter's user read it") from None
    if len(raw) > max_bytes:
        raise Unfit(f"is over {max_bytes} bytes; correct {named_by}, or shorten the file")
    return raw


def is_world_readable(path: Path) -> bool:
    """Whether every user of the machine may read the file; False when it cannot be told."""
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError):
        return False
    return stat.S_ISREG(mode) and bool(mode & stat.S_IROTH)
