"""The pages for people: the fleet, and one server."""

from __future__ import annotations

from typing import TYPE_CHECKING

from patrolserver_exporter.web.pages.routes import Pages

if TYPE_CHECKING:
    from starlette.routing import Route

    from patrolserver_exporter.web.context import WebContext


def page_routes(context: WebContext) -> list[Route]:
    """Return the routes ``/`` and ``/servers/{server_id}``."""
    return Pages(context).routes()
