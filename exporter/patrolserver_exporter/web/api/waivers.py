"""The waivers of the configuration, and what each covers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from patrolserver_exporter import globs
from patrolserver_exporter.issues.waive import covers, day_of, is_expired
from patrolserver_exporter.store import queries
from patrolserver_exporter.store.queries import IssuesWanted
from patrolserver_exporter.web.api import types
from patrolserver_exporter.web.api.endpoint import Api, Call, NoParameters, Reply, in_thread
from patrolserver_exporter.web.api.lists import Lists, coverage
from patrolserver_exporter.web.selection import Chosen

if TYPE_CHECKING:
    from collections.abc import Sequence

    import sqlalchemy as sa

    from patrolserver_exporter.issues.model import Waiver
    from patrolserver_exporter.store.queries import IssueRow

ROWS = 500
"""Issues that one read looks at, so that others get their turn."""


class _Uses:
    """What the waivers cover, counted issue by issue."""

    def __init__(self, waivers: Sequence[Waiver]) -> None:
        self._waivers = waivers
        self._of_software: dict[str, list[int]] = {}
        self.issues = [0] * len(waivers)
        self.servers: list[set[tuple[str, int]]] = [set() for _ in waivers]

    def see(self, row: IssueRow) -> None:
        """Count an open issue."""
        issue = row.issue
        for place in self._about(issue.canonical_name):
            if covers(self._waivers[place], issue, row.server):
                self.issues[place] += 1
                self.servers[place].add((issue.account, issue.server_id))

    def _about(self, software: str) -> list[int]:
        if software not in self._of_software:
            fitting = [n for n, waiver in enumerate(self._waivers) if globs.matches(waiver.software, software)]
            self._of_software[software] = fitting
        return self._of_software[software]


async def waivers(api: Api, _call: Call[NoParameters]) -> Reply:
    """All of them, in the order of the configuration."""
    configured, lists = api.context.config().issues.waivers, Lists(api.context)
    uses = _Uses(configured)
    on: int | None = 0 if configured else None
    if configured:
        software = tuple(dict.fromkeys(waiver.software for waiver in configured))
        names = await api.read(lambda connection: queries.names_meant(connection, software, fixed=False))
        wanted = IssuesWanted(accounts=lists.watched, names=names)
    while on is not None:
        start = on

        def work(connection: sa.Connection, start: int = start) -> int | None:
            rows, on = queries.issues_page(connection, wanted, start, ROWS)
            for row in rows:
                uses.see(row)
            return on

        on = await api.read(work)
    servers = await lists.servers_meant(Chosen())
    today = day_of(api.now())
    items = tuple(
        types.ConfiguredWaiver(
            **{name: getattr(waiver, name) for name in waiver.__struct_fields__},
            expired=is_expired(waiver, today),
            issues=issues,
            servers=len(on_servers),
        )
        for waiver, issues, on_servers in zip(configured, uses.issues, uses.servers, strict=True)
    )
    return Reply(await in_thread(msgspec.json.encode, types.WaiverList(items=items, coverage=coverage(servers))))
