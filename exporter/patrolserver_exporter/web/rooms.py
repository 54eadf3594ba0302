"""How many requests of each kind are answered at the same time, so that who reads cannot hold up who writes.

Reading costs mostly our own computing time, and Python computes one thing at a time: each reader more makes a delivery,
which needs only a few short turns, wait longer for each of them. So each kind of reader has a room: a few at the same
time, a short queue, and beyond it a 503 that says when to come back. Webhooks and scrapes have no part in these rooms.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final, TypeVar

from patrolserver_exporter.web.http.requests import ApiError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Hashable

    from starlette.types import ASGIApp, Message, Receive, Scope, Send

T = TypeVar("T")
PATIENCE: Final = 15.0
"""Seconds that a request waits for its turn; half of what a client waits for an answer by default."""
MAX_RETRY_AFTER: Final = 10
"""Seconds; a client has to be able to follow it within its own time-out."""
_LARGE: Final = 1024 * 1024
_SLICE: Final = 256 * 1024
_RECENT: Final = 0.2
"""How much the last stay counts in the average."""


class Crowded(ApiError):
    """There is no room; the answer says when to come back."""

    def __init__(self, kind: str, retry_after: int) -> None:
        super().__init__(
            503,
            f"Too many requests for {kind} are under way. Nothing is wrong; ask again in {retry_after} s.",
            headers={"retry-after": str(retry_after)},
        )


class Room:
    """So many at the same time, in the order in which they came, and so many that wait. For one event loop."""

    def __init__(self, kind: str, *, at_once: int, queue: int, patience: float = PATIENCE) -> None:
        self._kind = kind
        self._at_once = at_once
        self._queue = queue
        self._patience = patience
        self._inside = 0
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._stay = 0.0
        """Seconds that one stays, on average of late."""

    @asynccontextmanager
    async def entered(self) -> AsyncIterator[None]:
        """Wait for a place, and have it; raises `Crowded`."""
        await self._enter()
        began = time.monotonic()
        try:
            yield
        finally:
            self._stay += _RECENT * (time.monotonic() - began - self._stay)
            self._leave()

    async def _enter(self) -> None:
        if self._inside < self._at_once:
            self._inside += 1
            return
        if len(self._waiting) >= self._queue:
            raise self._crowded()
        turn = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        try:
            await asyncio.wait_for(asyncio.shield(turn), self._patience)
        except BaseException as error:
            if turn.done():
                # The place was given a moment ago.
                self._leave()
            else:
                turn.cancel()
                self._waiting.remove(turn)
            if isinstance(error, TimeoutError):
                raise self._crowded() from None
            raise

    def _leave(self) -> None:
        """Give the place to who waits longest."""
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                return
        self._inside -= 1

    def _crowded(self) -> Crowded:
        wait = self._stay * (len(self._waiting) + 1) / self._at_once
        return Crowded(self._kind, min(max(math.ceil(wait), 1), MAX_RETRY_AFTER))


class Shared:
    """Answers that those have in common who asked for the same and whose turn has not come yet.

    Whoever comes once the work has begun asks anew, so that an answer never lacks what was committed before its request
    came.
    """

    def __init__(self, room: Room) -> None:
        self._room = room
        self._waiting: dict[Hashable, asyncio.Task[Any]] = {}

    async def answer(self, asked: Hashable, work: Callable[[], Awaitable[T]]) -> T:
        """What the work brings; raises what it raises, or `Crowded`."""
        task = self._waiting.get(asked)
        if task is None:
            task = self._waiting[asked] = asyncio.ensure_future(self._do(asked, work))
        # Shielded: one that hangs up does not take the answer from the others.
        return await asyncio.shield(task)

    async def _do(self, asked: Hashable, work: Callable[[], Awaitable[T]]) -> T:
        try:
            async with self._room.entered():
                self._waiting.pop(asked, None)
                return await work()
        finally:
            if self._waiting.get(asked) is asyncio.current_task():
                del self._waiting[asked]


class Rooms:
    """ASGI application in front of API and pages: each request in the room of its kind.

    An answer of more than 1 MiB is sent in slices, each once the client has taken enough of the one before, and only a
    few such answers at the same time: a client that reads slowly must not fill the memory.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._gates = Room("the gate", at_once=64, queue=0)
        """Bodies that are read, and answers that are waited for: what is judged at the same time has a room inside."""
        self._lists = Room("lists", at_once=1, queue=32)
        self._pages = Room("pages", at_once=1, queue=32)
        self._exports = Room("exports", at_once=1, queue=8)
        self._large = Room("large answers", at_once=2, queue=4)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, or say when to come back."""
        room = self._room_for(scope)
        if room is None:
            await self._app(scope, receive, send)
            return
        answer = _Answer(send, self._large)
        try:
            async with room.entered():
                await self._app(scope, receive, answer.send)
            await answer.send_rest()
        except Crowded as crowded:
            await crowded.problem()(scope, receive, send)

    def _room_for(self, scope: Scope) -> Room | None:
        path: str = scope["path"]
        if path.startswith(_API):
            rest = path[len(_API) :]
            if rest == "gate":
                return self._gates
            if rest.partition("/")[0] in _WITHOUT or scope["method"] not in _READING:
                return None
            return self._exports if b"format=csv" in scope["query_string"] else self._lists
        return None if path.startswith("/-/") else self._pages


_API: Final = "/api/v1/"
_READING: Final = frozenset({"GET", "HEAD"})
_WITHOUT: Final = frozenset({"changes", "operations", "inbox"})
"""What waits for something itself, asks no store, or is the operator's."""


class _Answer:
    """Sends what is short at once, and keeps what is large until its request has left its room."""

    def __init__(self, send: Send, room: Room) -> None:
        self._send = send
        self._room = room
        self._start: Message | None = None
        self._body: bytes | None = None
        """The whole of one that is large."""

    async def send(self, message: Message) -> None:
        """As ASGI has it."""
        if message["type"] == "http.response.start":
            self._start = message
            return
        body: bytes = message.get("body", b"")
        if self._start is not None:
            if len(body) > _LARGE and not message.get("more_body", False):
                self._body = body
                return
            start, self._start = self._start, None
            await self._send(start)
        await self._send(message)

    async def send_rest(self) -> None:
        """Send what is large; raises `Crowded`, and then nothing was sent."""
        if self._start is None:
            return
        if self._body is None:
            # It was broken off before its first piece: without an end nobody takes it for whole.
            await self._send(self._start)
            return
        async with self._room.entered():
            await self._send(self._start)
            view = memoryview(self._body)
            for place in range(0, len(view), _SLICE):
                piece = bytes(view[place : place + _SLICE])
                await self._send({"type": "http.response.body", "body": piece, "more_body": True})
            await self._send({"type": "http.response.body", "body": b""})
