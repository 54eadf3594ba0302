from __future__ import annotations

import ssl
from typing import TYPE_CHECKING

import bcrypt
import pytest

from patrolserver_exporter.config.problem import ConfigError
from patrolserver_exporter.web.http.web_config import (
    SAFE,
    RateLimit,
    WebConfig,
    WebConfigFile,
    load_web_config,
    warnings_of,
)

if TYPE_CHECKING:
    from pathlib import Path

# The same on every run, since names of tests hold it and pytest-xdist compares these.
HASH = bcrypt.hashpw(b"secret", b"$2b$04$" + 22 * b".").decode()
PAIR = "cert_file: s.pem, key_file: s.key"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("s.pem", "s.key", "ca.pem"):
        (tmp_path / name).write_text("")
    return tmp_path


def load(folder: Path, text: str) -> WebConfig:
    (folder / "web.yml").write_text(text)
    return load_web_config(folder / "web.yml")


@pytest.mark.parametrize("text", ["", "\n# nothing yet\n", "{}\n", "tls_server_config:\nbasic_auth_users: {}\n"])
def test_empty(folder: Path, text: str) -> None:
    """An empty file means plain HTTP for all, as without a file."""
    assert load(folder, text) == WebConfig()


def test_all_keys(folder: Path) -> None:
    """Every key that can be honoured is read; paths start at the file's folder."""
    config = load(
        folder,
        f"""
tls_server_config:
  cert_file: s.pem
  key_file: {folder}/s.key
  client_ca_file: ca.pem
  client_auth_type: RequireAndVerifyClientCert
  client_allowed_sans: [prometheus.example.org]
  min_version: TLS12
  max_version: TLS13
  cipher_suites: [TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256, TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256]
  curve_preferences: [X25519]
  prefer_server_cipher_suites: no
http_server_config:
  http2: false
  headers:
    Content-Security-Policy: default-src 'self'
    X-Frame-Options: sameorigin
    X-Content-Type-Options: nosniff
    X-XSS-Protection: "1"
    Strict-Transport-Security: max-age=31536000
basic_auth_users:
  alice: {HASH}
rate_limit:
  interval: 500ms
  burst: 20
""",
    )
    tls = config.tls_server_config
    assert tls is not None
    assert tls.files == (folder / "s.pem", folder / "s.key", folder / "ca.pem")
    assert tls.client_auth_type is ssl.CERT_REQUIRED
    assert tls.client_allowed_sans == ("prometheus.example.org",)
    assert tls.cipher_suites == (
        "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256",
        "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256",
    )
    assert tls.curve_preferences == ("X25519",)
    assert not tls.prefer_server_cipher_suites
    assert dict(config.http_server_config.headers)["X-XSS-Protection"] == "1"
    assert config.basic_auth_users == {"alice": HASH}
    assert config.rate_limit == RateLimit(interval=0.5, burst=20)
    assert HASH not in repr(config)


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("tls_server_conf: {}", 1, "did you mean tls_server_config?"),
        ("tls_server_config: {certfile: x}", 1, "did you mean cert_file?"),
        ("rate_limit:\n  burst: 1\n  bursts: 1", 3, "did you mean burst?"),
        ("rate_limit: {}\nrate_limit: {}", 2, "given twice"),
        ("tls_server_config: {min_version: TLS12}", 1, "cert_file: is missing"),
        ("tls_server_config: {cert_file: null, key_file: s.key}", 1, "cert_file: is missing"),
        ('tls_server_config: {cert_file: "", key_file: s.key}', 1, "cert_file: is missing"),
        (f"tls_server_config: {{{PAIR}, client_auth_type:VerifyClientCertIfGiven}}", 1, "colon of client_auth_type"),
        (f"tls_server_config: {{{PAIR}, min_version:TLS13}}", 1, "needs a blank behind the colon of min_version"),
        (f"tls_server_config: {{{PAIR}, client_auth: }}", 1, "did you mean client_auth_type?"),
        ("http_server_config: {http2:false}", 1, "needs a blank behind the colon of http2"),
        ("http_server_config: {http2: maybe}", 1, "http_server_config.http2: needs one of true, false"),
        ("basic_auth_users:\n  alice:canary", 2, "needs a blank behind the colon of a key"),
        ("basic_auth_users: {alice:canary}", 1, "needs a blank behind the colon of a key"),
        ('tls_server_config: {cert_file: "", key_file: ""}', 1, "cert_file: is missing"),
        ("tls_server_config: {cert_file: s.pem}", 1, "key_file: is missing"),
        ("tls_server_config: {cert_file: none.pem, key_file: s.key}", 1, "cert_file: is no file"),
        (f"tls_server_config: {{{PAIR}, cert: canary}}", 1, "cert: needs PEM"),
        (f"tls_server_config: {{{PAIR}, key: canary}}", 1, "key: needs PEM"),
        (f"tls_server_config: {{{PAIR}, client_ca: canary}}", 1, "client_ca: needs PEM"),
        (f"tls_server_config: {{{PAIR}, cert: '-----BEGIN canary'}}", 1, "cert: is given, and cert_file too"),
        (f"tls_server_config: {{{PAIR}, key: '-----BEGIN canary'}}", 1, "key: is given, and key_file too"),
        (f"tls_server_config: {{{PAIR}, client_ca: '-----BEGIN canary'}}", 1, "client_ca: is without effect"),
        (f"tls_server_config: {{{PAIR}, client_ca_file: ca.pem}}", 1, "is without effect"),
        (f"tls_server_config: {{{PAIR}, client_auth_type: RequireClientCert}}", 1, "takes certificates unverified"),
        (f"tls_server_config: {{{PAIR}, client_auth_type: RequestClientCert}}", 1, "takes certificates unverified"),
        (f"tls_server_config: {{{PAIR}, client_auth_type: RequireAnyClientCert}}", 1, "takes certificates unverified"),
        (f"tls_server_config: {{{PAIR}, client_auth_type: Maybe}}", 1, "needs one of NoClientCert, Verify"),
        (f"tls_server_config: {{{PAIR}, client_allowed_sans: [a]}}", 1, "needs client_auth_type"),
        (f"tls_server_config: {{{PAIR}, min_version: TLS10}}", 1, "too old"),
        (f"tls_server_config: {{{PAIR}, max_version: TLS11}}", 1, "too old"),
        (f"tls_server_config: {{{PAIR}, min_version: SSL3}}", 1, "needs one of TLS13, TLS12"),
        (f"tls_server_config: {{{PAIR}, min_version: TLS13, max_version: TLS12}}", 1, "is above max_version"),
        (f"tls_server_config: {{{PAIR}, cipher_suites: [TLS_RSA_WITH_RC4_128_SHA]}}", 1, "is no cipher suite"),
        (f"tls_server_config: {{{PAIR}, cipher_suites: [TLS_AES_128_GCM_SHA256]}}", 1, "all three"),
        (f"tls_server_config: {{{PAIR}, curve_preferences: [CurveP256, X25519]}}", 1, "one curve only"),
        (f"tls_server_config: {{{PAIR}, curve_preferences: [P256]}}", 1, "needs one of CurveP256"),
        ("http_server_config:\n  http2: true", 2, "only HTTP/1.1 is served"),
        ("http_server_config:\n  headers:\n    Server: x", 3, "needs one of Content-Security-Policy"),
        ("http_server_config: {headers: {X-Frame-Options: allow}}", 1, "needs one of deny, sameorigin"),
        ("http_server_config: {headers: {X-Content-Type-Options: no}}", 1, "needs one of nosniff"),
        ('http_server_config: {headers: {X-XSS-Protection: "a\\nb"}}', 1, "printable ASCII on one line"),
        ("basic_auth_users:\n  alice: canary", 2, "needs a bcrypt hash"),
        ("basic_auth_users: [alice]", 1, "needs keys and values"),
        (f'basic_auth_users: {{"a:b": "{HASH}"}}', 1, "is no user's name"),
        ("basic_auth_users: {alice: !file s.key}", 1, "may not use !env or !file here"),
        ("rate_limit: {interval: 1s}", 1, "burst: is missing or 0"),
        ("rate_limit: {interval: 1, burst: 1}", 1, "needs a duration with a unit"),
        ("- a", 1, "needs keys and values"),
        ("a: [", 2, "is not YAML"),
    ],
)
def test_refused(folder: Path, text: str, line: int, message: str) -> None:
    """What is unknown, wrong or cannot be honoured is refused with the line and what to do, and no secret shows."""
    with pytest.raises(ConfigError) as caught:
        load(folder, text)

    assert message in str(caught.value)
    assert f"web.yml:{line}:" in str(caught.value)
    assert "canary" not in str(caught.value)


def test_certificate_key_and_authority_may_be_inline(folder: Path) -> None:
    """As Go's exporters take them; what is inline is no file, and a key does not show."""
    pem = "-----BEGIN X-----\\ncanary\\n-----END X-----\\n"
    text = f'cert: "{pem}", key: "{pem}", client_ca: "{pem}", client_auth_type: VerifyClientCertIfGiven, cert_file: ""'
    tls = load(folder, f"tls_server_config: {{{text}}}").tls_server_config
    assert tls is not None
    assert tls.key == tls.cert == tls.client_ca == "-----BEGIN X-----\ncanary\n-----END X-----\n"
    assert tls.files == ()
    assert not tls.trusts_system_roots
    assert "key=" not in repr(tls)


@pytest.mark.parametrize(
    ("more", "warns"),
    [
        ("", False),
        (", client_auth_type: ''", False),
        (", client_auth_type: NoClientCert", False),
        (", client_auth_type: VerifyClientCertIfGiven", True),
        (", client_auth_type: RequireAndVerifyClientCert", True),
        (", client_auth_type: RequireAndVerifyClientCert, client_ca_file: ca.pem", False),
        (", client_auth_type: RequireAndVerifyClientCert, client_allowed_sans: [prometheus.example.org]", False),
    ],
)
def test_authorities_of_the_system_are_warned_of(folder: Path, more: str, *, warns: bool) -> None:
    """Whoever asks for certificates and names no authority lets many in, unless the clients are named."""
    config = load(folder, f"tls_server_config: {{{PAIR}{more}}}")
    assert bool(warnings_of(config)) is warns


@pytest.mark.parametrize("key", ["min_version", "client_auth_type", "curve_preferences"])
def test_what_python_cannot_do_is_refused_by_name(folder: Path, key: str) -> None:
    """Rather than left out: whoever wrote it relies on it."""
    unable = {
        "min_version": "TLS10",
        "client_auth_type": "RequireAnyClientCert",
        "curve_preferences": "[CurveP256, CurveP384, CurveP521, X25519]",
    }
    with pytest.raises(ConfigError, match=f"tls_server_config.{key}"):
        load(folder, f"tls_server_config: {{{PAIR}, {key}: {unable[key]}}}")


def test_suites_that_are_offered_by_themselves_are_safe() -> None:
    """Those of static RSA and CBC have to be named."""
    assert len(SAFE) == 6
    assert all(
        name.startswith("ECDHE-") and name.endswith(("-GCM-SHA256", "-GCM-SHA384", "-POLY1305")) for name in SAFE
    )


@pytest.mark.parametrize(("mode", "warns"), [(0o644, True), (0o640, False)])
def test_a_key_that_everyone_may_read_is_warned_of(folder: Path, mode: int, *, warns: bool) -> None:
    """It stands in the file itself, which others may share."""
    config = load(folder, 'tls_server_config: {cert_file: s.pem, key: "-----BEGIN canary"}')
    (folder / "web.yml").chmod(mode)
    said = warnings_of(config, folder / "web.yml")
    assert bool(said) is warns
    assert "canary" not in "".join(said)


def test_all_suites_of_tls_1_3(folder: Path) -> None:
    """The suites of TLS 1.3 may be listed when all of them are, as they are all on."""
    suites = "TLS_AES_128_GCM_SHA256, TLS_CHACHA20_POLY1305_SHA256, TLS_AES_256_GCM_SHA384"
    tls = load(folder, f"tls_server_config: {{{PAIR}, cipher_suites: [{suites}]}}").tls_server_config

    assert tls is not None
    assert len(tls.cipher_suites) == 3


def test_missing_file(tmp_path: Path) -> None:
    """A file that cannot be read is named, with the flag that named it."""
    with pytest.raises(ConfigError, match=r"none\.yml: cannot be read .*--web\.config\.file"):
        load_web_config(tmp_path / "none.yml")


def test_current(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The file is read again when it has changed; removed or broken it stays in force as it was."""
    path = folder / "web.yml"
    path.write_text(f"basic_auth_users: {{alice: {HASH}}}\n")
    file = WebConfigFile(path)
    before = file.current()
    assert file.current() is before

    path.write_text(f"basic_auth_users: {{bob: {HASH}}}\n")
    assert dict(file.current().basic_auth_users) == {"bob": HASH}
    path.write_text("basic_auth_users: {carol: wrong}\n")
    assert dict(file.current().basic_auth_users) == {"bob": HASH}
    path.unlink()
    assert dict(file.current().basic_auth_users) == {"bob": HASH}
    assert caplog.text.count("stays in force") == 2

    path.write_text(f"tls_server_config: {{{PAIR}}}\n")
    assert file.current().tls_server_config is not None
    assert "takes effect after a restart" in caplog.text
