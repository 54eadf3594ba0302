"""The commands of docs/install.md on a fresh Debian with systemd, as they stand there."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from scripts.distribution import debian as package
from tests.harness.debian import fresh_debian
from tests.harness.page_blocks import ROOT, block, blocks, checkout
from tests.harness.prometheus import free_port

from patrolserver_exporter.simulator.options import SimulatorOptions
from patrolserver_exporter.simulator.server import Simulator

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.harness.debian import Debian

pytestmark = pytest.mark.timeout(900)

UNIT = "patrolserver-exporter"
INSIDE = "/root/checkout"


class Machine:
    """What somebody types on it as root, in a checkout, on a port that is free here."""

    def __init__(self, debian: Debian) -> None:
        self.root = debian.root
        self.checkout = checkout(debian.root / INSIDE.lstrip("/"))
        self.address = f"localhost:{free_port()}"
        self._inside = debian.inside
        unit = self.checkout / "packaging" / f"{UNIT}.service"
        listen = f"--web.listen-address=127.0.0.1:{self.address.partition(':')[2]}"
        unit.write_text(re.sub(r"^(ExecStart=.*)$", rf"\1 {listen}", unit.read_text(), flags=re.MULTILINE))
        if (pip := Path("/etc/pip.conf")).is_file():
            shutil.copy(pip, self.root / "etc/pip.conf")
        shutil.copy("/etc/ssl/certs/ca-certificates.crt", self.root / "etc/ssl/certs")

    def types(self, text: str) -> str:
        """Run it; what it printed. The first command that fails is a failure."""
        text = text.replace("localhost:10058", self.address).replace("127.0.0.1:10058", self.address)
        environ = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root"}
        done = subprocess.run(
            [*self._inside, "bash", "-e", "-c", f"cd {INSIDE}\n{text}"],
            env={**environ, "LC_ALL": "C.UTF-8", "DEBIAN_FRONTEND": "noninteractive"},
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        if done.returncode:
            log = subprocess.run([*self._inside, "journalctl", "-n", "30"], capture_output=True, text=True, check=False)
            pytest.fail(f"{text}ended with {done.returncode}:\n{done.stdout}\n{done.stderr}\n{log.stdout}")
        return done.stdout

    def has_version(self, version: str) -> None:
        """The checkout is of that version now."""
        module = self.checkout / "exporter" / "patrolserver_exporter" / "__init__.py"
        text, replaced = re.subn(
            r'^__version__ = ".*"$', f'__version__ = "{version}"', module.read_text(), flags=re.MULTILINE
        )
        assert replaced == 1
        module.write_text(text)

    def awaits_ready(self) -> None:
        """Wait until the exporter says that it works."""
        self.types(f"for i in $(seq 150); do curl -sf {self.address}/-/ready && exit; sleep 0.2; done; exit 1")


def shown(page: str, language: str, beginning: str) -> str:
    """What a page shows of a file."""
    (found,) = (
        one.text
        for one in blocks(ROOT / "docs" / page)
        if one.language == language and one.text.lstrip().startswith(beginning)
    )
    return found


@pytest.fixture(scope="module")
def simulator() -> Iterator[Simulator]:
    with Simulator(SimulatorOptions(listen_address="127.0.0.1:0", servers=2, software=4)) as running:
        yield running


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    with fresh_debian(tmp_path_factory.mktemp("debian")) as running:
        yield Machine(running)


def build(folder: Path, part: str) -> None:
    command = [sys.executable, "-m", "scripts.distribution", str(folder), part]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True, timeout=300)


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Debian package, as `make dist` builds it."""
    folder = tmp_path_factory.mktemp("dist")
    build(folder, "python")
    package.build(next(folder.glob("*.whl")), folder, 1_790_000_000)
    return folder


def test_the_debian_package_as_the_page_says(machine: Machine, dist: Path) -> None:
    """Installed with its key and secret it runs, and is gone after a purge."""
    shutil.copy(next(dist.glob("*.deb")), machine.checkout)
    for name in ("key", "secret"):
        (machine.checkout / name).write_text("demo\n")
    machine.types(block("install the Debian package").commands)
    assert machine.types(f"systemctl is-active {UNIT}").strip() == "active"
    # Debian keeps the user of a package that is gone.
    machine.types(f"apt-get purge --yes {UNIT} && userdel {UNIT}")
    assert not (machine.root / "var/lib" / UNIT).exists()


def test_from_a_checkout_to_a_service(machine: Machine, simulator: Simulator, tmp_path: Path) -> None:
    """Installed, configured, checked, started; a webhook; the gate of a CI machine; upgraded, and a state set aside."""
    for name in ("key", "secret"):
        (machine.checkout / name).write_text("demo\n")
    machine.types(block("install with systemd").commands)
    configuration = machine.root / "etc" / UNIT / "patrolserver.yml"
    text = configuration.read_text().replace("https://api.patrolserver.com", simulator.base_url)
    for line in shown("install.md", "yaml", "key:").splitlines():
        key = line.partition(":")[0]
        text, replaced = re.subn(rf"^{key}: .*$", line.replace("\\", r"\\"), text, flags=re.MULTILINE)
        assert replaced == 1, f"the page's {line} has no place in the file"
    configuration.write_text(text)
    said = machine.types(block("check, start and look").commands)
    assert "is sound" in said
    assert "active (running)" in said
    machine.awaits_ready()

    token = machine.root / "etc" / UNIT / "credentials" / "webhook-token"
    token.write_text("test-token-0123456789")
    configuration.write_text(
        text.replace("webhook_tokens: []", 'webhook_tokens: [!file "${CREDENTIALS_DIRECTORY}/webhook-token"]')
    )
    drop_in = machine.root / f"etc/systemd/system/{UNIT}.service.d/override.conf"
    drop_in.parent.mkdir()
    drop_in.write_text(shown("install.md", "ini", "[Service]"))
    machine.types(f"systemctl daemon-reload; systemctl restart {UNIT}")
    machine.awaits_ready()
    post = f"curl -s http://{machine.address}/webhook/test-token-0123456789 -H 'Content-Type: application/json'"
    event = '{"webhook_patrolserver": 1, "identifier": "webhook.test", "webhook_id": 1, "event_id": 1}'
    assert "accepted" in machine.types(f"{post} -d '{event}'")

    build(tmp_path / "dist", "gate")
    shutil.copy(tmp_path / "dist" / "patrolserver-gate", machine.checkout)
    machine.types(block("install the gate").commands)
    judged = machine.types(
        f"patrolserver-gate 'web-*' --max-age=1h --exporter-url=http://{machine.address} --format=json || test $? = 4"
    )
    assert '"verdict"' in judged

    for name, version in (("upgrade", "99.0.0"), ("upgrade by steps", "99.0.1")):
        machine.has_version(version)
        machine.types(block(name).commands)
        machine.awaits_ready()
        assert f'version="{version}"' in machine.types(f"curl -s {machine.address}/metrics")
    state = machine.root / "var/lib" / UNIT
    before = (state / "patrolserver.db").stat().st_ino
    machine.types(block("set the newer state aside").commands)
    machine.awaits_ready()
    assert (state / "newer" / "patrolserver.db").stat().st_ino == before != (state / "patrolserver.db").stat().st_ino
