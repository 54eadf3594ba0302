"""Taking deliveries in on PostgreSQL: beside all other units, in one order, and once more after what may pass."""

from __future__ import annotations

import asyncio
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
import sqlalchemy as sa
from tests.harness.waiting import eventually

from patrolserver_exporter.inbox.deliveries import Acceptance, NewDelivery
from patrolserver_exporter.inbox.intake import BoundedInbox
from patrolserver_exporter.live.effects import InboxMoved
from patrolserver_exporter.store import Store, StoreError, StoreUnavailable, engines, fleet, history
from patrolserver_exporter.store.tables import inbox
from patrolserver_exporter.store.threads import StoreThread

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tests.harness.postgres import PostgresCluster

    from patrolserver_exporter.store import Unit


@pytest.fixture
def url(postgres: PostgresCluster, migrated_database: str) -> str:
    """URL of an empty store on PostgreSQL."""
    postgres.empty(migrated_database)
    return migrated_database


@pytest.fixture
def effects() -> list[object]:
    """What was committed and is to be shown."""
    return []


@pytest.fixture
def store(url: str, effects: list[object]) -> Iterator[Store]:
    """A store there."""
    with Store(url, effects.extend) as opened:
        yield opened


class Door:
    """Takes deliveries in as the webhook does."""

    def __init__(self, limit: int = 1000) -> None:
        self.inbox = BoundedInbox(limit, dated_by_database=True)

    def accept(self, unit: Unit, deliveries: list[NewDelivery]) -> list[Acceptance]:
        """One batch."""
        unit.effects.append(InboxMoved())
        return self.inbox.accept(unit, deliveries)


def delivery(event_id: int) -> NewDelivery:
    """One that claims to have come in long ago."""
    return NewDelivery("main", 1, event_id, "webhook.test", 1000.0)


def received(store: Store) -> dict[int, float]:
    """When each delivery was received, by its event."""
    rows = store.read(lambda connection: connection.execute(sa.select(inbox.c.event_id, inbox.c.received_at)).all())
    return {row.event_id: row.received_at for row in rows}


def session(url: str) -> psycopg.Connection[Any]:
    """Another client of the database."""
    return psycopg.connect(url.replace("+psycopg", ""))


@pytest.mark.parametrize("then", ["a unit", "a delivery"])
def test_a_delivery_that_the_database_lost_is_noticed(store: Store, url: str, then: str) -> None:
    """As after a failover right behind its acknowledgement: nothing is read, and a poll finds what it told of."""
    door = Door()
    store.run(lambda unit: fleet.save_account(unit.connection, fleet.AccountRecord(name="main")))
    asyncio.run(store.run_together(delivery(1), door.accept))
    store.run(lambda unit: fleet.save_account(unit.connection, fleet.AccountRecord(name="main", up=True)))
    with session(url) as other:
        other.execute("CREATE TABLE standby AS SELECT * FROM leases")
    asyncio.run(store.run_together(delivery(2), door.accept))
    assert sorted(received(store)) == [1, 2]
    with session(url) as other:
        other.execute("DELETE FROM inbox WHERE event_id = 2")
        other.execute("DELETE FROM leases")
        other.execute("INSERT INTO leases SELECT * FROM standby")
        other.execute("DROP TABLE standby")
    if then == "a delivery":
        asyncio.run(store.run_together(delivery(3), door.accept))
    with pytest.raises(StoreUnavailable, match="went back to an earlier state"):
        received(store)
    store.run(lambda unit: fleet.save_account(unit.connection, fleet.AccountRecord(name="main", up=True)))
    caught_up = store.read(lambda connection: fleet.account_records(connection)["main"].catch_up_since)
    assert caught_up == pytest.approx(time.time(), abs=60.0)
    assert store.take_moved()
    asyncio.run(store.run_together(delivery(4), door.accept))
    store.run(lambda unit: fleet.save_account(unit.connection, fleet.AccountRecord(name="main", up=True)))
    assert 4 in received(store)
    assert not store.take_moved()


def test_a_unit_that_takes_long_holds_no_delivery_up(store: Store, effects: list[object], url: str) -> None:
    """It is on disk and acknowledged while the unit is under way, and the database's clock tells when it came."""
    began, go_on = threading.Event(), threading.Event()

    def dawdle(_: Unit) -> None:
        began.set()
        assert go_on.wait(30)

    unit = store.submit(dawdle)
    assert began.wait(30)
    assert asyncio.run(store.run_together(delivery(1), Door().accept)) is Acceptance.ACCEPTED
    assert not unit.done()
    with session(url) as other:
        found = other.execute("SELECT extract(epoch FROM clock_timestamp()) - received_at FROM inbox").fetchall()
    assert [0.0 <= float(row[0]) < 60.0 for row in found] == [True]
    go_on.set()
    unit.result(30)
    eventually(lambda: InboxMoved() in effects, what="the effect")


@pytest.mark.alone
def test_a_batch_that_waited_for_a_lock_in_vain_is_tried_once_more(store: Store, url: str) -> None:
    """Each delivery by itself: the one that is free at once, the other as soon as its row is."""
    door = Door()
    asyncio.run(store.run_together(delivery(1), door.accept))
    with session(url) as other:
        other.execute("UPDATE inbox SET state = 'rejected'")
        threading.Timer(4.0, other.rollback).start()

        async def both() -> list[Acceptance]:
            first, second = NewDelivery("main", 1, 1, "webhook.other", 0.0), delivery(2)
            return list(await asyncio.gather(*(store.run_together(one, door.accept) for one in (first, second))))

        began = time.monotonic()
        assert asyncio.run(both()) == [Acceptance.ACCEPTED, Acceptance.ACCEPTED]
        assert 3.0 < time.monotonic() - began < 8.0
    assert received(store).keys() == {1, 2}


def test_a_connection_that_is_cut_costs_no_delivery(store: Store, url: str) -> None:
    """The session that wrote the last one is ended, and the next one is taken in all the same."""
    door = Door()
    asyncio.run(store.run_together(delivery(1), door.accept))
    with session(url) as other:
        other.autocommit = True
        for event_id in range(2, 6):
            other.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid() "
                "AND datname = current_database()"
            )
            assert asyncio.run(store.run_together(delivery(event_id), door.accept)) is Acceptance.ACCEPTED
    eventually(lambda: received(store).keys() == {1, 2, 3, 4, 5}, what="all of them")


def test_that_deliveries_alone_cannot_be_written_is_said(
    store: Store, url: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Whoever sends one hears it, the log says so, and the rest of the store goes on."""
    with session(url) as other:
        other.execute("LOCK TABLE inbox IN ACCESS EXCLUSIVE MODE")
        with pytest.raises(StoreUnavailable, match="lock timeout"):
            asyncio.run(store.run_together(delivery(1), Door().accept))
        store.run(lambda unit: history.request_catch_up(unit.connection, "main", 1000.0))
    assert "Deliveries cannot be written to the database" in caplog.text
    assert "The store cannot commit" not in caplog.text
    assert store.trouble is not None


@contextmanager
def refused_deliveries(url: str) -> Iterator[None]:
    """As a full disk refuses them, on which smaller writes still find room."""
    with session(url) as other:
        other.execute(
            "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS "
            "$$ BEGIN RAISE disk_full USING MESSAGE = 'could not extend file'; END $$"
        )
        other.execute("CREATE TRIGGER refuse BEFORE INSERT ON inbox FOR EACH ROW EXECUTE FUNCTION refuse()")
    try:
        yield
    finally:
        with session(url) as other:
            other.execute("DROP FUNCTION refuse CASCADE")


def test_an_inbox_that_takes_nothing_is_a_trouble_whatever_else_is_written(store: Store, url: str) -> None:
    """From the first delivery that was refused until one could be taken in again: all the time nothing comes in."""
    with refused_deliveries(url):
        with pytest.raises(StoreUnavailable, match="could not extend file"):
            asyncio.run(store.run_together(delivery(1), Door().accept))
        began = store.trouble
        assert began is not None
        # For longer than a write that goes well would be believed after.
        end = time.monotonic() + 5.0
        while time.monotonic() < end:
            store.prove()
            store.run(lambda unit: fleet.save_account(unit.connection, fleet.AccountRecord(name="main")))
            assert store.trouble is not None
            assert store.trouble.since == began.since

    def is_over() -> bool:
        store.prove()
        return store.trouble is None

    eventually(is_over, within=30, what="an inbox that takes deliveries in")
    assert received(store) == {}
    assert asyncio.run(store.run_together(delivery(1), Door().accept)) is Acceptance.ACCEPTED


def test_opposite_orders_do_not_wait_for_each_other(store: Store, url: str) -> None:
    """Two that take the same deliveries in at once, in opposite orders, never meet in a deadlock."""
    failures: list[StoreError] = []

    def take_in(thread: StoreThread, batch: Sequence[NewDelivery]) -> None:
        door = Door(100_000)
        try:
            thread.run(lambda unit: door.accept(unit, list(batch)))
        except StoreError as error:
            failures.append(error)

    databases = [engines.create_engine(url) for _ in range(2)]
    threads = [StoreThread(database, lambda _: None) for database in databases]
    try:
        for number in range(30):
            batch = [delivery(1000 * number + event) for event in range(1, 60)]
            both = [
                threading.Thread(target=take_in, args=(thread, order))
                for thread, order in zip(threads, (batch, batch[::-1]), strict=True)
            ]
            for one in both:
                one.start()
            for one in both:
                one.join(30)
    finally:
        for thread, database in zip(threads, databases, strict=True):
            thread.close()
            database.dispose()
    assert failures == []
    assert len(received(store)) == 30 * 59


def test_a_catch_up_that_is_wanted_again_is_not_lost(store: Store) -> None:
    """Who ends one ends just the one that it has read: deliveries may have been lost since."""

    def wanted() -> float | None:
        return store.run(lambda unit: fleet.account_records(unit.connection))["main"].catch_up_since

    store.run(lambda unit: history.request_catch_up(unit.connection, "main", 1000.0))
    assert wanted() == 1000.0
    asyncio.run(store.run_together(delivery(1), Door(limit=0).accept))
    newer = wanted()
    assert newer is not None
    assert newer > 1000.0
    store.run(lambda unit: fleet.set_catch_up(unit.connection, "main", None, instead_of=1000.0))
    assert wanted() == newer
    store.run(lambda unit: fleet.set_catch_up(unit.connection, "main", None, instead_of=newer))
    assert store.run(lambda unit: fleet.account_records(unit.connection)) == {}


def test_deliveries_are_on_disk_whatever_the_role_prefers(store: Store, url: str) -> None:
    """A role that does not wait for the disk is overruled for each commit of ours."""
    with session(url) as other:
        other.autocommit = True
        other.execute("ALTER ROLE patrol SET synchronous_commit = off")
        try:
            other.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid() "
                "AND datname = current_database()"
            )

            def setting(unit: Unit, items: list[None]) -> list[str]:
                return [str(unit.connection.exec_driver_sql("SHOW synchronous_commit").scalar()) for _ in items]

            assert asyncio.run(store.run_together(None, setting)) == "on"
        finally:
            other.execute("ALTER ROLE patrol RESET synchronous_commit")
