"""Whose turn it is, and who asks for a poll: the poller before a real API."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING

import requests
from tests.harness.watching import LIST, QUICK, SOFTWARE, FailingStore, Listener, Watching

from patrolserver_exporter.config.schema import ServerFilter
from patrolserver_exporter.simulator.faults import Fault, FaultKind
from patrolserver_exporter.simulator.software import Change, Kind
from patrolserver_exporter.store import fleet
from patrolserver_exporter.sync import operations

if TYPE_CHECKING:
    import pytest
    from tests.harness.ticking import HeldClock


def test_each_server_is_polled_once_an_interval(prepared_url: str, clock: HeldClock) -> None:
    """A start polls each server once, and then not before its turn; the turns are spread over the interval."""
    with Watching(prepared_url, clock=clock) as watching:
        watching.start()
        watching.rest()
        assert (watching.count(SOFTWARE), watching.count(LIST)) == (3, 1)
        assert 'patrolserver_servers{account="main"} 3.0' in watching.scrape()
        for polls in (4, 5, 6):
            clock.advance(299.0)
            watching.rest()
            assert watching.count(SOFTWARE) == polls - 1
            clock.advance(1.0)
            watching.until(lambda: watching.count(SOFTWARE) >= polls)  # noqa: B023  # called before the next turn
            watching.rest()
            assert watching.count(SOFTWARE) == polls


def test_servers_that_get_better_alike_are_polled_again_after_settle(prepared_url: str, clock: HeldClock) -> None:
    """The API's fault more likely than so many fixes: all wait for a second poll, also those that came first."""
    with Watching(prepared_url, clock=clock) as watching:
        world = watching.simulator.world
        servers = world.servers(world.demo)
        broken = {server.id: world.change(server, Change(Kind.EXPLOITABLE, risk=9.8))[0].software for server in servers}
        watching.start(settle=60.0)
        watching.rest()
        for server in servers:
            software = broken[server.id]
            world.change(server, Change(Kind.MENDED, software.canonical_name, gone=str(software.exploits[-1].cve)))

        def doubted() -> list[int]:
            return [one.server_id for one in watching.records() if not one.state.poll_complete]

        polls = watching.count(SOFTWARE)
        for turn in (1, 2, 3):
            clock.advance(300.0)
            watching.until(lambda: watching.count(SOFTWARE) >= polls + turn)  # noqa: B023  # called before the next
            watching.rest()
            assert len(doubted()) == (3 if turn == 3 else 0)
        clock.advance(61.0)
        watching.until(lambda: not doubted(), "the second polls")


def test_polls_keep_to_the_budget(prepared_url: str, clock: HeldClock) -> None:
    """Lists and polls together never make more calls than a burst and what the minute allows."""
    with Watching(prepared_url, servers=40, clock=clock) as watching:
        watching.accounts.start(watching.config(poll=replace(QUICK, max_requests_per_minute=60)))
        watching.until(lambda: watching.count(SOFTWARE) >= 9)
        assert watching.rest() == 10
        assert watching.count(LIST) == 1
        clock.advance(3.0)
        watching.until(lambda: watching.count(SOFTWARE) >= 12)
        assert watching.rest() == 13
        assert watching.account.interval == 900.0
        assert watching.planned() == 40


def test_no_more_polls_than_allowed_are_made_at_once(prepared_url: str) -> None:
    """``poll.concurrency`` bounds the calls under way."""
    with Watching(prepared_url, servers=12) as watching:
        watching.fault("latency", "servers/*/software", seconds=0.15)
        watching.accounts.start(watching.config(poll=replace(QUICK, concurrency=3)))
        seen = []

        def all_polled() -> bool:
            seen.append(len(watching.in_flight()))
            return len(watching.polled()) == 12

        watching.until(all_polled)
        assert max(seen) == 3


def test_a_server_that_is_gone_ends_and_is_polled_no_more(prepared_url: str, clock: HeldClock) -> None:
    """Its series end with the list, and nothing of it stays planned, however its last poll ended."""
    with Watching(prepared_url, clock=clock) as watching:
        watching.start()
        world = watching.simulator.world
        world.remove_server(world.server(world.demo, 2))
        listener = Listener()
        watching.accounts.refresh("main", 2, listener)
        watching.until(lambda: len(watching.records()) == 2)
        watching.until(lambda: listener.heard)
        assert listener.heard[0] is not None
        assert 'server_id="2"' not in watching.scrape()
        watching.rest()
        calls = watching.count(SOFTWARE)
        clock.advance(60.0)
        watching.rest()
        assert watching.count(SOFTWARE) == calls
        assert (watching.planned(), watching.account._failures) == (2, {})  # noqa: SLF001  # Memory is what this is about.


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
        watching.accounts.refresh("main", 2, listener)
        watching.until(lambda: listener.heard)  # noqa: B023  # called before the next turn
        watching.tick_for(0.2)
    assert watching.count(LIST) == lists + 1
    assert watching.polled() == [1, 3]


def test_a_listed_server_that_the_api_does_not_know_is_in_doubt(watching: Watching) -> None:
    """What was known of it may be another one's: it is not vouched for until a poll is answered again."""
    watching.start()
    watching.until(lambda: watching.polled() == [1, 2, 3])

    def why() -> str | None:
        found = watching.store.read(lambda connection: fleet.find_server(connection, "main", 2))
        assert found is not None
        return found.state.incomplete_because

    assert why() is None
    watching.fault("status", "servers/2/software", status=404)
    listener = Listener()
    watching.accounts.refresh("main", 2, listener)
    watching.until(lambda: listener.heard)
    assert (why() or "").startswith("status 404")


def test_filters_choose_what_is_awaited(watching: Watching) -> None:
    """Servers that the globs leave out are neither polled nor shown."""
    name = watching.simulator.world.server(watching.simulator.world.demo, 1).name
    watching.accounts.start(watching.config(servers=ServerFilter(exclude=(name,))))
    watching.until(lambda: watching.polled() == [2, 3])
    assert name not in watching.scrape()


def test_a_restart_neither_polls_everything_nor_shows_anything_fresher(prepared_url: str, clock: HeldClock) -> None:
    """State, schedule and series are as they were."""
    with Watching(prepared_url, clock=clock) as watching:
        config = watching.start()
        watching.rest()
        before = [(record.summary, record.next_poll_at) for record in watching.records()]
        watching.end()
        calls = watching.count(SOFTWARE)
        clock.advance(60.0)
        watching.begin()
        watching.accounts.start(config)
        watching.until(lambda: watching.accounts.ready)
        watching.rest()
        assert watching.count(SOFTWARE) == calls
        assert [(record.summary, record.next_poll_at) for record in watching.records()] == before


def test_a_refresh_polls_now_and_tells_once(watching: Watching) -> None:
    """The caller gets the end of a poll that started after the request."""
    watching.start()
    first, second = Listener(), Listener()
    watching.fault("latency", "servers/1/software", seconds=0.3)
    watching.accounts.refresh("main", 1, first)
    watching.until(lambda: watching.in_flight() and not watching.awaited())
    watching.accounts.refresh("main", 1, second)
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
        watching.accounts.refresh("main", 1, Listener())
        watching.until(lambda: watching.count(SOFTWARE) == polls)  # noqa: B023  # called before the next turn
    watching.until(lambda: 'wire_oddities_total{account="main"} 3.0' in watching.scrape())
    assert [record.levelname for record in caplog.records if "was odd" in record.message] == ["WARNING"]


def test_a_refresh_tells_what_went_wrong_once(watching: Watching) -> None:
    """A failing API, an unknown server and an unknown account are answers too."""
    watching.start()
    watching.fault("status", "servers/1/software", status=500)
    listeners = [Listener() for _ in range(3)]
    for (of_account, server_id), listener in zip([("main", 1), ("main", 99), ("other", 1)], listeners, strict=True):
        watching.accounts.refresh(of_account, server_id, listener)
    watching.until(lambda: all(listener.heard for listener in listeners))
    watching.tick_for(0.3)
    said = [listener.heard for listener in listeners]
    assert [len(heard) for heard in said] == [1, 1, 1]
    assert "status 500" in str(said[0])
    assert "Server 99 is no longer in account main" in str(said[1])
    assert "There is no account other" in str(said[2])
    assert watching.awaited() == set()


def test_a_failing_server_is_found_in_the_log_by_its_name(watching: Watching, caplog: pytest.LogCaptureFixture) -> None:
    """The pages and the runbooks send people to the log with the name that they know."""
    watching.start()
    watching.fault("status", "servers/1/software", status=500)
    name = next(record.name for record in watching.records() if record.server_id == 1)
    watching.accounts.refresh("main", 1, Listener())
    said = watching.until(lambda: [line for line in caplog.records if "could not be polled" in line.message])
    assert [vars(line)["fields"]["server"] for line in said] == [name]


def test_a_refresh_whose_result_cannot_be_kept_is_told(prepared_url: str, caplog: pytest.LogCaptureFixture) -> None:
    """When the store cannot write, nobody is left waiting, and the server is polled again later."""
    FailingStore.full.clear()
    with Watching(prepared_url, store=FailingStore) as watching:
        watching.start()
        FailingStore.full.set()
        listener = Listener()
        watching.accounts.refresh("main", 1, listener)
        watching.until(lambda: listener.heard)
        FailingStore.full.clear()
        assert "could not be kept" in str(listener.heard)
        assert "could not be kept" not in caplog.text, "the store tells of a full disk, and not each poll"
        watching.tick_for(0.1)
        assert len(listener.heard) == 1
        assert watching.planned() == 3


def test_a_poll_that_the_store_does_not_keep_is_no_success(prepared_url: str) -> None:
    """The gauge falls at once, although the state still says that the poll before it succeeded, and rises again."""
    FailingStore.full.clear()
    with Watching(prepared_url, store=FailingStore) as watching:
        watching.start()
        watching.rest()
        listener, success = Listener(), re.compile(r'patrolserver_server_poll_success{.*server_id="1"} (\S+)')
        for full, shown in ((FailingStore.full.set, "0.0"), (FailingStore.full.clear, "1.0")):
            full()
            watching.accounts.refresh("main", 1, listener)
            watching.until(lambda: success.findall(watching.scrape()) == [shown])  # noqa: B023  # called at once


def test_nobody_waits_for_an_account_that_stops(watching: Watching) -> None:
    """At a stop, those who wait for a poll get an error."""
    watching.start()
    watching.fault("latency", "servers/1/software", seconds=0.5)
    first, second, late = Listener(), Listener(), Listener()
    watching.accounts.refresh("main", 1, first)
    watching.until(watching.in_flight)
    watching.accounts.refresh("main", 1, second)
    poller = watching.poller
    watching.accounts.stop()
    poller.refresh(1, late)
    watching.until(lambda: first.heard and second.heard and late.heard)
    assert [len(listener.heard) for listener in (first, second, late)] == [1, 1, 1]
    assert "no longer watched" in str(second.heard)


def test_a_listener_that_fails_does_not_keep_the_news_from_others(watching: Watching) -> None:
    """Somebody who went away raises, which counts as an error; the next one hears all the same."""
    watching.start()

    def gone(_: str | None) -> None:
        raise RuntimeError("gone")

    listener = Listener()
    watching.fault("latency", "servers/1/software", seconds=0.2)
    watching.accounts.refresh("main", 1, Listener())
    watching.accounts.refresh("main", 1, gone)
    watching.accounts.refresh("main", 1, listener)
    watching.until(lambda: listener.heard)
    assert listener.heard == [None]
    assert 'patrolserver_exporter_errors_total{component="poller"} 1.0' in watching.scrape()


def test_a_refresh_that_was_asked_for_is_done_after_a_restart(watching: Watching) -> None:
    """It is a row, and so is its end, which is written with the poll's result."""
    config = watching.start()

    def state() -> str | None:
        found = watching.store.read(lambda connection: operations.find(connection, "one"))
        return None if found is None else found.state

    watching.simulator.faults.add(Fault(kind=FaultKind.LATENCY, path="servers/*/software", seconds=1.0))
    watching.store.run(lambda unit: operations.ask(unit, "one", "main", 1))
    watching.accounts.begin_refreshes()
    watching.until(lambda: state() == operations.RUNNING, "the refresh's begin")
    watching.end()
    watching.begin()
    assert state() == operations.RUNNING
    watching.accounts.start(config)
    watching.until(lambda: state() == operations.DONE, "the refresh's end")
