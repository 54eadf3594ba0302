"""What stands between an exporter and somebody who is told: cables that can be cut, the rules, the example's route."""

from __future__ import annotations

import base64
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
    """Connections to the simulator that can be cut: for all, or for who comes by a name of theirs.

    As a proxy it takes any name; exporters on one store have the same configuration then, though each can be cut off.
    """

    def __init__(self, target: str, *names: str) -> None:
        host, _, port = target.removeprefix("http://").partition(":")
        self.is_cut = threading.Event()
        self.cut = {name: threading.Event() for name in names}
        by_credentials = {_credentials(name): event for name, event in self.cut.items()}
        is_cut = self.is_cut

        class Handler(socketserver.BaseRequestHandler):
            def handle(self) -> None:
                head = b"" if not by_credentials else self.request.recv(65536)
                cut = next((event for name, event in by_credentials.items() if name in head), is_cut)
                if cut.is_set():
                    return
                with socket.create_connection((host, int(port))) as onward:
                    onward.sendall(head)
                    back = threading.Thread(target=_pass_on, args=(onward, self.request, cut), daemon=True)
                    back.start()
                    _pass_on(self.request, onward, cut)
                    back.join(5)

        server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler)
        server.daemon_threads = True
        super().__init__(server)
        self.url = f"http://127.0.0.1:{self.port}"

    def proxy_for(self, name: str) -> str:
        """The URL of the proxy for who has that name."""
        return f"http://{name}:proxy@127.0.0.1:{self.port}"


def _credentials(name: str) -> bytes:
    return base64.b64encode(f"{name}:proxy".encode())


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
    text = re.sub(r"^( +(?:for|interval): \d+)m$", r"\1s", rules(load(own)), flags=re.MULTILINE)
    # Leases are as long as ever: an account without an exporter is waited for as much longer than they are.
    file.write_text(text.replace("for: 2s", "for: 40s"))
    return file
