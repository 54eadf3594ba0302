"""Errors as RFC 9457 ``application/problem+json``."""

from __future__ import annotations

import http
import json
from typing import TYPE_CHECKING, Any

from starlette.responses import Response

if TYPE_CHECKING:
    from collections.abc import Mapping


MEDIA_TYPE = "application/problem+json"
PLAIN_HEADERS = {"cache-control": "no-store", "x-content-type-options": "nosniff"}
"""Of every answer that is no page: it tells how things are now, and is what its type says."""


class Problem(Response):
    """An error as an answer: Starlette's endpoints return it, bare ASGI code awaits ``problem(scope, receive, send)``.

    The title is the status's own phrase unless it is given. Further keywords become members of the document; none may
    be called like a member of RFC 9457 (``type``, ``title``, ``status``, ``detail``).
    """

    media_type = MEDIA_TYPE

    def __init__(
        self,
        status: int,
        title: str | None = None,
        detail: str | None = None,
        type: str = "about:blank",  # noqa: A002 - the member's name in RFC 9457
        *,
        headers: Mapping[str, str] | None = None,
        **extra: Any,
    ) -> None:
        body = document(status, title, detail, type, **extra)
        super().__init__(body, status, headers={**PLAIN_HEADERS, **(headers or {})})


def document(
    status: int,
    title: str | None = None,
    detail: str | None = None,
    type: str = "about:blank",  # noqa: A002 - the member's name in RFC 9457
    **extra: Any,
) -> bytes:
    """Render a problem as JSON in plain ASCII: a lone surrogate in a detail must not break the answer."""
    members: dict[str, Any] = {"type": type, "title": title or phrase(status), "status": status}
    if detail is not None:
        members["detail"] = detail
    return json.dumps(extra | members, separators=(",", ":")).encode("ascii")


def phrase(status: int) -> str:
    """Return the words that stand beside the status in HTTP."""
    try:
        return http.HTTPStatus(status).phrase
    except ValueError:
        return "Error"


class ApiError(Exception):
    """Ends a request with a problem. Further keywords become members of the document."""

    def __init__(self, status: int, detail: str, *, headers: dict[str, str] | None = None, **extra: Any) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.headers = headers or {}
        self.extra = extra

    def problem(self) -> Problem:
        """Return the answer."""
        return Problem(self.status, detail=self.detail, headers=self.headers, **self.extra)
