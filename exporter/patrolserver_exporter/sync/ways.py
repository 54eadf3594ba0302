"""Which exporters can reach which accounts' APIs, as far as the store tells: each has its own network and proxy.

An owner that cannot reach an account's API gives the account up: others take it as any that is given back. Whether the
API or the way to it is down nobody knows, so nothing here has to be right at once. It only has to end well:

- **One that gave an account up gets it back after a pause** at the earliest, and each time the pause is twice as long,
  up to an hour. So where the API is down for all, an account moves rarely, and rests in between.
- **A new owner tries by itself**: what the one before has failed with counts for nothing.
- **What an exporter's other accounts tell counts, too.** Nothing more falls to one whose accounts on the same way all
  fail, or which gave one up and polls none. After its pause it gets one account to try, until that is answered.
- **Where that leaves nobody**, what is free falls to anybody, as ever.

A *way* is an API's address with the proxy that leads there: what one account on it tells, holds for the others.
"""

from __future__ import annotations

from enum import IntEnum
from typing import TYPE_CHECKING, Final, NamedTuple

from patrolserver_exporter.patrolserver.errors import FailureReason, PatrolServerError
from patrolserver_exporter.store.fleet import GivenUp

if TYPE_CHECKING:
    from collections.abc import Collection, Hashable, Mapping, Sequence

CALLS: Final = 3
"""List calls in a row that fail before an account is given up."""
AFTER: Final = 20.0
"""Seconds that they fail at least: most troubles are over by then."""
LAST_RESORT: Final = 600.0
"""Seconds after which an account is given to an exporter whose other accounts fail, too: they may do so for reasons of
their own. One that has tried it in vain before is given it after `LONGEST_PAUSE`."""
FIRST_PAUSE: Final = 300.0
"""Seconds for which one that gave an account up does not get it back, the first time."""
LONGEST_PAUSE: Final = 3600.0
REMEMBERED_FOR: Final = 7200.0
"""Seconds after such a pause for which it is known that there was one."""
_KEPT: Final = 32
"""Exporters that are remembered of an account, at most: one that starts again is another one."""

_OF_THE_WAY: Final = frozenset(
    {
        FailureReason.TIMEOUT,
        FailureReason.CONNECT,
        FailureReason.TLS,
        FailureReason.DNS,
        FailureReason.SERVER_ERROR,
        # What a proxy or a portal in between may say in place of the API.
        FailureReason.REDIRECT,
        FailureReason.UNREADABLE,
        FailureReason.OTHER_STATUS,
    }
)
"""Other failures are the API's own words, which every exporter would hear."""


class Unreached(NamedTuple):
    """An account's list calls fail, and that may be for the way to its API."""

    calls: int
    """In a row, by this process."""
    seconds: float
    """Since the first of them."""

    @property
    def is_lasting(self) -> bool:
        """Whether somebody else should try."""
        return self.calls >= CALLS and self.seconds >= AFTER

    @property
    def bears(self) -> Against:
        """What may speak against somebody who is to try: the more, the longer this lasts."""
        if self.seconds >= LONGEST_PAUSE:
            return Against.IN_DOUBT_AND_BEFORE
        return Against.IN_DOUBT if self.seconds >= LAST_RESORT else Against.GAVE_IT_UP_BEFORE


class Standing(NamedTuple):
    """How an account stands with its owner."""

    way: Hashable
    owner: str | None
    answered_at: float | None
    """When the API last answered a list call of this owner, be it with a refusal; ``None`` where it did not answer the
    last one, or there was none yet. Seconds since the epoch."""
    is_up: bool
    """The last list call succeeded, whoever made it."""
    fails: bool
    """It failed, for what may be the way."""
    given_up: tuple[GivenUp, ...]


class Against(IntEnum):
    """What speaks against that an exporter takes an account, from nothing to the most."""

    NOTHING = 0
    GAVE_IT_UP_BEFORE = 1
    """It got a pause for that, which is over, and nobody has reached the API since."""
    IN_DOUBT = 2
    """It seems that it cannot reach the API."""
    IN_DOUBT_AND_BEFORE = 3
    GAVE_IT_UP = 4
    """Its pause lasts."""


def may_be_the_way(reason: FailureReason | None) -> bool:
    """Whether a call that failed so may succeed from elsewhere."""
    return reason in _OF_THE_WAY


def lost_way(error: PatrolServerError) -> bool:
    """The same of an error; one that asks to call later is the API's own word."""
    return may_be_the_way(error.reason) and not error.retry_after


def note_given_up(before: Sequence[GivenUp], owner: str, now: float, *, times: int) -> tuple[GivenUp, ...]:
    """What is known of those that gave an account up, when ``owner`` does so, as `Ways.times` has it.

    ``now`` is seconds since the epoch.
    """
    pause = min(FIRST_PAUSE * 2.0 ** min(times - 1, 40), LONGEST_PAUSE)
    others = [one for one in before if one.owner != owner and _is_remembered(one, now)]
    return (*others[-_KEPT + 1 :], GivenUp(owner=owner, until=now + pause, times=times))


def _is_remembered(one: GivenUp, now: float) -> bool:
    # One that ends later than any pause is of before the clock was set back.
    return one.until - LONGEST_PAUSE <= now < one.until + REMEMBERED_FOR


class _Seen(NamedTuple):
    """What accounts of one way tell of an exporter."""

    answered_at: float | None
    """When the API last answered it; ``None`` where it does so for none of them."""
    some_fail: bool
    fails: bool
    """It has some, and all of them fail."""
    lacks: bool
    """It gave one up, and its pause lasts."""
    has_some: bool
    gave_up: bool
    """It is remembered for one that it gave up."""


class Ways:
    """What the accounts tell of the exporters at one moment; ``now`` is seconds since the epoch."""

    def __init__(self, standings: Mapping[str, Standing] | None = None, now: float = 0.0) -> None:
        self._standings = standings or {}
        self._now = now
        self._tells = any(one.fails or one.given_up for one in self._standings.values())
        self._exporters: dict[tuple[str, Hashable], _Seen] = {}
        self._answered = {one.owner for one in self._standings.values() if one.answered_at is not None}
        """Exporters whose network is there."""

    def against(self, account: str, owner: str, also: Collection[str] = ()) -> Against:
        """What speaks against that this exporter takes the account, if it takes those, ``also``."""
        standing = self._standings.get(account)
        if standing is None or not self._tells:
            return Against.NOTHING
        gave_up = next((one for one in standing.given_up if one.owner == owner), None)
        if gave_up is not None and self._lasts(gave_up):
            return Against.GAVE_IT_UP
        before = gave_up is not None and not standing.is_up and _is_remembered(gave_up, self._now)
        if self._is_in_doubt(owner, standing.way, also):
            return Against.IN_DOUBT_AND_BEFORE if before else Against.IN_DOUBT
        return Against.GAVE_IT_UP_BEFORE if before else Against.NOTHING

    def fails(self, account: str) -> bool:
        """Whether its owner cannot reach its API, as far as is known."""
        standing = self._standings.get(account)
        return standing is not None and standing.fails

    def may_give_up(self, account: str, owner: str) -> bool:
        """Whether its owner may give it up now, if somebody else is there for it.

        Where others are answered, its network is there. If somebody gave the same account up a while ago, it is the API
        that fails, and one more would only find the same.
        """
        standing = self._standings.get(account)
        if standing is None or not any(self._lasts(one) for one in standing.given_up if one.owner != owner):
            return True
        return owner not in self._answered

    def times(self, account: str, owner: str) -> int:
        """How often its owner has given up accounts of that way if it does so now; several in one pause count once."""
        standing = self._standings.get(account)
        marks = [
            one
            for on_way in self._standings.values()
            if standing is not None and on_way.way == standing.way
            for one in on_way.given_up
            if one.owner == owner and _is_remembered(one, self._now)
        ]
        return max((one.times if self._lasts(one) else one.times + 1 for one in marks), default=1)

    def is_known(self, account: str, owner: str, seconds: float) -> bool:
        """Whether it is known how this exporter fares within so many seconds, if it has accounts on the same way.

        Where the API is down for all, some only find it a minute later.
        """
        standing = self._standings.get(account)
        if standing is None:
            return True
        seen = self._seen(owner, standing.way)
        return not seen.has_some or seen.some_fail or (seen.answered_at or 0.0) >= self._now - seconds

    def _lasts(self, one: GivenUp) -> bool:
        return _is_remembered(one, self._now) and self._now < one.until

    def _is_in_doubt(self, owner: str, way: Hashable, also: Collection[str]) -> bool:
        seen = self._seen(owner, way)
        if seen.answered_at is not None:
            return False
        tries_one = seen.has_some or any(self._standings[name].way == way for name in also if name in self._standings)
        return seen.fails or seen.lacks or (seen.gave_up and tries_one)

    def _seen(self, owner: str, way: Hashable) -> _Seen:
        if (owner, way) not in self._exporters:
            self._exporters[owner, way] = self._look_at(owner, way)
        return self._exporters[owner, way]

    def _look_at(self, owner: str, way: Hashable) -> _Seen:
        on_way = [one for one in self._standings.values() if one.way == way]
        has = [one for one in on_way if one.owner == owner]
        gave_up = [
            one
            for standing in on_way
            for one in standing.given_up
            if one.owner == owner and _is_remembered(one, self._now)
        ]
        return _Seen(
            answered_at=max((one.answered_at for one in has if one.answered_at is not None), default=None),
            some_fail=any(one.fails for one in has),
            fails=bool(has) and all(one.fails for one in has),
            lacks=any(map(self._lasts, gave_up)),
            has_some=bool(has),
            gave_up=bool(gave_up),
        )
