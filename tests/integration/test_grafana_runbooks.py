"""The runbooks' commands, run as they stand there against a real exporter and a real Prometheus."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import requests
from grafana.alerting.files import ROOT
from tests.harness.fleet import wait_for_polls
from tests.harness.process import NEW_ISSUES, TOKEN, Exporter
from tests.harness.prometheus import Prometheus
from tests.harness.waiting import eventually

from patrolserver_exporter.simulator.options import SimulatorOptions
from patrolserver_exporter.simulator.server import Simulator

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PLACES = ("/etc/patrolserver-exporter", "/var/lib/patrolserver-exporter")
SYSTEMD = ("journalctl", "systemctl", "timedatectl")


@dataclass(frozen=True)
class Machine:
    """Where the runbooks' commands run: their variables, and a folder that stands for the places of an installation."""

    environ: dict[str, str]
    folder: Path
    exporter: Exporter
    api_url: str

    def located(self, command: str) -> str:
        """The command, with the places of this machine."""
        for place in PLACES:
            command = command.replace(place, str(self.folder))
        return command.replace("https://api.patrolserver.com/", f"{self.api_url}/")

    def delivery(self) -> str:
        """The id of a delivery whose event nobody has."""
        delivered = {"webhook_patrolserver": 1, "identifier": NEW_ISSUES, "webhook_id": 1, "event_id": 999_999}
        webhook = f"{self.exporter.url}/webhook/{TOKEN}"
        assert requests.post(webhook, json=delivered, timeout=20).status_code == 202
        return str(self.exporter.get("/api/v1/inbox", headers=self.exporter.operator).json()["items"][-1]["id"])

    def operation(self) -> str:
        """The id of a refresh."""
        refresh = f"{self.exporter.url}/api/v1/servers/{self.environ['SERVER']}/refresh"
        answer = requests.post(refresh, headers=self.exporter.operator, timeout=20)
        assert answer.status_code == 202
        return str(answer.json()["operation"]["id"])


def setup() -> str:
    """The page's first block, which sets the variables."""
    first: str = re.findall(r"```sh\n(.*?)```", (ROOT / "grafana" / "runbooks.md").read_text(), re.DOTALL)[0]
    return first


def commands() -> list[str]:
    """Every other command of the runbooks, without jq and comments."""
    text = (ROOT / "grafana" / "runbooks.md").read_text()
    blocks = re.findall(r"```sh\n(.*?)```", text, re.DOTALL)[1:]
    sentences = re.findall(r"`((?:curl|patrolserver-exporter|systemctl) [^`]*)`", text)
    lines = "\n".join([*blocks, *sentences]).replace("\\\n", " ").splitlines()
    return sorted({re.sub(r"\s+#.*| \| jq.*", "", line) for line in lines if line})


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory, require_program: Callable[[str], str]) -> Iterator[Machine]:
    """A simulator, an exporter, a Prometheus, and the alert's labels."""
    folder = tmp_path_factory.mktemp("runbooks")
    require_program("curl")
    (folder / "bin").mkdir()
    for program in SYSTEMD:
        # What systemd has to do with is tried on a machine of its own.
        (folder / "bin" / program).write_text("#!/bin/sh\necho systemd was asked\n")
        (folder / "bin" / program).chmod(0o755)
    with (
        Simulator(SimulatorOptions(listen_address="127.0.0.1:0", servers=3, software=6)) as simulator,
        Exporter.watching(folder, simulator.base_url) as exporter,
        Prometheus(folder, require_program("prometheus"), exporter.url.removeprefix("http://")) as prometheus,
    ):
        wait_for_polls(exporter, 3)
        eventually(lambda: prometheus.value("count(patrolserver_server_info)") == 3.0, what="a scrape")
        environ = {
            "SERVER": simulator.world.servers(simulator.world.demo)[0].name,
            "ACCOUNT": "main",
            "PATH": os.pathsep.join([str(folder / "bin"), str(Path(sys.executable).parent), os.environ["PATH"]]),
        }
        given = re.sub("EXPORTER=.*", f"EXPORTER={exporter.url}", setup())
        given = re.sub("PROMETHEUS=.*", f"PROMETHEUS={prometheus.url}", given)
        (folder / "setup").write_text(Machine(environ, folder, exporter, "").located(given))
        yield Machine(environ, folder, exporter, simulator.base_url)


def test_there_are_commands() -> None:
    """The reading above finds them."""
    found = commands()
    assert len(found) >= 40
    assert {line.split()[0] for line in found} >= {"curl", "patrolserver-exporter", "journalctl", "df"}


def test_commands_about_a_server_name_its_account() -> None:
    """Where accounts share a server's name, the answer without one is 409."""
    about_one = [line for line in commands() if "/api/v1/servers/$SERVER" in line]
    assert len(about_one) >= 5
    assert [line for line in about_one if "account=$ACCOUNT" not in line] == []


def test_commands_for_open_issues_list_what_alerts_count() -> None:
    """Waived issues raise no alert, and a page has 100 unless more is asked for."""
    lists = [line for line in commands() if "/issues?" in line]
    assert len(lists) >= 4
    assert [line for line in lists if "waived=" not in line or "limit=1000" not in line] == []


@pytest.mark.parametrize("command", commands())
def test_a_runbooks_command_works(command: str, machine: Machine) -> None:
    """It exits with 0 after the first block, and curl gets no error of HTTP: neither a wrong path nor wrong PromQL."""
    strict = machine.located(command)
    if "%{http_code}" not in command:
        strict = re.sub(r"^curl ", "curl --fail ", strict)
    environ = {**os.environ, **machine.environ}
    if "$DELIVERY" in command:
        environ["DELIVERY"] = machine.delivery()
    if "$OPERATION" in command:
        environ["OPERATION"] = machine.operation()
    done = subprocess.run(
        ["bash", "-euc", f". ./setup\n{strict}"],
        env=environ,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        cwd=machine.folder,
    )
    assert done.returncode == 0, done.stdout + done.stderr
