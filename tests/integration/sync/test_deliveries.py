"""What becomes of deliveries: the worker before a real API."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING, TypeVar, cast

from msgspec import structs
from tests.harness.watching import EVENT, LIST, QUICK, SOFTWARE, Watching

from patrolserver_exporter.inbox import deliveries
from patrolserver_exporter.issues.model import Kind
from patrolserver_exporter.store import Store, StoreUnavailable
from patrolserver_exporter.store.tables import inbox, leases
from patrolserver_exporter.sync.inbox_gauges import PATIENCE

if TYPE_CHECKING:
    from collections.abc import Callable

    import pytest
    from tests.harness.ticking import HeldClock

    from patrolserver_exporter.store import Unit
    from patrolserver_exporter.sync.rules import Rules

T = TypeVar("T")


def test_an_event_shows_at_once_and_is_polled_twice(prepared_url: str, clock: HeldClock) -> None:
    """The issue opens before the API's list shows it; after settle a poll decides."""
    with Watching(prepared_url, clock=clock) as watching:
        watching.start(settle=120.0)
        before = len(watching.issues())
        clock.advance(1.0)
        watching.deliver(watching.broken(at_scan=True))
        watching.until(lambda: len(watching.issues()) == before + 1)
        assert [issue.kind for issue in watching.issues() if not issue.polled] == [Kind.REPORTED]
        watching.until(lambda: watching.count(SOFTWARE) >= 4, "the poll that confirms")
        watching.rest()
        assert len(watching.issues()) == before + 1
        clock.advance(120.0)
        watching.until(lambda: len(watching.issues()) == before, "the poll that decides")
        assert watching.records()[0].state.settle_poll_at is None
        clock.advance(60.0)
        watching.rest()
        assert watching.count(SOFTWARE) == 5


def affected(watching: Watching, standing: str) -> float:
    name = f'patrolserver_account_servers_affected{{account="main",severity="{standing}"}} '
    (line,) = (line for line in watching.scrape().splitlines() if line.startswith(name))
    return float(line.removeprefix(name))


def test_servers_are_unknown_while_a_delivery_waits_for_long(prepared_url: str, clock: HeldClock) -> None:
    """It may be about each of them. One that waits for a moment, as all do, is left out; the gate says so at once."""
    with Watching(prepared_url, clock=clock) as watching:
        watching.start()
        before = affected(watching, "unknown")
        fault = watching.fault("status", "webhooks/*", status=500)
        clock.advance(1.0)
        watching.deliver(watching.broken(at_scan=True))
        watching.until(lambda: watching.count(EVENT) == 1 and watching.states() == ["retry"])
        watching.rest()
        assert affected(watching, "unknown") == before
        clock.advance(PATIENCE + 1.0)
        watching.until(lambda: affected(watching, "unknown") == 3, "the doubt")
        assert affected(watching, "none") == 0
        watching.simulator.faults.clear(fault)
        watching.store.run(lambda unit: deliveries.hasten(unit, "main"))
        watching.until(lambda: affected(watching, "unknown") == before, "the end of the doubt")


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
    found = watching.store.run(lambda unit: deliveries.get(unit.connection, delivery.id))
    assert found is not None
    assert found[1] == b'{"data":{"server":"web"}}'
    watching.until(lambda: "its body is kept in the inbox" in caplog.text)
    watching.store.run(lambda unit: deliveries.replay(unit, delivery.id, now=delivery.updated_at))
    watching.until(lambda: watching.count(EVENT) == 2 and watching.states() == ["dead"])


def test_a_delivery_that_meets_a_bug_burns_a_try_and_takes_effect_once_it_can(watching: Watching) -> None:
    """It neither holds a thread nor comes again at every lease, says what happened, and loses nothing."""
    watching.start()
    rules = watching.account.rules
    watching.account._rules = cast("Rules", None)  # noqa: SLF001  # the bug
    watching.deliver(watching.broken())
    watching.until(lambda: watching.states() == ["retry"])
    (delivery,) = watching.inbox()
    assert delivery.attempts == 1
    assert "bug: AttributeError" in (delivery.last_error or "")
    watching.account._rules = rules  # noqa: SLF001  # and its end
    watching.until(lambda: watching.states() == ["applied"])


def test_a_claim_whose_commit_was_not_heard_holds_nothing_up(watching: Watching) -> None:
    """Nobody has such a delivery in hand: it is due as soon as the state is read again, and not when its claim ends."""
    watching.start()
    watching.fault("status", "webhooks/*", status=503)
    watching.deliver(watching.broken())
    watching.until(lambda: watching.states() == ["retry"])

    def claim(unit: Unit) -> None:
        unit.connection.execute(inbox.update().values(state="fetching", claim="unheard", lease_until=time.time() + 300))
        # The next transaction finds that there was one more than it knows of.
        unit.connection.execute(leases.update().values(version=leases.c.version + 1))

    watching.simulator.faults.clear()
    watching.store.run(claim)
    watching.until(lambda: watching.states() == ["applied"])


class FailingResults(Store):
    """A store that takes deliveries and claims, but for a while not what came of an event."""

    failing = 0

    def run(self, work: Callable[[Unit], T], *accounts: str) -> T:
        """As the store does it, unless an event's result is to be kept."""
        if type(self).failing and not work.__qualname__.startswith(("InboxDispatcher.", "Watching.")):
            type(self).failing -= 1
            raise StoreUnavailable("The database does not answer")
        return super().run(work, *accounts)


def test_what_the_database_did_not_keep_is_fetched_again_soon(prepared_url: str, clock: HeldClock) -> None:
    """Not only when its claim runs out, after minutes; and later each time that the database fails again."""
    with Watching(prepared_url, store=FailingResults, clock=clock) as watching:
        watching.start()
        watching.rest()
        event = watching.broken()
        FailingResults.failing = 2
        watching.deliver(event)
        watching.until(lambda: watching.count(EVENT) == 1 and FailingResults.failing == 1)
        watching.tick_for(0.3)
        assert watching.states() == ["fetching"]
        assert watching.count(EVENT) == 1
        clock.advance(2.0)
        watching.until(lambda: watching.count(EVENT) == 2 and not FailingResults.failing)
        assert watching.states() == ["fetching"]
        clock.advance(4.0)
        watching.until(lambda: watching.states() == ["applied"])
        assert watching.count(EVENT) == 3


def test_what_waits_for_a_removed_account_is_set_aside_until_it_is_back(
    watching: Watching, caplog: pytest.LogCaptureFixture
) -> None:
    """A reload without the account frees the inbox of its deliveries; one with it lets them take effect."""
    config = watching.start()
    watching.fault("status", "webhooks/*/events/*", status=503)
    watching.deliver(watching.broken())
    watching.until(lambda: watching.states() == ["retry"])
    other = replace(config, accounts=(replace(config.accounts[0], name="other"),))
    watching.accounts.reload(other, config)
    assert watching.states() == ["expired"]
    assert "were set aside" in caplog.text
    watching.simulator.faults.clear()
    watching.accounts.reload(config, other)
    watching.until(lambda: watching.states() == ["applied"])


def test_incomplete_polls_after_an_event_are_no_storm(prepared_url: str, clock: HeldClock) -> None:
    """A server with an entry that cannot be read is polled twice after an event, and then in its turn."""
    with Watching(prepared_url, clock=clock) as watching:
        watching.start(settle=120.0)
        world = watching.simulator.world
        server = world.server(world.demo, 1)
        odd, *others = world.installed(server)
        world.install(server, [structs.replace(odd, overrides={"canonical_name": [], "name": []}), *others])
        clock.advance(1.0)
        watching.deliver(watching.broken())
        watching.until(lambda: watching.count(SOFTWARE) >= 4, "the poll that confirms")
        watching.rest()
        clock.advance(120.0)
        watching.until(lambda: watching.count(SOFTWARE) >= 5, "the poll after settle")
        for _ in range(3):
            clock.advance(30.0)
            watching.rest()
        assert watching.count(SOFTWARE) == 5


def test_a_forbidden_event_is_unverified_while_the_list_works(watching: Watching) -> None:
    """Somebody else's event is like one that does not exist; our credentials are not to blame."""
    watching.start()
    watching.fault("status", "webhooks/*", status=403)
    watching.deliver(watching.broken())
    watching.until(lambda: watching.states() == ["unverified"])
    assert watching.inbox()[0].attempts == 1
    assert watching.accounts.statuses()[0].trouble is None


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
    assert watching.accounts.statuses()[0].trouble is None


def test_forbidden_ids_use_up_no_budget(prepared_url: str) -> None:
    """When no call is left, a refused event waits for the next list."""
    with Watching(prepared_url) as watching:
        watching.start(poll=replace(QUICK, max_requests_per_minute=60))
        watching.fault("status", "webhooks/*", status=403)
        while watching.account.budgets.polls.try_take():
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
    """Without isScanning (404) a scan that was seen no longer shows, and the end that was told of it counts."""
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
