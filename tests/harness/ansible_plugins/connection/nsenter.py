"""Runs what Ansible wants to run in the namespaces of another process, as it would in a container."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

from ansible.plugins.connection import ConnectionBase  # type: ignore[import-not-found]

DOCUMENTATION = """
name: nsenter
short_description: Run in the namespaces of a process
description: For tests. Root only.
options:
  pid:
    description: The process.
    type: str
    required: true
    vars: [{name: ansible_nsenter_pid}]
"""
ENVIRONMENT = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root", "LC_ALL": "C.UTF-8"}


class Connection(ConnectionBase):  # type: ignore[misc]  # Ansible is not in the environment of the checks.
    """The connection."""

    transport = "nsenter"
    has_pipelining = True
    has_tty = False

    def _connect(self) -> Connection:
        self._connected = True
        return self

    def exec_command(  # As its base has it.
        self,
        cmd: str,
        in_data: bytes | None = None,
        sudoable: bool = True,  # noqa: FBT001, FBT002
    ) -> tuple[int, bytes, bytes]:
        """Run a command line of the shell."""
        super().exec_command(cmd, in_data=in_data, sudoable=sudoable)
        done = self._run("sh", "-c", cmd, input=in_data or b"")
        return done.returncode, done.stdout, done.stderr

    def put_file(self, in_path: str, out_path: str) -> None:
        """Copy a file into it."""
        super().put_file(in_path, out_path)
        self._run("sh", "-c", 'cat >"$0"', out_path, input=Path(os.fsdecode(in_path)).read_bytes(), check=True)

    def fetch_file(self, in_path: str, out_path: str) -> None:
        """Copy a file out of it."""
        super().fetch_file(in_path, out_path)
        Path(os.fsdecode(out_path)).write_bytes(self._run("cat", in_path, check=True).stdout)

    def close(self) -> None:
        """There is nothing to close."""
        self._connected = False

    def _run(self, *command: str, check: bool = False, **options: Any) -> subprocess.CompletedProcess[bytes]:
        enter = ["nsenter", f"--target={self.get_option('pid')}", "--mount", "--uts", "--ipc", "--pid", "--cgroup"]
        return subprocess.run(
            [*enter, "--root", "--wd", *command], capture_output=True, env=ENVIRONMENT, check=check, **options
        )
