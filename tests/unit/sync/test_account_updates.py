from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING

import pytest
from tests.unit.issues.builders import outdated
from tests.unit.sync.accounts import SETTLE, rules
from tests.unit.sync.driving import Driver

from patrolserver_exporter.config.schema import Issues, ServerFilter
from patrolserver_exporter.issues.model import Waiver
from patrolserver_exporter.live.effects import AccountShown, ServerGone, ServerShown
from patrolserver_exporter.patrolserver.models import Server
from patrolserver_exporter.store import Store, fleet
from patrolserver_exporter.store.history import request_catch_up
from patrolserver_exporter.sync import account_updates

if TYPE_CHECKING:
    from tests.harness.ticking import HeldClock

DAY = 86_400.0


@pytest.fixture
def driver(store: Store, clock: HeldClock) -> Driver:
    return Driver(store, clock)


def waiving(store: Store, clock: HeldClock, *, days: int) -> Driver:
    until = dt.datetime.fromtimestamp(clock.now(), dt.UTC).date() + dt.timedelta(days=days)
    waiver = Waiver(server="*", software="php", until=until, reason="soon")
    return Driver(store, clock, rules(issues=Issues(settle=SETTLE, waivers=(waiver,))))


def test_servers_come_go_and_come_back(driver: Driver, clock: HeldClock, effects: list[object]) -> None:
    """A new server is shown, a missing one ends, one that comes back has its old data with its old age."""
    assert driver.take_list("a", "b") == account_updates.Listed(added=(1, 2))
    driver.poll(outdated("php"), server_id=2)
    polled_at = clock.now()
    clock.advance(100.0)
    effects.clear()
    assert driver.take_list("a") == account_updates.Listed(gone=(2,))
    assert ServerGone("main", 2) in effects
    assert driver.server(2).gone_at == clock.now()
    assert driver.take_list("a") == account_updates.Listed()
    clock.advance(100.0)
    effects.clear()
    assert driver.take_list("a", "b") == account_updates.Listed(added=(2,))
    shown = [effect.summary for effect in effects if isinstance(effect, ServerShown)]
    assert [(summary.server_id, summary.last_poll_at) for summary in shown] == [(2, polled_at)]
    assert driver.open_names(2) == ["php"]


def test_what_a_lost_answer_of_the_store_left_out_is_made_up_for(
    driver: Driver, clock: HeldClock, effects: list[object]
) -> None:
    """A list that was kept although the store's answer was lost: its servers are polled and shown with the next one."""

    def again(*names: str, watched: tuple[int, ...]) -> account_updates.Listed:
        servers = [Server(id=n, name=name, verified=True) for n, name in enumerate(names, 1) if name]
        return driver.store.run(
            lambda unit: account_updates.apply_list(
                unit, "main", servers, complete=True, now=clock.now(), rules=driver.rules, watched=watched
            )
        )

    driver.take_list("a", "b")
    driver.take_list("a", "", "c")
    effects.clear()
    assert again("a", "", "c", watched=(1, 2)) == account_updates.Listed(added=(3,), gone=(2,))
    assert ServerGone("main", 2) in effects
    assert [effect.summary.server_id for effect in effects if isinstance(effect, ServerShown)] == [3]
    effects.clear()
    assert again("a", "", "c", watched=(1, 3)) == account_updates.Listed()
    assert [type(effect) for effect in effects] == [AccountShown]


def test_a_server_that_is_renamed_gets_the_waivers_of_its_new_name(driver: Driver, clock: HeldClock) -> None:
    """From the list on that tells the name, and not only from its next poll on; the feed tells it."""
    until = dt.datetime.fromtimestamp(clock.now(), dt.UTC).date()
    waiver = Waiver(server="*.staging", software="php", until=until, reason="soon")
    driver = Driver(driver.store, clock, rules(issues=Issues(settle=SETTLE, waivers=(waiver,))))
    driver.take_list("a.staging")
    driver.poll(outdated("php"))
    assert driver.server().summary.waived_issues == 1
    assert driver.take_list("a.production") == account_updates.Listed(renamed=(1,))
    assert [issue.waived for issue in driver.issues()] == [False]
    driver.take_list("a.staging")
    assert [issue.waived for issue in driver.issues()] == [True]
    assert [change.kind.value for change in driver.changes()] == ["opened", "waived", "unwaived", "waived"]


def test_a_list_that_changes_nothing_shows_only_that_the_account_is_up(
    driver: Driver, clock: HeldClock, effects: list[object]
) -> None:
    """Unchanged servers are neither written nor shown."""
    driver.take_list("a", "b")
    effects.clear()
    clock.advance(60.0)
    driver.take_list("a", "b")
    (effect,) = effects
    assert isinstance(effect, AccountShown)
    assert (effect.record.up, effect.record.last_success_at, effect.servers) == (True, clock.now(), None)


def test_a_list_with_unreadable_entries_removes_nothing(driver: Driver) -> None:
    """What is missing may be what could not be read."""
    driver.take_list("a", "b")
    assert driver.take_list("a", complete=False) == account_updates.Listed()
    assert driver.take_list("a") == account_updates.Listed(gone=(2,))


def test_only_chosen_servers_are_watched(store: Store, clock: HeldClock) -> None:
    """Globs that no longer choose a server end its series, even by an incomplete list."""
    Driver(store, clock).take_list("web", "lab")
    driver = Driver(store, clock, rules(servers=ServerFilter(exclude=("lab*",))))
    assert driver.take_list("web", "lab", complete=False) == account_updates.Listed(gone=(2,))
    assert driver.take_list("web", "lab") == account_updates.Listed()


def test_a_renamed_server_keeps_its_issues(driver: Driver) -> None:
    """The id is what a server is; the name is shown again."""
    driver.take_list("old")
    driver.poll(outdated("php"))
    driver.take_list("new")
    record = driver.server()
    assert (record.name, record.summary.name, driver.open_names()) == ("new", "new", ["php"])


def test_an_account_that_fails_keeps_its_last_success(driver: Driver, clock: HeldClock) -> None:
    """Up turns, the time of the last success stays."""
    driver.take_list("a")
    at = clock.now()
    clock.advance(60.0)
    driver.store.run(lambda unit: account_updates.save_reachability(unit, "main", up=False, now=clock.now()))
    record = driver.account_record()
    assert (record.up, record.last_success_at) == (False, at)


def test_waivers_begin_and_end_at_the_day(store: Store, clock: HeldClock) -> None:
    """A waiver that is new holds from the next sweep on, and ends after its last day in UTC."""
    plain = Driver(store, clock)
    plain.take_list("a")
    plain.poll(outdated("php"))
    driver = waiving(store, clock, days=1)
    assert (driver.sweep(), driver.sweep()) == (1, 0)
    assert driver.server().summary.waived_issues == 1
    midnight = (clock.now() // DAY + 2) * DAY
    clock.set(midnight - 0.001)
    assert driver.sweep() == 0
    clock.set(midnight)
    assert driver.sweep() == 1
    assert driver.told() == [("opened", "php"), ("waived", "php"), ("unwaived", "php")]
    assert driver.server().summary.open_issues == (0, 0, 1, 0)


def test_a_gone_server_is_not_swept_and_told_of_when_it_is_back(store: Store, clock: HeldClock) -> None:
    """A waiver that begins while a server is gone shows, in the feed too, with its first poll."""
    plain = Driver(store, clock)
    plain.take_list("a")
    plain.poll(outdated("php"))
    plain.take_list()
    clock.advance(SETTLE)
    plain.take_list()
    driver = waiving(store, clock, days=1)
    assert driver.sweep() == 0
    driver.take_list("a")
    clock.advance(1.0)
    driver.poll(outdated("php"))
    assert driver.told() == [("opened", "php"), ("waived", "php")]


def finish(driver: Driver) -> bool:
    return driver.store.run(lambda unit: account_updates.finish_catch_up(unit, "main"))


def overflow(driver: Driver) -> None:
    driver.store.run(lambda unit: request_catch_up(unit.connection, "main", driver.clock.now()))


def test_a_catch_up_ends_when_every_server_was_polled_since(driver: Driver, clock: HeldClock) -> None:
    """Not sooner; and each delivery that did not fit counts, the newest too."""
    driver.take_list("a", "b")
    driver.poll(server_id=1)
    driver.poll(server_id=2)
    assert finish(driver)
    clock.advance(10.0)
    overflow(driver)
    clock.advance(10.0)
    driver.poll(server_id=1)
    assert not finish(driver)
    clock.advance(10.0)
    overflow(driver)
    driver.clock.advance(1.0)
    driver.poll(server_id=2)
    assert not finish(driver)
    driver.poll(server_id=1)
    assert finish(driver)
    assert driver.account_record().catch_up_since is None
    assert driver.account_record().up is True


def test_a_server_that_cannot_be_polled_does_not_hold_up_a_catch_up(driver: Driver, clock: HeldClock) -> None:
    """One that fails, was never polled, or has entries that cannot be read, carries the doubt by itself."""
    driver.take_list("a", "b", "c")
    driver.poll(server_id=1)
    driver.poll(server_id=2, complete=False)
    clock.advance(10.0)
    overflow(driver)
    clock.advance(10.0)
    driver.fail(server_id=1)
    assert not finish(driver)
    driver.poll(server_id=2, complete=False)
    assert finish(driver)


def test_a_server_that_a_catch_up_passed_over_keeps_the_doubt(driver: Driver, clock: HeldClock) -> None:
    """The gate waits for its next complete poll, as for an event of its own; polled ones are free of it."""
    driver.take_list("a", "b")
    driver.poll(server_id=1)
    driver.poll(server_id=2)
    clock.advance(10.0)
    overflow(driver)
    since = clock.now()
    clock.advance(10.0)
    driver.fail(server_id=1)
    driver.poll(server_id=2)
    assert finish(driver)
    assert driver.server(1).state.event_received_at == since
    assert driver.server(2).state.event_received_at is None
    clock.advance(10.0)
    driver.poll(server_id=1)
    assert driver.server(1).state.event_received_at is None


def test_an_unknown_account_needs_no_catch_up(driver: Driver) -> None:
    """Nothing is flagged where nothing is."""
    assert finish(driver)
    assert driver.store.run(lambda unit: fleet.account_records(unit.connection)) == {}
