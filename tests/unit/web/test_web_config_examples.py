"""The 41 examples that exporter-toolkit tests its ``--web.config.file`` with, by their names there, in our own words.

What Go takes is taken, what it refuses is refused, and what Python's TLS cannot do is refused by name. Four differ, as
the comments say. ``client_san.bad`` is taken by both: it only names another client.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import bcrypt
import pytest
import trustme

from patrolserver_exporter.config.problem import ConfigError
from patrolserver_exporter.web.http.tls import build_context
from patrolserver_exporter.web.http.web_config import TLS12, TLS13, WebConfig, load_web_config, warnings_of

if TYPE_CHECKING:
    from pathlib import Path

PAIR = "cert_file: server.crt, key_file: server.key"
IF_GIVEN = f"{PAIR}, client_auth_type: VerifyClientCertIfGiven"
SANS = f"{PAIR}, client_auth_type: RequireAndVerifyClientCert, client_ca_file: ca.pem"
HASH = bcrypt.hashpw(b"canary", b"$2b$04$" + 22 * b".").decode()
HEADERS = "http_server_config: {headers: {X-Frame-Options: deny, Strict-Transport-Security: max-age=31536000}}"


def tls(text: str) -> str:
    return f"tls_server_config: {{{text}}}\n"


class Good(NamedTuple):
    """What an example says."""

    text: str
    warns: bool = False
    """Any authority of the system lets a client in; Go says nothing of it."""


GOOD = {
    "web_config_empty.yml": Good(""),
    "web_config_headers.good.yml": Good(
        "http_server_config: {headers: {X-Frame-Options: deny, X-Content-Type-Options: nosniff, X-XSS-Protection: 1,"
        " Strict-Transport-Security: max-age=31536000; includeSubDomains, Content-Security-Policy: default-src *}}"
    ),
    "web_config_noAuth.good.yml": Good(tls(IF_GIVEN), warns=True),
    "web_config_noAuth.good.blocking.yml": Good(
        tls(f"{PAIR}, client_auth_type: RequireAndVerifyClientCert"), warns=True
    ),
    "web_config_noAuth_allCiphers.good.yml": Good(
        tls(f"{IF_GIVEN}, cipher_suites: [{', '.join((*TLS12, *TLS13))}]"), warns=True
    ),
    "web_config_noAuth_someCiphers.good.yml": Good(
        tls(
            f"{IF_GIVEN}, min_version: TLS12, max_version: TLS12, cipher_suites:"
            " [TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256, TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384]"
        ),
        warns=True,
    ),
    "web_config_noAuth_someCiphers_noOrder.good.yml": Good(
        tls(f"{IF_GIVEN}, prefer_server_cipher_suites: false, cipher_suites: [TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256]"),
        warns=True,
    ),
    "web_config_noAuth_someCurves.good.yml": Good(
        tls(f"{IF_GIVEN}, min_version: TLS13, curve_preferences: [CurveP521]"), warns=True
    ),
    "web_config_noAuth_noHTTP2.good.yml": Good(
        tls(f"{IF_GIVEN}, max_version: TLS12, cipher_suites: [TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384]")
        + "http_server_config: {http2: false}",
        warns=True,
    ),
    # Refused by Go, since HTTP/2 needs another cipher; here there is no HTTP/2.
    "web_config_noAuth_noHTTP2Cipher.bad.yml": Good(
        tls(f"{IF_GIVEN}, max_version: TLS12, cipher_suites: [TLS_RSA_WITH_AES_128_CBC_SHA]"), warns=True
    ),
    "web_config_noAuth_tlsInline.good.yml": Good(
        "tls_server_config:\n  client_auth_type: VerifyClientCertIfGiven\n  cert: |\n$CERT\n  key: |\n$KEY\n",
        warns=True,
    ),
    "tls_config_noAuth.requireandverifyclientcert.good.yml": Good(tls(SANS)),
    "web_config_auth_client_san.good.yaml": Good(tls(f"{SANS}, client_allowed_sans: [one, test3, two]")),
    "web_config_auth_client_san.bad.yaml": Good(tls(f"{SANS}, client_allowed_sans: [bad]")),
    "web_config_users.good.yml": Good(f"{tls(PAIR)}basic_auth_users: {{alice: {HASH}, bob: {HASH}}}"),
    "web_config_users_noTLS.good.yml": Good(f"basic_auth_users: {{alice: {HASH}}}"),
    "web_config_rate_limiter_nonblocking.yaml": Good("rate_limit: {interval: 0, burst: 0}"),
    "web_config_rate_limiter_one_second.yaml": Good("rate_limit: {interval: 1s, burst: 1}"),
    "web_config_rate_limiter_headers.yaml": Good(f"rate_limit: {{interval: 1h, burst: 1}}\n{HEADERS}"),
}

REFUSED = {
    "web_config_junk.yml": ("canary", "needs keys and values"),
    "web_config_junk_key.yml": (tls(f"{PAIR}, canary_key: 1"), "canary_key"),
    "web_config_noAuth_certPath_empty.bad.yml": (tls('cert_file: "", key_file: server.key'), "cert_file: is missing"),
    "web_config_noAuth_cert_empty.bad.yml": (tls('cert: "", key_file: server.key'), "cert_file: is missing"),
    "web_config_noAuth_keyPath_empty.bad.yml": (tls('cert_file: server.crt, key_file: ""'), "key_file: is missing"),
    "web_config_noAuth_key_empty.bad.yml": (tls('cert_file: server.crt, key: ""'), "key_file: is missing"),
    "web_config_noAuth_certPath_keyPath_empty.bad.yml": (tls('cert_file: "", key_file: ""'), "cert_file: is missing"),
    "web_config_noAuth_certPath_invalid.bad.yml": (tls("cert_file: no, key_file: server.key"), "cert_file: is no file"),
    "web_config_noAuth_keyPath_invalid.bad.yml": (tls("cert_file: server.crt, key_file: no"), "key_file: is no file"),
    "web_config_noAuth_certPath_keyPath_invalid.bad.yml": (tls("cert_file: no, key_file: no"), "cert_file: is no file"),
    "web_config_noAuth.bad.yml": (tls(f"{PAIR}, client_ca_file: ca.pem"), "client_ca_file: is without effect"),
    "web_config_auth_clientCAs_invalid.bad.yml": (
        tls(f"{PAIR}, client_auth_type: RequireAndVerifyClientCert, client_ca_file: no"),
        "client_ca_file: is no file",
    ),
    "web_config_auth_user_list_invalid.bad.yml": ("basic_auth_users: {alice: canary}", "needs a bcrypt hash"),
    "web_config_noAuth_inventedCiphers.bad.yml": (tls(f"{PAIR}, cipher_suites: [TLS_MADE_UP]"), "cipher_suites"),
    "web_config_noAuth_inventedCurves.bad.yml": (tls(f"{PAIR}, curve_preferences: [CurveP257]"), "curve_preferences"),
    "web_config_noAuth_wrongTLSVersion.bad.yml": (tls(f"{PAIR}, min_version: TLS111"), "min_version"),
    "web_config_headers_content_type_options.bad.yml": (
        "http_server_config: {headers: {X-Content-Type-Options: sniff}}",
        "X-Content-Type-Options: needs one of nosniff",
    ),
    "web_config_headers_frame_options.bad.yml": (
        "http_server_config: {headers: {X-Frame-Options: maybe}}",
        "X-Frame-Options: needs one of deny",
    ),
    "web_config_headers_extra_header.bad.yml": ("http_server_config: {headers: {X-Extra: 1}}", "X-Extra"),
    # Good ones that Python's TLS cannot honour: one curve can be set, and no certificate be taken unverified.
    "web_config_noAuth_allCurves.good.yml": (
        tls(f"{IF_GIVEN}, curve_preferences: [CurveP256, CurveP384, CurveP521, X25519]"),
        "curve_preferences: can hold one curve only",
    ),
    "tls_config_noAuth.requireanyclientcert.good.yml": (
        tls(f"{PAIR}, client_auth_type: RequireAnyClientCert"),
        "client_auth_type: cannot be honoured",
    ),
    "tls_config_noAuth.requireanyclientcertkeyinline.good.yml": (
        'tls_server_config:\n  cert_file: server.crt\n  client_auth_type: RequireAnyClientCert\n  key: "$KEY"\n',
        "client_auth_type: cannot be honoured",
    ),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where an example stands, with the files that it names."""
    found = tmp_path_factory.mktemp("examples")
    authority = trustme.CA()
    leaf = authority.issue_cert("localhost")
    leaf.cert_chain_pems[0].write_to_path(found / "server.crt")
    leaf.private_key_pem.write_to_path(found / "server.key")
    authority.cert_pem.write_to_path(found / "ca.pem")
    return found


def load(folder: Path, text: str) -> WebConfig:
    for name, file in (("$CERT", "server.crt"), ("$KEY", "server.key")):
        text = text.replace(name, "\n".join(f"    {line}" for line in (folder / file).read_text().splitlines()))
    (folder / "web.yml").write_text(text)
    return load_web_config(folder / "web.yml")


@pytest.mark.parametrize("name", GOOD)
def test_what_go_takes_is_taken(folder: Path, name: str) -> None:
    """It is read, and a context of TLS is made of it; where everybody's certificate counts, that is warned of."""
    config = load(folder, GOOD[name].text)
    if config.tls_server_config is not None:
        build_context(config.tls_server_config)
    assert any("without client_ca_file" in warning for warning in warnings_of(config)) is GOOD[name].warns


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused_is_refused_by_name(folder: Path, name: str) -> None:
    """Before anything listens."""
    text, told = REFUSED[name]
    with pytest.raises(ConfigError) as caught:
        load(folder, text)
    assert told in str(caught.value)
