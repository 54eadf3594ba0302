from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import os
import re
import socket
import sqlite3
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from tests.harness.shared_stores import run_sql
from tests.harness.waiting import eventually

from patrolserver_exporter.store import LeaseLost, Store, StoreLocked, StoreUnavailable, engines, fleet, history, schema
from patrolserver_exporter.store.lease_rows import LEASE
from patrolserver_exporter.store.tables import accounts, feed, leases

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.harness.postgres import PostgresCluster

    from patrolserver_exporter.store import Unit

pytestmark = [pytest.mark.calm, pytest.mark.promise("second-exporter")]


@pytest.fixture
def url(postgres: PostgresCluster) -> Iterator[str]:
    """URL of an empty PostgreSQL database."""
    made = postgres.create_database()
    yield made
    postgres.drop_database(made)


def mark(store: Store) -> str | None:
    """Which database the state was written in."""
    kept: str | None = store.read(lambda connection: connection.execute(sa.select(feed.c.cluster)).scalar_one())
    return kept


def adding(name: str) -> Callable[[Unit], None]:
    def work(unit: Unit) -> None:
        unit.connection.execute(accounts.insert().values(name=name))

    return work


def forget_all(unit: Unit) -> None:
    unit.connection.execute(accounts.delete())


def names(store: Store) -> list[str]:
    return store.read(lambda connection: list(connection.execute(sa.select(accounts.c.name)).scalars()))


TAKE_OVER = "UPDATE leases SET owner = 'other', epoch = epoch + 1, name = 'spare', host = 'db2', pid = 77"


def test_a_second_store_is_refused_while_the_first_one_lives(url: str) -> None:
    """It says who holds the database, since when, and what to do; the first one goes on."""
    with Store(url, name="green") as first:
        with pytest.raises(StoreLocked) as refused:
            Store(url)
        said = str(refused.value)
        holder = rf"'green', process {os.getpid()} on host {re.escape(socket.gethostname())}, since 2\d\d\d-.* UTC"
        assert re.search(rf"is in use by another patrolserver-exporter: {holder}", said)
        assert "Stop that one and start this one again, or give this one another store.url." in said
        first.run(adding("main"))
        assert names(first) == ["main"]


def test_of_several_that_start_at_once_one_wins(url: str) -> None:
    """On an empty database the schema is made once, one store gets the lease, and all others hear who has it."""

    def open_one(_: int) -> Store | StoreLocked:
        try:
            return Store(url)
        except StoreLocked as refused:
            return refused

    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        opened = list(pool.map(open_one, range(4)))
    winners = [one for one in opened if isinstance(one, Store)]
    for winner in winners:
        winner.close()
    assert len(winners) == 1


def test_a_lease_that_was_given_back_is_free_at_once(url: str) -> None:
    """After a clean stop the next store opens without a wait."""
    Store(url).close()
    for _ in range(3):
        began = time.monotonic()
        Store(url).close()
        assert time.monotonic() - began < 6.0


def test_a_lease_that_was_not_given_back_is_waited_for(url: str) -> None:
    """Who starts right after another one was killed gets the lease when it has run out, and is not refused."""
    Store(url).close()
    run_sql(url, f"{TAKE_OVER}, until = extract(epoch FROM clock_timestamp()) + 3")
    began = time.monotonic()
    Store(url).close()
    assert 2.0 < time.monotonic() - began < 20.0


def test_a_lease_that_seems_to_hold_for_long_has_run_out(url: str) -> None:
    """Where the database's clock was set back, nobody waits for the time that it showed before."""
    Store(url).close()
    run_sql(url, f"{TAKE_OVER}, until = extract(epoch FROM clock_timestamp()) + 3600")
    began = time.monotonic()
    Store(url).close()
    assert time.monotonic() - began < 6.0


@pytest.mark.parametrize("how", ["alone", "together"])
def test_who_lost_the_lease_writes_nothing_more(url: str, how: str) -> None:
    """Once another one has the lease, neither a unit alone nor a group writes, and all hear who has it."""
    with Store(url) as store:
        store.run(adding("before"))
        run_sql(url, TAKE_OVER)
        late = [store.submit(adding(f"late {n}")) for n in range(1 if how == "alone" else 20)]
        for one in late:
            with pytest.raises(LeaseLost, match=r"'spare', process 77 on host db2"):
                one.result(30)
        assert store.lost is not None
        assert not store.is_held
        assert store.trouble is not None
        with pytest.raises(LeaseLost):
            names(store)
    with psycopg.connect(url.replace("+psycopg", "")) as connection:
        assert connection.execute("SELECT name FROM accounts").fetchall() == [("before",)]
        # Nor does its end take the lease from the one that has it.
        assert connection.execute("SELECT owner FROM leases").fetchall() == [("other",)]


def test_who_lost_the_lease_takes_no_delivery_in(url: str) -> None:
    """Once the loss is known. One that came before that is on the disk of whoever took over, who works it."""

    def work(unit: Unit, items: list[str]) -> list[str]:
        for item in items:
            adding(item)(unit)
        return items

    with Store(url) as store:
        run_sql(url, TAKE_OVER)
        assert asyncio.run(store.run_together("early", work)) == "early"
        with pytest.raises(LeaseLost):
            store.run(adding("unit"))
        with pytest.raises(LeaseLost):
            asyncio.run(store.run_together("late", work))
    with psycopg.connect(url.replace("+psycopg", "")) as connection:
        assert connection.execute("SELECT name FROM accounts").fetchall() == [("early",)]


def test_a_unit_that_fails_leaves_the_fence_standing(url: str) -> None:
    """What a failing unit rolls back is its own: the group's other units are fenced and written all the same."""

    def fail(unit: Unit) -> None:
        adding("half")(unit)
        raise ValueError

    with Store(url) as store:
        for _ in range(3):
            futures = [store.submit(work) for work in (fail, adding("kept"), fail)]
            concurrent.futures.wait(futures, 30)
            store.run(forget_all)
        assert store.lost is None
        run_sql(url, TAKE_OVER)
        futures = [store.submit(work) for work in (fail, adding("late"), fail)]
        assert all(isinstance(future.exception(30), LeaseLost) for future in futures)


def test_a_store_that_is_idle_keeps_its_lease(url: str) -> None:
    """Renewals go on without any unit, so nobody else gets in for longer than a lease holds."""
    with Store(url) as store:
        end = time.monotonic() + LEASE + 3.0
        while time.monotonic() < end:
            assert store.is_held
            with pytest.raises(StoreLocked):
                Store(url)
        assert store.lost is None


def test_a_service_that_hangs_lets_others_in(url: str) -> None:
    """Without progress the lease runs out: another store gets it, and the first one is fenced off."""
    with Store(url) as hanging:
        hanging.watch(lambda: False)
        eventually(lambda: hanging.trouble, what="the trouble")
        eventually(lambda: not hanging.is_held, within=LEASE + 5.0, what="the end of the lease")
        with pytest.raises(StoreUnavailable):
            names(hanging)
        with Store(url) as other:
            other.run(adding("other"))
            with pytest.raises(LeaseLost):
                hanging.run(adding("late"))
            assert names(other) == ["other"]


def test_a_lease_that_ran_out_is_renewed_if_nobody_took_it(url: str) -> None:
    """A service that goes on again before anybody else came just goes on."""
    with Store(url) as store:
        store.watch(lambda: False)
        eventually(lambda: not store.is_held, within=LEASE + 5.0, what="the end of the lease")
        store.watch(lambda: True)
        eventually(lambda: store.is_held, what="the renewal")
        store.run(adding("main"))
        assert names(store) == ["main"]
        assert store.trouble is None


def test_a_writer_that_stops_in_a_transaction_is_ended(url: str) -> None:
    """The database waits three seconds for the next statement of a unit, then the lease's row is free for others."""

    def dawdle(unit: Unit) -> tuple[Any, ...]:
        settings = ("lock_timeout", "idle_in_transaction_session_timeout")
        found = tuple(unit.connection.exec_driver_sql(f"SHOW {name}").scalar() for name in settings)
        if found == ("3s", "3s"):
            time.sleep(4.5)
        adding("late")(unit)
        return found

    with Store(url) as store:
        with pytest.raises(StoreUnavailable):
            store.run(dawdle)
        store.run(adding("next"))
        assert names(store) == ["next"]


def test_a_database_in_use_by_an_older_version_is_not_migrated(url: str) -> None:
    """A version that knows no leases would write beside ours, so the start is refused and the schema stays."""
    config = Config()
    config.set_main_option("script_location", str(Path(schema.__file__).parent / "migrations"))
    database = engines.create_engine(url)
    with database.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "0002")
    database.dispose()
    with psycopg.connect(url.replace("+psycopg", ""), application_name="patrolserver-exporter") as older:
        older.execute("SELECT 1")
        with pytest.raises(StoreLocked, match=r"in use by an older patrolserver-exporter .* connected since 2\d\d\d-"):
            Store(url)
        assert older.execute("SELECT version_num FROM alembic_version").fetchall() == [("0002",)]
    with Store(url) as store:
        store.run(adding("main"))


def test_a_store_that_gets_around_a_files_lock_ends_the_first_one(tmp_path: Path) -> None:
    """With SQLite locks keep others off, the lock file or not; where a file system has none, the newest one writes."""
    file = tmp_path / "state.db"
    first = Store(f"sqlite:///{file}")
    first.run(adding("first"))
    file.with_name("state.db.lock").unlink()
    with pytest.raises(StoreLocked, match="under another name or without its lock file"):
        Store(f"sqlite:///{file}")
    with contextlib.closing(sqlite3.connect(file)) as other:
        other.execute(TAKE_OVER)
        other.commit()
    with pytest.raises(LeaseLost):
        first.run(adding("late"))
    first.close()


def test_a_file_is_free_again_after_a_kill(tmp_path: Path) -> None:
    """A lease that a killed process left in a file holds nobody up."""
    url = f"sqlite:///{tmp_path / 'state.db'}"
    Store(url).close()
    database = engines.create_engine(url)
    with database.begin() as connection:
        connection.execute(leases.update().values(owner="killed", until=time.time() + 9.0))
    database.dispose()
    (tmp_path / "state.db.sum").unlink()
    began = time.monotonic()
    with Store(url) as store:
        store.run(adding("main"))
    assert time.monotonic() - began < 6.0


def standing(store: Store) -> tuple[str, list[float | None]]:
    """The feed's history, and the catch-up of each account."""

    def work(unit: Unit) -> tuple[str, list[float | None]]:
        records = fleet.account_records(unit.connection).values()
        return history.feed_standing(unit.connection).history, [record.catch_up_since for record in records]

    return store.run(work)


def test_a_database_that_lost_commits_is_noticed(url: str) -> None:
    """Nothing is read from it until the feed has another history and all accounts wait for a catch-up."""
    with Store(url) as store:
        store.run(adding("main"))
        before, _ = standing(store)
        for _ in range(5):
            names(store)
        run_sql(url, "UPDATE leases SET version = version - 1")
        with pytest.raises(StoreUnavailable, match="went back to an earlier state"):
            names(store)
        after, (catch_up,) = standing(store)
        assert after != before
        assert catch_up is not None
        assert catch_up == pytest.approx(time.time(), abs=60.0)
        assert names(store) == ["main"]
        assert store.take_moved()
        assert not store.take_moved()
        assert standing(store) == (after, [catch_up])


def test_a_backup_of_a_file_is_noticed(tmp_path: Path) -> None:
    """A state file with nothing beside it may be old: another history, and a catch-up of all accounts; once."""
    url = f"sqlite:///{tmp_path / 'state.db'}"
    with Store(url) as store:
        store.run(adding("main"))
        before = standing(store)
    with Store(url) as store:
        assert standing(store) == before
    (tmp_path / "state.db.sum").unlink()
    with Store(url) as store:
        after, (catch_up,) = standing(store)
        assert after != before[0]
        assert catch_up == pytest.approx(time.time(), abs=60.0)
    with Store(url) as store:
        assert standing(store) == (after, [catch_up])


def test_a_commit_whose_end_was_not_heard_is_noticed(url: str) -> None:
    """It took effect, so the state has to be shown again; nothing was lost, so nothing begins again."""
    with Store(url) as store:
        store.run(adding("main"))
        before = standing(store)
        run_sql(url, "UPDATE leases SET version = version + 1")
        assert names(store) == ["main"]
        assert standing(store) == before
        assert store.take_moved()


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE feed SET cluster = 'another'",
        # As pg_restore makes it anew, with what stood in it.
        (
            "CREATE TABLE restored (LIKE feed INCLUDING ALL); INSERT INTO restored SELECT * FROM feed;"
            "DROP TABLE feed; ALTER TABLE restored RENAME TO feed"
        ),
    ],
    ids=["another", "restored"],
)
def test_another_postgresql_is_another_history(url: str, change: str) -> None:
    """A state that was restored elsewhere, or failed over while no exporter ran, waits for a catch-up."""
    with Store(url) as store:
        store.run(adding("main"))
        before = standing(store)
    with Store(url) as store:
        assert standing(store) == before
    run_sql(url, change)
    with Store(url) as store:
        after, (catch_up,) = standing(store)
        assert after != before[0]
        assert catch_up is not None


def test_a_mark_from_before_tables_were_told_apart_is_that_of_the_same_postgresql(url: str) -> None:
    """An upgrade alone makes nothing unknown, and notes what the mark lacked."""
    with Store(url) as store:
        store.run(adding("main"))
        before, whole = standing(store), mark(store)
    assert whole is not None
    assert whole.count("/") == 3
    run_sql(url, "UPDATE feed SET cluster = regexp_replace(cluster, '/[^/]*/[^/]*$', '')")
    with Store(url) as store:
        assert (standing(store), mark(store)) == (before, whole)


def test_tables_that_are_gone_are_told_with_the_cure(url: str) -> None:
    """They do not come back by themselves, as a database does that is only away."""
    with Store(url) as store:
        store.run(adding("main"))
        run_sql(url, "ALTER TABLE accounts RENAME TO away")
        try:
            with pytest.raises(StoreUnavailable, match=r"restore the database, or drop the others too"):
                store.run(adding("main"))
            assert store.trouble is not None
            assert "restart the exporters" in store.trouble.reason
        finally:
            run_sql(url, "ALTER TABLE away RENAME TO accounts")
