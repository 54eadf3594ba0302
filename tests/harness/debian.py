"""A fresh Debian with its own systemd, in namespaces of its own. Ansible reaches it by a connection plugin."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Self

import pytest
from tests.harness.skipping import NOT_OURS
from tests.harness.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

PLUGINS = Path(__file__).with_name("ansible_plugins")
SUITE = "bookworm"
# Python, because Ansible takes it; nothing of what the role has to bring.
PACKAGES = "systemd,systemd-sysv,dbus,ca-certificates,python3,python3-apt"
BOOT = r"""
set -e
root=$1
for hierarchy in unified systemd; do
  group=/sys/fs/cgroup/$hierarchy/$2
  [ -d "/sys/fs/cgroup/$hierarchy" ] || continue
  mkdir -p "$group"
  echo $$ >"$group/cgroup.procs"
done
if [ -e /sys/fs/cgroup/cgroup.controllers ]; then
  mkdir -p "/sys/fs/cgroup/$2"
  echo $$ >"/sys/fs/cgroup/$2/cgroup.procs"
fi
exec unshare --mount --pid --fork --uts --ipc --cgroup --kill-child sh -c '
  set -e
  mount --make-rprivate /
  mount --bind "$1" "$1"
  mount -t proc proc "$1/proc"
  mount -t sysfs -o ro sysfs "$1/sys"
  mount -t tmpfs tmpfs "$1/run"
  mount -t tmpfs tmpfs "$1/tmp"
  mount --rbind /dev "$1/dev"
  if [ -e /sys/fs/cgroup/cgroup.controllers ]; then
    mount -t cgroup2 cgroup2 "$1/sys/fs/cgroup"
  else
    mount -t tmpfs tmpfs "$1/sys/fs/cgroup"
    mkdir "$1/sys/fs/cgroup/systemd" "$1/sys/fs/cgroup/unified"
    mount -t cgroup -o none,name=systemd,xattr cgroup "$1/sys/fs/cgroup/systemd"
    mount -t cgroup2 cgroup2 "$1/sys/fs/cgroup/unified"
  fi
  # No chroot: units with PrivateUsers= would not start in one.
  mkdir -p "$1/before"
  cd "$1"
  pivot_root . before
  umount -l /before
  # As in a container: systemd mounts credentials in another namespace, and they have to come here.
  mount --make-rshared /
  exec env -i container=tests PATH=/usr/sbin:/usr/bin:/sbin:/bin /lib/systemd/systemd --unit=multi-user.target
' sh "$root"
"""


class Debian:
    """The system in ``root``, which is there while this is entered."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.pid = 0
        self._group = f"patrolserver-tests-{os.getpid()}"
        self._unshare: subprocess.Popen[bytes] | None = None

    @staticmethod
    def missing() -> str | None:
        """What this machine lacks for it."""
        if os.geteuid() != 0:
            return "only root can boot a Debian"
        wanted = ("mmdebstrap", "unshare", "nsenter", "dpkg-deb")
        lacking = next((f"{name} is not installed" for name in wanted if shutil.which(name) is None), None)
        return lacking or (None if _may_make_namespaces() else f"{NOT_OURS}a machine on which root may make namespaces")

    def __enter__(self) -> Self:
        self._make()
        self._unshare = subprocess.Popen(
            ["sh", "-c", BOOT, "sh", str(self.root), self._group], stdin=subprocess.DEVNULL
        )
        try:
            self.pid = eventually(self._init, within=30, what="systemd")
            eventually(lambda: self.run("systemctl", "is-system-running") in {"running", "degraded"}, within=60)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        assert self._unshare is not None
        # It ends with all that runs under it. unshare itself takes no notice of a SIGTERM.
        with suppress(ProcessLookupError):
            os.kill(self.pid or self._unshare.pid, signal.SIGKILL)
        self._unshare.wait(10)
        for hierarchy in ("unified", "systemd", "."):
            for folder, _folders, _files in os.walk(Path("/sys/fs/cgroup", hierarchy, self._group), topdown=False):
                with suppress(OSError):
                    Path(folder).rmdir()

    def _make(self) -> None:
        candidates = ("/etc/apt/sources.list", "/etc/apt/sources.list.d/debian.sources")
        sources = [path for path in candidates if Path(path).is_file() and Path(path).stat().st_size]
        make = ["mmdebstrap", "--quiet", "--mode=root", "--variant=minbase", f"--include={PACKAGES}"]
        subprocess.run([*make, SUITE, str(self.root), *sources], check=True, timeout=600)
        # How this machine reaches its package mirror.
        found = subprocess.run(["apt-config", "dump"], check=True, stdout=subprocess.PIPE, text=True).stdout
        lines = [line for line in found.splitlines() if line.startswith(("Acquire::http", "Acquire::https"))]
        (self.root / "etc/apt/apt.conf.d/99this-machine").write_text("\n".join([*lines, ""]))
        shutil.copy("/etc/resolv.conf", self.root / "etc/resolv.conf")

    def _init(self) -> int:
        assert self._unshare is not None
        assert self._unshare.poll() is None, "the Debian did not boot"
        children = Path(f"/proc/{self._unshare.pid}/task/{self._unshare.pid}/children").read_text().split()
        found = [int(child) for child in children if Path(f"/proc/{child}/comm").read_text() == "systemd\n"]
        return found[0] if found else 0

    @property
    def inside(self) -> list[str]:
        """What a command line begins with, so that it runs in the Debian."""
        return ["nsenter", f"--target={self.pid}", "--mount", "--uts", "--ipc", "--pid", "--cgroup", "--root", "--wd"]

    def run(self, *command: str) -> str:
        """Run a command in the Debian; returns its output, whatever became of it."""
        environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root", "LC_ALL": "C.UTF-8"}
        done = subprocess.run(
            [*self.inside, *command],
            check=False,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=environment,
            timeout=180,
        )
        return done.stdout.decode(errors="replace").strip()

    def ansible_variables(self) -> dict[str, str]:
        """What a host of an inventory needs, to be this one."""
        return {
            "ansible_connection": "nsenter",
            "ansible_nsenter_pid": str(self.pid),
            "ansible_python_interpreter": "/usr/bin/python3",
            "ansible_user": "root",
            "ansible_remote_tmp": "/root/.ansible/tmp",
        }


@contextmanager
def fresh_debian(folder: Path) -> Iterator[Debian]:
    """A Debian that runs as long as the block lasts, and of which nothing is left; without one the test is skipped."""
    missing = Debian.missing()
    if missing:
        pytest.skip(missing)
    root = folder / "root"
    try:
        with Debian(root) as running:
            yield running
    finally:
        shutil.rmtree(root, ignore_errors=True)


def _may_make_namespaces() -> bool:
    """Whether root may do here what root may: in many containers, it may not."""
    groups = Path("/sys/fs/cgroup")
    names = ("unified", "systemd") if (groups / "unified").is_dir() else (".",)
    if not all(os.access(groups / name, os.W_OK) for name in names):
        return False
    mount = ["unshare", "--mount", "--pid", "--fork", "--cgroup", "mount", "-t", "tmpfs", "tmpfs", "/mnt"]
    return subprocess.run(mount, check=False, capture_output=True, timeout=20).returncode == 0
