"""systemd: telling it that the service is ready, alive or stopping (sd_notify)."""

from __future__ import annotations

import logging
import socket
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

log = logging.getLogger(__name__)


class Supervisor:
    """systemd, if it started the service; otherwise this does nothing."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        address = environ.get("NOTIFY_SOCKET", "")
        self._address = "\0" + address[1:] if address.startswith("@") else address
        self._watched = "WATCHDOG_USEC" in environ

    def ready(self) -> None:
        """The service takes requests."""
        self._notify("READY=1")

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
