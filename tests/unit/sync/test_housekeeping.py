from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING

import pytest
from tests.unit.issues.builders import exploitable, outdated
from tests.unit.sync.accounts import MAIN, SETTLE, configured, take_planned
from tests.unit.sync.driving import Driver

from patrolserver_exporter.clock import SteadyClock
from patrolserver_exporter.config.schema import Issues, Metrics
from patrolserver_exporter.inbox.deliveries import DeliveryState, NewDelivery
from patrolserver_exporter.inbox.intake import BoundedInbox
from patrolserver_exporter.issues.model import Waiver
from patrolserver_exporter.live.effects import InboxMoved
from patrolserver_exporter.live.own_metrics import Telemetry
from patrolserver_exporter.store import Store, StoreUnavailable, replicas
from patrolserver_exporter.store.history import request_catch_up
from patrolserver_exporter.store.tables import inbox, servers
from patrolserver_exporter.sync import account_updates, restore
from patrolserver_exporter.sync.account import RunningAccount
from patrolserver_exporter.sync.housekeeping import Housekeeping, Unheard
from patrolserver_exporter.sync.poller import AccountPoller
from patrolserver_exporter.sync.rules import Rules
from patrolserver_exporter.sync.threads import CallThreads

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from concurrent.futures import Future

    from tests.harness.ticking import HeldClock

    from patrolserver_exporter.config.schema import Config

DAY = 86_400.0


class Keeping:
    """Housekeeping on a store, ticked by hand; the poller makes no calls, as nobody pumps it."""

    def __init__(self, store: Store, clock: HeldClock, config: Config) -> None:
        self.store, self.clock = store, clock
        telemetry = Telemetry(version="0", revision="0", process_metrics=False)
        self.account = RunningAccount(config, config.accounts[0], clock=clock, observer=lambda _: None)
        self.poller = AccountPoller(self.account, CallThreads().of(MAIN, 10), store, SteadyClock(clock), telemetry)
        self.driver = Driver(store, clock, Rules.of(config, config.accounts[0]))
        self.housekeeping = Housekeeping(store, telemetry, clock)
        self.housekeeping.configure(config, {MAIN: self.driver.rules})

    def tick(self) -> None:
        """One tick, and what it submitted, in two steps at most."""
        self.housekeeping.tick(lambda: [self.account])
        for _ in range(2):
            self.store.run(lambda _: None)


def waiving(clock: HeldClock, days: int = 0) -> Config:
    until = dt.datetime.fromtimestamp(clock.now(), dt.UTC).date() + dt.timedelta(days=days)
    return configured(
        issues=Issues(settle=SETTLE, waivers=(Waiver(server="*", software="*", until=until, reason="r"),))
    )


@pytest.fixture
def keeping(store: Store, clock: HeldClock) -> Iterator[Keeping]:
    made = Keeping(store, clock, waiving(clock))
    made.driver.take_list("web", "db")
    made.account.set_servers([1, 2])
    yield made
    made.poller.begin_stop()


@pytest.mark.slow
def test_what_other_rules_judged_is_judged_anew_batch_by_batch(keeping: Keeping, clock: HeldClock) -> None:
    """One batch a tick, so that the store can do other things between."""
    driver, others = keeping.driver, 2 * restore.RECLASSIFIED_AT_ONCE
    driver.take_list(*(f"s{number}" for number in range(others)))
    for server_id in range(1, others + 1):
        driver.poll(outdated("php"), server_id=server_id)
    config = configured(metrics=Metrics(software=False), issues=waiving(clock).issues)
    keys = tuple((MAIN, server_id) for server_id in range(1, others + 1))
    keeping.housekeeping.configure(config, {MAIN: Rules.of(config, config.accounts[0])}, keys)

    def left() -> int:
        return sum(bool(driver.server(server_id).summary.software_info) for _, server_id in keys)

    for expected in (restore.RECLASSIFIED_AT_ONCE, 0):
        keeping.tick()
        assert left() == expected
    clock.advance(1.0)
    keeping.tick()
    assert left() == 0


def test_a_sweep_of_waivers_leaves_what_is_stale_to_be_judged(keeping: Keeping) -> None:
    """It counts again without classifying, so the exploits below the old threshold still wait for their issues."""
    driver = keeping.driver
    driver.poll(outdated("php"), exploitable("ssh", risk=4.5))
    keeping.tick()
    config = configured(issues=Issues(settle=SETTLE, exploit_risk=4.0))
    driver.rules = Rules.of(config, config.accounts[0])
    assert driver.sweep() == 1
    keeping.housekeeping.configure(config, {MAIN: driver.rules}, ((MAIN, 1),))
    keeping.tick()
    assert driver.open_names() == ["php", "ssh"]
    assert driver.server().summary.open_issues == (0, 0, 2, 0)


def test_waivers_are_looked_at_batch_by_batch(keeping: Keeping) -> None:
    """One batch a tick, in every account; the last one is not left out."""
    driver, last = keeping.driver, account_updates.SWEPT_AT_ONCE + 1
    driver.take_list(*(f"s{number}" for number in range(last)))
    config = configured()
    driver.rules = Rules.of(config, config.accounts[0])
    for server_id in (1, last):
        driver.poll(outdated("php"), server_id=server_id)
    for waived in ((1, 0), (1, 1)):
        keeping.tick()
        assert (driver.server(1).summary.waived_issues, driver.server(last).summary.waived_issues) == waived


def test_waivers_end_with_the_first_tick_of_the_day(keeping: Keeping) -> None:
    """In UTC, and without anything else happening."""
    keeping.driver.poll(outdated("php"))
    keeping.tick()
    assert keeping.driver.server().summary.waived_issues == 1
    midnight = (keeping.clock.now() // DAY + 1) * DAY
    keeping.clock.advance(midnight - keeping.clock.now() - 0.001)
    keeping.tick()
    assert keeping.driver.server().summary.waived_issues == 1
    keeping.clock.advance(0.001)
    keeping.tick()
    assert keeping.driver.server().summary.waived_issues == 0


class RefusingStore(Store):
    """A store that cannot write for a while."""

    refuses = False

    def submit(self, work: Callable[..., object], *accounts: str) -> Future[object]:  # type: ignore[override]
        """As the store does it, or refused."""

        def refused(_: object) -> object:
            raise StoreUnavailable("full")

        return super().submit(refused if self.refuses else work, *accounts)


def test_a_sweep_that_fails_is_made_up_for(prepared_url: str, clock: HeldClock) -> None:
    """A store that cannot write at midnight does not keep a waiver alive for another day."""
    with RefusingStore(prepared_url) as store:
        keeping = Keeping(store, clock, waiving(clock, days=-1))
        keeping.driver.take_list("web")
        waived = Driver(store, clock, Rules.of(waiving(clock), waiving(clock).accounts[0]))
        waived.poll(outdated("php"))
        assert keeping.driver.server().summary.waived_issues == 1
        store.refuses = True
        keeping.tick()
        store.refuses = False
        clock.advance(15.0)
        keeping.tick()
        keeping.tick()
        assert keeping.driver.server().summary.waived_issues == 0
        keeping.poller.begin_stop()


def test_a_catch_up_polls_the_fleet_once_an_interval_and_ends(keeping: Keeping) -> None:
    """Deliveries that did not fit make every server due soon, not again and again; polls end it."""
    clock, driver = keeping.clock, keeping.driver
    driver.poll()
    driver.poll(server_id=2)
    keeping.tick()
    assert take_planned(keeping.account, clock) == {}
    clock.advance(11.0)
    keeping.store.run(lambda unit: request_catch_up(unit.connection, MAIN, clock.now()))
    keeping.tick()
    planned = take_planned(keeping.account, clock)
    assert list(planned) == [1, 2]
    assert max(planned.values()) < 60.0
    clock.advance(11.0)
    keeping.tick()
    assert take_planned(keeping.account, clock) == {}
    driver.poll()
    driver.poll(server_id=2)
    clock.advance(11.0)
    keeping.tick()
    assert driver.account_record().catch_up_since is None


def test_a_catch_up_that_fails_is_told_and_goes_on(keeping: Keeping, caplog: pytest.LogCaptureFixture) -> None:
    """A damaged row of one server keeps the doubt about its account, and the log says why."""
    keeping.tick()
    keeping.store.run(lambda unit: request_catch_up(unit.connection, MAIN, keeping.clock.now()))
    keeping.store.run(lambda unit: unit.connection.execute(servers.update().values(state=b"{damaged")))
    keeping.clock.advance(60.0)
    keeping.tick()
    assert "Housekeeping failed and will be tried again" in caplog.text
    assert keeping.driver.account_record().catch_up_since is not None


def test_old_rows_go_in_time(keeping: Keeping) -> None:
    """What is over the retention is purged by a tick, and not by each."""
    keeping.driver.poll(outdated("php"))
    keeping.clock.advance(1.0)
    keeping.driver.poll()
    keeping.tick()
    keeping.clock.advance(91 * DAY)
    keeping.tick()
    keeping.store.run(lambda _: None)
    assert keeping.driver.issues() == ()


def test_more_than_a_purge_takes_at_once_goes_soon(keeping: Keeping, effects: list[object]) -> None:
    """A purge that took all it may goes on, and the inbox is counted again; else it would grow for ever."""
    store, clock = keeping.store, keeping.clock
    door = BoundedInbox(10_000)
    new = [NewDelivery(MAIN, 1, n, "webhook.test", clock.now()) for n in range(1, 2_501)]
    store.run(lambda unit: door.accept(unit, new))
    store.run(lambda unit: unit.connection.execute(inbox.update().values(state=DeliveryState.APPLIED)))
    keeping.tick()
    clock.advance(91 * DAY)
    for left in (1500, 500, 0):
        effects.clear()
        keeping.tick()
        store.run(lambda _: None)
        assert InboxMoved() in effects
        assert len(keeping.driver.inbox()) == left
        clock.advance(1.0)


def test_an_event_that_the_api_does_not_know_is_made_up_for_by_polls(keeping: Keeping) -> None:
    """They start ``settle`` after its reception, since the API's lists may be late, too; until then it is in doubt."""
    driver, clock = keeping.driver, keeping.clock
    driver.poll()
    driver.poll(server_id=2)
    driver.not_found(driver.deliver())
    due = clock.now() + driver.rules.settle
    assert driver.account_record().catch_up_since == due
    keeping.tick()
    assert take_planned(keeping.account, clock) == {}
    clock.advance(driver.rules.settle)
    keeping.tick()
    assert list(take_planned(keeping.account, clock)) == [1, 2]


def test_a_test_that_the_api_does_not_know_leaves_no_doubt(keeping: Keeping) -> None:
    """It tells of nothing, so nothing has to be made up for."""
    driver = keeping.driver
    driver.not_found(driver.deliver("webhook.test"))
    assert driver.account_record().catch_up_since is None


def test_what_came_in_for_a_removed_account_is_set_aside(keeping: Keeping) -> None:
    """A delivery that slipped in during the reload neither waits for ever nor fills the inbox."""
    stray = NewDelivery("removed", 1, 1, "webhook.test", keeping.clock.now())
    keeping.store.run(lambda unit: BoundedInbox(10).accept(unit, [stray]))
    keeping.driver.deliver()
    keeping.tick()
    assert keeping.driver.inbox() == ["expired", "fetching"]


def test_an_account_is_not_unused_because_nobody_could_tell_of_it() -> None:
    """After an outage, or a gap between looks, its ten minutes begin again; one that is told of has none."""
    unheard = Unheard()
    long = replicas.KEPT_CONFIGURED - replicas.UNHEARD_AFTER
    assert unheard.look(["a", "b"], 1000.0) == []
    for at in range(1060, 1000 + int(long), 60):
        assert unheard.look(["a", "b"], float(at)) == []
    assert unheard.look(["b"], 1000.0 + long) == ["b"]
    unheard.begin_again()
    assert unheard.look(["a", "b"], 1060.0 + long) == []
    later = 1060.0 + long + 600.0
    assert unheard.look(["a", "b"], later) == []
    assert unheard.look(["a", "b"], later + 60.0) == []
