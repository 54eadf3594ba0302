"""One request to the API, as its handler sees it, and what the handler gives back."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import msgspec

if TYPE_CHECKING:
    from collections.abc import Mapping

    from starlette.types import Receive, Scope

    from patrolserver_exporter.store import Unit
    from patrolserver_exporter.web.api.feed import Feed
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

    async def ask(self, work: Callable[[Unit], T]) -> T:
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
