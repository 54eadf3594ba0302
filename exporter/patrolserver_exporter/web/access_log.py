"""Every request as a line of the log at the level debug, without what may be a webhook's token."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING

from patrolserver_exporter.logs import log_fields
from patrolserver_exporter.redaction import MASK
from patrolserver_exporter.web.access import header, principal_of

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

log = logging.getLogger(__name__)

_KNOWN = frozenset({"-", "api", "config", "metrics", "servers"})
"""First parts of paths that hold no token, wherever a sender puts it."""
_LONGEST = 512


class AccessLog:
    """ASGI middleware, to be the outermost of a listener's application."""

    def __init__(self, app: ASGIApp, *, route_prefix: str = "", telemetry_path: str = "/metrics") -> None:
        self._app = app
        self._prefix = route_prefix.rstrip("/")
        self._telemetry_path = telemetry_path

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let the application answer, and note it."""
        if scope["type"] != "http" or not log.isEnabledFor(logging.DEBUG):
            await self._app(scope, receive, send)
            return
        began, status, sent = time.monotonic(), 0, 0

        async def note(message: Message) -> None:
            nonlocal status, sent
            status = message.get("status", status)
            sent += len(message.get("body", b""))
            await send(message)

        try:
            await self._app(scope, receive, note)
        finally:
            principal, client = principal_of(scope), scope.get("client")
            fields = log_fields(
                method=str(scope["method"])[:16],
                path=self._shown(scope),
                status=status or None,
                bytes=sent,
                seconds=round(time.monotonic() - began, 6),
                client=client[0] if client else None,
                forwarded_for=_cut(header(scope, b"x-forwarded-for")),
                principal=principal.name if principal else None,
            )
            log.debug("A request was answered", extra=fields)

    def _shown(self, scope: Scope) -> str:
        path: str = scope["path"]
        inside = path.removeprefix(self._prefix) if path.startswith(f"{self._prefix}/") else path
        first = inside.split("/")[1] if inside.startswith("/") else MASK
        if inside not in {"/", self._telemetry_path} and first not in _KNOWN:
            # A token may stand anywhere in it.
            known = f"{path.removesuffix(inside)}/webhook/" if first == "webhook" else "/"
            return f"{known}{MASK}"
        query = scope["query_string"].decode("latin-1")
        return f"{path}?{query}"[:_LONGEST] if query else path[:_LONGEST]


def _cut(text: str | None) -> str | None:
    return None if text is None else text[:100]
