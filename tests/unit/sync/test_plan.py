"""The schedule after a restart, and turns: without calls."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import pytest
from tests.harness.ticking import HeldClock
from tests.unit.sync.accounts import configured, take_planned

from patrolserver_exporter.clock import SteadyClock
from patrolserver_exporter.config.schema import Poll
from patrolserver_exporter.live.own_metrics import Telemetry
from patrolserver_exporter.store.fleet import ServerState
from patrolserver_exporter.sync.account import RunningAccount
from patrolserver_exporter.sync.poller import AccountPoller
from patrolserver_exporter.sync.restore import Planned
from patrolserver_exporter.sync.threads import CallThreads

if TYPE_CHECKING:
    from patrolserver_exporter.store import Store


def record(server_id: int, next_poll_at: float | None, **state: object) -> Planned:
    return Planned(server_id, next_poll_at, ServerState(**state))  # type: ignore[arg-type]


def planned(store: Store, clock: HeldClock, *records: Planned) -> dict[int, float]:
    """Seconds to each server's next poll after a restart."""
    config = configured(poll=Poll(interval=900.0))
    running = RunningAccount(config, config.accounts[0], clock=clock, observer=lambda _: None)
    telemetry = Telemetry(version="0", revision="0", process_metrics=False)
    poller = AccountPoller(running, CallThreads().of("main", 10), store, SteadyClock(clock), telemetry)
    poller.resume(records)
    waits = take_planned(running, clock)
    poller.begin_stop()
    return waits


def test_a_restart_keeps_the_plan_and_spreads_what_is_overdue(store: Store, clock: HeldClock) -> None:
    """Planned turns stay, overdue ones take their part of an interval, new servers go first."""
    now = clock.now()
    waits = planned(store, clock, record(1, now + 100), record(2, now + 1000), record(3, None))
    assert waits == {1: 100.0, 2: 1000.0, 3: 0.0}
    overdue = planned(store, clock, *(record(n, now - 5) for n in range(1, 11)))
    assert sorted(overdue.values()) == [90.0 * n for n in range(10)]


def test_a_clock_that_was_set_back_does_not_pile_up_the_polls(store: Store, clock: HeldClock) -> None:
    """Turns that seem to be weeks away are spread like overdue ones."""
    waits = planned(store, clock, *(record(n, clock.now() + 40 * 86_400.0) for n in range(1, 11)))
    assert sorted(waits.values()) == [90.0 * n for n in range(10)]


def test_a_second_poll_after_an_event_is_not_forgotten(store: Store, clock: HeldClock) -> None:
    """It is planned again at a restart, at once if its time has come."""
    now = clock.now()
    waits = planned(
        store, clock, record(1, now + 800, settle_poll_at=now + 60), record(2, now + 800, settle_poll_at=now - 60)
    )
    assert waits == {1: 60.0, 2: 0.0}


def test_the_first_poll_after_an_event_is_not_forgotten(store: Store, clock: HeldClock) -> None:
    """A stop between an event and the poll that confirms it puts that poll off to the start, and not to its turn."""
    now = clock.now()
    event = {"event_received_at": now - 1, "settle_poll_at": now + 300}
    assert planned(store, clock, record(1, now + 800, **event), record(2, now + 800)) == {1: 0.0, 2: 800.0}


def test_a_restart_polls_no_server_before_the_api_allows_it(store: Store, clock: HeldClock) -> None:
    """Neither an event that waits for its poll nor a scan is asked about until then, but for poll.max_pause at most."""
    now = clock.now()
    event = {"event_received_at": now - 1, "settle_poll_at": now + 300}
    waits = planned(
        store,
        clock,
        record(1, now + 600, put_off_until=now + 600, **event),
        record(2, now + 800, put_off_until=now - 5, **event),
        record(3, now + 800, put_off_until=now + 10 * 86_400.0),
    )
    assert waits == {1: 600.0, 2: 0.0, 3: Poll().max_pause}


def test_a_restart_asks_for_no_scan_before_the_api_allows_it(store: Store, clock: HeldClock) -> None:
    """What it asked to wait for isScanning holds, for poll.max_pause at most, and the server's poll keeps its turn."""
    now = clock.now()
    scans = planned(
        store,
        clock,
        record(1, now + 100, scanning=True, scan_put_off_until=now + 600),
        record(2, now + 100, scanning=True, scan_put_off_until=now + 10 * 86_400.0),
        record(3, now + 100, scan_put_off_until=now + 600),
    )
    # The later one of a server's two jobs; the third server's scan is not asked for at all.
    assert scans == {1: 600.0, 2: Poll().max_pause, 3: 100.0}


@pytest.mark.parametrize("servers", [1, 7, 100])
def test_turns_are_spread_and_never_far(servers: int) -> None:
    """A server waits between a quarter and five quarters of the interval, and the fleet's turns are apart."""
    config = configured(poll=Poll(interval=900.0))
    running = RunningAccount(config, config.accounts[0], clock=HeldClock(), observer=lambda _: None)
    running.set_servers(range(10, 10 + servers))
    for now in (1.8e9, 1.8e9 + 123.4, 1.8e9 + 899.9):
        waits = {n: running.turn_after(n, now) for n in running.server_ids}
        assert all(225.0 < wait <= 1125.0 for wait in waits.values())
        turns = sorted((now + wait) % 900.0 for wait in waits.values())
        gaps = [b - a for a, b in itertools.pairwise(turns)]
        assert all(gap == pytest.approx(900.0 / servers, abs=0.01) for gap in gaps)
    running.stop()


def test_the_interval_stretches_with_the_fleet() -> None:
    """When the budget does not do for the fleet the interval grows, and the events' budget with it."""
    config = configured(poll=Poll(interval=900.0, max_requests_per_minute=60))
    running = RunningAccount(config, config.accounts[0], clock=HeldClock(), observer=lambda _: None)
    running.set_servers(range(1, 101))
    assert (running.interval, running.events_per_minute) == (900.0, 60)
    running.set_servers(range(1, 2401))
    assert running.interval == pytest.approx(2400 / 0.8)
    assert running.events_per_minute == 120
    running.stop()
