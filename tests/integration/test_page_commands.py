"""The commands of README and docs, as they stand there, against a real exporter and simulator."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self

import pytest
import requests
from tests.harness.daemons import Program
from tests.harness.fleet import wait_for_polls
from tests.harness.page_blocks import ROOT, block, checkout
from tests.harness.process import Exporter
from tests.harness.prometheus import free_port

from patrolserver_exporter.simulator.options import SimulatorOptions
from patrolserver_exporter.simulator.server import Simulator

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.harness.postgres import PostgresCluster

SERVERS = 4
SYSTEMD = ("journalctl", "systemctl")
EXPORTERS = (
    "https://exporter.example.org:10058",
    "https://exporter.example.org",
    "http://127.0.0.1:10058",
    "https://YOUR-HOST",
)
FOLDERS = ("/etc/patrolserver-exporter", "/var/lib/patrolserver-exporter", "/etc/patrolserver", "/run/secrets")


class Shell:
    """A shell in a folder in which all the files lie that pages have somewhere in the system."""

    def __init__(self, folder: Path, simulator: Simulator, exporter: Exporter) -> None:
        self.folder = folder
        self.exporter = exporter
        self.environ = {
            **{name: value for name, value in os.environ.items() if not name.startswith("PATROLSERVER")},
            "PATH": f"{folder}/bin:{Path(sys.executable).parent}:{os.environ['PATH']}",
            "PATROLSERVER_EXPORTER_URL": exporter.url,
            "PATROLSERVER_API_URL": simulator.base_url,
            "STATE_DIRECTORY": str(exporter.folder),
        }
        (folder / "bin").mkdir()
        for program in SYSTEMD:
            # What systemd has to do with is tried on a machine of its own.
            (folder / "bin" / program).write_text("#!/bin/sh\necho systemd was asked\n")
            (folder / "bin" / program).chmod(0o755)
        for name in ("key", "secret"):
            (folder / name).write_text("demo\n")
        (folder / "token").write_text(exporter.operator["Authorization"].removeprefix("Bearer "))
        for file in ("patrolserver.yml", "patrolserver-exporter.token"):
            (folder / file).symlink_to(exporter.folder / file)

    def written(self, name: str) -> str:
        """A block, with the places of this machine."""
        text = block(name).commands
        for folder in FOLDERS:
            text = text.replace(folder, str(self.folder))
        for url in EXPORTERS:
            text = text.replace(url, self.exporter.url)
        return text.replace("localhost:10058", self.exporter.url.removeprefix("http://"))

    def types(self, name: str, *, folder: Path | None = None) -> subprocess.CompletedProcess[str]:
        """Run a block, to its end; the first command that fails ends it."""
        # A status that is none of success would go by.
        text = re.sub(r"\bcurl ", "curl --fail --silent --show-error ", self.written(name))
        return subprocess.run(
            ["bash", "-e", "-c", text],
            cwd=folder or self.folder,
            env=self.environ,
            capture_output=True,
            text=True,
            timeout=500,
            check=False,
        )


@pytest.fixture(scope="module")
def simulator() -> Iterator[Simulator]:
    with Simulator(SimulatorOptions(listen_address="127.0.0.1:0", servers=SERVERS, software=6)) as running:
        yield running


@pytest.fixture(scope="module")
def exporter(tmp_path_factory: pytest.TempPathFactory, simulator: Simulator) -> Iterator[Exporter]:
    with Exporter.watching(tmp_path_factory.mktemp("exporter"), simulator.base_url, interval="5s") as running:
        wait_for_polls(running, SERVERS)
        yield running


@pytest.fixture
def shell(tmp_path: Path, simulator: Simulator, exporter: Exporter, require_program: Callable[[str], str]) -> Shell:
    for program in ("bash", "curl", "openssl"):
        require_program(program)
    return Shell(tmp_path, simulator, exporter)


@dataclass(frozen=True)
class Case:
    """What comes of a block."""

    name: str
    prints: str
    """A pattern that is found in what it printed."""
    codes: tuple[int, ...] = (0,)


@pytest.mark.parametrize(
    "case",
    [
        Case("stop a deploy", r"fail|pass", (0, 1)),
        Case("ask the gate", r"fail|pass", (0, 1)),
        Case("first of all", r"(?s)All is fine.*systemd was asked"),
        Case("make a webhook token", r"^$"),
        Case("ask the gate over HTTP", r'"verdict":"(fail|pass)"'),
        Case("ask the API", r'(?s)"items":.*"items":'),
        Case("take a table", r"^$"),
        Case("check a configuration", "is sound"),
        Case("reload with the machine's own token", "(?i)reloaded"),
    ],
    ids=lambda case: case.name,
)
def test_a_block_does_what_its_page_says(case: Case, shell: Shell) -> None:
    """It ends as it should, and prints what it is there for."""
    done = shell.types(case.name)
    assert done.returncode in case.codes, done.stdout + done.stderr
    assert re.search(case.prints, done.stdout), done.stdout + done.stderr


def test_what_the_blocks_write(shell: Shell) -> None:
    """A token that nobody else may read, and a table with a header."""
    assert shell.types("make a webhook token").returncode == 0
    token = shell.folder / "hook-token"
    assert token.stat().st_mode & 0o777 == 0o600
    assert re.fullmatch(r"[0-9a-f]{48}\n", token.read_text())
    assert shell.types("take a table").returncode == 0
    assert (shell.folder / "exploits.csv").read_text().startswith("id,cve,title,")


def test_the_metrics_are_printed_once(shell: Shell, simulator: Simulator) -> None:
    """Into a file that is whole before it has its name."""
    (shell.folder / "patrolserver.yml").unlink()
    shell.environ |= {"PATROLSERVER_KEY": "demo"}
    (shell.folder / "patrolserver.yml").write_text(
        f"accounts: [{{name: main, api_url: '{simulator.base_url}', key: !env PATROLSERVER_KEY, secret: demo}}]\n"
    )
    done = shell.types("print the metrics once")
    assert done.returncode == 0, done.stderr
    assert "patrolserver_server_info{" in (shell.folder / "patrolserver.prom").read_text()


def test_a_state_is_taken_along(shell: Shell, postgres: PostgresCluster) -> None:
    """From the state file to the database of a configuration; an exporter no longer starts on the file."""
    (shell.folder / "patrolserver-exporter.token").unlink()
    shell.environ |= {"STATE_DIRECTORY": str(shell.folder), "PATROLSERVER_KEY": "demo", "PATROLSERVER_SECRET": "demo"}
    once = ["patrolserver-exporter", "--once"]
    options = {"cwd": shell.folder, "env": shell.environ, "capture_output": True, "timeout": 120}
    assert subprocess.run(once, check=False, **options).returncode == 0  # type: ignore[call-overload]
    url = postgres.create_database()
    (shell.folder / "new.yml").write_text(
        "accounts: [{key: !file '${CREDENTIALS_DIRECTORY}/key', secret: !file '${CREDENTIALS_DIRECTORY}/secret'}]\n"
        f"store: {{url: '{url}'}}\n"
    )
    (shell.folder / "credentials").mkdir()
    for name in ("key", "secret"):
        (shell.folder / "credentials" / name).write_text("demo\n")
    done = shell.types("take the state along")
    assert done.returncode == 0, done.stdout + done.stderr
    assert subprocess.run(once, check=False, **options).returncode == 3  # type: ignore[call-overload]
    postgres.drop_database(url)


def test_the_gate_of_a_ci_machine(shell: Shell) -> None:
    """The one file, as `make dist` builds it, with a token from a file."""
    build = [sys.executable, "-m", "scripts.distribution", str(shell.folder / "dist"), "gate"]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True, timeout=120)
    (shell.folder / "bin" / "patrolserver-gate").symlink_to(shell.folder / "dist" / "patrolserver-gate")
    done = shell.types("ask the gate from a CI machine")
    assert done.returncode in {0, 1}, done.stdout + done.stderr
    assert re.search("fail|pass", done.stdout)


def test_rules_and_dashboards_of_ones_own(shell: Shell) -> None:
    """From a checkout, with a setting of one's own."""
    place = checkout(shell.folder / "checkout")
    (place / ".venv").symlink_to(Path(sys.executable).parents[1])
    (place / ".venv" / ".ready").touch()
    (place / "my.yml").write_text("thresholds: {overdue: {critical: 1d}}\n")
    done = shell.types("rules of your own", folder=place)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "allowed are 1 day for critical" in (place / "rules" / "patrolserver.yml").read_text()
    boards = [json.loads(file.read_text()) for file in (place / "dashboards").glob("*.json")]
    assert {board["uid"] for board in boards} >= {"patrolserver-fleet", "patrolserver-server"}


@pytest.mark.timeout(800)
def test_mutants(shell: Shell) -> None:
    """One small module, all of it, from a checkout; it ends with its report, and too little time is no success."""
    place = checkout(shell.folder / "checkout")
    (place / ".venv").symlink_to(Path(sys.executable).parents[1])
    (place / ".venv" / ".ready").touch()
    shell.environ["MUTANTS_SECONDS"] = "120"
    done = shell.types("change the code in small ways", folder=place)
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.fullmatch(r"\d+ killed", done.stdout.strip()), done.stdout
    shell.environ["MUTANTS_SECONDS"] = "0.1"
    short = shell.types("change the code in small ways", folder=place)
    assert short.returncode != 0
    assert "no change was tried" in short.stderr


class Serving(Program):
    """A block whose last command serves until it is stopped, on a port that is free here."""

    def __init__(self, shell: Shell, text: str, folder: Path | None = None, *, prefix: str = "") -> None:
        self.address = f"127.0.0.1:{free_port()}"
        before, _, command = f"\n{text.rstrip()}".rpartition("patrolserver-exporter")
        assert before.endswith(("\n", " "))
        self._text = f"{before}exec patrolserver-exporter{command} --web.listen-address={self.address}"
        self._ready = f"http://{self.address}{prefix}/-/ready"
        self._shell = shell
        self._folder = folder or shell.folder

    def __enter__(self) -> Self:
        log = self._folder / "serving.log"
        # What the shell before it installs takes a while.
        self.launch(["bash", "-e", "-c", self._text], log_file=log, folder=self._folder, environ=self._shell.environ)
        self.await_start(lambda: self._answers() or (self.has_ended and pytest.fail(log.read_text())), within=200)
        return self

    def _answers(self) -> bool:
        try:
            return requests.get(self._ready, timeout=5).ok
        except requests.ConnectionError:
            return False

    def __exit__(self, *_: object) -> None:
        self.stop()


def test_connected_for_real(shell: Shell) -> None:
    """README: installed from a checkout, with key and secret in files."""
    place = checkout(shell.folder / "checkout")
    shell.environ["STATE_DIRECTORY"] = str(place)
    with Serving(shell, shell.written("connect it for real"), place) as running:
        assert (
            'patrolserver_up{account="default"} 1.0'
            in requests.get(f"http://{running.address}/metrics", timeout=10).text
        )
    assert (place / "venv" / "bin" / "patrolserver-exporter").is_file()
    assert (place / "patrolserver.db").is_file()


def test_started_from_the_environment(shell: Shell) -> None:
    """Two files are enough."""
    (shell.folder / "patrolserver-exporter.token").unlink()
    shell.environ["STATE_DIRECTORY"] = str(shell.folder)
    with Serving(shell, shell.written("start from the environment")) as running:
        assert requests.get(f"http://{running.address}/-/ready", timeout=10).ok


def test_behind_a_proxy(shell: Shell) -> None:
    """On loopback, under a path, and by the name that people use."""
    (shell.folder / "patrolserver-exporter.token").unlink()
    shell.environ |= {"STATE_DIRECTORY": str(shell.folder), "PATROLSERVER_KEY": "demo", "PATROLSERVER_SECRET": "demo"}
    text = shell.written("listen behind a proxy").removesuffix(" …\n")
    assert " --web.listen-address=127.0.0.1:10058 " in text
    with Serving(shell, text.replace(" --web.listen-address=127.0.0.1:10058", ""), prefix="/patrol") as running:
        url = f"http://{running.address}/patrol/"
        assert requests.get(url, headers={"Host": "monitoring.example.org"}, timeout=10).ok
        assert requests.get(url, headers={"Host": "elsewhere.example.org"}, timeout=10).status_code == 403


def test_a_simulator(shell: Shell) -> None:
    """It answers as the page says."""
    text = shell.written("start a simulator").replace("10059", str(free_port()))
    done = subprocess.run(
        ["bash", "-e", "-c", f"trap 'kill %1' EXIT\n{text}"],
        cwd=shell.folder,
        env=shell.environ,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert '"exploits"' in done.stdout
