"""The promise on a full disk: deliveries get a 503, everything that reads stays up, and it recovers by itself."""

from __future__ import annotations

import contextlib
import os
import subprocess
from typing import TYPE_CHECKING

import pytest
from tests.harness.events import report
from tests.harness.fleet import fleet_lines, wait_for_polls
from tests.harness.process import Exporter
from tests.harness.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from requests import Response

    from patrolserver_exporter.simulator.server import Simulator

pytestmark = pytest.mark.promise("disk-full", "store-away")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "disk"
    folder.mkdir()
    if os.geteuid() != 0:
        pytest.skip("only root may mount a small disk")
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("nothing may be mounted here")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def fill(folder: Path) -> Path:
    ballast = folder / "ballast"
    with contextlib.suppress(OSError), ballast.open("ab", buffering=0) as file:
        while True:
            file.write(bytes(4096))
    return ballast


def test_a_full_disk_refuses_deliveries_and_nothing_else(
    tmp_path: Path, small_disk: Path, simulator: Simulator
) -> None:
    """503 with Retry-After while the disk is full; metrics and health stay up; with room again all goes on."""
    store_url = f"sqlite:///{small_disk / 'state.db'}"
    with Exporter.watching(tmp_path, simulator.base_url, store_url=store_url, settle="10m") as exporter:
        wait_for_polls(exporter, 5)
        process = exporter.process
        ballast = fill(small_disk)
        # What the write-ahead log holds already can be written over, so it takes some deliveries to feel the disk.
        (refused,) = eventually(lambda: _refused(exporter, simulator), what="the first 503")
        assert int(refused.headers["retry-after"]) > 0
        assert refused.headers["content-type"] == "application/problem+json"
        assert exporter.get("/-/healthy").status_code == 200
        eventually(lambda: exporter.get("/-/ready").ok, within=10.0, what="readiness")
        assert "The store cannot write" in exporter.get("/-/ready").text
        assert exporter.value("patrolserver_exporter_store_writable") == 0.0
        assert len(fleet_lines(exporter.metrics())) > 5
        assert exporter.value(
            "patrolserver_exporter_webhook_deliveries_total",
            identifier="webhook.new_server_issues",
            outcome="failed",
        )
        assert "The store cannot commit" in exporter.log()
        errors = "patrolserver_exporter_errors_total"
        eventually(lambda: exporter.value(errors, component="store"), what="an error of the store")
        assert exporter.value(errors, component="poller") == 0.0
        assert exporter.value(errors, component="worker") == 0.0

        ballast.unlink()
        event = report(simulator, 2, "after-the-flood")
        eventually(lambda: exporter.deliver(event.id).status_code == 202, what="room for a delivery")
        eventually(
            lambda: (
                "Traceback" in exporter.log()
                or exporter.value("patrolserver_exporter_inbox_deliveries", state="received") == 0.0
            ),
            what="the delivery's effect",
        )
        wait_for_polls(exporter, 5, after=event.at)
        eventually(lambda: exporter.value("patrolserver_exporter_store_writable") == 1.0, what="a store that writes")
        assert "The store cannot write" not in exporter.get("/-/ready").text
        assert exporter.process is process
        assert process is not None
        assert process.poll() is None
        assert "Traceback" not in exporter.log()
        assert exporter.terminate() == 0
        exporter.start()
        assert exporter.value("patrolserver_exporter_inbox_deliveries", state="fetching") in {0.0, None}


def _refused(exporter: Exporter, simulator: Simulator) -> list[Response]:
    response = exporter.deliver(report(simulator, 1, f"pkg-{len(simulator.world.outbox)}").id)
    return [response] if response.status_code == 503 else []
