"""Accounts, servers and issues: the state that everything shown is made of."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
import sqlalchemy as sa

from patrolserver_exporter.issues.model import Issue
from patrolserver_exporter.issues.summary import ServerSummary
from patrolserver_exporter.issues.trust import Collapse
from patrolserver_exporter.patrolserver.models import MAX_ID, Software
from patrolserver_exporter.store.tables import accounts, catch_ups, issues, seal, servers, unseal, upsert

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence


class GivenUp(msgspec.Struct, frozen=True, kw_only=True):
    """An exporter could not reach an account's API, and gave the account to others."""

    owner: str
    """Its id."""
    until: float
    """It does not get the account back before then, if anybody else is there; seconds since the epoch."""
    times: int
    """How often it did so, as far as that is remembered."""


class AccountState(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The part of an account's state that is neither counted nor searched. Times are seconds since the epoch."""

    list_complete: bool | None = None
    """The last successful server list was whole; ``None`` before the first."""
    list_partial_because: tuple[str, ...] = ()
    """What said that it was not, in words."""
    list_source: str | None = None
    """The API that the account was read from last, as a mark; ``None`` before the first list of this version."""
    list_key: str | None = None
    """The key that the account was read with last, as a short mark; ``None`` before the first list of this version."""
    list_length: int | None = None
    """Servers in the last list that was whole and believed, watched or not."""
    list_chosen_by: str | None = None
    """The include and exclude lists by which servers were taken from the last list, as a mark; ``None``: all were."""
    shrunk_since: float | None = None
    """A list has been empty, or too short to be believed at once, since then; until another one confirms it, the
    servers that it lacked are missing and not gone."""
    paused_until: float | None = None
    """The API asked the whole account to wait until then."""
    pause_reason: str | None = None
    """What it said, free of credentials."""
    list_missing: int = 0
    """Servers that the last list lacked, which another one has to confirm."""
    trouble: str | None = None
    """Why the last list call failed, as `sync.health.Trouble` has it; ``None`` when it did not."""
    trouble_detail: str | None = None
    """What it said, free of credentials."""
    trouble_reason: str | None = None
    """Its reason, as the metrics have it."""
    list_failures: int = 0
    """List calls in a row that failed."""
    list_at: float | None = None
    """When the next one is due, after one that failed."""
    given_up: tuple[GivenUp, ...] = ()
    """By exporters that could not reach the API."""
    clock_steps: float = 0.0
    """Seconds by which the times of the account and its servers have followed the clock, all steps together."""


class Reading(NamedTuple):
    """How a configuration has an account's list read, as marks to compare."""

    source: str
    """The API."""
    key: str | None
    choosing: str | None
    """The globs that choose from it; ``None`` where all servers are watched."""


_OTHER_API = "the account's api_url has changed since it was read"
_OTHER_KEY = "the account's key has changed since it was read"
_OTHER_GLOBS = "the account's include and exclude lists have changed since it was read"


class AccountRecord(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of an account's API. Times are seconds since the epoch."""

    name: str
    up: bool | None = None
    """The last call for the server list succeeded; ``None`` before the first."""
    last_success_at: float | None = None
    catch_up_since: float | None = None
    """Deliveries did not fit into the inbox since then: the next poll of each server makes up for them."""
    state: AccountState = AccountState()

    def is_of_another_api(self, source: str) -> bool:
        """Whether what is known of the account was read from another API than this one."""
        return self.state.list_source not in {None, source}

    def is_of_another_key(self, key: str | None) -> bool:
        """Whether the last list was read with another key than this one: that may be another account's."""
        return None not in {self.state.list_key, key} and self.state.list_key != key

    def read_otherwise(self, reading: Reading) -> str | None:
        """Why the last list may not be what such a reading brings; ``None`` if it was read like that."""
        if self.is_of_another_api(reading.source):
            return _OTHER_API
        if self.is_of_another_key(reading.key):
            return _OTHER_KEY
        if self.last_success_at is None or self.state.list_chosen_by == reading.choosing:
            return None
        return _OTHER_GLOBS


class ServerState(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The part of a server's state that is not counted: polls, scans, events. Times are seconds since the epoch."""

    verified: bool | None = None
    last_poll_at: float | None = None
    """Start of the last successful poll."""
    poll_success: bool = False
    complete_poll_at: float | None = None
    """Start of the last successful poll that was whole and not empty; only such a poll closes issues."""
    incomplete_because: str | None = None
    """Why the last poll that was answered was neither whole nor empty, in words: also where the answer was an error."""
    history_since: float | None = None
    """Start of its first whole poll: what that one found may be much older. ``None`` where that is not known."""
    empty: bool = False
    """The last successful poll could be read completely, and showed no software at all."""
    collapse: Collapse | None = None
    """The last successful poll lost most of the software, and waits to be shown once more."""
    eased_alike_at: float | None = None
    """Start of the poll after which it was doubted that it had got better, since other servers had like it; until a
    poll that starts ``settle`` later."""
    exploits_unknown: int = 0
    """Software in the last successful poll whose exploits it did not tell; those known before are still shown."""
    scanning: bool = False
    scan_started_told_at: float | None = None
    """An event told that a scan started; isScanning has not said so yet."""
    scan_finished_told_at: float | None = None
    """An event told that a scan ended; isScanning has not said so yet."""
    scan_checks: int = 0
    """Answers of isScanning since the newest of those events, or since the scan was seen running."""
    scan_seen_at: float | None = None
    """When isScanning last said that the scan runs."""
    last_scan_at: float | None = None
    """End of the last scan seen."""
    event_received_at: float | None = None
    """Reception of the newest event of new issues, or end of the newest scan, that no complete poll has followed."""
    report_settles_at: float | None = None
    """Start of the poll, at the earliest, that shows what an event told of and issues known before may hide."""
    settle_poll_at: float | None = None
    """When the second poll after such an event, or after a collapse, is due."""
    put_off_until: float | None = None
    """The API asked to wait until then with the next poll of it, and no poll has succeeded since."""
    scan_put_off_until: float | None = None
    """The same for isScanning, until it answers."""
    in_doubt_since: float | None = None
    """It got another name, or came back under another one, then: what is known may be another server's until a whole
    poll that started later."""
    came_back_at: float | None = None
    """It was gone and is on the list again since, under its old name: whether it is the same, a whole poll that started
    later has to show. Its history goes on meanwhile."""
    missing_since: float | None = None
    """Lists that have to be confirmed have lacked it, or called it by two names, since then."""
    list_trouble: str | None = None
    """What the last server list says of it: that it could not be looked at, so that its software may be from before."""
    list_claim: str | None = None
    """What a server list said of it that no poll has shown: that it has exploits."""
    former_fingerprints: tuple[str, ...] = ()
    """Those of other servers that had this id before; they are not given again."""

    @property
    def last_poll_complete(self) -> bool:
        """The last successful poll was whole, not empty and believed, whatever the API answered since."""
        is_whole = self.last_poll_at is not None and self.complete_poll_at == self.last_poll_at
        return is_whole and self.eased_alike_at is None

    @property
    def list_doubt(self) -> str | None:
        """What the last server list says of it that the last poll does not, in words."""
        told = self.list_trouble or self.list_claim
        if told is None:
            return None
        return f"the server list says of it: {told}" + ("" if self.list_trouble else ", and no exploits are shown")

    @property
    def poll_complete(self) -> bool:
        """The last poll that was answered was whole and not empty, and the server list says nothing else of it."""
        return self.incomplete_because is None and self.list_doubt is None and self.last_poll_complete

    @property
    def answered_at(self) -> float | None:
        """Start of the last successful poll that was whole, or that showed no software at all.

        What was reported before it, it has answered; that an empty list is doubtful is another matter.
        """
        return self.last_poll_at if self.empty else self.complete_poll_at

    @property
    def in_doubt(self) -> bool:
        """What is known may be out of date or another server's, or waits for a poll that tells of exploits."""
        reasons = (
            self.in_doubt_since,
            self.came_back_at,
            self.missing_since,
            self.eased_alike_at,
            self.list_doubt,
        )
        return self.unconfirmed_event or any(why is not None for why in reasons) or self.exploits_unknown > 0

    @property
    def unconfirmed_event(self) -> bool:
        """An event told of something that a poll still has to show."""
        return self.event_received_at is not None or self.report_settles_at is not None


class ServerRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A server's row. ``summary`` is what its series show."""

    account: str
    server_id: int
    name: str
    state: ServerState
    summary: ServerSummary
    gone_at: float | None = None
    next_poll_at: float | None = None


_KEY = (servers.c.account, servers.c.server_id)
_AT_ONCE = 2000
"""Servers that are read by one statement, at most."""
RECORD_COLUMNS = (
    servers.c.account,
    servers.c.server_id,
    servers.c.name,
    servers.c.state,
    servers.c.summary,
    servers.c.gone_at,
    servers.c.next_poll_at,
)


def record_of(row: Sequence[Any]) -> ServerRecord:
    """The server of a row of ``RECORD_COLUMNS``."""
    account, server_id, name, state, summary, gone_at, next_poll_at = row
    return ServerRecord(
        account=account,
        server_id=server_id,
        name=name,
        state=unseal(state, ServerState),
        summary=unseal(summary, ServerSummary),
        gone_at=gone_at,
        next_poll_at=next_poll_at,
    )


# Built once: that costs more than running them.
_THIS_SERVER = (servers.c.account == sa.bindparam("account"), servers.c.server_id == sa.bindparam("server_id"))
_FIND_SERVER = sa.select(*RECORD_COLUMNS).where(*_THIS_SERVER)
_FIND_SOFTWARE = sa.select(servers.c.software).where(*_THIS_SERVER)
_ISSUES_OF = (
    sa.select(issues.c.document)
    .where(issues.c.account == sa.bindparam("account"), issues.c.server_id == sa.bindparam("server_id"))
    .order_by(issues.c.id)
)


_ACCOUNT_ROWS = sa.select(accounts.c.name, accounts.c.up, accounts.c.last_success_at, accounts.c.state).where(
    accounts.c.gone_at.is_(None)
)
_FIND_ACCOUNT = _ACCOUNT_ROWS.where(accounts.c.name == sa.bindparam("account"))
_CATCH_UPS = sa.select(catch_ups.c.account, catch_ups.c.since)
_FIND_CATCH_UP = _CATCH_UPS.where(catch_ups.c.account == sa.bindparam("account"))
_FIND_ACCOUNTS = _ACCOUNT_ROWS.where(accounts.c.name.in_(sa.bindparam("names", expanding=True)))
_FIND_CATCH_UPS = _CATCH_UPS.where(catch_ups.c.account.in_(sa.bindparam("names", expanding=True)))


def account_records(connection: sa.Connection) -> dict[str, AccountRecord]:
    """Every account that is not retired, by name; one whose list was never read may want a catch-up already."""
    return _records(connection.execute(_ACCOUNT_ROWS), connection.execute(_CATCH_UPS))


def find_accounts(connection: sa.Connection, names: Sequence[str]) -> dict[str, AccountRecord]:
    """Some accounts, by name, as `find_account` finds each."""
    which = {"names": names}
    return _records(connection.execute(_FIND_ACCOUNTS, which), connection.execute(_FIND_CATCH_UPS, which))


def _records(rows: Iterable[sa.Row[Any]], wanted: Iterable[sa.Row[Any]]) -> dict[str, AccountRecord]:
    waiting = {row.account: row.since for row in wanted}
    found = {row.name: _account_of(row, waiting.get(row.name)) for row in rows}
    return {name: AccountRecord(name=name, catch_up_since=since) for name, since in waiting.items()} | found


def find_account(connection: sa.Connection, name: str) -> AccountRecord | None:
    """One account; ``None``, too, if it is retired."""
    row = connection.execute(_FIND_ACCOUNT, {"account": name}).one_or_none()
    catch_up = connection.execute(_FIND_CATCH_UP, {"account": name}).one_or_none()
    if row is not None:
        return _account_of(row, None if catch_up is None else catch_up.since)
    return None if catch_up is None else AccountRecord(name=name, catch_up_since=catch_up.since)


def to_be_caught_up(connection: sa.Connection, now: float) -> list[str]:
    """Accounts that want a catch-up poll of their servers by now."""
    return list(connection.execute(sa.select(catch_ups.c.account).where(catch_ups.c.since <= now)).scalars())


def _account_of(row: sa.Row[*tuple[Any, ...]], catch_up_since: float | None) -> AccountRecord:
    return AccountRecord(
        name=row.name,
        up=row.up,
        last_success_at=row.last_success_at,
        catch_up_since=catch_up_since,
        state=AccountState() if row.state is None else unseal(row.state, AccountState),
    )


def save_account(connection: sa.Connection, record: AccountRecord) -> None:
    """Write an account's row, which is not retired then; its catch-up is left alone."""
    row = {
        "name": record.name,
        "up": record.up,
        "last_success_at": record.last_success_at,
        "state": seal(record.state),
        "gone_at": None,
    }
    upsert(connection, accounts, [row], "name")


def set_catch_up(connection: sa.Connection, account: str, since: float | None, *, instead_of: float | None) -> None:
    """Move an account's catch-up or end it, if it still is the one that was read: nobody must lose a newer one."""
    mine = catch_ups.c.account == account, catch_ups.c.since == instead_of
    if since is None:
        connection.execute(catch_ups.delete().where(*mine))
    else:
        connection.execute(catch_ups.update().where(*mine).values(since=since))


def retire_account(connection: sa.Connection, name: str, at: float) -> None:
    """Mark an account's own row, and forget that it wants a catch-up."""
    upsert(connection, accounts, [{"name": name, "gone_at": at}], "name")
    connection.execute(catch_ups.delete().where(catch_ups.c.account == name))


def find_server(connection: sa.Connection, account: str, server_id: int) -> ServerRecord | None:
    """One server, gone ones included."""
    row = connection.execute(_FIND_SERVER, {"account": account, "server_id": server_id}).one_or_none()
    return None if row is None else record_of(row)


_FIND_SERVERS = sa.select(*RECORD_COLUMNS).where(
    servers.c.account == sa.bindparam("account"), servers.c.server_id.in_(sa.bindparam("server_ids", expanding=True))
)


def find_servers(connection: sa.Connection, account: str, server_ids: Sequence[int]) -> dict[int, ServerRecord]:
    """Some servers by id, gone ones included; at most a few hundred."""
    rows = connection.execute(_FIND_SERVERS, {"account": account, "server_ids": list(server_ids)})
    return {record.server_id: record for record in map(record_of, rows)}


def server_records(
    connection: sa.Connection, account: str | None = None, *, gone: bool = False
) -> Iterator[ServerRecord]:
    """All servers by account and id; those that are gone only if asked."""
    query = sa.select(*RECORD_COLUMNS).order_by(*_KEY).limit(_AT_ONCE)
    if account is not None:
        query = query.where(servers.c.account == account)
    if not gone:
        query = query.where(servers.c.gone_at.is_(None))
    # Some at a time: PostgreSQL ends the session of a unit that asks nothing of it for some seconds.
    rows = connection.execute(query).all()
    while rows:
        yield from map(record_of, rows)
        last = rows[-1]
        behind = sa.tuple_(*_KEY) > sa.tuple_(sa.literal(last.account), sa.literal(last.server_id))
        rows = [] if len(rows) < _AT_ONCE else connection.execute(query.where(behind)).all()


_SERVERS_SINCE = (
    sa.select(*RECORD_COLUMNS)
    .where(servers.c.account == sa.bindparam("account"), servers.c.version > sa.bindparam("since"))
    .order_by(*_KEY)
)


def servers_since(connection: sa.Connection, account: str, version: int) -> list[ServerRecord]:
    """The account's servers that were written with a later version, gone ones included."""
    return list(map(record_of, connection.execute(_SERVERS_SINCE, {"account": account, "since": version})))


def some_servers(connection: sa.Connection, account: str, *, after: int, limit: int) -> list[ServerRecord]:
    """The account's next servers by id, behind ``after``; those that are gone left out."""
    query = (
        sa.select(*RECORD_COLUMNS)
        .where(servers.c.account == account, servers.c.server_id > after, servers.c.gone_at.is_(None))
        .order_by(servers.c.server_id)
        .limit(limit)
    )
    return list(map(record_of, connection.execute(query)))


def software_of(connection: sa.Connection, account: str, server_id: int) -> tuple[Software, ...] | None:
    """The software that is known, in doubt or not; ``None`` before the first successful poll."""
    document = connection.execute(_FIND_SOFTWARE, {"account": account, "server_id": server_id}).scalar()
    return None if document is None else unseal(document, tuple[Software, ...])


def save_servers(
    connection: sa.Connection, records: Sequence[ServerRecord], software: tuple[Software, ...] | None = None
) -> None:
    """Write servers' rows; ``software``, where given, is the list of a single one."""
    rows = [_values(record) for record in records]
    if software is not None:
        rows = [{**row, "software": seal(software)} for row in rows]
    upsert(connection, servers, rows, "account", "server_id")


def forget_findings(connection: sa.Connection, account: str, server_id: int) -> tuple[str, ...]:
    """Remove what is known of a server's software and issues; returns the issues' fingerprints."""
    mine = issues.c.account == account, issues.c.server_id == server_id
    found = connection.execute(sa.select(issues.c.fingerprint).where(*mine).order_by(issues.c.id)).scalars().all()
    connection.execute(issues.delete().where(*mine))
    connection.execute(
        servers.update().where(servers.c.account == account, servers.c.server_id == server_id).values(software=None)
    )
    return tuple(found)


def _values(record: ServerRecord) -> dict[str, object]:
    critical, high, medium, low = record.summary.open_issues or (0, 0, 0, 0)
    return {
        "account": record.account,
        "server_id": record.server_id,
        "name": record.name,
        "gone_at": record.gone_at,
        "state": seal(record.state),
        "summary": seal(record.summary),
        "next_poll_at": record.next_poll_at,
        "critical": critical,
        "high": high,
        "medium": medium,
        "low": low,
        "waived": record.summary.waived_issues,
    }


def issues_of(connection: sa.Connection, account: str, server_id: int) -> tuple[Issue, ...]:
    """A server's issues, open and fixed, oldest first."""
    rows = connection.execute(_ISSUES_OF, {"account": account, "server_id": server_id})
    return tuple(unseal(document, Issue) for (document,) in rows)


def open_issues(
    connection: sa.Connection, account: str, *, first: int = 0, last: int = MAX_ID
) -> Iterator[tuple[int, list[Issue]]]:
    """The open issues of an account's servers with ids from ``first`` to ``last``; servers that are gone included."""
    rows = connection.execute(
        sa.select(issues.c.document)
        .where(issues.c.account == account, issues.c.server_id.between(first, last), issues.c.fixed_at.is_(None))
        .order_by(issues.c.server_id, issues.c.id)
    )
    found = (unseal(document, Issue) for (document,) in rows)
    for server_id, group in itertools.groupby(found, key=lambda issue: issue.server_id):
        yield server_id, list(group)


def save_issues(connection: sa.Connection, changed: Iterable[Issue]) -> None:
    """Write issues' rows, by fingerprint."""
    rows = [
        {
            "account": issue.account,
            "server_id": issue.server_id,
            "fingerprint": issue.fingerprint,
            "kind": issue.kind.value,
            "severity": issue.severity.value,
            "canonical_name": issue.canonical_name,
            "waived": issue.waived,
            "fixed_at": issue.fixed_at,
            "document": seal(issue),
        }
        for issue in changed
    ]
    upsert(connection, issues, rows, "account", "server_id", "fingerprint")
