"""The promise on power loss: the delivery is on disk before the 202 leaves."""

from __future__ import annotations

import re
import subprocess
from typing import TYPE_CHECKING

import pytest
from tests.harness.events import report
from tests.harness.fleet import wait_for_polls
from tests.harness.process import Exporter

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from patrolserver_exporter.simulator.server import Simulator

pytestmark = pytest.mark.promise("power-loss")

_CALLS = "fdatasync,fsync,read,recvfrom,recvmsg,pwrite64,write,writev,sendto,sendmsg"
_SYNCED = re.compile(r"f(data)?sync\(\d+<[^>]*/state\.db-wal>\)\s+= 0")
_SYNC_BEGUN = re.compile(r"^(\d+) .*f(data)?sync\(\d+<[^>]*/state\.db-wal> <unfinished")
_SYNC_RESUMED = re.compile(r"^(\d+) .*<\.\.\. f(data)?sync resumed>.*= 0")


@pytest.fixture
def strace(require_program: Callable[[str], str]) -> str:
    program = require_program("strace")
    if subprocess.run([program, "-f", "true"], capture_output=True, check=False).returncode != 0:
        pytest.skip("strace may not attach to processes here")
    return program


def test_the_delivery_is_synced_before_the_202_is_written(tmp_path: Path, simulator: Simulator, strace: str) -> None:
    """Between the POST and its 202, the write-ahead log is written and then synced."""
    trace = tmp_path / "trace"
    # With -D the exporter is our child, and not strace's.
    wrap = (strace, "-D", "-f", "-y", "-s", "64", "-e", f"trace={_CALLS}", "-o", str(trace))
    with Exporter.watching(tmp_path, simulator.base_url, interval="10m", settle="10m", wrap=wrap) as exporter:
        wait_for_polls(exporter, 5)
        for number in range(5):
            assert exporter.deliver(report(simulator, 1, f"pkg-{number}").id).status_code == 202
        assert exporter.terminate() == 0
    exchanges = _exchanges(trace.read_text(errors="replace").splitlines())
    assert len(exchanges) == 5
    for lines in exchanges:
        written = [place for place, line in enumerate(lines) if "pwrite64(" in line and "/state.db-wal>" in line]
        synced = _syncs(lines)
        assert written, "the delivery was not written before its 202"
        assert any(place > written[0] for place in synced), "the write was not synced before the 202"


def _exchanges(lines: list[str]) -> list[list[str]]:
    """The calls from the reading of each POST up to the writing of its 202."""
    found, begun = [], None
    for place, line in enumerate(lines):
        if "POST /webhook/" in line:
            begun = place
        elif "202 Accepted" in line and begun is not None:
            found.append(lines[begun:place])
            begun = None
    return found


def _syncs(lines: list[str]) -> list[int]:
    """Where a sync of the write-ahead log was complete."""
    done, begun = [], set()
    for place, line in enumerate(lines):
        if _SYNCED.search(line):
            done.append(place)
        elif match := _SYNC_BEGUN.match(line):
            begun.add(match[1])
        elif (match := _SYNC_RESUMED.match(line)) and match[1] in begun:
            done.append(place)
    return done
