"""An API that fails, refuses or asks to wait: what is called, what is marked, and how it recovers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.unit.sync.watching import LIST, SOFTWARE, FailingStore, Listener, Watching, folder_secret

from patrolserver_exporter.config.secret import Secret
from patrolserver_exporter.sync.schedule import Job

if TYPE_CHECKING:
    from pathlib import Path


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


def test_an_api_that_asks_to_wait_gets_no_calls_and_refreshes_are_refused(watching: Watching) -> None:
    """A long Retry-After is kept to, and whoever asks meanwhile need not wait for its end."""
    watching.start()
    watching.fault("rate_limit", "servers/*/software", retry_after=3600)
    first, second = Listener(), Listener()
    watching.accounts.refresh("main", 1, first)
    watching.until(lambda: first.heard)
    calls = watching.count(SOFTWARE)
    watching.accounts.refresh("main", 2, second)
    watching.until(lambda: second.heard)
    watching.tick_for(0.3)
    assert "asked to wait" in str(second.heard)
    assert watching.count(SOFTWARE) == calls


def test_a_long_pause_marks_the_servers_whose_turn_comes(watching: Watching) -> None:
    """Nobody may take for polled what the API does not let be polled; each is marked once, and polled after it."""
    watching.start()
    fault = watching.fault("rate_limit", "servers/*/software", retry_after=3600)
    watching.accounts.refresh("main", 1, Listener())
    watching.until(lambda: watching.polled() == [2, 3])
    calls, lists = watching.count(SOFTWARE), watching.count(LIST)
    watching.poller.plan(Job.POLL, 2)
    watching.until(lambda: watching.polled() == [3])
    watching.poller.list_now()
    watching.until(lambda: watching.count(LIST) > lists)
    watching.tick_for(0.2)
    assert watching.passed_over() == {2}
    assert (watching.count(SOFTWARE), watching.accounts.statuses()[0].trouble) == (calls, None)
    watching.simulator.faults.clear(fault)
    watching.end_pause()
    watching.poller.list_now()
    watching.until(lambda: 2 in watching.polled())


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
    refused = [watching.fault("status", path, status=401, count=1) for path in ("webhooks/*", "servers")]
    watching.deliver(watching.broken())
    watching.until(lambda: watching.states() == ["applied"])
    assert refused
