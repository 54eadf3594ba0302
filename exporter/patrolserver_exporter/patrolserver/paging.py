"""From the pages of a list to its entries: how the next page is asked for, and whether all of them came.

How the API pages is not documented (?), so every known form is followed, bounded, as long as it stays below the API's
own base; in all other cases the list is a part, and says why.

The grades D, C and ? are those of docs/patrolserver-api.md.
"""

from __future__ import annotations

import contextlib
import re
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote, unquote_plus, urljoin, urlsplit

import msgspec

from patrolserver_exporter.patrolserver.completeness import Step, why_partial
from patrolserver_exporter.patrolserver.envelope import (
    PLAIN,
    Head,
    Notes,
    decode_reply,
    find_list,
    leads_to_another_server,
    other_server,
)
from patrolserver_exporter.patrolserver.errors import Unreadable
from patrolserver_exporter.patrolserver.values import Odd, read_id

if TYPE_CHECKING:
    from patrolserver_exporter.patrolserver.completeness import Signs
    from patrolserver_exporter.patrolserver.stream import Document, Limits

MAX_PAGES = 1_000

_CREDENTIALS = frozenset({"key", "secret"})
_FIT = re.compile(r"[!#-;=?-\[\]_a-z~%|]{1,4096}", re.ASCII)
_DOTS = frozenset({".", ".."})
_PORTS = {"http": 80, "https": 443}


class Pages:
    """The pages of one list while they are read.

    Args:
        noun: what the list is a list of, for messages.
        nouns: what replies call it.
        base: the API's base URL, without a slash at the end.
        path: of the first page, below the base.
        query: of the first page, without credentials; later pages keep it.
        limits: of each page, and its entries of all pages.
        by_id: an entry with the ``id`` of another is the same; else only one that is equal.
        server_id: the server that the list is of; ``None``: it is of none.
    """

    def __init__(  # noqa: PLR0913 - what a list is and where it is, by keyword
        self,
        noun: str,
        nouns: tuple[str, ...],
        *,
        limits: Limits,
        base: str = "",
        path: str = "",
        query: str = "",
        by_id: bool = False,
        server_id: int | None = None,
    ) -> None:
        self.entries: list[Any] = []
        self.ends: list[int] = []
        """How many entries there were after each page."""
        self.beside: list[dict[str, Any]] = []
        """What the objects around the pages' lists have beside them."""
        self.read = 0
        """How many pages were read."""
        self.path = path
        self.limits = limits
        self._noun = noun
        self._nouns = nouns
        self._base = base
        self._query = query
        self._url = f"{base}/{path}?{query}" if query else f"{base}/{path}"
        self._asked = {_canonical(self._url)}
        self._by_id = by_id
        self._server_id = server_id
        self._identities: set[int] = set()
        self._signs: list[Signs] = []
        self._last_count = 0
        self._stopped: list[str] = []
        self._secrets: tuple[str, ...] = ()

    @property
    def url(self) -> str:
        """The page to ask for, without credentials."""
        return self._url

    def add(self, body: bytes | Document, head: Head = PLAIN) -> None:
        """Read one more page.

        Raises:
            ApiError: it says that it failed.
            Unreadable: it is not a list.
        """
        self._secrets = head.secrets
        document = decode_reply(body, head)
        listed = find_list(document, self._nouns, head)
        if listed is None:
            raise Unreadable(f"the reply is not a list of {self._noun}")
        if self.read == 1:
            self._identities.update(map(self._identity, self.entries))
        self.read += 1
        if self._server_id is not None:
            other = other_server(document, self._server_id, self._nouns)
            if other is not None:
                self.stop(f"page {self.read} is about server {other}")
        self._signs.append(listed.signs)
        self.beside += listed.beside
        self._last_count = len(listed.entries)
        if self.read == 1:
            self.entries = listed.entries
            self.ends.append(len(self.entries))
            return
        fresh = [entry for entry in listed.entries if self._identity(entry) not in self._identities]
        self._identities.update(map(self._identity, fresh))
        self.entries += fresh
        self.ends.append(len(self.entries))
        if listed.entries and not fresh:
            self.stop(f"page {self.read} repeats what came before")
        elif len(fresh) < len(listed.entries):
            # Something moved to a later page meanwhile, and something else may have moved to an earlier one.
            self._stopped.append(f"page {self.read} repeats some of what came before")

    def stop(self, why: str) -> None:
        """Read no further pages."""
        self._stopped.append(why)
        self._url = ""

    def go_on(self) -> bool:
        """Whether there is a next page to ask for; ``url`` then is its address."""
        if not self._url:
            return False
        step = _first_step(self._signs[-1], self.read)
        if step is None:
            return False
        if self.read >= MAX_PAGES or len(self.entries) >= self.limits.max_entries:
            self.stop(f"it has more than {self.read} pages")
            return False
        url = self._address(step)
        if url is None or (self._server_id is not None and leads_to_another_server(url, self._server_id)):
            where = "away from the API's own base" if url is None else "to another server"
            self.stop(f"{step.name} leads {where}, so it is not followed")
            return False
        if _canonical(url) in self._asked:
            self.stop(f"{step.name} leads back to a page that was read")
            return False
        self._asked.add(_canonical(url))
        self._url = url
        return True

    def end(self) -> Notes:
        """Notes with all reasons why the entries may not be all there are."""
        notes = Notes(self._noun, self._secrets)
        # Of one that comes twice the total counts another one, which did not come.
        count = len(set(map(self._identity, self.entries))) if self._by_id else len(self.entries)
        for reason in dict.fromkeys((*self._stopped, *why_partial(self._signs, count, self._last_count))):
            notes.partial(reason)
        return notes

    def _identity(self, entry: Any) -> int:
        told = entry.get("id") if self._by_id and isinstance(entry, dict) else None
        with contextlib.suppress(Odd):
            # However it is written on this page.
            return hash(read_id(told))
        try:
            return hash(msgspec.json.encode(entry if told is None else str(told)))
        except (ValueError, RecursionError):
            return hash(repr(entry))

    def _address(self, step: Step) -> str | None:
        if step.url is not None:
            return next_address(self._base, self._url, step.url, self._query)
        path, _, query = self._url.partition("?")
        name, value = (
            ("page", str(step.page)) if step.page is not None else ("cursor", quote(step.cursor or "", safe=""))
        )
        kept = [pair for pair in query.split("&") if pair and pair.partition("=")[0] != name]
        return next_address(self._base, self._url, f"{path}?{'&'.join([*kept, f'{name}={value}'])}", self._query)


def next_address(base: str, current: str, told: str, query: str) -> str | None:
    """The next page's URL without credentials, or None where it leads out of the API's base.

    Args:
        base: the API's base URL.
        current: the URL of the page that tells it.
        told: as the page has it.
        query: parameters that every page has to have.
    """
    if not _FIT.fullmatch(told):
        return None
    try:
        url, root = urlsplit(urljoin(current, told)), urlsplit(base)
        ports = url.port or _PORTS.get(url.scheme), root.port or _PORTS.get(root.scheme)
    except ValueError:
        return None
    if (url.scheme, url.hostname, ports[0]) != (root.scheme, root.hostname, ports[1]) or "@" in url.netloc:
        return None
    segments = unquote(unquote(url.path)).replace("\\", "/").split("/")
    if not url.path.startswith(f"{root.path}/") or not _DOTS.isdisjoint(segments) or "" in segments[1:-1]:
        return None
    pairs = [pair for pair in url.query.split("&") if pair and _name_of(pair).lower() not in _CREDENTIALS]
    names = {_name_of(pair) for pair in pairs}
    pairs += [pair for pair in query.split("&") if pair and _name_of(pair) not in names]
    return f"{root.scheme}://{root.netloc}{url.path}" + (f"?{'&'.join(pairs)}" if pairs else "")


def _name_of(pair: str) -> str:
    return unquote_plus(pair.partition("=")[0])


def _first_step(signs: Signs, read: int) -> Step | None:
    """The first known way to the next page; None where there is none."""
    for step in signs.steps:
        if step.url is not None or step.cursor is not None or step.page == read + 1:
            return step
    told = next((one for one in signs.pages if one[1] > read), None)
    if told is None or signs.ended:
        return None
    # Where the first page is called 0, the second one is 1.
    is_from_zero = any(place == read - 1 for _, place in signs.places)
    return Step(told[0], page=read if is_from_zero else read + 1)


def _canonical(url: str) -> tuple[str, tuple[str, ...]]:
    path, _, query = url.partition("?")
    return path.rstrip("/"), tuple(sorted(query.split("&")))
