"""The web configuration file, as exporter-toolkit defines it: TLS, users, headers, rate limits."""

import logging
import os
import re
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Annotated, Any

from msgspec import Meta
from yaml import MappingNode

from patrolserver_exporter.config import values
from patrolserver_exporter.config.load import read_nodes
from patrolserver_exporter.config.problem import ConfigError, Unfit
from patrolserver_exporter.config.reading import Reading, Value
from patrolserver_exporter.config.secret import is_world_readable

TLS13 = frozenset({"TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256"})
"""All of these are always on: neither Go nor Python can choose among them."""

TLS12 = {
    "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA": "ECDHE-ECDSA-AES128-SHA",
    "TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA": "ECDHE-ECDSA-AES256-SHA",
    "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA": "ECDHE-RSA-AES128-SHA",
    "TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA": "ECDHE-RSA-AES256-SHA",
    "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256": "ECDHE-ECDSA-AES128-GCM-SHA256",
    "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384": "ECDHE-ECDSA-AES256-GCM-SHA384",
    "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256": "ECDHE-RSA-AES128-GCM-SHA256",
    "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384": "ECDHE-RSA-AES256-GCM-SHA384",
    "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256": "ECDHE-RSA-CHACHA20-POLY1305",
    "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256": "ECDHE-ECDSA-CHACHA20-POLY1305",
    # Go called these secure before 1.22; files name them still.
    "TLS_RSA_WITH_AES_128_CBC_SHA": "AES128-SHA",
    "TLS_RSA_WITH_AES_256_CBC_SHA": "AES256-SHA",
    "TLS_RSA_WITH_AES_128_GCM_SHA256": "AES128-GCM-SHA256",
    "TLS_RSA_WITH_AES_256_GCM_SHA384": "AES256-GCM-SHA384",
}
SAFE = tuple(name for name in TLS12.values() if name.startswith("ECDHE-") and not name.endswith("-SHA"))
"""What is offered with TLS 1.2 unless something else is configured: ephemeral keys, and ciphers that authenticate."""
CURVES = {"CurveP256": "prime256v1", "CurveP384": "secp384r1", "CurveP521": "secp521r1", "X25519": "X25519"}


def suite(name: str) -> str:
    """Return the name when Go knows such a suite and holds it to be safe; raises `Unfit`."""
    if name not in TLS12 and name not in TLS13:
        raise Unfit("is no cipher suite that Go's crypto/tls names as secure")
    return name


def openssl_names(suites: tuple[str, ...]) -> tuple[str, ...]:
    """Return the TLS 1.2 suites in OpenSSL's names and the same order."""
    return tuple(TLS12[name] for name in suites if name in TLS12)


def is_choice_of_tls13(suites: tuple[str, ...]) -> bool:
    """Whether some suites of TLS 1.3 are named but not all."""
    return 0 < len(TLS13.intersection(suites)) < len(TLS13)


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


def _pem(text: str) -> str:
    if "-----BEGIN " not in text:
        raise Unfit("needs PEM, which begins with -----BEGIN")
    return text


_Pem = Annotated[str, Value("PEM", _pem, may_show=False).meta]
_Boolean = Annotated[bool, Value("boolean", boolean).meta]
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


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsSettings:
    """``tls_server_config``."""

    cert_file: Path | None = None
    """The certificate with its chain, PEM."""
    cert: _Pem | None = None
    """The same, inline."""
    key_file: Path | None = None
    """Its key, PEM, without a passphrase."""
    key: _Pem | None = field(default=None, repr=False)
    """The same, inline."""
    client_ca_file: Path | None = None
    """The authorities that certify clients; without these, all of the system's do."""
    client_ca: _Pem | None = None
    """The same, inline."""
    client_auth_type: Annotated[ssl.VerifyMode, Value("client_auth_type", _CLIENT_AUTH).meta] = ssl.CERT_NONE
    client_allowed_sans: tuple[str, ...] | None = None
    """Names, one of which a client has to have."""
    min_version: Annotated[ssl.TLSVersion, _VERSION.meta] = ssl.TLSVersion.TLSv1_2
    max_version: Annotated[ssl.TLSVersion, _VERSION.meta] = ssl.TLSVersion.TLSv1_3
    cipher_suites: tuple[Annotated[str, Value("cipher suite", suite).meta], ...] = ()
    """In Go's names; empty for `SAFE`."""
    curve_preferences: tuple[Annotated[str, Value("curve", values.choice(CURVES)).meta], ...] = ()
    """In OpenSSL's names; at most one."""
    prefer_server_cipher_suites: _Boolean = True

    @property
    def files(self) -> tuple[Path, ...]:
        """What is read again when it changes."""
        return tuple(file for file in (self.cert_file, self.key_file, self.client_ca_file) if file is not None)

    @property
    def trusts_system_roots(self) -> bool:
        """Whether any certificate lets a client in that some authority of the system has signed."""
        verifies = self.client_auth_type is not ssl.CERT_NONE
        return verifies and self.client_ca_file is None and self.client_ca is None


_TLS_KEYS = frozenset(key.name for key in fields(TlsSettings))


def _contradictions(config: "WebConfig") -> list[tuple[str, str]]:
    found = []
    if config.rate_limit.interval and not config.rate_limit.burst:
        found.append(("rate_limit.burst", "is missing or 0: nothing would be answered"))
    for name, text in config.http_server_config.headers.items():
        if HEADERS[name] and text not in HEADERS[name]:
            found.append((f"http_server_config.headers.{name}", f"needs one of {', '.join(HEADERS[name])}"))
    if tls := config.tls_server_config:
        found += [(f"tls_server_config.{key}", message) for key, message in _contradictions_of_tls(tls)]
    return found


def _contradictions_of_tls(tls: TlsSettings) -> list[tuple[str, str]]:
    found = []
    verifies = tls.client_auth_type is not ssl.CERT_NONE
    if is_choice_of_tls13(tls.cipher_suites):
        found.append(
            ("cipher_suites", "names suites of TLS 1.3, among which none can be chosen; name all three or none")
        )
    for key in ("cert", "key", "client_ca"):
        inline, file = getattr(tls, key), getattr(tls, f"{key}_file")
        if inline is not None and file is not None:
            found.append((key, f"is given, and {key}_file too; remove one of them"))
        elif inline is None and file is None and key != "client_ca":
            found.append((f"{key}_file", f"is missing; add it, or {key} with the PEM itself"))
        elif key == "client_ca" and not verifies and (inline or file):
            given = key if inline else f"{key}_file"
            found.append((given, "is without effect; add client_auth_type: RequireAndVerifyClientCert"))
    if tls.client_allowed_sans is not None and tls.client_auth_type is not ssl.CERT_REQUIRED:
        found.append(("client_allowed_sans", "needs client_auth_type: RequireAndVerifyClientCert"))
    if tls.min_version > tls.max_version:
        found.append(("min_version", "is above max_version"))
    if len(tls.curve_preferences) > 1:
        found.append(("curve_preferences", "can hold one curve only: Python's TLS knows no list"))
    return found


logger = logging.getLogger(__name__)

HEADERS: dict[str, tuple[str, ...]] = {
    "Content-Security-Policy": (),
    "Strict-Transport-Security": (),
    "X-Content-Type-Options": ("nosniff",),
    "X-Frame-Options": ("deny", "sameorigin"),
    "X-XSS-Protection": (),
}
"""The headers that exporter-toolkit lets be set, each with its allowed values; none means any."""

_BCRYPT = re.compile(r"\$2[aby]\$(?:0[4-9]|[12][0-9]|3[01])\$[./A-Za-z0-9]{53}")
_FIELD_VALUE = re.compile(r"[\x20-\x7e]+")


def _no_http2(text: str) -> bool:
    if boolean(text):
        raise Unfit("cannot be true: only HTTP/1.1 is served; write false or leave it out")
    return False


def _header(value: str) -> str:
    if not _FIELD_VALUE.fullmatch(value):
        raise Unfit("needs printable ASCII on one line")
    return value


def _user(name: str) -> str:
    if not name or ":" in name:
        raise Unfit("is no user's name: it may neither be empty nor hold a colon")
    return name


def _hash(password_hash: str) -> str:
    if not _BCRYPT.fullmatch(password_hash):
        raise Unfit("needs a bcrypt hash; make one with: htpasswd -nBC 10 NAME")
    return password_hash


_HeaderName = Annotated[str, Value("header", values.choice({name: name for name in HEADERS})).meta]
_HeaderText = Annotated[str, Value("text", _header).meta]
_User = Annotated[str, Value("name", _user).meta]
_Hash = Annotated[str, Value("bcrypt hash", _hash, may_show=False).meta]


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpSettings:
    """``http_server_config``."""

    http2: Annotated[bool, Value("boolean", _no_http2).meta] = False
    headers: Mapping[_HeaderName, _HeaderText] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class RateLimit:
    """``rate_limit``: one request an interval (seconds; 0 for no limit), and so many at once."""

    interval: Annotated[float, Meta(ge=0, extra={"kind": "duration"})] = 0.0
    burst: Annotated[int, Meta(ge=0)] = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class WebConfig:
    """The whole file; everything in it is optional."""

    tls_server_config: TlsSettings | None = None
    http_server_config: HttpSettings = field(default_factory=HttpSettings)
    basic_auth_users: Mapping[_User, _Hash] = field(default_factory=dict, repr=False)
    """Names and bcrypt hashes."""
    rate_limit: RateLimit = field(default_factory=RateLimit)


def load_web_config(path: Path) -> WebConfig:
    """Read the file; raises `ConfigError` with everything that is wrong in it. Paths start at its folder."""
    root = read_nodes(path, "--web.config.file", may_be_empty=True)
    if isinstance(root, MappingNode):
        # Empty it means no TLS.
        root.value = [pair for pair in root.value if pair[0].value != "tls_server_config" or pair[1].value]
        for key, section in root.value:
            if key.value == "tls_server_config" and isinstance(section, MappingNode):
                # As in Go, an empty text in it is none. What is no key of it is told: key:value without a blank is one
                # of no value, and a client_auth_type that is written so must not be passed over.
                section.value = [
                    pair for pair in section.value if pair[1].value != "" or pair[0].value not in _TLS_KEYS
                ]
    reading = Reading(file=str(path), folder=path.parent)
    config: WebConfig = reading.whole(WebConfig, root)
    for key, message in _contradictions(config):
        reading.wrong(reading.found.get(key, (root, None))[0], key, message)
    if reading.mistakes:
        raise ConfigError(tuple(reading.mistakes))
    return config


def warnings_of(config: WebConfig, file: Path | None = None) -> tuple[str, ...]:
    """Return what to log at each start."""
    tls = config.tls_server_config
    if tls is None:
        return ()
    found = []
    if tls.key is not None and file is not None and is_world_readable(file):
        found.append(f"the key in {file} can be read by everyone on this machine; chmod o-r {file}, or use key_file")
    if tls.trusts_system_roots and tls.client_allowed_sans is None:
        found.append(
            "client_auth_type of the web configuration file is set without client_ca_file or client_ca, so that every"
            " certificate that an authority of this system has signed lets a client in; name your own authority, or"
            " the clients in client_allowed_sans"
        )
    return tuple(found)


Signature = tuple[tuple[int, int, int], ...]


def signature(*paths: Path) -> Signature:
    """Return what changes when one of the files does: i-node, size and time of each; zeros for one that is missing."""
    return tuple(_signature(path) for path in paths)


def _signature(path: Path) -> tuple[int, int, int]:
    try:
        found = os.stat(path)  # noqa: PTH116 - a link's target is what counts, and this is asked for every request
    except OSError:
        return 0, 0, 0
    return found.st_ino, found.st_size, found.st_mtime_ns


class WebConfigFile:
    """The file and what it says now: read again whenever it has changed.

    Raises `ConfigError` when it is built of a file that is wrong. Later a wrong file leaves the old settings in force
    and is logged once.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._seen = signature(path)
        self._config = load_web_config(path)

    def current(self) -> WebConfig:
        """Return the settings in force; costs one look at the file."""
        seen = signature(self._path)
        if seen != self._seen:
            self._seen = seen
            self._reread()
        return self._config

    def _reread(self) -> None:
        try:
            fresh = load_web_config(self._path)
        except ConfigError as error:
            logger.error("the web configuration changed but is wrong, the old one stays in force: %s", error)  # noqa: TRY400 - the text says it all
            return
        if (fresh.tls_server_config is None) != (self._config.tls_server_config is None):
            logger.warning("turning TLS on or off in %s takes effect after a restart", self._path)
        self._config = fresh
        logger.info("the web configuration was read again")
