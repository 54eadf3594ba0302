"""systemd: the sockets that it opened for the service, and telling it how the service is (sd_notify)."""

from __future__ import annotations

import logging
import os
import socket
from typing import TYPE_CHECKING

from patrolserver_exporter.web.http.server import ListenError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

log = logging.getLogger(__name__)

WEBHOOK = "webhook"
"""``FileDescriptorName=`` of a socket that takes webhooks and nothing else."""
_FIRST = 3
_NONE = (
    "--web.systemd-socket is set, but systemd has handed no socket over: start the service by a socket unit, such as"
    " patrolserver-exporter.socket, or leave the flag out"
)


def inherited_sockets(environ: Mapping[str, str]) -> tuple[tuple[str, socket.socket], ...]:
    """Return the sockets that systemd listens on for this process, each with its name; raises `ListenError`."""
    if environ.get("LISTEN_PID") != str(os.getpid()) or not environ.get("LISTEN_FDS", "").isdecimal():
        raise ListenError(_NONE)
    found = tuple(_taken(int(environ["LISTEN_FDS"]), environ.get("LISTEN_FDNAMES", "").split(":")))
    if not any(name != WEBHOOK for name, _ in found):
        raise ListenError(f"{_NONE}; one for webhooks alone is not enough" if found else _NONE)
    return found


def _taken(count: int, names: list[str]) -> Iterator[tuple[str, socket.socket]]:
    for place in range(count):
        name = names[place] if place < len(names) else ""
        try:
            taken = socket.socket(fileno=_FIRST + place)
            listens = taken.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
        except OSError:
            raise ListenError(f"what systemd has handed over as {name or _FIRST + place} is no socket") from None
        if taken.family not in {socket.AF_INET, socket.AF_INET6} or taken.type != socket.SOCK_STREAM or not listens:
            raise ListenError(
                f"what systemd has handed over as {name or _FIRST + place} is no TCP socket that listens; write"
                " ListenStream= with a port or an address and a port, and Accept=no"
            )
        os.set_inheritable(taken.fileno(), False)  # noqa: FBT003 - positional only
        yield name, taken


class Supervisor:
    """systemd, if it started the service; otherwise this does nothing."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        address = environ.get("NOTIFY_SOCKET", "")
        self._address = "\0" + address[1:] if address.startswith("@") else address
        self._watched = "WATCHDOG_USEC" in environ

    def ready(self) -> None:
        """The service takes requests."""
        self._notify("READY=1\nSTATUS=")

    def waits(self, why: str, seconds: float) -> None:
        """The start goes on, and may take so many seconds more from now."""
        self._notify(f"STATUS={why}\nEXTEND_TIMEOUT_USEC={int(seconds * 1e6)}")

    def alive(self) -> None:
        """All parts make progress; systemd restarts the service when it does not hear this."""
        if self._watched:
            self._notify("WATCHDOG=1")

    def stopping(self) -> None:
        """The service is ending."""
        self._notify("STOPPING=1")

    def _notify(self, text: str) -> None:
        if not self._address:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
                sock.connect(self._address)
                sock.sendall(text.encode())
        except OSError as error:
            log.warning("systemd cannot be notified: %s", error.strerror)
