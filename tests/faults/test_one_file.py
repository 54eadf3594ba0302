"""The promise on one state file: one process uses it, under whatever name, and notices when it is gone."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from typing import TYPE_CHECKING

import pytest
import requests
from tests.harness.fleet import wait_for_polls
from tests.harness.process import Exporter
from tests.harness.waiting import eventually

from patrolserver_exporter.simulator.options import SimulatorOptions
from patrolserver_exporter.simulator.server import Simulator

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

pytestmark = pytest.mark.promise("one-file")


@pytest.fixture(scope="module")
def simulator() -> Iterator[Simulator]:
    with Simulator(SimulatorOptions(listen_address="127.0.0.1:0", servers=3, software=4)) as running:
        yield running


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory, simulator: Simulator) -> Iterator[Exporter]:
    """One that nothing happens to."""
    with Exporter.watching(tmp_path_factory.mktemp("running"), simulator.base_url) as exporter:
        wait_for_polls(exporter, 3)
        yield exporter


@pytest.fixture
def exporter(tmp_path: Path, simulator: Simulator) -> Iterator[Exporter]:
    (tmp_path / "first").mkdir()
    with Exporter.watching(tmp_path / "first", simulator.base_url) as running:
        wait_for_polls(running, 3)
        yield running


def by_its_own_path(file: Path, _: Path) -> Path:
    return file


def by_a_symlink(file: Path, folder: Path) -> Path:
    (folder / "linked.db").symlink_to(file)
    return folder / "linked.db"


def by_a_hard_link(file: Path, folder: Path) -> Path:
    os.link(file, folder / "hard.db")
    return folder / "hard.db"


def without_its_lock(file: Path, _: Path) -> Path:
    file.with_name("state.db.lock").unlink()
    return file


@pytest.mark.parametrize(
    ("reach", "flags"),
    [
        (by_its_own_path, ()),
        (by_a_symlink, ()),
        (by_a_hard_link, ()),
        (by_a_hard_link, ("--store.rebuild",)),
        (without_its_lock, ("--store.rebuild",)),
        (without_its_lock, ()),
    ],
)
def test_a_second_process_is_refused(
    tmp_path: Path,
    simulator: Simulator,
    running: Exporter,
    reach: Callable[[Path, Path], Path],
    flags: tuple[str, ...],
) -> None:
    """Exit code 3 and whom to stop; the first one goes on."""
    folder = tmp_path / "second"
    folder.mkdir()
    file = reach(running.folder / "state.db", folder)
    second = Exporter.watching(folder, simulator.base_url, *flags, store_url=f"sqlite:///{file}")
    second.start(wait=False)
    assert second.wait() == 3
    assert "is in use by another patrolserver-exporter" in second.log()
    assert "Traceback" not in second.log()
    assert running.deliver(1).status_code == 202


_BACKUP = """\
import sqlite3, sys
with sqlite3.connect(sys.argv[1]) as source, sqlite3.connect(sys.argv[2]) as target:
    source.backup(target)
"""


def test_a_backup_is_made_while_it_runs(tmp_path: Path, simulator: Simulator, running: Exporter) -> None:
    """Another program reads the file under SQLite's own locks, and the copy is a whole state of its own."""
    copy = tmp_path / "copy.db"
    for number in range(1, 4):
        copy.unlink(missing_ok=True)
        command = [sys.executable, "-c", _BACKUP, str(running.folder / "state.db"), str(copy)]
        assert subprocess.run(command, check=False, timeout=30).returncode == 0
        assert running.deliver(number).status_code == 202
    with closing(sqlite3.connect(running.folder / "state.db")) as other, pytest.raises(sqlite3.OperationalError):
        # The exporter's locks are still there: nobody may take the log away.
        other.execute("PRAGMA journal_mode=DELETE")
    folder = tmp_path / "restored"
    folder.mkdir()
    with Exporter.watching(folder, simulator.base_url, store_url=f"sqlite:///{copy}") as restored:
        assert restored.value("patrolserver_servers", account="main") == 3


def removed(file: Path, aside: Path) -> None:
    file.rename(aside)


def replaced(file: Path, aside: Path) -> None:
    file.rename(aside)
    file.touch()


@pytest.mark.parametrize("lose", [removed, replaced])
def test_a_file_that_goes_away_stops_deliveries(
    tmp_path: Path, exporter: Exporter, lose: Callable[[Path, Path], None]
) -> None:
    """What nobody could keep is not acknowledged: 503, the gate does not pass, and it is told; put back, it goes on."""
    assert exporter.deliver(1).status_code == 202
    file, aside = exporter.folder / "state.db", tmp_path / "aside.db"

    def asks_the_gate() -> requests.Response:
        url = f"{exporter.url}/api/v1/gate"
        return requests.post(url, json={"servers": ["*"]}, headers=exporter.operator, timeout=20)

    assert asks_the_gate().status_code == 200
    lose(file, aside)
    refused = exporter.deliver(2)
    assert refused.status_code == 503
    assert asks_the_gate().status_code == 503
    eventually(lambda: exporter.value("patrolserver_exporter_store_writable") == 0, what="the metric")
    assert f"{file} was re" in exporter.get("/-/ready").text
    assert "while the exporter uses it" in exporter.log()
    aside.rename(file)
    eventually(lambda: exporter.deliver(2).status_code == 202, what="another delivery")
    eventually(lambda: asks_the_gate().status_code == 200, what="the gate")
    assert exporter.terminate() == 0


@pytest.fixture
def linked(tmp_path: Path, simulator: Simulator) -> Iterator[Exporter]:
    """Its state file is elsewhere, and in its folder stands a link."""
    (tmp_path / "linked").mkdir()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "linked" / "state.db").symlink_to("../elsewhere/kept.db")
    with Exporter.watching(tmp_path / "linked", simulator.base_url) as running:
        wait_for_polls(running, 3)
        yield running


@pytest.mark.parametrize("lost", ["linked/state.db", "elsewhere/kept.db", "elsewhere/kept.db-wal"])
def test_a_file_behind_a_link_goes_away_as_one_without(tmp_path: Path, linked: Exporter, lost: str) -> None:
    """Link, file or log: what nobody could keep is not acknowledged."""
    assert linked.deliver(1).status_code == 202
    (tmp_path / lost).rename(tmp_path / "aside")
    assert linked.deliver(2).status_code == 503
    (tmp_path / "aside").rename(tmp_path / lost)
    eventually(lambda: linked.deliver(2).status_code == 202, what="another delivery")


def test_what_a_killed_file_behind_a_link_lost_is_found_and_set_aside(tmp_path: Path, linked: Exporter) -> None:
    """All that belongs to it lies beside the file itself, and `--store.rebuild` moves it; the link stays."""
    assert linked.deliver(1).status_code == 202
    linked.kill()
    elsewhere = tmp_path / "elsewhere"
    (elsewhere / "kept.db-wal").unlink()
    linked.start(wait=False)
    assert linked.wait() == 3
    assert "it lacks the last" in linked.log()
    linked.flags += ("--store.rebuild",)
    linked.start()
    assert sum(file.name.startswith("kept.db.set-aside-") for file in elsewhere.iterdir()) >= 2
    assert (tmp_path / "linked" / "state.db").is_symlink()
    assert sorted(file.name for file in (tmp_path / "linked").glob("state.db*")) == ["state.db", "state.db.lock"]
    assert linked.deliver(2).status_code == 202


def test_nothing_is_written_beside_a_file_that_took_its_place(tmp_path: Path, exporter: Exporter) -> None:
    """The exporter ends without a word about a file that is not its own: no digest, and no log of it is removed."""
    file = exporter.folder / "state.db"
    file.rename(tmp_path / "aside.db")
    file.write_bytes(b"another")
    marks = file.with_name("state.db.sum").read_bytes()
    assert exporter.terminate() == 0
    assert file.read_bytes() == b"another"
    assert file.with_name("state.db.sum").read_bytes()[:7] == marks[:7] == b"commits"
