"""Software lists that clients push; the next scan of the server takes them in (C).

The grades D, C and ? are those of docs/patrolserver-api.md.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .fleet import assessed
from .software import Installed, Software
from .wire import ApiError, invalid

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

_STRAY_QUOTE = re.compile(r"(?<!\\)((?:\\\\)*)\\'")


@dataclass(frozen=True, slots=True)
class Bucket:
    """One pushed list."""

    id: int
    key: str
    lines: tuple[dict[str, str], ...]
    """Each with ``n``, ``v``, ``p`` and ``l``, in full."""
    expire: int | None
    """Seconds that the list is good for; ``None``: for ever."""
    at: float

    def document(self, *, silent: bool = False) -> dict[str, object]:
        """As the API shows it; ``silent`` leaves the list out."""
        document: dict[str, object] = {"id": self.id, "key": self.key, "expire": self.expire}
        return document if silent else {**document, "software": [dict(line) for line in self.lines]}


class Buckets:
    """The buckets of all servers."""

    def __init__(self) -> None:
        self._buckets: dict[int, dict[str, Bucket]] = {}
        self._taken: dict[int, frozenset[tuple[str, str]]] = {}
        self._next = 1

    def of(self, server_id: int, now: float) -> list[Bucket]:
        """The server's buckets that have not expired."""
        kept = self._buckets.get(server_id, {})
        for key in [key for key, bucket in kept.items() if bucket.expire and bucket.at + bucket.expire < now]:
            del kept[key]
        return list(kept.values())

    def find(self, server_id: int, key: str, now: float) -> Bucket:
        """One bucket.

        Raises:
            ApiError: 404 with the message that the SDK looks for, ``Bucket does not exist`` (C).
        """
        for bucket in self.of(server_id, now):
            if bucket.key == key:
                return bucket
        raise ApiError(404, "not_found", "Bucket does not exist")

    def push(self, server_id: int, key: str, software: object, expire: int | None, now: float) -> Bucket:
        """Make or replace a bucket; ``software`` as posted, ``None`` keeps what it holds.

        Raises:
            ApiError: 422, the list cannot be read.
        """
        before = next((bucket for bucket in self.of(server_id, now) if bucket.key == key), None)
        lines = pushed_software(software) if software is not None else before.lines if before else ()
        bucket = Bucket(before.id if before else self._next, key, lines, expire, now)
        self._next += before is None
        self._buckets.setdefault(server_id, {})[key] = bucket
        return bucket

    def remove(self, server_id: int, key: str, now: float) -> None:
        """Drop a bucket.

        Raises:
            ApiError: 404, it does not exist.
        """
        self.find(server_id, key, now)
        del self._buckets[server_id][key]

    def forget(self, server_id: int) -> None:
        """Drop all that is known of a server."""
        self._buckets.pop(server_id, None)
        self._taken.pop(server_id, None)

    def scanned(
        self, server_id: int, installed: Iterable[Installed], new_id: Callable[[], int], now: float
    ) -> tuple[Installed, ...]:
        """What is installed once a scan has taken the buckets in.

        What an earlier scan took from a bucket goes when no bucket lists it any more; what is listed in the version
        it has stays as it is, with its id and its troubles.
        """
        pushed = {one.identity: one for bucket in self.of(server_id, now) for one in map(found_software, bucket.lines)}
        taken = self._taken.get(server_id, frozenset())
        found: list[Installed] = []
        for one in installed:
            fresh = pushed.pop(one.software.identity, None)
            if fresh is not None:
                found.append(one if _same_version(one.software, fresh) else Installed(one.id, fresh))
                taken |= {fresh.identity}
            elif one.software.identity not in taken:
                found.append(one)
        found += [Installed(new_id(), fresh) for fresh in pushed.values()]
        listed = {one.identity for bucket in self.of(server_id, now) for one in map(found_software, bucket.lines)}
        self._taken[server_id] = frozenset(listed)
        return tuple(found)


def _same_version(before: Software, fresh: Software) -> bool:
    return before.version == fresh.version and before.parent == fresh.parent


def pushed_software(value: object) -> tuple[dict[str, str], ...]:
    """The lines of a bucket's ``software`` field, each with ``n``, ``v``, ``p`` and ``l``.

    In the scanner's form, a JSON text, a field left out repeats the line before it, and an empty last line is no
    software. In the SDK's form, nested fields, what is left out is empty.

    Raises:
        ApiError: 422, it is not a list of objects.
    """
    repeats = isinstance(value, str)
    lines = _json_list(value) if isinstance(value, str) else value
    if isinstance(lines, dict):
        lines = list(lines.values())
    if not isinstance(lines, list) or not all(isinstance(line, dict | list) for line in lines):
        raise invalid("The software must be a list of software.")
    before = dict.fromkeys("nvpl", "")
    found: dict[tuple[str, ...], dict[str, str]] = {}
    for line in lines:
        if not line:
            continue
        told = {name: str(line[name] or "") for name in "nvpl" if name in line}
        before = (before if repeats else dict.fromkeys("nvpl", "")) | told
        if before["n"]:
            found[tuple(before.values())] = before
    return tuple(found.values())


def _json_list(text: str) -> object:
    if not text.strip():
        return []
    try:
        # The scanner escapes apostrophes, which JSON does not know.
        return json.loads(_STRAY_QUOTE.sub(r"\1'", text))
    except ValueError:
        raise invalid("The software is not a JSON list.") from None


def found_software(line: dict[str, str]) -> Software:
    """What a scan says of one pushed line."""
    parent = line["p"] or None
    name = line["n"]
    canonical = name
    if parent and name.startswith(f"{parent}:"):
        name = name.removeprefix(f"{parent}:")
        canonical = f"{parent}/{name}"
    supported, newest = assessed(canonical, line["v"]) if line["v"] else (None, None)
    return Software(
        name=name,
        canonical_name=canonical,
        version=line["v"] or None,
        supported=supported,
        newest_bugfix_release=newest,
        parent=parent,
        location=line["l"] or "/",
    )
