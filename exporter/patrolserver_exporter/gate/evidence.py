"""What is known of the servers that a deploy gate asks for, read from one state of the store."""

from __future__ import annotations

import functools
from collections import defaultdict
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import msgspec
import sqlalchemy as sa

from patrolserver_exporter.issues.model import Identity, Issue, IssueClass
from patrolserver_exporter.store.fleet import AccountRecord, Reading, ServerState, account_records, find_accounts
from patrolserver_exporter.store.queries import CHUNK, HERE, NamedServer, ServerKey, is_of_accounts, keys_of_accounts
from patrolserver_exporter.store.queries import servers_meant as find
from patrolserver_exporter.store.tables import issues, servers, unseal

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from patrolserver_exporter.store.queries import Selector


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
    """The last successful poll was whole."""
    incomplete_because: str | None = None
    """What made it incomplete, in words."""
    empty: bool = False
    """The last successful poll listed no software at all."""
    identity_in_doubt: bool = False
    """It got another name or came back, and no whole poll has started since: what is known may be another one's."""
    missing_from_list: bool = False
    """The last server list lacked it, which another one has to confirm."""
    history_since: float | None = None
    """Start of its first whole poll: what that one found may be much older. ``None`` where that is not known."""
    last_scan_at: float | None = None
    """End of the last scan seen."""
    software: tuple[int, int, int, int] | None = None
    """Counts in the order of ``STATES``; ``None`` until the first successful poll."""
    exploits_unknown: int = 0
    """Software for which the API's reply carried no exploits at all."""
    lesser_risks: tuple[tuple[str, float], ...] = ()
    """Fingerprints of open issues, each with the highest risk of the exploits beside those that it stands for."""
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
    """A server that was asked for and cannot be identified."""

    selector: str
    """The name or id that was asked for."""
    account: str | None = None
    """The account that was asked for, if one was."""
    not_among: tuple[str, ...] = ()
    """The accounts that there are, where the one that was asked for is none of them."""
    ambiguous_in: tuple[str, ...] = ()
    """Accounts that all have such a server; empty if none has."""
    never_listed: bool = False
    """The account's server list was never read, so that nobody can tell which servers it has."""
    refused: bool = False
    """The API refuses the account's credentials, so that nobody can tell which servers it has."""
    list_incomplete: str | None = None
    """Why the account's last server list was not whole, so that a glob may mean more servers."""
    listed_at: float | None = None
    """When a whole list was read last: one that is too old for the policy leaves a glob in doubt."""


Evidence = ServerEvidence | UnknownServer


_CREDENTIALS = "credentials"
"""The trouble of an account whose credentials are refused, as `sync.health.Trouble` has it."""


class AccountHealth(msgspec.Struct, frozen=True, kw_only=True):
    """How an account's API stands as far as it is known from memory; what the store knows stands in its row."""

    name: str
    credentials_refused: bool
    list_was_tried: bool = True
    """A list call has ended since the start; before that, nobody knows whether the credentials still hold."""
    reading: Reading | None = None
    """How the list is read here: another exporter, with another configuration, may have read another one."""


class Standing(msgspec.Struct, frozen=True, kw_only=True):
    """How far an account's data can be trusted."""

    account: str
    reachable: bool
    """The last call for its server list succeeded, or none was made yet."""
    refused: bool
    """Its credentials are refused, or may be."""
    listed_at: float | None
    """When its server list was read last."""
    list_incomplete: str | None
    """Why the last list was not whole."""
    may_be_of_others: bool = False
    """What is known of its servers may be of others: it was read from another API, or with another key."""

    @classmethod
    def of(cls, health: AccountHealth, record: AccountRecord | None) -> Standing:
        """What its health and its row tell."""
        record = record or AccountRecord(name=health.name)
        reachable = record.up is not False
        trouble = record.state.trouble
        return cls(
            account=health.name,
            reachable=reachable,
            # The state of an earlier version only tells that the last list call failed, and not why.
            refused=health.credentials_refused
            or trouble == _CREDENTIALS
            or not (reachable or health.list_was_tried or trouble is not None),
            listed_at=record.last_success_at,
            list_incomplete=_why_partial(record, health.reading),
            may_be_of_others=health.reading is not None
            and (record.is_of_another_api(health.reading.source) or record.is_of_another_key(health.reading.key)),
        )

    def doubt(self, selector: Selector) -> UnknownServer | None:
        """Why the account may have servers that the selector means and nobody knows of."""
        if self.listed_at is None:
            return UnknownServer(
                selector=selector.asked, account=self.account, refused=self.refused, never_listed=not self.refused
            )
        if self.list_incomplete is not None:
            return UnknownServer(selector=selector.asked, account=self.account, list_incomplete=self.list_incomplete)
        if self.refused:
            return UnknownServer(selector=selector.asked, account=self.account, refused=True)
        return None


def _why_partial(record: AccountRecord, reading: Reading | None) -> str | None:
    if record.state.list_complete is not False:
        return None if reading is None else record.read_otherwise(reading)
    return "; ".join(record.state.list_partial_because) or "it was only a part"


HasUnconfirmedNews = Callable[[str, "float | None"], bool]
"""Whether deliveries may tell news of an account's server that was last polled completely at that time."""


def gather(
    connection: sa.Connection,
    selectors: Sequence[Selector],
    account: str | None,
    watched: Mapping[str, AccountHealth],
    has_unconfirmed_news: HasUnconfirmedNews,
) -> list[Evidence]:
    """The evidence on the servers that are asked for, of one account where one is given.

    To be read from one state of the store. Accounts that nobody watches have no servers here.
    """
    return list(gather_each(connection, selectors, account, watched, has_unconfirmed_news))


def gather_each(
    connection: sa.Connection,
    selectors: Sequence[Selector],
    account: str | None,
    watched: Mapping[str, AccountHealth],
    has_unconfirmed_news: HasUnconfirmedNews,
) -> Iterator[Evidence]:
    """As `gather`, some at a time: what is not known first, then the servers by account and name."""
    # One alone where one is meant: there may be hundreds.
    records = account_records(connection) if account is None else find_accounts(connection, [account])
    names = tuple(name for name in watched if account in {None, name})
    standing = {name: Standing.of(watched[name], records.get(name)) for name in names}
    found = find(connection, selectors, names) if names else {}
    named: set[NamedServer] = set()
    never_listed = [one for one in standing.values() if one.listed_at is None]
    for selector in selectors:
        servers = found.get(selector, [])
        accounts = sorted({server.account for server in servers})
        if selector.glob is None and len(accounts) > 1:
            yield UnknownServer(selector=selector.asked, account=account, ambiguous_in=tuple(accounts))
            continue
        named.update(servers)
        if selector.glob is not None or not servers:
            # What an account is silent about may be just what was asked for.
            silent = [one.doubt(selector) for one in standing.values()]
            doubts = [doubt for doubt in silent if doubt is not None]
            others = () if account is None or account in watched else tuple(watched)
            unknown = UnknownServer(selector=selector.asked, account=account, not_among=others)
            yield from doubts or ([] if servers else [unknown])
        elif (silent_one := next((one for one in never_listed if one.account not in accounts), None)) is not None:
            # It may have a server that is called so, too; then nobody knows which one is meant.
            yield silent_one.doubt(selector) or UnknownServer(selector=selector.asked, account=silent_one.account)
        if selector.glob is not None:
            for one in standing.values():
                if one.listed_at is not None:
                    yield UnknownServer(selector=selector.asked, account=one.account, listed_at=one.listed_at)
    ordered = sorted(named, key=lambda server: (server.account, server.name, server.server_id))
    for start in range(0, len(ordered), CHUNK):
        keys = [server.key for server in ordered[start : start + CHUNK]]
        yield from _of_those(connection, keys, standing, has_unconfirmed_news)


def gather_those(
    connection: sa.Connection,
    keys: Sequence[ServerKey],
    watched: Mapping[str, AccountHealth],
    has_unconfirmed_news: HasUnconfirmedNews,
) -> list[Evidence]:
    """The evidence on these servers, at most ``CHUNK``, which need not be looked for; as `gather`."""
    names = sorted({key.account for key in keys if key.account in watched})
    records = find_accounts(connection, names)
    standing = {name: Standing.of(watched[name], records.get(name)) for name in names}
    return list(_of_those(connection, [key for key in keys if key.account in standing], standing, has_unconfirmed_news))


def _of_those(
    connection: sa.Connection,
    keys: Sequence[ServerKey],
    standing: Mapping[str, Standing],
    has_unconfirmed_news: HasUnconfirmedNews,
) -> Iterator[Evidence]:
    known = {ServerKey(one.account, one.server_id): one for one in known_servers(connection, keys)} if keys else {}
    for key in keys:
        server = known.get(key)
        if server is None:
            yield UnknownServer(selector=str(key.server_id), account=key.account)
        else:
            yield _of(server, standing[server.account], has_unconfirmed_news)


def _of(server: KnownServer, standing: Standing, has_unconfirmed_news: HasUnconfirmedNews) -> ServerEvidence:
    state = server.state
    return ServerEvidence(
        account=server.account,
        server_id=server.server_id,
        name=server.name,
        last_poll_at=state.last_poll_at,
        poll_success=state.poll_success,
        poll_complete=state.poll_complete,
        incomplete_because=state.incomplete_because or state.list_doubt,
        empty=state.empty,
        identity_in_doubt=standing.may_be_of_others
        or state.in_doubt_since is not None
        or state.came_back_at is not None,
        missing_from_list=state.missing_since is not None,
        history_since=state.history_since,
        last_scan_at=state.last_scan_at,
        software=server.software,
        exploits_unknown=server.exploits_unknown,
        lesser_risks=server.lesser_risks,
        uncounted_risk=server.uncounted_risk,
        issues=server.issues,
        unconfirmed_event=state.unconfirmed_event or has_unconfirmed_news(server.account, state.answered_at),
        account_refused=standing.refused,
        account_reachable=standing.reachable,
    )


class KnownServer(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a server that is to be judged."""

    account: str
    server_id: int
    name: str
    state: ServerState
    software: tuple[int, int, int, int] | None
    """Counts in the order of ``STATES``; ``None`` until the first successful poll."""
    exploits_unknown: int
    lesser_risks: tuple[tuple[str, float], ...]
    """As in `ServerEvidence`."""
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


# Building the statements costs more than running them.
@functools.lru_cache(maxsize=128)
def _about_servers(accounts: int) -> tuple[sa.Select[*tuple[Any, ...]], sa.Select[*tuple[Any, ...]]]:
    """Of servers of so many accounts: what is known of them, and their open issues."""
    columns = (servers.c.account, servers.c.server_id, servers.c.name, servers.c.state, servers.c.summary)
    return (
        sa.select(*columns, servers.c.software).where(HERE, is_of_accounts(servers, accounts)),
        sa.select(issues.c.account, issues.c.server_id, issues.c.document)
        .where(issues.c.fixed_at.is_(None), is_of_accounts(issues, accounts))
        .order_by(issues.c.id),
    )


def known_servers(connection: sa.Connection, keys: Sequence[ServerKey]) -> Iterator[KnownServer]:
    """What is known of these servers, as far as they are not gone; at most ``CHUNK``, in any order."""
    accounts, parameters = keys_of_accounts(keys)
    of_servers, open_issues = _about_servers(accounts)
    rows = connection.execute(of_servers, parameters).all()
    documents: dict[tuple[str, int], list[Issue]] = defaultdict(list)
    for account, server_id, document in connection.execute(open_issues, parameters):
        documents[account, server_id].append(unseal(document, Issue))
    for account, server_id, name, document, summary, software in rows:
        installed = () if software is None else unseal(software, tuple[_Installed, ...])
        state = unseal(document, ServerState)
        yield KnownServer(
            account=account,
            server_id=server_id,
            name=name,
            state=state,
            software=None if software is None else unseal(summary, _Counted).software,
            # What the last poll did not tell is not known, though what was known before it is kept.
            exploits_unknown=max(state.exploits_unknown, sum(one.exploits is None for one in installed)),
            lesser_risks=tuple(_lesser_risks(installed, documents[account, server_id])),
            uncounted_risk=_uncounted_risk(installed, documents[account, server_id]),
            issues=tuple(documents[account, server_id]),
        )


def _exploit_issues(installed: Iterable[_Installed], known: Iterable[Issue]) -> dict[Identity, Issue]:
    """The issue of the exploits of each software that has one.

    That of the same spelling, else one that was opened under another one and that no software has for its own.
    """
    listed = {_identity_of(one) for one in installed}
    exact = {issue.identity: issue for issue in known}
    folded = {issue.identity.folded: issue for identity, issue in exact.items() if identity not in listed}
    found = ((one, exact.get(one) or folded.get(one.folded)) for one in listed)
    return {identity: issue for identity, issue in found if issue is not None}


def _identity_of(software: _Installed) -> Identity:
    return Identity(software.canonical_name, software.location, IssueClass.EXPLOIT)


def _uncounted_risk(installed: Sequence[_Installed], known: Iterable[Issue]) -> float:
    """An exploit without a risk always is an issue's."""
    counted = _exploit_issues(installed, known)
    return max(
        (
            exploit.risk
            for one in installed
            if _identity_of(one) not in counted
            for exploit in one.exploits or ()
            if exploit.risk is not None
        ),
        default=0.0,
    )


def _lesser_risks(installed: Sequence[_Installed], known: Sequence[Issue]) -> Iterator[tuple[str, float]]:
    """One stored without its exploits stands for all of them."""
    told = [issue for issue in known if issue.exploits]
    of_identity = _exploit_issues(installed, told) if told else {}
    for one in installed if of_identity else ():
        issue = of_identity.get(_identity_of(one))
        if issue is None:
            continue
        counted = {exploit.risk for exploit in issue.exploits}
        risks = [exploit.risk for exploit in one.exploits or () if exploit.risk is not None]
        lesser = max((risk for risk in risks if risk not in counted), default=None)
        if lesser is not None:
            yield issue.fingerprint, lesser
