"""Leases of accounts: each of several exporters on one PostgreSQL writes what is its own."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
import pytest
import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from psycopg import pq
from tests.harness.shared_stores import run_sql, saved, saving, shared, take
from tests.harness.waiting import eventually

from patrolserver_exporter.store import (
    LeaseLost,
    Store,
    StoreLocked,
    StoreUnavailable,
    engines,
    fleet,
    history,
    replicas,
    schema,
)
from patrolserver_exporter.store.lease import Left
from patrolserver_exporter.store.lease_rows import COMMON, LEASE
from patrolserver_exporter.store.replicas import Announced
from patrolserver_exporter.store.tables import accounts

if TYPE_CHECKING:
    from collections.abc import Iterator

    from patrolserver_exporter.store import Unit

pytestmark = [pytest.mark.calm, pytest.mark.promise("second-exporter")]


def versions(store: Store) -> dict[str, int]:
    """Of the accounts' rows."""
    query = sa.select(accounts.c.name, accounts.c.version)
    store.follow(lambda _: None)
    return store.read(lambda connection: {row[0]: row[1] for row in connection.execute(query)})


@contextlib.contextmanager
def standing_still(url: str) -> Iterator[None]:
    """A session that writes under the lease of account a, and whose client does not read what it asked for."""
    session = pq.PGconn.connect(url.replace("+psycopg", "").encode())
    for statement in (
        b"BEGIN",
        b"SET idle_in_transaction_session_timeout = '3s'",
        b"UPDATE leases SET version = version + 1, until = until + 100 WHERE account = 'a'",
    ):
        assert session.exec_(statement).status == pq.ExecStatus.COMMAND_OK
    session.send_query(b"SELECT repeat('x', 1000000) FROM generate_series(1, 100)")
    session.flush()
    yield
    session.finish()


def test_who_stands_still_within_a_large_answer_loses_its_lease(
    pair: tuple[Store, Store], url: str, caplog: pytest.LogCaptureFixture
) -> None:
    """No time-out of PostgreSQL counts there, so its session is ended by whoever takes over."""
    first, second = pair
    assert set(take(first, "a")) == {"a"}
    run_sql(url, "UPDATE leases SET owner = 'frozen', until = until - 100 WHERE account = 'a'")
    with standing_still(url):
        assert not take(second, "a")
        eventually(lambda: take(second, "a"), within=30.0, every=0.5, what="the take-over")
    assert "stands still was ended" in caplog.text
    second.run(saving("a"), "a")


def test_each_writes_under_its_own_leases(pair: tuple[Store, Store]) -> None:
    """A lease that somebody has is not taken, and who does not have it writes nothing under it."""
    first, second = pair
    assert set(take(first, "a")) == {"a"}
    assert set(take(second, "a", "b")) == {"b"}
    first.run(saving("a"), "a")
    second.run(saving("b"), "b")
    with pytest.raises(LeaseLost):
        first.run(saving("b", up=False), "b")
    with pytest.raises(LeaseLost):
        second.run(saving("a", up=False), "b", "a")
    for store in pair:
        assert saved(store) == {"a": True, "b": True}
    assert first.holds("a")
    assert not first.holds("b")


def test_a_lost_lease_fails_its_own_units_only(pair: tuple[Store, Store], url: str) -> None:
    """In a group of units of several accounts those of the others are written, and the store is not in trouble."""
    first, _ = pair
    take(first, "a", "b", COMMON)
    run_sql(url, "UPDATE leases SET owner = 'other', epoch = epoch + 1, name = 'spare' WHERE account = 'a'")
    units = [first.submit(saving(name), name) for name in ("a", "b", "a", "b")]
    found = [unit.exception(30) for unit in units]
    assert [type(error) for error in found] == [LeaseLost, type(None), LeaseLost, type(None)]
    assert first.trouble is None
    assert first.has_lost("a")
    assert not first.has_lost("b")
    assert saved(first) == {"b": True}


def test_a_unit_that_fails_leaves_the_fences_standing(pair: tuple[Store, Store]) -> None:
    """What a failing unit rolls back is its own, and not the fence of its group."""
    first, _ = pair
    take(first, "a", "b")
    before = {name: first.follow(lambda look: look.holders)[name].version for name in ("a", "b")}

    def fail(unit: Unit) -> None:
        saving("a", up=False)(unit)
        raise ValueError

    units = [first.submit(work, name) for work, name in ((fail, "a"), (saving("b"), "b"), (fail, "a"))]
    assert [type(unit.exception(30)) for unit in units] == [ValueError, type(None), ValueError]
    after = {name: first.follow(lambda look: look.holders)[name].version for name in ("a", "b")}
    assert after["b"] > before["b"]
    first.run(saving("a"), "a")
    assert saved(first) == {"a": True, "b": True}


def test_rows_have_the_version_of_their_accounts_lease(pair: tuple[Store, Store]) -> None:
    """So a reader finds what is new of one account, whatever is written of another one."""
    first, _ = pair
    take(first, "a", "b")
    for _ in range(3):
        first.run(saving("a"), "a")
    first.run(saving("b"), "b")
    holders = first.follow(lambda look: look.holders)
    assert versions(first) == {name: holders[name].version for name in ("a", "b")}


def test_what_was_given_back_is_free_at_once_and_passes_something_on(pair: tuple[Store, Store]) -> None:
    """The next owner gets what the one before left for it, once."""
    first, second = pair
    take(first, "a")
    first.run(saving("a"), "a")
    first.hand_over({"a": b"left"}).result(10)
    with pytest.raises(LeaseLost):
        first.run(saving("a", up=False), "a")
    taken = take(second, "a")["a"]
    assert taken.left[0] == Left(b"left", None)
    second.hand_over({"a": None}).result(10)
    assert take(first, "a")["a"].left[0].handed is None
    assert saved(first) == {"a": True}


def test_a_lease_that_ran_out_is_taken_and_tells_when_its_owner_was_last_there(pair: tuple[Store, Store]) -> None:
    """Who was stopped past its lease writes nothing more under it; who took it knows that calls may have been made."""
    first, second = pair
    take(first, "a")
    first.watch(lambda: False)
    eventually(lambda: not first.holds("a"), within=LEASE + 10.0, what="the end of the lease")
    # Its own clock lets it stop a little before the database lets others begin.
    taken = eventually(lambda: take(second, "a"), what="a take-over")["a"]
    assert taken.left[0].uncleanly_at == pytest.approx(time.time() - LEASE, abs=20.0)
    with pytest.raises(LeaseLost, match="'green', process"):
        first.run(saving("a"), "a")


def test_renewals_keep_all_leases(pair: tuple[Store, Store]) -> None:
    """For longer than a lease holds, without any unit."""
    first, second = pair
    take(first, "a", "b")
    end = time.monotonic() + LEASE + 3.0
    while time.monotonic() < end:
        first.announce(Announced("1.0.0", "same", ("a", "b")))
        assert first.holds("a")
        assert take(second, "a", "b") == {}
        time.sleep(0.5)


def test_who_needs_the_database_for_itself_finds_others_there(url: str) -> None:
    """Neither is ever beside the other: it is refused while one lives, and nobody takes an account beside it."""
    with shared(url, "blue") as first:
        take(first, "a")
        with pytest.raises(StoreLocked, match="in use by another patrolserver-exporter"):
            Store(url)
        first.run(saving("a"), "a")
    with Store(url) as alone:
        with shared(url, "blue") as first:
            assert take(first, "a", COMMON) == {}
        alone.run(saving("b", up=False))
    with shared(url, "blue") as first:
        assert set(take(first, "a", "b")) == {"a", "b"}
        assert saved(first) == {"a": True, "b": False}


def test_who_stood_still_beside_one_that_had_the_database_for_itself_writes_nothing_more(url: str) -> None:
    """It is taken for dead, and its leases are over when it goes on."""
    with shared(url, "blue") as stopped:
        take(stopped, "a")
        stopped.run(saving("a"), "a")
        # As if it had told nothing for a while.
        stopped.watch(lambda: False)
        run_sql(url, "UPDATE replicas SET seen_at = seen_at - 60")
        with Store(url) as alone:
            alone.run(saving("b"))
            with pytest.raises(LeaseLost):
                stopped.run(saving("a", up=False), "a")
            assert saved(alone) == {"a": True, "b": True}


def test_a_read_is_refused_that_lacks_what_was_written_or_seen(pair: tuple[Store, Store], url: str) -> None:
    """Also of accounts that somebody else has; who takes one then begins another history, with a catch-up of all."""
    first, second = pair
    take(first, "a", "b")
    first.run(saving("a"), "a")
    second.follow(lambda _: None)
    before = second.read(history.feed_standing).history
    run_sql(url, "UPDATE leases SET version = version - 1, owner = NULL WHERE account = 'a'")
    for store in pair:
        with pytest.raises(StoreUnavailable, match="went back to an earlier state"):
            saved(store)
    assert set(take(second, "a")) == {"a"}
    second.follow(lambda _: None)
    assert second.read(history.feed_standing).history != before
    found = second.read(fleet.account_records)
    assert found["a"].catch_up_since is not None


def test_an_account_is_unused_after_no_exporter_had_it_for_ten_minutes(url: str) -> None:
    """One that nobody ever told has its time as well, which begins when it is first looked for."""
    with shared(url, "blue", "a", "b") as store:
        take(store, "a", "old", COMMON)
        store.run(saving("a"), "a")
        store.run(saving("old"), "old")

        def unused() -> list[str]:
            store.run(lambda unit: replicas.note_unheard(unit.connection, ()))
            return store.read(lambda connection: replicas.unused_accounts(connection, (), replicas.KEPT_CONFIGURED))

        assert unused() == []
        run_sql(url, "UPDATE configured SET seen_at = seen_at - 650 WHERE account = 'old'")
        assert unused() == []
        run_sql(url, "UPDATE configured SET seen_at = seen_at - 20 WHERE account = 'old'")
        assert unused() == ["old"]
        store.announce(Announced("1.0.0", "other", ("a", "b", "old")))
        assert unused() == []


def made_by_the_version_before(url: str) -> None:
    """A database whose leases pass nothing on yet."""
    config = Config()
    config.set_main_option("script_location", str(Path(schema.__file__).parent / "migrations"))
    engine = engines.create_lease_engine(url)
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "0008")
        connection.execute(sa.text("INSERT INTO accounts (name, up) VALUES ('a', true)"))
    engine.dispose()


@pytest.mark.parametrize("is_shared", [True, False])
def test_a_database_of_the_version_before_is_migrated(url: str, is_shared: bool) -> None:  # noqa: FBT001  # pytest gives it.
    """Under the lease for everything, which such a version knows, too."""
    made_by_the_version_before(url)
    with Store(url, shared=is_shared) as store:
        assert saved(store) == {"a": True}


def made_newer(url: str, revision: str, *compatible: str) -> None:
    """The next version has migrated the database; ``compatible``: for what it says so, and since which one."""
    run_sql(url, f"UPDATE alembic_version SET version_num = '{revision}'")  # noqa: S608  # The test's own.
    run_sql(url, "CREATE TABLE IF NOT EXISTS compatible (revision TEXT, since TEXT); TRUNCATE compatible")
    if compatible:
        run_sql(url, "INSERT INTO compatible VALUES ('{}', '{}')".format(*compatible))  # noqa: S608  # The test's own.


def test_an_exporter_starts_beside_newer_ones_if_their_schema_lets_it(pair: tuple[Store, Store], url: str) -> None:
    """Only together with others; and not when that was said of another schema, or of later versions."""
    first, _ = pair
    take(first, "a")
    first.run(saving("a"), "a")
    for refused in ((), ("9998", schema.HEAD), ("9999", "9998")):
        made_newer(url, "9999", *refused)
        with pytest.raises(StoreUnavailable, match="written by a newer"):
            Store(url, shared=True)
    made_newer(url, "9999", "9999", schema.HEAD)
    with Store(url, shared=True) as store:
        assert saved(store) == {"a": True}
    with pytest.raises(StoreUnavailable, match="written by a newer"):
        Store(url)


@contextlib.contextmanager
def locking_accounts(url: str) -> Iterator[psycopg.Connection[object]]:
    """Another client reads the table in a transaction that it does not end."""
    with psycopg.connect(url.replace("+psycopg", ""), application_name="backup") as connection:
        connection.execute(b"SELECT FROM accounts")
        yield connection


def test_a_migration_waits_for_locks_a_little_at_a_time(url: str, caplog: pytest.LogCaptureFixture) -> None:
    """Who has one is told meanwhile; those who come after it are not held up; and it goes on when the lock is gone."""
    made_by_the_version_before(url)
    caplog.set_level(logging.INFO)
    told = threading.Event()
    with locking_accounts(url) as other:

        def go_on() -> None:
            told.wait(30)
            run_sql(url, "SET statement_timeout = '3s'; SELECT FROM accounts")
            other.commit()

        class Told(logging.Handler):
            def emit(self, record: logging.LogRecord) -> None:
                if "cannot be migrated yet" in record.getMessage():
                    told.set()

        handler = Told()
        logging.getLogger(schema.__name__).addHandler(handler)
        going = threading.Thread(target=go_on)
        going.start()
        try:
            with Store(url, shared=True) as store:
                assert told.is_set()
                assert saved(store) == {"a": True}
        finally:
            told.set()
            going.join()
            logging.getLogger(schema.__name__).removeHandler(handler)
    (said,) = [record for record in caplog.records if "cannot be migrated yet" in record.getMessage()]
    assert "'backup' on" in str(vars(said))
    assert "idle in transaction" in str(vars(said))
    assert "The database is migrated" in caplog.messages


def test_a_migration_gives_up_in_the_end(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A lock that stays is told as what the start failed by, and nothing is migrated."""
    made_by_the_version_before(url)
    monkeypatch.setattr(schema, "_MIGRATION_GIVES_UP", 0.0)
    with locking_accounts(url), pytest.raises(StoreUnavailable, match="lock timeout"):
        Store(url, shared=True)
    with psycopg.connect(url.replace("+psycopg", "")) as connection:
        assert connection.execute(b"SELECT version_num FROM alembic_version").fetchall() == [("0008",)]


def test_an_exporter_of_the_version_before_is_not_migrated_under(url: str) -> None:
    """While it renews its lease the next version is refused, and told who it is."""
    made_by_the_version_before(url)
    ended = threading.Event()
    run_sql(url, "INSERT INTO leases (account, epoch, version) VALUES ('', 1, 1) ON CONFLICT DO NOTHING")
    hold = (
        "UPDATE leases SET owner = 'old', name = 'before', host = 'web1', pid = 7, since = 1.0, "
        "until = extract(epoch FROM clock_timestamp()) + 10"
    )

    def renew() -> None:
        while not ended.wait(0.5):
            run_sql(url, hold)

    run_sql(url, hold)
    holder = threading.Thread(target=renew)
    holder.start()
    try:
        with pytest.raises(StoreLocked, match="'before', process 7 on host web1"):
            Store(url, shared=True)
    finally:
        ended.set()
        holder.join()


def test_an_exporter_that_was_away_for_long_goes_on(pair: tuple[Store, Store], url: str) -> None:
    """Others forget that it lived, and not what it took in: nothing seems to be lost, and no other history begins."""
    first, second = pair
    second.submit_anywhere(lambda _: None).result(10)
    before = second.read(history.feed_standing).history
    run_sql(url, "UPDATE replicas SET seen_at = seen_at - 7200; UPDATE leases SET until = until - 7200")
    first.announce(Announced("1.0.0", "same", ("a", "b")))
    assert saved(second) == {}
    second.submit_anywhere(lambda _: None).result(10)
    assert second.follow(lambda look: look.is_same)
    assert second.read(history.feed_standing).history == before


def intakes(url: str) -> int:
    """How many processes' counts of what they took in are kept."""
    with psycopg.connect(url.replace("+psycopg", "")) as connection:
        found = connection.execute(b"SELECT count(*) FROM leases WHERE account LIKE '/intake/%'").fetchone()
    assert found is not None
    return int(found[0])


def test_what_a_process_took_in_is_counted_no_longer_after_its_clean_end(url: str) -> None:
    """Others that still have to see its last count find it for a minute, and nothing seems to be lost then."""
    with shared(url, "green") as second:
        with shared(url, "blue") as first:
            first.submit_anywhere(lambda _: None).result(10)
            before = second.follow(lambda look: look.position)
        second.announce(Announced("1.0.0", "same", ("a", "b")))
        assert intakes(url) == 1
        run_sql(url, "UPDATE leases SET until = until - 61")
        second.announce(Announced("1.0.0", "same", ("a", "b")))
        assert intakes(url) == 0
        after = second.follow(lambda look: look.position)
        assert not after.lacks(before)
        assert second.read(lambda _: True)


def test_processes_that_end_without_a_word_leave_a_bounded_number_of_rows(pair: tuple[Store, Store], url: str) -> None:
    """As in a crash loop: a hundred are kept of those that nobody has heard of for long, and those that live."""
    first, second = pair
    second.submit_anywhere(lambda _: None).result(10)
    run_sql(
        url,
        "INSERT INTO leases (account, epoch, version, until) SELECT '/intake/gone' || n, 0, 1, "
        "extract(epoch FROM clock_timestamp()) - n FROM generate_series(1, 2000) AS n; "
        "UPDATE leases SET until = until - 7200 WHERE account LIKE '/intake/%'",
    )
    first.announce(Announced("1.0.0", "same", ("a", "b")))
    assert intakes(url) == 101
    second.submit_anywhere(lambda _: None).result(10)
    assert second.follow(lambda look: look.is_same)
