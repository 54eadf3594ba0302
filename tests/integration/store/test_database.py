from __future__ import annotations

import concurrent.futures
import re
import sqlite3
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from tests.harness.page_blocks import block

from patrolserver_exporter.store import Store, StoreCorrupt, StoreUnavailable, engines, files, fleet, schema
from patrolserver_exporter.store.history import feed_standing
from patrolserver_exporter.store.lease_rows import read_position
from patrolserver_exporter.store.migrations import versions
from patrolserver_exporter.store.tables import accounts, metadata
from patrolserver_exporter.store.threads import READERS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.harness.postgres import PostgresCluster


def test_head_is_the_newest_migration() -> None:
    """The constant that saves a start the import of Alembic names the newest revision, and they are one line."""
    folder = Path(versions.__file__).parent
    texts = [path.read_text() for path in folder.glob("r*.py")]
    revisions = {re.search(r'^revision = "(.*)"', text, re.MULTILINE)[1]: text for text in texts}  # type: ignore[index]
    down = {re.search(r"^down_revision = (.*)$", text, re.MULTILINE)[1].strip('"') for text in texts}  # type: ignore[index]
    assert set(revisions) - down == {schema.HEAD}
    assert max(revisions) == schema.HEAD


def test_the_migrations_lead_to_the_schema_that_the_code_uses(store_url: str) -> None:
    """After the migrations both databases have exactly the tables, columns and indexes of ``schema``."""
    database = engines.create_engine(store_url)
    try:
        schema.migrate(database)
        with database.connect() as connection:
            context = MigrationContext.configure(connection, opts={"compare_type": True})
            assert compare_metadata(context, metadata) == []
    finally:
        database.dispose()


def test_a_state_of_a_newer_version_is_refused(store_url: str) -> None:
    """An older exporter does not touch what a newer one wrote, and says what to do."""
    Store(store_url).close()
    database = engines.create_engine(store_url)
    with database.begin() as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")
    database.dispose()
    file = engines.database_file(store_url)
    if file is not None:
        files.leave_sum(file)
    told = re.sub(r"\d{4}", r"\\d{4}", re.escape(block("an older version refuses").text.strip()))
    for _ in range(2):
        with pytest.raises(StoreUnavailable, match=f"^{told}$"):
            Store(store_url)


def test_what_was_written_is_there_after_a_restart(store_url: str) -> None:
    """Both databases keep the state."""
    with Store(store_url) as store:
        store.run(lambda unit: unit.connection.execute(accounts.insert().values(name="main", up=True)))
    with Store(store_url) as store:
        assert store.run(lambda unit: unit.connection.execute(sa.select(accounts.c.name)).scalars().all()) == ["main"]


@pytest.mark.promise("one-writer")
def test_sqlite_gets_one_connection_that_writes_and_readers_that_cannot(tmp_path: Path) -> None:
    """Over the store's whole life one connection can write, with a sync for every commit; a few others only read.

    Two that write or checkpoint could lose commits, by the WAL-reset bug of SQLite before 3.51.3.
    """
    opened: list[sqlite3.Connection] = []

    def note(connection: sqlite3.Connection, _: object) -> None:
        opened.append(connection)

    def can_write(connection: sqlite3.Connection) -> bool:
        try:
            connection.execute("PRAGMA query_only=OFF")
            connection.execute("INSERT INTO accounts (name) VALUES ('written')")
        except sqlite3.OperationalError as error:
            assert "readonly" in str(error)  # noqa: PT017  # Both outcomes are wanted.
            return False
        return True

    sa.event.listen(sa.Engine, "connect", note)
    try:
        with Store(f"sqlite:///{tmp_path / 'state.db'}") as store:
            for _ in range(3):
                store.run(lambda unit: unit.connection.execute(accounts.select()).all())
            with concurrent.futures.ThreadPoolExecutor(20) as pool:
                for _ in range(20):
                    pool.submit(store.read, lambda connection: connection.execute(accounts.select()).all())
            pragmas = store.run(
                lambda unit: [
                    unit.connection.exec_driver_sql(f"PRAGMA {name}").scalar()
                    for name in ("journal_mode", "synchronous")
                ]
            )
            told_to_read = sum(connection.execute("PRAGMA query_only").fetchone()[0] for connection in opened)
            writers = [connection for connection in opened if can_write(connection)]
    finally:
        sa.event.remove(sa.Engine, "connect", note)
    assert pragmas == ["wal", 2]
    assert told_to_read == READERS
    assert (len(writers), len(opened)) == (1, 1 + READERS)


@pytest.mark.promise("one-writer")
def test_a_second_store_on_one_file_is_refused(tmp_path: Path) -> None:
    """Two stores never share a file, not even in one process."""
    url = f"sqlite:///{tmp_path / 'state.db'}"
    with Store(url), pytest.raises(Exception, match="in use by another"):
        Store(url)
    Store(url).close()


@pytest.mark.parametrize("path", ["plain.db", "with space %41 #?.db"])
def test_any_path_will_do(tmp_path: Path, path: str) -> None:
    """Characters that mean something in URLs mean nothing in paths."""
    url = sa.URL.create("sqlite", database=str(tmp_path / path)).render_as_string()
    Store(url).close()
    Store(url).close()
    assert (tmp_path / path).exists()


def test_a_file_that_cannot_be_used_is_not_called_damaged(tmp_path: Path) -> None:
    """A folder in place of the file is told as such, and the lock is given back."""
    (tmp_path / "state.db").mkdir()
    for _ in range(2):
        with pytest.raises(StoreUnavailable, match=r"Cannot use the state file .*: Is a directory"):
            Store(f"sqlite:///{tmp_path / 'state.db'}")


def test_a_sum_that_is_not_ours_to_read_is_no_riddle(tmp_path: Path) -> None:
    """As where root copied a state: the message names the file and says what to do, and the state stays as it is."""
    (tmp_path / "state.db.sum").mkdir()
    (tmp_path / "state.db").touch()
    with (
        pytest.raises(StoreUnavailable, match=r"state\.db\.sum: Is a directory\. Let the exporter's user write it"),
        Store(f"sqlite:///{tmp_path}/state.db"),
    ):
        pass
    (tmp_path / "state.db.sum").rmdir()
    with Store(f"sqlite:///{tmp_path}/state.db"):
        pass


def test_a_database_that_is_away_is_told_without_its_password(postgres: PostgresCluster) -> None:
    """An unreachable PostgreSQL is `StoreUnavailable`, and the message holds no password."""
    with pytest.raises(StoreUnavailable) as caught:
        Store("postgresql+psycopg://patrol:kanari-password@127.0.0.1:1/x")
    assert "Cannot open the store" in str(caught.value)
    assert "kanari-password" not in str(caught.value)


def test_postgresql_gets_one_connection_and_a_lost_one_is_replaced(postgres: PostgresCluster) -> None:
    """When PostgreSQL ends the session between two units or two reads, nobody notices."""
    url = postgres.create_database()
    with Store(url) as store:
        own = "SELECT pg_backend_pid()"
        first = store.run(lambda unit: unit.connection.exec_driver_sql(own).scalar())
        assert store.run(lambda unit: unit.connection.exec_driver_sql(own).scalar()) == first
        postgres.execute(f"SELECT pg_terminate_backend({first})")
        assert store.run(lambda unit: unit.connection.exec_driver_sql(own).scalar()) != first
        reader = store.read(lambda connection: connection.exec_driver_sql(own).scalar())
        assert reader != first
        postgres.execute(f"SELECT pg_terminate_backend({reader})")
        for _ in range(READERS + 1):
            assert store.read(lambda connection: connection.exec_driver_sql(own).scalar()) != reader
    postgres.drop_database(url)


def test_a_session_that_ends_in_the_middle_of_a_unit_fails_it_and_no_more(postgres: PostgresCluster) -> None:
    """A unit whose session is ended takes no effect and hears `StoreUnavailable`; the next one works."""
    url = postgres.create_database()

    def work(unit: Any) -> None:
        unit.connection.execute(accounts.insert().values(name="half"))
        pid = unit.connection.exec_driver_sql("SELECT pg_backend_pid()").scalar()
        postgres.execute(f"SELECT pg_terminate_backend({pid})")
        unit.connection.execute(accounts.insert().values(name="whole"))

    with Store(url) as store:
        with pytest.raises(StoreUnavailable):
            store.run(work)
        assert store.run(lambda unit: unit.connection.execute(accounts.select()).all()) == []
    postgres.drop_database(url)


def sound_file(folder: Path) -> Path:
    """A state file with something in it, closed cleanly."""
    file = folder / "state.db"
    with Store(f"sqlite:///{file}") as store:
        rows = [{"name": f"account {n}", "up": True, "last_success_at": 1.5 * n} for n in range(300)]
        store.run(lambda unit: unit.connection.execute(accounts.insert(), rows))
    return file


def test_any_changed_byte_after_a_clean_stop_is_found(tmp_path: Path) -> None:
    """Wherever one byte of the file changes, the start is refused and the file stays as it is."""
    file = sound_file(tmp_path)
    sound, digest = file.read_bytes(), (tmp_path / "state.db.sum").read_bytes()
    for place in range(0, len(sound), max(len(sound) // 60, 1)):
        damaged = bytearray(sound)
        damaged[place] ^= 0xFF
        file.write_bytes(damaged)
        (tmp_path / "state.db.sum").write_bytes(digest)
        with pytest.raises(StoreCorrupt, match=r"is damaged: .*--store\.rebuild"):
            Store(f"sqlite:///{file}")
        assert file.read_bytes() == damaged


def test_damage_after_a_crash_is_found_and_nothing_is_written(tmp_path: Path) -> None:
    """Without a digest, SQLite's own check finds a broken page, even beside the log that the crash left."""
    file = sound_file(tmp_path)
    (tmp_path / "state.db.sum").unlink()
    crashed = sqlite3.connect(file)
    crashed.execute("PRAGMA journal_mode=WAL")
    crashed.execute("UPDATE accounts SET up = 0 WHERE name = 'account 7'")
    crashed.commit()
    damaged = bytearray(file.read_bytes())
    log = (tmp_path / "state.db-wal").read_bytes()
    crashed.close()
    assert log
    page = 4096 * 3
    for start in range(page, len(damaged), 4096):
        damaged[start : start + 12] = b"\xff" * 12
    file.write_bytes(damaged)
    (tmp_path / "state.db-wal").write_bytes(log)
    with pytest.raises(StoreCorrupt):
        Store(f"sqlite:///{file}")
    assert file.read_bytes() == damaged
    assert (tmp_path / "state.db-wal").read_bytes() == log


def _stick(database: sa.Engine) -> None:
    with database.begin() as connection:
        raw: Any = connection.connection.dbapi_connection
        raw.pgconn.enter_pipeline_mode()
        connection.exec_driver_sql("SELECT 1")


def test_a_session_that_is_stuck_in_a_pipeline_is_given_up(
    migrated_database: str, caplog: pytest.LogCaptureFixture
) -> None:
    """As one that ended between many rows, behind a pooler: the next transaction has another one, without a word."""
    database = engines.create_engine(migrated_database)
    try:
        with pytest.raises(sa.exc.OperationalError, match="pipeline mode") as stuck:
            _stick(database)
        assert stuck.value.connection_invalidated
        with database.begin() as connection:
            assert connection.exec_driver_sql("SELECT 1").scalar_one() == 1
    finally:
        database.dispose()
    assert caplog.records == []


@pytest.fixture
def in_another_encoding(postgres: PostgresCluster) -> Iterator[str]:
    """URL of a database that knows no other script than ours."""
    postgres.execute("CREATE DATABASE narrow ENCODING 'LATIN1' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0")
    url = sa.make_url(postgres.create_database()).set(database="narrow").render_as_string(hide_password=False)
    yield url
    postgres.drop_database(url)


def test_a_database_that_cannot_keep_every_name_is_refused(in_another_encoding: str) -> None:
    """Before a server's name could keep the whole list from being written, with what to do about it."""
    with pytest.raises(StoreUnavailable, match=r"has the encoding LATIN1.*createdb --encoding=UTF8.*store copy"):
        Store(in_another_encoding, shared=True)


@pytest.mark.parametrize("setting", ["client_encoding = 'SQL_ASCII'", "extra_float_digits = -9"])
def test_what_a_role_has_set_changes_nothing_that_is_read(postgres: PostgresCluster, setting: str) -> None:
    """Names in any script, and times to the microsecond."""
    url = postgres.create_database()
    postgres.execute(f"ALTER DATABASE {sa.make_url(url).database} SET {setting}")
    kept = fleet.AccountRecord(name="日本 é", up=True, last_success_at=1_800_000_123.456789)
    with Store(url) as store:
        store.run(lambda unit: fleet.save_account(unit.connection, kept))
        assert store.run(lambda unit: fleet.account_records(unit.connection)) == {kept.name: kept}
        assert store.read_patiently(fleet.account_records) == {kept.name: kept}
    postgres.drop_database(url)


@pytest.mark.parametrize("read", [read_position, feed_standing], ids=lambda read: read.__name__)
def test_tables_that_a_restore_has_just_made_are_told_as_what_they_are(
    postgres: PostgresCluster, read: Callable[[sa.Connection], object]
) -> None:
    """They lack a row until it is done: that is trouble with the database, and no mistake of the program."""
    url = postgres.create_database()
    with Store(url) as store:
        store.run(lambda unit: unit.connection.exec_driver_sql("DELETE FROM feed"))
        with pytest.raises(StoreUnavailable, match="while it is restored"):
            store.run(lambda unit: read(unit.connection))
    postgres.drop_database(url)
