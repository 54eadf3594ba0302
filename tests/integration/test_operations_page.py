"""docs/operations.md: its commands for backup and restore, as they stand there, on both kinds of state."""

from __future__ import annotations

import getpass
import grp
import os
import re
import subprocess
from typing import TYPE_CHECKING

import pytest
from tests.harness.fleet import LAST_POLL, fleet_lines, wait_for_polls
from tests.harness.page_blocks import block
from tests.harness.process import Exporter
from tests.harness.waiting import eventually

from patrolserver_exporter.simulator.options import SimulatorOptions
from patrolserver_exporter.simulator.server import Simulator

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

SERVERS = 3
KINDS = {
    "sqlite": ("sqlite back up", "sqlite restore"),
    "postgresql": ("postgresql back up", "postgresql restore"),
}


class Operator:
    """Types what the page says, on a machine whose folders and user are called otherwise."""

    def __init__(self, exporter: Exporter, database: str) -> None:
        self._exporter = exporter
        self._environ = {**os.environ, "DATABASE": database.replace("+psycopg", "")}
        self._backups = exporter.folder / "backups"
        self._backups.mkdir()

    def types(self, name: str) -> str:
        """Run a block; what it printed. systemd's part is done by the test."""
        text = (
            block(name)
            .commands.replace("/var/lib/patrolserver-exporter", str(self._exporter.folder))
            .replace("/var/backups", str(self._backups))
            .replace("-o patrolserver-exporter", f"-o {getpass.getuser()}")
            .replace("-g patrolserver-exporter", f"-g {grp.getgrgid(os.getgid()).gr_name}")
        )
        printed = ""
        for part in re.split(r"^(systemctl \w+ patrolserver-exporter)\n", text, flags=re.MULTILINE):
            match part.split()[:2]:
                case ["systemctl", "stop"]:
                    assert self._exporter.terminate() == 0
                case ["systemctl", "start"]:
                    self._exporter.start()
                case _:
                    printed += self._shell(part.replace("http://127.0.0.1:10058", self._exporter.url))
        return printed

    def _shell(self, text: str) -> str:
        command = ["bash", "-e", "-c", text]
        done = subprocess.run(command, env=self._environ, capture_output=True, text=True, check=False, timeout=60)
        assert done.returncode == 0, f"{text}{done.stdout}{done.stderr}"
        return done.stdout


@pytest.mark.parametrize("kind", KINDS)
def test_what_was_backed_up_is_back(
    tmp_path: Path, kind: str, request: pytest.FixtureRequest, require_program: Callable[[str], str]
) -> None:
    """After a restore the series are those of the backup, as old as they were, and nobody vouches for them."""
    back_up, restore = KINDS[kind]
    require_program("sqlite3" if kind == "sqlite" else "pg_restore")
    url = f"sqlite:///{tmp_path}/patrolserver.db"
    if kind == "postgresql":
        url = request.getfixturevalue("postgres").create_database()
    simulator = Simulator(SimulatorOptions(listen_address="127.0.0.1:0", servers=SERVERS))
    with simulator, Exporter.watching(tmp_path, simulator.base_url, store_url=url, interval="2s") as exporter:
        operator = Operator(exporter, url)
        wait_for_polls(exporter, SERVERS)
        first_seen = {one["fingerprint"]: one["first_seen"] for one in issues(exporter)}
        before = exporter.samples(LAST_POLL)
        printed = operator.types(back_up)
        assert printed == ("ok\n" if kind == "sqlite" else "")
        after = exporter.samples(LAST_POLL)
        cursor = exporter.get("/api/v1/changes?after=latest").json()["next_cursor"]
        wait_for_polls(exporter, SERVERS, after=max(after.values()))
        simulator.stop()
        assert operator.types(restore)
        back = exporter.samples(LAST_POLL)
        assert before.keys() == back.keys()
        assert all(before[server] <= at <= after[server] for server, at in back.items())
        assert fleet_lines(exporter.metrics())
        assert {one["fingerprint"]: one["first_seen"] for one in issues(exporter)} == first_seen
        eventually(
            lambda: exporter.value("patrolserver_account_servers_affected", severity="unknown") == SERVERS,
            what="nobody vouching for any of them",
        )
        assert exporter.get(f"/api/v1/changes?after={cursor}").status_code == 410


def issues(exporter: Exporter) -> list[dict[str, str]]:
    answer = exporter.get("/api/v1/issues?limit=1000")
    assert answer.status_code == 200
    found: list[dict[str, str]] = answer.json()["items"]
    assert found
    return found
