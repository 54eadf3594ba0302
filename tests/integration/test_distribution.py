"""What is given out: the same bytes each time, complete, and with a whole life as a Debian package."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import subprocess
import sys
import venv
import zipfile
from typing import TYPE_CHECKING

import pytest
from tests.harness.chroot import DebianRoot
from tests.harness.given_out import ROOT, build, built
from tests.harness.process import samples
from tests.harness.sizes import FULL

from patrolserver_exporter import __version__
from patrolserver_exporter.cli import COMMANDS
from patrolserver_exporter.simulator.options import SimulatorOptions
from patrolserver_exporter.simulator.server import Simulator

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

pytestmark = [pytest.mark.long, pytest.mark.timeout(900), pytest.mark.turn(0)]

NAME = "patrolserver-exporter"
GATE = "patrolserver-gate"
SERVERS = 5
QUICK_PARTS = ("gate", "manual", "collection", "sbom")
"""All but the Debian package, which holds an environment and takes minutes to make."""


def test_a_folder_with_other_things_is_left_alone(tmp_path: Path) -> None:
    """What is built takes the place of an earlier build, and of nothing else."""
    (tmp_path / "thesis.txt").write_text("two years of work")
    command = [sys.executable, "-m", "scripts.distribution", str(tmp_path), "gate"]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert ended.returncode == 2
    assert "other things than an earlier build" in ended.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return built(tmp_path_factory)


@pytest.mark.sized
def test_a_second_build_gives_the_same_bytes(dist: Path, tmp_path: Path) -> None:
    """Whatever the folder, the umask and the time of day; of the Debian package in full size, for it takes minutes."""
    parts = () if FULL else QUICK_PARTS
    again = build(tmp_path / "second", *parts, umask=0o077)
    first = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in dist.iterdir()}
    first.pop("SHA256SUMS")
    assert again == {name: digest for name, digest in first.items() if FULL or not name.endswith(".deb")}
    assert {name.partition(".")[2].rpartition(".")[2] for name in first} == {"whl", "gz", "deb", "json", ""}
    assert GATE in first


def test_the_wheel_holds_the_package_and_nothing_else(dist: Path) -> None:
    """No tests, no collection, no dashboards; types are marked as there."""
    with zipfile.ZipFile(next(dist.glob("*.whl"))) as wheel:
        names = wheel.namelist()
    assert {name.split("/")[0] for name in names} == {"patrolserver_exporter", names[-1].split("/")[0]}
    assert "patrolserver_exporter/py.typed" in names


def test_the_wheel_runs_in_an_empty_environment(dist: Path, tmp_path: Path) -> None:
    """With the libraries of the lock and no checkout in sight, each command starts."""
    folder = tmp_path / "venv"
    venv.create(folder)
    pip = [sys.executable, "-m", "pip", "--python", str(folder / "bin" / "python"), "install", "--quiet", "--no-deps"]
    lock = ["--require-hashes", "--requirement", str(ROOT / "requirements" / "run.txt")]
    for what in (lock, [str(next(dist.glob("*.whl")))]):
        subprocess.run([*pip, *what], check=True, capture_output=True)
    for command in ([], *([name] for name in COMMANDS)):
        shown = subprocess.run(
            [folder / "bin" / NAME, *command, "--help"], cwd=tmp_path, capture_output=True, text=True, check=False
        )
        assert shown.returncode == 0, shown.stderr


def unpack(archive: Path, folder: Path) -> None:
    # As a user does it. Python's own wants a filter from 3.12 on, and before 3.11.4 knows none.
    subprocess.run(["tar", "--extract", "--file", archive, "--directory", folder], check=True)


def test_the_source_makes_the_same_wheel(dist: Path, tmp_path: Path) -> None:
    """The source distribution is whole: built from it alone, the wheel has the same content."""
    unpack(next(dist.glob("patrolserver_exporter-*.tar.gz")), tmp_path)
    (source,) = tmp_path.iterdir()
    command = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(tmp_path / "built")]
    subprocess.run(command, cwd=source, check=True, capture_output=True)
    with (
        zipfile.ZipFile(next(dist.glob("*.whl"))) as ours,
        zipfile.ZipFile(next((tmp_path / "built").iterdir())) as its,
    ):
        assert {one.filename: one.CRC for one in ours.infolist()} == {one.filename: one.CRC for one in its.infolist()}


def test_the_gate_as_one_file_is_the_same_wherever_it_is_built(tmp_path: Path) -> None:
    """In the sums, and executable whatever the umask."""
    for name, umask in (("first", 0o022), ("second", 0o077)):
        build(tmp_path / name, "gate", umask=umask)
    first, second = tmp_path / "first" / GATE, tmp_path / "second" / GATE
    assert first.read_bytes() == second.read_bytes()
    assert first.stat().st_mode == second.stat().st_mode == 0o100755
    assert f"{hashlib.sha256(first.read_bytes()).hexdigest()}  {GATE}\n" in (first.parent / "SHA256SUMS").read_text()


def test_the_bill_of_materials_names_every_library(dist: Path) -> None:
    """CycloneDX, with each library of the lock in its version."""
    bill = json.loads((dist / "sbom.cdx.json").read_text())
    assert bill["bomFormat"] == "CycloneDX"
    named = {f"{one['name']}=={one['version']}".lower() for one in bill["components"]}
    pinned = {
        line.split(" ")[0] for line in (ROOT / "requirements" / "run.txt").read_text().splitlines() if "==" in line
    }
    assert {pin.lower() for pin in pinned} <= named


def test_the_manual_and_the_completions(dist: Path, tmp_path: Path, require_program: Callable[[str], str]) -> None:
    """A page for each command, and bash completes a flag."""
    unpack(next(dist.glob("*-manual.tar.gz")), tmp_path)
    pages = {path.name for path in (tmp_path / "man1").iterdir()}
    assert pages == {f"{NAME}.1", *(f"{NAME}-{command}.1" for command in COMMANDS)}
    script = (
        f"source {tmp_path}/completions/bash/{NAME}; COMP_WORDS=({NAME} gate --max-c); COMP_CWORD=2; "
        "_shtab_patrolserver_exporter; echo ${COMPREPLY[@]}"
    )
    shown = subprocess.run([require_program("bash"), "-c", script], capture_output=True, text=True, check=True)
    assert shown.stdout.split() == ["--max-critical"]


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DebianRoot]:
    root = DebianRoot(tmp_path_factory.mktemp("machine") / "root", "python3", "systemd")
    yield root
    root.remove()


def revised(package: Path, folder: Path) -> Path:
    """The same package, as its next revision."""
    tree = folder / "tree"
    subprocess.run(["dpkg-deb", "--raw-extract", package, tree], check=True)
    control = tree / "DEBIAN" / "control"
    text, count = re.subn(r"^(Version: .+)-1$", r"\1-2", control.read_text(), flags=re.MULTILINE)
    assert count == 1
    control.write_text(text)
    second = folder / package.name.replace("-1_", "-2_")
    pack: list[str | Path] = ["dpkg-deb", "--root-owner-group", "-Znone", "--build", tree, second]
    subprocess.run(pack, check=True, stdout=subprocess.DEVNULL)
    return second


def test_the_life_of_the_debian_package(dist: Path, machine: DebianRoot, tmp_path: Path) -> None:
    """Installed, configured, run, upgraded, removed and purged, on a Debian that has only Python and systemd."""
    first = next(dist.glob("*.deb"))
    second = revised(first, tmp_path)
    for package in (first, second):
        shutil.copy(package, machine.path / "root")
    configuration = machine.path / f"etc/{NAME}/patrolserver.yml"
    state = machine.path / f"var/lib/{NAME}"

    machine.run("apt-get", "update", "-q")
    machine.run("apt-get", "install", "-y", "-q", "--no-install-recommends", f"/root/{first.name}")
    assert __version__ in machine.run(NAME, "--version").stdout
    user = machine.run("id", "-un", NAME).stdout.strip()
    assert machine.run("stat", "-c", "%U %a", f"/var/lib/{NAME}").stdout.split() == [user, "700"]
    machine.run("systemd-analyze", "verify", f"/lib/systemd/system/{NAME}.service")
    credentials = machine.path / f"etc/{NAME}/credentials"
    for name in ("key", "secret"):
        (credentials / name).write_text("demo\n")
    check = (NAME, "--config.check", f"--config.file=/etc/{NAME}/patrolserver.yml")
    assert "sound" in machine.run(*check, CREDENTIALS_DIRECTORY=f"/etc/{NAME}/credentials").stdout
    assert _polls_once(machine, user) == SERVERS

    configuration.write_text(configuration.read_text() + "# mine\n")
    machine.run("apt-get", "install", "-y", "-q", f"/root/{second.name}")
    assert machine.run("dpkg-query", "-W", "-f=${Version}", NAME).stdout == f"{__version__}-2"
    assert configuration.read_text().endswith("# mine\n")
    assert (state / "patrolserver.db").exists()

    machine.run("apt-get", "remove", "-y", "-q", NAME)
    assert not (machine.path / f"usr/lib/{NAME}").exists()
    assert configuration.exists()
    assert (state / "patrolserver.db").exists()

    machine.run("apt-get", "purge", "-y", "-q", NAME)
    assert not state.exists()
    assert not configuration.parent.exists()


def _polls_once(machine: DebianRoot, user: str) -> int:
    """As the service's user, in its folder, against a simulator of this machine; how many servers it shows."""
    with Simulator(SimulatorOptions(listen_address="127.0.0.1:0", servers=SERVERS)) as simulator:
        shown = machine.run(
            "/bin/sh",
            "-c",
            f"cd /var/lib/{NAME} && exec {NAME} --once",
            user=user,
            PATROLSERVER_KEY="demo",
            PATROLSERVER_SECRET="demo",
            PATROLSERVER_API_URL=simulator.base_url,
        )
    return len(samples(shown.stdout, "patrolserver_server_last_poll_timestamp_seconds"))
