"""``patrolserver-exporter store copy``: a state goes from one store to another, as from SQLite to PostgreSQL."""

from __future__ import annotations

import contextlib
import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING

import sqlalchemy as sa

from patrolserver_exporter.clock import SystemClock
from patrolserver_exporter.commands import flags, output
from patrolserver_exporter.config.load import load_config
from patrolserver_exporter.config.problem import ConfigError
from patrolserver_exporter.logs import setup_logging
from patrolserver_exporter.store import Store, StoreCorrupt, StoreError, StoreLocked, copy_store
from patrolserver_exporter.store.engines import database_file
from patrolserver_exporter.store.files import beside

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

OK, FAILED, BAD_CONFIG, BAD_STATE = 0, 1, 2, 3

_DESCRIPTION = """\
copy  move the state of FROM to TO, whole or not at all: open issues keep their first_seen, deliveries that wait are
      kept, and the counters go on. TO has to be empty. No exporter may use either of them meanwhile. Afterwards an
      exporter no longer starts on FROM, until the state is copied back

FROM and TO are configuration files, whose store.url counts, or such URLs without a password, which then comes from
PGPASSWORD or ~/.pgpass."""


def parser() -> flags.Parser:
    """All flags of the store."""
    found = flags.Parser("patrolserver-exporter store", _DESCRIPTION)
    found.actions("copy")
    found.add_argument("source", metavar="FROM", help="where the state is")
    found.add_argument("target", metavar="TO", help="where it shall go on")
    found.version_flag()
    return found


def main(arguments: Sequence[str]) -> int:
    """Do it; returns the exit code."""
    flag_parser = parser()
    values = flags.read(flag_parser, arguments)
    redactor = setup_logging("warn", "logfmt")
    urls, mistakes = [], 0
    for name in ("source", "target"):
        try:
            urls.append(_url(flag_parser, str(values[name])))
        except ConfigError as error:
            mistakes += 1
            output.remark(str(error))
    if mistakes:
        return BAD_CONFIG
    source, target = urls
    if _is_same(source, target):
        flag_parser.error("FROM and TO are the same store")
    file = database_file(source)
    if file is not None and not os.path.exists(file):  # noqa: PTH110  # It never raises.
        flag_parser.error(f"there is no state file {file}")
    try:
        with (
            _owned(source),
            _owned(target),
            Store(source, even_moved=True) as one,
            Store(target, even_moved=True) as other,
        ):
            copied = copy_store(one, other)
            shown = other.shown
    except (StoreCorrupt, StoreLocked) as error:
        output.remark(redactor.redact(str(error)))
        return BAD_STATE
    except StoreError as error:
        output.remark(redactor.redact(str(error)))
        return FAILED
    rows = ", ".join(f"{name.replace('_', '-')}: {count}" for name, count in copied.items() if count)
    output.show(
        f"The state is in {shown} now ({rows or 'it was empty'}).\nStart the exporter with that store.url. "
        "All servers are polled, and are unknown to the gate until then.\n"
    )
    return OK


def _url(flag_parser: flags.Parser, written: str) -> str:
    if "://" not in written:
        if not os.path.exists(written):  # noqa: PTH110  # It never raises.
            flag_parser.refuse(f"there is no configuration file {output.quoted(written)}")
        return load_config(Path(written), dict(os.environ), clock=SystemClock()).config.store.url
    try:
        url = sa.make_url(written)
    except (sa.exc.ArgumentError, ValueError):
        url = None
    if url is None or url.drivername not in {"sqlite", "postgresql+psycopg"}:
        flag_parser.error("FROM and TO are configuration files, or URLs like sqlite:///FILE or postgresql+psycopg://…")
    if url.password is not None or "password" in url.query:
        flag_parser.error(
            "a password on the command line can be read by all users of this machine: leave it out of the URL and put "
            "it into PGPASSWORD or ~/.pgpass, or name a configuration file"
        )
    return written


_OF_A_STATE = ("", "-wal", "-shm", ".sum")


@contextlib.contextmanager
def _owned(url: str) -> Iterator[None]:
    """What root makes here of a state file belongs to whoever has the file, or, where it is new, its folder."""
    file = database_file(url)
    if file is None or os.geteuid() != 0 or not file.parent.is_dir():
        yield
        return
    owner = (file if file.exists() else file.parent).stat()
    try:
        yield
    finally:
        for path in (*(beside(file, end) for end in _OF_A_STATE), file.with_name(f"{file.name}.lock")):
            with contextlib.suppress(OSError):
                _give(path, owner.st_uid, owner.st_gid)


def _give(path: Path, user: int, group: int) -> None:
    """By its descriptor, and no link: the folder's owner must not get another file by putting its name here."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        found = os.fstat(descriptor)
        if stat.S_ISREG(found.st_mode) and found.st_nlink == 1:
            os.fchown(descriptor, user, group)
    finally:
        os.close(descriptor)


def _is_same(one: str, other: str) -> bool:
    files = database_file(one), database_file(other)
    if files[0] is not None and files[1] is not None:
        return output.is_same(str(files[0]), str(files[1]))
    first, second = sa.make_url(one), sa.make_url(other)
    return first.set(password=None) == second.set(password=None)
