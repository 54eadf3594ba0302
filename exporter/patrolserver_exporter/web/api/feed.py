"""Wakes those who wait for the change feed to grow."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from typing import TYPE_CHECKING

from patrolserver_exporter.web.server import STOPPING_STATE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from starlette.types import Receive, Scope

LOOK_AGAIN = 2.0
"""Seconds after which the store is asked even if nobody woke us: another replica may have written."""


class Feed:
    """Who waits for the change feed. ``grew`` may be called on any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiters: dict[asyncio.Event, asyncio.AbstractEventLoop] = {}

    def grew(self) -> None:
        """Wake everybody."""
        with self._lock:
            waiters = list(self._waiters.items())
        for event, loop in waiters:
            with contextlib.suppress(RuntimeError):
                # A loop that is closed has nobody left who waits.
                loop.call_soon_threadsafe(event.set)

    @contextlib.contextmanager
    def watched(self) -> Iterator[asyncio.Event]:
        """An event that is set whenever the feed grew, from now on."""
        event = asyncio.Event()
        with self._lock:
            self._waiters[event] = asyncio.get_running_loop()
        try:
            yield event
        finally:
            with self._lock:
                del self._waiters[event]


class Patience:
    """Ends a wait early: when the client hangs up, or the server stops."""

    def __init__(self, scope: Scope, receive: Receive, seconds: float, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._end = monotonic() + seconds
        stopping: asyncio.Event | None = scope.get("state", {}).get(STOPPING_STATE)
        self._enders = [asyncio.ensure_future(_disconnected(receive))]
        if stopping is not None:
            self._enders.append(asyncio.ensure_future(stopping.wait()))

    @property
    def is_over(self) -> bool:
        """Whether there is nothing left to wait for."""
        return self._monotonic() >= self._end or any(ender.done() for ender in self._enders)

    async def wait(self, event: asyncio.Event) -> None:
        """Wait for the event, for a while; clears it."""
        turn = asyncio.ensure_future(event.wait())
        seconds = min(max(self._end - self._monotonic(), 0.0), LOOK_AGAIN)
        try:
            await asyncio.wait([turn, *self._enders], timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        finally:
            turn.cancel()
        event.clear()

    def close(self) -> None:
        """Wait for nothing any more."""
        for ender in self._enders:
            ender.cancel()


async def _disconnected(receive: Receive) -> bool:
    while (await receive())["type"] != "http.disconnect":
        pass
    return True
