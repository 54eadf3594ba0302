"""``GET /api/v1/changes``: the change feed by long poll."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from patrolserver_exporter.store import history
from patrolserver_exporter.web.api import cursors, shown, types
from patrolserver_exporter.web.api.call import Api, Call, Reply, in_thread
from patrolserver_exporter.web.api.errors import ApiError
from patrolserver_exporter.web.api.feed import Patience

if TYPE_CHECKING:
    import sqlalchemy as sa

    from patrolserver_exporter.store import Unit
    from patrolserver_exporter.store.history import StoredChange
    from patrolserver_exporter.web.api.parameters import ChangesQuery

LATEST = "latest"


async def changes(api: Api, call: Call[ChangesQuery]) -> Reply:
    """What happened after the cursor; waits for it if nothing did."""
    query = call.query
    if query.after == LATEST:
        _, newest = await api.ask(lambda unit: history.feed_bounds(unit.connection))
        return Reply(_page([], newest))
    start = None if query.after is None else cursors.read(query.after, cursors.ChangesCursor, "after").row
    found = await _wait_for_changes(api, call, start)
    return Reply(await in_thread(_page, found, start or 0))


async def _wait_for_changes(api: Api, call: Call[ChangesQuery], start: int | None) -> list[StoredChange]:
    def work(unit: Unit) -> list[StoredChange]:
        _check_kept(unit.connection, start)
        return history.changes_after(unit.connection, start or 0, call.query.limit)

    if not call.query.wait:
        return await api.ask(work)
    patience = Patience(call.scope, call.receive, call.query.wait, api.context.clock.monotonic)
    try:
        # Watched before the store is read, so that nothing slips through between the two.
        with api.feed.watched() as grown:
            while not (found := await api.ask(work)) and not patience.is_over:
                await patience.wait(grown)
            return found
    finally:
        patience.close()


def _check_kept(connection: sa.Connection, start: int | None) -> None:
    """A 410 when changes after the cursor may have been purged."""
    oldest, _ = history.feed_bounds(connection)
    if start is not None and start < oldest - 1:
        raise ApiError(
            410,
            "Changes after this cursor are no longer kept. Read the issues anew, then go on from oldest_cursor,"
            " or from after=latest taken before.",
            oldest_cursor=cursors.write(cursors.ChangesCursor(oldest - 1)),
        )


def _page(found: list[StoredChange], start: int) -> bytes:
    next_cursor = cursors.write(cursors.ChangesCursor(found[-1].id if found else start))
    return msgspec.json.encode(types.ChangePage(items=tuple(map(shown.change, found)), next_cursor=next_cursor))
