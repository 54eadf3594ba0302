"""What doctor tells without asking anybody: configuration, state folder, room, and how its findings are shown."""

from __future__ import annotations

import json
import os
import sqlite3
from collections import Counter
from contextlib import closing, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import pytest

from patrolserver_exporter.app.checkup import Grade, check_up
from patrolserver_exporter.cli import main
from patrolserver_exporter.commands.doctor import sum_of
from patrolserver_exporter.config.schema import Account, Config
from patrolserver_exporter.config.schema import Store as StoreSettings
from patrolserver_exporter.config.secret import Secret
from patrolserver_exporter.store import Store, tables, why_unusable

if TYPE_CHECKING:
    from collections.abc import Iterator

NOBODY = 65534


def looked_at(folder: Path, store_url: str = "") -> dict[str, tuple[Grade, str]]:
    config = Config(accounts=(), store=StoreSettings(url=store_url or f"sqlite:///{folder / 'state.db'}"))
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


@pytest.mark.parametrize(
    ("grades", "said"),
    [
        ("ok", "All is fine."),
        ("ok warning", "All is fine but for 1 warning."),
        ("ok warning warning skipped", "All is fine but for 2 warnings and 1 thing not looked at."),
        ("ok skipped skipped", "All is fine but for 2 things not looked at."),
        ("ok warning trouble skipped", "1 thing is in trouble."),
    ],
)
def test_the_sum_calls_nothing_fine_that_is_not_known(grades: str, said: str) -> None:
    """What was not looked at may be anything."""
    assert sum_of(Counter(Grade(grade) for grade in grades.split())) == said


def test_a_ca_file_that_is_missing_is_a_bad_flag(capsys: pytest.CaptureFixture[str]) -> None:
    """Named, with exit code 2."""
    with pytest.raises(SystemExit) as ended:
        main(["doctor", "--ca-file=/nowhere.pem"])
    assert ended.value.code == 2
    assert "/nowhere.pem" in capsys.readouterr().err


def test_names_that_are_none_are_told(tmp_path: Path) -> None:
    """Of the API and of the webhook's URL; looking them up fails in another way."""
    secret = Secret.literal("token-0123456789")
    account = Account(key=secret, secret=secret, api_url="http://api..example", webhook_tokens=(secret,))
    config = Config(accounts=(account,), store=StoreSettings(url=f"sqlite:///{tmp_path / 'state.db'}"))
    found = {one.check: one for one in check_up(config, external_url="https://a..b", ca_file=None, environ={})}
    assert "the host cannot be resolved (it is no name of a host)" in found["account default"].found
    assert found["account default"].found.startswith("api..example:80: ")
    assert "its host has no address" in found["webhook default"].found


def made(folder: Path) -> Path:
    """A state that an exporter left behind in order."""
    Store(f"sqlite:///{folder / 'state.db'}").close()
    return folder / "state.db"


def test_a_sound_state_stays_as_it_is(tmp_path: Path) -> None:
    """It is read and held against its sums, and not a file of it changes."""
    file = made(tmp_path)
    before = {one.name: one.read_bytes() for one in tmp_path.iterdir()}
    grade, text = looked_at(tmp_path)["store"]
    assert grade is Grade.OK
    assert "it is sound" in text
    assert {one.name: one.read_bytes() for one in tmp_path.iterdir()} == before
    assert file.with_name("state.db.sum").name in before


@pytest.mark.parametrize("change", ["another file", "a flipped bit", "the sum is gone as well"])
def test_a_damaged_state_is_trouble(tmp_path: Path, change: str) -> None:
    """The service would end with 3; its room on the disk helps nothing."""
    file = made(tmp_path)
    content = bytearray(file.read_bytes())
    content[content.index(b"alembic_version") + 2] ^= 1
    file.write_bytes(b"not a database\n" if change == "another file" else content)
    if change != "a flipped bit":
        file.with_name("state.db.sum").unlink()
    grade, text = looked_at(tmp_path)["store"]
    assert grade is Grade.TROUBLE
    assert "no exporter starts on it" in text
    assert "is damaged" in text
    assert "--store.rebuild" in text


def test_a_state_in_use_is_not_read(tmp_path: Path) -> None:
    """Who uses it looks after it."""
    with closing(Store(f"sqlite:///{tmp_path / 'state.db'}")):
        grade, text = looked_at(tmp_path)["store"]
    assert grade is Grade.OK
    assert "a process uses it" in text


def test_a_state_of_a_newer_version_is_trouble(tmp_path: Path) -> None:
    """The service would end with 1, and nothing else tells why."""
    file = made(tmp_path)
    file.with_name("state.db.sum").unlink()
    with closing(sqlite3.connect(file)) as connection, connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    grade, text = looked_at(tmp_path)["store"]
    assert grade is Grade.TROUBLE
    assert "written by a newer patrolserver-exporter" in text


def test_a_state_that_was_copied_away_is_trouble(tmp_path: Path) -> None:
    """It goes on elsewhere, and no exporter starts on it."""
    with closing(Store(f"sqlite:///{made(tmp_path)}")) as source:
        source.run(lambda unit: unit.connection.execute(tables.feed.update().values(moved_to="sqlite:////new.db")))
    grade, text = looked_at(tmp_path)["store"]
    assert grade is Grade.TROUBLE
    assert "was copied to sqlite:////new.db and goes on there" in text


@contextmanager
def somebody_else() -> Iterator[None]:
    """Be a user who owns nothing, for a while."""
    if os.geteuid() != 0:
        pytest.skip("only root can become somebody else")
    groups = os.getgroups()
    os.setgroups([])
    os.setresgid(NOBODY, NOBODY, 0)
    os.setresuid(NOBODY, NOBODY, 0)
    try:
        yield
    finally:
        os.setresuid(0, 0, 0)
        os.setresgid(0, 0, 0)
        os.setgroups(groups)


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """Everybody may enter it, unlike pytest's own."""
    with TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        (Path(name) / "state").mkdir()
        yield Path(name) / "state"


@pytest.mark.parametrize(
    ("closed", "says"),
    [
        ("nothing", "it is sound"),
        ("the folder above", "may not be looked into by this user"),
        ("state", "state cannot be written by this user"),
        ("state for writing", "state cannot be written by this user"),
        ("state.db", "state.db cannot be written by this user"),
        ("state.db.lock", "state.db.lock cannot be written by this user"),
    ],
)
def test_what_this_user_may_not_touch_is_trouble(open_folder: Path, closed: str, says: str) -> None:
    """As when root ran a command on the state, or doctor is run as somebody else."""
    file = made(open_folder)
    looked_at(open_folder)
    for one in open_folder.iterdir():
        one.chmod(0o600 if one.name == closed else 0o666)
    open_folder.chmod({"state": 0o700, "state for writing": 0o755}.get(closed, 0o777))
    open_folder.parent.chmod(0o700 if closed == "the folder above" else 0o755)
    with somebody_else():
        grade, text = looked_at(open_folder)["store"]
        why = why_unusable(f"sqlite:///{file}")
    assert grade is (Grade.OK if closed == "nothing" else Grade.TROUBLE)
    assert says in text
    assert (why is not None) is (closed == "the folder above"), "what --config.check says of it"
