"""Lists over the whole fleet: read in bounded parts, so that no reader is kept from others for long."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec

from patrolserver_exporter.globs import any_matches
from patrolserver_exporter.inbox import deliveries
from patrolserver_exporter.issues.model import STATES, State
from patrolserver_exporter.issues.spread import ExploitsOverFleet, SeenIssue, SoftwareOverFleet
from patrolserver_exporter.store import fleet, queries
from patrolserver_exporter.store.queries import ServerKey, any_name_matches
from patrolserver_exporter.store.tables import unseal
from patrolserver_exporter.store.views import PollState, poll_states
from patrolserver_exporter.web.selection import issues_wanted, keys_chosen
from patrolserver_exporter.web.standing import Doubt, doubts_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Collection, Mapping, Sequence

    import sqlalchemy as sa

    from patrolserver_exporter.issues.model import IssueExploit, Severity
    from patrolserver_exporter.issues.spread import ExploitKey, ExploitSpread, Key, SoftwareSpread
    from patrolserver_exporter.store.queries import IssuesWanted
    from patrolserver_exporter.web.selection import Chosen, Labels, Read

_AT_ONCE = 1000
"""Servers in one read."""
_UNKNOWN_STATE = STATES.index(State.UNKNOWN)


@dataclass(frozen=True, slots=True, kw_only=True)
class Servers:
    """The servers that a list over the fleet is about, and which of them nobody can vouch for."""

    states: Mapping[Key, PollState]
    doubts: Mapping[Key, tuple[Doubt, ...]]
    """Only those that have some."""

    @property
    def never_polled(self) -> int:
        """How many no poll has looked at yet: they may have anything."""
        return sum(Doubt.NEVER_POLLED in doubts for doubts in self.doubts.values())

    def only(self, accounts: Sequence[str], keys: Collection[Key] | None) -> Servers:
        """Those of these accounts and of these keys; no account and ``None`` mean all."""

        def is_meant(key: Key) -> bool:
            return (not accounts or key[0] in accounts) and (keys is None or key in keys)

        return Servers(
            states={key: state for key, state in self.states.items() if is_meant(key)},
            doubts={key: doubts for key, doubts in self.doubts.items() if is_meant(key)},
        )


async def read_states(read: Read) -> list[PollState]:
    """The standing of every server, by account and id."""
    found: list[PollState] = []
    after: tuple[str, int] | None = None
    while True:
        start = after

        def work(connection: sa.Connection, start: tuple[str, int] | None = start) -> list[PollState]:
            return poll_states(connection, start, _AT_ONCE)

        part: list[PollState] = await read(work)
        found += part
        if len(part) < _AT_ONCE:
            return found
        after = part[-1].account, part[-1].server_id


async def read_servers(read: Read, chosen: Chosen, labels: Labels, watched: Sequence[str], now: float) -> Servers:
    """The servers that accounts, selectors and labels choose."""

    def work(
        connection: sa.Connection,
    ) -> tuple[frozenset[ServerKey] | None, dict[str, fleet.AccountRecord], deliveries.Doubts]:
        keys = keys_chosen(connection, chosen, labels, watched)
        return keys, fleet.account_records(connection), deliveries.doubts(connection)

    keys, accounts, news = await read(work)
    return servers_of(await read_states(read), accounts, now, accounts_wanted=chosen.accounts, keys=keys, news=news)


def servers_of(  # noqa: PLR0913  # What is asked for, by keyword.
    states: Sequence[PollState],
    accounts: Mapping[str, fleet.AccountRecord],
    now: float,
    *,
    accounts_wanted: Sequence[str] = (),
    keys: frozenset[ServerKey] | None = None,
    news: deliveries.Doubts | None = None,
) -> Servers:
    """Those of the states that are wanted, with what makes them doubtful; ``news``: what the inbox leaves in doubt."""
    found: dict[Key, PollState] = {}
    doubted: dict[Key, tuple[Doubt, ...]] = {}
    if news is not None and not (news.waiting or news.catch_up_since):
        # As nearly always: then no server of a large fleet has to be asked about.
        news = None
    for state in states:
        key = ServerKey(state.account, state.server_id)
        if (accounts_wanted and state.account not in accounts_wanted) or (keys is not None and key not in keys):
            continue
        found[key] = state
        record = accounts.get(state.account)
        waits = news is not None and news.concern(state.account, state.last_poll_at if state.poll_complete else None)
        if doubts := doubts_of(state, now, reachable=record is None or record.up is not False, waits=waits):
            doubted[key] = doubts
    return Servers(states=found, doubts=doubted)


async def seen_issues(read: Read, wanted: IssuesWanted) -> AsyncIterator[list[SeenIssue]]:
    """The open issues that are wanted, some thousands at once."""
    on: int | None = 0
    while on is not None:
        start = on

        def work(connection: sa.Connection, start: int = start) -> tuple[list[SeenIssue], int | None]:
            rows, on = queries.issue_rows(connection, wanted, start, queries.SCAN_LIMIT)
            return [unseal(row.document, SeenIssue) for row in rows], on

        issues, on = await read(work)
        yield issues


async def read_software(
    read: Read, chosen: Chosen, labels: Labels, watched: Sequence[str], servers: Servers
) -> list[SoftwareSpread]:
    """Each software and version that is not fine, by name and version."""
    wanted = await issues_wanted(read, chosen, labels, watched)
    collected = SoftwareOverFleet()
    async for issues in seen_issues(read, wanted):
        for issue in issues:
            collected.add(issue)
    if not (chosen.severities or chosen.kinds or chosen.exploits or chosen.waived is not None):
        await _add_unknown(read, collected, chosen, servers)
    return [collected.found[key] for key in sorted(collected.found)]


async def _add_unknown(read: Read, collected: SoftwareOverFleet, chosen: Chosen, servers: Servers) -> None:
    """What is in a state that nobody knows makes no issue, and is not fine either."""
    keys = [key for key, state in servers.states.items() if state.software and state.software[_UNKNOWN_STATE]]

    def is_wanted(name: str) -> bool:
        return not chosen.software or any_matches(chosen.software, name)

    for start in range(0, len(keys), queries.CHUNK):
        part = keys[start : start + queries.CHUNK]

        def work(connection: sa.Connection, part: Sequence[Any] = part) -> list[tuple[Any, Any]]:
            return [(key, fleet.software_of(connection, *key) or ()) for key in part]

        for key, software in await read(work):
            collected.add_unknown(key, software, is_wanted)


async def read_exploits(
    read: Read, chosen: Chosen, labels: Labels, watched: Sequence[str]
) -> list[tuple[ExploitKey, ExploitSpread]]:
    """Each known exploit at or above ``issues.exploit_risk``, by its name; filters hold for the exploit itself."""
    asked = msgspec.structs.replace(chosen, severities=(), waived=None)
    wanted = await issues_wanted(read, asked, labels, watched)

    def is_wanted(exploit: IssueExploit, severity: Severity, waived: bool) -> bool:  # noqa: FBT001  # a callback's
        return (
            (not chosen.severities or severity in chosen.severities)
            and (not chosen.exploits or any_name_matches(chosen.exploits, exploit))
            and (chosen.waived is None or chosen.waived is waived)
        )

    collected = ExploitsOverFleet(is_wanted)
    async for issues in seen_issues(read, wanted):
        for issue in issues:
            collected.add(issue)
    return [(key, collected.found[key]) for key in sorted(collected.found)]
