"""A throwaway PostgreSQL cluster on a socket of its own; stopped and removed at the end."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Self

import psycopg
from tests.harness.daemons import Program

if TYPE_CHECKING:
    from collections.abc import Sequence

_USER = "patrol"
_SETTINGS = (
    "listen_addresses=",
    "fsync=off",
    "synchronous_commit=off",
    "full_page_writes=off",
    "shared_buffers=16MB",
    "max_connections=200",
)


def find_programs() -> Path | None:
    """Where ``initdb`` and ``postgres`` are; Debian keeps them off the path."""
    on_path = shutil.which("initdb")
    if on_path is not None:
        return Path(on_path).parent
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    return found[-1].parent if found else None


class PostgresCluster(Program):
    """A server that only its socket's folder leads to. PostgreSQL refuses root, so as root it runs as ``postgres``."""

    def __init__(self, programs: Path, primary: PostgresCluster | None = None) -> None:
        """A standby, if it has a primary: as that one is when the standby starts, and behind it from then on."""
        self.programs = programs
        self._primary = primary
        self._folder = Path(tempfile.mkdtemp(prefix="pg-"))
        self._data = self._folder / "data"
        self._databases = 0

    def __enter__(self) -> Self:
        if os.geteuid() == 0:
            shutil.chown(self._folder, "postgres", "postgres")
        if self._primary is not None:
            source = str(self._primary.folder)
            self._run("pg_basebackup", "-D", str(self._data), "-h", source, "-U", _USER, "-c", "fast", "--no-sync")
            self._run("touch", str(self._data / "standby.signal"))
        else:
            settings = ("-U", _USER, "-A", "trust", "-E", "UTF8", "--no-sync", "--no-locale")
            self._run("initdb", "--data-checksums", "-D", str(self._data), *settings)
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        if not self.has_ended:
            self.stop_at_once()
        shutil.rmtree(self._folder)

    @property
    def folder(self) -> Path:
        """Where its socket is, which URLs name as its host."""
        return self._folder

    def stop_at_once(self) -> None:
        """End it as a crash does."""
        self._run("pg_ctl", "stop", "-D", str(self._data), "-m", "immediate")
        self.wait(30)

    def start(self) -> None:
        """Start it, again if it was stopped."""
        settings = [
            part for setting in (*_SETTINGS, f"unix_socket_directories={self._folder}") for part in ("-c", setting)
        ]
        command = self._command("postgres", "-D", str(self._data), *settings)
        self.launch(command, log_file=self._folder / "log", folder=self._folder)
        self.await_start(self._answers)

    def promote(self) -> None:
        """Make a standby the primary."""
        self.execute("SELECT pg_promote()")

    def create_database(self) -> str:
        """The URL of a new, empty database."""
        self._databases += 1
        name = f"d{self._databases}"
        self.execute(f"CREATE DATABASE {name}")
        return f"postgresql+psycopg://{_USER}@/{name}?host={self._folder}"

    def drop_database(self, url: str) -> None:
        """Remove a database, even if clients are still connected."""
        self.execute(f"DROP DATABASE {url.partition('@/')[2].partition('?')[0]} WITH (FORCE)")

    def empty(self, url: str) -> None:
        """Remove all rows of a database with our schema."""
        tables = "accounts, catch_ups, servers, issues, inbox, changes, tallies, operations, replicas, configured"
        with psycopg.connect(url.replace("+psycopg", ""), autocommit=True) as connection:
            connection.execute(f"TRUNCATE {tables} RESTART IDENTITY".encode())

    def execute(self, statement: str) -> None:
        """Run a statement as the superuser, outside any transaction."""
        with psycopg.connect(host=str(self._folder), user=_USER, dbname="postgres", autocommit=True) as connection:
            connection.execute(statement.encode())

    def _answers(self) -> bool:
        try:
            self.execute("SELECT 1")
        except psycopg.OperationalError:
            return False
        return True

    def _command(self, program: str, *arguments: str) -> Sequence[str]:
        found = self.programs / program
        command = [str(found) if found.exists() else program, *arguments]
        if os.geteuid() == 0:
            return ["setpriv", "--reuid=postgres", "--regid=postgres", "--init-groups", *command]
        return command

    def _run(self, program: str, *arguments: str) -> None:
        done = subprocess.run(
            self._command(program, *arguments), cwd=self._folder, capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise RuntimeError(f"{program} failed:\n{done.stdout}{done.stderr}")
