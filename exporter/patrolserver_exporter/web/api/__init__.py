"""The JSON API, version 1."""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.routing import Route

from patrolserver_exporter.web.api.catalogue import OPERATIONS
from patrolserver_exporter.web.api.changes import Feed
from patrolserver_exporter.web.api.endpoint import Api, Endpoint, Operation
from patrolserver_exporter.web.api.openapi import ROOT
from patrolserver_exporter.web.api.refreshes import Refreshes

if TYPE_CHECKING:
    from patrolserver_exporter.web.context import WebContext

__all__ = ["api_routes"]


def api_routes(context: WebContext) -> list[Route]:
    """The routes of the API, one a path, in the order in which they have to be tried."""
    feed = Feed()
    context.on_feed(feed.grew)
    api = Api(context=context, feed=feed, refreshes=Refreshes(context.store, context.accounts))
    by_path: dict[str, list[Operation]] = {}
    for operation in OPERATIONS:
        by_path.setdefault(operation.path, []).append(operation)
    return [Route(ROOT + path, Endpoint(api, operations)) for path, operations in by_path.items()]
