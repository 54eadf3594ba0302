"""A host that no name server knows is called that, wherever it is written."""

from __future__ import annotations

import subprocess
import sys

import pytest

HOST = "no-such-host.invalid"


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        ([f"--web.listen-address={HOST}:1"], 1),
        (["--web.listen-address=127.0.0.1:0", f"--webhook.listen-address={HOST}:1"], 1),
        (["simulator", f"--web.listen-address={HOST}:1"], 1),
        (["demo", f"--simulator.listen-address={HOST}:1"], 1),
        (["demo", f"--web.listen-address={HOST}:1"], 1),
        (["gate", "web", f"--exporter-url=http://{HOST}"], 4),
        (["inbox", "list", f"--exporter-url=http://{HOST}"], 1),
    ],
)
def test_it_is_told(arguments: list[str], code: int, tmp_path: object) -> None:
    """Rather than an address that is taken, or an exporter that does not run."""
    ended = subprocess.run(
        [sys.executable, "-m", "patrolserver_exporter", *arguments],
        env={"PATROLSERVER_KEY": "k", "PATROLSERVER_SECRET": "s"},
        cwd=str(tmp_path),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode == code
    assert "cannot be resolved" in ended.stdout + ended.stderr
    assert HOST in ended.stdout + ended.stderr
    assert "Traceback" not in ended.stderr


@pytest.mark.parametrize("command", ["simulator", "demo"])
def test_a_reader_that_has_enough_ends_nothing_badly(command: str) -> None:
    """``demo | head`` runs on until it is told to stop."""
    shell = 'timeout -s INT 6 "$@" | head -1; exit "${PIPESTATUS[0]}"'
    flags = ["--web.listen-address=127.0.0.1:0", "--story", "--servers=2"]
    program = [sys.executable, "-m", "patrolserver_exporter", command, *flags]
    ended = subprocess.run(
        ["bash", "-c", shell, "-", *program], capture_output=True, text=True, timeout=60, check=False
    )
    assert ended.returncode in {0, 124}
    assert "Traceback" not in ended.stderr
