"""The commands' client against answers that are late, endless, secret or not to be had."""

from __future__ import annotations

import socket
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest
import trustme
from tests.harness.api import OPERATOR_TOKEN, put_server, serving_api
from tests.serving import read_request, serving

from patrolserver_exporter.cli import main
from patrolserver_exporter.commands.exporter_client import ExporterClient, ExporterError, Refused
from patrolserver_exporter.web.http.requests import not_found_app
from patrolserver_exporter.web.http.web_config import WebConfigFile

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close\r\n"


@contextmanager
def speaking(*parts: bytes, pause: float = 0.0) -> Iterator[str]:
    """Sends these parts to each who connects, with a pause after each, and then nothing more."""
    stop = threading.Event()

    def serve(listener: socket.socket) -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            with client:
                read_request(client)
                _speak(client, parts, pause, stop)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve, args=(listener,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            stop.set()
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()


def _speak(client: socket.socket, parts: Sequence[bytes], pause: float, stop: threading.Event) -> None:
    try:
        for part in parts:
            client.sendall(part)
            if pause:
                stop.wait(pause)
    except OSError:
        return


def client(url: str, timeout: float = 5.0, ca_file: str | None = None) -> ExporterClient:
    return ExporterClient(url, timeout=timeout, ca_file=ca_file)


def test_silence_ends_with_the_timeout() -> None:
    """Who never answers is told of with the flag that says how long to wait."""
    with speaking(b"", pause=60) as url, pytest.raises(ExporterError, match=r"within 300ms \(--timeout\)"):
        client(url, timeout=0.3).get("/status")


def test_an_answer_in_drips_ends_with_the_timeout() -> None:
    """A byte now and then keeps no CI job waiting for ever."""
    drips = [HEAD + b"content-length: 100000\r\n\r\n", b" " * 70_000, *([b" "] * 50)]
    with speaking(*drips, pause=0.2) as url, pytest.raises(ExporterError, match="--timeout"):
        client(url, timeout=0.5).get("/status")


def test_headers_in_drips_end_with_the_timeout() -> None:
    """Neither does a header that never ends."""
    drips = [b"HTTP/1.1 200 OK\r\nx-drip: ", *([b"a"] * 50)]
    with speaking(*drips, pause=0.2) as url, pytest.raises(ExporterError, match=r"within 500ms \(--timeout\)"):
        client(url, timeout=0.5).get("/status")


def test_who_hangs_up_or_speaks_something_else_is_told_apart_from_nobody() -> None:
    """A port where something else listens is not called a port where nothing does, nor plain HTTP a bad certificate."""
    for greeting in (b"", b"SSH-2.0-OpenSSH_9.2\r\n"):
        with speaking(greeting) as url, pytest.raises(ExporterError, match="hung up without an answer in HTTP"):
            client(url).get("/status")
    with serving(not_found_app) as served, pytest.raises(ExporterError, match="is it http:// there"):
        client(f"https://127.0.0.1:{served.port}").get("/status")


def test_half_an_answer_is_none() -> None:
    """A connection that closes in the middle of the body is told of."""
    with speaking(HEAD + b"content-length: 50\r\n\r\n{") as url, pytest.raises(ExporterError):
        client(url).get("/status")


def test_an_endless_answer_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory is bounded, whatever comes."""
    monkeypatch.setattr("patrolserver_exporter.commands.exporter_client.MAX_REPLY_BYTES", 100_000)
    with (
        speaking(HEAD + b"content-length: 10000000\r\n\r\n", *([b" " * 65_536] * 10)) as url,
        pytest.raises(ExporterError, match="too large"),
    ):
        client(url).get("/status")


@pytest.mark.parametrize(
    ("body", "said"),
    [(b"[]", "something else than a list"), (b'{"items":[],"next_cursor":"x"}', "does not end")],
)
def test_a_list_that_is_none_is_told_of(body: bytes, said: str) -> None:
    """Neither another form nor a circle of pages is taken for a list."""
    answer = HEAD + f"content-length: {len(body)}\r\n\r\n".encode() + body
    with speaking(answer) as url, pytest.raises(ExporterError, match=said):
        list(client(url).items("/issues"))


def test_a_refusal_without_a_reason_is_still_one() -> None:
    """A problem that cannot be read is a refusal with its status."""
    head = (
        b"HTTP/1.1 503 No\r\ncontent-type: application/problem+json\r\ncontent-length: 1\r\nconnection: close\r\n\r\n{"
    )
    with speaking(head) as url, pytest.raises(Refused, match="503") as refused:
        client(url).get("/status")
    assert refused.value.status == 503


def test_a_certificate_has_to_be_trusted(tmp_path: Path) -> None:
    """With its authority in --ca-file it is, without it the flag is named."""
    authority = trustme.CA()
    certificate = authority.issue_cert("127.0.0.1")
    certificate.private_key_pem.write_to_path(tmp_path / "key.pem")
    (tmp_path / "cert.pem").write_bytes(b"".join(blob.bytes() for blob in certificate.cert_chain_pems))
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    config = tmp_path / "web.yml"
    config.write_text("tls_server_config: { cert_file: cert.pem, key_file: key.pem }\n")
    with serving(not_found_app, web_config=WebConfigFile(config)) as served:
        url = f"https://127.0.0.1:{served.port}"
        with pytest.raises(ExporterError, match="--ca-file"):
            client(url).get("/status")
        with pytest.raises(Refused, match="404"):
            client(url, ca_file=str(tmp_path / "ca.pem")).get("/status")


@pytest.mark.parametrize(
    "url",
    [
        "http://[::1",
        "http://",
        "nothing",
        "http://127.0.0.1/?a=b",
        "http://127.0.0.1:0",
        "http://127.0.0.1:99999",
        "http://exporter example",
        "http://exporter\x7f",
    ],
)
def test_what_is_no_url_ends_with_2(url: str) -> None:
    """A URL that cannot be asked is a bad flag."""
    with pytest.raises(SystemExit) as ended:
        main(["gate", "web1", f"--exporter-url={url}"])
    assert ended.value.code == 2


def test_a_store_that_cannot_serve_is_a_503_and_unknown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The API says when to come again, and the gate lets nothing pass."""
    with serving_api(f"sqlite:///{tmp_path / 'state.db'}") as api:
        api.store.run(lambda unit: put_server(unit, 1, "web1.example.org", polled_at=1000.0))
        api.store.close()
        response = api.get("/servers")
        assert (response.status_code, int(response.headers["retry-after"]) > 0) == (503, True)
        assert main(["gate", "web1.example.org", f"--exporter-url={api.url}"]) == 4
    assert "503" in capsys.readouterr().out


def test_refreshes_wait_for_their_turn(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the exporter has too many under way, the command asks again, up to its own time."""
    with serving_api(f"sqlite:///{tmp_path / 'state.db'}") as api:
        api.store.run(lambda unit: put_server(unit, 1, "web1.example.org", polled_at=1000.0))
        for _ in range(1000):
            assert api.post("/servers/1/refresh").status_code == 202
        full = api.post("/servers/1/refresh")
        assert (full.status_code, "retry-after" in full.headers) == (429, True)
        monkeypatch.setenv("PATROLSERVER_EXPORTER_TOKEN", OPERATOR_TOKEN)
        command = ["gate", "web1.example.org", f"--exporter-url={api.url}", "--refresh", "--refresh-timeout=300ms"]
        assert main(command) == 4
    assert "did not end within 300ms" in capsys.readouterr().out


def refusing(status: int, *headers: bytes, body: bytes = b"{}") -> bytes:
    """A whole answer that says no."""
    head = [b"HTTP/1.1 %d No" % status, b"content-type: application/problem+json", b"content-length: %d" % len(body)]
    return b"\r\n".join([*head, *headers, b"connection: close", b"", body])


GRANTED = HEAD + b'content-length: 15\r\n\r\n{"accounts":[]}'


@contextmanager
def taking_turns(*answers: bytes) -> Iterator[tuple[str, list[float]]]:
    """Gives each who connects the next answer, the last one for ever; the list has the moments."""
    moments: list[float] = []

    def serve(listener: socket.socket) -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            with client:
                read_request(client)
                client.sendall(answers[min(len(moments), len(answers) - 1)])
                moments.append(time.monotonic())

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve, args=(listener,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}", moments
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()


def test_a_connection_that_was_closed_meanwhile_is_opened_again() -> None:
    """An exporter that restarts between two questions is no failure."""
    with taking_turns(GRANTED.replace(b"connection: close\r\n", b"")) as (url, moments):
        asking = client(url)
        for _ in range(5):
            assert asking.get("/status") == {"accounts": []}
    assert len(moments) == 5


def test_a_connection_is_kept_for_the_next_question() -> None:
    """A list of many pages takes one."""
    asked: list[bytes] = []

    def serve(listener: socket.socket) -> None:
        with listener.accept()[0] as client:
            while question := read_request(client):
                asked.append(question)
                client.sendall(GRANTED.replace(b"connection: close\r\n", b""))

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve, args=(listener,))
        thread.start()
        asking = client(f"http://127.0.0.1:{listener.getsockname()[1]}/prefix/")
        for _ in range(3):
            asking.get("/status", [("a", "b c")])
        del asking
        thread.join(30)
    assert [one.partition(b"\r\n")[0] for one in asked] == [b"GET /prefix//api/v1/status?a=b+c HTTP/1.1"] * 3


@pytest.mark.parametrize("status", [429, 503])
def test_one_that_is_too_busy_is_asked_again_when_it_says(status: int) -> None:
    """After the seconds of Retry-After, as often as it takes."""
    busy = refusing(status, b"retry-after: 1")
    with taking_turns(busy, busy, GRANTED) as (url, moments):
        client(url, timeout=10).post("/gate", {"servers": []})
    first, second, third = moments
    assert second - first > 0.9
    assert third - second > 0.9


@pytest.mark.alone
@pytest.mark.parametrize(
    "answer",
    [
        refusing(503, b"retry-after: 60"),
        refusing(503, b"retry-after: soon"),
        refusing(503),
        refusing(500, b"retry-after: 0"),
        refusing(503, b"retry-after: 1", body=b'{"trouble":"store"}'),
    ],
    ids=["beyond the timeout", "no seconds", "no header", "another status", "a store in trouble"],
)
def test_where_waiting_does_not_help_it_is_told_at_once(answer: bytes) -> None:
    """Nobody waits for a time-out to learn that the gate is unknown."""
    began = time.monotonic()
    with taking_turns(answer) as (url, moments), pytest.raises(Refused):
        client(url, timeout=3).post("/gate", {"servers": []})
    assert len(moments) == 1
    assert time.monotonic() - began < 2


@pytest.mark.alone
def test_waiting_ends_within_the_timeout() -> None:
    """However often the exporter puts one off."""
    began = time.monotonic()
    with taking_turns(refusing(503, b"retry-after: 1")) as (url, moments), pytest.raises(Refused):
        client(url, timeout=2.5).get("/status")
    assert time.monotonic() - began < 3.5
    assert len(moments) == 3
