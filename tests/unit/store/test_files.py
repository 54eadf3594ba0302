from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from patrolserver_exporter.store import Store, files, why_unusable
from patrolserver_exporter.store.errors import StoreCorrupt, StoreLocked, StoreUnavailable

_HOLDER = """\
import sys, pathlib
from patrolserver_exporter.store.files import FileLock
FileLock(pathlib.Path(sys.argv[1])).acquire("It")
print("held", flush=True)
sys.stdin.read()
"""


_CRASH = """\
import os, sys
from patrolserver_exporter.store import Store
from patrolserver_exporter.store.tables import accounts
Store(f"sqlite:///{sys.argv[1]}").run(lambda unit: unit.connection.execute(accounts.insert().values(name="main")))
os._exit(9)
"""


def test_a_second_process_is_told_who_holds_the_file(tmp_path: Path) -> None:
    """The lock keeps another process out, says which one has it and what to do, and ends with the process."""
    database = tmp_path / "state.db"
    with subprocess.Popen(
        [sys.executable, "-c", _HOLDER, str(database)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(
            StoreLocked, match=rf"state\.db is in use by another .*\(process {holder.pid}\).*store\.url"
        ):
            files.FileLock(database).acquire(f"The state file {database}")
        holder.kill()
        holder.wait(30)
    with files.FileLock(database):
        pass


def test_the_state_is_its_owners_alone(tmp_path: Path) -> None:
    """Whatever the umask lets through, nobody else reads the database, its log, its lock or its digest."""
    umask = os.umask(0)
    try:
        with Store(f"sqlite:///{tmp_path / 'state.db'}"):
            names = {path.name: stat.filemode(path.stat().st_mode) for path in tmp_path.iterdir()}
        names |= {path.name: stat.filemode(path.stat().st_mode) for path in tmp_path.iterdir()}
    finally:
        os.umask(umask)
    expected = ("", "-wal", "-shm", ".lock", ".sum")
    assert names == {f"state.db{end}": "-rw-------" for end in expected}


def test_a_digest_does_not_outlive_its_file(tmp_path: Path) -> None:
    """Who removes the database alone starts again, and a crash after that is not taken for damage."""
    database = tmp_path / "state.db"
    Store(f"sqlite:///{database}").close()
    assert (tmp_path / "state.db.sum").exists()
    database.unlink()
    crashed = subprocess.run([sys.executable, "-c", _CRASH, str(database)], check=False)
    assert crashed.returncode == 9
    with Store(f"sqlite:///{database}"):
        pass


def test_a_mode_that_an_operator_gave_stays(tmp_path: Path) -> None:
    """A group that makes backups keeps its right to read."""
    database = tmp_path / "state.db"
    database.touch(0o600)
    database.chmod(0o640)
    with Store(f"sqlite:///{database}"):
        assert stat.filemode(database.stat().st_mode) == "-rw-r-----"


def test_a_missing_folder_is_told_of_and_not_made(tmp_path: Path) -> None:
    """A mistyped path begins no second, empty state."""
    with pytest.raises(StoreUnavailable, match=r"The folder .*/mistyped of the state file state\.db does not exist"):
        Store(f"sqlite:///{tmp_path / 'mistyped' / 'state.db'}")
    assert not list(tmp_path.iterdir())


def test_a_lock_can_be_given_back_and_taken_again(tmp_path: Path) -> None:
    """Releasing is idempotent, and the next one gets the lock."""
    lock = files.FileLock(tmp_path / "state.db")
    lock.acquire("It")
    with pytest.raises(StoreLocked):
        files.FileLock(tmp_path / "state.db").acquire("It")
    lock.release()
    lock.release()
    with lock:
        pass


def descriptors() -> list[str]:
    """The numbers of all files that this process has open."""
    return sorted(path.name for path in Path("/dev/fd").iterdir())


def test_a_release_without_the_lock_closes_nothing(tmp_path: Path) -> None:
    """Neither before the lock was taken nor a second time: its descriptor may be another file's by then."""
    lock = files.FileLock(tmp_path / "state.db")
    before = descriptors()
    lock.release()
    assert descriptors() == before
    with lock:
        pass
    with (tmp_path / "another").open("w"):
        before = descriptors()
        lock.release()
        assert descriptors() == before


def test_a_digest_holds_the_file_to_what_the_last_stop_wrote(tmp_path: Path) -> None:
    """A matching digest is consumed; without one nothing is claimed; another file is refused and stays as it is."""
    database = tmp_path / "state.db"
    database.write_bytes(b"one")
    files.check_sum(database)
    files.leave_sum(database)
    files.check_sum(database)
    assert not (tmp_path / "state.db.sum").exists()
    files.leave_sum(database)
    database.write_bytes(b"two")
    for _ in range(2):
        with pytest.raises(StoreCorrupt, match=r"remove state\.db\.sum"):
            files.check_sum(database)
    assert database.read_bytes() == b"two"


@pytest.mark.parametrize("companion", ["-wal", "-journal"])
def test_no_digest_is_left_beside_an_unfinished_log(tmp_path: Path, companion: str) -> None:
    """While SQLite's log holds the end of the state, the file's digest would mean nothing."""
    database = tmp_path / "state.db"
    database.write_bytes(b"one")
    database.with_name(database.name + companion).touch()
    files.leave_sum(database)
    assert not (tmp_path / "state.db.sum").exists()


def test_a_damaged_file_is_set_aside_with_all_its_parts(tmp_path: Path) -> None:
    """Nothing of the old state stays where the new one grows, and nothing is lost."""
    database = tmp_path / "state.db"
    for end in ("", "-wal", "-shm", "-journal", ".sum", ".lock"):
        database.with_name(database.name + end).write_text(end)
    moved = files.set_aside(database)
    assert [path.read_text() for path in moved] == ["", "-wal", "-shm", "-journal", ".sum"]
    assert sorted(path.name for path in tmp_path.iterdir() if "set-aside" not in path.name) == ["state.db.lock"]


def test_a_folder_that_systemd_makes_at_the_start_is_not_missed(tmp_path: Path) -> None:
    """--config.check runs before it; any other folder that is not there is a mistake."""
    url = f"sqlite:///{tmp_path}/state/patrolserver.db"
    assert "does not exist" in (why_unusable(url) or "")
    assert "does not exist" in (why_unusable(url, f"{tmp_path}/other") or "")
    assert why_unusable(url, f"{tmp_path}/other:{tmp_path}/state") is None


def test_what_is_no_file_is_no_state(tmp_path: Path) -> None:
    """Opening a pipe would wait for ever."""
    os.mkfifo(tmp_path / "pipe")
    assert "is a device or a pipe" in (why_unusable(f"sqlite:///{tmp_path / 'pipe'}") or "")
    assert "is a device or a pipe" in (why_unusable("sqlite:////dev/null") or "")
    assert "is a folder" in (why_unusable(f"sqlite:///{tmp_path}") or "")
