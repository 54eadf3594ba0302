"""From a reply's bytes to what its envelope holds: JSON as leniently as can be, and errors in all their forms.

Also whether it is about what was asked for.

The grades D, C and ? are those of docs/patrolserver-api.md.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING, Any, TypeVar

from patrolserver_exporter.patrolserver.completeness import (
    GONE,
    Signs,
    any_of,
    read_or_none,
    read_signs,
    says_nothing,
    words_of,
)
from patrolserver_exporter.patrolserver.errors import ApiError, PatrolServerError, Unreadable
from patrolserver_exporter.patrolserver.models import Parsed
from patrolserver_exporter.patrolserver.stream import Document
from patrolserver_exporter.patrolserver.values import Odd, clean, decode, read_id, read_text
from patrolserver_exporter.redaction import MIN_MASKED, may_hold, redact, redact_document

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

T = TypeVar("T")

# Far more than is shown: before it is shown, credentials are taken out, and a cut must not leave half of one.
_MESSAGE_LIMIT = 4_096
_CODE_LIMIT = 1_024
_ODDITIES_KEPT = 20
_REASONS_KEPT = 10
_STATUS_WITHOUT_DATA = frozenset({202, 204, 205})
_MAX_LIST_DEPTH = 5
# An object of nothing but these is a failure even where the value of ``error`` says nothing.
_ERROR_KEYS = frozenset({"error", "errors", "code", "message", "status", "success"})
_SERVER_DEPTH = 3
_OF_AN_ENTITY = ("name", "domain", "verified")
_SERVER_IN_PATH = re.compile(r"/servers/(\d{1,16})(?:/|$)", re.ASCII)
_ENTRIES_LOOKED_AT = 100_000


@dataclass(frozen=True, slots=True, repr=False)
class Head:
    """What comes with a reply's body, as far as it matters to what the body means."""

    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    secrets: tuple[str, ...] = ()
    """Credentials that the reply may echo."""

    @property
    def masked(self) -> tuple[str, ...]:
        """Those that are masked wherever they stand: masking ``demo`` would change the names of servers."""
        return tuple(secret for secret in self.secrets if len(secret) >= MIN_MASKED)

    def clean_headers(self) -> dict[str, str]:
        """The headers without credentials. Masked before anything is cut, which would leave half of one."""
        return {
            name: redact(value, self.secrets) if may_hold(value.encode("utf-8", "replace"), self.secrets) else value
            for name, value in self.headers.items()
        }


PLAIN = Head()


class Notes:
    """Collects what is strange about one reply, or its pages, while it is read."""

    def __init__(self, noun: str, secrets: tuple[str, ...] = ()) -> None:
        self._noun = noun
        self._secrets = secrets
        self._kept: list[str] = []
        self._more = 0
        self._entry: int | None = None
        self._reasons: list[str] = []
        self._more_reasons = 0

    def walk(self, entries: list[Any]) -> Iterator[Any]:
        """The entries; what is noted meanwhile is noted with the index of the present one."""
        for index, entry in enumerate(entries):
            self._entry = index
            yield entry
        self._entry = None

    def odd(self, field: str, why: str) -> None:
        """Note a strange field of the present entry."""
        self._add(f"{field} {why}")

    def dropped(self, why: str) -> None:
        """Note that the present entry, or a part of it, is left out."""
        self._partial(self._add(why))

    def partial(self, reason: str) -> None:
        """Note that the reply says that it is a part; the reason may quote it."""
        self._partial(self._add(redact(reason, self._secrets)))

    def _partial(self, reason: str) -> None:
        if len(self._reasons) < _REASONS_KEPT:
            self._reasons.append(reason)
        else:
            self._more_reasons += 1

    def _add(self, what: str) -> str:
        where = self._noun if self._entry is None else f"{self._noun} [{self._entry}]"
        noted = f"{where}: {what}"
        if len(self._kept) < _ODDITIES_KEPT:
            self._kept.append(noted)
        else:
            self._more += 1
        return noted

    def on(self, value: T, body: bytes = b"") -> Parsed[T]:
        """The value, with the notes on it."""
        more = (f"and {self._more} more",) if self._more else ()
        more_reasons = (f"and {self._more_reasons} more",) if self._more_reasons else ()
        return Parsed(value, (*self._kept, *more), (*self._reasons, *more_reasons), body)


def decode_reply(body: bytes | Document, head: Head) -> Any:
    """Decode a reply's JSON, unless that was done while it came; without credentials in any of its texts.

    Raises:
        Unreadable: it is not JSON, nested too deeply, or a status says that there is no data.
    """
    if head.status in _STATUS_WITHOUT_DATA:
        raise Unreadable(f"status {head.status} holds no data")
    return body.value if isinstance(body, Document) else _decode_masked(body, head)


def _decode_masked(body: bytes, head: Head) -> Any:
    document = decode(body)
    return redact_document(document, head.masked) if may_hold(body, head.masked) else document


def shown_body(body: bytes, document: Any, head: Head) -> bytes:
    """What may be kept of a reply that `decode_reply` made this document of.

    Where it may hold credentials, this is the document written anew: an escape or a member that comes twice cannot hide
    them there.
    """
    if not may_hold(body, head.secrets):
        return body
    written = json.dumps(document, ensure_ascii=False, separators=(",", ":"))
    return redact(written, head.secrets).encode("utf-8", "replace")


def unwrap(document: Any) -> Any:
    """What the envelope holds (C), or the document itself where there is none (D).

    Raises:
        ApiError: the document reports an error.
    """
    if isinstance(document, dict):
        refuse_error(document)
        if "data" in document:
            return document["data"]
    return document


def refuse_error(document: dict[str, Any]) -> None:
    """Raise the error that the document reports, if it reports one.

    Raises:
        ApiError: it does.
    """
    if "error" not in document and "errors" not in document:
        return
    error = next((document[key] for key in ("error", "errors") if not says_nothing(document.get(key))), None)
    if error is not None or not document.keys() - _ERROR_KEYS:
        raise _api_error(error, document)


def refuse_failure(signs: Signs, document: Any) -> None:
    """Raise the failure that the signs tell of, if they do.

    Raises:
        ApiError: they do; it says which member.
    """
    if not signs.failures:
        return
    told = document if isinstance(document, dict) else {}
    codes = [read_or_none(told.get(key)) for key in ("code", "error_code")]
    codes += [status for status in (read_or_none(told.get("status")),) if status and status[:1].isdigit()]
    code = next((code for code in codes if code), None)
    message = next((said for key in ("message", "reason", "detail") if (said := read_or_none(told.get(key)))), None)
    named = "; ".join(signs.failures[:3])
    raise ApiError(
        None if code is None else clean(code, _CODE_LIMIT),
        clean(f"{message}; {named}" if message else named, _MESSAGE_LIMIT),
    )


@dataclass(frozen=True, slots=True)
class Listed:
    """The list in a reply."""

    entries: list[Any]
    signs: Signs
    beside: tuple[dict[str, Any], ...] = ()
    """What each wrapping object has beside the list."""


def find_list(document: Any, nouns: tuple[str, ...], head: Head = PLAIN) -> Listed | None:
    """The list that a document holds, however it is wrapped, and what the wrapping says of it; None without a list.

    Args:
        document: decoded.
        nouns: what the entries are called.
        head: the reply's, or that of a part of one.

    Raises:
        ApiError: the reply says that it failed.
    """
    node = document
    wrappers: list[tuple[dict[str, Any], frozenset[str]]] = []
    others: list[str] = []
    entries = as_list(node)
    while entries is None and isinstance(node, dict) and len(wrappers) < _MAX_LIST_DEPTH:
        refuse_error(node)
        keys = ["data"] if "data" in node else [key for key in (*nouns, *_WRAPPERS) if _is_container(node.get(key))]
        if not keys:
            break
        others += [key for key, value in node.items() if key != keys[0] and _is_list_too(key, value, nouns)]
        wrappers.append((node, frozenset({keys[0]})))
        node = node[keys[0]]
        entries = as_list(node)
    if entries is None and isinstance(node, dict):
        wrappers.append((node, frozenset()))
    signs = read_signs(wrappers, status=head.status, headers=head.clean_headers(), nouns=frozenset(nouns))
    refuse_failure(signs, document)
    if entries is None:
        return None
    signs.parts += [f"{clean(key, 80)} is a list too" for key in others]
    beside = tuple({key: value for key, value in node.items() if key not in data} for node, data in wrappers)
    return Listed(entries, signs, beside)


_WRAPPERS = (
    *("items", "results", "result", "records", "entries", "rows", "list", "elements", "objects", "collection"),
    *("content", "payload", "response", "body", "value", "values", "_embedded", "embedded"),
)
_OF_FINDINGS = frozenset(
    {"canonical_name", "supported", "newest_bugfix_release", "exploits", "risk", "cve", "cvss", "software", "verified"}
)
_LIKE_SERVERS = frozenset(
    {"agents", "devices", "domains", "hosts", "instances", "machines", "nodes", "servers", "sites", "systems", "vms"}
)
_OTHER_ENTITIES = any_of(
    "user users account accounts tag tags group groups team teams label labels role roles member members owner owners "
    "organization organizations customer customers plan plans webhook webhooks filter filters column columns"
)


def as_list(data: Any) -> list[Any] | None:
    """A list, or the object that PHP makes of one whose keys have gaps."""
    if isinstance(data, list):
        return data
    if isinstance(data, dict) and data and all(key.isdecimal() for key in data):
        return list(data.values())
    return None


def _is_container(value: Any) -> bool:
    return isinstance(value, list) or (isinstance(value, dict) and bool(value))


def _is_list_too(key: str, value: Any, nouns: tuple[str, ...]) -> bool:
    """Whether a member beside the list holds more of its kind, or software or exploits, by whatever name."""
    if isinstance(value, dict) and value and (key.isdecimal() or key.upper().startswith("CVE-")):
        return True  # an entry that PHP has put beside the list
    words = words_of(key)
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    objects = [one for one in inner if isinstance(one, dict)]
    if not GONE.isdisjoint(words):
        return False
    if "servers" in nouns and not _LIKE_SERVERS.isdisjoint(words):
        # By their names alone, too.
        return bool(as_list(value))
    if "servers" in nouns and _OTHER_ENTITIES.isdisjoint(words) and any(map(_is_server, objects)):
        return True
    is_named = key in _WRAPPERS or not {*nouns}.isdisjoint(words)
    return bool(objects) and (
        (is_named and as_list(value) is not None)
        or any(not _OF_FINDINGS.isdisjoint(one) or not {*nouns}.isdisjoint(one) for one in objects)
    )


def _is_server(entry: dict[str, Any]) -> bool:
    return "id" in entry and ("name" in entry or "domain" in entry)


def other_server(document: Any, asked: int, nouns: tuple[str, ...] = ()) -> int | None:
    """The id of another server that the reply, or one of its entries, is about: caches and proxies may hand that out.

    None of the members that tell is known (?). One that is missing, or is no id, says nothing. ``nouns`` are the names
    of lists that stand within a server, whose ``id`` then is the server's.
    """
    return next((found for found in _servers_of(document, nouns, _SERVER_DEPTH) if found != asked), None)


def _servers_of(value: Any, nouns: tuple[str, ...], depth: int) -> Iterator[int]:
    if isinstance(value, list):
        for entry in islice(value, _ENTRIES_LOOKED_AT):
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


def error_in(body: bytes, head: Head = PLAIN) -> ApiError | None:
    """The error that a reply reports, if it is readable and reports one."""
    try:
        unwrap(_decode_masked(body, head))
    except ApiError as error:
        return error
    except PatrolServerError:
        return None
    return None


def _api_error(error: Any, document: dict[str, Any]) -> ApiError:
    if isinstance(error, list):
        error = error[0] if error else None
    if isinstance(error, dict):
        return ApiError(_said(error.get("code"), _CODE_LIMIT), _said(error.get("message"), _MESSAGE_LIMIT) or "")
    said = _said(error, _MESSAGE_LIMIT)
    message = _said(document.get("message"), _MESSAGE_LIMIT)
    if said is not None and " " in said:
        return ApiError(_said(document.get("code"), _CODE_LIMIT), said)
    code = said or _said(document.get("code"), _CODE_LIMIT)
    return ApiError(None if code is None else clean(code, _CODE_LIMIT), message or "")


def _said(value: Any, limit: int) -> str | None:
    try:
        return read_text(value, limit)
    except Odd:
        return None
