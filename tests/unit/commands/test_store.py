"""``store copy`` on two state files: what it does, and what it refuses before it touches anything."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest
from tests.harness.ticking import HeldClock
from tests.unit.issues.builders import outdated
from tests.unit.sync.driving import Driver

from patrolserver_exporter.commands import store as command
from patrolserver_exporter.store import Store, StoreError

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def source(tmp_path: Path, migrated_file: Path) -> Path:
    """A state with a server and an issue."""
    file = tmp_path / "state.db"
    shutil.copy(migrated_file, file)
    with Store(f"sqlite:///{file}") as store:
        driver = Driver(store, HeldClock())
        driver.take_list("web-01")
        driver.poll(outdated())
    return file


def run(*arguments: str) -> int:
    """The exit code."""
    code: int | str | None
    try:
        code = command.main(["copy", *arguments])
    except SystemExit as ended:
        code = ended.code
    assert isinstance(code, int)
    return code


def test_a_state_goes_on_in_another_file(source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It says what was copied; nothing starts on the old file before the state is copied back."""
    there = tmp_path / "other.db"
    assert run(f"sqlite:///{source}", f"sqlite:///{there}") == command.OK
    shown = capsys.readouterr().out
    assert "servers: 1" in shown
    assert "issues: 1" in shown
    with Store(f"sqlite:///{there}") as store:
        assert [one.software for one in Driver(store, HeldClock()).issues()] == ["PHP"]
    with pytest.raises(StoreError, match="was copied to"):
        Store(f"sqlite:///{source}")
    source.unlink()
    assert run(f"sqlite:///{there}", f"sqlite:///{source}") == command.OK
    Store(f"sqlite:///{source}").close()


def test_configurations_name_their_stores(source: Path, tmp_path: Path) -> None:
    """As an operator has them; a wrong one is told with its line."""
    for name, file in (("old.yml", source), ("new.yml", tmp_path / "new.db")):
        text = f"accounts: [{{key: a, secret: b}}]\nstore: {{url: 'sqlite:///{file}'}}\n"
        (tmp_path / name).write_text(text)
    assert run(str(tmp_path / "old.yml"), str(tmp_path / "new.yml")) == command.OK
    assert (tmp_path / "new.db").is_file()


def test_a_wrong_configuration_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With file and line, and exit code 2."""
    (tmp_path / "old.yml").write_text("accounts: []\nstores: {}\n")
    assert run(str(tmp_path / "old.yml"), "sqlite:///x.db") == command.BAD_CONFIG
    assert "old.yml:2" in capsys.readouterr().err


def test_a_target_that_is_not_empty_is_left_alone(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Both stay as they were."""
    there = tmp_path / "other.db"
    shutil.copy(source, there)
    assert run(f"sqlite:///{source}", f"sqlite:///{there}") == command.BAD_STATE
    assert str(there) in capsys.readouterr().err
    for file in (source, there):
        Store(f"sqlite:///{file}").close()


def test_a_state_in_use_is_left_alone(source: Path, tmp_path: Path) -> None:
    """An exporter that runs on it would go on with what is no longer the truth."""
    with Store(f"sqlite:///{source}"):
        assert run(f"sqlite:///{source}", f"sqlite:///{tmp_path / 'other.db'}") == command.BAD_STATE


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("sqlite:///{}/state.db", "the same store"),
        ("sqlite:///{}/../{}/state.db", "the same store"),
        ("mysql://host/db", "or URLs like"),
        ("://", "or URLs like"),
        ("postgresql+psycopg://me:word@host/db", "PGPASSWORD"),
        ("postgresql+psycopg://host/db?password=word", "PGPASSWORD"),
    ],
)
def test_what_cannot_be_meant_is_refused(
    target: str, said: str, source: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """In a line that says what to do, and without a password that was given."""
    folder = source.parent
    assert run(f"sqlite:///{source}", target.format(folder, folder.name)) == 2
    told = capsys.readouterr().err
    assert said in told
    assert ":word@" not in told


def test_a_source_that_is_not_there_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """And is not made."""
    assert run(f"sqlite:///{tmp_path / 'none.db'}", f"sqlite:///{tmp_path / 'other.db'}") == 2
    assert f"there is no state file {tmp_path / 'none.db'}" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
