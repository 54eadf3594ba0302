"""Who polls an account whose API some exporters cannot reach: case by case, and many of them in a model."""

from __future__ import annotations

import dataclasses
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tests.unit.sync.sharing import LOOKS_EVERY, Kind, Model, living

from patrolserver_exporter.patrolserver.errors import (
    ApiError,
    ConnectionFailed,
    NameNotResolved,
    NotFound,
    PatrolServerError,
    RateLimited,
    RedirectRefused,
    Refused,
    ServerFailure,
    TimedOut,
    TlsFailed,
    UnexpectedStatus,
    Unreadable,
)
from patrolserver_exporter.store.fleet import AccountRecord, AccountState, GivenUp
from patrolserver_exporter.store.lease_rows import Holder
from patrolserver_exporter.store.replicas import LEAVES
from patrolserver_exporter.sync.health import Health, Trouble
from patrolserver_exporter.sync.levelling import standing_elsewhere
from patrolserver_exporter.sync.shares import CALM, LONGEST, Seen, Shares
from patrolserver_exporter.sync.ways import (
    AFTER,
    CALLS,
    FIRST_PAUSE,
    LAST_RESORT,
    LONGEST_PAUSE,
    REMEMBERED_FOR,
    Against,
    Standing,
    Unreached,
    Ways,
    note_given_up,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from patrolserver_exporter.store.replicas import Replica

CALLS_EVERY = 60.0
WAITS = (5.0, 10.0, 20.0, 40.0, 60.0)
"""Seconds from a list call that fails to the next."""
HOUR = 3600.0
RESTS = 8.0
"""Seconds from one look to the next that is made while nothing happens, in the model."""


@dataclasses.dataclass
class Polled:
    """An account in the model."""

    way: int
    answered_at: float | None = None
    is_up: bool = True
    fails: bool = False
    calls: int = 0
    since: float = 0.0
    taken: int = 0
    last_success: float = 0.0
    moves: list[float] = dataclasses.field(default_factory=list)
    given_up: tuple[GivenUp, ...] = ()


class Ridden(Model):
    """The same with an API, which not all reach. ``ways``: that of each account."""

    def __init__(self, kinds: Sequence[Kind], ways: Sequence[int]) -> None:
        super().__init__(kinds, len(ways))
        self.accounts = {name: Polled(way) for name, way in zip(sorted(self.owners), ways, strict=True)}
        self.cut: set[tuple[int, str]] = set()
        """Exporters with the accounts whose API they do not reach."""
        self.came: Counter[int] = Counter()
        """How many accounts came to each exporter."""
        self._moved_at = 0.0

    def outage(self, _now: float, cut: set[tuple[int, str]]) -> None:
        """From now on, these do not reach it, and all others do."""
        self.cut = cut

    def look(self, now: float, number: int, owner: str) -> None:
        """While nothing happens only some looks are made, to be quick."""
        if self.free_since or now - self._moved_at < 3 * CALM or now % RESTS < LOOKS_EVERY:
            super().look(now, number, owner)
        else:
            self.later(now + LOOKS_EVERY, "look", number, owner)

    def seen(self, now: float) -> Seen:
        """With what the store tells of the accounts."""
        standings = {
            name: Standing(one.way, self.owners[name], one.answered_at, one.is_up, one.fails, one.given_up)
            for name, one in self.accounts.items()
        }
        return super().seen(now)._replace(ways=Ways(standings, now))

    def took(self, now: float, number: int, name: str) -> None:
        """It makes its first call at once."""
        one = self.accounts[name]
        one.taken += 1
        one.answered_at, one.fails, one.calls = None, False, 0
        one.moves.append(now)
        self.came[number] += 1
        self._moved_at = now
        self.later(now + 0.1, "call", number, name, one.taken)

    def call(self, now: float, number: int, name: str, taken: int) -> None:
        """A list call ends."""
        one = self.accounts[name]
        if one.taken != taken or self.owners[name] != self.up.get(number):
            return
        if (number, name) in self.cut:
            one.since = one.since if one.calls else now
            one.calls += 1
            one.answered_at, one.is_up, one.fails = None, False, True
            self.later(now + WAITS[min(one.calls, len(WAITS)) - 1], "call", number, name, taken)
        else:
            one.calls, one.fails, one.answered_at, one.is_up, one.last_success = 0, False, now, True, now
            self.later(now + CALLS_EVERY, "call", number, name, taken)

    def give(self, now: float, owner: str, look: Seen, mine: Sequence[str]) -> list[str]:
        """First what it cannot reach."""
        unreached = {
            name: failing
            for name in mine
            if (one := self.accounts[name]).calls and (failing := Unreached(one.calls, now - one.since)).is_lasting
        }
        given = self.shares[owner].give_up(look, unreached, "same")
        for name in given:
            one = self.accounts[name]
            one.given_up = note_given_up(one.given_up, owner, now, times=look.ways.times(name, owner))
            one.answered_at, one.fails = None, False
        given = given or super().give(now, owner, look, mine)
        self._moved_at = now if given else self._moved_at
        return given

    def begin(self) -> None:
        """Start all exporters."""
        for number in range(len(self.kinds)):
            self.later(0.0, "start", number)

    def moves_by_hour(self, name: str) -> Counter[int]:
        """How often the account came to an exporter, by the hour."""
        return Counter(int(at // HOUR) for at in self.accounts[name].moves)


KINDS = st.builds(
    Kind,
    can_take=st.just(value=True),
    phase=st.integers(0, 24).map(lambda n: n / 100),
    delay=st.integers(0, 25).map(lambda n: n / 100),
)


@st.composite
def outages(draw: st.DrawFn) -> tuple[list[Kind], list[int], set[tuple[int, str]]]:
    """Exporters, the accounts' ways, and who does not reach what."""
    kinds = draw(st.lists(KINDS, min_size=2, max_size=4))
    ways = draw(st.lists(st.integers(0, 1), min_size=1, max_size=6))
    names = [f"account{number:03}" for number in range(len(ways))]
    cut: set[tuple[int, str]] = set()
    for number in range(len(kinds)):
        # Its network, its way to one of the APIs, or single accounts.
        for way in draw(st.sets(st.integers(0, 1))):
            cut |= {(number, name) for name, its in zip(names, ways, strict=True) if its == way}
        cut |= {(number, name) for name in draw(st.sets(st.sampled_from(names), max_size=2))}
    return kinds, ways, cut


EVERYTHING_IS_MOVED = 6
"""Times an hour that an account moves for each exporter, at most."""


# Two of the four exporters that do not reach what one of the others polled have it after each other.
ONE_AFTER_THE_OTHER = (
    [
        Kind(can_take=True, phase=phase, delay=delay)
        for phase, delay in ((0.22, 0.16), (0.21, 0.21), (0.0, 0.19), (0.0, 0.0))
    ],
    [1, 1, 0, 1, 0, 0],
    {(number, f"account{account:03}") for number in range(4) for account in range(6)}
    - {(1, "account004"), *((3, f"account{account:03}") for account in range(5))},
)


@pytest.mark.slow
@settings(max_examples=8, deadline=None)
@given(outages())
@example(ONE_AFTER_THE_OTHER)
def test_an_account_ends_where_it_can_be_polled(found: tuple[list[Kind], list[int], set[tuple[int, str]]]) -> None:
    """If anybody reaches its API; and meanwhile it moves a few times an hour at most, and is never free for long.

    Each exporter that does not reach it has it once, for as long as it is the last resort of what the others fail with.
    """
    kinds, ways, cut = found
    model = Ridden(kinds, ways)
    model.begin()
    model.later(30.0, "outage", cut)
    model.run(HOUR)
    for name, one in model.accounts.items():
        without = sum((number, name) in cut for number in range(len(kinds)))
        if without < len(kinds):
            assert one.last_success > HOUR - max(without, 1) * (LAST_RESORT + 2 * CALLS_EVERY)
        assert len(one.moves) <= EVERYTHING_IS_MOVED * len(kinds)
    assert model.longest_free <= LONGEST + 3 * LOOKS_EVERY


@pytest.mark.slow
@pytest.mark.parametrize(("exporters", "accounts", "first", "later"), [(2, 1, 8, 3), (2, 4, 3, 1), (3, 6, 5, 4)])
def test_an_account_moves_rarely_while_the_api_is_down_for_all(
    exporters: int, accounts: int, first: int, later: int
) -> None:
    """A few times in the first hour, and less then; least where nobody is idle, since each one sees it by itself."""
    model = Ridden([Kind(can_take=True, phase=n / 10, delay=0.1) for n in range(exporters)], [0] * accounts)
    model.begin()
    model.later(30.0, "outage", {(number, name) for number in range(exporters) for name in model.accounts})
    model.run(3 * HOUR)
    for name in model.accounts:
        by_hour = model.moves_by_hour(name)
        assert by_hour[0] <= first
        assert max(by_hour[1], by_hour[2]) <= later


@pytest.mark.slow
def test_what_one_cannot_reach_goes_to_the_others_within_two_minutes() -> None:
    """All of it, and nothing comes back but one account now and then, to try."""
    model = Ridden([Kind(can_take=True, phase=n / 10, delay=0.1) for n in range(3)], [0] * 12)
    model.begin()
    model.later(30.0, "outage", {(0, name) for name in model.accounts})
    model.run(30.0 + 2 * CALLS_EVERY)
    assert model.loads() == [0, 6, 6]
    before = model.came[0]
    model.run(3 * HOUR)
    assert all(one.last_success > 3 * HOUR - 3 * CALLS_EVERY for one in model.accounts.values())
    assert 1 <= model.came[0] - before <= 6
    model.later(3 * HOUR, "outage", set())
    model.run(3 * HOUR + LONGEST_PAUSE + 120.0)
    assert model.loads() == [4, 4, 4]


# One by one


def standing(
    owner: str | None = "a",
    *,
    way: str = "api",
    answered_at: float | None = None,
    fails: bool = False,
    given_up: tuple[GivenUp, ...] = (),
) -> Standing:
    """An account, polled by ``a`` unless somebody else is named."""
    return Standing(way, owner, answered_at, answered_at is not None, fails, given_up)


def by(owner: str, until: float, times: int = 1) -> GivenUp:
    """Somebody who gave it up."""
    return GivenUp(owner=owner, until=until, times=times)


NOW = 100_000.0
LASTS, OVER, LONG_AGO = NOW + 60.0, NOW - 60.0, NOW - REMEMBERED_FOR - 60.0
WELL = standing("b", answered_at=NOW - 30.0)
FAILS = standing("b", fails=True)


@pytest.mark.parametrize(
    ("accounts", "against"),
    [
        ({}, Against.NOTHING),
        ({"x": standing(fails=True)}, Against.NOTHING),
        ({"x": standing(given_up=(by("b", LASTS),))}, Against.GAVE_IT_UP),
        ({"x": standing(given_up=(by("b", OVER),))}, Against.GAVE_IT_UP_BEFORE),
        ({"x": standing(given_up=(by("b", LONG_AGO),))}, Against.NOTHING),
        ({"x": standing(given_up=(by("b", NOW + 2 * LONGEST_PAUSE),))}, Against.NOTHING),
        ({"x": standing(answered_at=NOW, given_up=(by("b", OVER),))}, Against.NOTHING),
        ({"x": standing(None, given_up=(by("b", OVER),))._replace(is_up=True)}, Against.NOTHING),
        ({"x": standing(given_up=(by("c", LASTS),))}, Against.NOTHING),
        ({"x": standing(), "y": FAILS}, Against.IN_DOUBT),
        ({"x": standing(), "y": FAILS, "z": WELL}, Against.NOTHING),
        ({"x": standing(), "y": FAILS._replace(way="other")}, Against.NOTHING),
        ({"x": standing(given_up=(by("b", OVER),)), "y": FAILS}, Against.IN_DOUBT_AND_BEFORE),
        ({"x": standing(), "y": standing("c", given_up=(by("b", LASTS),))}, Against.IN_DOUBT),
        ({"x": standing(), "y": standing("c", fails=True, given_up=(by("b", LASTS),))}, Against.IN_DOUBT),
        ({"x": standing(), "y": standing("c", given_up=(by("b", LASTS),)), "z": WELL}, Against.NOTHING),
        ({"x": standing(), "y": standing("c", given_up=(by("b", OVER),))}, Against.NOTHING),
        ({"x": standing(), "y": standing("c", given_up=(by("b", OVER),)), "z": standing("b")}, Against.IN_DOUBT),
    ],
    ids=[
        "not known",
        "nothing is told of it",
        "it gave this up",
        "and its pause is over",
        "and that is long ago",
        "and the clock was set back since",
        "and its owner polls it by now",
        "or did so until it gave it back",
        "somebody else gave it up",
        "all that it has fails",
        "some that it has fails",
        "what fails is on another way",
        "all fails, and it gave this up before",
        "it gave another one up",
        "also where that fails elsewhere as well",
        "but it polls a third one",
        "it gave another one up before",
        "and it tries one already",
    ],
)
def test_what_speaks_against_an_exporter(accounts: dict[str, Standing], against: Against) -> None:
    """Of ``b``, that it takes ``x``."""
    assert Ways(accounts, NOW).against("x", "b") is against


def test_one_that_gave_something_up_gets_one_account_to_try() -> None:
    """And no second one with it."""
    ways = Ways({"x": standing(), "y": standing("c", answered_at=NOW, given_up=(by("b", OVER),)), "z": standing()}, NOW)
    assert ways.against("x", "b") is Against.NOTHING
    assert ways.against("x", "b", ["z"]) is Against.IN_DOUBT


def test_each_pause_is_twice_as_long_up_to_an_hour() -> None:
    """As long as the one before is remembered, of whatever account on the same way; others' are kept beside it."""
    given_up: tuple[GivenUp, ...] = (by("b", NOW), by("c", LONG_AGO))
    now, pauses = NOW, []
    for _ in range(6):
        times = Ways({"x": standing(), "y": standing(given_up=given_up)}, now).times("x", "a")
        given_up = note_given_up(given_up, "a", now, times=times)
        pauses.append(given_up[-1].until - now)
        now = given_up[-1].until
    assert pauses == [300.0, 600.0, 1200.0, 2400.0, 3600.0, 3600.0]
    accounts = {"x": standing(), "y": standing(given_up=given_up)}
    assert Ways(accounts, now - 1.0).times("x", "a") == 6
    assert Ways(accounts, now).times("x", "a") == 7
    assert Ways(accounts, now + REMEMBERED_FOR).times("x", "a") == 1
    assert (
        Ways(accounts, now).times("x", "c") == Ways(accounts | {"x": standing(way="other")}, now).times("x", "a") == 1
    )
    kept = note_given_up((by("b", NOW), by("c", LONG_AGO)), "a", NOW, times=1)
    assert kept == (by("b", NOW), by("a", NOW + FIRST_PAUSE))


@pytest.mark.parametrize(
    ("error", "counts"),
    [
        (TimedOut(""), True),
        (ConnectionFailed(""), True),
        (TlsFailed(""), True),
        (NameNotResolved(""), True),
        (ServerFailure("", status=502), True),
        (ServerFailure("", status=503, retry_after=60.0), False),
        (UnexpectedStatus("", status=407), True),
        (RedirectRefused("", status=302), True),
        (Unreadable(""), True),
        (Refused("", status=401), False),
        (RateLimited("", status=429), False),
        (NotFound("", status=404), False),
        (ApiError("1", "no"), False),
    ],
    ids=lambda one: type(one).__name__ if isinstance(one, Exception) else "",
)
def test_what_may_be_the_way(error: PatrolServerError, *, counts: bool) -> None:
    """What the API itself says, each exporter would hear: that counts for nothing, and ends what was counted before."""
    if isinstance(error, ServerFailure):
        error = error.at("", status=error.status, retry_after=error.retry_after)
    health = Health(lambda: 0.5)
    for number in range(CALLS):
        health.list_failed(10.0 * number, TimedOut(""))
    assert health.unreached(AFTER + 5.0) == Unreached(CALLS, AFTER + 5.0)
    health.list_failed(30.0, error)
    assert health.unreached(40.0) == (Unreached(CALLS + 1, 40.0) if counts else None)
    health.listed(50.0, 900.0)
    assert health.unreached(60.0) is None


@pytest.mark.parametrize(
    ("calls", "seconds", "lasts"), [(CALLS, AFTER, True), (CALLS - 1, AFTER, False), (CALLS, AFTER - 1.0, False)]
)
def test_a_short_trouble_moves_nothing(calls: int, seconds: float, *, lasts: bool) -> None:
    """Neither calls alone nor time alone."""
    assert Unreached(calls, seconds).is_lasting is lasts


def given_up(
    accounts: dict[str, Standing], *, seconds: float = 40.0, others: Sequence[Replica] = (living("b"),)
) -> list[str]:
    """What ``a`` gives up of ``x``, which it cannot reach for so many seconds."""
    shares, look = Shares("a", "2.0.0"), Seen([living("a"), *others], {"a": 1}, [], Ways(accounts, NOW))
    assert shares.take(look, 0.0) == []
    return shares.give_up(look, {"x": Unreached(9, seconds)}, "same")


X = standing(fails=True)


@pytest.mark.parametrize(
    ("accounts", "seconds", "others", "gives"),
    [
        ({"x": X}, 40.0, [living("b")], True),
        ({"x": X}, 40.0, [], False),
        ({"x": X}, 40.0, [living("b", config=LEAVES)], False),
        ({"x": X}, 40.0, [living("b", config="other")], False),
        ({"x": X}, 40.0, [living("b", version="1.9.9")], False),
        ({"x": X, "y": WELL}, 40.0, [living("b")], True),
        ({"x": X, "y": WELL}, 20.0, [living("b")], False),
        ({"x": X, "y": FAILS}, 40.0, [living("b")], False),
        ({"x": X, "y": FAILS}, LAST_RESORT, [living("b")], True),
        ({"x": standing(fails=True, given_up=(by("b", OVER),)), "y": FAILS}, LAST_RESORT, [living("b")], False),
        ({"x": standing(fails=True, given_up=(by("b", OVER),)), "y": FAILS}, LONGEST_PAUSE, [living("b")], True),
        ({"x": standing(fails=True, given_up=(by("b", LASTS),))}, LONGEST_PAUSE, [living("b")], False),
        ({"x": standing(fails=True, given_up=(by("b", LASTS),))}, 40.0, [living("b"), living("c")], True),
        (
            {"x": standing(fails=True, given_up=(by("b", LASTS),)), "y": standing(answered_at=NOW)},
            40.0,
            [living("b"), living("c")],
            False,
        ),
    ],
    ids=[
        "to one that is idle",
        "alone",
        "about to end",
        "another configuration",
        "older",
        "to one that has called since",
        "to one that has not called since",
        "all that it has fails",
        "for long",
        "for long, and it gave it up before",
        "for an hour",
        "its pause lasts",
        "to a third one",
        "its own network is there, and another one has failed already",
    ],
)
def test_who_cannot_reach_an_api_gives_the_account_to_somebody_who_may(
    accounts: dict[str, Standing], seconds: float, others: list[Replica], *, gives: bool
) -> None:
    """And keeps it where nobody is better off."""
    assert given_up(accounts, seconds=seconds, others=others) == (["x"] if gives else [])


@pytest.mark.parametrize(("until", "gives"), [(LASTS, []), (OVER, ["m8"]), (LONG_AGO, ["m7", "m8"])])
def test_one_that_gave_something_up_gets_no_share_before_it_is_answered(until: float, gives: list[str]) -> None:
    """Also while all accounts fail where they are now; and after its pause one at a time, to try."""
    mine = [f"m{number}" for number in range(9)]
    accounts = {name: standing(fails=True) for name in mine} | {"m0": standing(fails=True, given_up=(by("b", until),))}
    shares = Shares("a", "2.0.0")
    look = Seen([living("a"), living("b")], {"a": 9}, [], Ways(accounts, NOW))
    shares.take(look, 0.0)
    assert shares.give(look, mine, "same", CALM) == gives


@pytest.mark.parametrize(
    ("fails", "gives"),
    [(["y"], []), (["x", "y"], ["y"]), ([], ["y"])],
    ids=["another one fails", "all fail", "none fails"],
)
def test_an_account_that_is_polled_well_is_not_given_away_because_another_one_fails(
    fails: list[str], gives: list[str]
) -> None:
    """Whoever gets it may not reach its API."""
    found = {
        name: Standing("api", "a", None if name in fails else NOW, name not in fails, name in fails, ())
        for name in ("x", "y")
    }
    if fails == ["y"]:
        # Nobody else takes the one that fails.
        found["y"] = found["y"]._replace(given_up=(by("b", LASTS),), way="other")
    shares = Shares("a", "2.0.0")
    look = Seen([living("a"), living("b")], {"a": 2}, [], Ways(found, NOW))
    shares.take(look, 0.0)
    assert shares.give(look, ["x", "y"], "same", CALM) == gives


SINCE = NOW - 500.0
HOLDER = Holder("b", 1, 1, NOW + 10.0, SINCE, "", "host", 1, NOW)


def record(reason: str | None = None, *, at: float = NOW - 30.0, failures: int = 1, **state: Any) -> AccountRecord:
    """What an owner has written, who got an answer then, or of whose list calls some failed since."""
    if reason is None:
        return AccountRecord(name="x", up=True, last_success_at=at)
    trouble = Trouble.CREDENTIALS if reason == "credentials" else Trouble.UNREACHABLE
    told = AccountState(trouble=trouble, trouble_reason=reason, list_failures=failures, **state)
    return AccountRecord(name="x", up=False, last_success_at=at, state=told)


@pytest.mark.parametrize(
    ("found", "answered_at", "fails"),
    [
        (record(), NOW - 30.0, False),
        (record(at=SINCE - 30.0), None, False),
        (AccountRecord(name="x"), None, False),
        (record("timeout"), None, True),
        (record("server_error"), None, True),
        (record("server_error", paused_until=NOW + 60.0), NOW, False),
        (record("rate_limited", paused_until=NOW + 60.0), NOW, False),
        (record("credentials"), NOW, False),
        (record("timeout", failures=0), None, False),
    ],
    ids=[
        "well",
        "polled by the one before",
        "new",
        "no answer",
        "a server's error",
        "with a pause",
        "too many calls",
        "refused",
        "just given up",
    ],
)
def test_what_an_owner_writes_tells_whether_the_api_answers_it(
    found: AccountRecord, answered_at: float | None, *, fails: bool
) -> None:
    """A refusal is an answer as well: the way is there."""
    told = standing_elsewhere("api", HOLDER, found, NOW)
    assert told == Standing("api", "b", answered_at, bool(found.up), fails, ())
