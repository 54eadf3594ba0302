"""The schema: which one a database has, and its migrations."""

from __future__ import annotations

import logging
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

import sqlalchemy as sa

from patrolserver_exporter.clock import SystemClock
from patrolserver_exporter.lasting import LastingTrouble
from patrolserver_exporter.store import sums, tables
from patrolserver_exporter.store.engines import (
    APPLICATION,
    described,
    limit_waits,
    redacted,
)
from patrolserver_exporter.store.errors import StoreCorrupt, StoreLocked, StoreUnavailable

if TYPE_CHECKING:
    from collections.abc import Callable


log = logging.getLogger(__name__)


HEAD = "0009"
"""The newest migration; held against ``migrations/versions`` by a test."""

_LOCK = int.from_bytes(b"patrols", "big")
"""PostgreSQL's advisory lock that a migration holds, and that each transaction of a version without leases held."""

_MIGRATION_WAITS = "2s"
"""Who waits for a lock holds up all who come after: so not for long, and then once more."""

_MIGRATION_IDLES = "60s"

_MIGRATION_AGAIN: Final = 1.0
"""Seconds to the next try of a migration that waited for a lock in vain."""

_MIGRATION_GIVES_UP: Final = 60.0

_LOCKED_OUT: Final = frozenset({"55P03", "40P01"})
"""PostgreSQL's codes of a wait for a lock that took too long, and of a deadlock."""


def migrate(engine: sa.Engine, between: Callable[[], None] = lambda: None) -> None:
    """Bring the schema to ``HEAD``; does nothing, and imports nothing, when it is there already.

    On PostgreSQL it waits for the locks of others, who may go on meanwhile; ``between`` is called in between.
    """
    end = time.monotonic() + _MIGRATION_GIVES_UP
    trouble = LastingTrouble(log, SystemClock())
    while True:
        try:
            _migrate(engine)
        except sa.exc.OperationalError as error:
            if getattr(error.orig, "sqlstate", None) not in _LOCKED_OUT or time.monotonic() > end:
                raise cannot_open(engine, error) from error
            trouble.lasts(
                "The database cannot be migrated yet, since another session holds a lock on it; trying again",
                err=str(error.orig),
                sessions="; ".join(_who_locks(engine)),
            )
            between()
            time.sleep(_MIGRATION_AGAIN)
        else:
            trouble.is_over("The database is migrated")
            return


def _who_locks(engine: sa.Engine) -> list[str]:
    """The other sessions that hold locks on the database, the one of the oldest transaction first; in words."""
    with engine.begin() as connection:
        found = connection.execute(_LOCKING).all()
    return [
        f"process {one.pid}, {one.name!r} on {one.address or 'the database host'}, {one.state} since {one.since}"
        for one in found
    ]


_LOCKING: Final = sa.text(
    "SELECT a.pid, a.application_name AS name, host(a.client_addr) AS address, a.state, "
    "to_char(a.xact_start AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS') || ' UTC' AS since FROM pg_stat_activity a "
    "WHERE a.pid <> pg_backend_pid() AND a.xact_start IS NOT NULL AND EXISTS (SELECT 1 FROM pg_locks l "
    "WHERE l.pid = a.pid AND l.granted AND l.locktype IN ('relation', 'advisory') "
    "AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())) ORDER BY a.xact_start LIMIT 3"
)


def _migrate(engine: sa.Engine) -> None:
    try:
        with engine.begin() as connection:
            if is_at(HEAD, connection):
                return
            if engine.dialect.name == "postgresql":
                limit_waits(connection, lock=_MIGRATION_WAITS, idle=_MIGRATION_IDLES)
                connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_LOCK})")
                # Another one may have done it while we waited.
                if is_at(HEAD, connection):
                    return
                if not has_leases(connection):
                    _refuse_beside_an_older_version(connection)
            _upgrade(connection)
            if engine.dialect.name == "sqlite":
                sums.renew(sums.of(connection))
    except sa.exc.OperationalError:
        raise
    except sa.exc.DatabaseError as error:
        raise StoreCorrupt(f"The store {redacted(str(engine.url))} cannot be read: {error.orig}.") from error


def cannot_open(engine: sa.Engine, error: sa.exc.DBAPIError) -> StoreUnavailable:
    """What is raised where the database refuses."""
    return StoreUnavailable(f"Cannot open the store {redacted(str(engine.url))}: {error.orig}.")


def has_leases(connection: sa.Connection) -> bool:
    """Whether the database tells who may write to it."""
    return sa.inspect(connection).has_table(tables.leases.name)


def _refuse_beside_an_older_version(connection: sa.Connection) -> None:
    """`StoreLocked` while a version that knows no leases works on the database: it would go on beside ours.

    Our own sessions that look for this have another name.
    """
    found = connection.execute(
        sa.text(
            "SELECT host(client_addr) AS address, to_char(min(backend_start) AT TIME ZONE 'UTC', "
            "'YYYY-MM-DD HH24:MI:SS') AS since FROM pg_stat_activity "
            "WHERE datname = current_database() AND application_name = :name AND pid <> pg_backend_pid() "
            "GROUP BY client_addr"
        ),
        {"name": APPLICATION},
    ).first()
    if found is not None:
        raise StoreLocked(
            f"{described(connection.engine)} is in use by an older patrolserver-exporter on "
            f"{found.address or 'the database host'}, connected since {found.since} UTC. Stop that one before this one "
            "migrates the database (if it no longer exists, end its sessions with pg_terminate_backend), or give this "
            "one another store.url."
        )


def is_at(head: str, connection: sa.Connection) -> bool:
    """Whether the schema is this one; `StoreUnavailable` if it is newer, `StoreCorrupt` if it is none."""
    revision = _revision(connection)
    if revision is None:
        return False
    if not (revision.isascii() and revision.isdigit() and revision > "0000"):
        raise StoreCorrupt(f"{described(connection.engine)} is damaged: it has the schema {revision!r}.")
    if revision > head:
        raise StoreUnavailable(
            f"The state was written by a newer patrolserver-exporter (schema {revision}, not {head}). "
            "Install that version again, or restore the state from before the upgrade."
        )
    return revision == head


def will_do(connection: sa.Connection) -> bool:
    """Whether the schema is ``HEAD``, or of a newer version that lets this one work beside it."""
    return _lets_in(HEAD, connection) or is_at(HEAD, connection)


def _lets_in(head: str, connection: sa.Connection) -> bool:
    """Whether a newer schema says of itself that a program whose newest one is ``head`` reads and writes it rightly.

    A migration that only adds what older programs may leave alone says so by the one row of this table; others remove
    the row. It counts only for the schema that it names, so one that was forgotten lets nobody in.
    """
    if not sa.inspect(connection).has_table("compatible"):
        return False
    row = connection.execute(sa.text("SELECT revision, since FROM compatible")).one_or_none()
    return row is not None and row.revision == _revision(connection) and row.since <= head < row.revision


def _revision(connection: sa.Connection) -> str | None:
    if not sa.inspect(connection).has_table("alembic_version"):
        return None
    return connection.execute(sa.text("SELECT version_num FROM alembic_version")).scalar()


def _upgrade(connection: sa.Connection) -> None:
    # Alembic takes a fifth of a second to import, which a start that has nothing to migrate should not pay.
    from alembic import command  # noqa: PLC0415
    from alembic.config import Config  # noqa: PLC0415

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    config.attributes["connection"] = connection
    command.upgrade(config, "head")
