"""The poller and the worker before a real API, which misbehaves by order."""

from __future__ import annotations

import contextlib
import itertools
import threading
import time
from dataclasses import replace
from typing import TYPE_CHECKING, TypeVar, cast

import pytest
import requests
from msgspec import structs
from tests.harness.ticking import HeldClock
from tests.unit.ingest.accounts import account, configured
from tests.unit.ingest.watching import EVENT, LIST, QUICK, SOFTWARE, Listener, Watching, folder_secret
from tests.unit.patrolserver.raw_server import RawServer, reply

from patrolserver_exporter.config.schema import Poll, ServerFilter
from patrolserver_exporter.config.secret import Secret
from patrolserver_exporter.exposition.telemetry import Telemetry
from patrolserver_exporter.ingest.account import WatchedAccount
from patrolserver_exporter.ingest.poller import AccountPoller
from patrolserver_exporter.ingest.schedule import Job
from patrolserver_exporter.issues.model import Kind
from patrolserver_exporter.issues.summary import ServerSummary
from patrolserver_exporter.store import Store, StoreUnavailable, deliveries, inbox_view
from patrolserver_exporter.store.fleet import ServerRecord, ServerState

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from patrolserver_exporter.ingest.rules import Rules
    from patrolserver_exporter.store import Unit

T = TypeVar("T")


@pytest.fixture
def watching(prepared_url: str) -> Iterator[Watching]:
    with Watching(prepared_url) as made:
        yield made


class FailingStore(Store):
    """A store whose disk is full now and then."""

    full = threading.Event()

    def run(self, work: Callable[[Unit], T]) -> T:
        """As the store does it, unless the disk is full."""
        if self.full.is_set():
            raise StoreUnavailable("The store cannot write: database or disk is full")
        return super().run(work)


# Polls


def test_each_server_is_polled_once_an_interval(watching: Watching) -> None:
    """A start polls each server once, and then not before its turn."""
    watching.start()
    watching.tick_for(0.5)
    assert watching.count(SOFTWARE) == 3
    assert watching.count(LIST) == 1
    assert 'patrolserver_servers{account="main"} 3.0' in watching.scrape()


def test_polls_keep_to_the_budget(prepared_url: str) -> None:
    """Lists and polls together never make more calls than a burst and what the minute allows."""
    with Watching(prepared_url, servers=40) as watching:
        began = time.monotonic()
        watching.ingest.start(watching.config(poll=replace(QUICK, max_requests_per_minute=60)))
        watching.tick_for(1.5)
        assert 10 <= watching.simulator.requests.document()["total"] <= 10 + (time.monotonic() - began) + 1  # type: ignore[operator]
        assert watching.watched.interval == 900.0
        with watching.watched.lock:
            assert len(watching.watched.schedule) >= 28


def test_no_more_polls_than_allowed_are_made_at_once(prepared_url: str) -> None:
    """``poll.concurrency`` bounds the calls under way."""
    with Watching(prepared_url, servers=12) as watching:
        watching.fault("latency", "servers/*/software", seconds=0.15)
        watching.ingest.start(watching.config(poll=replace(QUICK, concurrency=3)))
        seen = []

        def all_polled() -> bool:
            seen.append(len(watching.watched.in_flight))
            return len(watching.polled()) == 12

        watching.until(all_polled)
        assert max(seen) == 3


def test_a_server_that_is_gone_ends_and_is_polled_no_more(watching: Watching) -> None:
    """Its series end with the list, and nothing of it stays planned, however its last poll ended."""
    watching.start()
    world = watching.simulator.world
    world.remove_server(world.server(world.demo, 2))
    listener = Listener()
    watching.ingest.refresh("main", 2, listener)
    watching.until(lambda: len(watching.records()) == 2)
    watching.until(lambda: listener.heard)
    assert listener.heard[0] is not None
    assert 'server_id="2"' not in watching.scrape()
    calls = watching.count(SOFTWARE)
    watching.tick_for(1.5)
    assert watching.count(SOFTWARE) == calls
    assert (len(watching.watched.schedule), watching.watched.failures) == (2, {})


def test_a_server_that_is_renamed_is_polled_at_once(watching: Watching) -> None:
    """It may be another one, as after new credentials: what is known of the old one must not pass for fresh."""
    watching.start()
    calls = watching.count(SOFTWARE)
    world = watching.simulator.world
    with world.lock:
        world.server(world.demo, 2).name = "other.example.org"
        world.list_version += 1
    watching.poller.list_now()
    watching.until(lambda: watching.count(SOFTWARE) == calls + 1)
    watching.until(lambda: 'server="other.example.org"' in watching.scrape())


def test_a_server_without_software_calls_for_one_list(watching: Watching) -> None:
    """A 404 may say that it is gone; when the list has it all the same, each further 404 asks for no more."""
    watching.start()
    watching.fault("status", "servers/2/software", status=404)
    lists = watching.count(LIST)
    for _ in range(3):
        listener = Listener()
        watching.ingest.refresh("main", 2, listener)
        watching.until(lambda: listener.heard)  # noqa: B023  # called before the next turn
        watching.tick_for(0.2)
    assert watching.count(LIST) == lists + 1
    assert watching.polled() == [1, 3]


def test_filters_choose_what_is_watched(watching: Watching) -> None:
    """Servers that the globs leave out are neither polled nor shown."""
    name = watching.simulator.world.server(watching.simulator.world.demo, 1).name
    watching.ingest.start(watching.config(servers=ServerFilter(exclude=(name,))))
    watching.until(lambda: watching.polled() == [2, 3])
    assert name not in watching.scrape()


def test_a_restart_neither_polls_everything_nor_shows_anything_fresher(watching: Watching) -> None:
    """State, schedule and series are as they were."""
    config = watching.start()
    before = [(record.summary, record.next_poll_at) for record in watching.records()]
    watching.end()
    calls = watching.count(SOFTWARE)
    watching.begin()
    watching.ingest.start(config)
    watching.tick_for(0.7)
    assert watching.count(SOFTWARE) == calls
    assert [(record.summary, record.next_poll_at) for record in watching.records()] == before
    assert watching.ingest.ready


# Who asks for a poll


def test_a_refresh_polls_now_and_tells_once(watching: Watching) -> None:
    """Whoever asks hears of the end of a poll that started after the question."""
    watching.start()
    first, second = Listener(), Listener()
    watching.fault("latency", "servers/1/software", seconds=0.3)
    watching.ingest.refresh("main", 1, first)
    watching.until(lambda: watching.watched.in_flight and not watching.watched.waiting)
    watching.ingest.refresh("main", 1, second)
    watching.until(lambda: second.heard)
    watching.tick_for(0.4)
    assert (first.heard, second.heard) == ([None], [None])
    assert watching.count(SOFTWARE) == 5


def test_what_stays_odd_is_said_once(watching: Watching, caplog: pytest.LogCaptureFixture) -> None:
    """It counts at every poll, but a warning at every poll of every server would bury all others."""
    url = f"{watching.simulator.base_url}/-/simulator/servers/1/software"
    odd = {"name": "Odd", "canonical_name": "odd", "version": "1", "supported": "perhaps"}
    assert requests.post(url, json={"software": odd}, timeout=5).ok
    watching.start()
    for polls in (4, 5):
        watching.ingest.refresh("main", 1, Listener())
        watching.until(lambda: watching.count(SOFTWARE) == polls)  # noqa: B023  # called before the next turn
    watching.until(lambda: 'wire_oddities_total{account="main"} 3.0' in watching.scrape())
    assert [record.levelname for record in caplog.records if "was odd" in record.message] == ["WARNING"]


def test_a_refresh_tells_what_went_wrong_once(watching: Watching) -> None:
    """A failing API, an unknown server and an unknown account are answers too."""
    watching.start()
    watching.fault("status", "servers/1/software", status=500)
    listeners = [Listener() for _ in range(3)]
    for (of_account, server_id), listener in zip([("main", 1), ("main", 99), ("other", 1)], listeners, strict=True):
        watching.ingest.refresh(of_account, server_id, listener)
    watching.until(lambda: all(listener.heard for listener in listeners))
    watching.tick_for(0.3)
    said = [listener.heard for listener in listeners]
    assert [len(heard) for heard in said] == [1, 1, 1]
    assert "status 500" in str(said[0])
    assert "Server 99 is no longer in account main" in str(said[1])
    assert "There is no account other" in str(said[2])
    assert watching.watched.waiting == {}


def test_a_failing_server_is_found_in_the_log_by_its_name(watching: Watching, caplog: pytest.LogCaptureFixture) -> None:
    """The pages and the runbooks send people to the log with the name that they know."""
    watching.start()
    watching.fault("status", "servers/1/software", status=500)
    name = next(record.name for record in watching.records() if record.server_id == 1)
    watching.ingest.refresh("main", 1, Listener())
    said = watching.until(lambda: [line for line in caplog.records if "could not be polled" in line.message])
    assert [vars(line)["fields"]["server"] for line in said] == [name]


def test_a_refresh_whose_result_cannot_be_kept_is_told(prepared_url: str, caplog: pytest.LogCaptureFixture) -> None:
    """When the store cannot write, nobody is left waiting, and the server is polled again later."""
    FailingStore.full.clear()
    with Watching(prepared_url, store=FailingStore) as watching:
        watching.start()
        FailingStore.full.set()
        listener = Listener()
        watching.ingest.refresh("main", 1, listener)
        watching.until(lambda: listener.heard)
        FailingStore.full.clear()
        assert "could not be kept" in str(listener.heard)
        assert "could not be kept" not in caplog.text, "the store tells of a full disk, and not each poll"
        watching.tick_for(0.1)
        assert len(listener.heard) == 1
        with watching.watched.lock:
            assert len(watching.watched.schedule) == 3


def test_nobody_waits_for_an_account_that_stops(watching: Watching) -> None:
    """At a stop, whoever waits for a poll is told."""
    watching.start()
    watching.fault("latency", "servers/1/software", seconds=0.5)
    first, second, late = Listener(), Listener(), Listener()
    watching.ingest.refresh("main", 1, first)
    watching.until(lambda: watching.watched.in_flight)
    watching.ingest.refresh("main", 1, second)
    poller = watching.poller
    watching.ingest.stop()
    poller.refresh(1, late)
    watching.until(lambda: first.heard and second.heard and late.heard)
    assert [len(listener.heard) for listener in (first, second, late)] == [1, 1, 1]
    assert "no longer watched" in str(second.heard)


def test_a_listener_that_fails_does_not_keep_the_news_from_others(watching: Watching) -> None:
    """Somebody who went away raises; the next one hears all the same."""
    watching.start()

    def gone(_: str | None) -> None:
        raise RuntimeError("gone")

    listener = Listener()
    watching.fault("latency", "servers/1/software", seconds=0.2)
    watching.ingest.refresh("main", 1, Listener())
    watching.ingest.refresh("main", 1, gone)
    watching.ingest.refresh("main", 1, listener)
    watching.until(lambda: listener.heard)
    assert listener.heard == [None]


# Trouble


def test_what_was_passed_over_is_caught_up(watching: Watching) -> None:
    """While the API is down, servers whose turn comes are marked and not called; then they are polled."""
    watching.start()
    fault = watching.fault("status", "*", status=500)
    watching.poller.list_now()
    watching.until(lambda: watching.ingest.statuses()[0].trouble)
    calls = watching.count(SOFTWARE)
    listener = Listener()
    watching.ingest.refresh("main", 2, listener)
    watching.until(lambda: watching.polled() == [1, 3])
    assert "cannot be polled now" in str(listener.heard)
    assert watching.count(SOFTWARE) == calls
    assert watching.watched.passed_over == {2}
    watching.simulator.faults.clear(fault)
    watching.until(lambda: watching.polled() == [1, 2, 3], within=30.0)
    assert watching.watched.passed_over == set()


def test_what_was_passed_over_survives_a_recovery_that_cannot_be_kept(prepared_url: str) -> None:
    """If the store cannot take the list that ends a trouble, the next list does it."""
    FailingStore.full.clear()
    with Watching(prepared_url, store=FailingStore) as watching:
        watching.start()
        fault = watching.fault("status", "*", status=500)
        watching.poller.list_now()
        watching.until(lambda: watching.ingest.statuses()[0].trouble)
        watching.ingest.refresh("main", 2, Listener())
        watching.until(lambda: watching.polled() == [1, 3])
        FailingStore.full.set()
        watching.simulator.faults.clear(fault)
        watching.until(lambda: not watching.ingest.statuses()[0].trouble)
        watching.tick_for(0.1)
        FailingStore.full.clear()
        watching.poller.list_now()
        watching.until(lambda: watching.polled() == [1, 2, 3])


def test_an_api_that_asks_to_wait_gets_no_calls_and_refreshes_are_refused(watching: Watching) -> None:
    """A long Retry-After is kept to, and whoever asks meanwhile need not wait for its end."""
    watching.start()
    watching.fault("rate_limit", "servers/*/software", retry_after=3600)
    first, second = Listener(), Listener()
    watching.ingest.refresh("main", 1, first)
    watching.until(lambda: first.heard)
    calls = watching.count(SOFTWARE)
    watching.ingest.refresh("main", 2, second)
    watching.until(lambda: second.heard)
    watching.tick_for(0.3)
    assert "asked to wait" in str(second.heard)
    assert watching.count(SOFTWARE) == calls


def test_a_long_pause_marks_the_servers_whose_turn_comes(watching: Watching) -> None:
    """Nobody may take for polled what the API does not let be polled; each is marked once, and polled after it."""
    watching.start()
    fault = watching.fault("rate_limit", "servers/*/software", retry_after=3600)
    watching.ingest.refresh("main", 1, Listener())
    watching.until(lambda: watching.polled() == [2, 3])
    calls, lists = watching.count(SOFTWARE), watching.count(LIST)
    watching.poller.plan(Job.POLL, 2)
    watching.until(lambda: watching.polled() == [3])
    watching.poller.list_now()
    watching.until(lambda: watching.count(LIST) > lists)
    watching.tick_for(0.2)
    assert watching.watched.passed_over == {2}
    assert (watching.count(SOFTWARE), watching.ingest.statuses()[0].trouble) == (calls, None)
    watching.simulator.faults.clear(fault)
    with watching.watched.lock:
        watching.watched.health.paused_until = 0.0
    watching.poller.list_now()
    watching.until(lambda: 2 in watching.polled())


def test_a_server_that_could_not_be_marked_is_marked_when_the_store_can(prepared_url: str) -> None:
    """While the API is down, what the store could not note as not polled does not seem polled for ever."""
    FailingStore.full.clear()
    with Watching(prepared_url, store=FailingStore) as watching:
        watching.start()
        watching.fault("status", "*", status=500)
        watching.poller.list_now()
        watching.until(lambda: watching.ingest.statuses()[0].trouble)
        FailingStore.full.set()
        watching.poller.plan(Job.POLL, 2)
        watching.tick_for(0.3)
        with watching.watched.lock:
            assert watching.watched.passed_over == set()
            assert len(watching.watched.schedule) == 3
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
    watching.until(lambda: watching.ingest.statuses()[0].credentials_refused)
    file.unlink()
    watching.tick_for(0.2)
    folder_secret(tmp_path, "new", "renewed")
    (tmp_path / "new").replace(file)
    watching.until(lambda: watching.states() == ["applied"], within=30.0)
    assert not watching.ingest.statuses()[0].credentials_refused


def test_a_secret_that_cannot_be_read_stops_nothing_but_its_account(watching: Watching, tmp_path: Path) -> None:
    """A file that is missing for a moment raises nothing; the old value stays."""
    file = folder_secret(tmp_path, "secret", "demo")
    watching.start(secret=Secret.from_file(file))
    file.unlink()
    assert watching.watched.reread_credentials() is False
    folder_secret(tmp_path, "secret", "other")
    assert watching.watched.reread_credentials() is True


def test_a_delivery_that_was_blocked_without_a_trouble_is_freed_by_the_next_list(watching: Watching) -> None:
    """A refusal that has passed when the account's list is read must not block for ever."""
    watching.start()
    refused = [watching.fault("status", path, status=401, count=1) for path in ("webhooks/*", "servers")]
    watching.deliver(watching.broken())
    watching.until(lambda: watching.states() == ["applied"])
    assert refused


# Events


def test_an_event_shows_at_once_and_is_polled_twice(watching: Watching) -> None:
    """The issue opens before the API's list shows it; after settle a poll decides."""
    watching.start(settle=1.0)
    before = len(watching.issues())
    event_id = watching.broken(at_scan=True)
    watching.deliver(event_id)
    watching.until(lambda: len(watching.issues()) == before + 1)
    assert [issue.kind for issue in watching.issues() if not issue.polled] == [Kind.REPORTED]
    began = time.monotonic()
    watching.until(lambda: len(watching.issues()) == before)
    assert time.monotonic() - began < 10.0
    assert watching.records()[0].state.settle_poll_at is None
    calls = watching.count(SOFTWARE)
    assert calls >= 5
    watching.tick_for(0.5)
    assert watching.count(SOFTWARE) == calls


def test_an_event_that_names_no_server_is_left_to_the_operator(
    watching: Watching, caplog: pytest.LogCaptureFixture
) -> None:
    """Nobody can tell what it was about: its body is kept, the log says so, and a replay tries it again."""
    watching.start()
    world = watching.simulator.world
    (event,) = world.outbox.emit(world.demo.id, "webhook.scan_finished", {"server": "web"}, deliver=False)
    watching.deliver(event.id, "webhook.scan_finished")
    watching.until(lambda: watching.states() == ["dead"])
    (delivery,) = watching.inbox()
    assert "names no server" in (delivery.last_error or "")
    found = watching.store.run(lambda unit: inbox_view.get(unit.connection, delivery.id))
    assert found is not None
    assert found[1] == b'{"data":{"server":"web"}}'
    watching.until(lambda: "its body is kept in the inbox" in caplog.text)
    watching.store.run(lambda unit: deliveries.replay(unit, delivery.id, now=delivery.updated_at))
    watching.until(lambda: watching.count(EVENT) == 2 and watching.states() == ["dead"])


def test_a_delivery_that_meets_a_bug_burns_a_try_and_takes_effect_once_it_can(watching: Watching) -> None:
    """It neither holds a thread nor comes again at every lease, says what happened, and loses nothing."""
    watching.start()
    rules = watching.watched.rules
    watching.watched.rules = cast("Rules", None)
    watching.deliver(watching.broken())
    watching.until(lambda: watching.states() == ["retry"])
    (delivery,) = watching.inbox()
    assert delivery.attempts == 1
    assert "bug: AttributeError" in (delivery.last_error or "")
    watching.watched.rules = rules
    watching.until(lambda: watching.states() == ["applied"])


def test_what_waits_for_a_removed_account_is_set_aside_until_it_is_back(
    watching: Watching, caplog: pytest.LogCaptureFixture
) -> None:
    """A reload without the account frees the inbox of its deliveries; one with it lets them take effect."""
    config = watching.start()
    watching.fault("status", "webhooks/*/events/*", status=503)
    watching.deliver(watching.broken())
    watching.until(lambda: watching.states() == ["retry"])
    other = replace(config, accounts=(replace(config.accounts[0], name="other"),))
    watching.ingest.reload(other, config)
    assert watching.states() == ["expired"]
    assert "were set aside" in caplog.text
    watching.simulator.faults.clear()
    watching.ingest.reload(config, other)
    watching.until(lambda: watching.states() == ["applied"])


def test_incomplete_polls_after_an_event_are_no_storm(watching: Watching) -> None:
    """A server with an entry that cannot be read is polled twice after an event, and then in its turn."""
    watching.start(settle=0.5)
    world = watching.simulator.world
    server = world.server(world.demo, 1)
    odd, *others = world.installed(server)
    world.install(server, [structs.replace(odd, overrides={"canonical_name": [], "name": []}), *others])
    watching.deliver(watching.broken())
    watching.until(lambda: watching.states() == ["applied"])
    watching.tick_for(1.5)
    calls = watching.count(SOFTWARE)
    watching.tick_for(0.7)
    assert watching.count(SOFTWARE) == calls
    assert calls <= 7


def test_a_forbidden_event_is_unverified_while_the_list_works(watching: Watching) -> None:
    """Somebody else's event is like one that does not exist; our credentials are not to blame."""
    watching.start()
    watching.fault("status", "webhooks/*", status=403)
    watching.deliver(watching.broken())
    watching.until(lambda: watching.states() == ["unverified"])
    assert watching.inbox()[0].attempts == 1
    assert watching.ingest.statuses()[0].trouble is None


def test_forged_ids_call_for_no_lists(watching: Watching) -> None:
    """Each costs its own calls and no more."""
    watching.start()
    lists = watching.count(LIST)
    for event_id in range(1000, 1030):
        watching.deliver(event_id)
    watching.until(lambda: set(watching.states()) == {"unverified"})
    assert watching.count(EVENT) >= 30
    watching.tick_for(0.3)
    assert watching.count(LIST) == lists


def test_forbidden_ids_call_for_hardly_any_lists(watching: Watching) -> None:
    """Where the API says 403 to what it does not know, forged ids cost no list each."""
    watching.start()
    lists = watching.count(LIST)
    watching.fault("status", "webhooks/*", status=403)
    for event_id in range(1000, 1030):
        watching.deliver(event_id)
    watching.until(lambda: set(watching.states()) == {"unverified"})
    watching.tick_for(0.3)
    # Each thread may ask once, if they all start at once.
    assert watching.count(LIST) <= lists + 4
    assert watching.ingest.statuses()[0].trouble is None


def test_forbidden_ids_use_up_no_budget(prepared_url: str) -> None:
    """When no call is left, a refused event waits for the next list."""
    with Watching(prepared_url) as watching:
        watching.start(poll=replace(QUICK, max_requests_per_minute=60))
        watching.fault("status", "webhooks/*", status=403)
        while watching.watched.polls.try_take():
            pass
        lists = watching.count(LIST)
        watching.deliver(1000)
        watching.until(lambda: watching.states() == ["blocked"])
        assert watching.count(LIST) == lists


def test_an_event_of_a_new_server_waits_for_the_list(watching: Watching) -> None:
    """The server is found by a list that is asked for at once, and the event takes effect."""
    watching.start()
    world = watching.simulator.world
    installed = [one.software for one in world.installed(world.server(world.demo, 1))]
    server = world.add_server(world.demo, "new.example.org", software=installed)
    watching.deliver(watching.broken(server.id))
    watching.until(lambda: watching.states() == ["applied"], within=30.0)
    assert server.id in [record.server_id for record in watching.records()]
    assert watching.issues(server.id)


def test_a_scan_shows_while_it_runs(watching: Watching) -> None:
    """Start and end are told by events and confirmed by isScanning."""
    watching.start()
    world = watching.simulator.world
    server = world.server(world.demo, 1)
    world.start_scan(server, 1.0)
    watching.deliver(len(world.outbox), "webhook.scan_started")
    watching.until(lambda: watching.records()[0].state.scanning)
    watching.until(lambda: world.scanning() == [])
    watching.deliver(len(world.outbox), "webhook.scan_finished")
    watching.until(lambda: not watching.records()[0].state.scanning)
    assert watching.records()[0].state.last_scan_at is not None


def test_a_scan_does_not_run_for_ever_where_nobody_can_ask(watching: Watching) -> None:
    """Without isScanning (404) a scan that was seen no longer shows, and a told end counts."""
    watching.start()
    world = watching.simulator.world
    world.start_scan(world.server(world.demo, 1), 1.0)
    watching.deliver(len(world.outbox), "webhook.scan_started")
    watching.until(lambda: watching.records()[0].state.scanning)
    watching.fault("status", "servers/1/isScanning", status=404)
    watching.until(lambda: world.scanning() == [])
    watching.deliver(len(world.outbox), "webhook.scan_finished")
    watching.until(lambda: not watching.records()[0].state.scanning)
    assert watching.records()[0].state.last_scan_at is not None


# Reloads


def test_an_account_that_is_removed_does_not_come_back_by_a_late_call(watching: Watching) -> None:
    """A list call that outlasts the reload keeps nothing, neither in the store nor in the series."""
    config = watching.start(poll=replace(QUICK, timeout=20.0))
    other = replace(config, accounts=(replace(config.accounts[0], name="other"),))
    watching.fault("latency", "servers", seconds=5.5)
    calls = watching.count(LIST)
    watching.poller.list_now()
    watching.until(lambda: watching.watched.health.list_at > 0 and watching.poller._listing)  # noqa: SLF001  # under way
    watching.ingest.reload(other, config)
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
    watching.ingest.reload(replace(config, poll=replace(config.poll, timeout=3.0)), config)
    watching.until(lambda: watching.states() == ["applied"], within=5.0)
    assert watching.count(EVENT) == 2
    watching.until(lambda: watching.records()[0].state.last_scan_at)
    watching.until(lambda: watching.count(SOFTWARE) > polls)


def test_a_reload_that_fails_leaves_the_old_accounts_watched(prepared_url: str) -> None:
    """When the store cannot take a reload, what was stopped for it comes back."""
    FailingStore.full.clear()
    with Watching(prepared_url, store=FailingStore) as watching:
        config = watching.start()
        changed = replace(config, poll=replace(config.poll, interval=600.0))
        FailingStore.full.set()
        with pytest.raises(StoreUnavailable):
            watching.ingest.reload(changed, config)
        ticked = watching.ingest.last_tick
        watching.tick_for(0.05)
        assert watching.ingest.last_tick > ticked, "the watchdog must not end what a full disk only hinders"
        FailingStore.full.clear()
        listener = Listener()
        watching.until(watching.ingest.statuses)
        assert watching.ingest.statuses()[0].poll_interval == 900.0
        watching.ingest.refresh("main", 1, listener)
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
        watching.ingest._step = 100.0  # noqa: SLF001  # as after a clock that was set ahead
        with watching.watched.lock:
            watching.watched.health.list_at = 0.0
        ticked = watching.ingest.last_tick
        watching.until(lambda: watching.count(LIST) > lists)
        assert watching.ingest.last_tick > ticked
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
        worker = watching.ingest._watches["main"].worker  # noqa: SLF001  # the very one
        changed = replace(config, issues=replace(config.issues, exploit_risk=9.0))
        FailingStore.full.set()
        with pytest.raises(StoreUnavailable):
            watching.ingest.reload(changed, config)
        watching.tick_for(0.05)
        assert [status.name for status in watching.ingest.statuses()] == ["main"]
        FailingStore.full.clear()
        watching.until(lambda: watching.watched.rules.exploit_risk == config.issues.exploit_risk)
        assert watching.ingest._watches["main"].worker is worker  # noqa: SLF001  # the very one
        watching.deliver(watching.broken())
        watching.until(lambda: watching.states() == ["applied"])


def test_a_reload_does_not_let_an_account_make_its_calls_twice(prepared_url: str) -> None:
    """The budget counts the calls of the last minute, whatever was changed meanwhile."""
    with Watching(prepared_url, servers=40) as watching:
        began = time.monotonic()
        config = watching.config(poll=replace(QUICK, max_requests_per_minute=60))
        watching.ingest.start(config)
        for timeout in (3.0, 4.0, 5.0):
            watching.tick_for(0.2)
            changed = replace(config, poll=replace(config.poll, timeout=timeout))
            watching.ingest.reload(changed, config)
            config = changed
        watching.tick_for(0.2)
        made = watching.simulator.requests.document()["total"]
        assert 10 <= made <= 10 + (time.monotonic() - began) + 1  # type: ignore[operator]


# The schedule, without calls


def record(server_id: int, next_poll_at: float | None, **state: object) -> ServerRecord:
    return ServerRecord(
        account="main",
        server_id=server_id,
        name=f"s{server_id}",
        state=ServerState(**state),  # type: ignore[arg-type]
        summary=ServerSummary(account="main", server_id=server_id, name=f"s{server_id}"),
        next_poll_at=next_poll_at,
    )


def planned(store: Store, clock: HeldClock, *records: ServerRecord) -> dict[int, float]:
    """Seconds to each server's next poll after a restart."""
    config = configured(poll=Poll(interval=900.0))
    watched = WatchedAccount(config, config.accounts[0], clock=clock, observer=lambda _: None)
    telemetry = Telemetry(version="0", revision="0", process_metrics=False)
    poller = AccountPoller(watched, store, clock, telemetry)
    poller.resume(records)
    waits = {}
    while (at := watched.schedule.next_at()) is not None:
        task = watched.schedule.pop_due(at)
        assert task is not None
        waits[task.server_id] = at - clock.monotonic()
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
    """It is planned anew at a restart, at once if its time has come."""
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


@pytest.mark.parametrize(("risk", "exploits"), [(0.0, None), (7.5, ())])
def test_what_the_api_said_of_exploits_holds_over_a_restart(
    store: Store, clock: HeldClock, risk: float, exploits: object
) -> None:
    """It left some out because there are none, if it sent some before; else the last one could never be fixed."""
    with contextlib.ExitStack() as stack:
        server = RawServer(reply(b'{"data":[{"name":"PHP"}]}'))
        stack.callback(server.stop)
        config = configured(account(api_url=server.url))
        watched = WatchedAccount(config, config.accounts[0], clock=clock, observer=lambda _: None)
        telemetry = Telemetry(version="0", revision="0", process_metrics=False)
        poller = AccountPoller(watched, store, clock, telemetry)
        known = record(1, None)
        poller.resume([structs.replace(known, summary=structs.replace(known.summary, exploit_risk_max=risk))])
        assert [one.exploits for one in watched.client.software(1).value] == [exploits]
        poller.begin_stop()


@pytest.mark.parametrize("servers", [1, 7, 100])
def test_turns_are_spread_and_never_far(servers: int) -> None:
    """A server waits between a quarter and five quarters of the interval, and the fleet's turns are apart."""
    config = configured(poll=Poll(interval=900.0))
    watched = WatchedAccount(config, config.accounts[0], clock=HeldClock(), observer=lambda _: None)
    watched.watch(range(10, 10 + servers))
    for now in (1.8e9, 1.8e9 + 123.4, 1.8e9 + 899.9):
        waits = {n: watched.turn_after(n, now) for n in watched.server_ids}
        assert all(225.0 < wait <= 1125.0 for wait in waits.values())
        turns = sorted((now + wait) % 900.0 for wait in waits.values())
        gaps = [b - a for a, b in itertools.pairwise(turns)]
        assert all(gap == pytest.approx(900.0 / servers, abs=0.01) for gap in gaps)
    watched.close()


def test_the_interval_stretches_with_the_fleet() -> None:
    """When the budget does not do for the fleet the interval grows, and the events' budget with it."""
    config = configured(poll=Poll(interval=900.0, max_requests_per_minute=60))
    watched = WatchedAccount(config, config.accounts[0], clock=HeldClock(), observer=lambda _: None)
    watched.watch(range(1, 101))
    assert (watched.interval, watched.events_per_minute) == (900.0, 60)
    watched.watch(range(1, 2401))
    assert watched.interval == pytest.approx(2400 / 0.8)
    assert watched.events_per_minute == 120
    watched.close()
