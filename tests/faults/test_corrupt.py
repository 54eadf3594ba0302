"""The promise on a damaged state file: found at the start, never shown, never overwritten, and a way out of it."""

from __future__ import annotations

import contextlib
import logging
import random
import shutil
import sqlite3
from typing import TYPE_CHECKING

import pytest
import sqlalchemy as sa
from tests.harness.events import report
from tests.harness.fleet import total, wait_for_polls
from tests.harness.process import Exporter
from tests.harness.promises import measured
from tests.harness.sizes import FULL, LONGEST
from tests.harness.waiting import eventually

from patrolserver_exporter.simulator.options import SimulatorOptions
from patrolserver_exporter.simulator.server import Simulator
from patrolserver_exporter.store import Store, StoreCorrupt
from patrolserver_exporter.store.tables import issues, metadata

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

pytestmark = [pytest.mark.promise("corrupt"), pytest.mark.timeout(LONGEST)]

log = logging.getLogger(__name__)

COPIES = 100 if FULL else 20
FLIPS = 10_000 if FULL else 200
STARTS = 100 if FULL else 4


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


def shown(file: Path) -> dict[str, list[str]]:
    """All that the state says; ``StoreCorrupt`` if it cannot be trusted."""

    def work(connection: sa.Connection) -> dict[str, list[str]]:
        # Who has it open is another one each time.
        kept = [table for table in metadata.sorted_tables if table.name not in {"leases", "sums"}]
        return {table.name: sorted(map(repr, connection.execute(sa.select(table)).all())) for table in kept}

    with Store(f"sqlite:///{file}") as store:
        return store.read(work)


def fingerprints(file: Path) -> set[tuple[int, str]]:
    """The issues of the state, by server."""
    query = sa.select(issues.c.server_id, issues.c.fingerprint)
    with Store(f"sqlite:///{file}") as store:
        return {(row[0], row[1]) for row in store.read(lambda connection: connection.execute(query).all())}


def test_no_flipped_bit_passes_after_a_clean_stop(tmp_path: Path, folders: dict[str, Path]) -> None:
    """One bit flipped in each of many copies: each is refused, and the file is left as it is."""
    chance = random.Random(1)
    for number in range(COPIES):
        file = copied(folders["stopped"], tmp_path / str(number))
        flip(file, chance)
        before = file.read_bytes()
        with pytest.raises(StoreCorrupt, match=r"state\.db is damaged"):
            Store(f"sqlite:///{file}")
        assert file.read_bytes() == before


def test_no_flipped_bit_passes_in_silence_after_a_kill(
    tmp_path: Path, folders: dict[str, Path], request: pytest.FixtureRequest
) -> None:
    """A bit flipped in the database, its log, its index or its marks: it is refused, or all is as it was."""
    sound = shown(copied(folders["killed"], tmp_path / "sound"))
    chance = random.Random(2)
    refused = harmless = 0
    told: set[bool] = set()
    target = tmp_path / "copy"
    for number in range(FLIPS):
        file = copied(folders["killed"], target)
        parts = sorted(path for path in target.iterdir() if path != file)
        flip(file if number % 2 else chance.choice(parts), chance)
        before = file.read_bytes()
        try:
            found = shown(file)
        except StoreCorrupt as error:
            refused += 1
            told.add("--store.rebuild" in str(error))
            assert file.read_bytes() == before
        else:
            harmless += 1
            assert found == sound, f"flip {number} passed in silence"
        shutil.rmtree(target)
    log.info("%d flips: %d refused, %d harmless, 0 silent", FLIPS, refused, harmless)
    measured(request.node, sent=FLIPS, lost=0, bound=f"{refused} refused, {harmless} harmless")
    assert told == {True}
    assert harmless


def test_no_flipped_bit_passes_in_silence_when_the_exporter_starts(
    tmp_path: Path, simulator: Simulator, folders: dict[str, Path]
) -> None:
    """The same with real starts: exit code 3 and what to do, or the same state; never a traceback."""
    sound = fingerprints(copied(folders["killed"], tmp_path / "sound"))
    chance = random.Random(5)
    for number in range(STARTS):
        folder = tmp_path / str(number)
        file = copied(folders["killed"], folder)
        flip(file.with_name("state.db-wal") if number % 3 == 2 else file, chance)
        exporter = Exporter.watching(folder, simulator.base_url, "--once", interval="10m")
        exporter.start(wait=False)
        code = exporter.wait()
        assert "Traceback" not in exporter.log()
        if code == 3:
            assert "--store.rebuild" in exporter.log()
            continue
        assert code == 0, exporter.log()
        assert fingerprints(file) == sound
        shutil.rmtree(folder)


def without_issues(file: Path) -> None:
    outside(file, "DELETE FROM issues")


def without_a_server(file: Path) -> None:
    outside(file, "DELETE FROM servers WHERE server_id = 3")


def with_a_later_poll(file: Path) -> None:
    outside(file, "UPDATE servers SET next_poll_at = next_poll_at + 1e6 WHERE server_id = 3")


def without_an_index(file: Path) -> None:
    outside(file, "DROP INDEX ix_inbox_due")


def without_sums(file: Path) -> None:
    outside(file, "DROP TABLE sums")


def with_ids_that_were_given(file: Path) -> None:
    outside(file, "UPDATE sqlite_sequence SET seq = 0 WHERE name = 'changes'")


def without_its_log(file: Path) -> None:
    file.with_name("state.db-wal").unlink()
    file.with_name("state.db-shm").unlink()


def without_the_end_of_its_log(file: Path) -> None:
    log_file = file.with_name("state.db-wal")
    # The last page of it: one commit less.
    log_file.write_bytes(log_file.read_bytes()[:-4096])


def emptied(file: Path) -> None:
    file.write_bytes(b"")
    without_its_log(file)


def outside(file: Path, statement: str) -> None:
    """Change the state behind the exporter's back."""
    with contextlib.closing(sqlite3.connect(file)) as connection:
        connection.execute(statement)
        connection.commit()


@pytest.mark.parametrize(
    "damage",
    [
        *(without_issues, without_a_server, with_a_later_poll, without_an_index, without_sums),
        *(with_ids_that_were_given, without_its_log, without_the_end_of_its_log, emptied),
    ],
)
def test_what_is_missing_after_a_kill_is_found(
    tmp_path: Path, folders: dict[str, Path], damage: Callable[[Path], None]
) -> None:
    """Rows, commits, indexes, sums: what is lost or was changed by others is refused, and the cure is said."""
    file = copied(folders["killed"], tmp_path / "state")
    damage(file)
    with pytest.raises(StoreCorrupt, match=r"state\.db is damaged: .*\. .*--store\.rebuild"):
        Store(f"sqlite:///{file}")


def test_a_backup_takes_the_place_of_a_killed_state(tmp_path: Path, folders: dict[str, Path]) -> None:
    """As the manual says: without log and marks a copy is taken, as one that may be old; with them it is refused."""
    file = copied(folders["killed"], tmp_path / "state")
    backup = copied(folders["stopped"], tmp_path / "backup")
    without_its_log(file)
    shutil.copy(backup, file)
    with pytest.raises(StoreCorrupt, match=r"is another state.*remove state\.db\.sum"):
        Store(f"sqlite:///{file}")
    file.with_name("state.db.sum").unlink()
    restored, kept = shown(file), shown(backup)
    assert {name for name in kept if restored[name] != kept[name]} == {"catch_ups", "feed"}
    assert restored["issues"]


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
