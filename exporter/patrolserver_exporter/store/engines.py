"""The connections to the database: how they are made, and how each transaction on them begins."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.pool import QueuePool, StaticPool

from patrolserver_exporter.redaction import mask_parameters
from patrolserver_exporter.store import sums
from patrolserver_exporter.store.guard import open_reader
from patrolserver_exporter.store.threads import (
    READERS,
)

_WRITER_WAITS = "3s"
"""How long a transaction that writes waits for a lock, and how long the database waits for its next statement: who is
stopped in the middle of one must not keep the lease's row to himself."""

_READER_WAITS = "15s"

APPLICATION: Final = "patrolserver-exporter"

_LEASE_APPLICATION: Final = "patrolserver-exporter-lease"

_GIVE_UP = {
    "connect_timeout": 5,
    "keepalives_idle": 5,
    "keepalives_interval": 5,
    "keepalives_count": 2,
    "tcp_user_timeout": 15_000,
}
"""How libpq notices that the database's host is gone. The system's defaults would wait for minutes or hours, and every
delivery with them. Seconds, but for the last one, which is in milliseconds."""


def database_file(url: str) -> Path | None:
    """The state file of a SQLite URL; ``None`` for PostgreSQL."""
    parsed = sa.make_url(url)
    if parsed.get_backend_name() != "sqlite":
        return None
    return Path(parsed.database or "patrolserver.db").absolute()


def redacted(url: str) -> str:
    """The URL without its passwords."""
    return mask_parameters(sa.make_url(url).render_as_string(hide_password=True))


def described(engine: sa.Engine) -> str:
    """The database as messages begin with it."""
    return f"The database {redacted(str(engine.url))}"


def create_engine(url: str) -> sa.Engine:
    """The engine that writes: exactly one connection of it is ever open."""
    if database_file(url) is None:
        engine = _create_postgresql_engine(url, pool_size=1)
        sa.event.listen(engine, "begin", _begin_writing_postgresql)
        return engine
    arguments = {**_SQLITE_ARGUMENTS, "factory": sums.SummingConnection}
    engine = sa.create_engine(url, poolclass=StaticPool, connect_args=arguments)
    sa.event.listen(engine, "connect", _prepare_sqlite)
    sa.event.listen(engine, "begin", _begin_writing_sqlite)
    sums.follow_savepoints(engine)
    return engine


def create_lease_engine(url: str) -> sa.Engine:
    """The engine that prepares a PostgreSQL database and renews the lease on it: one connection, nobody else's."""
    engine = _create_postgresql_engine(url, pool_size=1, application_name=_LEASE_APPLICATION)
    sa.event.listen(engine, "begin", _begin_preparing)
    return engine


def create_reading_engine(url: str, connections: int = READERS) -> sa.Engine:
    """An engine of so many connections that cannot write, at most; a transaction sees one state of the database."""
    file = database_file(url)
    if file is None:
        engine = _create_postgresql_engine(
            url,
            pool_size=connections,
            execution_options={"isolation_level": "REPEATABLE READ", "postgresql_readonly": True},
        )
        sa.event.listen(engine, "begin", _begin_reading_postgresql)
        return engine
    engine = sa.create_engine(
        "sqlite://",
        poolclass=QueuePool,
        pool_size=connections,
        max_overflow=0,
        creator=lambda: open_reader(file, **_SQLITE_ARGUMENTS),
    )
    sa.event.listen(engine, "connect", _prepare_sqlite_reader)
    sa.event.listen(engine, "begin", _begin_reading_sqlite)
    return engine


_SQLITE_ARGUMENTS: Final[dict[str, Any]] = {"check_same_thread": False, "timeout": 5, "cached_statements": 256}


def _create_postgresql_engine(
    url: str, *, pool_size: int, application_name: str = APPLICATION, **options: Any
) -> sa.Engine:
    engine = sa.create_engine(
        url,
        pool_size=pool_size,
        max_overflow=0,
        pool_timeout=5,
        pool_pre_ping=True,
        # Whatever the role has: with more, transactions that touch nothing in common fail.
        isolation_level="READ COMMITTED",
        connect_args={
            "application_name": application_name,
            # Whatever the role has: a name is text in any script, and a time is read back as it was written.
            "client_encoding": "utf8",
            # After a failover one of several hosts may still be a standby.
            "target_session_attrs": "read-write",
            # A pooler gives each transaction another session, which would not know the statement.
            "prepare_threshold": None,
            **_GIVE_UP,
        },
        **options,
    )
    sa.event.listen(engine, "handle_error", _give_up_on_a_stuck_session)
    return engine


def _give_up_on_a_stuck_session(context: sa.engine.ExceptionContext) -> None:
    # One that the database ends between many rows stays in libpq's pipeline, and neither psycopg nor SQLAlchemy sees
    # that it is gone: a rollback fails, too, and the pool would say so at length.
    if "pipeline mode" in str(context.original_exception):
        context.is_disconnect = True


def _prepare_sqlite(connection: Any, _record: object) -> None:
    _set_pragmas(connection, "journal_mode=WAL", "synchronous=FULL", "temp_store=MEMORY", "cache_size=-16384")


def _prepare_sqlite_reader(connection: Any, _record: object) -> None:
    _set_pragmas(connection, "query_only=ON", "temp_store=MEMORY")


def _set_pragmas(connection: Any, *pragmas: str) -> None:
    # sqlite3's own transactions begin too late for savepoints; SQLAlchemy's documentation asks for this.
    connection.isolation_level = None
    cursor = connection.cursor()
    for pragma in pragmas:
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _begin_writing_sqlite(connection: sa.Connection) -> None:
    connection.exec_driver_sql("BEGIN IMMEDIATE")


def _begin_reading_sqlite(connection: sa.Connection) -> None:
    connection.exec_driver_sql("BEGIN")


def _begin_writing_postgresql(connection: sa.Connection) -> None:
    connection.exec_driver_sql(_BEGIN_WRITING)


_BEGIN_WRITING: Final = (
    f"SELECT set_config('lock_timeout', '{_WRITER_WAITS}', true), "
    f"set_config('idle_in_transaction_session_timeout', '{_WRITER_WAITS}', true), "
    # What a sender is told is on disk has to be there, whatever the role does for speed.
    "CASE current_setting('synchronous_commit') WHEN 'off' THEN set_config('synchronous_commit', 'on', true) END, "
    # A role that has less would round the times that it reads.
    "set_config('extra_float_digits', '1', true)"
)


def _begin_preparing(connection: sa.Connection) -> None:
    connection.exec_driver_sql("SELECT set_config('extra_float_digits', '1', true)")


def _begin_reading_postgresql(connection: sa.Connection) -> None:
    limit_waits(connection, lock=_READER_WAITS, idle=_READER_WAITS)


def limit_waits(connection: sa.Connection, *, lock: str, idle: str) -> None:
    """How long this transaction waits for a lock, and the database for its next statement; on PostgreSQL.

    Times are read as they were written in it, too.
    """
    connection.exec_driver_sql(
        f"SELECT set_config('lock_timeout', '{lock}', true), "
        f"set_config('idle_in_transaction_session_timeout', '{idle}', true), "
        "set_config('extra_float_digits', '1', true)"
    )
