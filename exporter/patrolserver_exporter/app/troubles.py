"""What is wrong, in sentences for everybody: the answer of ``/-/ready`` and, with names, of ``/api/v1/status``."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING

from patrolserver_exporter.logs import log_fields
from patrolserver_exporter.store import StoreError
from patrolserver_exporter.web.pages.accounts import StatesReader, account_views
from patrolserver_exporter.web.pages.notices import (
    of_following,
    of_freshness,
    of_lists,
    of_pauses,
    of_replicas,
    of_waivers,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from patrolserver_exporter.web.context import WebContext
    from patrolserver_exporter.web.pages.accounts import Freshness

log = logging.getLogger(__name__)
_PATIENCE = 2.0
"""Seconds that a client waits for the store."""
_CANNOT_TAKE_IN_AFTER = 30.0
"""Seconds that commits have to fail or to wait until deliveries are sent elsewhere."""


class Troubles:
    """Collects what is wrong. It answers also while the store does not."""

    def __init__(self, context: WebContext) -> None:
        self._context = context
        self._freshness = StatesReader(context.store, context.clock)

    def can_take_in(self) -> bool:
        """Whether deliveries can be taken in, or could until a moment ago."""
        trouble = self._context.store.trouble
        return trouble is None or time.monotonic() - trouble.since < _CANNOT_TAKE_IN_AFTER

    async def for_anybody(self) -> tuple[str, ...]:
        """What is wrong, the worst first, for anybody: no server or waiver is named."""
        return tuple(self._sentences(await self._read_freshness(), named=False))

    async def for_readers(self) -> tuple[str, ...]:
        """The same for who may read the state: the worst are named."""
        return tuple(self._sentences(await self._read_freshness(), named=True))

    async def _read_freshness(self) -> Mapping[str, Freshness] | None:
        try:
            return (await asyncio.wait_for(self._freshness.read(), _PATIENCE)).fresh
        except (StoreError, TimeoutError) as error:
            log.debug("How fresh the servers are cannot be read", extra=log_fields(err=str(error)))
            return None

    def _sentences(self, fresh: Mapping[str, Freshness] | None, *, named: bool) -> Iterator[str]:
        context, now = self._context, self._context.clock.now()
        redact, trouble = context.redactor.redact, context.store.trouble
        if trouble is not None:
            yield redact(trouble.reason)
        statuses = context.accounts.statuses()
        yield from (_sentence(redact(status.trouble)) for status in statuses if status.trouble)
        if context.reload_failure() is not None:
            # Without the reason: only readers of the log may see it.
            yield "The configuration was not reloaded, the old one stays in force; the log says what is wrong."
        accounts = account_views(statuses, {}, (), fresh or {}, redact=redact, now=now)
        for notice in (
            *of_following(follows=context.accounts.follows),
            *of_replicas(context.differing()),
            *of_lists(accounts),
            *of_pauses(accounts),
            *of_freshness(accounts),
            *of_waivers(context.config().issues.waivers, now),
        ):
            which = f" ({notice.which})" if named and notice.which else ""
            yield f"{notice.what.removesuffix('.')}{which}. {_sentence(notice.detail)}".strip()
        if fresh is None and trouble is None:
            yield "How old the servers' data is could not be read in time, so nothing is told of it here."


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]
