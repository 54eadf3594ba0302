"""What is known of the servers that a deploy gate asks for, read from one state of the store."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

import msgspec
import sqlalchemy as sa

from patrolserver_exporter.issues.model import Identity, Issue, IssueClass
from patrolserver_exporter.store.documents import unseal
from patrolserver_exporter.store.fleet import ServerState
from patrolserver_exporter.store.queries import CHUNK, HERE, is_one_of
from patrolserver_exporter.store.tables import accounts, issues, servers

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from patrolserver_exporter.store.queries import ServerKey


class ServerEvidence(msgspec.Struct, frozen=True, kw_only=True):
    """One server as the gate sees it. Times are seconds since the epoch."""

    account: str
    server_id: int
    name: str
    last_poll_at: float | None
    """Start of the last successful poll."""
    poll_success: bool
    """The last poll, successful or not, succeeded."""
    poll_complete: bool = True
    """Every entry of the last successful poll could be read."""
    last_scan_at: float | None = None
    """End of the last scan seen."""
    software: tuple[int, int, int, int] | None = None
    """Counts in the order of ``STATES``; ``None`` until the first successful poll."""
    exploits_unknown: int = 0
    """Software for which the API's reply carried no exploits at all."""
    uncounted_risk: float = 0.0
    """Highest risk of the known exploits that no issue stands for, because they are below ``issues.exploit_risk``."""
    issues: tuple[Issue, ...] = ()
    """The open ones, the waived among them; fixed ones do not count."""
    unconfirmed_event: bool = False
    """An event of the server waits to be fetched, merged or confirmed by a poll."""
    account_refused: bool = False
    """The API refuses the account's credentials."""
    account_reachable: bool = True
    """The last call for the account's server list succeeded."""


class UnknownServer(msgspec.Struct, frozen=True, kw_only=True):
    """A server that was asked for and cannot be told."""

    selector: str
    """The name or id that was asked for."""
    account: str | None = None
    """The account that was asked for, if one was."""
    ambiguous_in: tuple[str, ...] = ()
    """Accounts that all have such a server; empty if none has."""
    never_listed: bool = False
    """The account's server list was never read, so that nobody can tell what a glob means there."""


Evidence = ServerEvidence | UnknownServer


class KnownServer(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a server that is to be judged."""

    account: str
    server_id: int
    name: str
    state: ServerState
    software: tuple[int, int, int, int] | None
    """Counts in the order of ``STATES``; ``None`` until the first successful poll."""
    exploits_unknown: int
    uncounted_risk: float
    """Highest risk of the exploits of software without an open exploit issue, 0 to 10."""
    issues: tuple[Issue, ...]
    """The open ones."""


class _Counted(msgspec.Struct, frozen=True):
    """The part of a server's summary that the gate needs."""

    software: tuple[int, int, int, int] | None = None


class _Exploit(msgspec.Struct, frozen=True):
    """The part of an exploit that the gate needs."""

    risk: float | None = None


class _Installed(msgspec.Struct, frozen=True):
    """The part of a software that the gate needs."""

    canonical_name: str
    location: str | None = None
    exploits: tuple[_Exploit, ...] | None = None


def known_servers(connection: sa.Connection, keys: Iterable[ServerKey]) -> list[KnownServer]:
    """What is known of these servers, as far as they are not gone."""
    ordered = sorted(set(keys))
    known: list[KnownServer] = []
    for start in range(0, len(ordered), CHUNK):
        known += _known_chunk(connection, ordered[start : start + CHUNK])
    return known


def _known_chunk(connection: sa.Connection, keys: Sequence[ServerKey]) -> Iterator[KnownServer]:
    columns = (servers.c.account, servers.c.server_id, servers.c.name, servers.c.state, servers.c.summary)
    rows = connection.execute(sa.select(*columns, servers.c.software).where(HERE, is_one_of(servers, keys))).all()
    documents: dict[tuple[str, int], list[Issue]] = defaultdict(list)
    for account, server_id, document in connection.execute(
        sa.select(issues.c.account, issues.c.server_id, issues.c.document)
        .where(issues.c.fixed_at.is_(None), is_one_of(issues, keys))
        .order_by(issues.c.id)
    ):
        documents[account, server_id].append(unseal(document, Issue))
    for account, server_id, name, state, summary, software in rows:
        installed = () if software is None else unseal(software, tuple[_Installed, ...])
        yield KnownServer(
            account=account,
            server_id=server_id,
            name=name,
            state=unseal(state, ServerState),
            software=None if software is None else unseal(summary, _Counted).software,
            exploits_unknown=sum(one.exploits is None for one in installed),
            uncounted_risk=_uncounted_risk(installed, documents[account, server_id]),
            issues=tuple(documents[account, server_id]),
        )


def _uncounted_risk(installed: Iterable[_Installed], known: Iterable[Issue]) -> float:
    """An exploit without a risk always is an issue's."""
    counted = {issue.identity for issue in known}
    return max(
        (
            exploit.risk
            for one in installed
            for exploit in one.exploits or ()
            if exploit.risk is not None
            and Identity(one.canonical_name, one.location, IssueClass.EXPLOIT) not in counted
        ),
        default=0.0,
    )


def listed_accounts(connection: sa.Connection) -> frozenset[str]:
    """Accounts whose server list was read at least once."""
    return frozenset(connection.scalars(sa.select(accounts.c.name).where(accounts.c.last_success_at.is_not(None))))


def reachable_accounts(connection: sa.Connection) -> dict[str, bool]:
    """Whether the last call for each account's server list succeeded; accounts that were never asked are left out."""
    rows = connection.execute(sa.select(accounts.c.name, accounts.c.up).where(accounts.c.up.is_not(None)))
    return {row[0]: row[1] for row in rows}
