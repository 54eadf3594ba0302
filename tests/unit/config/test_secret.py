from __future__ import annotations

import copy
import dataclasses
import os
import pickle
import re
import threading
from pathlib import Path

import msgspec
import pytest

from patrolserver_exporter.config.problem import ConfigError
from patrolserver_exporter.config.schema import Account
from patrolserver_exporter.config.secret import MAX_VALUE_BYTES, Secret, is_world_readable

CANARY = "c4n4ry-secret"
NOBODY = 65_534


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A file that holds the secret."""
    path = tmp_path / "secret"
    path.write_text(f"{CANARY}\n")
    return path


def failure(path: Path) -> str:
    """Return why the file gives no secret."""
    with pytest.raises(ConfigError) as caught:
        Secret.from_file(path)
    return str(caught.value)


def test_it_never_shows(file: Path) -> None:
    """Neither text, nor repr, nor format, nor that of what holds it, has the value."""
    for secret in (Secret.literal(CANARY), Secret.from_file(file), Secret.from_env("X", {"X": CANARY})):
        account = Account(key=secret, secret=secret)
        for shown in (str(secret), repr(secret), f"{secret:>40}", repr(account), str(dataclasses.asdict(account))):
            assert CANARY not in shown
        assert secret.reveal() == CANARY


def test_it_does_not_travel() -> None:
    """It can be neither pickled nor encoded; a copy is itself."""
    secret = Secret.literal(CANARY)
    with pytest.raises(TypeError, match="a secret is not to be pickled"):
        pickle.dumps(secret)
    with pytest.raises(TypeError):
        msgspec.json.encode(secret)
    assert copy.copy(secret) is secret
    assert copy.deepcopy(secret) is secret


def test_equal_by_value() -> None:
    """Two secrets are equal when their values are, wherever they come from; a secret has no hash."""
    assert Secret.literal(CANARY) == Secret.from_env("X", {"X": CANARY})
    assert Secret.literal(CANARY) != Secret.literal("other")
    assert Secret.literal(CANARY) != CANARY
    with pytest.raises(TypeError, match="unhashable"):
        hash(Secret.literal(CANARY))


def test_matches() -> None:
    """A candidate matches only as a whole; lone surrogates match nothing and raise nothing."""
    secret = Secret.literal(CANARY)
    assert secret.matches(CANARY)
    assert not any(secret.matches(wrong) for wrong in ("", CANARY[:-1], f"{CANARY}x", "\ud800"))


def test_origin(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It says where it comes from, and reads the process's environment unless it is given another."""
    monkeypatch.setenv("PATROLSERVER_TEST_SECRET", CANARY)
    assert Secret.literal(CANARY).origin == "literal"
    assert Secret.from_env("PATROLSERVER_TEST_SECRET").origin == "environment PATROLSERVER_TEST_SECRET"
    assert Secret.from_file(file).origin == f"file {file}"


@pytest.mark.parametrize("raw", [b"abc", b"abc\n", b"abc\r\n", b"abc\n\n", b"\xef\xbb\xbfabc\n"])
def test_the_end_of_the_file_does_not_count(file: Path, raw: bytes) -> None:
    """Line breaks at the end, and the mark that some editors put at the start, are no part of the secret."""
    file.write_bytes(raw)
    assert Secret.from_file(file).reveal() == "abc"


def test_reread_of_a_file(file: Path) -> None:
    """Reading again tells whether the value changed."""
    secret = Secret.from_file(file)
    assert not secret.reread()
    file.write_text("rotated\n")
    assert secret.reread()
    assert secret.reveal() == "rotated"


def test_reread_of_a_variable() -> None:
    """A variable is read again too; a literal never changes."""
    environ = {"X": "one"}
    secret = Secret.from_env("X", environ)
    environ["X"] = "two"
    assert secret.reread()
    assert secret.reveal() == "two"
    assert not Secret.literal(CANARY).reread()


def test_a_failed_reread_keeps_the_value(file: Path) -> None:
    """When the file is gone or empty, that is raised and the value stays."""
    secret = Secret.from_file(file)
    file.write_text("\n")
    with pytest.raises(ConfigError, match="is empty; write the value into it"):
        secret.reread()
    file.unlink()
    with pytest.raises(
        ConfigError, match=r"No such file or directory\); correct the path, or let the exporter's user read it"
    ):
        secret.reread()
    assert secret.reveal() == CANARY


def test_files_that_hold_no_secret(tmp_path: Path, file: Path) -> None:
    """Each way in which a file cannot be used is told with what to do, without its content."""
    assert failure(tmp_path).endswith(
        "cannot be read (Is a directory); correct the path, or let the exporter's user read it"
    )
    assert failure(Path("a\0b")).endswith(
        "cannot be read (not a path); correct the path, or let the exporter's user read it"
    )
    file.write_bytes(CANARY.encode("utf-16"))
    assert failure(file).endswith("is not UTF-8 text; write the value as plain text")
    file.write_text(f"{CANARY}\n{CANARY}\n")
    assert failure(file).endswith("holds line breaks or other control characters; it should be one line of text")
    assert CANARY not in failure(file)
    file.write_text("x" * (MAX_VALUE_BYTES + 1))
    assert failure(file).endswith("is over 65536 bytes; correct the path, or shorten the file")


def test_a_file_that_may_not_be_read(file: Path) -> None:
    """A file that only others may read is told as such."""
    file.chmod(0)
    user = os.geteuid()
    if user == 0:
        os.seteuid(NOBODY)
    try:
        said = failure(file)
    finally:
        os.seteuid(user)
    cure = "correct the path, or let the exporter's user read it"
    assert said == f"file {file}: the file {file} cannot be read (Permission denied); {cure}"


def test_who_may_read_the_file(file: Path) -> None:
    """It can be told whether everyone may read a file; one that is gone is not readable."""
    file.chmod(0o640)
    assert not is_world_readable(file)
    file.chmod(0o644)
    assert is_world_readable(file)
    assert not is_world_readable(file.parent / "absent")


@pytest.mark.parametrize("value", ["", "\n", "  "])
def test_empty_values(value: str) -> None:
    """Nothing is no secret."""
    with pytest.raises(ConfigError, match="literal: the value is empty; write the value into it"):
        Secret.literal(value)
    with pytest.raises(ConfigError, match="the environment variable X is empty; write the value into it"):
        Secret.from_env("X", {"X": value})


def test_threads_share_it(file: Path) -> None:
    """While it is read again and again, every thread sees a whole value, and each change is told once."""
    secret = Secret.from_file(file)
    other = file.with_name("other")
    changes: list[bool] = []

    def reread() -> None:
        changes.extend(secret.reread() for _ in range(200))

    other.write_text("rotated\n")
    threads = [threading.Thread(target=reread) for _ in range(4)]
    for thread in threads:
        thread.start()
    other.replace(file)
    seen = {secret.reveal() for _ in range(1000)}
    for thread in threads:
        thread.join(30)
    changes.append(secret.reread())
    assert seen <= {CANARY, "rotated"}
    assert changes.count(True) == 1
    assert secret.reveal() == "rotated"


@pytest.mark.parametrize("written", ["${PATROLSERVER_KEY}", "$PATROLSERVER_KEY", "abc-${KEY}-def"])
def test_a_variable_that_nothing_replaces_is_no_secret(tmp_path: Path, written: str) -> None:
    """A name where the value should be is refused, as the API would refuse it later, without repeating it."""
    file = tmp_path / "secret"
    file.write_text(f"{written}\n")
    said = r"holds a variable like \$\{NAME\}, which nothing replaces"
    with pytest.raises(ConfigError, match=said) as raised:
        Secret.from_file(file)
    assert written not in str(raised.value)
    with pytest.raises(ConfigError, match=said):
        Secret.literal(written)


@pytest.mark.parametrize("written", ["PATROLSERVER_KEY=abcdefgh", "export API_SECRET=abc", "secret = abc", "Token=abc"])
def test_a_file_of_variables_is_no_secret(tmp_path: Path, written: str) -> None:
    """An environment file instead of a file with the value alone is refused, without repeating it."""
    file = tmp_path / "secret"
    file.write_text(f"{written}\n")
    with pytest.raises(ConfigError, match=r"holds NAME=value, as a file of variables does") as raised:
        Secret.from_file(file)
    assert written not in str(raised.value)


@pytest.mark.parametrize("written", ["QUJDRA==", "a$b$c", "pa$$word", "x=y", "a+b/c=d", "$2b$10$abc"])
def test_signs_within_a_secret_are_its_own(written: str) -> None:
    """Base64, dollars and equals signs make no variable of a value."""
    assert Secret.literal(written).reveal() == written


@pytest.mark.parametrize(
    "written",
    [
        "4f2a9c71e8d05b36aa17c0de99b1f7e3",
        "aKq93LmZx07Tt",
        "AQ7PL2MZ9XK4",
        f"{'x' * 23}7",
        "a/4f2a9c71e8d05b36aa17c0de99b1f7e3",
    ],
)
def test_a_secret_in_place_of_a_name_does_not_show(tmp_path: Path, written: str) -> None:
    """Whoever writes the key where the file or variable belongs is told so without it."""
    cure = "which is not shown, since it looks like the secret itself; give the name of the"
    with pytest.raises(ConfigError) as raised:
        Secret.from_file(tmp_path / written)
    assert str(raised.value) == f"file: there is no file of this name, {cure} file that holds the secret"
    with pytest.raises(ConfigError) as raised:
        Secret.from_env(written, {})
    variable = "environment variable"
    assert (
        str(raised.value)
        == f"environment: there is no {variable} of this name, {cure} {variable} that holds the secret"
    )


@pytest.mark.parametrize(
    "written", ["patrolserver.key", "patrolserver-secret2", "secret_of_web01", "key2026", "K", "PatrolserverSecret1"]
)
def test_a_name_that_is_one_shows(tmp_path: Path, written: str) -> None:
    """Also of what is missing, since that is what has to be corrected."""
    with pytest.raises(ConfigError, match=rf"/{re.escape(written)} cannot be read"):
        Secret.from_file(tmp_path / written)
    with pytest.raises(ConfigError, match=f"variable {re.escape(written)} is not set"):
        Secret.from_env(written, {})


def test_a_name_that_exists_shows(tmp_path: Path) -> None:
    """However it looks."""
    file = tmp_path / "4f2a9c71e8d05b36aa17c0de99b1f7e3"
    file.write_bytes(b"")
    with pytest.raises(ConfigError, match=f"the file {file} is empty"):
        Secret.from_file(file)
    with pytest.raises(ConfigError, match=f"variable {file.name} is empty"):
        Secret.from_env(file.name, {file.name: ""})
