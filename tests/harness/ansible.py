"""The collection as users run it: a real ansible-playbook, with this checkout's collection in its path."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
COLLECTION = ROOT / "ansible_collection"
TOO_LONG = 500.0
TARGETS = range(8, 14)
"""Minor versions of the Pythons that the oldest core reaches."""


@dataclass(frozen=True, slots=True)
class Run:
    """What a command did."""

    status: int
    output: str

    @property
    def ok(self) -> bool:
        """It succeeded."""
        return self.status == 0


@dataclass(slots=True)
class Ansible:
    """Commands of one virtual environment, run in a folder of the test's own.

    They use the collection of this checkout; with ``installed`` it is built and installed first, as users do.
    """

    bin: Path
    folder: Path
    environ: dict[str, str] = field(default_factory=dict)
    installed: bool = False

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        if self.installed:
            self._install()
            return
        link = self.folder / "tree" / "ansible_collections" / "patrolserver" / "monitoring"
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(COLLECTION)

    def _install(self) -> None:
        listed = subprocess.run(
            ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", "."],
            cwd=COLLECTION,
            check=True,
            stdout=subprocess.PIPE,
        )
        source = self.folder / "source"
        for name in filter(None, listed.stdout.decode().split("\0")):
            if (COLLECTION / name).is_file():
                (source / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(COLLECTION / name, source / name)
        built = self.run("ansible-galaxy", "collection", "build", str(source), "--output-path", str(self.folder))
        assert built.ok, built.output
        (tarball,) = self.folder.glob("patrolserver-monitoring-*.tar.gz")
        tree = str(self.folder / "tree")
        done = self.run("ansible-galaxy", "collection", "install", str(tarball), "-p", tree, "--offline")
        assert done.ok, done.output

    def environment(self) -> dict[str, str]:
        """Nothing of the caller's Ansible, proxies or locale."""
        return {
            "PATH": f"{self.bin}:/usr/local/bin:/usr/bin:/bin",
            "HOME": str(self.folder),
            "LC_ALL": "C.UTF-8",
            "ANSIBLE_COLLECTIONS_PATH": str(self.folder / "tree"),
            "ANSIBLE_NOCOLOR": "1",
            "ANSIBLE_LOCALHOST_WARNING": "false",
            "ANSIBLE_INVENTORY_UNPARSED_WARNING": "false",
            **self.environ,
        }

    def start(self, *command: str, output: Path | None = None) -> subprocess.Popen[bytes]:
        """Start a command; its output goes to the file, or to a pipe."""
        stream: Any = subprocess.PIPE
        if output is not None:
            stream = output.open("wb")
        try:
            return subprocess.Popen(
                [str(self.bin / command[0]), *command[1:]],
                cwd=self.folder,
                env=self.environment(),
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=subprocess.STDOUT,
            )
        finally:
            if output is not None:
                stream.close()

    def run(self, *command: str) -> Run:
        """Run a command to its end."""
        with self.start(*command) as process:
            try:
                output, _ = process.communicate(timeout=TOO_LONG)
            finally:
                if process.poll() is None:
                    process.kill()
        return Run(process.returncode, output.decode(errors="replace"))

    def playbook(self, playbook: str | Path | list[dict[str, Any]], *flags: str, **variables: Any) -> Run:
        """Run a playbook, by path, by its name within a collection, or as data, with extra variables."""
        if isinstance(playbook, list):
            path = self.folder / "playbook.yml"
            path.write_text(json.dumps(playbook))
            playbook = path
        return self.run("ansible-playbook", *flags, str(playbook), "--extra-vars", json.dumps(variables))

    def inventory(self, hosts: dict[str, dict[str, Any]]) -> Path:
        """Write an inventory of hosts that are all this machine."""
        local = {"ansible_connection": "local", "ansible_python_interpreter": "{{ ansible_playbook_python }}"}
        path = self.folder / "hosts.yml"
        path.write_text(json.dumps({"all": {"hosts": hosts, "vars": local}}))
        return path


def virtual_environments(python: str = "") -> Path:
    """Make the virtual environments of the collection's checks, unless they are there; returns their folder.

    Without a ``python`` it is the oldest that they can have.
    """
    command = [str(ROOT / "scripts" / "ansible-env"), *([python, "core"] if python else [])]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, env=os.environ, timeout=600)
    return Path(done.stdout.decode().strip())


def pythons() -> list[str]:
    """The Pythons of this machine that can have them: the oldest has the oldest core, the newest the newest."""
    script = [str(ROOT / "scripts" / "ansible-pythons")]
    return subprocess.run(script, check=True, stdout=subprocess.PIPE, timeout=60).stdout.decode().split()


def target_pythons() -> dict[int, str]:
    """The Pythons of this machine on which modules may run, by their minor version: of the system, of pyenv, of uv."""
    home = Path.home()
    found: dict[int, str] = {}
    pyenv = Path(os.environ.get("PYENV_ROOT", home / ".pyenv"))
    uv = Path(os.environ.get("UV_PYTHON_INSTALL_DIR", home / ".local" / "share" / "uv" / "python"))
    for minor in TARGETS:
        name = f"python3.{minor}"
        places = [Path("/usr/bin", name), Path("/usr/local/bin", name), Path("/opt", f"{name}/bin/python3")]
        places += [*pyenv.glob(f"versions/3.{minor}.*/bin/python3"), *uv.glob(f"cpython-3.{minor}.*/bin/{name}")]
        there = [str(place) for place in places if os.access(place, os.X_OK)]
        if there:
            found[minor] = there[0]
    return found


def java_home(java: str) -> str:
    """What ansible-rulebook wants in JAVA_HOME, from the path of the program."""
    return str(Path(java).resolve().parents[1])


@contextmanager
def rulebook(ansible: Ansible, inventory: Path, *flags: str, ends: str = "well", **variables: Any) -> Iterator[Path]:
    """Run the collection's rulebook in the background; yields the file with what it says."""
    output, extra = ansible.folder / "rulebook.log", ansible.folder / "variables.yml"
    extra.write_text(json.dumps(variables))
    process = ansible.start(
        "ansible-rulebook",
        "--rulebook=patrolserver.monitoring.critical_issue",
        f"--inventory={inventory}",
        f"--vars={extra}",
        "--verbose",
        *flags,
        output=output,
    )
    try:
        yield output
        assert process.poll() is None, output.read_text()
    finally:
        process.send_signal(signal.SIGKILL if ends == "killed" else signal.SIGINT)
        try:
            process.wait(20)
        finally:
            process.kill()
            process.wait()
