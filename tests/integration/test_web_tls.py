from __future__ import annotations

import asyncio
import base64
import json
import logging
import os
import socket
import ssl
import time
from functools import partial
from typing import TYPE_CHECKING

import bcrypt
import pytest
import trustme
from cryptography.hazmat.primitives import serialization as pem
from starlette.responses import PlainTextResponse
from tests.serving import eventually, read_to_end, serving

from patrolserver_exporter.config.problem import ConfigError
from patrolserver_exporter.web.access import Guard
from patrolserver_exporter.web.http.protocol import ConnectionLimits, Timeouts, WebEvent
from patrolserver_exporter.web.http.web_config import WebConfigFile

if TYPE_CHECKING:
    from pathlib import Path

    from starlette.types import Receive, Scope, Send
    from tests.serving import Served

REQUEST = b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
PATIENT = ConnectionLimits(timeouts=Timeouts(idle=5, header=5, body=5, handshake=0.4, half_closed=0.2, sweep=0.05))


async def scheme(scope: Scope, receive: Receive, send: Send) -> None:
    await PlainTextResponse(scope["scheme"])(scope, receive, send)


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


def write_certificate(folder: Path, certificate: trustme.LeafCert) -> None:
    """Replace certificate and key, each in one step, as an ACME client does."""
    for name, blobs in (("server.pem", certificate.cert_chain_pems), ("server.key", [certificate.private_key_pem])):
        fresh = folder / f"{name}.new"
        fresh.write_bytes(b"".join(blob.bytes() for blob in blobs))
        fresh.replace(folder / name)


@pytest.fixture
def folder(tmp_path: Path, authority: trustme.CA) -> Path:
    write_certificate(tmp_path, authority.issue_cert("localhost"))
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    return tmp_path


def web_config(folder: Path, *more: str) -> WebConfigFile:
    lines = ["tls_server_config:", "  cert_file: server.pem", "  key_file: server.key", *(f"  {line}" for line in more)]
    (folder / "web.yml").write_text("\n".join(lines) + "\n")
    return WebConfigFile(folder / "web.yml")


def client_context(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context


def fetch(served: Served, context: ssl.SSLContext, name: str = "localhost") -> bytes:
    with served.connect(context, name) as sock:
        sock.sendall(REQUEST)
        return read_to_end(sock)


def is_refused(served: Served, context: ssl.SSLContext) -> bool:
    """Whether there is no answer: with TLS 1.3 a client only learns after its handshake that it was refused."""
    try:
        return fetch(served, context) == b""
    except OSError:
        return True


def serial_number(served: Served, context: ssl.SSLContext) -> str:
    with served.connect(context) as sock:
        assert isinstance(sock, ssl.SSLSocket)
        certificate = sock.getpeercert()
    assert certificate is not None
    return str(certificate["serialNumber"])


def test_https(folder: Path, authority: trustme.CA) -> None:
    """With a certificate the listeners speak TLS, and HTTP/1.1 inside."""
    context = client_context(authority)
    context.set_alpn_protocols(["h2", "http/1.1"])
    with serving(scheme, web_config=web_config(folder)) as served:
        assert served.server.scheme == "https"
        assert fetch(served, context).endswith(b"https")
        with served.connect(context) as sock:
            assert isinstance(sock, ssl.SSLSocket)
            assert sock.selected_alpn_protocol() == "http/1.1"


def test_new_certificate(folder: Path, authority: trustme.CA) -> None:
    """A new certificate is served from the next handshake on, with and without a server name, without a restart."""
    context = client_context(authority)
    with serving(scheme, web_config=web_config(folder)) as served:
        before = serial_number(served, context)
        assert serial_number(served, context) == before
        write_certificate(folder, authority.issue_cert("localhost"))
        assert serial_number(served, context) != before

        before = serial_number(served, context)
        write_certificate(folder, authority.issue_cert("127.0.0.1"))
        nameless = client_context(authority)
        nameless.check_hostname = False
        with served.connect() as sock, nameless.wrap_socket(sock) as secure:
            certificate = secure.getpeercert()
        assert certificate is not None
        assert certificate["serialNumber"] != before


def test_broken_certificate(folder: Path, authority: trustme.CA, caplog: pytest.LogCaptureFixture) -> None:
    """A broken new certificate, or one without its key yet, leaves the old one in force, and is logged once."""
    context = client_context(authority)
    with serving(scheme, web_config=web_config(folder)) as served:
        before = serial_number(served, context)
        for broken in (b"rubbish", authority.issue_cert("localhost").cert_chain_pems[0].bytes()):
            (folder / "server.pem").write_bytes(broken)
            caplog.clear()
            assert [serial_number(served, context) for _ in range(3)] == [before] * 3
            assert [record.getMessage() for record in caplog.records if "cannot be used" in record.getMessage()] == [
                record.getMessage() for record in caplog.records if record.levelname == "ERROR"
            ]
            assert len([record for record in caplog.records if record.levelname == "ERROR"]) == 1
        write_certificate(folder, authority.issue_cert("localhost"))
        assert serial_number(served, context) != before


def test_broken_certificate_at_the_start(folder: Path) -> None:
    """The server does not start on a certificate that cannot be used, and names the file."""
    (folder / "server.key").write_text("rubbish")
    with pytest.raises(ConfigError, match=r"server\.pem: .*server\.key"), serving(web_config=web_config(folder)):
        pass


def test_key_with_passphrase(folder: Path) -> None:
    """A key with a passphrase is refused; nobody is asked for it on a terminal."""
    key = pem.load_pem_private_key((folder / "server.key").read_bytes(), None)
    locked = key.private_bytes(pem.Encoding.PEM, pem.PrivateFormat.PKCS8, pem.BestAvailableEncryption(b"canary"))
    (folder / "server.key").write_bytes(locked)
    with pytest.raises(ConfigError, match="without passphrase"), serving(web_config=web_config(folder)):
        pass


def test_client_certificate(folder: Path, authority: trustme.CA) -> None:
    """With RequireAndVerifyClientCert only clients of the given authority get an answer."""
    config = web_config(folder, "client_ca_file: ca.pem", "client_auth_type: RequireAndVerifyClientCert")
    stranger = trustme.CA()
    with serving(scheme, web_config=config) as served:
        context = client_context(authority)
        authority.issue_cert("prometheus@example.org").configure_cert(context)
        assert fetch(served, context).endswith(b"https")

        for issuer in (None, stranger):
            context = client_context(authority)
            if issuer:
                issuer.issue_cert("prometheus@example.org").configure_cert(context)
            assert is_refused(served, context)

        # Trust follows the file: the next handshake is with the other authority.
        stranger.cert_pem.write_to_path(folder / "ca.pem")
        context = client_context(authority)
        stranger.issue_cert("prometheus@example.org").configure_cert(context)
        assert fetch(served, context).endswith(b"https")
        context = client_context(authority)
        authority.issue_cert("prometheus@example.org").configure_cert(context)
        assert is_refused(served, context)


def test_client_certificate_if_given(folder: Path, authority: trustme.CA) -> None:
    """With VerifyClientCertIfGiven a client may come without, but not with a stranger's."""
    config = web_config(folder, "client_ca_file: ca.pem", "client_auth_type: VerifyClientCertIfGiven")
    with serving(scheme, web_config=config) as served:
        assert fetch(served, client_context(authority)).endswith(b"https")
        context = client_context(authority)
        trustme.CA().issue_cert("prometheus@example.org").configure_cert(context)
        assert is_refused(served, context)


def test_client_names(folder: Path, authority: trustme.CA) -> None:
    """With client_allowed_sans a client needs one of the names too."""
    config = web_config(
        folder,
        "client_ca_file: ca.pem",
        "client_auth_type: RequireAndVerifyClientCert",
        "client_allowed_sans: [prometheus.example.org, 192.0.2.7]",
    )
    with serving(scheme, web_config=config) as served:
        for name in ("prometheus.example.org", "192.0.2.7"):
            context = client_context(authority)
            authority.issue_cert(name).configure_cert(context)
            assert fetch(served, context).endswith(b"https")
        context = client_context(authority)
        authority.issue_cert("other.example.org").configure_cert(context)
        answer = fetch(served, context)
        assert answer.startswith(b"HTTP/1.1 403 ")
        assert b"client_allowed_sans" in answer
        eventually(lambda: served.events == [WebEvent.CERTIFICATE_REFUSED])


@pytest.mark.parametrize(
    ("setting", "version", "cipher"),
    [
        ("min_version: TLS13", ssl.TLSVersion.TLSv1_2, None),
        ("max_version: TLS12", ssl.TLSVersion.TLSv1_3, None),
        (
            "cipher_suites: [TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384]",
            ssl.TLSVersion.TLSv1_2,
            "ECDHE-ECDSA-AES128-GCM-SHA256",
        ),
        (
            "cipher_suites: [TLS_AES_128_GCM_SHA256, TLS_CHACHA20_POLY1305_SHA256, TLS_AES_256_GCM_SHA384]",
            ssl.TLSVersion.TLSv1_2,
            None,
        ),
    ],
)
def test_versions_and_suites(
    folder: Path, authority: trustme.CA, setting: str, version: ssl.TLSVersion, cipher: str | None
) -> None:
    """What the file rules out is refused in the handshake."""
    with serving(scheme, web_config=web_config(folder, setting)) as served:
        assert fetch(served, client_context(authority)).endswith(b"https")
        context = client_context(authority)
        context.minimum_version = context.maximum_version = version
        if cipher:
            context.set_ciphers(cipher)
        with pytest.raises(ssl.SSLError):
            fetch(served, context)


@pytest.mark.parametrize("setting", ["curve_preferences: [CurveP384]", "prefer_server_cipher_suites: false"])
def test_other_settings(folder: Path, authority: trustme.CA, setting: str) -> None:
    """The remaining keys that OpenSSL can honour do not stand in the way."""
    with serving(scheme, web_config=web_config(folder, setting)) as served:
        assert fetch(served, client_context(authority)).endswith(b"https")


@pytest.mark.promise("refusals")
@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "PUT", "OPTIONS", "DELETE"])
def test_plain_http_is_told_of_tls(folder: Path, caplog: pytest.LogCaptureFixture, method: str) -> None:
    """In the words of Go's servers, however much the client sends; and the log says who it was."""
    caplog.set_level(logging.INFO)
    with serving(scheme, web_config=web_config(folder)) as served:
        answer = served.exchange(f"{method} /webhook/canary HTTP/1.1\r\nHost: x\r\n\r\n".encode() + b"x" * 100_000)
        assert answer == b"HTTP/1.0 400 Bad Request\r\n\r\nClient sent an HTTP request to an HTTPS server.\n"
        eventually(lambda: "A TLS handshake failed" in caplog.text)
    fields = next(vars(one)["fields"] for one in caplog.records if "handshake" in one.getMessage())
    assert fields == {"client": "127.0.0.1", "err": "the client sent an HTTP request to an HTTPS server"}
    assert "canary" not in caplog.text


@pytest.mark.promise("refusals")
@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_a_client_that_is_refused_gets_the_alert_that_says_why(
    folder: Path, authority: trustme.CA, version: ssl.TLSVersion, caplog: pytest.LogCaptureFixture
) -> None:
    """Not a bare end of the connection; the log has the reason in words."""
    caplog.set_level(logging.INFO)
    config = web_config(folder, "client_ca_file: ca.pem", "client_auth_type: RequireAndVerifyClientCert")
    with serving(scheme, web_config=config) as served:
        for issuer, alert, said in (
            (None, "required|HANDSHAKE_FAILURE|handshake failure", "the client has no certificate"),
            (trustme.CA(), "(?i)unknown.ca", "the client's certificate is not trusted"),
        ):
            context = client_context(authority)
            context.minimum_version = context.maximum_version = version
            if issuer:
                issuer.issue_cert("prometheus@example.org").configure_cert(context)
            with pytest.raises(ssl.SSLError, match=alert):
                fetch(served, context)
            eventually(partial(is_said, caplog, said))


@pytest.mark.promise("refusals")
def test_a_client_that_does_not_trust_us_is_told_of(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Its operator sees an error without a cause."""
    caplog.set_level(logging.INFO)
    with serving(scheme, web_config=web_config(folder)) as served:
        with pytest.raises(ssl.SSLError), served.connect(ssl.create_default_context()):
            pass
        eventually(partial(is_said, caplog, "does not trust"))


def is_said(caplog: pytest.LogCaptureFixture, why: str) -> bool:
    """Whether a line says that of a handshake that failed."""
    failed = [record for record in caplog.records if record.getMessage() == "A TLS handshake failed"]
    return any(why in vars(one)["fields"]["err"] for one in failed)


@pytest.mark.parametrize(
    "suite", ["AES128-GCM-SHA256", "AES256-SHA", "ECDHE-ECDSA-AES128-SHA", "ECDHE-ECDSA-AES256-SHA384"]
)
def test_only_forward_secrecy_with_authenticated_ciphers(folder: Path, authority: trustme.CA, suite: str) -> None:
    """Neither static RSA nor CBC is offered with TLS 1.2, unless it is configured."""
    context = client_context(authority)
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    with serving(scheme, web_config=web_config(folder)) as served:
        with served.connect(context) as sock:
            assert isinstance(sock, ssl.SSLSocket)
            chosen = sock.cipher()
        assert chosen is not None
        assert chosen[0].startswith("ECDHE-ECDSA-")
        assert chosen[0].endswith(("-GCM-SHA256", "-GCM-SHA384", "-POLY1305"))
        context.set_ciphers(f"{suite}:@SECLEVEL=0")
        with pytest.raises(ssl.SSLError), served.connect(context):
            pass
    with serving(
        scheme, web_config=web_config(folder, "cipher_suites: [TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA]")
    ) as served:
        context.set_ciphers("ECDHE-ECDSA-AES128-SHA")
        assert fetch(served, context).endswith(b"https")


def inline(folder: Path, key: str, file: str) -> str:
    """A line of ``tls_server_config`` with a file's text."""
    return f"{key}: {json.dumps((folder / file).read_text())}"


def test_all_inline(folder: Path, authority: trustme.CA) -> None:
    """Certificate, key and authority may stand in the file itself, and follow it without a restart."""
    lines = [
        "tls_server_config:",
        f"  {inline(folder, 'cert', 'server.pem')}",
        f"  {inline(folder, 'key', 'server.key')}",
    ]
    lines += [f"  {inline(folder, 'client_ca', 'ca.pem')}", "  client_auth_type: RequireAndVerifyClientCert"]
    (folder / "web.yml").write_text("\n".join(lines))
    with serving(scheme, web_config=WebConfigFile(folder / "web.yml")) as served:
        context = client_context(authority)
        assert is_refused(served, context)
        authority.issue_cert("prometheus@example.org").configure_cert(context)
        assert fetch(served, context).endswith(b"https")
        before = serial_number(served, context)
        write_certificate(folder, authority.issue_cert("localhost"))
        lines[1:3] = [f"  {inline(folder, 'cert', 'server.pem')}", f"  {inline(folder, 'key', 'server.key')}"]
        (folder / "web.yml").write_text("\n".join(lines))
        assert serial_number(served, context) != before


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("key", "is no pair of a certificate and its key without passphrase with tls_server_config.key"),
        ("client_ca", "tls_server_config.client_ca: holds no certificates in PEM"),
    ],
)
def test_inline_rubbish_is_refused_at_the_start(folder: Path, key: str, message: str) -> None:
    """With the key that it is in, and without its text."""
    lines = {"cert_file": "server.pem", "key_file": "server.key", "client_auth_type": "VerifyClientCertIfGiven"}
    lines.pop(f"{key}_file", None)
    lines[key] = '"-----BEGIN X-----\\ncanary\\n-----END X-----"'
    (folder / "web.yml").write_text(
        f"tls_server_config: {{{', '.join(f'{one}: {text}' for one, text in lines.items())}}}"
    )
    with pytest.raises(ConfigError) as caught, serving(web_config=WebConfigFile(folder / "web.yml")):
        pass
    assert message in str(caught.value)
    assert "canary" not in str(caught.value)


def test_without_an_authority_the_systems_count(
    folder: Path, authority: trustme.CA, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As with Go's exporters."""
    monkeypatch.setenv("SSL_CERT_FILE", str(folder / "ca.pem"))
    with serving(scheme, web_config=web_config(folder, "client_auth_type: RequireAndVerifyClientCert")) as served:
        context = client_context(authority)
        authority.issue_cert("prometheus@example.org").configure_cert(context)
        assert fetch(served, context).endswith(b"https")
        context = client_context(authority)
        trustme.CA().issue_cert("prometheus@example.org").configure_cert(context)
        assert is_refused(served, context)


@pytest.mark.alone
def test_stalled_handshake(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A client that does not finish the handshake is closed in time; rubbish at once; neither is worth a log line."""
    with serving(scheme, web_config=web_config(folder), limits=PATIENT) as served:
        for start in (b"", b"\x16\x03\x01\x02\x00\x01"):
            began = time.monotonic()
            with served.connect() as sock:
                sock.sendall(start)
                read_to_end(sock)
            assert 0.3 < time.monotonic() - began < 3
        began = time.monotonic()
        with served.connect() as sock:
            sock.sendall(REQUEST)
            read_to_end(sock)
        assert time.monotonic() - began < 0.3
    assert [record for record in caplog.records if record.levelname in {"WARNING", "ERROR"}] == []


@pytest.mark.alone
def test_slow_clients_within_tls(folder: Path, authority: trustme.CA) -> None:
    """Behind the handshake the limits are those of plain HTTP."""
    with serving(scheme, web_config=web_config(folder)) as served:
        for start, event in ((b"", WebEvent.IDLE), (b"GET / HTTP/1.1\r\nX: ", WebEvent.HEADER_TIMEOUT)):
            began = time.monotonic()
            with served.connect(client_context(authority)) as sock:
                sock.sendall(start)
                read_to_end(sock)
            assert time.monotonic() - began < 3
            assert served.events[-1] is event
        # Neither does a client stay that never answers TLS's farewell.
        with served.connect() as raw, client_context(authority).wrap_socket(raw, server_hostname="localhost"):
            eventually(lambda: served.server.connections == 1)
            eventually(lambda: served.server.connections == 0)


def test_large_answer(folder: Path, authority: trustme.CA) -> None:
    """A large answer arrives whole before the connection is closed."""
    body = os.urandom(8 * 1024 * 1024)

    async def large(scope: Scope, receive: Receive, send: Send) -> None:
        await PlainTextResponse(body)(scope, receive, send)

    with serving(large, web_config=web_config(folder)) as served:
        assert fetch(served, client_context(authority)).endswith(body)


def hashed(password: str) -> str:
    return bcrypt.hashpw(password.encode(), bcrypt.gensalt(4)).decode()


def get(served: Served, path: str, *headers: str) -> tuple[int, bytes]:
    head = [f"GET {path} HTTP/1.1", "Host: localhost", "Connection: close", *headers, "", ""]
    answer = served.exchange("\r\n".join(head).encode())
    return int(answer.split(b" ", 2)[1]), answer


def basic(name: str, password: str) -> str:
    return "Authorization: Basic " + base64.b64encode(f"{name}:{password}".encode()).decode()


def test_users_are_read_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A user who is added, changed or removed counts from the next request on; a broken file changes nothing."""
    path = tmp_path / "web.yml"
    path.write_text(f"basic_auth_users: {{alice: {hashed('one')}}}\n")
    config = WebConfigFile(path)
    with serving(Guard(scheme, config), web_config=config) as served:
        assert get(served, "/metrics", basic("alice", "one"))[0] == 200
        assert get(served, "/metrics")[0] == 401
        path.write_text(f"basic_auth_users: {{alice: {hashed('two')}, bob: {hashed('three')}}}\n")
        assert get(served, "/metrics", basic("alice", "one"))[0] == 401
        assert get(served, "/metrics", basic("alice", "two"))[0] == 200
        assert get(served, "/metrics", basic("bob", "three"))[0] == 200

        path.write_text("basic_auth_users: {alice: canary}\n")
        assert get(served, "/metrics", basic("alice", "two"))[0] == 200
        assert get(served, "/metrics", basic("bob", "wrong"))[0] == 401
        assert caplog.text.count("the old one stays in force") == 1
        assert "canary" not in caplog.text

        path.write_text("")
        assert get(served, "/metrics")[0] == 200


def test_headers_and_rate_limit(tmp_path: Path) -> None:
    """The configured headers are on every answer, refusals too, in place of the application's own."""
    path = tmp_path / "web.yml"
    path.write_text(
        "http_server_config: {headers: {X-Frame-Options: deny, Strict-Transport-Security: max-age=60}}\n"
        "rate_limit: {interval: 1m, burst: 2}\n"
    )
    config = WebConfigFile(path)

    async def framed(scope: Scope, receive: Receive, send: Send) -> None:
        await PlainTextResponse("ok", headers={"x-frame-options": "sameorigin"})(scope, receive, send)

    now = [0.0]
    with serving(Guard(framed, config, monotonic=lambda: now[0])) as served:
        answers = [get(served, "/metrics") for _ in range(3)]
        now[0] = 59.0
        answers.append(get(served, "/metrics"))
        now[0] = 61.0
        answers.append(get(served, "/metrics"))
        healthy = [get(served, "/-/healthy")[0] for _ in range(5)]

    assert [status for status, _ in answers] == [200, 200, 429, 429, 200]
    for _, answer in answers:
        assert answer.lower().count(b"x-frame-options: deny\r\n") == 1
        assert b"sameorigin" not in answer
        assert b"strict-transport-security: max-age=60" in answer
    assert b"retry-after: 60\r\n" in answers[2][1]
    assert healthy == [200] * 5


@pytest.mark.alone
def test_bcrypt_does_not_stop_the_loop(tmp_path: Path) -> None:
    """While passwords are checked others are served, and too many checks are turned away rather than queued."""
    path = tmp_path / "web.yml"
    slow_hash = bcrypt.hashpw(b"right", bcrypt.gensalt(8)).decode()
    path.write_text(f"basic_auth_users: {{alice: {slow_hash}}}\n")
    config = WebConfigFile(path)

    async def ask(port: int, number: int) -> int:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(f"GET /metrics HTTP/1.1\r\nHost: localhost\r\n{basic('alice', f'wrong{number}')}\r\n\r\n".encode())
        status = int((await reader.readline()).split()[1])
        writer.close()
        await writer.wait_closed()
        return status

    async def flood(port: int) -> list[int]:
        return await asyncio.gather(*(ask(port, number) for number in range(80)))

    with serving(Guard(scheme, config), limits=PATIENT) as served:
        flooding = asyncio.run_coroutine_threadsafe(flood(served.port), served.loop)
        slowest = 0.0
        while not flooding.done():
            began = time.monotonic()
            assert get(served, "/-/healthy")[0] == 200
            slowest = max(slowest, time.monotonic() - began)
            time.sleep(0.01)
        statuses = flooding.result()

    assert set(statuses) == {401, 503}
    assert statuses.count(503) >= 10
    assert slowest < 1


def test_reset_by_the_client() -> None:
    """A client that resets its connection in the middle of everything does no harm."""
    with serving(scheme) as served:
        for start in (b"", b"GET /", REQUEST):
            with served.connect() as sock:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
                sock.sendall(start)
        assert served.exchange(REQUEST).endswith(b"http")
        eventually(lambda: served.server.connections == 0)
