"""An API that fails, refuses or asks to wait: what is called, what is marked, and how it recovers."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import TYPE_CHECKING

from tests.harness.watching import LIST, QUICK, SOFTWARE, FailingStore, Listener, Watching, folder_secret

from patrolserver_exporter.config.secret import Secret
from patrolserver_exporter.sync.schedule import Job

if TYPE_CHECKING:
    from pathlib import Path

    import pytest
    from tests.harness.ticking import HeldClock


def test_what_was_passed_over_is_caught_up(watching: Watching) -> None:
    """While the API is down, servers whose turn comes are marked and not called; then they are polled."""
    watching.start()
    fault = watching.fault("status", "*", status=500)
    watching.poller.list_now()
    watching.until(lambda: watching.accounts.statuses()[0].trouble)
    calls = watching.count(SOFTWARE)
    listener = Listener()
    watching.accounts.refresh("main", 2, listener)
    watching.until(lambda: watching.polled() == [1, 3])
    assert "cannot be polled now" in str(listener.heard)
    assert watching.count(SOFTWARE) == calls
    assert watching.passed_over() == {2}
    watching.simulator.faults.clear(fault)
    watching.until(lambda: watching.polled() == [1, 2, 3], within=30.0)
    assert watching.passed_over() == set()


def test_what_was_passed_over_survives_a_recovery_that_cannot_be_kept(prepared_url: str) -> None:
    """If the store cannot take the list that ends a trouble, the next list does it."""
    FailingStore.full.clear()
    with Watching(prepared_url, store=FailingStore) as watching:
        watching.start()
        fault = watching.fault("status", "*", status=500)
        watching.poller.list_now()
        watching.until(lambda: watching.accounts.statuses()[0].trouble)
        watching.accounts.refresh("main", 2, Listener())
        watching.until(lambda: watching.polled() == [1, 3])
        FailingStore.full.set()
        watching.simulator.faults.clear(fault)
        watching.until(lambda: not watching.accounts.statuses()[0].trouble)
        watching.tick_for(0.1)
        FailingStore.full.clear()
        watching.poller.list_now()
        watching.until(lambda: watching.polled() == [1, 2, 3])


def paused(watching: Watching) -> None:
    """The API puts off the calls of three servers for an hour."""
    watching.start()
    watching.fault("rate_limit", "servers/*/software", retry_after=86_400)
    for server_id in (1, 2, 3):
        watching.poller.plan(Job.POLL, server_id)
    watching.until(lambda: watching.accounts.statuses()[0].pause_until)
    watching.rest()


def test_a_pause_that_other_calls_began_is_kept(prepared_url: str, clock: HeldClock) -> None:
    """One that calls for scans began goes on after a restart, as one of polls does."""
    with Watching(prepared_url, clock=clock) as watching:
        config = watching.start(poll=replace(QUICK, max_pause=1800.0))
        watching.rest()
        watching.fault("rate_limit", "servers/*/isScanning", retry_after=86_400)
        for server_id in (1, 2, 3):
            watching.poller.plan(Job.LOOK_FOR_SCAN, server_id)
        watching.until(lambda: watching.accounts.statuses()[0].pause_until)
        watching.rest()
        until = watching.accounts.statuses()[0].pause_until
        watching.end()
        watching.begin()
        watching.accounts.start(config)
        assert watching.accounts.statuses()[0].pause_until == until


def test_one_server_that_is_put_off_does_not_stop_the_others(prepared_url: str, clock: HeldClock) -> None:
    """Its next poll is put off, at most for poll.max_pause, also over a restart; the account goes on."""
    with Watching(prepared_url, clock=clock) as watching:
        config = watching.start(poll=replace(QUICK, max_pause=1800.0))
        watching.rest()
        watching.fault("rate_limit", "servers/1/software", retry_after=86_400)
        watching.accounts.refresh("main", 1, Listener())
        watching.until(lambda: watching.polled() == [2, 3])
        watching.end()
        watching.begin()
        watching.accounts.start(config)
        calls = watching.count(SOFTWARE)
        for _ in range(6):
            clock.advance(299.0)
            watching.until(lambda: watching.count(LIST))
            watching.rest()
        assert watching.accounts.statuses()[0].pause_until is None
        assert watching.polled() == [2, 3]
        assert watching.count(SOFTWARE) >= calls + 3, "the others take their turns"
        refused = watching.count("GET servers/:server/software")
        clock.advance(10.0)
        watching.until(lambda: watching.count(SOFTWARE) > refused)


def test_several_servers_that_are_put_off_pause_the_account(prepared_url: str, clock: HeldClock) -> None:
    """No call but the list's is made; it is shown until when and why, and an operator may try once a minute."""
    with Watching(prepared_url, clock=clock) as watching:
        paused(watching)
        (status,) = watching.accounts.statuses()
        assert status.pause_until == clock.now() + 3600.0
        assert "429" in str(status.pause_reason)
        assert watching.account_record().state.paused_until == status.pause_until
        calls = watching.count(SOFTWARE)
        first, second = Listener(), Listener()
        watching.accounts.refresh("main", 2, first)
        watching.until(lambda: first.heard)
        watching.rest()
        assert watching.count(SOFTWARE) == calls + 1
        watching.accounts.refresh("main", 3, second)
        assert "cannot be polled now: its calls are paused until 20" in str(second.heard)
        watching.rest()
        assert watching.count(SOFTWARE) == calls + 1


def test_a_refresh_that_is_answered_ends_the_pause(prepared_url: str, clock: HeldClock) -> None:
    """The others are polled, and the store knows of no pause."""
    with Watching(prepared_url, clock=clock) as watching:
        paused(watching)
        watching.simulator.faults.clear()
        listener = Listener()
        watching.accounts.refresh("main", 2, listener)
        watching.until(lambda: listener.heard == [None])
        watching.rest()
        assert watching.accounts.statuses()[0].pause_until is None
        assert watching.account_record().state.paused_until is None


def test_a_reload_allows_one_list_call_which_ends_the_pause(prepared_url: str, clock: HeldClock) -> None:
    """As an operator means it; without one the list goes on to be asked for, and ends nothing."""
    with Watching(prepared_url, clock=clock) as watching:
        paused(watching)
        config, lists = watching.config(), watching.count(LIST)
        clock.advance(60.0)
        watching.until(lambda: watching.count(LIST) > lists)
        watching.rest()
        assert watching.accounts.statuses()[0].pause_until is not None
        watching.accounts.reload(config, config)
        watching.until(lambda: watching.accounts.statuses()[0].pause_until is None)


def test_a_pause_goes_on_over_a_restart(prepared_url: str, clock: HeldClock) -> None:
    """It is kept as a time of day; where the list call was put off, that is not made before its end either."""
    with Watching(prepared_url, clock=clock) as watching:
        config = watching.start()
        watching.rest()
        watching.fault("rate_limit", "servers", retry_after=1800)
        watching.poller.list_now()
        watching.until(lambda: watching.accounts.statuses()[0].pause_until)
        watching.rest()
        until = watching.accounts.statuses()[0].pause_until
        watching.simulator.faults.clear()
        watching.end()
        clock.advance(600.0)
        calls = watching.count(LIST) + watching.count(SOFTWARE)
        watching.begin()
        watching.accounts.start(config)
        watching.rest()
        assert watching.accounts.statuses()[0].pause_until == until
        clock.advance(1199.0)
        watching.rest()
        assert watching.count(LIST) + watching.count(SOFTWARE) == calls
        clock.advance(2.0)
        watching.until(lambda: watching.polled() == [1, 2, 3])


def test_a_pause_marks_the_servers_whose_turn_comes(prepared_url: str, clock: HeldClock) -> None:
    """Nobody may take for polled what the API does not let be polled; each is marked once, and polled after it."""
    with Watching(prepared_url, servers=4, clock=clock) as watching:
        paused(watching)
        watching.poller.plan(Job.POLL, 4)
        watching.until(lambda: watching.polled() == [])
        calls = watching.count(SOFTWARE)
        watching.rest()
        assert watching.passed_over() >= {4}
        assert (watching.count(SOFTWARE), watching.accounts.statuses()[0].trouble) == (calls, None)
        watching.simulator.faults.clear()
        watching.end_pause()
        clock.advance(1.0)
        watching.poller.list_now()
        watching.until(lambda: 4 in watching.polled())


def test_a_server_that_could_not_be_marked_is_marked_when_the_store_can(prepared_url: str) -> None:
    """While the API is down, what the store could not note as not polled does not seem polled for ever."""
    FailingStore.full.clear()
    with Watching(prepared_url, store=FailingStore) as watching:
        watching.start()
        watching.fault("status", "*", status=500)
        watching.poller.list_now()
        watching.until(lambda: watching.accounts.statuses()[0].trouble)
        FailingStore.full.set()
        watching.poller.plan(Job.POLL, 2)
        watching.tick_for(0.3)
        assert watching.passed_over() == set()
        assert watching.planned() == 3
        FailingStore.full.clear()
        watching.poller.plan(Job.POLL, 2)
        watching.until(lambda: watching.polled() == [1, 3])


def test_refused_credentials_block_until_new_ones_are_there(watching: Watching, tmp_path: Path) -> None:
    """Deliveries wait without burning tries; a new secret in the file is noticed and tried at once."""
    file = folder_secret(tmp_path, "secret", "demo")
    watching.start(secret=Secret.from_file(file))
    watching.simulator.world.demo.secret = "renewed"
    watching.deliver(watching.broken())
    watching.until(lambda: watching.states() == ["blocked"])
    assert watching.inbox()[0].attempts == 0
    watching.until(lambda: watching.accounts.statuses()[0].credentials_refused)
    file.unlink()
    watching.tick_for(0.2)
    folder_secret(tmp_path, "new", "renewed")
    (tmp_path / "new").replace(file)
    watching.until(lambda: watching.states() == ["applied"], within=30.0)
    assert not watching.accounts.statuses()[0].credentials_refused


def test_a_secret_that_cannot_be_read_stops_nothing_but_its_account(watching: Watching, tmp_path: Path) -> None:
    """A file that is missing for a moment raises nothing; the old value stays."""
    file = folder_secret(tmp_path, "secret", "demo")
    watching.start(secret=Secret.from_file(file))
    file.unlink()
    assert watching.account.reread_credentials() is False
    folder_secret(tmp_path, "secret", "other")
    assert watching.account.reread_credentials() is True


def test_a_delivery_that_was_blocked_without_a_trouble_is_freed_by_the_next_list(watching: Watching) -> None:
    """A refusal that has passed when the account's list is read must not block for ever."""
    watching.start()
    watching.fault("status", "webhooks/*", status=401, count=1)
    watching.deliver(watching.broken())
    watching.until(lambda: watching.states() == ["applied"])


def test_a_list_that_a_refused_event_asks_for_takes_effect(watching: Watching) -> None:
    """What it tells of the servers is not left to the next list, which may be minutes away."""
    watching.start()
    watching.rest()
    world = watching.simulator.world
    world.remove_server(world.server(world.demo, 3))
    watching.fault("status", "webhooks/*", status=401, count=1)
    watching.deliver(watching.broken())
    watching.until(lambda: watching.accounts.server_ids() == {"main": (1, 2)})


def test_what_fails_for_long_is_said_each_quarter_of_an_hour(
    prepared_url: str, clock: HeldClock, caplog: pytest.LogCaptureFixture
) -> None:
    """The account's refusal with its begin and its tries; servers in one line; and the end of each."""
    caplog.set_level(logging.INFO)
    with Watching(prepared_url, clock=clock) as watching:
        watching.start()
        watching.rest()
        watching.fault("status", "servers/1/software", status=500)
        watching.accounts.refresh("main", 1, Listener())
        for _ in range(32):
            clock.advance(60.0)
            watching.until(lambda: True)
            watching.rest()
        lines = [record for record in caplog.records if "Servers still cannot be polled" in record.getMessage()]
        assert 1 <= len(lines) <= 2
        assert vars(lines[-1])["fields"]["server_id"] == 1
        watching.simulator.faults.clear()
        clock.advance(901.0)
        watching.until(lambda: watching.polled() == [1, 2, 3])
        assert "A server can be polled again" in caplog.text
        caplog.clear()
        watching.fault("status", "servers", status=401)
        for _ in range(20):
            clock.advance(60.0)
            watching.until(lambda: True)
            watching.rest()
        refused = [record for record in caplog.records if "refuses the credentials" in record.getMessage()]
        said = [record.getMessage().partition(":")[0] for record in refused if record.levelno == logging.ERROR]
        assert said == ["The API refuses the credentials", "Still so"]
        assert vars(refused[-1])["fields"]["tries"] >= 9
