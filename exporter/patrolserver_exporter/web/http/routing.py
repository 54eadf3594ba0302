"""The applications behind the listeners: bare ASGI for what is called often, Starlette for the rest."""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.applications import Starlette
from starlette.exceptions import HTTPException

from patrolserver_exporter.web.http.problems import Problem

if TYPE_CHECKING:
    from collections.abc import Sequence

    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.routing import BaseRoute
    from starlette.types import ASGIApp, Receive, Scope, Send


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
    return Problem(error.status_code, detail=error.detail, headers=error.headers)


async def not_found_app(scope: Scope, receive: Receive, send: Send) -> None:
    """ASGI application in which nothing is found."""
    await _not_found("There is nothing here.")(scope, receive, send)


def site(routes: Sequence[BaseRoute]) -> ASGIApp:
    """Starlette with these routes, whose errors are problems."""
    app = Starlette(routes=routes, exception_handlers={HTTPException: _http_error})
    # It would lead to whatever host a client names, and out of the route prefix.
    app.router.redirect_slashes = False
    return app


def main_app(
    routes: Sequence[BaseRoute],
    *,
    metrics: ASGIApp,
    webhook: ASGIApp | None,
    telemetry_path: str = "/metrics",
    prefix: str = "",
) -> ASGIApp:
    """What the main listener serves; ``webhook`` is ``None`` when that has a listener of its own."""
    below = {} if webhook is None else {"/webhook": webhook}
    return Switch(site(routes), exact={telemetry_path: metrics}, below=below, prefix=prefix)


def webhook_app(webhook: ASGIApp, prefix: str = "") -> ASGIApp:
    """What a listener for webhooks serves: these, and nothing else."""
    return Switch(not_found_app, exact={}, below={"/webhook": webhook}, prefix=prefix)
