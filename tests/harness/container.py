"""Images built by buildah on a Debian of mmdebstrap, and programs that run in them as a cluster would run them."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from tests.harness.chroot import DebianRoot
from tests.harness.daemons import Program

if TYPE_CHECKING:
    from collections.abc import Sequence

ROOT = Path(__file__).parents[2]
BASE = "localhost/base"
USUAL_BASE = "docker.io/library/python:3.13-slim"
"""The container file's own; no registry is asked for it."""
_STORAGE_CONF = """\
[storage]
driver = "{driver}"
graphroot = "{folder}/store"
runroot = "{folder}/run"
"""
# runc takes control groups of either version, and those that a machine has of both; crun does not.
_CONTAINERS_CONF = """\
[containers]
default_ulimits = ["nofile=1024:1024", "nproc=1024:1024"]
log_driver = "k8s-file"

[engine]
cgroup_manager = "cgroupfs"
events_logger = "none"
lock_type = "file"
runtime = "runc"
tmp_dir = "{folder}/libpod"

[network]
network_backend = "netavark"
network_config_dir = "{folder}/networks"
"""
# As podman and Kubernetes do it: the image says which user, the one who runs it that nothing is written or gained.
_ENTER = """
root=$1 user=$2 volume=$3 state=$4
shift 4
mount --make-rprivate /
mount --bind "$root" "$root"
mount -t proc proc "$root/proc"
mount --rbind /dev "$root/dev"
mount -t tmpfs -o mode=1777 tmpfs "$root/tmp"
mount --bind "$state" "$root$volume"
mount -o remount,bind,ro "$root"
exec setpriv --no-new-privs --bounding-set=-all,+sys_chroot,+setuid,+setgid \\
    chroot --userspec="$user" --groups="" "$root" /bin/sh -c 'cd "$0" && exec "$@"' "$volume" "$@"
"""


class Images:
    """A storage of images in a folder of its own, with a Debian that has Python as ``localhost/base``."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        if os.geteuid() != 0:
            pytest.skip("only root can build an image on a root folder of Debian")
        if shutil.which("buildah") is None:
            pytest.skip("buildah is not installed")
        # Overlay copies nothing, but not every file system can be below it.
        self.driver = "overlay"
        if self._ended("info").returncode:
            self.driver = "vfs"
        (folder / "base").mkdir()
        debian = DebianRoot(folder / "base" / "root", "python3", "python3-venv", "ca-certificates")
        debian.take_over_pip()
        (folder / "base" / "Containerfile").write_text("FROM scratch\nADD root /\n")
        self.build(BASE, folder / "base" / "Containerfile", folder / "base")
        debian.remove()

    def build(self, tag: str, containerfile: Path, context: Path, **arguments: str) -> None:
        """Build an image; the chroot's isolation needs no runtime and no namespaces of users."""
        given = [f"--build-arg={name}={value}" for name, value in arguments.items()]
        how = ("--isolation=chroot", "--layers", "--format=docker", f"--file={containerfile}", f"--tag={tag}")
        self.buildah("bud", *how, *given, str(context))

    def buildah(self, *arguments: str) -> str:
        """What it printed."""
        ended = self._ended(*arguments)
        if ended.returncode:
            pytest.fail(f"buildah {arguments[0]} ended with {ended.returncode}:\n{ended.stdout}\n{ended.stderr}")
        return ended.stdout.strip()

    def _ended(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        store = [f"--root={self.folder / 'store'}", f"--runroot={self.folder / 'run'}"]
        command = ["buildah", *store, f"--storage-driver={self.driver}", *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)

    def remove(self) -> None:
        """Take everything away."""
        self._ended("rm", "--all")
        subprocess.run(["rm", "-rf", "--one-file-system", str(self.folder)], check=True)


class Container(Program):
    """A container of an image, with a root that is only read, no right of root, and one folder for its state."""

    def __init__(self, images: Images, image: str) -> None:
        self.image: dict[str, Any] = json.loads(images.buildah("inspect", "--type=image", image))["Docker"]["config"]
        container = images.buildah("from", image)
        self.root = Path(images.buildah("mount", container))
        self.state = images.folder / "state"
        self.state.mkdir()
        user, group = map(int, self.image["User"].split(":"))
        os.chown(self.state, user, group)

    def signal(self, number: int) -> None:
        """To the first process in it: unshare takes no notice of a SIGTERM, and its death ends nobody else's user."""
        assert self.process is not None
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        for child in map(int, children):
            os.kill(child, number)

    def kill(self) -> None:
        """``kill -9``, if it still runs."""
        if self.process is not None and not self.has_ended:
            self.signal(signal.SIGKILL)
            self.process.wait(10)

    def inside(self, *command: str, **environ: str) -> Sequence[str]:
        """The command line that runs a command in it, with the variables of the image and these."""
        (volume,) = self.image["Volumes"]
        variables = {**dict(one.split("=", 1) for one in self.image["Env"]), **environ}
        space = ["unshare", "--mount", "--pid", "--fork", "--kill-child"]
        enter = ["sh", "-e", "-c", _ENTER, "sh", str(self.root), self.image["User"], volume, str(self.state)]
        set_variables = ["env", "-i", *(f"{name}={value}" for name, value in variables.items())]
        return [*space, *enter, *set_variables, *command]


class Engine:
    """podman on such images, with configuration, networks and volumes of its own; ``environ`` leads commands to it."""

    def __init__(self, images: Images) -> None:
        self._images = images
        for program in ("podman", "podman-compose", "runc"):
            if shutil.which(program) is None:
                pytest.skip(f"{program} is not installed")
        places = {"folder": images.folder, "driver": images.driver}
        (images.folder / "containers.conf").write_text(_CONTAINERS_CONF.format(**places))
        (images.folder / "storage.conf").write_text(_STORAGE_CONF.format(**places))
        # docker compose, on a machine that has podman in its place.
        (images.folder / "bin").mkdir()
        (images.folder / "bin" / "docker").write_text(
            '#!/bin/sh\n[ "$1" = compose ] && shift && exec podman-compose "$@"\n'
        )
        (images.folder / "bin" / "docker").chmod(0o755)
        self.environ = {
            **os.environ,
            "CONTAINERS_CONF": str(images.folder / "containers.conf"),
            "CONTAINERS_STORAGE_CONF": str(images.folder / "storage.conf"),
            # What docker does, and what keeps health checks: so that nothing is built twice.
            "BUILDAH_FORMAT": "docker",
            "PATH": f"{images.folder / 'bin'}:{os.environ['PATH']}",
        }
        images.buildah("tag", BASE, USUAL_BASE)
        tried = self._ended("run", "--rm", USUAL_BASE, "true")
        if tried.returncode:
            pytest.skip(f"podman can run no container here: {tried.stderr.strip()}")

    def podman(self, *arguments: str) -> str:
        """What it printed."""
        ended = self._ended(*arguments)
        assert ended.returncode == 0, f"podman {arguments[0]}: {ended.stderr}"
        return ended.stdout.strip()

    def _ended(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = ["podman", *arguments]
        return subprocess.run(command, env=self.environ, capture_output=True, text=True, timeout=300, check=False)

    def build_program(self, tag: str, program: Path, *beside: Path) -> None:
        """Build an image that runs a program of this machine, with the folders that it reads."""
        context = self._images.folder / "programs" / program.name
        lines = [f"FROM {BASE}"]
        for source in (program, *beside):
            target = context / source.relative_to("/")
            target.parent.mkdir(parents=True, exist_ok=True)
            (shutil.copytree if source.is_dir() else shutil.copy)(source, target)
            lines.append(f"COPY {source.relative_to('/')} {source}")
        (context / "Containerfile").write_text("\n".join([*lines, f'ENTRYPOINT ["{program}"]']) + "\n")
        self._images.build(tag, context / "Containerfile", context)

    def remove(self) -> None:
        """End and remove all containers, volumes and networks."""
        self._ended("rm", "--all", "--force", "--time=1")
        self._ended("volume", "prune", "--force")
        self._ended("network", "prune", "--force")
