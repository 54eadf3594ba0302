"""The change feed, the newest first: read in bounded parts, as few may fit what was asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from patrolserver_exporter.store.views import newest_changes
from patrolserver_exporter.web.api.sheets import Sheet
from patrolserver_exporter.web.api.types import time_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Collection

    import sqlalchemy as sa

    from patrolserver_exporter.issues.model import ChangeKind
    from patrolserver_exporter.store.history import StoredChange
    from patrolserver_exporter.store.queries import IssuesWanted
    from patrolserver_exporter.web.selection import Read

ROWS = 100
_AT_ONCE = 1000
_MOST_READS = 20
"""Reads for one page; if fewer than `ROWS` fit, it is shorter, and says where to go on."""


def _row(change: StoredChange) -> tuple[object, ...]:
    issue = change.issue
    return (
        *(time_of(change.at), change.kind.value, issue.account, issue.server_id, change.server),
        *(issue.severity.value, issue.kind.value, issue.software, issue.canonical_name, issue.version),
        *(issue.update_to, issue.risk, issue.waived, issue.fingerprint),
    )


CHANGES = Sheet(
    (
        *("at", "change", "account", "server_id", "server", "severity", "kind", "software", "canonical_name"),
        *("version", "update_to", "risk", "waived", "fingerprint"),
    ),
    _row,
)


async def parts(
    read: Read, wanted: IssuesWanted, kinds: Collection[ChangeKind], since: float, before: int | None
) -> AsyncIterator[tuple[list[StoredChange], int | None]]:
    """Changes that fit, the newest first, and the place before which to go on; ``None`` at the end."""
    while True:
        start = before

        def work(connection: sa.Connection, start: int | None = start) -> list[StoredChange]:
            return newest_changes(connection, since=since, before=start, limit=_AT_ONCE)

        found: list[StoredChange] = await read(work)
        before = found[-1].id if len(found) == _AT_ONCE else None
        yield [one for one in found if one.kind in kinds and wanted.has(one.issue)], before
        if before is None:
            return


async def some_changes(
    read: Read, wanted: IssuesWanted, kinds: Collection[ChangeKind], since: float, before: int | None
) -> tuple[list[StoredChange], int | None]:
    """A page of changes, and the place before which the next one goes on; ``None`` at the end."""
    found: list[StoredChange] = []
    reads = 0
    async for fitting, on in parts(read, wanted, kinds, since, before):
        found += fitting
        reads += 1
        if len(found) > ROWS:
            return found[:ROWS], found[ROWS - 1].id
        if reads == _MOST_READS:
            return found, on
    return found, None


async def all_changes(
    read: Read, wanted: IssuesWanted, kinds: Collection[ChangeKind], since: float
) -> AsyncIterator[list[StoredChange]]:
    """All of them, in parts."""
    async for fitting, _ in parts(read, wanted, kinds, since, None):
        yield fitting
