"""Programs of tests in environments of their own: what they need must not decide what the product is tested with."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def locked_program(name: str, lock: str) -> Path:
    """A program of the versions of ``requirements/LOCK.txt``, kept for as long as that stays the same."""
    file = ROOT / "requirements" / f"{lock}.txt"
    key = hashlib.sha256(file.read_bytes() + sys.version.encode()).hexdigest()[:16]
    folder = ROOT / "build" / f"{lock}-{key}"
    program = folder / "bin" / name
    if not program.exists():
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder)], check=True)
        pip = [str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet", "--require-hashes"]
        installed = subprocess.run([*pip, "-r", str(file)], check=False, capture_output=True, text=True)
        if installed.returncode != 0:
            pytest.skip(f"{name} cannot be installed: {installed.stderr[-500:]}")
    return program
