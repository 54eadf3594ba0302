"""Which servers and issues are meant: the filters that every list of the API and every page takes alike.

Values of one filter are alternatives, filters narrow each other, and one issue has to fit all that is asked of issues.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from patrolserver_exporter import globs
from patrolserver_exporter.issues.model import Kind, Severity
from patrolserver_exporter.store import queries
from patrolserver_exporter.store.queries import IssuesWanted, Selector, ServerKey, ServersWanted

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence

    import sqlalchemy as sa

    from patrolserver_exporter.config.schema import Config

    Read = Callable[[Callable[[sa.Connection], Any]], Awaitable[Any]]
    """Reads one state of the store."""


class Chosen(msgspec.Struct, frozen=True, kw_only=True):
    """What was asked for; empty narrows nothing."""

    accounts: tuple[str, ...] = ()
    servers: tuple[Selector, ...] = ()
    labels: tuple[tuple[str, str], ...] = ()
    """Names and globs on values of labels that the configuration gives; no value: servers without the label."""
    severities: tuple[Severity, ...] = ()
    kinds: tuple[Kind, ...] = ()
    software: tuple[str, ...] = ()
    """Globs on the canonical name."""
    exploits: tuple[str, ...] = ()
    """Globs on the id or the CVE."""
    waived: bool | None = None

    @property
    def by_issue(self) -> bool:
        """Something is asked of the issue itself."""
        asked = (self.severities, self.kinds, self.software, self.exploits)
        return any(asked) or self.waived is not None


class NoLabel(ValueError):
    """A text that is no filter on labels; the text says how one is written."""


def label_of(text: str) -> tuple[str, str]:
    """Read ``team=web``; raises `NoLabel`."""
    name, equals, value = text.partition("=")
    if not (name and equals):
        raise NoLabel(f"{text[:100]!r} is no label; write its name, =, and a value or glob, such as team=web.")
    return name, value


class NoSuch(ValueError):
    """A filter on what there is not, which would find nothing as if there was nothing; the text says what there is."""


def refuse_unknown(accounts: Iterable[str], labels: Iterable[str], watched: Sequence[str], known: Labels) -> None:
    """Raise `NoSuch` if an account is not watched, or no server can have a label of that name; `NoLabel` if it is none.

    ``labels`` are written as for `label_of`.
    """
    for account in accounts:
        if account not in watched:
            raise NoSuch(f"There is no account {account[:100]!r}; there are: {', '.join(sorted(watched)) or 'none'}.")
    names = {label_of(text)[0] for text in labels}
    if not names:
        return
    there = known.values()
    for name in sorted(names):
        if name not in there:
            raise NoSuch(f"There is no label {name[:100]!r}; there are: {', '.join(there) or 'none'}.")


class Labels:
    """The labels that a configuration gives servers."""

    def __init__(self, config: Config) -> None:
        self._accounts = {account.name: account for account in config.accounts}

    def of(self, account: str, server_name: str) -> dict[str, str]:
        """Those of one server."""
        found = self._accounts.get(account)
        return {} if found is None or not found.labels else found.labels_of(server_name)

    def values(self) -> dict[str, tuple[str, ...]]:
        """Every label that a server may have, with its possible values, in order."""
        found: dict[str, set[str]] = {}
        for account in self._accounts.values():
            for labels in account.labels.values():
                for name, value in labels.items():
                    found.setdefault(name, set()).add(value)
        return {name: tuple(sorted(found[name])) for name in sorted(found)}

    def fit(self, wanted: Mapping[str, Sequence[str]], account: str, server_name: str) -> bool:
        """Whether the server has one of the values of each label."""
        labels = self.of(account, server_name)
        return all(_has(labels.get(name, ""), values) for name, values in wanted.items())


def _has(actual: str, wanted: Iterable[str]) -> bool:
    return any(globs.matches(one, actual) if one and actual else one == actual for one in wanted)


def keys_chosen(
    connection: sa.Connection, chosen: Chosen, labels: Labels, watched: Sequence[str]
) -> frozenset[ServerKey] | None:
    """The servers that selectors and labels mean; ``None``: all. ``watched`` are the accounts that there are."""
    accounts = chosen.accounts or watched
    keys = queries.keys_meant(connection, chosen.servers, accounts)
    if not chosen.labels:
        return keys
    wanted: dict[str, list[str]] = {}
    for name, value in chosen.labels:
        wanted.setdefault(name, []).append(value)
    known = queries.named_servers(connection, lambda _: True, accounts)
    labelled = frozenset(one.key for one in known if labels.fit(wanted, one.account, one.name))
    return labelled if keys is None else labelled & keys


async def issues_wanted(
    read: Read, chosen: Chosen, labels: Labels, watched: Sequence[str], *, fixed: bool | None = False
) -> IssuesWanted:
    """The issues that were asked for."""

    def work(connection: sa.Connection) -> IssuesWanted:
        return IssuesWanted(
            accounts=chosen.accounts,
            severities=chosen.severities,
            kinds=chosen.kinds,
            keys=keys_chosen(connection, chosen, labels, watched),
            names=queries.names_meant(connection, chosen.software, fixed=fixed) if chosen.software else None,
            exploits=chosen.exploits,
            fixed=fixed,
            waived=chosen.waived,
        )

    wanted: IssuesWanted = await read(work)
    return wanted


async def servers_wanted(read: Read, chosen: Chosen, labels: Labels, watched: Sequence[str]) -> ServersWanted:
    """The servers that were asked for.

    Where something is asked of issues, those with an open issue that fits; one that is waived only if that is asked.
    """
    if not chosen.by_issue:
        keys = await read(lambda connection: keys_chosen(connection, chosen, labels, watched))
        return ServersWanted(accounts=chosen.accounts, keys=keys)
    issues = await issues_wanted(read, chosen, labels, watched)
    asked = msgspec.structs.replace(issues, accounts=(), keys=None)
    if asked.is_plain:
        return ServersWanted(accounts=chosen.accounts, keys=issues.keys, issue=asked)
    return ServersWanted(accounts=chosen.accounts, keys=await servers_with(read, issues))


async def servers_with(read: Read, wanted: IssuesWanted) -> frozenset[ServerKey]:
    """The servers that have such an issue: found in bounded reads, since the database alone cannot tell."""
    found: set[ServerKey] = set()
    on: int | None = 0
    while on is not None:
        start = on

        def work(connection: sa.Connection, start: int = start) -> tuple[set[ServerKey], int | None]:
            rows, on = queries.issue_rows(connection, wanted, start, queries.SCAN_LIMIT)
            return {ServerKey(row.account, row.server_id) for row in rows}, on

        keys, on = await read(work)
        found |= keys
    return frozenset(found)
