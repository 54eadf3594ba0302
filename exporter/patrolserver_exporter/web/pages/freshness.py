"""How fresh the whole fleet's data is: read in small units, so that no delivery waits for it, and kept for a while."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from patrolserver_exporter.store.pages import PollState, poll_states

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from patrolserver_exporter.clock import Clock
    from patrolserver_exporter.store import Store

OLD = 86_400.0
"""Seconds after which a server's data is called old; the gate's own default."""
_KEPT = 15.0
_UNIT = 1000


@dataclass(frozen=True, slots=True)
class Freshness:
    """Servers by what their polls did; one may be both ``failed`` and ``old``."""

    never: int = 0
    """Not polled with success yet."""
    failed: int = 0
    """Polled before, but the last poll failed."""
    old: int = 0
    """The last successful poll is longer ago than `OLD`."""
    oldest_at: float | None = None
    """The least recent successful poll, in seconds since the epoch."""

    def __add__(self, other: Freshness) -> Freshness:
        oldest = min((at for at in (self.oldest_at, other.oldest_at) if at is not None), default=None)
        return Freshness(self.never + other.never, self.failed + other.failed, self.old + other.old, oldest)


def of_server(state: PollState, now: float) -> Freshness:
    """Judge one server."""
    if state.last_poll_at is None:
        return Freshness(never=1)
    return Freshness(0, int(not state.poll_success), int(now - state.last_poll_at > OLD), state.last_poll_at)


def by_account(states: Iterable[PollState], now: float) -> dict[str, Freshness]:
    """Judge servers, each for its account."""
    found: dict[str, Freshness] = defaultdict(Freshness)
    for state in states:
        found[state.account] += of_server(state, now)
    return dict(found)


@dataclass(slots=True)
class FreshnessReader:
    """Reads the freshness of all servers, at most every 15 seconds however many ask."""

    store: Store
    clock: Clock
    _lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    _read_at: float | None = None
    _found: Mapping[str, Freshness] = field(default_factory=dict)

    async def read(self) -> Mapping[str, Freshness]:
        """Return it by account; raises ``StoreError``."""
        async with self._lock:
            if self._read_at is None or self.clock.monotonic() - self._read_at > _KEPT:
                self._found = await self._read_anew()
                self._read_at = self.clock.monotonic()
            return self._found

    async def _read_anew(self) -> dict[str, Freshness]:
        now, after = self.clock.now(), None
        found: dict[str, Freshness] = defaultdict(Freshness)
        while True:
            states = await self._unit(after)
            for account, fresh in by_account(states, now).items():
                found[account] += fresh
            if len(states) < _UNIT:
                return dict(found)
            after = states[-1].account, states[-1].server_id

    async def _unit(self, after: tuple[str, int] | None) -> list[PollState]:
        future = self.store.submit(lambda unit: poll_states(unit.connection, after, _UNIT))
        return await asyncio.wrap_future(future)
