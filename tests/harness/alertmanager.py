"""A real Alertmanager (Debian's), and somebody whom it notifies."""

from __future__ import annotations

import json
import subprocess
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, Self

import requests
from tests.harness.prometheus import free_port
from tests.harness.waiting import eventually

if TYPE_CHECKING:
    from pathlib import Path


class Pager:
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

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/"

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join(10)
        self._server.server_close()

    def heard(self, alert: str, status: str) -> list[dict[str, Any]]:
        """What arrived of an alert as ``firing`` or ``resolved``."""
        return [one for one in self.alerts if one["labels"]["alertname"] == alert and one["status"] == status]


class Alertmanager:
    """Runs with this configuration; stopped at the end by its process id."""

    def __init__(self, folder: Path, program: str, config: str) -> None:
        self._folder = folder
        self._program = program
        self._config = config
        self.url = f"http://127.0.0.1:{free_port()}"

    def __enter__(self) -> Self:
        config = self._folder / "alertmanager.yml"
        config.write_text(self._config)
        command = [
            self._program,
            f"--config.file={config}",
            f"--storage.path={self._folder / 'alertmanager'}",
            f"--web.listen-address={self.url.removeprefix('http://')}",
            "--cluster.listen-address=",
        ]
        with (self._folder / "alertmanager.log").open("wb") as log:
            self._process = subprocess.Popen(command, stderr=log, stdout=log)
        eventually(lambda: requests.get(f"{self.url}/-/ready", timeout=5).ok, within=30.0, what="Alertmanager")
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(10)
