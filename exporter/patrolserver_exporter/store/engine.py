"""Opening the database: checks, migrations, and the one connection that SQLite gets."""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.pool import StaticPool

from patrolserver_exporter.store import files
from patrolserver_exporter.store.errors import StoreCorrupt, StoreUnavailable

HEAD = "0001"
"""The newest migration; held against ``migrations/versions`` by a test."""

_LOCK = int.from_bytes(b"patrols", "big")
"""PostgreSQL's advisory lock that a transaction of ours holds."""

_LOCK_SECONDS = 15

_GIVE_UP = {
    "connect_timeout": 5,
    "keepalives_idle": 5,
    "keepalives_interval": 5,
    "keepalives_count": 2,
    "tcp_user_timeout": 15_000,
}
"""How libpq notices a database whose host is gone without a word: the system's defaults would wait for minutes or
hours, and every delivery with them. Seconds, but for the last one, which is in milliseconds."""


def database_file(url: str) -> Path | None:
    """The state file of a SQLite URL; ``None`` for PostgreSQL."""
    parsed = sa.make_url(url)
    if parsed.get_backend_name() != "sqlite":
        return None
    return Path(parsed.database or "patrolserver.db").absolute()


def redacted(url: str) -> str:
    """The URL without its password."""
    return sa.make_url(url).render_as_string(hide_password=True)


def create_engine(url: str) -> sa.Engine:
    """An engine on which exactly one connection is ever open."""
    if database_file(url) is None:
        engine = sa.create_engine(
            url,
            pool_size=1,
            max_overflow=0,
            pool_timeout=5,
            pool_pre_ping=True,
            connect_args={"application_name": "patrolserver-exporter", **_GIVE_UP},
        )
        sa.event.listen(engine, "begin", _begin_postgresql)
        return engine
    engine = sa.create_engine(
        url, poolclass=StaticPool, connect_args={"check_same_thread": False, "timeout": 5, "cached_statements": 256}
    )
    sa.event.listen(engine, "connect", _prepare_sqlite)
    sa.event.listen(engine, "begin", _begin_sqlite)
    return engine


def _prepare_sqlite(connection: Any, _record: object) -> None:
    # sqlite3's own transactions begin too late for savepoints; SQLAlchemy's documentation asks for this.
    connection.isolation_level = None
    cursor = connection.cursor()
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "temp_store=MEMORY", "cache_size=-16384"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _begin_sqlite(connection: sa.Connection) -> None:
    connection.exec_driver_sql("BEGIN IMMEDIATE")


def _begin_postgresql(connection: sa.Connection) -> None:
    # As SQLite does: one writer at a time, whatever the number of replicas. Units read, decide and write, and two that
    # do so for the same server or counter at once would lose what one of them found out.
    connection.exec_driver_sql(f"SET LOCAL lock_timeout = '{_LOCK_SECONDS}s'")
    connection.exec_driver_sql(f"SET LOCAL idle_in_transaction_session_timeout = '{_LOCK_SECONDS}s'")
    connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_LOCK})")


def check_file(database: Path) -> None:
    """Look for damage before anything is written; ``StoreCorrupt`` tells what was found.

    Runs before the engine's connection exists, and read-only, so that a damaged file stays as it is: another connection
    would write the log of a crash back into it.
    """
    if not database.exists() or database.stat().st_size == 0:
        files.forget_sum(database)
        return
    files.check_sum(database)
    try:
        with contextlib.closing(_open_reader(database)) as connection:
            found = [str(row[0]) for row in connection.execute("PRAGMA quick_check(5)")]
    except sqlite3.DatabaseError as error:
        raise files.corrupt(database, f"{error}.") from error
    if found != ["ok"]:
        raise files.corrupt(database, f"quick_check says: {'; '.join(found)}.")


def create_reader(database: Path) -> sa.Engine:
    """An engine that cannot write, and whose end leaves the log of a crash where it is."""
    return sa.create_engine("sqlite://", poolclass=StaticPool, creator=lambda: _open_reader(database))


def _open_reader(database: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"{database.as_uri()}?mode=ro", uri=True)


def is_current(engine: sa.Engine) -> bool:
    """Whether its schema is at ``HEAD``."""
    with engine.connect() as connection:
        return _revision(connection) == HEAD


def migrate(engine: sa.Engine) -> None:
    """Bring the schema to ``HEAD``; does nothing, and imports nothing, when it is there already."""
    try:
        with engine.begin() as connection:
            revision = _revision(connection)
            if revision == HEAD:
                return
            if revision is not None and revision > HEAD:
                raise StoreUnavailable(
                    f"The state was written by a newer patrolserver-exporter (schema {revision}, not {HEAD}). "
                    "Install that version again, or restore the state from before the upgrade."
                )
            _upgrade(connection)
    except sa.exc.OperationalError as error:
        raise StoreUnavailable(f"Cannot open the store {redacted(str(engine.url))}: {error.orig}.") from error
    except sa.exc.DatabaseError as error:
        raise StoreCorrupt(f"The store {redacted(str(engine.url))} cannot be read: {error.orig}.") from error


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
