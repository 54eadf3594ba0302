"""The ``--web.config.file``: exporter-toolkit's schema, read as strictly as our own configuration.

A key that cannot be honoured is refused with the reason; nothing is ignored. ``docs/web-config.md`` lists the keys.
"""

from __future__ import annotations

import logging
import os
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from patrolserver_exporter.config import values
from patrolserver_exporter.config.nodes import MAX_BYTES, Mapping, Node, Place, Scalar, join_key, parse_nodes, shown_key
from patrolserver_exporter.config.problem import ConfigError, Problem, Unfit
from patrolserver_exporter.config.reading import WRONG, Reading
from patrolserver_exporter.config.shape import Key, Section, Value
from patrolserver_exporter.web.tlsconfig import TLS_SERVER_CONFIG, TlsSettings, boolean

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

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


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpSettings:
    """``http_server_config``."""

    http2: bool = False
    headers: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class RateLimit:
    """``rate_limit``: one request an interval (seconds; 0 for no limit), and so many at once."""

    interval: float = 0.0
    burst: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class WebConfig:
    """The whole file; everything in it is optional."""

    tls_server_config: TlsSettings | None = None
    http_server_config: HttpSettings = field(default_factory=HttpSettings)
    basic_auth_users: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    """Names and bcrypt hashes."""
    rate_limit: RateLimit = field(default_factory=RateLimit)


@dataclass(frozen=True, slots=True)
class _MapOf:
    """A mapping whose keys are free, as pairs in the order of the file."""

    parse: Callable[[str, str], str]
    kind: str = "mapping"

    def read(self, reading: Reading, node: Node, path: str) -> Any:
        """Return the pairs, or `WRONG` when one of them is."""
        if isinstance(node, Scalar) and node.is_null:
            return ()
        if not isinstance(node, Mapping):
            return reading.wrong(node, path, "needs keys and values")
        pairs = [self._pair(reading, key, child, path) for key, child in node.entries]
        return WRONG if any(pair is WRONG for pair in pairs) else tuple(pairs)

    def _pair(self, reading: Reading, key: Scalar, node: Node, path: str) -> Any:
        inner = join_key(path, shown_key(key.text))
        if not isinstance(node, Scalar) or node.tag:
            return reading.wrong(node, inner, "needs a single value, without a tag")
        try:
            return key.text, self.parse(key.text, node.text)
        except Unfit as error:
            return reading.wrong(node, inner, str(error))

    def show(self, value: Any, /) -> str:
        """Write nothing: the pairs may be secret."""
        return "" if value else "{}"


def _no_http2(text: str) -> bool:
    if boolean(text):
        raise Unfit("cannot be true: only HTTP/1.1 is served; write false or leave it out")
    return False


def _header(name: str, value: str) -> str:
    if name not in HEADERS:
        raise Unfit(f"is a header that cannot be set; known here: {', '.join(HEADERS)}")
    if HEADERS[name] and value not in HEADERS[name]:
        raise Unfit(f"needs one of {', '.join(HEADERS[name])}")
    if not _FIELD_VALUE.fullmatch(value):
        raise Unfit("needs printable ASCII on one line")
    return value


def _user(name: str, password_hash: str) -> str:
    if not name or ":" in name:
        raise Unfit("is no user's name: it may neither be empty nor hold a colon")
    if not _BCRYPT.fullmatch(password_hash):
        raise Unfit("needs a bcrypt hash; make one with: htpasswd -nBC 10 NAME")
    return password_hash


_RATE_LIMIT = Section(
    RateLimit,
    (
        Key("interval", Value("duration", values.duration(0)), "One request an interval; 0 for no limit."),
        Key("burst", Value("whole number", values.whole(0)), "So many at once."),
    ),
)
_HTTP = Section(
    HttpSettings,
    (Key("http2", Value("boolean", _no_http2), "Only false."), Key("headers", _MapOf(_header), "More headers.")),
)
WEB_CONFIG = Section(
    WebConfig,
    (
        Key("tls_server_config", TLS_SERVER_CONFIG, "TLS."),
        Key("http_server_config", _HTTP, "HTTP."),
        Key("basic_auth_users", _MapOf(_user), "Users and the bcrypt hashes of their passwords."),
        Key("rate_limit", _RATE_LIMIT, "How many requests are answered."),
    ),
)


def load_web_config(path: Path) -> WebConfig:
    """Read the file; raises `ConfigError` with everything that is wrong in it. Paths start at its folder."""
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not a path"
        message = f"cannot be read ({reason}); correct --web.config.file, or let the exporter's user read it"
        raise ConfigError((Problem(str(path), None, None, "", message),)) from None
    reading = Reading(file=str(path), folder=path.parent)
    config = WEB_CONFIG.read(reading, _root(raw, str(path)), "")
    if isinstance(config, WebConfig) and config.rate_limit.interval and not config.rate_limit.burst:
        reading.wrong(reading.found["rate_limit"][0], "rate_limit.burst", "is missing or 0: nothing would be answered")
    if reading.problems:
        raise ConfigError(tuple(sorted(reading.problems, key=lambda problem: (problem.line or 0, problem.column or 0))))
    assert isinstance(config, WebConfig)  # noqa: S101 - without problems there is a value
    return config


def _root(raw: bytes, file: str) -> Node:
    if all(not line.strip() or line.lstrip().startswith(b"#") for line in raw.splitlines()):
        return Mapping(Place(1, 1), ())
    return parse_nodes(raw, file)


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
