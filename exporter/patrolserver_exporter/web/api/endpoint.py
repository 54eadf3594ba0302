"""From a request to its handler: method, rights, parameters, and errors as problems."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import msgspec
from starlette.responses import Response

from patrolserver_exporter.config.schema import Scope as Right
from patrolserver_exporter.logs import log_fields
from patrolserver_exporter.store import StoreBusy, StoreError
from patrolserver_exporter.web.access.rights import Denied, authorise
from patrolserver_exporter.web.api import arguments
from patrolserver_exporter.web.http.body import BodyError, ClientGone
from patrolserver_exporter.web.http.problems import PLAIN_HEADERS, ApiError, Problem

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import sqlalchemy as sa
    from starlette.types import Receive, Scope, Send

    from patrolserver_exporter.store import Unit
    from patrolserver_exporter.web.api.changes import Feed
    from patrolserver_exporter.web.api.refreshes import Refreshes
    from patrolserver_exporter.web.context import WebContext


Q_co = TypeVar("Q_co", bound=msgspec.Struct, covariant=True)
T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Api:
    """What the handlers share."""

    context: WebContext
    feed: Feed
    refreshes: Refreshes

    def now(self) -> float:
        """Seconds since the epoch."""
        return self.context.clock.now()

    def accounts(self) -> tuple[str, ...]:
        """The accounts that are watched."""
        return tuple(status.name for status in self.context.watching.statuses())

    async def read(self, work: Callable[[sa.Connection], T]) -> T:
        """Read one state of the store; raises what the work raises."""
        return await self.context.store.read_async(work)

    async def write(self, work: Callable[[Unit], T]) -> T:
        """Do a unit of work on the store's thread, and wait for it; raises what it raises."""
        # Shielded, so that a client that hangs up does not take back what is being written.
        return await asyncio.shield(asyncio.wrap_future(self.context.store.submit(work)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Call(Generic[Q_co]):
    """One request."""

    query: Q_co
    path: Mapping[str, str]
    """The variable parts of the path, decoded."""
    scope: Scope = field(repr=False)
    receive: Receive = field(repr=False)


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer: a value that is written as JSON, or JSON that is ready as bytes, or nothing."""

    value: Any = None
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)


Handler = Callable[[Api, Call[Any]], Awaitable[Reply]]
"""Answers one kind of call; the query's type is the operation's."""


async def in_thread(work: Callable[..., T], *arguments: object) -> T:
    """Do what takes a while outside of the event loop."""
    return await asyncio.to_thread(work, *arguments)


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
    query: type[msgspec.Struct] = arguments.NoParameters
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
        except StoreBusy as error:
            detail = f"{error} Nothing is wrong; ask again later."
            response = Problem(503, detail=detail, headers={"retry-after": "5"})
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
        query = arguments.read(scope["query_string"], operation.query)
        return _response(await operation.handler(self._api, Call(query=query, path=path, scope=scope, receive=receive)))


def _response(reply: Reply) -> Response:
    headers = {**PLAIN_HEADERS, **reply.headers}
    if reply.value is None:
        return Response(status_code=reply.status, headers=headers)
    content = reply.value if isinstance(reply.value, bytes) else msgspec.json.encode(reply.value)
    return Response(content, reply.status, headers, media_type="application/json")
