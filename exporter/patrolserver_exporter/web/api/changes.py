"""Wakes those who wait for the change feed to grow."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from typing import TYPE_CHECKING

import msgspec

from patrolserver_exporter.store import history
from patrolserver_exporter.web.api import cursors, types
from patrolserver_exporter.web.api.endpoint import Api, Call, Reply, in_thread
from patrolserver_exporter.web.http.requests import ApiError
from patrolserver_exporter.web.http.server import STOPPING_STATE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import sqlalchemy as sa
    from starlette.types import Receive, Scope

    from patrolserver_exporter.store.history import StoredChange
    from patrolserver_exporter.web.api.endpoint import ChangesQuery


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


LATEST = "latest"


async def changes(api: Api, call: Call[ChangesQuery]) -> Reply:
    """What happened after the cursor; waits for it if nothing did."""
    query = call.query
    if query.after == LATEST:
        standing = await api.read(history.feed_standing)
        return Reply(_page([], cursors.ChangesCursor(standing.newest, standing.history)))
    start = None if query.after is None else cursors.read(query.after, cursors.ChangesCursor, "after")
    found = await _wait_for_changes(api, call, start)
    if start is None:
        # Not further than what was read: nothing may slip through in between.
        start = cursors.ChangesCursor(0, (await api.read(history.feed_standing)).history)
    return Reply(await in_thread(_page, found, start))


async def _wait_for_changes(
    api: Api, call: Call[ChangesQuery], start: cursors.ChangesCursor | None
) -> list[StoredChange]:
    def work(connection: sa.Connection) -> list[StoredChange]:
        if start is not None:
            _check_kept(connection, start)
        return history.changes_after(connection, 0 if start is None else start.row, call.query.limit)

    if not call.query.wait:
        return await api.read(work)
    patience = Patience(call.scope, call.receive, call.query.wait, api.context.clock.monotonic)
    try:
        # Watched before the store is read, so that nothing slips through between the two.
        with api.feed.watched() as grown:
            while not (found := await api.read(work)) and not patience.is_over:
                await patience.wait(grown)
            return found
    finally:
        patience.close()


def _check_kept(connection: sa.Connection, start: cursors.ChangesCursor) -> None:
    """A 410 when changes after the cursor may have been purged, or when it is of another feed than this one."""
    feed = history.feed_standing(connection)
    if start.history == feed.history and feed.purged_to <= start.row <= feed.newest:
        return
    raise ApiError(
        410,
        "Changes after this cursor are no longer kept, or the state was rebuilt or restored since. Read the issues "
        "again, then go on from oldest_cursor, or from after=latest taken before.",
        oldest_cursor=cursors.write(cursors.ChangesCursor(feed.purged_to, feed.history)),
    )


def _page(found: list[StoredChange], start: cursors.ChangesCursor) -> bytes:
    end = cursors.ChangesCursor(found[-1].id, found[-1].history) if found else start
    return msgspec.json.encode(
        types.ChangePage(items=tuple(map(types.change_of, found)), next_cursor=cursors.write(end))
    )
