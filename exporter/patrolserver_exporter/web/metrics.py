"""``GET /metrics``: rendered in a thread, sent piece by piece."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING
from urllib.parse import parse_qs

from patrolserver_exporter.web.access import BearerTokens, Denied, authorise_scrape
from patrolserver_exporter.web.http.requests import Problem

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from concurrent.futures import Executor

    from starlette.types import Receive, Scope, Send

    from patrolserver_exporter.live.publisher import ScrapeResponse

    Render = Callable[[str | None, str | None, Sequence[str]], ScrapeResponse]


class MetricsApp:
    """ASGI application for the telemetry path. ``max_requests`` are answered at the same time, 0 is without limit."""

    def __init__(
        self, render: Render, executor: Executor, tokens: BearerTokens | None = None, *, max_requests: int = 40
    ) -> None:
        self._render = render
        self._executor = executor
        self._tokens = tokens if tokens is not None else BearerTokens()
        self._max_requests = max_requests
        self._running = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a scrape."""
        if scope["method"] not in {"GET", "HEAD"}:
            await Problem(405, detail="Metrics are read by GET.", headers={"allow": "GET, HEAD"})(scope, receive, send)
            return
        allowed = authorise_scrape(scope, self._tokens)
        if isinstance(allowed, Denied):
            await allowed.problem()(scope, receive, send)
            return
        if self._max_requests and self._running >= self._max_requests:
            detail = f"Already {self._running} scrapes are being answered (--web.max-requests)."
            await Problem(503, detail=detail, headers={"retry-after": "5"})(scope, receive, send)
            return
        self._running += 1
        try:
            await self._answer(scope, send)
        finally:
            self._running -= 1

    async def _answer(self, scope: Scope, send: Send) -> None:
        names = parse_qs(scope["query_string"].decode("latin-1")).get("name[]", [])
        rendered = await asyncio.get_running_loop().run_in_executor(
            self._executor,
            self._render,
            ", ".join(_headers(scope, b"accept")) or None,
            ", ".join(_headers(scope, b"accept-encoding")) or None,
            names,
        )
        headers = [
            (b"content-type", rendered.content_type.encode()),
            (b"content-length", str(rendered.content_length).encode()),
            (b"vary", b"accept, accept-encoding"),
            (b"x-content-type-options", b"nosniff"),
        ]
        if rendered.content_encoding:
            headers.append((b"content-encoding", rendered.content_encoding.encode()))
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        if scope["method"] == "GET":
            for part in rendered.body:
                await send({"type": "http.response.body", "body": part, "more_body": True})
        await send({"type": "http.response.body", "body": b""})


def _headers(scope: Scope, name: bytes) -> list[str]:
    return [value.decode("latin-1") for key, value in scope["headers"] if key == name]
