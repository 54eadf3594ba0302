"""Which servers are meant by ids, names and globs."""

from __future__ import annotations

import re
from collections import defaultdict
from typing import TYPE_CHECKING

import msgspec

from patrolserver_exporter.globs import any_matches, matches
from patrolserver_exporter.patrolserver.models import MAX_ID
from patrolserver_exporter.store import queries

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import sqlalchemy as sa

    from patrolserver_exporter.store.queries import NamedServer, ServerKey

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


def find(
    connection: sa.Connection, selectors: Sequence[Selector], accounts: Sequence[str] = ()
) -> dict[Selector, list[NamedServer]]:
    """The servers that each selector means, of these accounts where some are given."""
    found: dict[Selector, dict[ServerKey, NamedServer]] = {selector: {} for selector in selectors}
    ids = [selector.number for selector in selectors if selector.number is not None]
    names = [selector.name for selector in selectors if selector.name is not None]
    by_id: dict[int, list[NamedServer]] = defaultdict(list)
    by_name: dict[str, list[NamedServer]] = defaultdict(list)
    for server in queries.servers_called(connection, ids, names, accounts):
        by_id[server.server_id].append(server)
        by_name[server.name].append(server)
    for selector, servers in found.items():
        exact = (*by_id.get(selector.number or 0, ()), *by_name.get(selector.name or "", ()))
        servers.update((server.key, server) for server in exact)
    loose = [s for s in selectors if s.glob is not None or (s.name is not None and not found[s])]
    if loose:
        _find_loosely(connection, loose, accounts, found)
    return {selector: list(servers.values()) for selector, servers in found.items()}


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

    servers = queries.named_servers(connection, chosen, accounts)
    by_lower: dict[str, list[NamedServer]] = defaultdict(list)
    for server in servers:
        by_lower[server.name.lower()].append(server)
    for selector in selectors:
        if selector.glob is None:
            matching = by_lower.get((selector.name or "").lower(), [])
        else:
            matching = [server for server in servers if matches(selector.glob, server.name)]
        found[selector].update((server.key, server) for server in matching)


def keys_of(
    connection: sa.Connection, selectors: Sequence[Selector], accounts: Sequence[str] = ()
) -> frozenset[ServerKey] | None:
    """The servers that any of the selectors means; ``None`` without selectors."""
    if not selectors:
        return None
    found = find(connection, selectors, accounts).values()
    return frozenset(server.key for servers in found for server in servers)
