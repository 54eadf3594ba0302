"""The lists over the fleet, for one request: filtered, in pages or whole; the API and the pages both give them."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from patrolserver_exporter.globs import literally
from patrolserver_exporter.inbox import deliveries
from patrolserver_exporter.store import fleet, queries
from patrolserver_exporter.store.queries import ServerKey
from patrolserver_exporter.web import overview
from patrolserver_exporter.web.api import sheets, types
from patrolserver_exporter.web.selection import Labels, issues_wanted, servers_wanted

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    import sqlalchemy as sa

    from patrolserver_exporter.issues.spread import ExploitKey, ExploitSpread, SoftwareSpread
    from patrolserver_exporter.store.queries import IssuesWanted, ServersWanted
    from patrolserver_exporter.web.context import WebContext
    from patrolserver_exporter.web.overview import Servers
    from patrolserver_exporter.web.selection import Chosen

MOST_SERVERS = 1000
"""Servers that an exploit names."""
_CVE = re.compile(r"CVE-[0-9]{4}-[0-9]{4,19}", re.IGNORECASE | re.ASCII)
LIKE_CVE = re.compile(r"CVE-|[0-9]{4}-[0-9]{3,}", re.IGNORECASE | re.ASCII)
"""How a search for an exploit begins."""
CVE_URL = "https://nvd.nist.gov/vuln/detail/{cve}"


class _Read(NamedTuple):
    """What one read of servers found."""

    records: list[fleet.ServerRecord]
    doubts: deliveries.Doubts
    accounts: dict[str, fleet.AccountRecord]


class Lists:
    """Reads lists for one request: labels, accounts and the time are those of its beginning."""

    def __init__(self, context: WebContext) -> None:
        self._read = context.store.read_async
        self.now = context.now()
        self.labels = Labels(context.config())
        self.watched = tuple(status.name for status in context.accounts.statuses())

    # Servers

    async def servers_wanted(self, chosen: Chosen) -> ServersWanted:
        """What the servers' list reads."""
        return await servers_wanted(self._read, chosen, self.labels, self.watched)

    async def servers_page(
        self, wanted: ServersWanted, after: tuple[str, int] | None, limit: int
    ) -> tuple[list[types.Server], ServerKey | None]:
        """Up to ``limit`` servers, and the one behind which to go on."""

        def work(connection: sa.Connection) -> _Read:
            return _Read(
                queries.servers_page(connection, wanted, after, limit + 1),
                deliveries.doubts(connection),
                fleet.account_records(connection),
            )

        found = await self._read(work)
        shown = found.records[:limit]
        on = ServerKey(shown[-1].account, shown[-1].server_id) if len(found.records) > limit else None
        return [self.server(record, found.doubts, found.accounts) for record in shown], on

    def server(
        self, record: fleet.ServerRecord, doubts: deliveries.Doubts, accounts: dict[str, fleet.AccountRecord]
    ) -> types.Server:
        """One server as the API gives it."""
        account = accounts.get(record.account)
        return types.server_of(
            record,
            now=self.now,
            in_doubt=doubts.concern(record.account, record.state.answered_at),
            labels=self.labels.of(record.account, record.name),
            reachable=account is None or account.up is not False,
        )

    async def servers(self, chosen: Chosen) -> AsyncIterator[list[types.Server]]:
        """All of them, page by page."""
        async for items in self.servers_of(await self.servers_wanted(chosen)):
            yield items

    async def servers_of(self, wanted: ServersWanted) -> AsyncIterator[list[types.Server]]:
        """The same, of servers that are found already."""
        after: ServerKey | None = None
        while True:
            items, after = await self.servers_page(wanted, after, sheets.ROWS)
            yield items
            if after is None:
                return

    # Issues

    async def issues_wanted(self, chosen: Chosen, *, fixed: bool | None = False, search: str = "") -> IssuesWanted:
        """What the issues' list reads; ``search`` is a part of the canonical name."""
        wanted = await issues_wanted(self._read, chosen, self.labels, self.watched, fixed=fixed)
        if not search:
            return wanted
        globs = (f"*{literally(search)}*",)
        if LIKE_CVE.match(search):
            return msgspec.structs.replace(wanted, exploits=wanted.exploits or globs)
        names = await self._read(lambda connection: queries.names_meant(connection, globs, fixed=fixed))
        return msgspec.structs.replace(wanted, names=names if wanted.names is None else names & wanted.names)

    async def issues_page(self, wanted: IssuesWanted, after: int, limit: int) -> tuple[list[types.Issue], int | None]:
        """Up to ``limit`` issues, and the row behind which to go on."""
        items: list[types.Issue] = []
        on: int | None = after
        while on is not None and len(items) < limit:
            start, left = on, limit - len(items)

            def work(
                connection: sa.Connection, start: int = start, left: int = left
            ) -> tuple[list[queries.IssueRow], int | None]:
                return queries.issues_page(connection, wanted, start, left)

            rows, on = await self._read(work)
            items += [types.issue_of(row.issue, row.server) for row in rows]
        return items, on

    async def issues(self, wanted: IssuesWanted) -> AsyncIterator[list[types.Issue]]:
        """All of them, page by page."""
        on: int | None = 0
        while on is not None:
            items, on = await self.issues_page(wanted, on, sheets.ROWS)
            yield items

    # Software and exploits over the fleet

    async def servers_meant(self, chosen: Chosen) -> Servers:
        """The servers that such a list is about."""
        return await overview.read_servers(self._read, chosen, self.labels, self.watched, self.now)

    async def software(self, chosen: Chosen) -> tuple[list[types.FleetSoftware], Servers]:
        """All of it, by canonical name and version; and the servers that were looked at."""
        found, servers = await self.software_spread(chosen)
        return [_software(one, servers) for one in found], servers

    async def software_spread(self, chosen: Chosen) -> tuple[list[SoftwareSpread], Servers]:
        """The same, with the servers of each."""
        servers = await self.servers_meant(chosen)
        return await overview.read_software(self._read, chosen, self.labels, self.watched, servers), servers

    async def exploits(self, chosen: Chosen) -> tuple[list[tuple[ExploitKey, types.FleetExploit]], Servers]:
        """All of them, by name; and the servers that were looked at."""
        found, servers = await self.exploits_spread(chosen)
        return [(key, _exploit(one, servers)) for key, one in found], servers

    async def exploits_spread(self, chosen: Chosen) -> tuple[list[tuple[ExploitKey, ExploitSpread]], Servers]:
        """The same, with the servers of each."""
        servers = await self.servers_meant(chosen)
        return await overview.read_exploits(self._read, chosen, self.labels, self.watched), servers


async def in_parts(items: Sequence[Any]) -> AsyncIterator[Sequence[Any]]:
    """Items that are there already, some at once."""
    for start in range(0, len(items), sheets.ROWS):
        yield items[start : start + sheets.ROWS]


def coverage(servers: Servers) -> types.Coverage:
    """How much of the fleet a list speaks for."""
    return types.Coverage(servers=len(servers.states), unknown=len(servers.doubts), never_polled=servers.never_polled)


def _software(found: SoftwareSpread, servers: Servers) -> types.FleetSoftware:
    return types.FleetSoftware(
        software=found.name,
        canonical_name=found.canonical_name,
        version=found.version,
        kinds=tuple(sorted(found.kinds)),
        severity=found.severity,
        risk=found.risk,
        risk_unknown=found.risk_unknown,
        exploits=tuple(found.exploits),
        update_to=tuple(sorted(found.updates)),
        servers=len(found.on),
        servers_waived=len(found.waived - found.on),
        servers_state_unknown=len(found.state_unknown),
        servers_doubtful=sum(key in servers.doubts for key in found.on),
    )


def _exploit(found: ExploitSpread, servers: Servers) -> types.FleetExploit:
    everywhere: Sequence[tuple[str, int]] = sorted(found.servers | found.waived)
    return types.FleetExploit(
        id=found.id,
        cve=found.cve,
        title=found.title,
        url=cve_url(found.cve),
        risk=found.risk,
        risk_unknown=found.risk_unknown,
        severity=found.severity,
        software=tuple(sorted(found.software)),
        servers=len(found.servers),
        servers_waived=len(found.only_waived),
        servers_doubtful=sum(key in servers.doubts for key in found.servers),
        on=tuple(
            types.ServerWithExploit(
                account=key[0],
                id=key[1],
                name=servers.states[key].name if key in servers.states else "",
                waived=key not in found.servers,
                doubtful=key in servers.doubts,
            )
            for key in everywhere[:MOST_SERVERS]
        ),
    )


def cve_url(cve: str | None) -> str | None:
    """Where a CVE is told of."""
    return None if cve is None or not _CVE.fullmatch(cve) else CVE_URL.format(cve=cve.upper())
