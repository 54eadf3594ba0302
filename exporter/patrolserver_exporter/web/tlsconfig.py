"""``tls_server_config`` of the web configuration file: its keys, and what Python's TLS cannot honour of them."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from patrolserver_exporter.config import values
from patrolserver_exporter.config.nodes import Mapping, Node, Scalar, join_key
from patrolserver_exporter.config.problem import Unfit
from patrolserver_exporter.config.shape import FilePath, Key, ListOf, Section, Value
from patrolserver_exporter.web import ciphers

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from patrolserver_exporter.config.reading import Reading


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsSettings:
    """``tls_server_config``."""

    cert_file: Path
    key_file: Path
    client_ca_file: Path | None = None
    client_auth_type: ssl.VerifyMode = ssl.CERT_NONE
    client_allowed_sans: tuple[str, ...] | None = None
    min_version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_2
    max_version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3
    cipher_suites: tuple[str, ...] = ()
    """In Go's names; empty for OpenSSL's own choice."""
    curve_preferences: tuple[str, ...] = ()
    """In OpenSSL's names; at most one."""
    prefer_server_cipher_suites: bool = True

    @property
    def files(self) -> tuple[Path, ...]:
        """What is read again when it changes."""
        return (self.cert_file, self.key_file, *([self.client_ca_file] if self.client_ca_file else []))


def boolean(text: str) -> bool:
    """Read a boolean as Go's YAML does; raises `Unfit`."""
    # Files are shared with exporters that take these too.
    return values.boolean({"yes": "true", "on": "true", "no": "false", "off": "false"}.get(text.lower(), text.lower()))


def _choice(**known: Any) -> Callable[[str], Any]:
    def parse(text: str) -> Any:
        if text not in known:
            raise Unfit(f"needs one of {', '.join(name for name, meaning in known.items() if not _is_reason(meaning))}")
        if _is_reason(known[text]):
            raise Unfit(known[text])
        return known[text]

    return parse


def _is_reason(meaning: object) -> bool:
    return isinstance(meaning, str)


def _refused(reason: str) -> Value:
    def parse(_text: str) -> None:
        raise Unfit(reason)

    return Value("nothing", parse, may_show=False)


_OLD_TLS = "is too old to be served by today's OpenSSL; use TLS12 or TLS13"
_UNVERIFIED = "cannot be honoured, as it takes certificates unverified; use RequireAndVerifyClientCert"
_VERSION = Value(
    "TLS version",
    _choice(TLS13=ssl.TLSVersion.TLSv1_3, TLS12=ssl.TLSVersion.TLSv1_2, TLS11=_OLD_TLS, TLS10=_OLD_TLS),
)
_CLIENT_AUTH = _choice(
    NoClientCert=ssl.CERT_NONE,
    VerifyClientCertIfGiven=ssl.CERT_OPTIONAL,
    RequireAndVerifyClientCert=ssl.CERT_REQUIRED,
    RequestClientCert=_UNVERIFIED,
    RequireAnyClientCert=_UNVERIFIED,
    RequireClientCert=_UNVERIFIED,
)


@dataclass(frozen=True, slots=True)
class _TlsSection(Section):
    """``tls_server_config``, with the rules that look at several of its keys; empty it means no TLS."""

    def read(self, reading: Reading, node: Node, path: str) -> Any:
        if (isinstance(node, Scalar) and node.is_null) or (isinstance(node, Mapping) and not node.entries):
            return None
        settings = Section.read(self, reading, node, path)
        if isinstance(settings, TlsSettings):
            for key, message in _contradictions(settings):
                reading.wrong(reading.found.get(join_key(path, key), (node, None))[0], join_key(path, key), message)
        return settings


def _contradictions(tls: TlsSettings) -> list[tuple[str, str]]:
    found = []
    verifies = tls.client_auth_type is not ssl.CERT_NONE
    found += [(key, "is missing; add it") for key in ("cert_file", "key_file") if getattr(tls, key) is None]
    if ciphers.is_choice_of_tls13(tls.cipher_suites):
        found.append(
            ("cipher_suites", "names suites of TLS 1.3, among which none can be chosen; name all three or none")
        )
    if tls.client_ca_file and not verifies:
        found.append(("client_ca_file", "is without effect; add client_auth_type: RequireAndVerifyClientCert"))
    if verifies and not tls.client_ca_file:
        found.append(("client_auth_type", "needs client_ca_file, to verify the clients' certificates with"))
    if tls.client_allowed_sans is not None and tls.client_auth_type is not ssl.CERT_REQUIRED:
        found.append(("client_allowed_sans", "needs client_auth_type: RequireAndVerifyClientCert"))
    if tls.min_version > tls.max_version:
        found.append(("min_version", "is above max_version"))
    if len(tls.curve_preferences) > 1:
        found.append(("curve_preferences", "can hold one curve only: Python's TLS knows no list"))
    return found


TLS_SERVER_CONFIG = _TlsSection(
    TlsSettings,
    (
        Key("cert_file", FilePath(), "The certificate with its chain, PEM."),
        Key("key_file", FilePath(), "Its key, PEM, without a passphrase."),
        Key("client_ca_file", FilePath(), "Whom to trust to certify clients."),
        Key("client_auth_type", Value("client_auth_type", _CLIENT_AUTH), "Whether clients need a certificate."),
        Key("client_allowed_sans", ListOf(Value("name", values.text)), "Names, one of which a client has to have."),
        Key("min_version", _VERSION, "TLS12 or TLS13."),
        Key("max_version", _VERSION, "TLS12 or TLS13."),
        Key("cipher_suites", ListOf(Value("cipher suite", ciphers.suite)), "In Go's names."),
        Key("curve_preferences", ListOf(Value("curve", ciphers.curve)), "One curve."),
        Key("prefer_server_cipher_suites", Value("boolean", boolean), "Whose order of cipher suites counts."),
        Key("cert", _refused("cannot be inline; write it to a file and name that in cert_file"), ""),
        Key("key", _refused("cannot be inline; write it to a file and name that in key_file"), ""),
        Key("client_ca", _refused("cannot be inline; write it to a file and name that in client_ca_file"), ""),
    ),
)
