"""Server lists that say less than before: which servers end, and which are only unknown."""

from __future__ import annotations

import itertools
import shutil
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.harness.ticking import HeldClock
from tests.unit.issues.builders import BYSTANDER, exploited, outdated
from tests.unit.sync.accounts import SETTLE
from tests.unit.sync.driving import Driver

from patrolserver_exporter.live.effects import AccountShown, ServerGone
from patrolserver_exporter.patrolserver.models import Exploit, Server
from patrolserver_exporter.store import Store, fleet
from patrolserver_exporter.store.fleet import AccountState
from patrolserver_exporter.sync.account_updates import (
    LISTED_AT_ONCE,
    Listed,
    apply_list,
    apply_part,
    end_list,
    is_sudden,
    parts_of,
    plan_list,
)
from patrolserver_exporter.sync.clock_steps import follow_clock

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def driver(store: Store, clock: HeldClock) -> Driver:
    return Driver(store, clock)


def there(driver: Driver) -> list[int]:
    """The servers that are not gone."""
    records = driver.store.run(lambda unit: list(fleet.server_records(unit.connection, "main")))
    return [record.server_id for record in records]


def missing(driver: Driver) -> list[int]:
    """Those of them that the last list lacked."""
    return [i for i in there(driver) if driver.server(i).state.missing_since is not None]


def test_an_empty_list_ends_nothing_before_it_is_said_twice(
    driver: Driver, clock: HeldClock, effects: list[object]
) -> None:
    """The servers stay, marked as missing; a second empty list ends them, but not one that comes too soon."""
    driver.take_list("a", "b")
    effects.clear()
    assert driver.take_list() == Listed(missing=2, confirm_in=SETTLE)
    assert (there(driver), missing(driver)) == ([1, 2], [1, 2])
    assert driver.account_record().state.shrunk_since == clock.now()
    clock.advance(SETTLE - 1.0)
    assert driver.take_list() == Listed(missing=2, confirm_in=1.0)
    assert not [effect for effect in effects if isinstance(effect, ServerGone)]
    clock.advance(1.0)
    assert driver.take_list() == Listed(gone=(1, 2))
    expected = AccountState(
        list_complete=True, list_length=0, list_source=driver.rules.source, list_key=driver.rules.key
    )
    assert driver.account_record().state == expected


def test_a_list_that_lost_most_is_believed_when_another_one_says_the_same(driver: Driver, clock: HeldClock) -> None:
    """Who is back meanwhile is missing no more; who is missing only since the second list waits for another one."""
    driver.take_list("a", "b", "c", "d", "e")
    assert driver.take_list("a", "b").missing == 3
    clock.advance(SETTLE)
    assert driver.take_list("a", "", "c") == Listed(gone=(4, 5), missing=1, confirm_in=SETTLE)
    assert missing(driver) == [2]
    assert driver.take_list("a", "b", "c") == Listed()
    assert missing(driver) == []


def test_a_list_that_shrinks_little_by_little_is_believed_at_once(driver: Driver) -> None:
    """Half of four, or most of three: servers go, and nobody waits."""
    driver.take_list("a", "b", "c", "d")
    assert driver.take_list("a", "b") == Listed(gone=(3, 4))
    driver.take_list("a", "b", "c")
    assert driver.take_list("a") == Listed(gone=(2, 3))


def test_a_missing_server_that_is_back_keeps_all_it_had(driver: Driver) -> None:
    """It never went."""
    driver.take_list("a")
    driver.poll(outdated("php"))
    driver.take_list()
    assert driver.take_list("a") == Listed()
    assert (driver.open_names(), driver.server().summary.open_issues) == (["php"], (0, 0, 1, 0))
    assert driver.account_record().state.shrunk_since is None


def test_servers_that_the_globs_do_not_choose_are_no_reason_to_doubt_a_list(driver: Driver) -> None:
    """What a list is compared with is what it should have shown."""
    driver.take_list("a", "b", "c", "d")
    assert driver.take_list("a", "b", "", "").gone == (3, 4)


def test_a_clock_that_is_set_ahead_confirms_no_list(driver: Driver, clock: HeldClock) -> None:
    """The time between two lists is time that went by."""
    driver.take_list("a", "b")
    driver.take_list()
    clock.set(clock.now() + 3600.0)
    driver.store.run(lambda unit: follow_clock(unit, 3600.0, now=clock.now(), rules={"main": driver.rules}))
    assert driver.take_list() == Listed(missing=2, confirm_in=SETTLE)


def test_a_partial_list_is_remembered_with_its_reason(driver: Driver, effects: list[object]) -> None:
    """It ends nothing, confirms nothing, and whoever shows the account can tell; the next whole one forgets it."""
    driver.take_list("a", "b")
    effects.clear()
    assert driver.take_list("a", because="total says 14") == Listed()
    state = driver.account_record().state
    assert (state.list_complete, state.list_partial_because) == (False, ("total says 14",))
    assert [effect.record.state for effect in effects if isinstance(effect, AccountShown)] == [state]
    driver.take_list("a", "b")
    assert driver.account_record().state.list_complete is True


@pytest.mark.usefixtures("prepared_url")
def test_a_list_is_doubted_exactly_when_it_lost_too_much() -> None:
    """Empty although servers were there; or more than half gone of four or more, by number or by id."""
    for before, left, first, told in itertools.product(range(10), range(10), range(12), (True, False)):
        listed = [Server(id=i, name=f"s{i}") for i in range(first, first + left)]
        lacking = len(set(range(before)) - {server.id for server in listed})
        state = AccountState(list_length=before if told else None)
        lost_most = before >= 4 and (2 * lacking > before or (told and 2 * left < before))
        doubted = lacking > 0 and (left == 0 or lost_most)
        assert is_sudden(listed, state, lacking=lacking, there=before) is doubted


def test_a_server_that_comes_back_under_another_name_is_another_one(driver: Driver, clock: HeldClock) -> None:
    """It starts without software, numbers and issues, and its issues get fingerprints that were not there before."""
    driver.take_list("keep", "old")
    driver.poll(outdated("php"), server_id=2)
    (before,) = driver.issues(2)
    driver.take_list("keep")
    clock.advance(60.0)
    assert driver.take_list("keep", "new").added == (2,)
    record = driver.server(2)
    assert (driver.issues(2), record.summary.software, record.summary.open_issues) == ((), None, None)
    assert (record.state.last_poll_at, record.state.in_doubt_since) == (None, clock.now())
    assert driver.store.run(lambda unit: fleet.software_of(unit.connection, "main", 2)) is None
    driver.poll(outdated("php"), server_id=2)
    (after,) = driver.issues(2)
    assert after.first_seen == clock.now()
    assert after.fingerprint != before.fingerprint


def test_a_server_that_comes_back_under_its_name_keeps_all(driver: Driver, clock: HeldClock) -> None:
    """But it may be another one until it is polled. Other capitals are no other name."""
    driver.take_list("keep", "old")
    driver.poll(outdated("php"), server_id=2)
    polled_at = clock.now()
    driver.take_list("keep")
    clock.advance(60.0)
    driver.take_list("keep", "OLD")
    record = driver.server(2)
    assert (driver.open_names(2), record.summary.open_issues) == (["php"], (0, 0, 1, 0))
    assert (record.state.last_poll_at, record.state.in_doubt_since) == (polled_at, None)
    assert record.state.came_back_at == clock.now()
    assert record.summary.in_doubt
    assert driver.take_list("keep", "Old").renamed == (2,)
    assert driver.server(2).state.in_doubt_since is None
    driver.poll(outdated("php"), server_id=2, complete=False)
    assert driver.server(2).state.came_back_at is not None
    clock.advance(1.0)
    driver.poll(outdated("php"), server_id=2)
    assert driver.server(2).state.came_back_at is None


def test_a_server_that_comes_back_under_its_name_waits_for_a_poll(driver: Driver, clock: HeldClock) -> None:
    """What is known of it is from before it went; its numbers are shown, and only a later whole poll vouches for it."""
    driver.take_list("keep", "old")
    driver.poll(server_id=2)
    driver.take_list("keep")
    clock.advance(60.0)
    driver.take_list("keep", "old")
    came_at = clock.now()
    driver.take_list("keep", "old")
    driver.poll(server_id=2, complete=False)
    state = driver.server(2).state
    assert (state.came_back_at, state.in_doubt, driver.server(2).summary.in_doubt) == (came_at, True, True)
    assert driver.server(2).summary.software is not None
    clock.advance(1.0)
    driver.poll(server_id=2)
    state = driver.server(2).state
    assert (state.came_back_at, state.in_doubt) == (None, False)


def test_a_rename_in_place_keeps_the_issues_in_doubt_until_a_whole_poll(driver: Driver, clock: HeldClock) -> None:
    """Until a poll that started later, no numbers are shown; a poll that started before says nothing of it."""
    driver.take_list("old")
    driver.poll(outdated("php"))
    began = clock.now()
    clock.advance(5.0)
    driver.take_list("new")
    renamed_at = clock.now()
    clock.advance(1.0)
    driver.poll(outdated("php"), outdated("nginx"), started_at=began + 1.0)
    assert driver.open_names() == ["php"]
    driver.poll(outdated("php"), complete=False)
    record = driver.server()
    assert (record.state.in_doubt_since, record.summary.name) == (renamed_at, "new")
    assert (record.summary.open_issues, record.summary.software) == (None, None)
    clock.advance(1.0)
    driver.poll(outdated("php"))
    record = driver.server()
    assert (record.state.in_doubt_since, record.summary.open_issues) == (None, (0, 0, 1, 0))
    assert [(issue.first_seen, issue.is_open) for issue in driver.issues()] == [(began, True)]


def test_a_server_with_another_name_was_never_seen_scanned(driver: Driver, clock: HeldClock) -> None:
    """Scans were those of the server that had the name before, and so is one that still seems to run."""
    driver.take_list("old")
    driver.check(running=True)
    driver.check(running=False)
    assert driver.server().summary.last_scan_at is not None
    driver.check(running=True)
    clock.advance(5.0)
    driver.take_list("new")
    record = driver.server()
    assert (record.state.last_scan_at, record.summary.last_scan_at) == (None, None)
    assert (record.state.scanning, record.summary.scanning) == (False, False)
    driver.check(running=False)
    assert driver.server().state.last_scan_at is None


def test_names_that_differ_in_more_than_capitals_are_of_different_servers(driver: Driver) -> None:
    """``straße.example`` and ``strasse.example`` are two domains, though both fold to the same text."""
    driver.take_list("strasse.example")
    driver.poll()
    driver.take_list("straße.example")
    assert driver.server().state.in_doubt_since is not None


def test_a_server_with_two_names_in_one_list_is_in_doubt_until_it_has_one(driver: Driver, clock: HeldClock) -> None:
    """Whichever of them it is polled by, nobody knows whether it is that one; polls do not tell."""

    def take(*servers: Server) -> Listed:
        return driver.store.run(
            lambda unit: apply_list(unit, "main", servers, complete=False, now=clock.now(), rules=driver.rules)
        )

    driver.take_list("a", "b")
    driver.poll()
    both = Server(id=1, name="a", verified=True, has_other_name=True)
    new = Server(id=3, name="c", verified=True, has_other_name=True)
    since = clock.now()
    for _ in range(2):
        assert take(both, new).gone == ()
        clock.advance(1.0)
        driver.poll()
        driver.poll(server_id=3)
        assert [driver.server(i).state.missing_since for i in (1, 3)] == [since, since]
        assert driver.server().summary.in_doubt
    driver.take_list("a", "b", "c")
    assert [driver.server(i).state.in_doubt for i in (1, 3)] == [False, False]


def test_an_event_of_a_server_in_doubt_shows_no_numbers(driver: Driver, clock: HeldClock) -> None:
    """What is known may be another server's."""
    driver.take_list("old")
    driver.poll(outdated("php"))
    clock.advance(5.0)
    driver.take_list("new")
    driver.apply(driver.deliver(), list_is_fresh=True)
    assert driver.server().summary.open_issues is None


def listed_in_parts(driver: Driver, servers: list[Server], *, complete: bool = True, upto: int | None = None) -> Listed:
    """As `Driver.take_list`, each server in a unit of its own, and the end in the last; ``upto`` stops before it."""
    now = driver.time.now()
    plan = driver.store.read(
        lambda connection: plan_list(
            connection, "main", servers, complete=complete, now=now, rules=driver.rules, watched=there(driver)
        )
    )
    for server_id in plan.server_ids[:upto]:
        driver.store.run(lambda unit, i=server_id: apply_part(unit, plan, [i], now=now, rules=driver.rules))  # type: ignore[misc]
    if upto is not None:
        return Listed()
    return driver.store.run(lambda unit: end_list(unit, plan, now=now, rules=driver.rules))


def named(*names: str) -> list[Server]:
    return [Server(id=n, name=name, verified=True) for n, name in enumerate(names, 1) if name]


LISTS = st.lists(
    st.tuples(st.lists(st.sampled_from(["", "a", "b", "A"]), max_size=6), st.booleans(), st.booleans()), max_size=5
)


# Each example makes two stores; fewer still with a profile that asks for few.
@settings(
    max_examples=settings().max_examples // 4,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(LISTS)
def test_a_list_in_parts_comes_to_the_same(
    tmp_path_factory: pytest.TempPathFactory, migrated_file: Path, lists: list[tuple[list[str], bool, bool]]
) -> None:
    """Rows, account and what is told are those of a list that takes effect in one unit, whatever the lists say."""
    folder = tmp_path_factory.mktemp("parts")
    for name in ("whole.db", "parts.db"):
        shutil.copyfile(migrated_file, folder / name)
    clock = HeldClock()
    shown: tuple[list[object], list[object]] = [], []
    with (
        Store(f"sqlite:///{folder / 'whole.db'}", shown[0].extend) as one,
        Store(f"sqlite:///{folder / 'parts.db'}", shown[1].extend) as other,
    ):
        whole, parts = Driver(one, clock), Driver(other, clock)
        for names, complete, soon in lists:
            assert listed_in_parts(parts, named(*names), complete=complete) == whole.take_list(
                *names, complete=complete
            )
            clock.advance(1.0 if soon else SETTLE)
        rows = [
            driver.store.run(lambda unit: list(fleet.server_records(unit.connection, "main", gone=True)))
            for driver in (whole, parts)
        ]
        assert rows[0] == rows[1]
        if lists:
            assert whole.account_record() == parts.account_record()
    for effects in shown:
        effects.sort(key=repr)
    assert shown[0] == shown[1]


def test_a_list_that_ends_in_the_middle_counts_as_not_read(driver: Driver, clock: HeldClock) -> None:
    """What was written by then is in doubt or was true before; the account still says what the last list was worth."""
    driver.take_list("a", "b", "c", "d")
    before = driver.account_record()
    clock.advance(60.0)
    listed_in_parts(driver, named("a", "x", "", "d", "new"), upto=2)
    assert driver.account_record() == before
    assert driver.server(2).state.in_doubt
    assert there(driver) == [1, 2, 3, 4, 5]
    assert driver.server(5).state.last_poll_at is None
    listed = listed_in_parts(driver, named("a", "x", "", "d", "new"))
    assert (listed.gone, there(driver)) == ((3,), [1, 2, 4, 5])
    assert driver.account_record().last_success_at == clock.now()


def test_no_unit_writes_more_of_a_list_than_a_few_hundred_servers() -> None:
    """Deliveries go between the parts of a long list; each server is in one of them."""
    parts = parts_of(range(3 * LISTED_AT_ONCE + 1))
    assert [len(part) for part in parts] == [LISTED_AT_ONCE] * 3 + [1]
    assert [i for part in parts for i in part] == list(range(3 * LISTED_AT_ONCE + 1))


def test_a_server_that_the_list_calls_troubled_is_in_doubt_until_a_list_does_not(
    driver: Driver, clock: HeldClock
) -> None:
    """Its polls are not whole, and fix nothing: what they show may be from before its scan failed."""
    driver.take_list("a")
    driver.poll(outdated("php"), BYSTANDER)
    assert (driver.server().state.poll_complete, driver.server().summary.in_doubt) == (True, False)
    driver.take_list("a", trouble="error is set")
    state = driver.server().state
    assert (state.poll_complete, state.list_doubt) == (False, "the server list says of it: error is set")
    assert driver.server().summary.in_doubt
    clock.advance(60.0)
    driver.poll(BYSTANDER)
    state = driver.server().state
    assert (state.incomplete_because, state.last_poll_complete, driver.open_names()) == (
        state.list_doubt,
        False,
        ["php"],
    )
    driver.take_list("a")
    assert driver.server().state.list_doubt is None
    clock.advance(60.0)
    driver.poll(BYSTANDER)
    assert (driver.server().state.poll_complete, driver.server().summary.in_doubt, driver.open_names()) == (
        True,
        False,
        [],
    )


def test_a_server_that_the_list_calls_exploitable_is_in_doubt_while_no_poll_shows_exploits(
    driver: Driver, clock: HeldClock
) -> None:
    """One that shows any, however low their risk, is as the list says; of one without, a later list decides."""
    risky = exploited("php", Exploit(id="1", risk=1.0))
    driver.take_list("a", claim="exploitable")
    assert driver.server().summary.in_doubt
    driver.poll(BYSTANDER)
    doubt = "the server list says of it: exploitable, and no exploits are shown"
    assert (driver.server().state.poll_complete, driver.server().state.incomplete_because) == (False, doubt)
    clock.advance(60.0)
    driver.poll(BYSTANDER, risky)
    driver.take_list("a", claim="exploitable")
    assert (driver.server().state.poll_complete, driver.server().summary.in_doubt) == (True, False)
    clock.advance(60.0)
    driver.poll(BYSTANDER)
    assert driver.server().state.poll_complete
    driver.take_list("a", claim="exploitable")
    assert (driver.server().state.poll_complete, driver.server().state.list_doubt) == (False, doubt)
    driver.take_list("a")
    assert (driver.server().state.poll_complete, driver.server().summary.in_doubt) == (True, False)
