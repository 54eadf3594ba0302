"""``/-/healthy``, ``/-/ready`` and ``/-/reload``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from patrolserver_exporter.config.schema import Scope as Right
from patrolserver_exporter.web.access import BearerTokens, Denied, authorise
from patrolserver_exporter.web.http.requests import PLAIN_HEADERS, Problem

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from starlette.requests import Request


class Outcome(Protocol):
    """What became of a reload; see ``app.reload.Reloaded``."""

    @property
    def failure(self) -> str | None:
        """What is wrong with the configuration, a line for each mistake."""
        ...

    @property
    def changed(self) -> tuple[str, ...]:
        """The keys that have other values now."""
        ...

    @property
    def needs_restart(self) -> tuple[str, ...]:
        """Those that will have them after a restart."""
        ...


class Lifecycle:
    """Tells whether the service is alive and ready, and reloads it.

    ``troubles`` are sentences on what is wrong: they stand in the answer of ``/-/ready``, which stays 200 through them,
    because a 503 would divert the webhooks of a service that can take them. Where ``can_take_in`` says no, it cannot.
    """

    def __init__(  # noqa: PLR0913  # What it tells and does, by keyword.
        self,
        *,
        is_ready: Callable[[], bool],
        follows: Callable[[], bool],
        can_take_in: Callable[[], bool],
        troubles: Callable[[], Awaitable[Sequence[str]]],
        reload: Callable[[], Awaitable[Outcome]],
        tokens: BearerTokens,
        reload_enabled: bool,
    ) -> None:
        self._is_ready = is_ready
        self._follows = follows
        self._can_take_in = can_take_in
        self._troubles = troubles
        self._reload = reload
        self._tokens = tokens
        self._reload_enabled = reload_enabled

    def routes(self) -> list[Route]:
        """The routes."""
        return [
            Route("/-/healthy", self.healthy, methods=["GET"]),
            Route("/-/ready", self.ready, methods=["GET"]),
            Route("/-/reload", self.reload, methods=["POST", "PUT"]),
        ]

    async def healthy(self, _request: Request) -> Response:
        """Say that the service runs."""
        return _text("patrolserver-exporter is healthy.\n")

    async def ready(self, _request: Request) -> Response:
        """Say whether it has something to show, and what is wrong."""
        troubles = "".join(f"{trouble}\n" for trouble in await self._troubles())
        if not self._can_take_in():
            missing = "it can take no deliveries in"
        elif not self._follows():
            missing = "it cannot follow its database, which others may"
        elif not self._is_ready():
            missing = "no account answered yet"
        else:
            return _text(f"patrolserver-exporter is ready.\n{troubles}")
        return _text(f"patrolserver-exporter is not ready: {missing}.\n{troubles}", 503, {"retry-after": "5"})

    async def reload(self, request: Request) -> Response:
        """Read the configuration again. If it is wrong, the old one stays in force, and the answer says why."""
        if not self._reload_enabled:
            return Problem(403, detail="Reloading over HTTP is off (--no-web.enable-lifecycle); send a SIGHUP.")
        allowed = authorise(request.scope, Right.RELOAD, self._tokens)
        if isinstance(allowed, Denied):
            return allowed.problem()
        outcome = await self._reload()
        if outcome.failure is None:
            lines = ["The configuration was reloaded.", f"Changed: {', '.join(outcome.changed) or 'nothing'}."]
            if outcome.needs_restart:
                lines.append(f"After a restart only: {', '.join(outcome.needs_restart)}.")
            return _text("".join(f"{line}\n" for line in lines))
        detail = f"The configuration was not reloaded, the old one stays in force: {outcome.failure}"
        return Problem(500, detail=detail, mistakes=outcome.failure.splitlines())


def _text(text: str, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    return PlainTextResponse(text, status, headers={**PLAIN_HEADERS, **(headers or {})})
