"""Whether a store can be used at all: before it is opened, and while a database is still on its way, as at boot."""

from __future__ import annotations

import os
import re
import sqlite3
from pathlib import Path
from typing import Final

import sqlalchemy as sa

from patrolserver_exporter.store import copying, files, guard
from patrolserver_exporter.store.engines import create_lease_engine, database_file, redacted
from patrolserver_exporter.store.errors import StoreUnavailable
from patrolserver_exporter.store.schema import HEAD, will_do

# libpq tells connection failures in words alone.
_CURES: Final = (
    (
        r"password authentication failed|no password supplied|authentication failed",
        "Correct the user and the password in store.url.",
    ),
    (
        r"database \"[^\"]*\" does not exist",
        "Create the database, with the exporter's user as its owner (createdb -O USER DATABASE), or correct store.url.",
    ),
    (r"role \"[^\"]*\" does not exist", "Create the user (createuser --pwprompt USER), or correct store.url."),
    (
        r"no pg_hba\.conf entry|is not permitted to log in|permission denied",
        "Let the database accept the exporter's user.",
    ),
    (r"SSL|certificate|sslmode", "Correct sslmode and the certificates in store.url."),
)
_ON_ITS_WAY: Final = re.compile(
    r"refused|starting up|shutting down|not yet accepting|recovery|could not translate host name"
    r"|name or service not known|name resolution|no address associated|failed to resolve|timeout|timed out"
    r"|no such file or directory|no route to host|unreachable|too many clients|remaining connection slots"
    r"|closed the connection unexpectedly|connection reset|is read-only|is in hot standby|server closed",
    re.IGNORECASE,
)


_MADE_AT_THE_START: Final = Path("/var/lib")
"""Folders in it are systemd's to make (``StateDirectory=``), when the service starts for the first time."""


def why_unusable(url: str, state_directory: str = "") -> str | None:
    """What keeps a state file from being opened, with the cure; nothing is written.

    ``state_directory`` is systemd's variable ``STATE_DIRECTORY``: folders, with colons between them, that it makes.
    """
    file = database_file(url)
    if file is None:
        return None
    if os.path.isdir(file):  # noqa: PTH112  # It never raises.
        return f"The state file {file} (store.url) is a folder. Name a file in it."
    if os.path.exists(file) and not os.path.isfile(file):  # noqa: PTH110, PTH113
        return f"The state file {file} (store.url) is a device or a pipe. Name a file."
    is_made = file.parent.parent == _MADE_AT_THE_START or str(file.parent) in state_directory.split(":")
    if is_made and not os.path.lexists(file.parent):
        return None
    try:
        files.check_folder(file)
    except StoreUnavailable as error:
        return str(error)
    return None


def look_over(url: str) -> str:
    """Look whether an exporter would start on a state file that is there; nothing is changed, not even a lock is taken.

    Returns what can be said of it. Raises ``StoreCorrupt``, ``StoreLocked`` or ``StoreUnavailable`` as the start would,
    and ``OSError`` where it cannot be read.
    """
    file = database_file(url)
    if file is None:
        raise ValueError(url)
    if files.is_held(file):
        return "a process uses it"
    log = files.beside(file, "-wal")
    if log.exists() and log.stat().st_size > 0:
        # Without the log the file is only half of the state, and who reads both makes files.
        return "its last process was killed, so the next start will check it"
    files.fits_sum(file)
    is_proved = guard.check_content(file, HEAD, _unchanging_reader)
    if file.stat().st_size == 0:
        return "it is empty"
    try:
        check_usable(sa.create_engine("sqlite://", creator=lambda: _unchanging_reader(file)), redacted(url))
    except sa.exc.DatabaseError as error:
        raise files.corrupt(file, f"{error.orig}.") from error
    return "it is sound" if is_proved else "its next start will migrate it"


def _unchanging_reader(file: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"{file.as_uri()}?mode=ro&immutable=1", uri=True)


def check_usable(engine: sa.Engine, shown: str) -> None:
    """Raise as the start would where a newer version has the state, or where it was copied to another store."""
    try:
        with engine.connect() as connection:
            if will_do(connection):
                copying.refuse_moved(connection, shown)
    finally:
        engine.dispose()


def still_away(url: str) -> str | None:
    """Try to connect: None if the database answers, or else why it does not yet.

    Raises `StoreUnavailable` where waiting helps nothing; the text has the cure.
    """
    if database_file(url) is not None:
        return None
    engine = create_lease_engine(url)
    try:
        with engine.connect() as connection:
            connection.exec_driver_sql("SELECT 1")
    except sa.exc.DBAPIError as error:
        said = " ".join(str(error.orig).split())
        for pattern, cure in _CURES:
            if re.search(pattern, said):
                raise StoreUnavailable(f"Cannot open the store {redacted(url)}: {said}. {cure}") from error
        if _ON_ITS_WAY.search(said) is None:
            raise StoreUnavailable(f"Cannot open the store {redacted(url)}: {said}.") from error
        return said
    finally:
        engine.dispose()
    return None
