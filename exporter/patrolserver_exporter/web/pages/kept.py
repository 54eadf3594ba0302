"""What is dear to read and may be some seconds old, kept for all clients together."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from patrolserver_exporter.clock import Clock

K = TypeVar("K")
V = TypeVar("V")
_MOST = 4
"""Values that are kept: the newest questions."""


class Kept(Generic[K, V]):
    """Keeps each answer for ``seconds``. One is read at a time, so that many clients cost what one does."""

    def __init__(self, clock: Clock, seconds: float) -> None:
        self._clock = clock
        self._seconds = seconds
        self._lock = asyncio.Lock()
        self._found: dict[K, tuple[float, V]] = {}

    async def get(self, key: K, read: Callable[[], Awaitable[V]]) -> V:
        """The answer, read if none is kept; raises what the reading raises."""
        async with self._lock:
            now = self._clock.monotonic()
            self._found = {key: kept for key, kept in self._found.items() if now - kept[0] <= self._seconds}
            if key not in self._found:
                while len(self._found) >= _MOST:
                    del self._found[next(iter(self._found))]
                self._found[key] = now, await read()
                asyncio.get_running_loop().call_later(2 * self._seconds, self._forget, key)
            return self._found[key][1]

    def _forget(self, key: K) -> None:
        """What nobody asks for any more takes no memory."""
        kept = self._found.get(key)
        if kept is not None and self._clock.monotonic() - kept[0] > self._seconds:
            del self._found[key]
