"""What a look at a shared database means for who polls what: the accounts that this exporter takes or gives back.

How many each should have is told by `shares`.
"""

from __future__ import annotations

import logging
from collections import Counter
from typing import TYPE_CHECKING, Final

from patrolserver_exporter import __version__
from patrolserver_exporter.lasting import LastingTrouble
from patrolserver_exporter.store.lease_rows import COMMON
from patrolserver_exporter.sync.shares import Seen, Shares

if TYPE_CHECKING:
    from collections.abc import Collection

    from patrolserver_exporter.clock import Clock
    from patrolserver_exporter.live.own_metrics import Telemetry
    from patrolserver_exporter.store import StoreError
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

    def look(self, found: Found, configured: Collection[str], mine: Collection[str]) -> Seen:
        """What has been found of the accounts that are ``configured``; ``mine`` are those that this exporter polls."""
        now = self._clock.monotonic()
        free = [name for name in sorted(configured) if name not in mine and self._is_free(name, found)]
        self._left_out = {name: until for name, until in self._left_out.items() if name in free}
        if not self._left_out:
            self._untaken.is_over("Accounts can be taken again")
        held = Counter(
            holder.owner
            for name, holder in found.holders.items()
            if holder.owner is not None and not holder.is_free and name[:1] not in {"", "/"}
        )
        untried = [name for name in free if self._left_out.get(name, now) <= now]
        return Seen(found.living, {**held, self._owner: len(mine)}, untried)

    def take(self, seen: Seen) -> list[str]:
        """The accounts that this exporter takes now."""
        return self._shares.take(seen, self._clock.monotonic())

    def takes_common(self, seen: Seen, found: Found) -> bool:
        """Whether it takes what belongs to no account."""
        return self._shares.may_take(seen) and self._is_free(COMMON, found)

    def give(self, seen: Seen, mine: Collection[str], config: str) -> list[str]:
        """The accounts that it gives back now; ``config`` is the mark of its configuration."""
        return self._shares.give(seen, mine, config, self._clock.monotonic())

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
