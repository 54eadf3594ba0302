from __future__ import annotations

import datetime as dt

import pytest
from msgspec.structs import replace
from tests.harness.ticking import START, HeldClock
from tests.unit.issues.builders import exploitable, exploited, outdated, reported, software, unsupported
from tests.unit.sync.accounts import SETTLE, rules
from tests.unit.sync.driving import FINISHED, NEW_ISSUES, STARTED, Driver

from patrolserver_exporter.config.schema import Issues
from patrolserver_exporter.inbox import deliveries
from patrolserver_exporter.issues.model import Kind, Severity, Waiver
from patrolserver_exporter.live.effects import FeedGrew, InboxMoved, ServerShown, TalliesShown
from patrolserver_exporter.patrolserver.models import Event, Exploit, Parsed, ReportedIssue
from patrolserver_exporter.store import ClaimLost, Store, history
from patrolserver_exporter.sync.clock_steps import follow_clock
from patrolserver_exporter.sync.server_updates import FollowUp, conclude

DAY = 86_400.0


@pytest.fixture
def driver(store: Store, clock: HeldClock) -> Driver:
    made = Driver(store, clock)
    made.take_list("web.example.org")
    clock.advance(1.0)
    return made


def test_a_poll_shows_what_it_found(driver: Driver, clock: HeldClock, effects: list[object]) -> None:
    """Issues, software, times, feed, counters and effects of one poll, all at once."""
    effects.clear()
    state = driver.poll(outdated("php"), unsupported("nginx"), software("ssh"))
    assert state is not None
    assert (state.last_poll_at, state.complete_poll_at, state.poll_success) == (clock.now(), clock.now(), True)
    assert driver.open_names() == ["nginx", "php"]
    assert sorted(driver.told()) == [("opened", "nginx"), ("opened", "php")]
    assert driver.tally() == (2, 0)
    assert driver.server().next_poll_at == clock.now() + 900.0
    assert driver.server().summary.open_issues == (0, 1, 1, 0)
    kinds = [type(effect) for effect in effects]
    assert sorted(kind.__name__ for kind in kinds) == ["FeedGrew", "ServerShown", "TalliesShown"]
    assert {FeedGrew, ServerShown, TalliesShown} == set(kinds)


def test_the_same_poll_twice_is_once(driver: Driver) -> None:
    """A poll that comes again, or after one that started later, changes nothing."""
    driver.poll(outdated("php"), started_at=START + 0.5)
    driver.clock.advance(10.0)
    driver.poll(started_at=START + 8.0)
    for late in (START + 0.5, START + 3.0, START + 8.0):
        state = driver.poll(outdated("php"), outdated("nginx"), started_at=late)
        assert state is not None
        assert state.last_poll_at == START + 8.0
    assert driver.open_names() == []
    assert driver.tally() == (1, 1)


def test_a_poll_during_which_the_clock_was_set_back_stops_no_later_one(driver: Driver, clock: HeldClock) -> None:
    """What seems to have started in the future counts as of now, so that the next polls count too."""
    driver.poll(outdated("php"), started_at=clock.now() + 40 * DAY)
    assert driver.server().state.last_poll_at == clock.now()
    clock.advance(60.0)
    driver.poll()
    assert driver.open_names() == []


def test_a_failed_poll_keeps_the_data_and_says_so(driver: Driver, clock: HeldClock, effects: list[object]) -> None:
    """Old data stays with its age; the change is shown once."""
    driver.poll(outdated("php"))
    polled_at = clock.now()
    clock.advance(900.0)
    effects.clear()
    driver.fail()
    driver.fail()
    (effect,) = effects
    assert isinstance(effect, ServerShown)
    assert (effect.summary.poll_success, effect.summary.last_poll_at) == (False, polled_at)
    assert driver.open_names() == ["php"]
    assert driver.server().next_poll_at == clock.now() + 30.0
    clock.advance(30.0)
    driver.poll(outdated("php"))
    assert driver.server().summary.poll_success


def test_the_next_poll_of_a_second_failure_is_kept(driver: Driver, clock: HeldClock, effects: list[object]) -> None:
    """It shows nothing new, but after a restart the server would be due too early if its plan were lost."""
    driver.poll()
    driver.fail()
    clock.advance(30.0)
    effects.clear()
    driver.fail()
    assert driver.server().next_poll_at == clock.now() + 30.0
    assert not driver.server().state.poll_success
    assert effects == []


def test_a_server_that_is_gone_takes_no_poll(driver: Driver, clock: HeldClock) -> None:
    """A late result of a server that the account no longer has is left out."""
    driver.poll(outdated("php"))
    driver.take_list()
    clock.advance(SETTLE)
    driver.take_list()
    clock.advance(1.0)
    assert driver.poll() is None
    driver.fail()
    assert driver.check(running=True) == (None, False)
    assert driver.open_names() == ["php"]
    assert driver.server().gone_at is not None


def test_an_event_opens_its_issues_at_once(driver: Driver, clock: HeldClock, effects: list[object]) -> None:
    """They are shown with their reception, and the server waits for a confirmation and for a second poll."""
    driver.poll()
    clock.advance(10.0)
    delivery = driver.deliver()
    received_at = clock.now()
    clock.advance(2.0)
    effects.clear()
    assert driver.apply(delivery, reported("php")) is FollowUp.POLL
    (issue,) = driver.issues()
    assert (issue.kind, issue.first_seen, issue.polled) == (Kind.REPORTED, received_at, False)
    state = driver.server().state
    assert (state.event_received_at, state.settle_poll_at) == (received_at, received_at + SETTLE)
    assert driver.inbox() == ["applied"]
    assert driver.tally() == (1, 0)
    assert [effect.received_at for effect in effects if isinstance(effect, ServerShown)] == [received_at]
    assert InboxMoved() in effects


def test_a_poll_after_an_event_confirms_it_and_one_after_settle_ends_it(driver: Driver, clock: HeldClock) -> None:
    """The first poll confirms that the event was looked at; only one that starts settle later closes what it lacks."""
    driver.poll()
    clock.advance(10.0)
    driver.apply(driver.deliver(), reported("php"))
    clock.advance(1.0)
    state = driver.poll()
    assert state is not None
    assert (state.event_received_at, driver.open_names()) == (None, ["php"])
    assert state.settle_poll_at is not None
    clock.set(state.settle_poll_at)
    state = driver.poll()
    assert state is not None
    assert (state.settle_poll_at, driver.open_names()) == (None, [])


def test_an_event_about_software_with_an_old_issue_is_unconfirmed_until_settle(
    driver: Driver, clock: HeldClock
) -> None:
    """What it tells of may be another one, worse, which the API's list shows later: the old one must not hide it."""
    driver.poll(outdated("php"))
    clock.advance(2 * SETTLE)
    driver.poll(outdated("php"))
    driver.apply(driver.deliver(), reported("php"))
    received_at = clock.now()
    clock.advance(1.0)
    for _ in range(2):
        state = driver.poll(outdated("php"))
        assert state is not None
        assert (state.unconfirmed_event, driver.server().summary.in_doubt) == (True, True)
        clock.advance(1.0)
    clock.set(received_at + SETTLE)
    state = driver.poll(outdated("php"))
    assert state is not None
    assert (state.unconfirmed_event, driver.server().summary.in_doubt) == (False, False)


def test_an_event_about_an_issue_that_polls_found_a_moment_ago_is_that_one(driver: Driver, clock: HeldClock) -> None:
    """A poll may be faster than the webhook; what got worse then is news, too."""
    driver.poll(outdated("php"))
    clock.advance(2 * SETTLE)
    driver.poll(unsupported("php"), outdated("nginx"))
    clock.advance(SETTLE / 2)
    driver.apply(driver.deliver(), reported("nginx"), reported("php"))
    clock.advance(1.0)
    state = driver.poll(unsupported("php"), outdated("nginx"))
    assert state is not None
    assert not state.unconfirmed_event


def test_an_event_about_what_a_poll_has_shown_as_fixed_since_is_unconfirmed_until_settle(
    driver: Driver, clock: HeldClock
) -> None:
    """It opens nothing, but that poll may have been too early."""
    driver.poll(outdated("php"))
    clock.advance(2 * SETTLE)
    delivery = driver.deliver()
    received_at = clock.now()
    clock.advance(1.0)
    driver.poll()
    driver.apply(delivery, reported("php"))
    assert driver.open_names() == []
    assert driver.server().state.unconfirmed_event
    clock.set(received_at + SETTLE)
    driver.poll()
    assert not driver.server().state.unconfirmed_event


def test_a_poll_that_started_before_an_event_confirms_nothing(driver: Driver, clock: HeldClock) -> None:
    """A poll under way when the event came may not have seen it."""
    started_at = clock.now()
    clock.advance(5.0)
    driver.apply(driver.deliver(), reported("php"))
    clock.advance(1.0)
    state = driver.poll(started_at=started_at)
    assert state is not None
    assert state.event_received_at == started_at + 5.0
    assert driver.open_names() == ["php"]


def test_a_poll_that_is_not_complete_confirms_nothing(driver: Driver, clock: HeldClock) -> None:
    """It counts as a poll, but the gate and the events go by the last one in which everything could be read."""
    driver.poll(outdated("php"))
    complete_at = clock.now()
    clock.advance(10.0)
    driver.apply(driver.deliver(), reported("nginx"))
    clock.advance(SETTLE)
    driver.poll(complete=False)
    state = driver.server().state
    assert (state.last_poll_at, state.complete_poll_at) == (clock.now(), complete_at)
    assert state.event_received_at == complete_at + 10.0
    assert driver.open_names() == ["nginx", "php"]


def test_a_poll_that_is_not_complete_is_not_repeated_at_once(driver: Driver, clock: HeldClock) -> None:
    """The second poll after an event is made once, even if an entry cannot be read; the event stays unconfirmed."""
    driver.apply(driver.deliver(), reported("php"))
    clock.advance(SETTLE)
    state = driver.poll(complete=False)
    assert state is not None
    assert state.settle_poll_at is None
    assert state.event_received_at is not None
    assert driver.open_names() == ["php"]


def test_an_event_takes_effect_once(driver: Driver, clock: HeldClock) -> None:
    """A claim that was lost writes nothing, and a replay of what a later poll answered opens nothing."""
    delivery = driver.deliver()
    driver.apply(delivery, reported("php"))
    with pytest.raises(ClaimLost):
        driver.apply(delivery, reported("php"))
    assert driver.tally() == (1, 0)
    clock.advance(SETTLE)
    driver.poll()
    assert driver.tally() == (1, 1)
    driver.store.run(lambda unit: deliveries.replay(unit, delivery.id, now=clock.now()))
    (claimed,) = driver.store.run(lambda unit: deliveries.claim(unit, "main", now=clock.now(), lease=60.0, limit=5))
    driver.apply(claimed, reported("php"))
    assert (driver.tally(), driver.open_names(), driver.inbox()) == ((1, 1), [], ["applied"])


def test_an_event_during_whose_fetch_the_clock_was_set_back_is_confirmed_by_the_next_polls(
    driver: Driver, clock: HeldClock
) -> None:
    """It does not seem to be received in the future, where no poll could confirm it for weeks."""
    delivery = driver.deliver()
    clock.set(clock.now() - 40 * DAY)
    driver.apply(delivery, reported("php"))
    state = driver.server().state
    assert state.event_received_at == clock.now()
    clock.advance(SETTLE)
    driver.poll()
    assert driver.open_names() == []
    assert driver.server().state.event_received_at is None


def test_an_event_of_an_unknown_server_waits_for_the_list(driver: Driver) -> None:
    """A server may be new; once a list that was read later does not have it either, it is none of ours."""
    delivery = driver.deliver()
    assert driver.apply(delivery, reported("php"), server_id=99) is FollowUp.LIST
    assert driver.inbox() == ["fetching"]
    assert driver.apply(delivery, reported("php"), server_id=99, list_is_fresh=True) is FollowUp.NOTHING
    assert driver.inbox() == ["applied"]
    found = driver.store.run(lambda unit: deliveries.get(unit.connection, delivery.id))
    assert found is not None
    assert found[0].last_error == "Server 99 is not in this account."
    assert driver.tally() == (0, 0)


@pytest.mark.parametrize(
    ("identifier", "server_id", "body", "state", "kept"),
    [
        (NEW_ISSUES, None, b'{"odd":1}', "dead", b'{"odd":1}'),
        (NEW_ISSUES, None, b"", "dead", b"{}"),
        (NEW_ISSUES, 1, b"{}", "applied", None),
        ("webhook.test", None, b"{}", "applied", None),
    ],
)
def test_an_event_that_names_no_server_is_kept_for_the_operator(
    driver: Driver, clock: HeldClock, *, identifier: str, server_id: int | None, body: bytes, state: str, kept: object
) -> None:
    """Unless it is of a kind that needs none; what was applied tells of no error."""
    delivery = driver.deliver(identifier)
    parsed = Parsed(Event(server_id=server_id), body=body)
    driver.store.run(
        lambda unit: conclude(unit, delivery, parsed, list_is_fresh=True, now=clock.now(), rules=driver.rules)
    )
    found = driver.store.run(lambda unit: deliveries.get(unit.connection, delivery.id))
    assert found is not None
    assert (found[0].state, found[1]) == (state, kept)
    assert (found[0].last_error is None) is (state == "applied")


@pytest.mark.parametrize(
    ("identifier", "issues", "doubted"),
    [(NEW_ISSUES, (), True), (NEW_ISSUES, (reported("php"),), False), (FINISHED, (), False)],
)
def test_an_event_of_new_issues_that_has_none_is_left_to_polls(
    driver: Driver, clock: HeldClock, *, identifier: str, issues: tuple[ReportedIssue, ...], doubted: bool
) -> None:
    """The API may know the event before it knows what it is about."""
    delivery = driver.deliver(identifier)
    parsed = Parsed(Event(server_id=1, new_issues=issues), body=b"{}")
    driver.store.run(
        lambda unit: conclude(unit, delivery, parsed, list_is_fresh=True, now=clock.now(), rules=driver.rules)
    )
    assert driver.account_record().catch_up_since == (clock.now() + SETTLE if doubted else None)


@pytest.mark.parametrize("identifier", [NEW_ISSUES, FINISHED, "webhook.test", "webhook.other"])
@pytest.mark.parametrize(("server_id", "state"), [(1, "applied"), (None, "dead")])
def test_what_cannot_be_read_of_an_event_is_left_to_polls_that_start_settle_later(
    driver: Driver, clock: HeldClock, *, identifier: str, server_id: int | None, state: str
) -> None:
    """Under any identifier: it may be an issue, which the API's own lists show later than the event."""
    delivery = driver.deliver(identifier)
    parsed = Parsed(Event(server_id=server_id, odd_issues=1), partial_because=("event [0]: is no issue",), body=b"{}")
    driver.store.run(
        lambda unit: conclude(unit, delivery, parsed, list_is_fresh=True, now=clock.now(), rules=driver.rules)
    )
    assert driver.inbox() == [state]
    assert driver.account_record().catch_up_since == clock.now() + SETTLE


def test_an_event_of_a_server_that_is_gone_changes_nothing(driver: Driver, clock: HeldClock) -> None:
    """The series of such a server have ended and stay so."""
    driver.take_list()
    clock.advance(SETTLE)
    driver.take_list()
    assert driver.apply(driver.deliver(), reported("php"), list_is_fresh=True) is FollowUp.NOTHING
    assert driver.apply(driver.deliver(STARTED), list_is_fresh=True) is FollowUp.NOTHING
    assert (driver.inbox(), driver.issues()) == (["applied", "applied"], ())


@pytest.mark.parametrize("identifier", ["webhook.test", "webhook.unheard_of", "x"])
def test_events_that_are_about_nothing_are_kept_and_change_nothing(driver: Driver, identifier: str) -> None:
    """A test event, or one that nobody knows, is applied without effect where the API names no server."""
    before = driver.server()
    assert driver.apply(driver.deliver(identifier), server_id=None) is FollowUp.NOTHING
    assert driver.server() == before
    assert driver.inbox() == ["applied"]


@pytest.mark.parametrize("identifier", ["webhook.test", "webhook.unheard_of", FINISHED, STARTED])
def test_what_the_api_says_decides_and_not_the_identifier(driver: Driver, identifier: str) -> None:
    """New issues are new issues, whatever the sender called their event."""
    assert driver.apply(driver.deliver(identifier), reported("php")) is FollowUp.POLL
    assert [issue.canonical_name for issue in driver.issues()] == ["php"]


@pytest.mark.parametrize("identifier", ["webhook.test", "webhook.unheard_of"])
def test_an_event_about_a_server_asks_for_its_poll(driver: Driver, identifier: str) -> None:
    """Called a test, it may still be the end of a scan."""
    assert driver.apply(driver.deliver(identifier)) is FollowUp.POLL_AND_CHECK_SCAN
    assert driver.server().state.event_received_at is not None


def test_scans_are_shown_once_confirmed(driver: Driver, clock: HeldClock) -> None:
    """A told start shows after isScanning said yes, a told end as of its reception after it said no."""
    assert driver.apply(driver.deliver(STARTED)) is FollowUp.CHECK_SCAN
    assert not driver.server().summary.scanning
    driver.check(running=True)
    assert driver.server().summary.scanning
    clock.advance(100.0)
    finished_at = clock.now()
    assert driver.apply(driver.deliver(FINISHED)) is FollowUp.POLL_AND_CHECK_SCAN
    assert driver.server().summary.scanning
    clock.advance(5.0)
    _, ended = driver.check(running=False)
    assert ended
    assert (driver.server().summary.scanning, driver.server().summary.last_scan_at) == (False, finished_at)


@pytest.mark.parametrize("told", [True, False])
def test_what_a_scan_found_waits_for_a_poll(driver: Driver, clock: HeldClock, *, told: bool) -> None:
    """From its end on, told by an event or seen by isScanning, until the next complete poll the gate must not pass."""
    driver.poll()
    driver.apply(driver.deliver(STARTED))
    driver.check(running=True)
    clock.advance(60.0)
    ended_at = clock.now()
    if told:
        driver.apply(driver.deliver(FINISHED))
        assert driver.server().state.event_received_at == ended_at
        clock.advance(1.0)
    driver.check(running=False)
    state = driver.server().state
    assert (state.last_scan_at, state.event_received_at) == (ended_at, ended_at)
    driver.poll(started_at=ended_at - 1.0)
    driver.poll(complete=False)
    assert driver.server().state.event_received_at == ended_at
    clock.advance(1.0)
    driver.poll()
    assert driver.server().state.event_received_at is None
    driver.apply(driver.deliver(FINISHED))
    driver.poll()
    driver.check(running=False)
    assert driver.server().state.event_received_at is None


def test_waivers_hold_from_birth_and_do_not_hide_the_opening(store: Store, clock: HeldClock) -> None:
    """A waived issue is opened, counted, and waived at once; the summary counts it apart."""
    until = dt.datetime.fromtimestamp(clock.now(), dt.UTC).date()
    waiver = Waiver(server="web.*", software="php", until=until, reason="soon")
    driver = Driver(store, clock, rules(issues=Issues(settle=SETTLE, waivers=(waiver,))))
    driver.take_list("web.example.org")
    driver.poll(outdated("php"))
    assert driver.told() == [("opened", "php"), ("waived", "php")]
    assert driver.server().summary.open_issues == (0, 0, 0, 0)
    assert driver.server().summary.waived_issues == 1
    assert driver.apply(driver.deliver(NEW_ISSUES), reported("php")) is FollowUp.POLL
    assert driver.server().summary.waived_issues == 1


def test_an_empty_list_fixes_nothing(driver: Driver, clock: HeldClock) -> None:
    """However often it comes: issues, software and the last whole poll stay, and the summary says it is in doubt."""
    driver.poll(outdated("php"), software("ssh"))
    whole_at = clock.now()
    before = driver.server().summary
    for _ in range(3):
        clock.advance(SETTLE)
        state = driver.poll_nothing()
        assert state is not None
        assert (state.empty, state.complete_poll_at, state.last_poll_at) == (True, whole_at, clock.now())
    summary = driver.server().summary
    assert (summary.open_issues, summary.software) == (before.open_issues, before.software)
    assert (before.poll_complete, summary.poll_complete, summary.poll_success) == (True, False, True)
    assert driver.told() == [("opened", "php")]
    clock.advance(1.0)
    state = driver.poll(outdated("php"))
    assert state is not None
    assert (state.empty, state.poll_complete) == (False, True)


def test_a_server_without_software_is_no_clean_one(driver: Driver) -> None:
    """A first poll that shows none is not whole, and tells nothing of exploits."""
    state = driver.poll_nothing()
    assert state is not None
    assert (state.empty, state.poll_complete, state.history_since) == (True, False, None)
    summary = driver.server().summary
    assert (summary.software, summary.exploits, summary.exploit_risk_max) == ((0, 0, 0, 0), None, None)


def test_an_empty_list_answers_an_event(driver: Driver, clock: HeldClock) -> None:
    """That it is empty is doubt enough: an event must not stay open for ever on a server that has no software."""
    driver.poll_nothing()
    clock.advance(10.0)
    driver.apply(driver.deliver(FINISHED))
    assert driver.server().state.event_received_at is not None
    clock.advance(1.0)
    state = driver.poll_nothing()
    assert state is not None
    assert state.event_received_at is None


def test_a_collapsed_list_has_to_be_shown_twice(driver: Driver, clock: HeldClock) -> None:
    """One that lost most plans a second poll; until that one shows the same, gauges and issues stay, in doubt."""
    driver.poll(outdated("php"), *(software(name) for name in "abc"))
    clock.advance(900.0)
    state = driver.poll(software("a"))
    assert state is not None
    assert state.settle_poll_at == clock.now() + SETTLE
    assert not state.poll_complete
    assert state.incomplete_because is not None
    assert driver.server().summary.software == (3, 1, 0, 0)
    assert driver.open_names() == ["php"]
    clock.advance(SETTLE / 2)
    state = driver.poll(software("a"))
    assert state is not None
    assert (state.settle_poll_at, state.poll_complete) == (clock.now() + SETTLE / 2, False)
    clock.set(state.settle_poll_at or 0.0)
    state = driver.poll(software("a"))
    assert state is not None
    assert (state.poll_complete, state.settle_poll_at, state.incomplete_because) == (True, None, None)
    assert driver.server().summary.software == (1, 0, 0, 0)
    assert driver.open_names() == []


def test_servers_that_get_better_alike_have_to_show_it_twice(driver: Driver, clock: HeldClock) -> None:
    """Also the first two of them, whose fix was believed; one that was updated is none of them."""
    driver.take_list("a", "b", "c", "d", "e")
    for server_id in range(1, 6):
        driver.poll(exploitable("php", risk=9.8), software("ssh"), server_id=server_id)
    clock.advance(900.0)
    for server_id in (1, 2):
        state = driver.poll(software("php"), software("ssh"), server_id=server_id)
        assert state is not None
        assert (state.poll_complete, driver.open_names(server_id), driver.doubted) == (True, [], [])
    state = driver.poll(software("php"), software("ssh"), server_id=3)
    assert state is not None
    assert (state.poll_complete, state.settle_poll_at) == (False, clock.now() + SETTLE)
    assert "other servers" in (state.incomplete_because or "")
    assert driver.open_names(3) == ["php"]
    assert sorted(driver.doubted) == [1, 2]
    for server_id in (1, 2):
        state = driver.server(server_id).state
        assert (state.poll_complete, state.settle_poll_at) == (False, clock.now() + SETTLE)
        summary = driver.server(server_id).summary
        assert (summary.poll_complete, summary.in_doubt) == (False, True)
    clock.advance(1.0)
    state = driver.poll(software("php"), software("ssh"), server_id=1)
    assert state is not None
    assert (state.poll_complete, state.settle_poll_at) == (False, clock.now() - 1.0 + SETTLE)
    state = driver.poll(software("php", version="2.0"), software("ssh"), server_id=4)
    assert state is not None
    assert (state.poll_complete, driver.open_names(4), driver.doubted) == (True, [], [])
    driver.poll(software("php"), software("ssh"), server_id=5)
    assert (driver.open_names(5), driver.doubted) == (["php"], [])
    clock.advance(SETTLE)
    for server_id in (1, 2, 3):
        state = driver.poll(software("php"), software("ssh"), server_id=server_id)
        assert state is not None
        assert (state.poll_complete, state.incomplete_because, driver.doubted) == (True, None, [])
        assert driver.open_names(server_id) == []
    # A fault that is over leaves nothing behind.
    state = driver.poll(exploitable("php", risk=9.8), software("ssh"), server_id=5)
    assert state is not None
    assert state.poll_complete
    assert driver.told().count(("reopened", "php")) == 0


@pytest.mark.parametrize("reply", ["partial", "empty"])
def test_a_doubt_that_no_reply_settles_does_not_poll_without_end(driver: Driver, clock: HeldClock, reply: str) -> None:
    """Its own poll is due once; then the turns are the usual ones, and the doubt stays."""
    driver.take_list("a", "b", "c")
    for server_id in (1, 2, 3):
        driver.poll(exploitable("php", risk=9.8), software("ssh"), server_id=server_id)
    clock.advance(900.0)
    for server_id in (1, 2, 3):
        driver.poll(software("php"), software("ssh"), server_id=server_id)
    clock.advance(SETTLE)
    for server_id in (1, 3):
        if reply == "empty":
            state = driver.poll_nothing(server_id)
        else:
            state = driver.poll(software("php"), server_id=server_id, complete=False)
        assert state is not None
        assert (state.settle_poll_at, state.poll_complete) == (None, False)
    assert driver.server(1).state.eased_alike_at is not None
    assert driver.open_names(3) == ["php"]
    clock.advance(900.0)
    for server_id in (1, 3):
        state = driver.poll(software("php"), software("ssh"), server_id=server_id)
        assert state is not None
        assert state.poll_complete


@pytest.mark.parametrize("of", ["a list that lost most", "servers that got better alike"])
def test_a_clock_that_is_set_ahead_confirms_no_poll(driver: Driver, clock: HeldClock, of: str) -> None:
    """The time between two polls is time that went by."""
    driver.take_list("a", "b", "c")
    sick = (exploitable("php", risk=9.8), *map(software, "abc"))
    well = (software("php"), *map(software, "abc")) if of == "servers that got better alike" else (software("a"),)
    for server_id in (1, 2, 3):
        driver.poll(*sick, server_id=server_id)
    clock.advance(900.0)
    for server_id in (2, 3, 1):
        driver.poll(*well, server_id=server_id)
    doubted = [driver.server(server_id).state.poll_complete for server_id in (1, 2, 3)]
    assert doubted == [False] * 3
    clock.set(clock.now() + 3600.0)
    driver.store.run(lambda unit: follow_clock(unit, 3600.0, now=clock.now(), rules={"main": driver.rules}))
    clock.advance(1.0)
    for server_id in (1, 2, 3):
        state = driver.poll(*well, server_id=server_id)
        assert state is not None
        assert not state.poll_complete
        assert state.settle_poll_at is not None
        assert clock.now() - 1.0 + SETTLE <= state.settle_poll_at <= clock.now() + SETTLE
    clock.advance(SETTLE)
    for server_id in (1, 2, 3):
        state = driver.poll(*well, server_id=server_id)
        assert state is not None
        assert state.poll_complete


def test_what_a_partial_list_lacks_stays_known(driver: Driver, clock: HeldClock) -> None:
    """The series do not show a part as the whole, and a part is never what the next list is held against."""
    driver.poll(outdated("php"), *(software(name) for name in "abc"))
    clock.advance(900.0)
    driver.poll(software("a"), complete=False)
    assert driver.server().summary.software == (3, 1, 0, 0)
    clock.advance(900.0)
    state = driver.poll(software("a"))
    assert state is not None
    assert state.collapse is not None
    assert driver.open_names() == ["php"]


def test_exploits_that_are_not_told_stay(driver: Driver, clock: HeldClock) -> None:
    """A reply that leaves them out of all software closes no exploit's issue, and the series go on, in doubt."""
    driver.poll(exploitable("php", risk=9.8), software("ssh"))
    before = driver.server().summary
    clock.advance(900.0)
    state = driver.poll(software("php", exploits=None), software("ssh", exploits=None))
    assert state is not None
    assert state.exploits_unknown == 2
    summary = driver.server().summary
    assert summary.in_doubt
    assert (summary.exploits, summary.exploit_risk_max, summary.exploit_info) == (1, 9.8, before.exploit_info)
    assert driver.open_names() == ["php"]
    clock.advance(900.0)
    state = driver.poll(software("php"), software("ssh", exploits=()))
    assert state is not None
    assert state.exploits_unknown == 0
    assert driver.open_names() == []
    assert not driver.server().summary.in_doubt


def test_what_got_worse_is_told_and_counted(driver: Driver, clock: HeldClock) -> None:
    """A new exploit and a higher severity count at the severity reached, a fix at the one it ended with."""
    one, two = Exploit(id="1", risk=5.0), Exploit(id="2", risk=9.8)
    driver.poll(exploited("php", one), outdated("ssh"))
    clock.advance(900.0)
    driver.poll(exploited("php", one, two), unsupported("ssh"))
    clock.advance(900.0)
    driver.poll(exploited("php", one, two, Exploit(id="3", risk=5.0)), outdated("ssh"))
    clock.advance(900.0)
    driver.poll()
    assert [told for told in driver.told() if told[0] != "opened"] == [
        ("worsened", "php"),
        ("worsened", "ssh"),
        ("worsened", "php"),
        ("eased", "ssh"),
        ("fixed", "php"),
        ("fixed", "ssh"),
    ]
    tallies = driver.store.run(lambda unit: history.tallies_of(unit.connection, "main"))
    assert {tally.severity.value: (tally.opened, tally.worsened, tally.fixed) for tally in tallies} == {
        "critical": (0, 2, 1),
        "high": (0, 1, 0),
        "medium": (2, 0, 1),
        "low": (0, 0, 0),
    }


def test_a_waived_issue_that_becomes_worse_is_told(store: Store, clock: HeldClock) -> None:
    """Also while the waiver goes on to cover it; one with a max_severity ends to."""
    until = dt.datetime.fromtimestamp(START, dt.UTC).date() + dt.timedelta(days=30)
    waivers = (
        Waiver(server="*", software="php", until=until, reason="php"),
        Waiver(server="*", software="ssh", max_severity=Severity.MEDIUM, until=until, reason="ssh"),
    )
    driver = Driver(store, clock, rules(issues=Issues(settle=SETTLE, waivers=waivers)))
    driver.take_list("web")
    clock.advance(1.0)
    driver.poll(outdated("php"), outdated("ssh"))
    clock.advance(900.0)
    driver.poll(unsupported("php"), unsupported("ssh"))
    assert driver.told()[-3:] == [("worsened", "php"), ("worsened", "ssh"), ("unwaived", "ssh")]
    summary = driver.server().summary
    assert (summary.open_issues, summary.waived_issues) == ((0, 1, 0, 0), 1)


def test_a_waiver_of_one_exploit_leaves_the_others_to_count(store: Store, clock: HeldClock) -> None:
    """The series show the issue as what its other exploits make of it, until one that is covered gets company."""
    until = dt.datetime.fromtimestamp(START, dt.UTC).date() + dt.timedelta(days=30)
    waivers = (Waiver(server="*", software="php", exploit="CVE-2026-*", until=until, reason="php"),)
    driver = Driver(store, clock, rules(issues=Issues(settle=SETTLE, waivers=waivers)))
    driver.take_list("web")
    clock.advance(1.0)
    covered, lesser = Exploit(cve="CVE-2026-0001", risk=9.8), Exploit(id="7", risk=5.0)
    driver.poll(exploited("php", covered, lesser))
    assert driver.server().summary.open_issues == (0, 0, 1, 0)
    clock.advance(900.0)
    driver.poll(exploited("php", covered))
    assert (driver.server().summary.open_issues, driver.server().summary.waived_issues) == ((0, 0, 0, 0), 1)
    clock.advance(900.0)
    driver.poll(exploited("php", covered, Exploit(id="8", risk=9.0)))
    assert driver.server().summary.open_issues == (1, 0, 0, 0)
    assert driver.told()[-2:] == [("worsened", "php"), ("unwaived", "php")]


def test_another_exploit_risk_makes_nothing_worse(store: Store, clock: HeldClock) -> None:
    """What only a reload changes is no news, though a poll comes before the server is classified again."""
    php = exploited("php", Exploit(id="1", risk=9.8), Exploit(id="2", risk=4.5))
    driver = Driver(store, clock)
    driver.take_list("web")
    clock.advance(1.0)
    driver.poll(php)
    driver.rules = rules(issues=Issues(settle=SETTLE, exploit_risk=4.0))
    clock.advance(900.0)
    driver.poll(php)
    assert driver.told() == [("opened", "php")]
    (issue,) = driver.issues()
    assert [exploit.id for exploit in issue.exploits] == ["1", "2"]


def test_an_issue_of_the_server_is_kept(driver: Driver, clock: HeldClock) -> None:
    """An event's issue that names no software counts as reported, with the vendor's title, until polls close it."""
    driver.poll()
    clock.advance(10.0)
    driver.apply(driver.deliver(), ReportedIssue(title="Open port"))
    (issue,) = driver.issues()
    assert (issue.kind, issue.title, issue.canonical_name) == (Kind.REPORTED, "Open port", "")
    assert driver.server().summary.open_issues == (0, 1, 0, 0)
    clock.advance(SETTLE)
    driver.poll()
    assert driver.told() == [("opened", ""), ("fixed", "")]


def test_the_first_whole_poll_begins_the_history(driver: Driver, clock: HeldClock) -> None:
    """What it finds may be much older than that, and a poll that is not whole is not it."""
    driver.poll(outdated("php"), complete=False)
    assert driver.server().state.history_since is None
    clock.advance(900.0)
    driver.poll(outdated("php"))
    begun = clock.now()
    clock.advance(900.0)
    state = driver.poll(outdated("php"))
    assert state is not None
    assert state.history_since == begun


def test_an_answer_that_is_an_error_in_other_words_leaves_the_server_in_doubt(driver: Driver, clock: HeldClock) -> None:
    """What the API said instead of the list is kept as the reason until a whole poll; an outage leaves none.

    The series tell that the poll failed. Of what it did not bring, whether it was whole, they do not tell.
    """
    driver.poll(outdated("php"))
    clock.advance(900.0)
    driver.fail()
    assert driver.server().state.poll_complete
    driver.fail(answer="success is false")
    state = driver.server().state
    assert (state.poll_success, state.poll_complete, state.incomplete_because) == (False, False, "success is false")
    summary = driver.server().summary
    assert (summary.poll_success, summary.poll_complete) == (False, True)
    driver.fail()
    assert not driver.server().state.poll_complete
    clock.advance(1.0)
    driver.poll(outdated("php"))
    assert driver.server().state.poll_complete


def test_a_partial_poll_stays_the_last_word_while_polls_fail(driver: Driver, clock: HeldClock) -> None:
    """A call that fails after it, in whatever words, does not make it whole."""
    driver.poll(outdated("php"))
    clock.advance(900.0)
    driver.poll(outdated("php"), complete=False)
    for answer in (None, "success is false"):
        driver.fail(answer=answer)
        assert not driver.server().summary.poll_complete


def test_exploits_that_are_all_gone_at_once_are_fixed_by_the_second_poll(driver: Driver, clock: HeldClock) -> None:
    """The versions are as before, so the first may come from a source of exploits that failed."""
    driver.take_list("web")
    risky = [exploitable(name) for name in "abcd"]
    driver.poll(*risky)
    clock.advance(60.0)
    fine = [replace(one, exploits=()) for one in risky]
    driver.poll(*fine)
    state = driver.server().state
    assert (driver.open_names(), state.poll_complete) == (["a", "b", "c", "d"], False)
    assert "exploits" in (state.incomplete_because or "")
    assert state.settle_poll_at == clock.now() + SETTLE
    clock.advance(SETTLE)
    driver.poll(*fine)
    assert (driver.open_names(), driver.server().state.poll_complete) == ([], True)


def test_an_exploit_whose_risk_is_0_now_is_as_bad_as_before(driver: Driver, clock: HeldClock) -> None:
    """In issues and numbers; nobody rated it."""
    driver.take_list("web")
    driver.poll(exploited("php", Exploit(id="1", risk=9.8)))
    clock.advance(60.0)
    driver.poll(exploited("php", Exploit(id="1", risk=0.0)))
    (issue,) = driver.issues()
    assert (issue.is_open, issue.risk, driver.server().summary.exploit_risk_max) == (True, 9.8, 9.8)
