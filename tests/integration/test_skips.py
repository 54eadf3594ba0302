"""What a machine lacks is skipped, but not where CI=true says that nothing may be missing."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LACKING = """
import pytest

def test_that_wants_more(require_program):
    require_program("no-such-program")

def test_that_wants_what_no_ci_can_install():
    pytest.skip("not part of the repository: a tool")

@pytest.mark.xfail
def test_that_is_known_to_fail():
    assert False
"""


@pytest.mark.parametrize(("ci", "verdict"), [("", "2 skipped, 1 xfailed"), ("true", "1 failed, 1 skipped, 1 xfailed")])
def test_a_missing_program(tmp_path: Path, ci: str, verdict: str) -> None:
    """Reasons are shown in both cases; what CI cannot install is skipped in both, and an expected failure stays one."""
    (tmp_path / "test_lacking.py").write_text(LACKING)
    command = [sys.executable, "-m", "pytest", "-p", "tests.conftest", "-p", "no:cacheprovider", "-c", os.devnull]
    environ = {**os.environ, "CI": ci, "PYTHONPATH": str(ROOT)}
    environ.pop("PYTEST_ADDOPTS", None)
    ran = subprocess.run(
        [*command, "-rs", f"--rootdir={tmp_path}", str(tmp_path)],
        env=environ,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert verdict in ran.stdout, ran.stdout + ran.stderr
    assert "no-such-program is not installed" in ran.stdout
