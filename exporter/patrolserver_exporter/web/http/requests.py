"""Requests on the way to an application: routes, bodies under limits, and errors as RFC 9457 problems.

BodyError          no body came that may be used; knows its answer
├── BodyTooLarge   413: over the limit, whether Content-Length says so or the bytes do
├── BodyEncoded    415: a Content-Encoding, which would hide the true size
└── ClientGone     the client hung up, or took too long and had its answer from the connection's guard
"""

from __future__ import annotations

import http
import json
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, ClassVar

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.responses import Response

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from starlette.requests import Request
    from starlette.routing import BaseRoute
    from starlette.types import ASGIApp, Receive, Scope, Send


MEDIA_TYPE = "application/problem+json"
PLAIN_HEADERS = {"cache-control": "no-store", "x-content-type-options": "nosniff"}
"""Of every answer that is no page: it tells how things are now, and is what its type says."""

NOTHING_HERE = "There is nothing here; the exporter's first page leads to what there is."


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


MAX_BODY_BYTES = 16 * 1024


class BodyError(Exception):
    """No body came that may be used."""

    status: ClassVar[int] = 400
    headers: ClassVar[dict[str, str]] = {}

    def problem(self) -> Problem:
        """Return the answer that fits."""
        return Problem(self.status, detail=str(self), headers=self.headers)


class BodyTooLarge(BodyError):
    """The body is over the limit."""

    status = 413


class BodyEncoded(BodyError):
    """The body is compressed or otherwise encoded."""

    status = 415
    headers: ClassVar[dict[str, str]] = {"accept-encoding": "identity"}


class ClientGone(BodyError):
    """The client does not wait for an answer any more."""


async def read_body(scope: Scope, receive: Receive, limit: int = MAX_BODY_BYTES) -> bytes:
    """Return the whole body, of at most ``limit`` bytes; the connection's guard sees to it that it comes in time.

    Raises `BodyTooLarge` (without reading, where Content-Length already says so), `BodyEncoded` and `ClientGone`.
    """
    _check_headers(scope, limit)
    body, more = bytearray(), True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientGone("The client hung up before its request was complete.")
        body += message.get("body", b"")
        if len(body) > limit:
            raise BodyTooLarge(f"The body is over {limit} bytes.")
        more = message.get("more_body", False)
    return bytes(body)


def _check_headers(scope: Scope, limit: int) -> None:
    for name, value in scope["headers"]:
        if name == b"content-encoding" and value.strip().lower() not in {b"", b"identity"}:
            raise BodyEncoded("Send the body without Content-Encoding.")
        # The parser only lets digits through, as many as fit into 64 bits.
        if name == b"content-length" and int(value) > limit:
            raise BodyTooLarge(f"The body is over {limit} bytes.")


class Switch:
    """Sends a request to the application for its path.

    ``exact`` are whole paths, ``below`` are prefixes that end at a slash or at the path's end. ``prefix`` is stripped
    off first; what does not begin with it is not found.
    """

    def __init__(
        self, rest: ASGIApp, *, exact: dict[str, ASGIApp], below: dict[str, ASGIApp], prefix: str = ""
    ) -> None:
        self._rest = rest
        self._exact = exact
        self._below = below
        self._prefix = prefix.rstrip("/")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on."""
        path: str = scope["path"]
        if self._prefix:
            if path != self._prefix and not path.startswith(self._prefix + "/"):
                await _not_found(f"Every path begins with {self._prefix}/ here.")(scope, receive, send)
                return
            path = path.removeprefix(self._prefix) or "/"
            scope = {**scope, "path": path, "root_path": ""}
        await self._app_for(path)(scope, receive, send)

    def _app_for(self, path: str) -> ASGIApp:
        app = self._exact.get(path)
        if app is not None:
            return app
        for start, candidate in self._below.items():
            if path == start or path.startswith(start + "/"):
                return candidate
        return self._rest


def _not_found(detail: str) -> Problem:
    # Without the path, which may hold a webhook's token.
    return Problem(404, detail=detail)


async def _http_error(_request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101  # Starlette only calls it with one.
    detail = error.detail
    if error.status_code == 404:
        detail = NOTHING_HERE
    elif error.status_code == 405 and (allowed := (error.headers or {}).get("Allow")):
        detail = f"Allowed here: {', '.join(sorted(allowed.split(', ')))}."
    return Problem(error.status_code, detail=detail, headers=error.headers)


async def not_found_app(scope: Scope, receive: Receive, send: Send) -> None:
    """ASGI application in which nothing is found."""
    await _not_found("There is nothing here.")(scope, receive, send)


Handler = Callable[["Request", Exception], Awaitable[Response]]
"""Answers a request that ended in an error."""


def site(routes: Sequence[BaseRoute], not_found: Handler = _http_error) -> ASGIApp:
    """Starlette with these routes, whose errors are problems. ``not_found`` answers where there is no route."""
    app = Starlette(routes=routes, exception_handlers={HTTPException: _http_error, 404: not_found})
    # It would lead to whatever host a client names, and out of the route prefix.
    app.router.redirect_slashes = False
    return app


def main_app(  # noqa: PLR0913  # What is served, by keyword.
    routes: Sequence[BaseRoute],
    *,
    metrics: ASGIApp,
    webhook: ASGIApp | None,
    telemetry_path: str = "/metrics",
    prefix: str = "",
    readers: Callable[[ASGIApp], ASGIApp] = lambda app: app,
    not_found: Handler = _http_error,
) -> ASGIApp:
    """What the main listener serves.

    ``webhook`` is ``None`` when that has a listener of its own. ``readers`` makes what stands in front of the routes,
    but not of metrics and webhook. ``not_found`` answers where there is no route.
    """
    below = {} if webhook is None else {"/webhook": webhook}
    return Switch(readers(site(routes, not_found)), exact={telemetry_path: metrics}, below=below, prefix=prefix)


def webhook_app(webhook: ASGIApp, prefix: str = "") -> ASGIApp:
    """What a listener for webhooks serves: these, and nothing else."""
    return Switch(not_found_app, exact={}, below={"/webhook": webhook}, prefix=prefix)
