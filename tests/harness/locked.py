"""Programs of tests in environments of their own: what they need must not decide what the product is tested with."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def locked_program(name: str, lock: str) -> Path:
    """A program of the versions of ``requirements/LOCK.txt``, kept for as long as that stays the same."""
    folder = ROOT / "build" / lock
    make: list[str | Path] = [ROOT / "scripts" / "locked-env", folder, f"requirements/{lock}.txt", sys.executable]
    made = subprocess.run(make, check=False, capture_output=True, text=True)
    if made.returncode != 0:
        pytest.skip(f"{name} cannot be installed: {made.stderr[-500:]}")
    return folder / "bin" / name
