"""A fresh Debian with its own systemd: the role installed, failed, healed, upgraded, removed; and packages remedied."""

from __future__ import annotations

import hashlib
import shutil
import socket
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
import requests
from tests.harness.ansible import ROOT, Ansible, Run, virtual_environments
from tests.harness.debian import PLUGINS, fresh_debian
from tests.harness.sizes import FULL

from patrolserver_exporter import __version__
from patrolserver_exporter.simulator.options import SimulatorOptions
from patrolserver_exporter.simulator.server import Simulator

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.harness.debian import Debian

pytestmark = pytest.mark.turn(2)

UNIT = "patrolserver-exporter.service"
NEWER = "99.0.0"
PACKAGE = "shop-of-the-tests"


@pytest.fixture(scope="module")
def simulator() -> Iterator[Simulator]:
    with Simulator(SimulatorOptions(listen_address="127.0.0.1:0", servers=2, software=4)) as running:
        yield running


@pytest.fixture(scope="module")
def debian(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Debian]:
    with fresh_debian(tmp_path_factory.mktemp("debian")) as running:
        _put_wheels(running.root / "srv")
        yield running


def _put_wheels(folder: Path) -> None:
    """The exporter in two versions, and its locked dependencies, so that pip there needs no index."""
    lock = ROOT / "requirements" / "run.txt"
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    download = ["download", "--require-hashes", "--only-binary=:all:", "--python-version=3.11", "-r", str(lock)]
    subprocess.run([*pip, *download, "-d", str(folder / "wheels")], check=True, capture_output=True, timeout=300)
    source = folder / "source"
    shutil.copytree(ROOT / "exporter", source / "exporter", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    module = source / "exporter" / "patrolserver_exporter" / "__init__.py"
    for version in (__version__, NEWER):
        module.write_text(module.read_text().replace(f'"{__version__}"', f'"{version}"'))
        build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder / "wheels")]
        subprocess.run(build, check=True, cwd=source, capture_output=True, timeout=120)


class Role:
    """The role, with variables that stay from run to run."""

    def __init__(self, ansible: Ansible, debian: Debian, simulator: Simulator) -> None:
        self._ansible = ansible
        self._debian = debian
        account = {"name": "main", "key": "demo", "secret": "demo", "api_url": simulator.base_url}
        self.variables: dict[str, Any] = {
            "exporter_requirements_file": str(ROOT / "requirements" / "run.txt"),
            "exporter_pip_extra_args": "--no-index --find-links /srv/wheels",
            "exporter_accounts": [account],
            "exporter_listen_addresses": ["127.0.0.1:10958"],
            "exporter_ready_url": "http://127.0.0.1:10958/-/ready",
            "exporter_ready_timeout": 60,
        }

    def run(self, *flags: str, **variables: Any) -> Run:
        """Run it; variables that are given stay."""
        self.variables |= variables
        path = self._ansible.inventory({"debian": self._debian.ansible_variables()})
        play = {
            "hosts": "debian",
            "gather_facts": False,
            "roles": [{"role": "patrolserver.monitoring.exporter"}],
        }
        return self._ansible.playbook([play], f"--inventory={path}", *flags, **self.variables)

    def started_at(self) -> str:
        """When the service was started; another value after each restart."""
        return self._debian.run("systemctl", "show", "--property=ExecMainStartTimestampMonotonic", UNIT)

    def is_active(self) -> bool:
        """The service runs."""
        return self._debian.run("systemctl", "is-active", UNIT) == "active"


@pytest.fixture
def ansible(tmp_path: Path) -> Ansible:
    environ = {"ANSIBLE_CONNECTION_PLUGINS": str(PLUGINS / "connection"), "ANSIBLE_PIPELINING": "1"}
    return Ansible(virtual_environments() / "core" / "bin", tmp_path / "ansible", environ)


@pytest.fixture
def role(debian: Debian, simulator: Simulator, ansible: Ansible) -> Role:
    return Role(ansible, debian, simulator)


def api(token: str) -> int:
    """The status with which the exporter answers the holder of a token."""
    headers = {"Authorization": f"Bearer {token}"}
    return requests.get("http://127.0.0.1:10958/api/v1/servers", headers=headers, timeout=10).status_code


def metrics() -> str:
    return requests.get("http://127.0.0.1:10958/metrics", timeout=10).text


@pytest.mark.calm
@pytest.mark.sized
@pytest.mark.timeout(900)
def test_its_life(role: Role, debian: Debian) -> None:
    """Installed from nothing; runs that fail lose nothing; what is owed is made up for; upgraded; removed."""
    etc = debian.root / "etc/patrolserver-exporter"
    wheels, away = debian.root / "srv/wheels", debian.root / "srv/away"

    # Python 3.9, as EL 9 has it, is told before anything is changed.
    old = debian.root / "usr/local/bin/old-python"
    old.write_text("#!/bin/sh\necho 3.9\n")
    old.chmod(0o755)
    refused = role.run("--extra-vars=exporter_python=/usr/local/bin/old-python")
    assert (refused.ok, "changed=0" in refused.output) == (False, True), refused.output
    assert "exporter_python=python3.11" in refused.output

    # The lock's packages cannot be had; the next run makes up for it.
    wheels.rename(away)
    failed = role.run(exporter_package="patrolserver-exporter", exporter_version=__version__, **one_token("first"))
    away.rename(wheels)
    assert not failed.ok, failed.output
    installed = role.run()
    assert installed.ok, installed.output
    assert role.is_active()
    assert 'patrolserver_up{account="main"} 1.0' in metrics()
    assert api("first-token-0123456789") == 200
    began = role.started_at()
    if FULL:
        # Molecule does the same each time.
        again = role.run()
        assert (again.ok, "changed=0" in again.output, role.started_at()) == (True, True, began), again.output

    # What the exporter does not accept leaves all as it was.
    before = contents(etc)
    wrong = role.run(exporter_settings={"poll": {"interval": "for ever"}}, **one_token("second"))
    assert (wrong.ok, contents(etc), role.started_at()) == (False, before, began), wrong.output
    assert "poll.interval" in wrong.output

    # The restart fails, for somebody has the port; the token that was rotated then comes into force with the next run.
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        owed = {"exporter_settings": {}, "exporter_listen_addresses": [f"127.0.0.1:{port}"]}
        stuck = role.run(**owed, exporter_ready_timeout=2)
    assert not stuck.ok, stuck.output
    healed = role.run(exporter_listen_addresses=["127.0.0.1:10958"], exporter_ready_timeout=60)
    assert healed.ok, healed.output
    assert (api("first-token-0123456789"), api("second-token-0123456789")) == (401, 200)

    # A newer version, and a token that is not used any more.
    upgraded = role.run(exporter_version=NEWER, exporter_api_tokens=[])
    assert upgraded.ok, upgraded.output
    assert f'version="{NEWER}"' in metrics()
    assert sorted(path.name for path in (etc / "credentials").iterdir()) == [
        "account-main-key",
        "account-main-secret",
        "store-url",
    ]

    # Removed; the state stays, and so does what else lies beside the configuration.
    (etc / "of-mine.pem").touch()
    removed = role.run(exporter_state="absent")
    assert removed.ok, removed.output
    assert [path.name for path in etc.iterdir()] == ["of-mine.pem"]
    assert not (debian.root / "opt/patrolserver-exporter").exists()
    assert debian.run("systemctl", "show", "--property=LoadState", UNIT) == "LoadState=not-found"
    assert (debian.root / "var/lib/patrolserver-exporter/patrolserver.db").exists()
    purged = role.run(exporter_purge=True)
    assert purged.ok, purged.output
    assert not (debian.root / "var/lib/patrolserver-exporter").exists()
    assert "patrolserver-exporter" not in (debian.root / "etc/passwd").read_text()


def one_token(name: str) -> dict[str, Any]:
    """Variables for a token of the API."""
    return {"exporter_api_tokens": [{"name": "ansible", "token": f"{name}-token-0123456789"}]}


def contents(folder: Path) -> dict[str, bytes]:
    """All that is in a folder."""
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def put_package(debian: Debian, version: str) -> Path:
    """Build a package without anything in it, into the Debian's folder for packages of its own."""
    folder = debian.root / "srv" / "packages"
    (folder / version / "DEBIAN").mkdir(parents=True)
    fields = {"Package": PACKAGE, "Version": version, "Architecture": "all", "Maintainer": "x", "Description": "x"}
    control = "".join(f"{name}: {value}\n" for name, value in fields.items())
    (folder / version / "DEBIAN" / "control").write_text(control)
    path = folder / f"{PACKAGE}_{version}.deb"
    build = ["dpkg-deb", "--root-owner-group", "--build", str(folder / version), str(path)]
    subprocess.run(build, check=True, capture_output=True, timeout=60)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    listed = f"{control}Filename: ./{path.name}\nSize: {path.stat().st_size}\nSHA256: {digest}\n"
    (folder / "Packages").write_text(listed)
    return path


def test_only_an_installed_package_is_updated(debian: Debian, ansible: Ansible) -> None:
    """To what its repositories have, and not in check mode; one that is not installed is refused, and stays away."""
    source = debian.root / "etc/apt/sources.list.d/of-the-tests.list"
    source.write_text("deb [trusted=yes] file:/srv/packages ./\n")
    put_package(debian, "1.0")
    inventory = ansible.inventory({"debian": {"patrolserver_server": "web", **debian.ansible_variables()}})
    issue: dict[str, Any] = {
        "server": "web",
        "software": "Shop",
        "canonical_name": PACKAGE,
        "severity": "critical",
        "version": "1.0",
    }
    issue |= {"kind": "exploitable", "location": "/", "exploits": []}

    def remedy(*flags: str) -> Run:
        playbook = "patrolserver.monitoring.remediate"
        return ansible.playbook(playbook, f"--inventory={inventory}", *flags, remediate_issue=issue)

    def version() -> str:
        return debian.run("dpkg-query", "--show", "--showformat=${Version}", PACKAGE)

    for flags in (["--check"], []):
        refused = remedy(*flags)
        assert (refused.ok, f"No package {PACKAGE} is installed" in refused.output) == (False, True), refused.output
    assert "no packages found" in version()
    debian.run("dpkg", "--install", f"/srv/packages/{PACKAGE}_1.0.deb")
    assert version() == "1.0"
    put_package(debian, "1.1")
    checked = remedy("--check")
    assert (checked.ok, version()) == (True, "1.0"), checked.output
    assert "check mode changes nothing" in checked.output
    remedied = remedy()
    assert (remedied.ok, version()) == (True, "1.1"), remedied.output
    assert "updated from 1.0 to 1.1" in remedied.output
    source.unlink()
