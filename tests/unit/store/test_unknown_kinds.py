"""What a newer version has written and this one does not know: it is left out, counted and told, and never passes."""

from __future__ import annotations

import logging
from concurrent.futures import Future
from typing import TYPE_CHECKING

import pytest
from tests.harness.ticking import START, HeldClock
from tests.unit.issues.builders import outdated
from tests.unit.sync.accounts import MAIN, configured
from tests.unit.sync.driving import Driver

from patrolserver_exporter.inbox import deliveries
from patrolserver_exporter.inbox.deliveries import DeliveryState, NewDelivery
from patrolserver_exporter.inbox.intake import BoundedInbox
from patrolserver_exporter.live.own_metrics import Telemetry
from patrolserver_exporter.patrolserver.errors import FailureReason
from patrolserver_exporter.store import history
from patrolserver_exporter.store.tables import changes, inbox, tallies
from patrolserver_exporter.store.views import changed_since, newest_changes
from patrolserver_exporter.sync.health import Trouble
from patrolserver_exporter.sync.housekeeping import Housekeeping
from patrolserver_exporter.sync.rules import Rules

if TYPE_CHECKING:
    from collections.abc import Callable

    import sqlalchemy as sa

    from patrolserver_exporter.store import Store


@pytest.fixture
def clock() -> HeldClock:
    """A clock that the test moves."""
    return HeldClock()


def polled(store: Store, clock: HeldClock) -> None:
    """A server with two issues."""
    config = configured()
    driver = Driver(store, clock, Rules.of(config, config.accounts[0]))
    driver.take_list("web1")
    driver.poll(outdated("php"), outdated("nginx"))


def take_in(store: Store, *events: int) -> None:
    """Deliveries of the account main."""
    new = [NewDelivery(MAIN, 1, event, "webhook.test", START) for event in events]
    store.run(lambda unit: BoundedInbox(1000).accept(unit, new))


def rewrite(store: Store, statement: sa.Update) -> None:
    """What the newer version does."""
    store.run(lambda unit: unit.connection.execute(statement))


def test_changes_of_unknown_kinds_are_left_out(store: Store, clock: HeldClock) -> None:
    """The feed, the pages' list and their counts tell of the others, also where such a one comes first."""
    polled(store, clock)
    first, second = store.read(lambda connection: history.changes_after(connection, 0, 10))
    rewrite(store, changes.update().where(changes.c.id == first.id).values(kind="forgiven"))
    assert [one.id for one in store.read(lambda connection: history.changes_after(connection, 0, 1))] == [second.id]
    newest = store.read(lambda connection: newest_changes(connection, since=0.0, before=None, limit=10))
    assert [one.id for one in newest] == [second.id]
    assert sum(store.read(lambda connection: changed_since(connection, 0.0)).by_hour.values()) == 1
    assert store.read(history.unknown_kinds) == {"forgiven": 1}


def test_counters_of_unknown_severities_are_left_out(store: Store, clock: HeldClock) -> None:
    """Who follows another exporter shows the others."""
    polled(store, clock)
    rewrite(store, tallies.update().values(severity="urgent", version=7))
    assert store.read(lambda connection: history.tallies_since(connection, MAIN, 1)) == []


def test_deliveries_in_unknown_states_are_left_out_and_hold_the_gate_up(store: Store) -> None:
    """They may tell of something that nobody has looked at yet."""
    take_in(store, 1, 2, 3)
    rewrite(store, inbox.update().values(state=DeliveryState.APPLIED))
    assert store.read(deliveries.doubts).waiting == frozenset()
    rewrite(store, inbox.update().where(inbox.c.event_id == 1).values(state="queued"))
    assert store.read(deliveries.doubts).waiting == {MAIN}
    page = store.read(lambda connection: deliveries.page(connection, after=0, limit=2))
    assert [one.event_id for one in page] == [2, 3]
    assert store.read(lambda connection: deliveries.get(connection, page[0].id - 1)) is None
    assert store.read(deliveries.unknown_states) == {"queued": 1}


def test_what_is_left_out_is_told(
    store: Store, clock: HeldClock, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With how much it is, once and not at each look; and that it is over."""
    caplog.set_level(logging.INFO)

    def submit_read(work: Callable[[sa.Connection], object]) -> Future[object]:
        done: Future[object] = Future()
        done.set_result(store.read(work))
        return done

    monkeypatch.setattr(store, "submit_read", submit_read)
    polled(store, clock)
    take_in(store, 1)
    rewrite(store, changes.update().values(kind="forgiven"))
    rewrite(store, inbox.update().values(state="queued"))
    keeping = Housekeeping(store, Telemetry(version="0", revision="0", process_metrics=False), clock)

    def look() -> list[str]:
        caplog.clear()
        keeping.tick(list)
        clock.advance(601.0)
        return [str(vars(record)) for record in caplog.records if "newer version" in record.getMessage()]

    (said,) = look()
    assert "2 changes 'forgiven'; 1 deliveries 'queued'" in said
    assert look() == []
    rewrite(store, changes.update().values(kind="opened"))
    rewrite(store, inbox.update().values(state="received"))
    assert "any more" in look()[0]


def test_an_unknown_trouble_is_a_trouble() -> None:
    """Of an account that a newer version polls: pages, ``/-/ready`` and a take-over cope with its words."""
    assert Trouble("exhausted") is Trouble.UNREACHABLE
    assert FailureReason("quantum") is FailureReason.OTHER_STATUS
