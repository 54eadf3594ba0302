"""The system's clock as one process alone sees it, by libfaketime."""

from __future__ import annotations

from pathlib import Path


class FakedClock:
    """Set by a test; the monotonic clock goes on as it is. ``environ`` is for the process that shall see it."""

    def __init__(self, library: Path, file: Path) -> None:
        self._file = file
        self.set(0.0)
        self.environ = {
            "LD_PRELOAD": str(library),
            "FAKETIME_TIMESTAMP_FILE": str(file),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            # Its fix for older C libraries ends waits on the monotonic clock at once: threads that want the GIL spin.
            "FAKETIME_FORCE_MONOTONIC_FIX": "0",
        }

    def set(self, seconds: float) -> None:
        """Set it so many seconds off."""
        self.offset = seconds
        new = self._file.with_suffix(".new")
        new.write_text(f"{seconds:+.1f}\n")
        new.replace(self._file)


def faked_clock(folder: Path) -> FakedClock | None:
    """A clock that is right as yet; ``None`` where libfaketime is not installed."""
    found = sorted(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))
    return FakedClock(found[0], folder / "faketime") if found else None
