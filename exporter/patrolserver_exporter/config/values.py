"""Parsers of single values: text in, typed value out, `Unfit` when the text does not fit.

What they raise says what fits and never repeats the value; the reader adds the value where it may show.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import importlib.util
import ipaddress
import re
from typing import TYPE_CHECKING, TypeVar, Union
from urllib.parse import urlsplit

from patrolserver_exporter.config.duration import format_duration, parse_duration
from patrolserver_exporter.config.problem import Unfit, refuse_variables

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from urllib.parse import SplitResult

T = TypeVar("T")
Network = Union[ipaddress.IPv4Network, ipaddress.IPv6Network]

MAX_NAME = 64
MAX_NUMBER = 1_000_000_000
MAX_TEXT = 1024
MAKE_TOKEN = "make one with: openssl rand -hex 24"  # noqa: S105 - the hint, no token

_WHOLE = re.compile(r"0|[1-9][0-9]{0,15}")
_NUMBER = re.compile(r"(?:0|[1-9][0-9]{0,15})(?:\.[0-9]{1,15})?")
_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_TOKEN = re.compile(r"[A-Za-z0-9._~-]{1,1024}")
_LOCAL = re.compile(r"(?:.*\.)?localhost|127(?:\.\d+){3}|::1")
_SQLITE = re.compile(r"/(?!:memory:|file:)(?=/*[^/])[^?]+")
# As SQLAlchemy takes it apart.
_POSTGRESQL = re.compile(
    r"(?!/*$)(?:[^:/]*(?::[^@]*)?@)?(?P<host>\[[^\[\]/]*\]|[^:/?\[\]]*)(?::(?P<port>[0-9]{1,5}))?(?:[/?].*)?", re.ASCII
)


def text(value: str, most: int = MAX_TEXT) -> str:
    """One line of text, not blank, without blanks around it."""
    for is_wrong, message in (
        (not value.strip(), "needs some text"),
        (len(value) > most, f"needs at most {most} characters"),
        (value != value.strip(), "starts or ends with a blank; remove it"),
        (not value.isprintable(), "holds characters that cannot be printed; write one line of text"),
    ):
        if is_wrong:
            raise Unfit(message)
    return value


def name(value: str) -> str:
    """A name that fits a label and a URL's path."""
    if "/" in text(value, MAX_NAME):
        raise Unfit("may not hold a slash, as it becomes part of URLs")
    return value


def token(value: str) -> str:
    """A token that fits into a URL."""
    if not _TOKEN.fullmatch(value):
        raise Unfit(f"needs only letters, digits and - . _ ~ in the token, at most {MAX_TEXT}; {MAKE_TOKEN}")
    return value


LABELS_IN_USE = frozenset(
    (
        *("account", "alertname", "component", "endpoint", "exploit", "identifier", "instance", "job", "kind", "le"),
        *("location", "max_severity", "outcome", "parent", "policy", "pythonversion", "quantile", "reason"),
        *("revision", "risk", "server", "server_id", "severity", "software", "state", "update_to", "verdict"),
        *("verified", "version"),
    )
)
"""Labels that the exporter's metrics and Prometheus itself have: another meaning would hide theirs in a join."""
_LABEL = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}")


def label_name(value: str) -> str:
    """The name of a label for servers."""
    if not _LABEL.fullmatch(value):
        raise Unfit("needs a label's name: letters, digits and _, a digit not first, at most 64 characters")
    if value.startswith("__"):
        raise Unfit("is a name for Prometheus alone, as it begins with __; choose another")
    if value in LABELS_IN_USE:
        raise Unfit("is a label that metrics have already; choose another")
    return value


def choice(meanings: Mapping[str, T]) -> Callable[[str], T]:
    """Make the parser of one of several words."""

    def parse(value: str) -> T:
        if value not in meanings:
            raise Unfit(f"needs one of {', '.join(meanings)}")
        return meanings[value]

    return parse


boolean = choice({"true": True, "false": False})


def whole_number(value: str, least: float, most: float | None) -> int:
    """A whole number within bounds."""
    most = MAX_NUMBER if most is None else most
    if not _WHOLE.fullmatch(value) or not least <= int(value) <= most:
        raise Unfit(f"needs a whole number from {least} to {most}, in digits and without leading zeros")
    return int(value)


def number(value: str, least: float, most: float | None) -> float:
    """A decimal number within bounds."""
    most = MAX_NUMBER if most is None else most
    if not _NUMBER.fullmatch(value) or not least <= float(value) <= most:
        raise Unfit(f"needs a number from {least:g} to {most:g}, such as 5 or 7.5")
    return float(value)


def duration(value: str, least: float, most: float | None) -> float:
    """A duration within bounds, all in seconds."""
    seconds = parse_duration(value)
    if seconds < least:
        raise Unfit(f"needs at least {format_duration(least)}")
    if most is not None and seconds > most:
        raise Unfit(f"needs at most {format_duration(most)}")
    return seconds


def date(value: str) -> dt.date:
    """A day as ``YYYY-MM-DD``."""
    with contextlib.suppress(ValueError):
        # Python alone would take 20270131 and 2027-W04-7 too.
        if _DATE.fullmatch(value):
            return dt.date.fromisoformat(value)
    raise Unfit("needs a day of the calendar as YYYY-MM-DD, such as 2027-01-31")


def network(value: str) -> Network:
    """A CIDR, or one address."""
    try:
        loose = ipaddress.ip_network(value, strict=False)
    except ValueError:
        raise Unfit("needs a network such as 192.0.2.0/24 or 2001:db8::/32, or one address") from None
    if "/" in value and ipaddress.ip_interface(value).ip != loose.network_address:
        raise Unfit(f"has bits beyond its prefix; write {loose} for the network, or the address without the prefix")
    return loose


def api_url(value: str) -> str:
    """The base URL of the API, without the slash at its end."""
    if "@" in _http_url(value, "https://api.patrolserver.com").netloc:
        raise Unfit("may not hold a user or password; the API takes key and secret")
    if "?" in value or "#" in value:
        raise Unfit("may not hold a query or fragment; write only the base, such as https://api.patrolserver.com")
    return value.rstrip("/")


def proxy_url(value: str) -> str:
    """A proxy's URL; it may hold a user and password."""
    example = "http://proxy.example.org:3128"
    if _http_url(value, example).path.strip("/") or "?" in value or "#" in value:
        raise Unfit(f"needs only scheme, host and port, such as {example}; a password's / ? # as %2F %3F %23")
    return value


def store_url(value: str) -> str:
    """SQLAlchemy's URL of a SQLite file or a PostgreSQL database."""
    scheme, _, rest = text(value).partition("://")
    refuse_variables(rest)
    if scheme == "sqlite":
        if not _SQLITE.fullmatch(rest):
            raise Unfit("needs a file, as sqlite:///FILE, or sqlite:////PATH/FILE for an absolute path")
    elif scheme != "postgresql+psycopg":
        hint = "; for PostgreSQL, write postgresql+psycopg://" if scheme.startswith("postgres") else ""
        raise Unfit(f"needs sqlite:///FILE or postgresql+psycopg://USER@HOST/DATABASE{hint}")
    elif (found := _POSTGRESQL.fullmatch(rest)) is None or not 0 < int(found["port"] or 1) < 65_536:
        raise Unfit("needs HOST/DATABASE or HOST:PORT/DATABASE after the user and password, with a port up to 65535")
    elif "@" in found["host"]:
        # The rest of a password would be taken for the host, which messages show.
        raise Unfit("has more than one @; write one within the user or password as %40")
    elif importlib.util.find_spec("psycopg") is None:
        raise Unfit("needs psycopg, which is not installed; install patrolserver-exporter with its extra postgres")
    return value


def is_plain_http_abroad(url: str) -> bool:
    """Whether the URL is http and leaves this machine, so that anyone between reads along."""
    parts = urlsplit(url)
    return parts.scheme.lower() == "http" and not _LOCAL.fullmatch(parts.hostname or "")


def _http_url(value: str, example: str) -> SplitResult:
    with contextlib.suppress(ValueError):
        parts = urlsplit(text(value))
        if parts.hostname and parts.port != 0 and " " not in value and parts.scheme.lower() in {"http", "https"}:
            return parts
    raise Unfit(f"needs an http or https URL such as {example}")
