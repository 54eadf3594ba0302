"""What doctor tells without asking anybody: configuration, state folder, room, and how its findings are shown."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from patrolserver_exporter.app.checkup import Grade, check_up
from patrolserver_exporter.cli import main
from patrolserver_exporter.config.schema import Config, Store

if TYPE_CHECKING:
    from pathlib import Path


def looked_at(folder: Path, store_url: str = "") -> dict[str, tuple[Grade, str]]:
    config = Config(accounts=(), store=Store(url=store_url or f"sqlite:///{folder / 'state.db'}"))
    found = check_up(config, external_url="", ca_file=None, environ={})
    return {finding.check: (finding.grade, f"{finding.found} {finding.do}") for finding in found}


def test_a_state_that_is_not_there_yet(tmp_path: Path) -> None:
    """Its folder is there and has room: fine, and nothing was made."""
    grade, text = looked_at(tmp_path)["store"]
    assert grade is Grade.OK
    assert "not there yet" in text
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_missing(tmp_path: Path) -> None:
    """The service would end with it."""
    grade, text = looked_at(tmp_path, f"sqlite:///{tmp_path}/none/state.db")["store"]
    assert grade is Grade.TROUBLE
    assert "does not exist" in text


def test_no_exporter_was_started_here(tmp_path: Path) -> None:
    """There is no token file beside the state, so nothing can be said of a running one."""
    assert looked_at(tmp_path)["exporter"][0] is Grade.SKIPPED


def test_a_token_file_that_is_none(tmp_path: Path) -> None:
    """Half of one, as after a full disk, is told and not believed."""
    (tmp_path / "patrolserver-exporter.token").write_text("http://127.0.0.1:1\n")
    grade, text = looked_at(tmp_path)["exporter"]
    assert grade is Grade.WARNING
    assert "cannot be read" in text


@pytest.mark.parametrize("form", ["table", "json"])
def test_a_wrong_configuration_ends_with_2_in_each_form(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], form: str
) -> None:
    """Each mistake is a finding, and nothing else is looked at."""
    file = tmp_path / "patrolserver.yml"
    file.write_text("accounts: [{name: main, kee: k}]\npoll: {interval: never}\n")
    assert main(["doctor", f"--config.file={file}", f"--format={form}"]) == 2
    out = capsys.readouterr().out
    assert "kee" in out
    assert "poll.interval" in out
    if form == "json":
        assert {one["grade"] for one in json.loads(out)} == {"trouble"}
    else:
        assert "in trouble." in out.splitlines()[-1]


def test_a_ca_file_that_is_missing_is_a_bad_flag(capsys: pytest.CaptureFixture[str]) -> None:
    """Named, with exit code 2."""
    with pytest.raises(SystemExit) as ended:
        main(["doctor", "--ca-file=/nowhere.pem"])
    assert ended.value.code == 2
    assert "/nowhere.pem" in capsys.readouterr().err
