"""Exporters on one PostgreSQL do not hold each other up, and none removes what another one has just written."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import TYPE_CHECKING

import psycopg
import pytest
import sqlalchemy as sa
from tests.harness.shared_stores import commit_unheard, run_sql, saving, shared, take

from patrolserver_exporter.inbox import deliveries
from patrolserver_exporter.inbox.deliveries import NewDelivery
from patrolserver_exporter.inbox.intake import BoundedInbox
from patrolserver_exporter.store import LeaseLost, Store, StoreError, lease, lease_rows
from patrolserver_exporter.store.lease_rows import COMMON, LEASE, Position
from patrolserver_exporter.store.replicas import Announced
from patrolserver_exporter.store.tables import feed, issues
from patrolserver_exporter.sync import operations
from patrolserver_exporter.sync.housekeeping import purge

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from patrolserver_exporter.store import Unit
    from patrolserver_exporter.store.lease import Taken

pytestmark = [pytest.mark.calm, pytest.mark.promise("replicas")]

DAY = 86_400.0
TOLD = Announced("1.0.0", "same", ("a", "b"))


def bring(store: Store, number: int) -> None:
    """A delivery comes in."""
    door = BoundedInbox(1000, dated_by_database=True)
    delivery = NewDelivery("a", 1, number, "webhook.new_server_issues", 0.0)
    store.submit_anywhere(lambda unit: door.accept(unit, [delivery])).result(20)


def rows(url: str, query: str) -> list[tuple[object, ...]]:
    with psycopg.connect(url.replace("+psycopg", "")) as connection:
        return connection.execute(query.encode()).fetchall()


def lasting(seconds: float) -> Callable[[Unit, Mapping[str, Taken]], Mapping[str, Taken]]:
    """What a take-over of a large account does: it reads for so long."""

    def work(unit: Unit, taken: Mapping[str, Taken]) -> Mapping[str, Taken]:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            unit.connection.execute(sa.text("SELECT 1"))
            time.sleep(0.2)
        return taken

    return work


def while_purging(purging: Store, other: Store, work: Callable[[Unit], object], *accounts: str) -> None:
    """Do the work in a transaction that is committed while the purge waits for the row that it changed."""
    changed, go_on = threading.Event(), threading.Event()

    def change(unit: Unit) -> None:
        work(unit)
        changed.set()
        go_on.wait(10)

    answer = other.submit(change, *accounts) if accounts else other.submit_anywhere(change)
    assert changed.wait(10)
    purged = purging.submit(lambda unit: purge(unit, now=time.time(), retention=30 * DAY))
    time.sleep(0.5)
    go_on.set()
    answer.result(10)
    purged.result(10)


def test_a_purge_leaves_a_delivery_that_is_being_replayed(pair: tuple[Store, Store], url: str) -> None:
    """It met the condition when the purge looked for it, and does not any more."""
    first, second = pair
    take(first, COMMON, "a")
    bring(first, 1)
    run_sql(url, "UPDATE inbox SET state = 'dead', updated_at = updated_at - 40 * 86400.0")
    while_purging(first, second, lambda unit: deliveries.replay(unit, 1, now=time.time()))
    assert rows(url, "SELECT state FROM inbox") == [("received",)]


def test_a_purge_leaves_an_issue_that_is_being_opened_again(pair: tuple[Store, Store], url: str) -> None:
    """By the poll of another exporter."""
    first, second = pair
    take(first, COMMON)
    take(second, "a")
    run_sql(
        url,
        "INSERT INTO issues (account, server_id, fingerprint, kind, severity, canonical_name, waived, fixed_at, "
        "document) VALUES ('a', 1, 'f', 'outdated', 'high', 'x', false, 1000.0, '')",
    )
    while_purging(first, second, lambda unit: unit.connection.execute(issues.update().values(fixed_at=None)), "a")
    assert rows(url, "SELECT fixed_at FROM issues") == [(None,)]


def test_an_intake_waits_for_no_other_one(pair: tuple[Store, Store]) -> None:
    """Also not for one of an exporter that stands still in the middle of it."""
    first, second = pair
    begun, go_on = threading.Event(), threading.Event()

    def stand_still(_: Unit) -> None:
        begun.set()
        go_on.wait(2.5)

    one = first.submit_anywhere(stand_still)
    assert begun.wait(5)
    began = time.monotonic()
    bring(second, 1)
    assert time.monotonic() - began < 1.5
    go_on.set()
    one.result(10)


def test_a_lease_given_back_without_a_hand_over_makes_the_next_one_owe(pair: tuple[Store, Store]) -> None:
    """Its owner could not tell what is left of the budget, as when the database was away for a moment."""
    first, second = pair
    take(first, "a")
    first.close()
    assert take(second, "a")["a"].left[0].uncleanly_at == pytest.approx(time.time(), abs=20.0)


def test_a_take_over_that_lasts_longer_than_a_lease_holds_afterwards(pair: tuple[Store, Store]) -> None:
    """Nobody else takes the account when it is committed, and whoever tries meanwhile waits for nothing."""
    first, second = pair
    found: dict[str, Taken] = {}
    taking = threading.Thread(target=lambda: found.update(first.take_over(["a"], lasting(LEASE + 1.0)) or {}))
    taking.start()
    time.sleep(0.5)
    while taking.is_alive():
        second.announce(TOLD)
        began = time.monotonic()
        assert take(second, "a") == {}
        assert time.monotonic() - began < 1.5
        time.sleep(0.05)
    taking.join()
    assert set(found) == {"a"}
    assert take(second, "a") == {}
    assert first.holds("a")
    assert second.trouble is None


def test_a_unit_that_lasts_longer_than_a_lease_keeps_it(pair: tuple[Store, Store]) -> None:
    """As the reload of a large account does."""
    first, second = pair
    take(first, "a")
    first.run(lambda unit: lasting(LEASE + 1.0)(unit, {}), "a")
    second.announce(TOLD)
    assert take(second, "a") == {}
    first.run(saving("a"), "a")


def test_who_stood_still_takes_nothing_in_of_a_state_that_was_copied_elsewhere(url: str) -> None:
    """It would be lost there: the copy has gone on without it."""
    with shared(url, "blue", "a") as frozen:
        take(frozen, "a")
        frozen.watch(lambda: False)
        run_sql(url, "UPDATE replicas SET seen_at = seen_at - 60")
        with Store(url, even_moved=True) as source:
            source.run(lambda unit: unit.connection.execute(feed.update().values(moved_to="sqlite:///elsewhere.db")))
        frozen.follow(lambda _: None)
        door = BoundedInbox(1000, dated_by_database=True)
        delivery = NewDelivery("a", 1, 7, "webhook.new_server_issues", 0.0)
        with pytest.raises(StoreError, match="copied to another store"):
            asyncio.run(frozen.run_together(delivery, door.accept))
        assert rows(url, "SELECT * FROM inbox") == []
        # Nor does a gate judge by what the copy may know better.
        with pytest.raises(StoreError, match="copied to another store"):
            frozen.read(deliveries.doubts)


def test_the_isolation_of_the_role_does_not_matter(url: str) -> None:
    """With a stricter one, transactions that have nothing in common would fail."""
    name = sa.make_url(url).database
    run_sql(url, f"ALTER DATABASE \"{name}\" SET default_transaction_isolation = 'serializable'")
    query = sa.text("SELECT current_setting('transaction_isolation')")
    with shared(url, "blue") as store:
        take(store, "a")
        level: Callable[[Unit], str] = lambda unit: str(unit.connection.execute(query).scalar_one())  # noqa: E731
        assert store.run(level, "a") == store.submit_anywhere(level).result(10) == "read committed"


def test_a_refresh_whose_commit_was_not_heard_is_asked_for_once(
    pair: tuple[Store, Store], url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is done a second time, and the answer is that of one that is new."""
    first, _ = pair
    lost = commit_unheard(first, monkeypatch)
    asked = first.submit_anywhere(lambda unit: operations.ask(unit, "one", "a", 1)).result(20)
    assert asked is not None
    assert lost
    assert rows(url, "SELECT id, state FROM operations") == [("one", "pending")]


def test_reads_go_on_while_a_look_takes_longer_than_a_lease(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As when a large account is read anew; what is committed meanwhile is in them, and the next look is believed."""
    monkeypatch.setattr(lease, "LEASE", 3.0)
    monkeypatch.setattr(lease, "RENEW_EVERY", 0.1)
    ended = threading.Event()
    with shared(url, "blue") as store:
        look = threading.Thread(target=store.follow, args=(lambda _: ended.wait(60.0),))
        look.start()
        try:
            end = time.monotonic() + 4.0
            while time.monotonic() < end:
                bring(store, time.monotonic_ns())
                taken_in = len(rows(url, "SELECT id FROM inbox"))
                assert store.read(lambda connection: connection.execute(COUNT).scalar_one()) == taken_in
                time.sleep(0.1)
        finally:
            ended.set()
            look.join()
        assert store.follow(lambda look: look.is_same)


COUNT = sa.text("SELECT count(*) FROM inbox")


def test_what_others_commit_while_one_looks_is_no_setback(pair: tuple[Store, Store]) -> None:
    """What this process has seen since it asked for a state is newer than that, and nothing is lost."""
    first, second = pair
    take(first, "a")
    first.follow(lambda _: None)
    second.follow(lambda _: None)
    before = first.read(lambda connection: connection.execute(sa.select(feed.c.history)).scalar_one())
    whole = lease_rows.read_position

    def read_position(connection: sa.Connection) -> tuple[Position, str | None]:
        found = whole(connection)
        if threading.current_thread().name == "store":
            first.run(saving("a"), "a")
            second.follow(lambda _: None)
        return found

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lease, "read_position", read_position)
        second.follow_cluster().result(10)
    first.follow(lambda _: None)
    assert first.read(lambda connection: connection.execute(sa.select(feed.c.history)).scalar_one()) == before


def test_an_exporter_whose_leases_were_rolled_back_reads_again_at_once(pair: tuple[Store, Store], url: str) -> None:
    """A failover that lost commits is met under all its leases, also under one that nothing is written under now."""
    first, _ = pair
    take(first, COMMON, "a")
    first.run(saving("a"), "a")
    first.run(lambda _: None)
    first.follow(lambda _: None)
    run_sql(url, "UPDATE leases SET version = version - 1 WHERE account IN ('a', '/common')")
    assert not first.follow(lambda look: look.is_same)
    first.follow_cluster().result(10)
    assert first.follow(lambda look: look.is_same)
    assert first.read(lambda connection: connection.execute(sa.select(feed.c.history)).scalar_one())
    assert first.take_moved() == {COMMON, "a"}


def test_a_lease_whose_row_a_failover_lost_is_taken_again(pair: tuple[Store, Store], url: str) -> None:
    """As that of an account which was new when the old primary was lost."""
    first, _ = pair
    take(first, "a", "b")
    run_sql(url, "DELETE FROM leases WHERE account = 'b'")
    with pytest.raises(LeaseLost):
        first.run(saving("b"), "b")
    first.run(saving("a"), "a")
    assert first.has_lost("b")
    assert set(take(first, "b")) == {"b"}
    first.run(saving("b"), "b")


def test_a_lease_is_renewed_though_nobody_can_be_told_of_it(pair: tuple[Store, Store], url: str) -> None:
    """As while an operator has a lock on the table of the exporters."""
    first, _ = pair
    take(first, "a")
    until = "SELECT until FROM leases WHERE account = 'a'"
    with psycopg.connect(url.replace("+psycopg", "")) as other:
        other.execute("LOCK TABLE replicas IN ACCESS EXCLUSIVE MODE")
        before = rows(url, until)
        first._lease._renew_or_tell(first._lease_engine)  # noqa: SLF001  # Its thread does so every few seconds.
        assert rows(url, until) > before
