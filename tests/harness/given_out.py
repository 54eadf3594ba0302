"""What is given out, built once for all tests that only use it."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Mapping

ROOT = Path(__file__).parents[2]
EPOCH = 1_790_000_000


def build(folder: Path, *parts: str, umask: int = 0o022) -> Mapping[str, str]:
    """Build it as `make dist` does, or these parts of it, into the folder; returns the sums by name."""
    ended = subprocess.run(
        [sys.executable, "-m", "scripts.distribution", str(folder), *parts],
        cwd=ROOT,
        env={**os.environ, "SOURCE_DATE_EPOCH": str(EPOCH)},
        capture_output=True,
        text=True,
        check=False,
        umask=umask,
    )
    assert ended.returncode == 0, ended.stderr
    lines = (folder / "SHA256SUMS").read_text().splitlines()
    return {name: digest for digest, name in (line.split("  ") for line in lines)}


def built(factory: pytest.TempPathFactory) -> Path:
    """The folder with all of it, which the workers of a run share."""
    if shutil.which("dpkg-deb") is None:
        pytest.skip("dpkg-deb is not installed")
    base = factory.getbasetemp()
    # A worker's folder lies in that of the run.
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "given-out"
    with folder.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "SHA256SUMS").exists() or not (folder / "SHA256SUMS").stat().st_size:
            build(folder)
    return folder
