"""Scans that nobody announced: they are looked for, as far as the budget allows."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from tests.harness.watching import QUICK, SOFTWARE, Watching

from patrolserver_exporter.sync.schedule import Job

if TYPE_CHECKING:
    from tests.harness.ticking import HeldClock

LOOK = "GET servers/:server/isScanning"


def test_a_scan_that_nobody_announced_is_seen_and_followed_to_its_end(prepared_url: str, clock: HeldClock) -> None:
    """Within a minute it shows as running; its end is known, asks for a poll, and ends the looking for a while."""
    with Watching(prepared_url, servers=1, clock=clock) as watching:
        watching.start()
        watching.until(lambda: watching.looks() == 1, "the first look is planned")
        world = watching.simulator.world
        server = world.server(world.demo, 1)
        world.start_scan(server, 3600.0, events=frozenset())
        clock.advance(61.0)
        watching.until(lambda: watching.records()[0].state.scanning, "the scan is seen")
        assert watching.records()[0].summary.scanning
        before = watching.count(SOFTWARE)
        with world.lock:
            server.scanning_until = 0.0
        clock.advance(6.0)
        watching.until(lambda: watching.records()[0].state.last_scan_at is not None, "its end is seen")
        watching.until(lambda: watching.count(SOFTWARE) > before, "the poll that shows what it found")
        looked = watching.count(LOOK)
        clock.advance(600.0)
        watching.rest()
        assert watching.count(LOOK) == looked
        clock.advance(20 * 3600.0)
        watching.until(lambda: watching.looks() == 1, "the next scan is due")
        clock.advance(61.0)
        watching.until(lambda: watching.count(LOOK) > looked, "the next look")


def test_an_answer_that_nothing_runs_changes_nothing_and_is_asked_again(prepared_url: str, clock: HeldClock) -> None:
    """About once a minute for each server, and not more often."""
    with Watching(prepared_url, servers=2, clock=clock) as watching:
        watching.start()
        watching.until(lambda: watching.looks() == 2)
        for minute in (1, 2):
            clock.advance(60.5)
            watching.until(lambda minute=minute: watching.count(LOOK) == 2 * minute)  # type: ignore[misc]
            watching.until(lambda: watching.looks() == 2)
        assert watching.rest() >= 0
        assert watching.count(LOOK) == 4
        assert [record.state.last_scan_at for record in watching.records()] == [None, None]


def test_a_look_that_fails_is_left_to_the_next_poll(prepared_url: str, clock: HeldClock) -> None:
    """An API without isScanning costs one call, and the server is polled as ever."""
    with Watching(prepared_url, servers=1, clock=clock) as watching:
        watching.fault("status", "servers/*/isScanning", status=500)
        watching.start()
        watching.until(lambda: watching.looks() == 1)
        clock.advance(61.0)
        watching.until(lambda: watching.count(LOOK) == 1)
        watching.until(lambda: watching.looks() == 0, "no look is planned any more")
        clock.advance(120.0)
        watching.rest()
        assert watching.count(LOOK) == 1
        assert watching.records()[0].state.poll_success


def test_a_scan_that_is_put_off_is_not_asked_for_before_its_time(prepared_url: str, clock: HeldClock) -> None:
    """Neither after a restart nor by another look; then it is, and nothing is put off any more."""
    with Watching(prepared_url, servers=1, clock=clock) as watching:
        fault = watching.fault("rate_limit", "servers/*/isScanning", retry_after=600)
        config = watching.start(poll=replace(QUICK, interval=100.0))
        watching.poller.plan(Job.CHECK_SCAN, 1)
        watching.until(lambda: watching.count(LOOK) == 1)
        watching.until(lambda: watching.records()[0].state.scan_put_off_until == clock.now() + 600.0)
        watching.simulator.faults.clear(fault)
        world = watching.simulator.world
        world.start_scan(world.server(world.demo, 1), 3600.0, events=frozenset())
        watching.end()
        watching.begin()
        watching.accounts.start(config)
        polls = watching.count(SOFTWARE)
        for _ in range(5):
            clock.advance(100.0)
            watching.until(lambda polls=polls: watching.count(SOFTWARE) > polls)  # type: ignore[misc]
            watching.rest()
            polls = watching.count(SOFTWARE)
        assert watching.count(LOOK) == 1
        clock.advance(101.0)
        watching.until(lambda: watching.records()[0].state.scanning, "the scan is seen")
        assert watching.records()[0].state.scan_put_off_until is None


def test_looks_take_only_what_polls_leave(prepared_url: str) -> None:
    """Half of it; where the polls need all of their part, nobody looks."""
    with Watching(prepared_url, servers=40) as watching:
        # 40 servers in 15 minutes are under 3 calls a minute; 80 % of 60 leave 45, and half of that serves 40 servers.
        watching.accounts.start(watching.config(poll=replace(QUICK, max_requests_per_minute=60)))
        watching.until(lambda: len(watching.account.server_ids) == 40)
        every = watching.account.look_interval
        assert every is not None
        assert 100.0 < every < 120.0
    with Watching(prepared_url + ".2", servers=40) as watching:
        watching.accounts.start(watching.config(poll=replace(QUICK, interval=60.0, max_requests_per_minute=50)))
        watching.until(lambda: len(watching.account.server_ids) == 40)
        assert watching.account.look_interval is None
