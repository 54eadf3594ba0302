# Copyright: (c) 2026, The patrolserver-exporter founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Stands in for systemctl where no systemd runs: one unit, started for real."""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

WORK = Path(__file__).resolve().parent.parent
UNIT = "patrolserver-exporter.service"
PID, ENABLED, LOG = WORK / "pid", WORK / "enabled", WORK / "calls"


def settings() -> dict[str, list[str]]:
    """Read the unit and its drop-ins; an empty assignment clears what came before."""
    found: dict[str, list[str]] = {}
    for path in [WORK / "units" / UNIT, *sorted((WORK / "units" / (UNIT + ".d")).glob("*.conf"))]:
        for line in path.read_text(encoding="utf-8").splitlines():
            name, equals, value = line.partition("=")
            if equals and not line.startswith(("#", ";")):
                if value:
                    found.setdefault(name, []).append(value)
                else:
                    found.pop(name, None)
    return found


def pid() -> int | None:
    """Return the running process, if it runs."""
    try:
        number = int(PID.read_text())
        os.kill(number, 0)
        state = Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ValueError, ProcessLookupError):
        return None
    return None if state == "Z" else number


def start() -> None:
    """Start as the unit says, and wait for READY=1."""
    if pid():
        return
    unit = settings()
    credentials = WORK / "run"
    shutil.rmtree(credentials, ignore_errors=True)
    credentials.mkdir(mode=0o700)
    for entry in unit.get("LoadCredential", []):
        name, source = entry.split(":", 1)
        shutil.copyfile(source, credentials / name)
    state = Path(unit["WorkingDirectory"][-1])
    state.mkdir(mode=0o700, exist_ok=True)
    ready = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    ready.bind(b"\0patrolserver-molecule-" + str(os.getpid()).encode())
    ready.settimeout(30)
    environment = {
        "PATH": "/usr/bin:/bin",
        "CREDENTIALS_DIRECTORY": str(credentials),
        "NOTIFY_SOCKET": "@patrolserver-molecule-" + str(os.getpid()),
    }
    with (WORK / "journal").open("ab") as journal:
        process = subprocess.Popen(
            shlex.split(unit["ExecStart"][-1]),
            cwd=state,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=journal,
            stderr=journal,
            start_new_session=True,
        )
    PID.write_text(str(process.pid))
    while b"READY=1" not in ready.recv(4096):
        pass


def stop() -> None:
    """Ask it to stop, and wait until it has."""
    number = pid()
    if number:
        os.kill(number, signal.SIGTERM)
    ends = time.monotonic() + 30
    while pid() and time.monotonic() < ends:
        time.sleep(0.05)


def reload() -> None:
    """Do what ExecReload says."""
    command = settings()["ExecReload"][-1].replace("${MAINPID}", str(pid()))
    subprocess.run(shlex.split(command), check=True)


def show() -> None:
    """Tell what Ansible asks for."""
    known = (WORK / "units" / UNIT).exists()
    running = pid()
    print(f"LoadState={'loaded' if known else 'not-found'}")
    print(f"ActiveState={'active' if running else 'inactive'}")
    print(f"SubState={'running' if running else 'dead'}")
    print(f"UnitFileState={'enabled' if ENABLED.exists() else 'disabled'}")
    print(f"MainPID={running or 0}")


def main() -> int:
    """Do one thing; returns the exit code."""
    words = [word for word in sys.argv[1:] if not word.startswith("-")]
    command = words[0] if words else ""
    if command not in ("show", "is-enabled", "is-active", "list-unit-files", "list-units", "cat", ""):
        with LOG.open("a", encoding="utf-8") as log:
            log.write(command + "\n")
    if command == "restart":
        stop()
        start()
    elif command in ("start", "stop", "reload", "show"):
        {"start": start, "stop": stop, "reload": reload, "show": show}[command]()
    elif command == "enable":
        ENABLED.touch()
    elif command == "disable":
        ENABLED.unlink(missing_ok=True)
    elif command == "is-enabled":
        print("enabled" if ENABLED.exists() else "disabled")
        return 0 if ENABLED.exists() else 1
    elif command == "is-active":
        print("active" if pid() else "inactive")
        return 0 if pid() else 3
    return 0


if __name__ == "__main__":
    sys.exit(main())
