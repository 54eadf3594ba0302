"""``patrolserver-gate``, the gate as one file, says what the package's command says, with Python alone."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import socket
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest
import trustme
from tests.harness.api import SetTime, put_server, serving_api, token
from tests.harness.gate_editions import IN_FILE, IN_PACKAGE, GateEdition, pythons
from tests.serving import read_request, serving
from tests.unit.issues.builders import issue

from patrolserver_exporter import __version__
from patrolserver_exporter.config.schema import Scope
from patrolserver_exporter.config.secret import Secret
from patrolserver_exporter.issues.model import Kind, Severity
from patrolserver_exporter.store import fleet
from patrolserver_exporter.store.fleet import AccountRecord
from patrolserver_exporter.web import operator_token
from patrolserver_exporter.web.http.requests import not_found_app
from patrolserver_exporter.web.http.web_config import WebConfigFile

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.harness.api import ServedApi

    from patrolserver_exporter.store import Unit

WEB, DB, OLD = "web1.example.org", "db1.example.org", "old.example.org"


def fill(unit: Unit, now: float) -> None:
    worst = issue("openssl", Kind.EXPLOITABLE, risk=9.8, severity=Severity.CRITICAL, fingerprint="a" * 16)
    php = issue("php", Kind.OUTDATED, version="8.1.0", update_to="8.1.29", fingerprint="b" * 16)
    put_server(unit, 1, WEB, issues=[worst, php], polled_at=now - 60)
    put_server(unit, 2, DB, polled_at=now - 3600)
    put_server(unit, 3, OLD, polled_at=now - 10**6)
    for number in range(10, 60):
        put_server(unit, number, f"app{number}", issues=[php] if number % 3 else [], polled_at=now - number)
    fleet.save_account(unit.connection, AccountRecord(name="main", up=True, last_success_at=now))


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServedApi]:
    url = f"sqlite:///{tmp_path_factory.mktemp('api') / 'state.db'}"
    # The command holds the answer's time against its own.
    now = float(int(time.time()))
    with serving_api(url, clock=SetTime(now)) as served:
        served.store.run(lambda unit: fill(unit, now))
        yield served


@pytest.fixture
def package(
    gate_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> GateEdition:
    monkeypatch.chdir(tmp_path)
    return GateEdition(IN_PACKAGE, gate_file, tmp_path, capsys)


@pytest.fixture
def file(package: GateEdition) -> GateEdition:
    return dataclasses.replace(package, name=IN_FILE)


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        ([DB], 0),
        ([WEB, DB], 1),
        ([WEB, "nosuch", OLD], 1),
        ([OLD, DB], 4),
        (["app*", "--max-medium=0"], 1),
        (["app*", "--max-medium=0", "--detail=problems"], 1),
        ([WEB, "--waivers=waivers.json"], 0),
        ([WEB, "--baseline=baseline.json"], 0),
        ([DB, "--policy=nosuch"], 2),
        ([DB, "--baseline=waivers.json"], 2),
        ([DB, "--waivers=baseline.json"], 2),
        ([DB, "--max-hig=1"], 2),
    ],
)
def test_both_say_the_same_in_every_form(
    api: ServedApi, package: GateEdition, file: GateEdition, arguments: list[str], code: int
) -> None:
    """Exit code and report are alike, byte for byte, and so is a baseline."""
    waiver = {"server": "web*", "software": "openssl", "until": "2099-01-01", "reason": "accepted"}
    (file.folder / "waivers.json").write_text(json.dumps([waiver]))
    assert package(WEB, "--write-baseline=baseline.json", f"--exporter-url={api.url}").code == 1
    written = (file.folder / "baseline.json").read_bytes()
    (file.folder / "baseline.json").unlink()
    assert file(WEB, "--write-baseline=baseline.json", f"--exporter-url={api.url}").code == 1
    assert (file.folder / "baseline.json").read_bytes() == written
    for form in ("table", "json", "junit", "sarif") if code != 2 else ("table",):
        command = [*arguments, f"--format={form}", f"--exporter-url={api.url}"]
        said, says = package(*command), file(*command)
        assert (said.code, said.out) == (code, says.out)
        assert says.code == code
        assert bool(says.err) is (code == 2)


def test_both_take_the_same_flags(package: GateEdition, file: GateEdition) -> None:
    """With the same words, but for the program's name, and YAML."""

    def words(text: str) -> str:
        named = text.replace("patrolserver-exporter gate", "NAME").replace("patrolserver-gate", "NAME")
        return " ".join(re.sub(r"YAML or JSON", "JSON", named).split())

    said, says = package("--help"), file("--help")
    assert (said.code, says.code) == (0, 0)
    assert words(says.out) == words(said.out)
    assert file("--version").out.startswith(f"patrolserver-gate, version {__version__}, Python 3.")


@pytest.mark.parametrize("python", pythons())
def test_each_python_of_the_machine_runs_it(
    api: ServedApi, package: GateEdition, file: GateEdition, python: str
) -> None:
    """From 3.9 on, with warnings as errors."""
    that = dataclasses.replace(file, python=pythons()[python])
    for form in ("table", "json", "junit", "sarif"):
        command = [DB, WEB, f"--format={form}", "--max-high=0", f"--exporter-url={api.url}"]
        assert that(*command) == package(*command)
    (that.folder / "waivers.json").write_text("[{}]")
    assert that(DB, f"--waivers={that.folder / 'waivers.json'}").code == 2
    ended = that(DB, "--exporter-url=https://127.0.0.1:1")
    assert (ended.code, ended.err) == (4, "")
    assert f"Python {python}." in that("--version").out


def test_it_runs_as_a_program(file: GateEdition) -> None:
    """Its first line says by what, and its text can be read."""
    assert os.access(file.file, os.X_OK)
    content = file.file.read_bytes()
    assert content.startswith(b"#!/usr/bin/env python3\n")
    assert b"def main(arguments: Sequence[str], edition: Edition) -> int:" in content


def test_yaml_is_refused_by_name(file: GateEdition) -> None:
    """It ends with 2, and says what to write."""
    waivers = file.folder / "waivers.yml"
    waivers.write_text("- { server: web1, software: openssl, until: 2099-01-01, reason: accepted }\n")
    code, out, told = file(WEB, f"--waivers={waivers}")
    assert (code, out) == (2, "")
    assert "reads no YAML; write it as JSON" in told


def test_the_operators_token_is_found(
    file: GateEdition, package: GateEdition, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On loopback, in the file that lies beside the state, and for the exporter of that URL alone."""
    state = tmp_path / "state"
    state.mkdir()
    monkeypatch.setenv("STATE_DIRECTORY", str(state))
    with serving_api(f"sqlite:///{state / 'state.db'}", tokens=[token("ci", Scope.READ)], address="0.0.0.0:0") as api:
        api.store.run(lambda unit: fill(unit, time.time()))
        local = f"http://127.0.0.1:{api.url.rpartition(':')[2]}"
        for edition in (file, package):
            operator_token.write(state, local, Secret.literal("token-of-ci"))
            ended = edition(OLD, f"--exporter-url={local}")
            assert "data_too_old" in edition(OLD, f"--exporter-url={local}", "--format=json").out, ended
            operator_token.write(state, "http://127.0.0.1:1", Secret.literal("token-of-ci"))
            refused = edition(DB, f"--exporter-url={local}")
            assert refused.code == 4
            assert "is for --exporter-url=http://127.0.0.1:1" in refused.out


def test_neither_proxies_nor_passwords_of_the_environment_are_used(
    edition: GateEdition, api: ServedApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A proxy could answer in the exporter's place."""
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "https_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    (edition.folder / ".netrc").write_text("default login a password canary\n")
    monkeypatch.setenv("HOME", str(edition.folder))
    assert edition(DB, f"--exporter-url={api.url}").code == 0


def test_a_certificate_has_to_be_trusted_and_of_that_name(edition: GateEdition, tmp_path: Path) -> None:
    """With its authority in --ca-file the exporter is asked, otherwise the flag is named."""
    authority = trustme.CA()
    certificate = authority.issue_cert("127.0.0.1")
    certificate.private_key_pem.write_to_path(tmp_path / "key.pem")
    (tmp_path / "cert.pem").write_bytes(b"".join(blob.bytes() for blob in certificate.cert_chain_pems))
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    (tmp_path / "none.pem").write_text("nothing\n")
    config = tmp_path / "web.yml"
    config.write_text("tls_server_config: { cert_file: cert.pem, key_file: key.pem }\n")
    with serving(not_found_app, web_config=WebConfigFile(config)) as served:
        url = f"--exporter-url=https://127.0.0.1:{served.port}"
        trusted = f"--ca-file={tmp_path / 'ca.pem'}"
        assert "not trusted; give its authority in --ca-file" in edition(DB, url).out
        assert "refused with status 404" in edition(DB, url, trusted).out
        other = edition(DB, f"--exporter-url=https://localhost:{served.port}", trusted)
        assert (other.code, "is for another name" in other.out) == (4, True)
        code, _, told = edition(DB, url, f"--ca-file={tmp_path / 'none.pem'}")
        assert (code, "holds no certificates" in told) == (2, True)


@contextmanager
def busy_once(answer: bytes) -> Iterator[str]:
    """Puts the first who asks off for a second, and then answers each the same."""
    answers = [b"HTTP/1.1 503 Busy\r\nretry-after: 1\r\ncontent-length: 0\r\nconnection: close\r\n\r\n", answer]

    def serve(listener: socket.socket) -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            with client:
                read_request(client)
                client.sendall(answers[0] if len(answers) == 1 else answers.pop(0))

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve, args=(listener,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()


PASS = {
    "verdict": "pass",
    "passed": True,
    "servers": [{"name": DB, "verdict": "pass"}],
    "servers_by_verdict": {"pass": 1, "fail": 0, "unknown": 0},
}


def whole(body: bytes, length: int) -> bytes:
    return (
        b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\nconnection: close\r\n\r\n" % length
        + body
    )


def test_a_busy_exporter_is_asked_again_within_the_timeout(edition: GateEdition) -> None:
    """When it says; what would be after the timeout is not waited for."""
    body = json.dumps(PASS).encode()
    with busy_once(whole(body, len(body))) as url:
        assert edition(DB, f"--exporter-url={url}", "--timeout=500ms").code == 4
    with busy_once(whole(body, len(body))) as url:
        assert edition(DB, f"--exporter-url={url}", "--timeout=30s").code == 0


def test_an_answer_that_breaks_off_is_unknown(edition: GateEdition) -> None:
    """Even where what came is a pass by itself."""
    body = json.dumps(PASS).encode()
    with busy_once(whole(body, len(body) + 10)) as url:
        code, out, _ = edition(DB, f"--exporter-url={url}")
    assert (code, "hung up in the middle of its answer" in out) == (4, True)
