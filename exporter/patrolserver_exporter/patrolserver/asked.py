"""Whether a reply is about what was asked for: caches and proxies may hand out another server's, or another event's.

None of these members is known (?). One that is missing, or is no id, says nothing.

The grades D, C and ? are those of docs/patrolserver-api.md.
"""

from __future__ import annotations

import re
from itertools import islice
from typing import TYPE_CHECKING, Any

from patrolserver_exporter.patrolserver.values import Odd, read_id

if TYPE_CHECKING:
    from collections.abc import Iterator

_DEPTH = 3
_OF_AN_ENTITY = ("name", "domain", "verified")
_SERVER_IN_PATH = re.compile(r"/servers/(\d{1,16})(?:/|$)", re.ASCII)
_LOOKED_AT = 100_000


def other_server(document: Any, asked: int, nouns: tuple[str, ...] = ()) -> int | None:
    """The id of another server that the reply, or one of its entries, is about.

    ``nouns`` are the names of lists that stand within a server, whose ``id`` then is the server's.
    """
    return next((found for found in _servers_of(document, nouns, _DEPTH) if found != asked), None)


def _servers_of(value: Any, nouns: tuple[str, ...], depth: int) -> Iterator[int]:
    if isinstance(value, list):
        for entry in islice(value, _LOOKED_AT):
            if isinstance(entry, dict):
                yield from _told(entry)
        return
    if not isinstance(value, dict):
        return
    yield from _told(value)
    if any(isinstance(value.get(noun), list | dict) for noun in nouns) and any(key in value for key in _OF_AN_ENTITY):
        yield from _ids(value.get("id"))
    if depth:
        for key in ("data", *nouns):
            yield from _servers_of(value.get(key), nouns, depth - 1)


def _told(value: dict[str, Any]) -> Iterator[int]:
    server = value.get("server")
    yield from _ids(value.get("server_id"))
    if isinstance(server, dict):
        yield from _ids(server.get("id"))
    elif type(server) is int:  # a text may be a name of digits
        yield from _ids(server)


def _ids(value: Any) -> Iterator[int]:
    if type(value) is int or (isinstance(value, str) and value.isdecimal()):
        try:
            yield read_id(value)
        except Odd:
            return


def other_event(document: Any, webhook_id: int, event_id: int) -> str | None:
    """The member by which the reply is about another event."""
    for part in (document, document.get("data") if isinstance(document, dict) else None):
        if isinstance(part, dict):
            for key, asked in (("event_id", event_id), ("webhook_id", webhook_id)):
                if any(found != asked for found in _ids(part.get(key))):
                    return key
    return None


def leads_to_another_server(path: str, asked: int) -> bool:
    """Whether an address is below that of another server."""
    return any(int(found) != asked for found in _SERVER_IN_PATH.findall(path))
