"""Reads for the API: pages of servers and issues, and which servers are meant by ids, names and globs.

Lists page by key, so that nothing is shown twice or left out because something else came or went. Servers that are gone
are left out everywhere. What SQL does not tell alike in both databases is narrowed in Python, in bounded scans.
"""

from __future__ import annotations

import re
from collections import defaultdict
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
import sqlalchemy as sa

from patrolserver_exporter.globs import LIKE_ESCAPE, any_matches, like, matches, sure_part
from patrolserver_exporter.issues.model import Issue, IssueExploit, Kind
from patrolserver_exporter.patrolserver.models import MAX_ID
from patrolserver_exporter.store.fleet import RECORD_COLUMNS, ServerRecord, record_of
from patrolserver_exporter.store.tables import check, issues, servers, unseal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence


CHUNK = 250
"""Keys in one statement; SQLite takes up to 999 parameters in every version."""
SCAN_LIMIT = 5_000
"""Rows that one read looks at for a page, so that no list keeps a connection from others for long."""

MOST_GONE = 20
"""Servers that are gone, told of at once: a name may have been used over and over."""

_MOST_PATTERNS = 20
"""Globs that the database looks for; with more it is no faster."""

HERE = servers.c.gone_at.is_(None)
"""The server is not gone."""


class ServerKey(NamedTuple):
    """Which server."""

    account: str
    server_id: int


class NamedServer(NamedTuple):
    """Which server, and what it is called."""

    account: str
    server_id: int
    name: str

    @property
    def key(self) -> ServerKey:
        """Without the name."""
        return ServerKey(self.account, self.server_id)


# Servers by id and name


def named_servers(
    connection: sa.Connection,
    matches: Callable[[str], bool],
    wanted_accounts: Sequence[str] = (),
    globs: Sequence[str] = (),
) -> list[NamedServer]:
    """All servers whose name ``matches``, of these accounts where some are given.

    What ``matches`` has to be chosen by one of the ``globs``, where some are given: SQLite looks for these first. In
    PostgreSQL, which letters are alike depends on the database's locale.
    """
    query = sa.select(servers.c.account, servers.c.server_id, servers.c.name).where(HERE)
    if wanted_accounts:
        query = query.where(servers.c.account.in_(wanted_accounts))
    patterns = [like(glob) for glob in globs]
    if connection.dialect.name == "sqlite" and 0 < len(patterns) <= _MOST_PATTERNS:
        query = query.where(sa.or_(*(servers.c.name.like(pattern, escape=LIKE_ESCAPE) for pattern in patterns)))
    return [NamedServer(*row) for row in connection.execute(query).all() if matches(row[2])]


def servers_called(
    connection: sa.Connection, ids: Iterable[int], names: Iterable[str], wanted_accounts: Sequence[str] = ()
) -> list[NamedServer]:
    """Servers with one of these ids, or exactly one of these names."""
    found: dict[ServerKey, NamedServer] = {}
    for column, values in ((servers.c.server_id, sorted(set(ids))), (servers.c.name, sorted(set(names)))):
        for start in range(0, len(values), CHUNK):
            query = sa.select(servers.c.account, servers.c.server_id, servers.c.name).where(
                HERE, column.in_(values[start : start + CHUNK])
            )
            if wanted_accounts and column is servers.c.server_id:
                # With the names, SQLite would take the account's index, and read the whole account.
                query = query.where(servers.c.account.in_(wanted_accounts))
            for row in connection.execute(query):
                server = NamedServer(*row)
                if not wanted_accounts or server.account in wanted_accounts:
                    found[server.key] = server
    return list(found.values())


def gone_servers(
    connection: sa.Connection, server_id: int | None, name: str, wanted_accounts: Sequence[str] = ()
) -> list[tuple[NamedServer, float]]:
    """Servers with this id, or exactly this name, that are gone but not forgotten; and since when, in seconds."""
    query = (
        sa.select(servers.c.account, servers.c.server_id, servers.c.name, servers.c.gone_at)
        .where(~HERE, sa.or_(servers.c.server_id == (server_id or 0), servers.c.name == name))
        .order_by(servers.c.gone_at.desc(), servers.c.account, servers.c.server_id)
        .limit(MOST_GONE)
    )
    if wanted_accounts:
        query = query.where(servers.c.account.in_(wanted_accounts))
    return [(NamedServer(*row[:3]), row[3]) for row in connection.execute(query)]


# Lists


class IssuesWanted(msgspec.Struct, frozen=True, kw_only=True):
    """Which issues a list has; empty narrows nothing."""

    accounts: tuple[str, ...] = ()
    severities: tuple[str, ...] = ()
    kinds: tuple[str, ...] = ()
    keys: frozenset[ServerKey] | None = None
    """Issues of these servers."""
    names: frozenset[str] | None = None
    """Issues of software with one of these canonical names."""
    exploits: tuple[str, ...] = ()
    """Issues with an exploit whose id or CVE matches one of these globs."""
    fixed: bool | None = False
    waived: bool | None = None
    """With ``exploits`` also whether a waiver covers the exploit that matches."""

    @property
    def is_plain(self) -> bool:
        """The database alone can tell which ones fit."""
        return not self.exploits and all(chosen is None or len(chosen) <= CHUNK for chosen in (self.keys, self.names))

    @property
    def by_issue(self) -> bool:
        """Something is asked of the issue itself, and not only of its account and server."""
        asked = (self.severities, self.kinds, self.exploits)
        return any(asked) or self.names is not None or self.waived is not None

    def has(self, issue: Issue) -> bool:
        """Whether an issue that did not come from the issues' table is wanted; ``fixed`` left aside."""
        plain = (
            (not self.accounts or issue.account in self.accounts)
            and (not self.severities or issue.severity in self.severities)
            and (not self.kinds or issue.kind in self.kinds)
            and (self.keys is None or (issue.account, issue.server_id) in self.keys)
            and (self.names is None or issue.canonical_name in self.names)
        )
        if not plain or not self.exploits:
            return plain and self.waived in {None, issue.waived}
        matching = [one for one in issue.exploits if any_name_matches(self.exploits, one)]
        return any(self.waived in {None, issue.waived or one.waived} for one in matching)

    def fits(self, row: sa.Row[Any]) -> bool:
        """Whether a row of `issue_rows`, which the database let through, is wanted."""
        if self.keys is not None and (row.account, row.server_id) not in self.keys:
            return False
        if self.names is not None and row.canonical_name not in self.names:
            return False
        if not self.exploits:
            return True
        check(row.document)
        return self._may_have_exploit(row.document) and self._has_exploit(unseal(row.document, _Exploits))

    def _may_have_exploit(self, document: bytes) -> bool:
        """Whether a part of a name stands in the document: most have none, and looking costs less than reading."""
        folded = document.lower()
        return any(sure_part(glob) in folded for glob in self.exploits)

    def _has_exploit(self, issue: _Exploits) -> bool:
        matching = [one for one in issue.exploits if any_name_matches(self.exploits, one)]
        if self.waived is None:
            return bool(matching)
        whole = issue.waived_until is not None
        return any((whole or one.waived) is self.waived for one in matching)


class _Exploits(msgspec.Struct, frozen=True, kw_only=True):
    """The part of an issue that tells its exploits."""

    exploits: tuple[IssueExploit, ...] = ()
    waived_until: str | None = None


def any_name_matches(globs: Iterable[str], exploit: IssueExploit) -> bool:
    """Whether its id or its CVE matches one of the globs, as waivers see it."""
    return any(name is not None and any_matches(globs, name) for name in (exploit.id, exploit.cve))


def names_meant(connection: sa.Connection, globs: Sequence[str], *, fixed: bool | None = False) -> frozenset[str]:
    """The canonical names, of software with issues, that match one of the globs."""
    query = sa.select(issues.c.canonical_name).distinct()
    if fixed is not None:
        query = query.where(issues.c.fixed_at.is_not(None) if fixed else issues.c.fixed_at.is_(None))
    return frozenset(name for (name,) in connection.execute(query) if any_matches(globs, name))


class ServersWanted(msgspec.Struct, frozen=True, kw_only=True):
    """Which servers a list has; empty narrows nothing."""

    accounts: tuple[str, ...] = ()
    keys: frozenset[ServerKey] | None = None
    issue: IssuesWanted | None = None
    """Only servers that have an issue like that, which the database alone can tell (``is_plain``)."""


def servers_condition(wanted: ServersWanted) -> sa.ColumnElement[bool]:
    """Which servers that are here are wanted, their keys left aside."""
    parts: list[sa.ColumnElement[bool]] = [HERE]
    if wanted.accounts:
        parts.append(servers.c.account.in_(wanted.accounts))
    if wanted.issue is not None:
        parts.append(_has_issue(wanted.issue))
    return sa.and_(*parts)


def _has_issue(wanted: IssuesWanted) -> sa.ColumnElement[bool]:
    if wanted == IssuesWanted(severities=wanted.severities, waived=False) and wanted.severities:
        # Counted beside the server already.
        return sa.or_(*(servers.c[severity] > 0 for severity in wanted.severities))
    mine = sa.and_(issues.c.account == servers.c.account, issues.c.server_id == servers.c.server_id)
    return sa.exists().where(mine, *issue_conditions(wanted))


def servers_page(
    connection: sa.Connection, wanted: ServersWanted, after: tuple[str, int] | None, limit: int
) -> list[ServerRecord]:
    """Up to ``limit`` servers by account and id, after that one."""
    query = sa.select(*RECORD_COLUMNS).where(servers_condition(wanted))
    if wanted.keys is not None:
        return _records_among(connection, query, wanted.keys, after, limit)
    if after is not None:
        account, server_id = after
        later = sa.or_(
            servers.c.account > account, sa.and_(servers.c.account == account, servers.c.server_id > server_id)
        )
        query = query.where(later, servers.c.account >= account)
    query = query.order_by(servers.c.account, servers.c.server_id).limit(limit)
    return [record_of(row) for row in connection.execute(query)]


def _records_among(
    connection: sa.Connection,
    query: sa.Select[Any],
    keys: Iterable[ServerKey],
    after: tuple[str, int] | None,
    limit: int,
) -> list[ServerRecord]:
    """Those of the query that are among the keys: asked for by key, so that few keys cost little."""
    left = sorted(key for key in keys if after is None or key > after)
    found: list[ServerRecord] = []
    for start in range(0, len(left), CHUNK):
        chunk = query.where(is_one_of(servers, left[start : start + CHUNK]))
        records = [record_of(row) for row in connection.execute(chunk)]
        found += sorted(records, key=lambda record: (record.account, record.server_id))
        if len(found) >= limit:
            break
    return found[:limit]


def is_one_of(table: sa.Table, keys: Sequence[ServerKey]) -> sa.ColumnElement[bool]:
    """Whether the table's row is of one of these servers, which are at most ``CHUNK``."""
    return sa.or_(
        *(sa.and_(table.c.account == account, table.c.server_id.in_(ids)) for account, ids in _by_account(keys))
    )


def is_of_accounts(table: sa.Table, count: int) -> sa.ColumnElement[bool]:
    """As `is_one_of`, of so many accounts, for a statement that is built once.

    Its parameters are those of `keys_of_accounts`.
    """
    return sa.or_(
        *(
            sa.and_(
                table.c.account == sa.bindparam(f"account_{place}"),
                table.c.server_id.in_(sa.bindparam(f"server_ids_{place}", expanding=True)),
            )
            for place in range(count)
        )
    )


def keys_of_accounts(keys: Sequence[ServerKey]) -> tuple[int, dict[str, object]]:
    """Of how many accounts these servers are, and the parameters for `is_of_accounts`."""
    found = _by_account(keys)
    parameters: dict[str, object] = {}
    for place, (account, ids) in enumerate(found):
        parameters |= {f"account_{place}": account, f"server_ids_{place}": ids}
    return len(found), parameters


def _by_account(keys: Sequence[ServerKey]) -> list[tuple[str, list[int]]]:
    found: dict[str, list[int]] = defaultdict(list)
    for account, server_id in keys:
        found[account].append(server_id)
    return list(found.items())


class IssueRow(NamedTuple):
    """An issue in a list: its place, and what its server is called."""

    row: int
    server: str
    issue: Issue


def issue_rows(
    connection: sa.Connection, wanted: IssuesWanted, after: int, limit: int
) -> tuple[list[sa.Row[Any]], int | None]:
    """Up to ``limit`` issues that are wanted, by row after that one: ``id`` to ``document``, still sealed.

    Also where to go on; ``None`` at the end. Before it less than ``limit`` may come back, because a scan is bounded.
    """
    query = _issues_query(wanted).where(issues.c.id > after).order_by(issues.c.id)
    scan = limit + 1 if wanted.is_plain else SCAN_LIMIT
    found: list[sa.Row[Any]] = []
    seen, last = 0, after
    for row in connection.execute(query.limit(scan)):
        if len(found) == limit:
            return found, last
        seen, last = seen + 1, row.id
        if wanted.is_plain or wanted.fits(row):
            found.append(row)
    return found, last if seen == scan else None


def issues_page(
    connection: sa.Connection, wanted: IssuesWanted, after: int, limit: int
) -> tuple[list[IssueRow], int | None]:
    """The same, as issues."""
    rows, on = issue_rows(connection, wanted, after, limit)
    return [IssueRow(row.id, row.name, unseal(row.document, Issue)) for row in rows], on


def _issues_query(wanted: IssuesWanted) -> sa.Select[Any]:
    here = sa.and_(servers.c.account == issues.c.account, servers.c.server_id == issues.c.server_id, HERE)
    columns = (issues.c.id, issues.c.account, issues.c.server_id, issues.c.canonical_name, issues.c.severity)
    query = sa.select(*columns, servers.c.name, issues.c.document).select_from(issues.join(servers, here))
    return query.where(*issue_conditions(wanted))


def issue_conditions(wanted: IssuesWanted) -> list[sa.ColumnElement[bool]]:
    """What the database can tell of an issue."""
    parts: list[sa.ColumnElement[bool]] = []
    if wanted.fixed is not None:
        parts.append(issues.c.fixed_at.is_not(None) if wanted.fixed else issues.c.fixed_at.is_(None))
    if wanted.waived is not None and not wanted.exploits:
        parts.append(issues.c.waived.is_(wanted.waived))
    if wanted.exploits:
        parts.append(issues.c.kind == Kind.EXPLOITABLE.value)
    parts += [
        column.in_(chosen)
        for column, chosen in (
            (issues.c.account, wanted.accounts),
            (issues.c.severity, wanted.severities),
            (issues.c.kind, wanted.kinds),
        )
        if chosen
    ]
    if wanted.names is not None and len(wanted.names) <= CHUNK:
        parts.append(issues.c.canonical_name.in_(sorted(wanted.names)) if wanted.names else sa.false())
    if wanted.keys is not None and len(wanted.keys) <= CHUNK:
        parts.append(is_one_of(issues, sorted(wanted.keys)) if wanted.keys else sa.false())
    return parts


MAX_GLOBS = 100
_ID = re.compile(r"[0-9]{1,16}", re.ASCII)
_GLOB = re.compile(r"[*?\[]")


class TooManyGlobs(ValueError):
    """More globs than are looked through for one request; the text says how many are allowed."""


class Selector(msgspec.Struct, frozen=True, kw_only=True):
    """One id, name or glob, as it was asked for.

    Digits are an id or a name; a number is an id. A name is exact, or, where there is none like that, capitals and
    small letters are alike. A glob takes them alike, and also matches a server that is called just so.
    """

    asked: str
    number: int | None = None
    name: str | None = None
    glob: str | None = None

    @classmethod
    def of(cls, asked: int | str, *, globs: bool = True) -> Selector:
        """Read it; without ``globs`` the letters of a glob mean themselves."""
        if isinstance(asked, int):
            return cls(asked=str(asked), number=asked)
        number = int(asked) if _ID.fullmatch(asked) else 0
        return cls(
            asked=asked,
            number=number if 0 < number <= MAX_ID else None,
            name=asked,
            glob=asked if globs and _GLOB.search(asked) else None,
        )


def selectors_of(asked: Iterable[int | str]) -> tuple[Selector, ...]:
    """Read them, each once; raises `TooManyGlobs`."""
    selectors = tuple(dict.fromkeys(Selector.of(one) for one in asked))
    globs = sum(selector.glob is not None for selector in selectors)
    if globs > MAX_GLOBS:
        raise TooManyGlobs(f"There are {globs} globs among the servers, and {MAX_GLOBS} are allowed.")
    return selectors


def servers_meant(
    connection: sa.Connection, selectors: Sequence[Selector], accounts: Sequence[str] = ()
) -> dict[Selector, list[NamedServer]]:
    """The servers that each selector means, of these accounts where some are given."""
    found: dict[Selector, dict[ServerKey, NamedServer]] = {selector: {} for selector in selectors}
    ids = [selector.number for selector in selectors if selector.number is not None]
    names = [selector.name for selector in selectors if selector.name is not None]
    by_id: dict[int, list[NamedServer]] = defaultdict(list)
    by_name: dict[str, list[NamedServer]] = defaultdict(list)
    for server in servers_called(connection, ids, names, accounts):
        by_id[server.server_id].append(server)
        by_name[server.name].append(server)
    for selector, meant in found.items():
        exact = (*by_id.get(selector.number or 0, ()), *by_name.get(selector.name or "", ()))
        meant.update((server.key, server) for server in exact)
    loose = [s for s in selectors if s.glob is not None or (s.name is not None and not found[s])]
    if loose:
        _find_loosely(connection, loose, accounts, found)
    return {selector: list(meant.values()) for selector, meant in found.items()}


def _find_loosely(
    connection: sa.Connection,
    selectors: Sequence[Selector],
    accounts: Sequence[str],
    found: dict[Selector, dict[ServerKey, NamedServer]],
) -> None:
    names = {selector.name.lower() for selector in selectors if selector.glob is None and selector.name is not None}
    globs = [selector.glob for selector in selectors if selector.glob is not None]

    def chosen(name: str) -> bool:
        return name.lower() in names or any_matches(globs, name)

    candidates = named_servers(connection, chosen, accounts, () if names else globs)
    by_lower: dict[str, list[NamedServer]] = defaultdict(list)
    for server in candidates:
        by_lower[server.name.lower()].append(server)
    for selector in selectors:
        if selector.glob is None:
            matching = by_lower.get((selector.name or "").lower(), [])
        else:
            matching = [server for server in candidates if matches(selector.glob, server.name)]
        found[selector].update((server.key, server) for server in matching)


def keys_meant(
    connection: sa.Connection, selectors: Sequence[Selector], accounts: Sequence[str] = ()
) -> frozenset[ServerKey] | None:
    """The servers that any of the selectors means; ``None`` without selectors."""
    if not selectors:
        return None
    found = servers_meant(connection, selectors, accounts).values()
    return frozenset(server.key for meant in found for server in meant)
