"""A real Alertmanager (Debian's), and somebody whom it notifies."""

from __future__ import annotations

import json
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

from tests.harness.daemons import Daemon, ServerThread
from tests.harness.prometheus import free_port

if TYPE_CHECKING:
    from pathlib import Path


class Pager(ServerThread):
    """Takes Alertmanager's webhooks and keeps the alerts in them, in the order of their arrival."""

    def __init__(self) -> None:
        self.alerts: list[dict[str, Any]] = []
        alerts = self.alerts

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                alerts.extend(json.loads(body)["alerts"])
                self.send_response(200)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        super().__init__(ThreadingHTTPServer(("127.0.0.1", 0), Handler))
        self.url = f"http://127.0.0.1:{self.port}/"

    def heard(self, alert: str, status: str) -> list[dict[str, Any]]:
        """What arrived of an alert as ``firing`` or ``resolved``."""
        return [one for one in self.alerts if one["labels"]["alertname"] == alert and one["status"] == status]


class Alertmanager(Daemon):
    """Runs with this configuration; stopped at the end by its process id."""

    def __init__(self, folder: Path, program: str, config: str) -> None:
        self._folder = folder
        self._program = program
        self._config = config
        self.url = f"http://127.0.0.1:{free_port()}"
        self.log_file = folder / "alertmanager.log"

    def command(self) -> list[str]:
        """Write its configuration, and return how it is started."""
        config = self._folder / "alertmanager.yml"
        config.write_text(self._config)
        return [
            self._program,
            f"--config.file={config}",
            f"--storage.path={self._folder / 'alertmanager'}",
            f"--web.listen-address={self.url.removeprefix('http://')}",
            "--cluster.listen-address=",
        ]
