"""The runbooks' commands, run as they stand there against a real exporter and a real Prometheus."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from grafana.alerting.files import ROOT
from tests.harness.fleet import wait_for_polls
from tests.harness.process import Exporter
from tests.harness.prometheus import Prometheus
from tests.harness.waiting import eventually

from patrolserver_exporter.simulator.options import SimulatorOptions
from patrolserver_exporter.simulator.server import Simulator

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ELSEWHERE = ("https://api.patrolserver.com", "/etc/", "/var/", "journalctl", "systemctl", "$DELIVERY", "/-/reload")
"""What needs the internet, an installation with systemd, or a delivery that is dead."""


def commands() -> list[str]:
    """Every command of the runbooks that can run here, without jq and comments."""
    text = (ROOT / "grafana" / "runbooks.md").read_text()
    blocks = re.findall(r"```sh\n(.*?)```", text, re.DOTALL) + re.findall(
        r"`((?:curl|patrolserver-exporter)[^`]*)`", text
    )
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    found = {
        re.sub(r"\s+#.*| \| jq.*", "", line) for line in lines if line.startswith(("curl", "patrolserver-exporter"))
    }
    return sorted(line for line in found if not any(place in line for place in ELSEWHERE))


@pytest.fixture(scope="module")
def environment(
    tmp_path_factory: pytest.TempPathFactory, require_program: Callable[[str], str]
) -> Iterator[dict[str, str]]:
    """The variables that the runbooks speak of, and the folder with the configuration."""
    folder = tmp_path_factory.mktemp("runbooks")
    require_program("curl")
    with (
        Simulator(SimulatorOptions(listen_address="127.0.0.1:0", servers=3, software=6)) as simulator,
        Exporter.watching(folder, simulator.base_url) as exporter,
        Prometheus(folder, require_program("prometheus"), exporter.url.removeprefix("http://")) as prometheus,
    ):
        wait_for_polls(exporter, 3)
        eventually(lambda: prometheus.value("count(patrolserver_server_info)") == 3.0, what="a scrape")
        yield {
            "FOLDER": str(folder),
            "EXPORTER": exporter.url,
            "PROMETHEUS": prometheus.url,
            "AUTH": f"Authorization: {exporter.operator['Authorization']}",
            "SERVER": simulator.world.servers(simulator.world.demo)[0].name,
            "ACCOUNT": "main",
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        }


def test_there_are_commands() -> None:
    """The reading above finds them."""
    assert len(commands()) >= 20


@pytest.mark.parametrize("command", commands())
def test_a_runbooks_command_works(command: str, environment: dict[str, str]) -> None:
    """It exits with 0, and curl gets no error of HTTP: neither a wrong path nor wrong PromQL."""
    strict = re.sub(r"^curl ", "curl --fail ", command)
    done = subprocess.run(
        ["bash", "-c", strict],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        cwd=environment["FOLDER"],
    )
    assert done.returncode == 0, done.stdout + done.stderr
