from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import pytest

from patrolserver_exporter.inbox import deliveries
from patrolserver_exporter.inbox.deliveries import Acceptance, Delivery, DeliveryState, NewDelivery
from patrolserver_exporter.inbox.intake import BoundedInbox, count_waiting
from patrolserver_exporter.store import ClaimLost, Store
from patrolserver_exporter.store.fleet import account_records
from patrolserver_exporter.store.tables import inbox

if TYPE_CHECKING:
    from patrolserver_exporter.store import Unit

NOW = 1_800_000_000.0
DOUBT = ("webhook.test", "webhook.a", "webhook.scan_started", "webhook.new_server_issues")
"""From what leaves nothing in doubt to what leaves most."""


def new(event_id: int = 1, account: str = "main", at: float = NOW, **fields: Any) -> NewDelivery:
    known: dict[str, Any] = {"webhook_id": 1, "identifier": "webhook.new_server_issues"} | fields
    return NewDelivery(account=account, event_id=event_id, received_at=at, **known)


def take(store: Store, *arrived: NewDelivery, limit: int = 1000) -> list[Acceptance]:
    door = BoundedInbox(limit)
    return store.run(lambda unit: door.accept(unit, list(arrived)))


def claim(
    store: Store, now: float = NOW, account: str = "main", limit: int = 10, lease: float = 60.0
) -> list[Delivery]:
    return store.run(lambda unit: deliveries.claim(unit, account, now=now, lease=lease, limit=limit))


def end_try(store: Store, delivery: Delivery, state: DeliveryState, now: float = NOW, **fields: Any) -> None:
    store.run(lambda unit: deliveries.end_try(unit, delivery, state, now=now, **fields))


def rows(store: Store) -> list[Delivery]:
    return store.run(lambda unit: deliveries.page(unit.connection, after=0, limit=1000))


def states(store: Store) -> list[DeliveryState]:
    return [row.state for row in rows(store)]


def put_in(store: Store, state: DeliveryState, event_id: int = 1, **fields: Any) -> Delivery:
    """A delivery that has come to this state by the regular way."""
    take(store, new(event_id, **fields))
    if state is not DeliveryState.RECEIVED:
        claimed = claim(store, limit=1)[0]
        if state is not DeliveryState.FETCHING:
            end_try(store, claimed, state, attempts=1, next_attempt_at=NOW + 100, error="why", body=b"what")
    return rows(store)[-1]


def test_a_delivery_is_kept_as_it_came(store: Store) -> None:
    """What a webhook brought can be read back, ids up to 2**53-1 included."""
    assert take(store, new(2**53 - 1, webhook_id=2**53 - 2)) == [Acceptance.ACCEPTED]
    (row,) = rows(store)
    assert (row.account, row.webhook_id, row.event_id) == ("main", 2**53 - 2, 2**53 - 1)
    assert (row.state, row.attempts, row.received_at) == (DeliveryState.RECEIVED, 0, NOW)


def test_the_same_event_is_taken_once(store: Store) -> None:
    """Account, webhook and event together tell deliveries apart, within a batch and later."""
    first, other = new(1), [new(2), new(1, webhook_id=2), new(1, "other")]
    accepted, duplicate = Acceptance.ACCEPTED, Acceptance.DUPLICATE
    assert take(store, first, new(1, at=NOW + 1), *other) == [accepted, duplicate, accepted, accepted, accepted]
    assert take(store, *other, first) == [duplicate] * 4
    assert take(store, first) == [duplicate]
    assert len(rows(store)) == 4
    assert rows(store)[0].received_at == NOW


@pytest.mark.parametrize(
    "state", [one for one in DeliveryState if one not in {DeliveryState.REJECTED, DeliveryState.UNVERIFIED}]
)
def test_a_duplicate_changes_nothing_whatever_became_of_the_first(store: Store, state: DeliveryState) -> None:
    """A known delivery stays where it is when it comes again."""
    row = put_in(store, state)
    assert take(store, new(at=NOW + 5)) == [Acceptance.DUPLICATE]
    assert rows(store) == [row]


def test_what_the_api_did_not_know_is_looked_at_again_when_it_comes_again(store: Store) -> None:
    """A forged id, sent ahead, does not put the real event off to its next try, minutes after it came."""
    put_in(store, DeliveryState.UNVERIFIED)
    assert take(store, new(at=NOW + 50)) == [Acceptance.ACCEPTED]
    (again,) = rows(store)
    assert (again.state, again.attempts, again.received_at) == (DeliveryState.RECEIVED, 0, NOW + 50)
    assert [row.event_id for row in claim(store, now=NOW + 50)] == [1]


def test_a_rejected_delivery_is_not_known(store: Store) -> None:
    """A forged id, sent ahead and rejected, does not keep the real event out that gets the id later."""
    put_in(store, DeliveryState.REJECTED)
    real = new(at=NOW + 50, identifier="webhook.scan_started")
    assert take(store, real, real) == [Acceptance.ACCEPTED, Acceptance.DUPLICATE]
    (row,) = rows(store)
    assert (row.state, row.attempts, row.received_at, row.identifier) == (
        DeliveryState.RECEIVED,
        0,
        NOW + 50,
        "webhook.scan_started",
    )
    assert [row.event_id for row in claim(store)] == [1]


@pytest.mark.parametrize("state", [DeliveryState.RECEIVED, DeliveryState.FETCHING, DeliveryState.UNVERIFIED])
def test_the_same_event_under_another_identifier_is_looked_at_again(store: Store, state: DeliveryState) -> None:
    """A forged test, sent ahead, does not make the real delivery a duplicate; who fetches the old one is fenced off."""
    row = put_in(store, state, identifier="webhook.test")
    assert take(store, new(at=NOW + 5, identifier="webhook.scan_finished")) == [Acceptance.ACCEPTED]
    (again,) = rows(store)
    assert (again.state, again.identifier, again.attempts) == (DeliveryState.RECEIVED, "webhook.scan_finished", 0)
    assert (again.received_at, again.claim) == (NOW + 5, None)
    if state is DeliveryState.FETCHING:
        with pytest.raises(ClaimLost):
            end_try(store, row, DeliveryState.APPLIED)


@pytest.mark.parametrize(
    ("first", "then"),
    [
        ("webhook.scan_started", "webhook.test"),
        ("webhook.something_new", "webhook.test"),
        ("webhook.new_server_issues", "webhook.test"),
        ("webhook.new_server_issues", "webhook.scan_finished"),
        ("webhook.scan_finished", "webhook.something_new"),
    ],
)
@pytest.mark.parametrize("state", [DeliveryState.RECEIVED, DeliveryState.FETCHING, DeliveryState.BLOCKED])
def test_an_event_that_waits_keeps_an_identifier_that_leaves_more_in_doubt(
    store: Store, state: DeliveryState, first: str, then: str
) -> None:
    """A forged one that tells of less, sent after it, would let the gate pass while nobody knows what the event is."""
    row = put_in(store, state, identifier=first)
    assert take(store, new(at=NOW + 5, identifier=then)) == [Acceptance.DUPLICATE]
    assert rows(store) == [row]


def test_of_what_comes_for_one_event_the_greatest_doubt_is_kept(store: Store) -> None:
    """Whether it comes in one batch or in several."""
    for number, identifiers in enumerate(itertools.product(DOUBT, repeat=3)):
        at_once, in_turns = 2 * number + 1, 2 * number + 2
        outcomes = take(store, *(new(at_once, identifier=one) for one in identifiers))
        assert [take(store, new(in_turns, identifier=one))[0] for one in identifiers] == outcomes
        kept = {row.event_id: row.identifier for row in rows(store)}
        assert kept[at_once] == kept[in_turns] == max(identifiers, key=DOUBT.index)


def test_an_event_that_took_effect_keeps_its_time_under_another_identifier(store: Store) -> None:
    """Sent again under another name, it must not open again what was fixed since."""
    put_in(store, DeliveryState.APPLIED)
    assert take(store, new(at=NOW + 5, identifier="webhook.test")) == [Acceptance.ACCEPTED]
    (again,) = rows(store)
    assert (again.state, again.received_at) == (DeliveryState.RECEIVED, NOW)


def test_a_full_inbox_takes_no_more_and_notes_a_catch_up(store: Store) -> None:
    """Beyond the limit nothing is stored, and the newest moment after which polls are needed is."""
    door = BoundedInbox(3)

    def accept(*arrived: NewDelivery) -> list[Acceptance]:
        return store.run(lambda unit: door.accept(unit, list(arrived)))

    accepted, overflow = Acceptance.ACCEPTED, Acceptance.OVERFLOW
    assert accept(new(1), new(2)) == [accepted] * 2
    assert accept(new(3), new(4), new(5, at=NOW + 9), new(6)) == [accepted, overflow, overflow, overflow]
    assert accept(new(1)) == [Acceptance.DUPLICATE]
    assert len(rows(store)) == 3
    assert store.run(lambda unit: account_records(unit.connection))["main"].catch_up_since == NOW + 9
    end_try(store, claim(store, limit=1)[0], DeliveryState.APPLIED)
    assert accept(new(7), new(8)) == [accepted, overflow]


def test_a_forged_flood_stays_within_the_limit(store: Store) -> None:
    """However many ids are made up, in whatever batches, no more than the limit ever waits."""
    door = BoundedInbox(50)
    for start in range(0, 600, 37):
        batch = [new(n) for n in range(start, start + 37)]
        store.run(lambda unit, batch=batch: door.accept(unit, batch))  # type: ignore[misc]
        if start % 3 == 0:
            for claimed in claim(store, limit=5):
                end_try(store, claimed, DeliveryState.REJECTED)
        assert store.run(lambda unit: count_waiting(unit.connection)) <= 50


def test_a_limit_of_nothing_takes_nothing(store: Store) -> None:
    """With no room at all each delivery becomes a catch-up poll."""
    assert take(store, new(1), limit=0) == [Acceptance.OVERFLOW]


@pytest.mark.parametrize(
    ("state", "doubted"),
    [
        (DeliveryState.RECEIVED, (True, True, True)),
        (DeliveryState.FETCHING, (True, True, True)),
        (DeliveryState.RETRY, (True, True, True)),
        (DeliveryState.BLOCKED, (True, True, True)),
        (DeliveryState.DEAD, (True, True, False)),
        (DeliveryState.UNVERIFIED, (False, False, False)),
        (DeliveryState.APPLIED, (False, False, False)),
        (DeliveryState.REJECTED, (False, False, False)),
        (DeliveryState.EXPIRED, (False, False, False)),
    ],
)
def test_what_an_inbox_leaves_in_doubt(store: Store, state: DeliveryState, doubted: tuple[bool, ...]) -> None:
    """All servers of an account while a delivery waits, and after a dead one those that no whole poll began after."""
    put_in(store, state)
    known = store.run(lambda unit: deliveries.doubts(unit.connection))
    assert tuple(known.concern("main", polled) for polled in (None, NOW - 1, NOW)) == doubted
    assert not known.concern("other", None)


def test_the_newest_of_what_was_missed_has_to_be_made_up_for(store: Store) -> None:
    """What did not fit into the inbox, and what is dead there, whichever came last."""
    put_in(store, DeliveryState.DEAD, 1)
    put_in(store, DeliveryState.DEAD, 2, at=NOW + 20)
    since = []
    for event_id, at in ((3, NOW + 10), (4, NOW + 30)):
        assert take(store, new(event_id, at=at), limit=0) == [Acceptance.OVERFLOW]
        since.append(store.run(lambda unit: deliveries.doubts(unit.connection)).catch_up_since)
    assert since == [{"main": NOW + 20}, {"main": NOW + 30}]
    known = store.run(lambda unit: deliveries.doubts(unit.connection))
    assert known.waiting == frozenset()
    assert [known.concern("main", polled) for polled in (None, NOW + 29, NOW + 30)] == [True, True, False]


def test_those_never_tried_go_first(store: Store) -> None:
    """A claim takes the untried in the order of their arrival, then those that failed before."""
    take(store, new(1), new(2))
    for claimed in claim(store):
        end_try(store, claimed, DeliveryState.RETRY, attempts=1, next_attempt_at=NOW)
    take(store, new(3), new(4), new(5, "other"))
    assert [row.event_id for row in claim(store, limit=3)] == [3, 4, 1]
    assert [row.event_id for row in claim(store)] == [2]
    assert [row.event_id for row in claim(store, account="other")] == [5]


@pytest.mark.parametrize("state", DeliveryState)
def test_only_what_is_due_is_claimed(store: Store, state: DeliveryState) -> None:
    """Received ones at once, retries in their time, expired claims after their lease, the rest never."""
    put_in(store, state)
    due = {
        DeliveryState.RECEIVED: (True, False),
        DeliveryState.RETRY: (False, True),
        DeliveryState.UNVERIFIED: (False, True),
        DeliveryState.FETCHING: (False, True),
    }.get(state, (False, False))
    assert (bool(claim(store, NOW + 59)), bool(claim(store, NOW + 100))) == due


@pytest.mark.promise("late-worker")
def test_a_claim_ends_with_its_lease(store: Store) -> None:
    """A worker that does not finish in time loses the delivery to the next one."""
    take(store, new())
    (first,) = claim(store, lease=60)
    assert claim(store, NOW + 59.9) == []
    (second,) = claim(store, NOW + 60)
    assert second.id == first.id
    assert second.claim != first.claim


@pytest.mark.promise("late-worker")
@pytest.mark.parametrize("state", [DeliveryState.APPLIED, DeliveryState.RETRY, DeliveryState.DEAD])
def test_a_late_worker_writes_nothing(store: Store, state: DeliveryState) -> None:
    """A claim that was taken over fences: nothing of the late one holds, before or after the other ends."""
    take(store, new())
    (late,) = claim(store)
    (current,) = claim(store, NOW + 60)
    held = rows(store)

    def work(unit: Unit) -> None:
        unit.connection.execute(inbox.update().values(identifier="late"))
        deliveries.end_try(unit, late, state, now=NOW + 61)

    with pytest.raises(ClaimLost):
        store.run(work)
    assert rows(store) == held
    end_try(store, current, DeliveryState.APPLIED, NOW + 62)
    applied = rows(store)
    with pytest.raises(ClaimLost):
        store.run(work)
    assert rows(store) == applied


def test_the_fence_needs_the_state_too(store: Store) -> None:
    """What ended or was dropped meanwhile is not brought back by an old claim."""
    take(store, new())
    (claimed,) = claim(store)
    end_try(store, claimed, DeliveryState.APPLIED)
    with pytest.raises(ClaimLost):
        end_try(store, claimed, DeliveryState.RETRY)
    store.run(lambda unit: deliveries.drop(unit, claimed.id))
    with pytest.raises(ClaimLost):
        end_try(store, claimed, DeliveryState.RETRY)


def test_settling_keeps_what_it_is_told(store: Store) -> None:
    """State, attempts, time, server, error and body are as the worker says; the claim is gone."""
    take(store, new())
    (claimed,) = claim(store)
    end_try(
        store,
        claimed,
        DeliveryState.RETRY,
        NOW + 1,
        attempts=4,
        next_attempt_at=NOW + 9,
        server_id=7,
        error="e",
        body=b"\x00\xff",
    )
    found = store.run(lambda unit: deliveries.get(unit.connection, claimed.id))
    assert found is not None
    row, body = found
    assert (row.state, row.attempts, row.next_attempt_at) == (DeliveryState.RETRY, 4, NOW + 9)
    assert (row.server_id, row.last_error, row.claim, row.updated_at, body) == (7, "e", None, NOW + 1, b"\x00\xff")


@pytest.mark.parametrize("state", DeliveryState)
def test_an_api_that_answers_again_hastens_what_waits_for_it(store: Store, state: DeliveryState) -> None:
    """Blocked and retried deliveries are due at once, others stay; good credentials alone free the blocked ones."""
    put_in(store, state)
    freed = store.run(lambda unit: deliveries.unblock(unit, "main"))
    assert freed == (state is DeliveryState.BLOCKED)
    hastened = store.run(lambda unit: deliveries.hasten(unit, "main"))
    waits = state in {DeliveryState.BLOCKED, DeliveryState.RETRY}
    assert hastened == waits
    assert bool(claim(store)) == (waits or state is DeliveryState.RECEIVED)


def test_only_that_account_is_hastened(store: Store) -> None:
    """Another account's deliveries wait for their own API."""
    put_in(store, DeliveryState.BLOCKED)
    assert store.run(lambda unit: deliveries.hasten(unit, "other") + deliveries.unblock(unit, "other")) == 0


def test_timers_follow_the_clock(store: Store) -> None:
    """When the clock is set, forward or back, what waits waits for as long as before."""
    put_in(store, DeliveryState.RETRY, 1)
    take(store, new(2))
    claim(store, lease=60)
    now = NOW
    for step in (40 * 86_400.0, -80 * 86_400.0):
        now += step
        store.run(lambda unit, step=step, now=now: deliveries.shift_times(unit, step, now=now))  # type: ignore[misc]
    assert [row.event_id for row in claim(store, now + 59)] == []
    assert [row.event_id for row in claim(store, now + 60)] == [2]
    assert [row.event_id for row in claim(store, now + 100)] == [1]


def test_a_clock_that_was_set_back_unseen_stops_nothing(store: Store) -> None:
    """After a start with a clock 40 days back, nothing waits for more than a day, and nothing was received later."""
    put_in(store, DeliveryState.RETRY, 1)
    take(store, new(2))
    claim(store)
    now = NOW - 40 * 86_400.0
    store.run(lambda unit: deliveries.shift_times(unit, 0.0, now=now))
    assert {row.received_at for row in rows(store)} == {now}
    assert [row.event_id for row in claim(store, now + deliveries.LONGEST_LEASE)] == [2]
    assert [row.event_id for row in claim(store, now + deliveries.LONGEST_WAIT)] == [2, 1]


def test_what_waits_for_an_account_that_is_not_configured_is_set_aside(store: Store) -> None:
    """It fills the inbox no more, and is due as it came once the account is back; what ended is left as it is."""
    take(store, new(1, "gone"), new(2, "gone"), new(3))
    (first,) = claim(store, account="gone", limit=1)
    end_try(store, first, DeliveryState.RETRY, attempts=2, next_attempt_at=NOW + 60)
    (second,) = claim(store, account="gone", limit=1)

    def follow(*configured: str) -> int:
        return store.run(lambda unit: deliveries.follow_accounts(unit, configured, now=NOW))

    assert (follow("main"), follow("main")) == (2, 0)
    assert states(store) == [DeliveryState.EXPIRED, DeliveryState.EXPIRED, DeliveryState.RECEIVED]
    assert store.run(lambda unit: count_waiting(unit.connection)) == 1
    with pytest.raises(ClaimLost):
        end_try(store, second, DeliveryState.APPLIED)
    assert follow("main", "gone") == 0
    assert states(store) == [DeliveryState.RECEIVED] * 3
    assert {one.event_id for one in claim(store, account="gone")} == {1, 2}
    end_try(store, claim(store)[0], DeliveryState.EXPIRED)
    follow("main", "gone")
    assert states(store)[2] is DeliveryState.EXPIRED


def test_a_restart_frees_what_was_being_fetched(store: Store) -> None:
    """After a restart of the only process its claims are void."""
    take(store, new(1), new(2))
    (claimed,) = claim(store, limit=1)
    assert store.run(deliveries.release_claims) == 1
    assert [row.event_id for row in claim(store)] == [1, 2]
    with pytest.raises(ClaimLost):
        end_try(store, claimed, DeliveryState.APPLIED)


@pytest.mark.parametrize("state", DeliveryState)
def test_replaying_makes_a_delivery_due_anew(store: Store, state: DeliveryState) -> None:
    """Whatever became of it, it is received again, once, as of its reception; one that is being fetched stays."""
    before = put_in(store, state)
    replayed = store.run(lambda unit: deliveries.replay(unit, before.id, now=NOW + 5))
    assert replayed == store.run(lambda unit: deliveries.replay(unit, before.id, now=NOW + 5))
    assert replayed is not None
    if state is DeliveryState.FETCHING:
        assert replayed == before
        return
    assert (replayed.state, replayed.attempts, replayed.last_error) == (DeliveryState.RECEIVED, 0, None)
    assert replayed.received_at == NOW
    assert [row.id for row in claim(store)] == [before.id]


def test_what_is_not_there_can_be_neither_replayed_nor_dropped(store: Store) -> None:
    """Unknown ids are told as such."""
    assert store.run(lambda unit: deliveries.replay(unit, 5, now=NOW)) is None
    assert store.run(lambda unit: deliveries.drop(unit, 5)) is False
    assert store.run(lambda unit: deliveries.get(unit.connection, 5)) is None


def test_a_dropped_delivery_is_gone_and_its_id_is_not_reused(store: Store) -> None:
    """Dropping removes the row; the next one gets a higher id, so that no cursor is fooled."""
    row = put_in(store, DeliveryState.DEAD)
    assert store.run(lambda unit: deliveries.drop(unit, row.id)) is True
    take(store, new(9))
    assert rows(store)[0].id > row.id


def test_the_inbox_is_counted_by_state(store: Store) -> None:
    """The census tells how many are in each state and when the oldest was received."""
    put_in(store, DeliveryState.DEAD, 1)
    take(store, new(2, at=NOW + 2), new(3, at=NOW + 1))
    found = {c.state: (c.count, c.oldest) for c in store.run(lambda unit: deliveries.census(unit.connection))}
    assert found == {"dead": (1, NOW), "received": (2, NOW + 1)}


def test_an_inbox_is_read_in_pages(store: Store) -> None:
    """Pages go by id; what comes after the last one seen is the next page."""
    take(store, *(new(n) for n in range(1, 6)))
    first = store.run(lambda unit: deliveries.page(unit.connection, after=0, limit=2))
    second = store.run(lambda unit: deliveries.page(unit.connection, after=first[-1].id, limit=10))
    assert [row.event_id for row in first + second] == [1, 2, 3, 4, 5]
