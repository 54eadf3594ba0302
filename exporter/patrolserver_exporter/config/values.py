"""Parsers of single values: text in, typed value out, `Unfit` when the text does not fit.

What they raise says what fits and never repeats the value; the reader adds the value where it may show.
"""

from __future__ import annotations

import datetime as dt
import importlib.util
import ipaddress
import re
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import urlsplit

from patrolserver_exporter.config.duration import format_duration, parse_duration
from patrolserver_exporter.config.problem import Unfit

if TYPE_CHECKING:
    from collections.abc import Callable
    from enum import StrEnum
    from urllib.parse import SplitResult

E = TypeVar("E", bound="StrEnum")
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

GOOD_TOKEN = 16
MAX_NAME = 64
MAX_NUMBER = 1_000_000_000
MAX_TEXT = 1024
MAKE_TOKEN = "make one with: openssl rand -hex 24"  # noqa: S105 - the hint, no token

_WHOLE = re.compile(r"0|[1-9][0-9]{0,15}")
_NUMBER = re.compile(r"(?:0|[1-9][0-9]{0,15})(?:\.[0-9]{1,15})?")
_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
# As SQLAlchemy takes it apart.
_POSTGRESQL = re.compile(
    r"(?:[^:/]*(?::[^@]*)?@)?(?P<host>\[[^\[\]/]*\]|[^:/?\[\]]*)(?::(?P<port>[0-9]{1,5}))?(?:[/?].*)?", re.ASCII
)
_TOKEN = re.compile(r"[A-Za-z0-9._~-]+")


def text(value: str) -> str:
    """One line of text, not blank, without blanks around it."""
    if not value.strip():
        raise Unfit("needs some text")
    if len(value) > MAX_TEXT:
        raise Unfit(f"needs at most {MAX_TEXT} characters")
    if value != value.strip():
        raise Unfit("starts or ends with a blank; remove it")
    if not value.isprintable():
        raise Unfit("holds line breaks or other characters that cannot be printed; write one line of text")
    return value


def name(value: str) -> str:
    """A name that fits a label and a URL's path."""
    if len(text(value)) > MAX_NAME:
        raise Unfit(f"needs at most {MAX_NAME} characters")
    if "/" in value:
        raise Unfit("may not hold a slash, as it becomes part of URLs")
    return value


def token(value: str) -> str:
    """A token that fits into a URL."""
    if not _TOKEN.fullmatch(value):
        raise Unfit(f"needs only letters, digits and - . _ ~ in the token; {MAKE_TOKEN}")
    if len(value) > MAX_TEXT:
        raise Unfit(f"needs at most {MAX_TEXT} characters; {MAKE_TOKEN}")
    return value


def boolean(value: str) -> bool:
    """``true`` or ``false``."""
    if value in {"true", "false"}:
        return value == "true"
    raise Unfit("needs true or false")


def whole(least: int, most: int = MAX_NUMBER) -> Callable[[str], int]:
    """Make the parser of whole numbers within bounds."""

    def parse(value: str) -> int:
        if not _WHOLE.fullmatch(value) or not least <= int(value) <= most:
            raise Unfit(f"needs a whole number from {least} to {most}, in digits and without leading zeros")
        return int(value)

    return parse


def number(least: float, most: float) -> Callable[[str], float]:
    """Make the parser of decimal numbers within bounds."""

    def parse(value: str) -> float:
        if not _NUMBER.fullmatch(value) or not least <= float(value) <= most:
            raise Unfit(f"needs a number from {least:g} to {most:g}, such as 5 or 7.5")
        return float(value)

    return parse


def duration(least: float, most: float | None = None) -> Callable[[str], float]:
    """Make the parser of durations within bounds, all in seconds."""

    def parse(value: str) -> float:
        seconds = parse_duration(value)
        if seconds < least:
            raise Unfit(f"needs at least {format_duration(least)}")
        if most is not None and seconds > most:
            raise Unfit(f"needs at most {format_duration(most)}")
        return seconds

    return parse


def choice(kind: type[E]) -> Callable[[str], E]:
    """Make the parser of an enumeration's values."""

    def parse(value: str) -> E:
        try:
            return kind(value)
        except ValueError:
            raise Unfit(f"needs one of {', '.join(kind)}") from None

    return parse


def date(value: str) -> dt.date:
    """A day as ``YYYY-MM-DD``."""
    if not _DATE.fullmatch(value):
        raise Unfit("needs a date as YYYY-MM-DD, such as 2027-01-31")
    try:
        return dt.date.fromisoformat(value)
    except ValueError:
        raise Unfit("is no day of the calendar; write one that exists, as YYYY-MM-DD") from None


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
    parts = _http_url(value, "https://api.patrolserver.com")
    if "@" in parts.netloc:
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
    scheme, colon, rest = text(value).partition("://")
    if not colon or scheme not in {"sqlite", "postgresql+psycopg"}:
        hint = "; for PostgreSQL, write postgresql+psycopg://" if scheme.startswith("postgres") else ""
        raise Unfit(f"needs sqlite:///FILE or postgresql+psycopg://USER@HOST/DATABASE{hint}")
    file = rest.removeprefix("/")
    if scheme != "sqlite":
        _check_postgresql(rest)
    elif not rest.startswith("/") or not file or file.startswith((":memory:", "file:")) or "?" in file:
        raise Unfit("needs a file, as sqlite:///FILE, or sqlite:////PATH/FILE for an absolute path")
    return value


def is_plain_http_abroad(url: str) -> bool:
    """Whether the URL is http and leaves this machine, so that anyone between reads along."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    if parts.scheme.lower() != "http" or host == "localhost" or host.endswith(".localhost"):
        return False
    try:
        return not ipaddress.ip_address(host).is_loopback
    except ValueError:
        return True


def _check_postgresql(rest: str) -> None:
    if not rest.strip("/"):
        raise Unfit("needs host and database, as postgresql+psycopg://USER@HOST/DATABASE")
    found = _POSTGRESQL.fullmatch(rest)
    if found is None or int(found["port"] or 1) not in range(1, 65_536):
        raise Unfit("needs HOST or HOST:PORT after the user and password, with a port from 1 to 65535")
    # The rest of a password would be taken for the host, which messages show.
    if "@" in found["host"]:
        raise Unfit("has more than one @; write one within the user or password as %40")
    if importlib.util.find_spec("psycopg") is None:
        raise Unfit("needs psycopg, which is not installed; install patrolserver-exporter with its extra postgres")


def _http_url(value: str, example: str) -> SplitResult:
    text(value)
    try:
        parts = urlsplit(value)
        sound = bool(parts.hostname) and parts.port != 0
    except ValueError:
        sound, parts = False, urlsplit("")
    if not sound or " " in value or parts.scheme.lower() not in {"http", "https"}:
        raise Unfit(f"needs an http or https URL such as {example}")
    return parts
