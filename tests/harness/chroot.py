"""A fresh Debian 12 in a folder, and commands that run in it as if it were a machine of its own."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

if TYPE_CHECKING:
    from collections.abc import Sequence

_SOURCES: Final = (Path("/etc/apt/sources.list"), Path("/etc/apt/sources.list.d/debian.sources"))
_PASSED: Final = ("http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "SSL_CERT_FILE")
"""How this machine reaches Debian's packages goes along; nothing else of its environment does."""


class DebianRoot:
    """Made by mmdebstrap; what is started in it has namespaces of its own and ends with its command."""

    def __init__(self, path: Path, *include: str) -> None:
        self.path = path
        if os.geteuid() != 0:
            pytest.skip("only root can make a root folder of Debian")
        if shutil.which("mmdebstrap") is None:
            pytest.skip("mmdebstrap is not installed")
        sources = [str(source) for source in _SOURCES if source.is_file() and source.stat().st_size]
        command = ["mmdebstrap", "--quiet", "--mode=root", "--variant=minbase", f"--include={','.join(include)}"]
        subprocess.run([*command, "bookworm", str(path), *sources], check=True, capture_output=True)
        # Services are not started in a folder.
        (path / "usr/sbin/policy-rc.d").write_text("#!/bin/sh\nexit 101\n")
        (path / "usr/sbin/policy-rc.d").chmod(0o755)
        self._take_over_apt()

    def _take_over_apt(self) -> None:
        dumped = subprocess.run(["apt-config", "dump"], capture_output=True, text=True, check=True).stdout
        lines = [line for line in dumped.splitlines() if line.startswith(("Acquire::http", "Acquire::https"))]
        (self.path / "etc/apt/apt.conf.d/99this-machine").write_text("\n".join(lines) + "\n")
        bundle = Path("/etc/ssl/certs/ca-certificates.crt")
        if bundle.is_file():
            (self.path / "etc/ssl/certs").mkdir(parents=True, exist_ok=True)
            shutil.copy(bundle, self.path / "etc/ssl/certs")

    def take_over_pip(self) -> None:
        """Let pip in it reach its index the way this machine's pip does."""
        if (configured := Path("/etc/pip.conf")).is_file():
            shutil.copy(configured, self.path / "etc/pip.conf")

    def run(
        self, *command: str, check: bool = True, user: str | None = None, **environ: str
    ) -> subprocess.CompletedProcess[str]:
        """Run a command there, as root or as another user; its output comes back as text."""
        passed = {name: os.environ[name] for name in _PASSED if name in os.environ}
        base = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root", "TERM": "dumb", "LANG": "C.UTF-8"}
        ended = subprocess.run(
            [*self._entered(user), *command],
            env={**base, "DEBIAN_FRONTEND": "noninteractive", **passed, **environ},
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        if check and ended.returncode:
            pytest.fail(f"{' '.join(command)} ended with {ended.returncode}:\n{ended.stdout}\n{ended.stderr}")
        return ended

    def _entered(self, user: str | None) -> Sequence[str]:
        as_user = [f"--userspec={user}:{user}"] if user else []
        space = ["unshare", "--mount", "--pid", "--fork", "--kill-child", f"--mount-proc={self.path / 'proc'}"]
        return [*space, "chroot", *as_user, str(self.path)]

    def remove(self) -> None:
        """Take the folder away."""
        subprocess.run(["rm", "-rf", "--one-file-system", str(self.path)], check=True)
