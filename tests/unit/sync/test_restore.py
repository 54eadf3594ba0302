from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from tests.unit.issues.builders import exploitable, outdated, reported, software
from tests.unit.sync.accounts import SETTLE, configured, rules
from tests.unit.sync.driving import FINISHED, Driver

from patrolserver_exporter.config.schema import Issues, Metrics, ServerFilter
from patrolserver_exporter.issues.summary import cut_label
from patrolserver_exporter.live.effects import FleetRestored, ServerGone, ServerShown
from patrolserver_exporter.store import Store, fleet
from patrolserver_exporter.store.history import request_catch_up
from patrolserver_exporter.sync import restore
from patrolserver_exporter.sync.clock_steps import follow_clock

if TYPE_CHECKING:
    from tests.harness.ticking import HeldClock

DAY = 86_400.0


@pytest.fixture
def driver(store: Store, clock: HeldClock) -> Driver:
    made = Driver(store, clock)
    made.take_list("web", "db")
    clock.advance(1.0)
    return made


def start(driver: Driver, *accounts: str) -> restore.Restored:
    """As at a start with these accounts configured."""
    of = dict.fromkeys(accounts or ("main",), driver.rules)
    metrics = configured().metrics
    return driver.store.run(lambda unit: restore.restore(unit, of, metrics, now=driver.clock.now()))


def set_clock(driver: Driver, step: float) -> None:
    """The clock is set, and the service notices."""
    driver.clock.set(driver.clock.now() + step)
    now, of = driver.clock.now(), {"main": driver.rules}
    driver.store.run(lambda unit: follow_clock(unit, step, now=now, rules=of))


def test_everything_is_shown_as_it_was(driver: Driver, clock: HeldClock, effects: list[object]) -> None:
    """A restart shows the same servers, counters and ages; nothing seems fresher."""
    driver.poll(outdated("php"))
    before = driver.server().summary
    clock.advance(5000.0)
    effects.clear()
    restored = start(driver)
    assert [record.server_id for record in restored.servers["main"]] == [1, 2]
    (effect,) = [effect for effect in effects if isinstance(effect, FleetRestored)]
    assert next(iter(effect.summaries)) == before
    assert [(record.name, servers) for record, servers in effect.accounts] == [("main", 2)]
    assert sum(tally.opened for tally in effect.tallies) == 1


def test_what_another_api_told_is_in_doubt_until_a_whole_poll(driver: Driver, clock: HeldClock) -> None:
    """After a start or a reload with another ``api_url``, ids and names are the same, and the servers may be others."""
    driver.poll(outdated("php"))
    driver.check(running=True)
    driver.check(running=False)
    moved = replace(driver.rules, source="another")
    before, driver.rules = driver.rules, moved
    clock.advance(5.0)
    planned = start(driver).servers["main"]
    assert [one.state.in_doubt_since for one in planned] == [clock.now()] * 2
    record = driver.server()
    assert (record.summary.open_issues, record.state.last_scan_at) == (None, None)
    assert driver.account_record().state.list_complete is False
    clock.advance(5.0)
    driver.take_list("web", "db")
    driver.poll()
    since = driver.server(2).state.in_doubt_since
    for _ in range(2):
        clock.advance(5.0)
        start(driver)
    assert driver.account_record().state.list_complete is True
    assert (driver.server(1).state.in_doubt_since, driver.server(2).state.in_doubt_since) == (None, since)
    driver.rules = before
    start(driver)
    assert driver.server().state.in_doubt_since == clock.now()


def test_a_list_that_was_read_with_another_key_may_be_of_another_account(driver: Driver) -> None:
    """Nobody has read which servers the new key's account has; the next list tells, and those it has stay known."""
    driver.poll()
    assert start(driver).accounts["main"].state.list_complete is True
    before = driver.rules
    driver.rules = replace(before, key="another")
    for _ in range(2):
        state = start(driver).accounts["main"].state
        assert state.list_complete is False
        assert state.list_partial_because == ("the account's key has changed since it was read",)
        # Until then the gate doubts the servers, too.
        assert driver.account_record().is_of_another_key("another")
    assert driver.server().state.in_doubt_since is None
    driver.take_list("db", because="total says 14")
    assert driver.account_record().is_of_another_key("another"), "a part may lack servers of the other account"
    driver.take_list("web", "db")
    assert not driver.account_record().is_of_another_key("another")
    assert start(driver).accounts["main"].state.list_complete is True
    driver.rules = before
    assert start(driver).accounts["main"].state.list_complete is False


def test_a_state_from_before_keys_were_noted_is_not_doubted(driver: Driver) -> None:
    """An upgrade alone makes nothing unknown."""
    driver.rules = replace(driver.rules, key=None)
    driver.take_list("web", "db")
    driver.rules = replace(driver.rules, key="some")
    assert start(driver).accounts["main"].state.list_complete is True


def test_an_account_that_is_no_longer_configured_ends_and_may_come_back(
    driver: Driver, clock: HeldClock, effects: list[object]
) -> None:
    """Its servers are gone and its row too; configured again, its first list brings back what is known of them."""
    driver.poll(outdated("php"))
    polled_at = clock.now()
    clock.advance(100.0)
    effects.clear()
    start(driver, "other")
    assert {effect.server_id for effect in effects if isinstance(effect, ServerGone)} == {1, 2}
    assert "main" not in driver.store.run(lambda unit: fleet.account_records(unit.connection))
    restored = start(driver, "main", "other")
    assert restored.servers == {"main": [], "other": []}
    assert driver.take_list("web", "db").added == (1, 2)
    assert driver.server().state.last_poll_at == polled_at
    clock.advance(1.0)
    driver.poll(outdated("php"))
    assert driver.told() == [("opened", "php")]
    assert driver.tally() == (1, 0)


@pytest.mark.slow
def test_a_large_fleet_is_judged_in_batches(driver: Driver, clock: HeldClock, effects: list[object]) -> None:
    """The first servers at once, the others when asked for; none twice, and none of which nothing is known."""
    driver.take_list(*(f"s{number}" for number in range(restore.RECLASSIFIED_AT_ONCE + 3)))
    for server_id in range(1, restore.RECLASSIFIED_AT_ONCE + 3):
        driver.poll(outdated("php"), server_id=server_id)
    driver.rules = rules(metrics=Metrics(software=False))
    restored = start(driver)
    assert driver.server().summary.software_info == ()
    left = (restore.RECLASSIFIED_AT_ONCE + 1, restore.RECLASSIFIED_AT_ONCE + 2)
    assert restored.stale == tuple(("main", server_id) for server_id in left)
    clock.advance(1.0)
    driver.poll(outdated("php"), server_id=left[0])
    effects.clear()
    for _ in range(2):
        driver.store.run(lambda unit: restore.reclassify(unit, restored.stale, {"main": driver.rules}, now=clock.now()))
    assert [effect.summary.server_id for effect in effects if isinstance(effect, ServerShown)] == [left[1]]
    assert driver.server(left[1]).summary.software_info == ()
    assert start(driver).stale == ()


@pytest.mark.parametrize(
    ("metrics", "shown"),
    [
        (Metrics(software=False), []),
        (Metrics(software_limit_per_server=1), ["a" * 40]),
        (Metrics(max_label_length=16), [cut_label("a" * 40, 16), "php"]),
    ],
    ids=["off", "limit", "length"],
)
def test_a_restart_shows_software_by_the_settings_in_force(
    driver: Driver, effects: list[object], metrics: Metrics, shown: list[str]
) -> None:
    """Settings that were changed while the exporter was down hold at once, not from the next poll on."""
    driver.poll(outdated("php"), outdated("a" * 40))
    effects.clear()
    driver.rules = rules(metrics=metrics)
    start(driver)
    (effect,) = [effect for effect in effects if isinstance(effect, FleetRestored)]
    assert [info.software for info in next(iter(effect.summaries)).software_info] == shown
    assert next(iter(effect.summaries)).open_issues == (0, 0, 2, 0)
    assert next(iter(effect.summaries)) == driver.server().summary


def test_a_restart_judges_by_the_exploit_risk_in_force(driver: Driver, clock: HeldClock, effects: list[object]) -> None:
    """What the last poll found opens as of that poll; what no longer counts stays open until a poll can say so."""
    driver.poll(exploitable("php", risk=4.5), exploitable("ssh", risk=8.0))
    polled_at = clock.now()
    assert driver.open_names() == ["ssh"]
    clock.advance(100.0)
    driver.rules = rules(issues=Issues(exploit_risk=4.0, settle=SETTLE))
    for _ in range(2):
        effects.clear()
        start(driver)
        (effect,) = [effect for effect in effects if isinstance(effect, FleetRestored)]
        assert next(iter(effect.summaries)).exploits == 2
        assert next(iter(effect.summaries)).open_issues == (0, 1, 1, 0)
        assert next(iter(effect.summaries)).oldest_issue == (None, polled_at, polled_at, None)
        assert next(iter(effect.summaries)).last_poll_at == polled_at
        assert sum(tally.opened for tally in effect.tallies) == 2
    assert driver.told() == [("opened", "ssh"), ("opened", "php")]
    driver.rules = rules(issues=Issues(exploit_risk=9.0, settle=SETTLE))
    start(driver)
    assert driver.server().summary.exploits == 0
    assert driver.open_names() == ["php", "ssh"]
    driver.poll(exploitable("php", risk=4.5), exploitable("ssh", risk=8.0))
    assert driver.open_names() == []


@pytest.mark.parametrize("noticed", [True, False])
def test_a_clock_that_is_set_back_stops_nothing(driver: Driver, clock: HeldClock, noticed: bool) -> None:  # noqa: FBT001  # by name
    """Data from the future is of unknown age until the next poll, which counts; issues close and come back."""
    driver.poll(outdated("php"), outdated("ssh"))
    clock.advance(60.0)
    driver.poll(outdated("php"), software("ssh"))
    driver.apply(driver.deliver(), reported("nginx"))
    driver.apply(driver.deliver(FINISHED))
    if noticed:
        set_clock(driver, -40 * DAY)
    else:
        clock.set(clock.now() - 40 * DAY)
        start(driver)
    state = driver.server().state
    assert (state.last_poll_at, state.complete_poll_at, state.poll_success) == (None, None, False)
    assert driver.server().summary.last_poll_at is None
    for issue in driver.issues():
        assert issue.first_seen <= issue.last_seen <= clock.now()
        assert (issue.fixed_at or 0.0) <= clock.now()
    clock.advance(1.0)
    driver.poll(software("php"), outdated("ssh"))
    assert driver.open_names() == ["nginx", "ssh"]
    driver.check(running=False)
    assert (driver.server().state.last_scan_at or 0.0) <= clock.now()
    clock.advance(SETTLE)
    driver.poll()
    assert driver.open_names() == []


def test_a_clock_that_is_set_back_twice_stops_nothing(driver: Driver, clock: HeldClock) -> None:
    """Even when no poll was made in between."""
    driver.poll(outdated("php"))
    set_clock(driver, -40 * DAY)
    clock.advance(1.0)
    set_clock(driver, -40 * DAY)
    (issue,) = driver.issues()
    assert issue.last_seen <= clock.now()
    clock.advance(1.0)
    driver.poll()
    assert driver.open_names() == []


def test_a_clock_that_is_set_forward_makes_data_old_and_nothing_else(driver: Driver, clock: HeldClock) -> None:
    """The age is what the clock says; waiting deliveries wait as long as before."""
    driver.poll(outdated("php"))
    polled_at = clock.now()
    set_clock(driver, 40 * DAY)
    assert driver.server().state.last_poll_at == polled_at
    assert driver.open_names() == ["php"]


def test_a_gone_server_and_its_account_are_not_left_in_the_future(driver: Driver, clock: HeldClock) -> None:
    """What ends or is flagged while the clock is wrong still ends, and is still caught up."""
    driver.poll(outdated("php"))
    driver.take_list("", "db")
    driver.store.run(lambda unit: request_catch_up(unit.connection, "main", clock.now()))
    set_clock(driver, -40 * DAY)
    record = driver.account_record()
    due = clock.now() + driver.rules.settle
    assert (record.catch_up_since, record.last_success_at, record.up) == (due, None, True)
    assert driver.server().gone_at == clock.now()
    clock.advance(1.0)
    driver.take_list("web", "db")
    driver.poll()
    assert driver.open_names() == []


def test_a_list_is_a_part_where_other_globs_chose_from_it(driver: Driver, clock: HeldClock) -> None:
    """A server that is watched from now on may be on it; the next list tells, and a restart before that does not."""
    driver.rules = rules(servers=ServerFilter(include=("web*",)))
    driver.take_list("web", "db")
    assert start(driver).accounts["main"].state.list_complete is True
    driver.rules = rules()
    for _ in range(2):
        state = start(driver).accounts["main"].state
        assert state.list_complete is False
        assert state.list_partial_because == ("the account's include and exclude lists have changed since it was read",)
        assert driver.account_record().state == state
    driver.take_list("web", "db")
    assert start(driver).accounts["main"].state.list_complete is True
