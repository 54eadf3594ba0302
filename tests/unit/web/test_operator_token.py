from __future__ import annotations

import os
from pathlib import Path

import pytest

from patrolserver_exporter.config.secret import Secret
from patrolserver_exporter.web import operator_token
from patrolserver_exporter.web.http.addresses import Address
from patrolserver_exporter.web.operator_token import FILE_NAME, find, folder_for, local_url, new_token, write

URL = "http://127.0.0.1:10058"
TOKEN = Secret.literal("token-of-the-operator")


@pytest.fixture(autouse=True)
def _nowhere_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No exporter of this machine is found."""
    (tmp_path / "here").mkdir()
    (tmp_path / "installed").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setattr(operator_token, "INSTALLED_IN", tmp_path / "installed")


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    (tmp_path / "state").mkdir()
    return {"STATE_DIRECTORY": f"{tmp_path / 'state'}:/nowhere"}


def test_tokens_are_long_and_new() -> None:
    """Nobody guesses one, and the last start's is worth nothing."""
    assert len({new_token().reveal() for _ in range(10)}) == 10
    assert len(new_token().reveal()) >= 32


def test_it_belongs_beside_the_state(tmp_path: Path, environ: dict[str, str]) -> None:
    """The state file's folder; with a database, the folder of the unit's state, or the working directory."""
    assert folder_for(tmp_path / "a" / "state.db", environ) == tmp_path / "a"
    assert folder_for(None, environ) == tmp_path / "state"
    assert folder_for(None, {}) == Path()


@pytest.mark.parametrize(
    ("hosts", "scheme", "prefix", "expected"),
    [
        (["127.0.0.1"], "http", "", "http://127.0.0.1:1"),
        (["::1"], "http", "/ps/", "http://[::1]:1/ps"),
        (["::"], "https", "", "https://127.0.0.1:1"),
        (["0.0.0.0"], "http", "", "http://127.0.0.1:1"),  # noqa: S104 - nothing listens there
        (["192.0.2.1", "127.0.0.1"], "http", "", "http://127.0.0.1:2"),
        (["192.0.2.1"], "http", "", "http://192.0.2.1:1"),
    ],
)
def test_the_url_is_on_loopback_where_that_can_be(hosts: list[str], scheme: str, prefix: str, expected: str) -> None:
    """A listener for every address is one on loopback too."""
    addresses = [Address(host, port) for port, host in enumerate(hosts, 1)]
    assert local_url(addresses, scheme, prefix) == expected


def test_only_its_owner_can_read_it(tmp_path: Path) -> None:
    """Neither a file that others can read nor a link that somebody put there gets the token."""
    victim = tmp_path / "victim"
    victim.write_text("")
    victim.chmod(0o644)
    (tmp_path / FILE_NAME).symlink_to(victim)
    before = os.umask(0)
    try:
        path = write(tmp_path, URL, TOKEN)
    finally:
        os.umask(before)
    assert path.read_text() == f"{URL}\n{TOKEN.reveal()}\n"
    assert path.lstat().st_mode == 0o100600
    assert victim.read_text() == ""
    assert sorted(file.name for file in tmp_path.iterdir() if file.is_file()) == [FILE_NAME, "victim"]


def test_it_is_found_in_each_place(tmp_path: Path, environ: dict[str, str]) -> None:
    """Another exporter's file on the way is passed over."""
    for folder in ("here", "installed", "state"):
        write(tmp_path / folder, URL, Secret.literal(f"token-in-{folder}"))
        found = find(URL + "/", environ)
        assert found.token is not None
        assert found.token.reveal() == f"token-in-{folder}"
    write(tmp_path / "state", "http://127.0.0.1:10059", TOKEN)
    found = find(URL, environ)
    assert found.token is not None
    assert found.token.reveal() == "token-in-installed"


@pytest.mark.parametrize(
    ("written", "asked", "sent"),
    [
        (URL, URL, True),
        (f"{URL}/ps", f"{URL}/ps/", True),
        ("http://127.0.0.1:80", "http://127.0.0.1", True),
        ("https://127.0.0.1:10058", "https://localhost:10058", True),
        (URL, "http://localhost:10058", False),
        (URL, "http://127.0.0.2:10058", False),
        (URL, "https://127.0.0.1:10058", False),
        (URL, "http://127.0.0.1:10059", False),
        (URL, f"{URL}/ps", False),
        (URL, "http://exporter.example.org:10058", False),
        ("http://exporter.example.org:10058", "http://exporter.example.org:10058", False),
        ("https://127.0.0.1:10058", "https://exporter.example.org:10058", False),
        ("http://127.0.0.1:x", URL, False),
    ],
)
def test_it_goes_to_its_own_url_on_loopback_alone(
    written: str,
    asked: str,
    sent: bool,  # noqa: FBT001 - what is expected
) -> None:
    """Whoever listens elsewhere does not get it; what lies there is told of."""
    write(Path(), written, TOKEN)
    found = find(asked, {})
    assert (found.token == TOKEN) is sent
    assert ("is for --exporter-url=" in found.hint) is not sent


def test_what_is_no_such_file_is_told_of(tmp_path: Path) -> None:
    """A folder, a FIFO that nobody writes to, rubbish: each is no token, and holds nobody up."""
    assert find(URL, {}) == operator_token.Found(None)
    path = tmp_path / "here" / FILE_NAME
    path.mkdir()
    assert "cannot be read" in find(URL, {}).hint
    path.rmdir()
    os.mkfifo(path)
    assert "not as an exporter writes it" in find(URL, {}).hint
    path.unlink()
    for rubbish in (b"", b"\xff\xfe", b"one\ntwo\nthree\n", f"{URL}\n\x01\n".encode(), b"\n\n"):
        path.write_bytes(rubbish)
        found = find(URL, {})
        assert (found.token, "not as an exporter writes it" in found.hint) == (None, True)
