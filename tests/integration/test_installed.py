"""The commands of docs/install.md on a fresh Debian with systemd, as they stand there."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tests.harness.debian import fresh_debian
from tests.harness.given_out import built
from tests.harness.page_blocks import ROOT, block, blocks, checkout
from tests.harness.page_sentences import SAID, begins
from tests.harness.prometheus import free_port

from patrolserver_exporter.simulator.options import SimulatorOptions
from patrolserver_exporter.simulator.server import Simulator

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.harness.debian import Debian

pytestmark = [pytest.mark.timeout(900), pytest.mark.turn(1)]

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
        socket = unit.with_suffix(".socket")
        socket.write_text(
            socket.read_text().replace(
                "ListenStream=10058", f"ListenStream={self.address.replace('localhost', '127.0.0.1')}"
            )
        )
        if (pip := Path("/etc/pip.conf")).is_file():
            shutil.copy(pip, self.root / "etc/pip.conf")
        shutil.copy("/etc/ssl/certs/ca-certificates.crt", self.root / "etc/ssl/certs")

    def types(self, text: str) -> str:
        """Run it; what it printed. The first command that fails is a failure."""
        for known in ("localhost:10058", "127.0.0.1:10058"):
            text = text.replace(known, self.address)
        text = text.replace("sport = :10058", f"sport = :{self.address.partition(':')[2]}")
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


def said(*programs: str) -> list[str]:
    """The commands of these programs that stand in sentences."""
    return sorted(one.text for one in SAID if begins(one, *programs))


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Debian package, as `make dist` builds it."""
    return built(tmp_path_factory)


def test_the_debian_package_as_the_page_says(machine: Machine, dist: Path) -> None:
    """Installed with its key and secret it runs, and is gone after a purge."""
    shutil.copy(next(dist.glob("*.deb")), machine.checkout)
    for name in ("key", "secret"):
        (machine.checkout / name).write_text("demo\n")
    machine.types(block("install the Debian package").commands)
    assert machine.types(f"systemctl is-active {UNIT}").strip() == "active"
    (upgrade,) = [text for text in said("apt-get") if ".deb" in text]
    assert "already the newest version" in machine.types(upgrade)
    (remove,) = [text for text in said("apt-get") if "remove" in text]
    machine.types(f"{remove} --yes {UNIT}")
    assert (machine.root / "etc" / UNIT / "credentials" / "key").exists()
    assert (machine.root / "var/lib" / UNIT).exists()
    # Debian keeps the user of a package that is gone.
    machine.types(f"apt-get purge --yes {UNIT} && userdel {UNIT}")
    assert not (machine.root / "var/lib" / UNIT).exists()


def test_from_a_checkout_to_a_service(machine: Machine, simulator: Simulator, dist: Path) -> None:
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

    shutil.copy(dist / "patrolserver-gate", machine.checkout)
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
    _as_sentences_say(machine)


def _as_sentences_say(machine: Machine) -> None:
    """What pages say in sentences of systemd and of other programs, about the service that runs."""
    # Prometheus would start beside those that other tests run.
    (machine.root / "usr/sbin/policy-rc.d").write_text("#!/bin/sh\nexit 101\n")
    (machine.root / "usr/sbin/policy-rc.d").chmod(0o755)
    machine.types("apt-get update -q; apt-get install --yes --no-install-recommends apache2-utils iproute2")
    for text in (text for text in said("apt-get") if ".deb" not in text and "remove" not in text):
        machine.types(f"{text} --yes --no-install-recommends")

    running = [text for text in said("systemctl", "systemd-analyze") if ".socket" not in text]
    assert len(running) > 6
    # As somebody at a terminal, without whom there is no editor; this one changes nothing.
    terminal = "export SYSTEMD_EDITOR=true SYSTEMD_PAGER=cat SYSTEMD_COLORS=0\nscript -qec '{}' /dev/null"
    shown = {text: machine.types(terminal.format(text)).replace("\r", "") for text in running}
    assert "[Service]\n" in shown[f"systemctl cat {UNIT}"]
    assert "override.conf" in shown[f"systemctl cat {UNIT}"]
    assert "active (running)" in machine.types(f"systemctl status {UNIT}")
    exposure = re.search(r"exposure level for .*: (\d+\.\d)", shown[f"systemd-analyze security {UNIT}"])
    assert exposure
    assert float(exposure[1]) <= 1.5
    machine.awaits_ready()

    (sockets,) = said("ss")
    assert UNIT[:15] in machine.types(sockets)
    state = machine.root / "var/lib" / UNIT
    (state / "FILE").write_text("")
    for text in said("chown"):
        machine.types(f"cd /var/lib/{UNIT}\n{text}")
        assert (state / "FILE").stat().st_uid == state.stat().st_uid != 0

    (compare,) = said("htpasswd")
    machine.types("htpasswd -nbBC 4 NAME right >FILE")
    machine.types(f"echo right | setsid -w {compare}")
    machine.types(f"! echo wrong | setsid -w {compare}")

    unit = machine.root / "etc/systemd/system" / f"{UNIT}.service"
    unit.write_text(re.sub(r"--web\.listen-address=\S+", "--web.systemd-socket", unit.read_text()))
    shutil.copy(machine.checkout / "packaging" / f"{UNIT}.socket", unit.parent)
    (enable,) = [text for text in said("systemctl") if ".socket" in text]
    machine.types(f"systemctl daemon-reload; systemctl stop {UNIT}; {enable}")
    machine.awaits_ready()
