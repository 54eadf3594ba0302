"""From a request to its handler: method, rights, parameters, and errors as problems."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec
from starlette.responses import Response

from patrolserver_exporter.config.schema import Scope as Right
from patrolserver_exporter.logs import log_fields
from patrolserver_exporter.store import StoreError
from patrolserver_exporter.web.access import Denied, authorise
from patrolserver_exporter.web.api import parameters
from patrolserver_exporter.web.api.call import Api, Call, Handler, Reply
from patrolserver_exporter.web.api.errors import ApiError
from patrolserver_exporter.web.body import BodyError, ClientGone
from patrolserver_exporter.web.problems import PLAIN_HEADERS, Problem

if TYPE_CHECKING:
    from collections.abc import Sequence

    from starlette.types import Receive, Scope, Send

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Operation:
    """One thing that the API can do. Routes and the OpenAPI document are made from these."""

    name: str
    method: str
    path: str
    """Below ``/api/v1``; variable parts in braces."""
    summary: str
    handler: Handler
    right: Right = Right.READ
    query: type[msgspec.Struct] = parameters.NoParameters
    body: Any = None
    """The type of the JSON body; ``None``: a body is not looked at."""
    status: int = 200
    answer: Any = None
    """The type of the answer; ``None``: nothing, or JSON without a type of its own."""
    problems: tuple[int, ...] = ()
    """Further errors, beyond those that every operation may have."""
    example: Any = None
    body_example: Any = None


class Endpoint:
    """ASGI application of one path: its operations, by method."""

    def __init__(self, api: Api, operations: Sequence[Operation]) -> None:
        self._api = api
        self._by_method = {operation.method: operation for operation in operations}
        if "GET" in self._by_method:
            self._by_method["HEAD"] = self._by_method["GET"]
        self._allow = ", ".join(sorted(self._by_method))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer."""
        try:
            response = await self._answer(scope, receive)
        except ApiError as error:
            response = error.problem()
        except ClientGone:
            return
        except BodyError as error:
            response = error.problem()
        except StoreError as error:
            log.warning("The API cannot read the store", extra=log_fields(err=str(error)))
            detail = "The store cannot serve right now; the exporter's log has the reason. Try again later."
            response = Problem(503, detail=detail, headers={"retry-after": "5"})
        await response(scope, receive, send)

    async def _answer(self, scope: Scope, receive: Receive) -> Response:
        operation = self._by_method.get(scope["method"])
        if operation is None:
            return Problem(405, detail=f"Allowed here: {self._allow}.", headers={"allow": self._allow})
        allowed = authorise(scope, operation.right, self._api.context.tokens)
        if isinstance(allowed, Denied):
            return allowed.problem()
        path = scope["path_params"]
        if any("\0" in part for part in path.values()):
            raise ApiError(404, "A path never holds a NUL character.")
        query = parameters.read(scope["query_string"], operation.query)
        return _response(await operation.handler(self._api, Call(query=query, path=path, scope=scope, receive=receive)))


def _response(reply: Reply) -> Response:
    headers = {**PLAIN_HEADERS, **reply.headers}
    if reply.value is None:
        return Response(status_code=reply.status, headers=headers)
    content = reply.value if isinstance(reply.value, bytes) else msgspec.json.encode(reply.value)
    return Response(content, reply.status, headers, media_type="application/json")
