"""The promise on a damaged state file: found at the start, never shown, never overwritten, and a way out of it."""

from __future__ import annotations

import logging
import random
import shutil
from typing import TYPE_CHECKING

import pytest
import sqlalchemy as sa
from tests.harness.events import report
from tests.harness.fleet import total, wait_for_polls
from tests.harness.process import Exporter
from tests.harness.waiting import eventually

from patrolserver_exporter.simulator.options import SimulatorOptions
from patrolserver_exporter.simulator.server import Simulator
from patrolserver_exporter.store import Store, StoreCorrupt
from patrolserver_exporter.store.tables import issues, servers

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

pytestmark = pytest.mark.promise("corrupt")

log = logging.getLogger(__name__)

COPIES = 100
_DOCUMENTS = (servers.c.state, servers.c.summary, servers.c.software, issues.c.document)


@pytest.fixture(scope="module")
def simulator() -> Iterator[Simulator]:
    with Simulator(SimulatorOptions(listen_address="127.0.0.1:0", servers=20, software=8)) as running:
        yield running


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory, simulator: Simulator) -> dict[str, Path]:
    """State as a clean stop leaves it, and as a ``kill -9`` after a restart does."""
    found = {}
    for end in ("stopped", "killed"):
        folder = found[end] = tmp_path_factory.mktemp(end)
        with Exporter.watching(folder, simulator.base_url, interval="10m", settle="10m") as exporter:
            wait_for_polls(exporter, 20)
            _take(exporter, report(simulator, 1, "surprising").id, so_far=1)
            assert exporter.terminate() == 0
            if end == "killed":
                exporter.start()
                _take(exporter, report(simulator, 2, "astonishing").id, so_far=2)
    return found


def _take(exporter: Exporter, event_id: int, *, so_far: int) -> None:
    assert exporter.deliver(event_id).status_code == 202
    eventually(
        lambda: total(exporter.metrics(), "patrolserver_exporter_inbox_deliveries", state="applied") == so_far,
        what="the event's effect",
    )


def copied(source: Path, target: Path) -> Path:
    """A state file and its companions, in a folder of its own."""
    target.mkdir()
    for path in source.glob("state.db*"):
        if path.suffix != ".lock":
            shutil.copy(path, target)
    return target / "state.db"


def flip(path: Path, chance: random.Random, count: int = 1) -> None:
    """Turn over bits of a file."""
    content = bytearray(path.read_bytes())
    for _ in range(count):
        content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
    path.write_bytes(content)


def documents(file: Path) -> list[object]:
    """What the state says of servers and issues; ``StoreCorrupt`` if it cannot be trusted."""
    with Store(f"sqlite:///{file}") as store:
        return store.run(
            lambda unit: [
                row for column in _DOCUMENTS for row in unit.connection.execute(sa.select(column)).scalars().all()
            ]
        )


def test_no_flipped_bit_passes_after_a_clean_stop(tmp_path: Path, folders: dict[str, Path]) -> None:
    """One bit flipped in each of 100 copies: each is refused, and the file is left as it is."""
    chance = random.Random(1)
    for number in range(COPIES):
        file = copied(folders["stopped"], tmp_path / str(number))
        flip(file, chance)
        before = file.read_bytes()
        with pytest.raises(StoreCorrupt, match=r"state\.db is damaged"):
            Store(f"sqlite:///{file}")
        assert file.read_bytes() == before


def test_no_flipped_bit_shows_other_data_after_a_kill(tmp_path: Path, folders: dict[str, Path]) -> None:
    """Without a digest, 100 flips in the database and its log are found, undone, or touch nothing of the fleet."""
    sound = documents(copied(folders["killed"], tmp_path / "sound"))
    chance, found = random.Random(2), 0
    for number in range(COPIES):
        file = copied(folders["killed"], tmp_path / str(number))
        flip(file.with_name("state.db-wal") if number % 2 else file, chance)
        before = file.read_bytes()
        try:
            shown = documents(file)
        except StoreCorrupt:
            found += 1
            assert file.read_bytes() == before
            continue
        # A torn end of the log is what a power loss leaves: SQLite goes back to the last commit before it.
        assert number % 2 or shown == sound
    log.info("%d of %d flips were refused", found, COPIES)
    assert found


def truncated(file: Path) -> None:
    with file.open("r+b") as opened:
        opened.truncate(file.stat().st_size // 2)


def garbage(file: Path) -> None:
    file.write_bytes(random.Random(3).randbytes(20_000))


def one_bit(file: Path) -> None:
    flip(file, random.Random(4))


@pytest.mark.parametrize(
    ("end", "damage"),
    # After a kill a single bit may lie where nothing is stored; the runs above are about that.
    [("stopped", one_bit), ("stopped", truncated), ("killed", truncated), ("killed", garbage)],
)
def test_the_exporter_refuses_a_damaged_file_and_builds_it_anew_when_told(
    tmp_path: Path, simulator: Simulator, folders: dict[str, Path], end: str, damage: Callable[[Path], None]
) -> None:
    """Exit code 3 and the ways out, the file untouched; --store.rebuild sets it aside and asks the API."""
    file = copied(folders[end], tmp_path / "state")
    damage(file)
    before = file.read_bytes()
    store_url = f"sqlite:///{file}"
    exporter = Exporter.watching(tmp_path, simulator.base_url, store_url=store_url)
    exporter.start(wait=False)
    assert exporter.wait() == 3
    assert "is damaged" in exporter.log()
    assert "--store.rebuild" in exporter.log()
    assert "Traceback" not in exporter.log()
    assert file.read_bytes() == before

    with Exporter.watching(tmp_path, simulator.base_url, "--store.rebuild", store_url=store_url) as rebuilt:
        wait_for_polls(rebuilt, 20)
        (aside,) = file.parent.glob("state.db.set-aside-*Z")
        assert aside.read_bytes() == before


def test_rebuilding_leaves_a_sound_file_alone(tmp_path: Path, simulator: Simulator, folders: dict[str, Path]) -> None:
    """--store.rebuild does nothing to state that is sound, so it may stay in a unit file by mistake."""
    file = copied(folders["stopped"], tmp_path / "state")
    store_url = f"sqlite:///{file}"
    with Exporter.watching(tmp_path, simulator.base_url, "--store.rebuild", store_url=store_url) as exporter:
        assert total(exporter.metrics(), "patrolserver_issues_opened_total") > 1.0
    assert list(file.parent.glob("*set-aside*")) == []
