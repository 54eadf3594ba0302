"""Configurations that change while calls are under way."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from tests.harness.watching import EVENT, LIST, QUICK, SOFTWARE, FailingStore, Listener, Watching

from patrolserver_exporter.store import StoreUnavailable

if TYPE_CHECKING:
    from tests.harness.ticking import HeldClock


def test_an_account_that_is_removed_does_not_come_back_by_a_late_call(watching: Watching) -> None:
    """A list call that outlasts the reload keeps nothing, neither in the store nor in the series."""
    config = watching.start(poll=replace(QUICK, timeout=20.0))
    other = replace(config, accounts=(replace(config.accounts[0], name="other"),))
    watching.fault("latency", "servers", seconds=5.5)
    calls = watching.count(LIST)
    watching.poller.list_now()
    watching.until(lambda: watching.simulator.faults.documents()[0]["hits"] == 1, "the call")
    watching.accounts.reload(other, config)
    watching.until(lambda: watching.count(LIST) == calls + 2)
    watching.tick_for(0.3)
    assert 'account="main"' not in watching.scrape()


def test_a_reload_while_an_event_is_fetched_loses_nothing_of_it(watching: Watching) -> None:
    """The delivery goes over to the new worker, which applies it by its rules and asks what the event asks for."""
    config = watching.start()
    watching.fault("latency", "webhooks/*/events/*", seconds=1.0, count=1)
    world = watching.simulator.world
    world.start_scan(world.server(world.demo, 1), 0.1)
    watching.until(lambda: world.scanning() == [])
    watching.deliver(len(world.outbox), "webhook.scan_finished")
    watching.until(lambda: watching.states() == ["fetching"])
    watching.tick_for(0.3)
    polls = watching.count(SOFTWARE)
    watching.accounts.reload(replace(config, poll=replace(config.poll, timeout=3.0)), config)
    watching.until(lambda: watching.states() == ["applied"], within=5.0)
    assert watching.count(EVENT) == 2
    watching.until(lambda: watching.count(SOFTWARE) > polls)


def test_a_reload_that_fails_leaves_the_old_accounts_watched(prepared_url: str) -> None:
    """When the store cannot take a reload, what was stopped for it comes back."""
    FailingStore.full.clear()
    with Watching(prepared_url, store=FailingStore) as watching:
        config = watching.start()
        changed = replace(config, poll=replace(config.poll, interval=600.0))
        FailingStore.full.set()
        with pytest.raises(StoreUnavailable):
            watching.accounts.reload(changed, config)
        ticked = watching.accounts.last_tick
        watching.tick_for(0.05)
        assert watching.accounts.last_tick > ticked, "the watchdog must not end what a full disk only hinders"
        FailingStore.full.clear()
        listener = Listener()
        watching.until(watching.accounts.statuses)
        assert watching.accounts.statuses()[0].poll_interval == 900.0
        watching.accounts.refresh("main", 1, listener)
        watching.until(lambda: listener.heard)
        assert listener.heard == [None]


def test_a_clock_that_is_set_while_the_disk_is_full_stops_nothing(
    prepared_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    """What else there is to do goes on, the watchdog is fed, and the state follows as soon as the store can."""
    FailingStore.full.clear()
    with Watching(prepared_url, store=FailingStore) as watching:
        watching.start()
        lists = watching.count(LIST)
        FailingStore.full.set()
        watching.clock.adopt(-100.0)  # as after a clock that was set ahead
        watching.list_now()
        ticked = watching.accounts.last_tick
        watching.until(lambda: watching.count(LIST) > lists)
        assert watching.accounts.last_tick > ticked
        assert "clock was set" not in caplog.text
        FailingStore.full.clear()
        watching.until(lambda: "clock was set" in caplog.text)
        watching.tick_for(0.05)
        assert caplog.text.count("clock was set") == 1


def test_a_reload_that_fails_stops_nothing_that_it_need_not(prepared_url: str) -> None:
    """An account whose settings stay the same goes on through a reload that the store does not take."""
    FailingStore.full.clear()
    with Watching(prepared_url, store=FailingStore) as watching:
        config = watching.start()
        worker = watching.accounts._running["main"].worker  # noqa: SLF001  # the very one
        changed = replace(config, issues=replace(config.issues, exploit_risk=9.0))
        FailingStore.full.set()
        with pytest.raises(StoreUnavailable):
            watching.accounts.reload(changed, config)
        watching.tick_for(0.05)
        assert [status.name for status in watching.accounts.statuses()] == ["main"]
        FailingStore.full.clear()
        watching.until(lambda: watching.account.rules.exploit_risk == config.issues.exploit_risk)
        assert watching.accounts._running["main"].worker is worker  # noqa: SLF001  # the very one
        watching.deliver(watching.broken())
        watching.until(lambda: watching.states() == ["applied"])


def test_a_reload_does_not_let_an_account_make_its_calls_twice(prepared_url: str, clock: HeldClock) -> None:
    """The budget counts the calls of the last minute, whatever was changed meanwhile."""
    with Watching(prepared_url, servers=40, clock=clock) as watching:
        config = watching.config(poll=replace(QUICK, max_requests_per_minute=60))
        watching.accounts.start(config)
        watching.until(lambda: watching.count(SOFTWARE) >= 9)
        for timeout in (3.0, 4.0, 5.0):
            assert watching.rest() == 10
            changed = replace(config, poll=replace(config.poll, timeout=timeout))
            watching.accounts.reload(changed, config)
            config = changed
        assert watching.rest() == 10
        clock.advance(1.0)
        watching.until(lambda: watching.rest() > 10)
        assert watching.rest() == 11
