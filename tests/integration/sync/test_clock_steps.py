"""A system's clock that is set while accounts are watched."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from tests.harness.watching import FailingStore, Watching
from tests.unit.sync.accounts import MAIN

from patrolserver_exporter.store import fleet
from patrolserver_exporter.store.lease_rows import Holder

if TYPE_CHECKING:
    from tests.harness.ticking import HeldClock


def test_the_clock_is_followed_and_what_was_under_way_too(prepared_url: str, clock: HeldClock) -> None:
    """A poll that began before a step back counts as begun when it did."""
    with Watching(prepared_url, clock=clock) as watching:
        watching.start()
        watching.rest()
        began = watching.clock.moment()
        clock.advance(10.0)
        clock.set(clock.now() - 3600.0)
        watching.accounts.tick()
        assert watching.clock.now() == pytest.approx(clock.now())
        assert watching.clock.time_of(began) == pytest.approx(clock.now() - 10.0)


def test_a_clock_that_the_store_cannot_follow_goes_on_as_it_was(prepared_url: str, clock: HeldClock) -> None:
    """Else what comes in meanwhile would have times that compare wrongly with those in the store."""
    FailingStore.full.clear()
    with Watching(prepared_url, clock=clock, store=FailingStore) as watching:
        watching.start()
        watching.rest()
        FailingStore.full.set()
        before = watching.clock.now()
        clock.advance(1.0)
        clock.set(clock.now() - 3600.0)
        watching.accounts.tick()
        assert watching.clock.now() == pytest.approx(before + 1.0)
        FailingStore.full.clear()
        watching.accounts.tick()
        assert watching.clock.now() == pytest.approx(clock.now())


def test_a_clock_that_was_set_back_between_stop_and_start_makes_nothing_younger(
    prepared_url: str, clock: HeldClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The state was written in the future: its times go back, and the gate wants polls of after the start."""
    with Watching(prepared_url, clock=clock) as watching:
        config = watching.start()
        watching.rest()
        clock.advance(100.0)
        polled = [server.last_poll_at for server in states(watching)]
        watching.end()
        monkeypatch.setattr(Holder, "last_at", property(lambda holder: holder.now + 60.0))
        watching.begin()
        watching.fault("status", "*", status=503)
        watching.accounts.start(config)
        assert [server.last_poll_at for server in states(watching)] == [at and at - 60.0 for at in polled]
        record = watching.store.run(lambda unit: fleet.find_account(unit.connection, MAIN))
        assert record is not None
        assert record.catch_up_since == clock.now()


def states(watching: Watching) -> list[fleet.ServerState]:
    """Of its servers, in the store."""
    return watching.store.run(lambda unit: [one.state for one in fleet.server_records(unit.connection, MAIN)])
