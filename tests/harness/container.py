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
        self._driver = "overlay"
        if self._ended("info").returncode:
            self._driver = "vfs"
        (folder / "base").mkdir()
        debian = DebianRoot(folder / "base" / "root", "python3", "python3-venv", "ca-certificates")
        debian.take_over_pip()
        (folder / "base" / "Containerfile").write_text("FROM scratch\nADD root /\n")
        self.build(BASE, folder / "base" / "Containerfile", folder / "base")
        debian.remove()

    def build(self, tag: str, containerfile: Path, context: Path, **arguments: str) -> None:
        """Build an image; the chroot's isolation needs no runtime and no namespaces of users."""
        given = [f"--build-arg={name}={value}" for name, value in arguments.items()]
        how = ("--isolation=chroot", "--format=docker", f"--file={containerfile}", f"--tag={tag}")
        self.buildah("bud", *how, *given, str(context))

    def buildah(self, *arguments: str) -> str:
        """What it printed."""
        ended = self._ended(*arguments)
        if ended.returncode:
            pytest.fail(f"buildah {arguments[0]} ended with {ended.returncode}:\n{ended.stdout}\n{ended.stderr}")
        return ended.stdout.strip()

    def _ended(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        store = [f"--root={self.folder / 'store'}", f"--runroot={self.folder / 'run'}"]
        command = ["buildah", *store, f"--storage-driver={self._driver}", *arguments]
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
