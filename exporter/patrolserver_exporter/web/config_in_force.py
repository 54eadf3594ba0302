"""``/config``: the configuration in force as YAML, for those who are known, and without secrets."""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from patrolserver_exporter.config.schema import Scope as Right
from patrolserver_exporter.config.told import as_yaml
from patrolserver_exporter.web.access import Denied, authorise_known
from patrolserver_exporter.web.http.requests import PLAIN_HEADERS

if TYPE_CHECKING:
    from starlette.requests import Request

    from patrolserver_exporter.web.context import WebContext


def config_route(context: WebContext) -> Route:
    """Return the route."""

    async def show(request: Request) -> Response:
        # It names servers, networks and files: also where reading is open, not everybody gets it.
        allowed = authorise_known(request.scope, Right.READ, context.tokens)
        if isinstance(allowed, Denied):
            return allowed.problem()
        # Masked once more, should a secret stand where none is expected.
        text = context.redactor.redact(as_yaml(context.config()))
        return PlainTextResponse(text, headers=PLAIN_HEADERS)

    return Route("/config", show, methods=["GET"])
