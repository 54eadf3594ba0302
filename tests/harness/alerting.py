"""What stands between an exporter and somebody who is told: cables that can be cut, the rules, the example's route."""

from __future__ import annotations

import re
import socket
import socketserver
import threading
from typing import TYPE_CHECKING

import yaml
from grafana.alerting.files import ROOT, rules
from grafana.settings import load
from tests.harness.daemons import ServerThread

if TYPE_CHECKING:
    from pathlib import Path

SHORTER = """\
thresholds:
  gap: 15s
  exporter_down: 5s
  exporter_behind: 10s
  api_unreachable: 8s
  data_stale_after: 20s
"""
"""What takes minutes and an hour takes seconds here; the rest is as it is shipped."""


class Cable(ServerThread):
    """Connections to the simulator that can be cut."""

    def __init__(self, target: str) -> None:
        host, _, port = target.removeprefix("http://").partition(":")
        self.is_cut = threading.Event()
        is_cut = self.is_cut

        class Handler(socketserver.BaseRequestHandler):
            def handle(self) -> None:
                if is_cut.is_set():
                    return
                with socket.create_connection((host, int(port))) as onward:
                    back = threading.Thread(target=_pass_on, args=(onward, self.request, is_cut), daemon=True)
                    back.start()
                    _pass_on(self.request, onward, is_cut)
                    back.join(5)

        server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler)
        server.daemon_threads = True
        super().__init__(server)
        self.url = f"http://127.0.0.1:{self.port}"


def _pass_on(source: socket.socket, target: socket.socket, is_cut: threading.Event) -> None:
    """Bytes from one to the other, until one ends or the cable is cut."""
    try:
        while not is_cut.is_set() and (data := source.recv(65536)):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)
    except OSError:
        return


def route_to(receivers: dict[str, str]) -> str:
    """The example configuration, with receivers filled in as its comments say."""
    config = yaml.safe_load((ROOT / "packaging" / "alertmanager" / "alertmanager.yml").read_text())
    for receiver in config["receivers"]:
        if receiver["name"] in receivers:
            receiver["webhook_configs"] = [{"url": receivers[receiver["name"]], "send_resolved": True}]
    for route in (config["route"], *config["route"]["routes"]):
        if route["receiver"] in {"team", "tickets"}:
            # They may wait for longer than a test.
            route["group_wait"], route["group_interval"] = "1s", "5s"
    text: str = yaml.safe_dump(config)
    return text


def shortened(folder: Path) -> Path:
    """The rules, with seconds where they wait for minutes."""
    own = folder / "settings.yml"
    own.write_text(SHORTER)
    file = folder / "rules.yml"
    file.write_text(re.sub(r"^( +(?:for|interval): \d+)m$", r"\1s", rules(load(own)), flags=re.MULTILINE))
    return file
