"""``patrolserver-exporter.token``: how the machine's own operator may do everything, and nobody else by being local.

A proxy in front makes everybody look local, so that a connection over loopback proves nothing. Who can read a file of
mode 0600 beside the state is the operator. It has two lines, URL and token, is written anew at each start, and command
lines that are given no token read it.
"""

from __future__ import annotations

import os
import secrets
import stat
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from patrolserver_exporter.config.problem import ConfigError
from patrolserver_exporter.config.secret import Secret
from patrolserver_exporter.web.http.addresses import Address, is_loopback

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from urllib.parse import SplitResult

FILE_NAME = "patrolserver-exporter.token"
STATE_VARIABLE = "STATE_DIRECTORY"
INSTALLED_IN = Path("/var/lib/patrolserver-exporter")
"""The state's folder with the unit that comes along."""
_MAX_BYTES = 4096
_EVERYWHERE = {"", "0.0.0.0", "::"}  # noqa: S104  # What such a listener is called.


def new_token() -> Secret:
    """Make one up."""
    return Secret.literal(secrets.token_urlsafe(32))


def folder_for(state_file: Path | None, environ: Mapping[str, str]) -> Path:
    """Where the file belongs: beside the state file; with a database, where the machine keeps state, or here."""
    if state_file is not None:
        return state_file.parent
    return next(iter(_state_directories(environ)), Path())


def local_url(addresses: Iterable[Address], scheme: str, prefix: str) -> str:
    """The URL by which the machine itself reaches the listeners: over loopback, if one of them allows it."""
    hosts = [("127.0.0.1" if one.host in _EVERYWHERE else one.host, one.port) for one in addresses]
    host, port = next((one for one in hosts if is_loopback(one[0])), hosts[0])
    return f"{scheme}://{Address(host, port)}{prefix.rstrip('/')}"


def write(folder: Path, url: str, token: Secret) -> Path:
    """Replace the file, readable for its owner alone; raises `OSError`."""
    # A new file each time: one that somebody opened, or a link that lies there, never gets the new token.
    descriptor, name = tempfile.mkstemp(prefix=f".{FILE_NAME}.", dir=folder)
    path = folder / FILE_NAME
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(f"{url}\n{token.reveal()}\n")
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    return path


@dataclass(frozen=True)
class Found:
    """What a search for the file of an exporter brought."""

    token: Secret | None
    hint: str = ""
    """Where there is none to send: why a file that lies there is of no use."""


def find(url: str, environ: Mapping[str, str]) -> Found:
    """Look for the token of the exporter at that URL, which has to be the file's own and on loopback."""
    hint = ""
    for folder in (*_state_directories(environ), INSTALLED_IN, Path()):
        path = folder / FILE_NAME
        try:
            lines = _read(path).splitlines()
        except FileNotFoundError:
            continue
        except OSError as error:
            hint = hint or f"{path} cannot be read: {error.strerror or error}; use the exporter's user, or root"
            continue
        if len(lines) != 2 or not (token := _token(lines[1])):
            hint = hint or f"{path} is not as an exporter writes it; restart the exporter"
        elif _leads_to(url, lines[0]):
            return Found(token)
        else:
            hint = hint or f"{path} is for --exporter-url={lines[0]}"
    return Found(None, hint)


def _state_directories(environ: Mapping[str, str]) -> list[Path]:
    # systemd separates several by colons.
    return [Path(name) for name in environ.get(STATE_VARIABLE, "").split(":") if name]


def _read(path: Path) -> str:
    # Not blocking, so that a FIFO that somebody put there holds nobody up.
    with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            return ""
        return file.read(_MAX_BYTES).decode("utf-8", "replace")


def _token(line: str) -> Secret | None:
    try:
        return Secret.literal(line)
    except ConfigError:
        return None


def _leads_to(url: str, written: str) -> bool:
    """Whether a URL is that of the file, and on loopback.

    Names of loopback are not taken for each other without TLS: behind another one another user may listen.
    """
    try:
        asked, known = urlsplit(url), urlsplit(written)
        if _place(asked) != _place(known):
            return False
    except ValueError:
        return False
    hosts = (asked.hostname or "", known.hostname or "")
    return all(is_loopback(host) for host in hosts) and (hosts[0] == hosts[1] or asked.scheme == "https")


def _place(parts: SplitResult) -> tuple[str, int | None, str]:
    port = parts.port or {"http": 80, "https": 443}.get(parts.scheme)
    return parts.scheme, port, parts.path.rstrip("/")
