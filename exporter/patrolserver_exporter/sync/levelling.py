"""What a look at a shared database means for who polls what: the accounts that this exporter takes or gives back.

How many each should have is told by `shares`, and who can reach an account's API by `ways`.
"""

from __future__ import annotations

import logging
from collections import Counter
from typing import TYPE_CHECKING, Final

from patrolserver_exporter import __version__
from patrolserver_exporter.lasting import LastingTrouble
from patrolserver_exporter.patrolserver.errors import FailureReason
from patrolserver_exporter.store.lease_rows import COMMON
from patrolserver_exporter.sync.health import Trouble
from patrolserver_exporter.sync.shares import Seen, Shares
from patrolserver_exporter.sync.ways import Standing, Ways, may_be_the_way

if TYPE_CHECKING:
    from collections.abc import Collection, Hashable, Mapping, Sequence

    from patrolserver_exporter.clock import Clock
    from patrolserver_exporter.config.schema import Account
    from patrolserver_exporter.live.own_metrics import Telemetry
    from patrolserver_exporter.store import StoreError
    from patrolserver_exporter.store.fleet import AccountRecord
    from patrolserver_exporter.store.lease_rows import Holder
    from patrolserver_exporter.sync.account import RunningAccount
    from patrolserver_exporter.sync.follower import Found

log = logging.getLogger(__name__)

_LEFT_OUT_FOR: Final = 60.0
"""Seconds for which an account that could not be taken, since what is stored of it is damaged, is not tried again."""


class Levelling:
    """Decides by what each look has found; taking is what the leases decide. ``owner`` is this exporter's id."""

    def __init__(self, owner: str, telemetry: Telemetry, clock: Clock) -> None:
        self._owner = owner
        self._telemetry = telemetry
        self._clock = clock
        self._shares = Shares(owner, __version__)
        self._left_out: dict[str, float] = {}
        """Free accounts that cannot be taken, and when each is tried again (monotonic seconds)."""
        self._untaken = LastingTrouble(log, clock, logging.ERROR)
        self._kept = LastingTrouble(log, clock)

    def look(self, found: Found, configured: Sequence[Account], mine: Mapping[str, RunningAccount]) -> Seen:
        """What has been found of the accounts that are ``configured``; ``mine`` are those that this exporter polls."""
        now = self._clock.monotonic()
        names = sorted(one.name for one in configured)
        free = [name for name in names if name not in mine and self._is_free(name, found)]
        self._left_out = {name: until for name, until in self._left_out.items() if name in free}
        if not self._left_out:
            self._untaken.is_over("Accounts can be taken again")
        held = Counter(
            holder.owner
            for name, holder in found.holders.items()
            if holder.owner is not None and not holder.is_free and name[:1] not in {"", "/"}
        )
        untried = [name for name in free if self._left_out.get(name, now) <= now]
        ways = self._ways(found, configured, mine)
        return Seen(found.living, {**held, self._owner: len(mine)}, untried, ways)

    def _ways(self, found: Found, configured: Sequence[Account], mine: Mapping[str, RunningAccount]) -> Ways:
        records = found.records or {}
        states = (record.state for record in records.values())
        if not any(state.trouble or state.given_up for state in states) and not any(map(_fails, mine.values())):
            # Nearly always.
            return Ways()
        standings = {}
        for one in configured:
            record, holder, account = records.get(one.name), found.holders.get(one.name), mine.get(one.name)
            way = one.api_url, None if one.proxy_url is None else one.proxy_url.reveal()
            is_up, given_up = (False, ()) if record is None else (bool(record.up), record.state.given_up)
            if account is not None:
                # What is stored of it may be newer than what was read last.
                standing, fails = account.standing, _fails(account)
                answered_at = self._clock.now() if standing.list_was_tried and not fails else None
                is_up = standing.trouble is Trouble.NONE
                standings[one.name] = Standing(way, self._owner, answered_at, is_up, fails, given_up)
            elif record is None or holder is None or holder.is_free or holder.owner == self._owner:
                standings[one.name] = Standing(way, None, None, is_up, fails=False, given_up=given_up)
            else:
                standings[one.name] = standing_elsewhere(way, holder, record, self._clock.now())
        return Ways(standings, self._clock.now())

    def take(self, seen: Seen) -> list[str]:
        """The accounts that this exporter takes now."""
        return self._shares.take(seen, self._clock.monotonic())

    def takes_common(self, seen: Seen, found: Found) -> bool:
        """Whether it takes what belongs to no account."""
        return self._shares.may_take(seen) and self._is_free(COMMON, found)

    def give(self, seen: Seen, mine: Collection[str], config: str) -> list[str]:
        """The accounts that it gives back now; ``config`` is the mark of its configuration."""
        return self._shares.give(seen, mine, config, self._clock.monotonic())

    def give_up(self, seen: Seen, mine: Mapping[str, RunningAccount], config: str) -> dict[str, int]:
        """The accounts that it gives to somebody who may reach their API, since it cannot, and how often it did so.

        ``config`` as with `give`.
        """
        failing = {name: one.unreached for name, one in mine.items()}
        unreached = {name: one for name, one in failing.items() if one is not None and one.is_lasting}
        given = self._shares.give_up(seen, unreached, config)
        kept = sorted(unreached.keys() - given)
        if kept and len(seen.living) > 1:
            self._kept.lasts(
                "This exporter cannot reach the API of these accounts, and keeps them: no other one on this database "
                "seems to reach it, or one has just tried",
                accounts=" ".join(kept),
            )
        elif not kept:
            self._kept.is_over("No account is kept any more whose API cannot be reached from here")
        return {name: seen.ways.times(name, self._owner) for name in given}

    def leave_out(self, name: str, error: StoreError) -> None:
        """Do not try this account again for a while, since that would fail again and again."""
        self._telemetry.error("store")
        self._left_out[name] = self._clock.monotonic() + _LEFT_OUT_FOR
        self._shares.cannot_be_taken([name])
        self._untaken.lasts(
            "Accounts that no exporter polls cannot be taken, since what is stored of one is damaged",
            accounts=" ".join(sorted(self._left_out)),
            err=str(error),
        )

    def _is_free(self, name: str, found: Found) -> bool:
        holder = found.holders.get(name)
        return holder is None or holder.is_free or holder.owner == self._owner


def _fails(account: RunningAccount) -> bool:
    return account.unreached is not None


def standing_elsewhere(way: Hashable, holder: Holder, record: AccountRecord, now: float) -> Standing:
    """How an account stands that another exporter polls."""
    state, is_up = record.state, bool(record.up)
    reason = None if state.trouble_reason is None else FailureReason(state.trouble_reason)
    answered_at = None
    fails = False
    if is_up:
        succeeded_at = record.last_success_at
        answered_at = succeeded_at if succeeded_at is not None and succeeded_at >= holder.since else None
    elif state.list_failures:
        # Otherwise it was just given up, and the new owner has not tried.
        fails = may_be_the_way(reason) and state.paused_until is None
        answered_at = None if fails else now
    return Standing(way, holder.owner, answered_at, is_up, fails, state.given_up)
