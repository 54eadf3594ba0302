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
    """Keeps each answer for ``seconds``. One is read at a time, so that many clients cost what one does.

    A reading goes on when who waits for it gives up, and the next one takes what it found.
    """

    def __init__(self, clock: Clock, seconds: float) -> None:
        self._clock = clock
        self._seconds = seconds
        self._lock = asyncio.Lock()
        self._found: dict[K, tuple[float, V]] = {}
        self._reading: dict[K, asyncio.Task[V]] = {}

    async def get(self, key: K, read: Callable[[], Awaitable[V]]) -> V:
        """The answer, read if none is kept; raises what the reading raises."""
        now = self._clock.monotonic()
        self._found = {key: kept for key, kept in self._found.items() if now - kept[0] <= self._seconds}
        if key in self._found:
            return self._found[key][1]
        reading = self._reading.get(key)
        if reading is None:
            reading = self._reading[key] = asyncio.create_task(self._read(key, read))
            reading.add_done_callback(lambda ended: self._ended(key, ended))
        await asyncio.wait({reading})
        return reading.result()

    async def _read(self, key: K, read: Callable[[], Awaitable[V]]) -> V:
        async with self._lock:
            began = self._clock.monotonic()
            answer = await read()
            while len(self._found) >= _MOST:
                del self._found[next(iter(self._found))]
            self._found[key] = began, answer
            asyncio.get_running_loop().call_later(2 * self._seconds, self._forget, key)
            return answer

    def _ended(self, key: K, reading: asyncio.Task[V]) -> None:
        """Whoever waits has the answer or the error; where nobody does, the next reading tells of an error."""
        del self._reading[key]
        if not reading.cancelled():
            reading.exception()

    def _forget(self, key: K) -> None:
        """What nobody asks for any more takes no memory."""
        kept = self._found.get(key)
        if kept is not None and self._clock.monotonic() - kept[0] > self._seconds:
            del self._found[key]
