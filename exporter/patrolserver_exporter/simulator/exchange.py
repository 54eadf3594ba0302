"""One request and its answer on a connection that, unlike with other servers, can also be closed in the middle."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from starlette.types import Receive, Scope, Send

_CLOSE = "patrolserver.close"


class ClosableProtocol(HttpToolsProtocol):
    """HTTP/1.1 as uvicorn speaks it, whose applications can close the connection."""

    def on_headers_complete(self) -> None:
        """Hand the means to close to the application."""
        self.scope["extensions"] = {_CLOSE: {"close": self.transport.close}}
        super().on_headers_complete()


@dataclass(frozen=True, slots=True)
class Answer:
    """Status, body and what headers it needs besides."""

    status: int
    body: bytes
    content_type: str = "application/json"
    headers: tuple[tuple[bytes, bytes], ...] = ()


@dataclass(frozen=True, slots=True)
class Exchange:
    """A request whose body has been read."""

    scope: Scope
    receive: Receive
    send: Send

    async def answer(self, answer: Answer, *, cut: int | None = None) -> None:
        """Send it, or with ``cut`` only so many bytes of the body that was announced, then close."""
        headers = [
            (b"content-type", answer.content_type.encode()),
            (b"content-length", b"%d" % len(answer.body)),
            *answer.headers,
        ]
        await self.send({"type": "http.response.start", "status": answer.status, "headers": headers})
        body = answer.body if cut is None else answer.body[:cut]
        await self.send({"type": "http.response.body", "body": body, "more_body": cut is not None})
        if cut is not None:
            await self.close()

    async def close(self) -> None:
        """Send what was written and close the connection."""
        self.scope["extensions"][_CLOSE]["close"]()
        await self._disconnected()

    async def close_after(self, pause: Awaitable[None]) -> None:
        """Close after a pause, or at once when the client has gone."""
        waits = {asyncio.ensure_future(pause), asyncio.ensure_future(self._disconnected())}
        _, pending = await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        for task in pending:
            task.cancel()
        await asyncio.gather(*pending, return_exceptions=True)
        await self.close()

    async def _disconnected(self) -> None:
        while (await self.receive())["type"] != "http.disconnect":
            pass
