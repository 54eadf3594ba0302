"""Replies to models: the only place where the API's looseness lives (see the API reference, grade ?).

One odd field never loses an entry, one odd entry never loses the rest, and nothing that is lost is lost in silence:
every function returns a ``Parsed`` with ``oddities`` and ``complete``. All raise ``ApiError`` for a reply with an
``error`` and ``Unreadable`` for one of no known shape; nothing else.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

from patrolserver_exporter.patrolserver.envelope import Notes, decode, refuse_error, unwrap
from patrolserver_exporter.patrolserver.errors import Unreadable
from patrolserver_exporter.patrolserver.models import (
    Event,
    Exploit,
    Parsed,
    ReportedIssue,
    ReportedSoftware,
    Server,
    Software,
)
from patrolserver_exporter.patrolserver.values import (
    DESCRIPTION_LIMIT,
    LOCATION_LIMIT,
    NAME_LIMIT,
    TITLE_LIMIT,
    VERSION_LIMIT,
    Odd,
    clean,
    is_absent,
    read_flag,
    read_id,
    read_risk,
    read_text,
)

_SCANNING_KEYS = ("isScanning", "is_scanning", "scanning")
_EVENT_KEYS = ("server_id", "server", "new_issues")
# A bare object with one of these and none of an event's own is a complaint, not a test event.
_COMPLAINT_KEYS = ("error", "errors", "message", "success", "exception")


def parse_servers(body: bytes) -> Parsed[tuple[Server, ...]]:
    """The list of an account's servers; of two with one id the first counts."""
    notes = Notes("servers")
    servers: dict[int, Server] = {}
    for entry in notes.walk(_entries(body, "servers", notes)):
        server = _read_server(entry, notes)
        if server is None:
            continue
        if server.id in servers:
            notes.odd("id", f"{server.id} came before; the first one counts")
            continue
        servers[server.id] = server
    return notes.on(tuple(servers.values()))


def parse_server(body: bytes) -> Parsed[Server]:
    """One server."""
    notes = Notes("server")
    data = unwrap(decode(body))
    if isinstance(data, dict) and "id" not in data:
        refuse_error(data)
        data = data.get("server")
    server = _read_server(data, notes)
    if server is None:
        raise Unreadable("the reply is no server")
    return notes.on(server)


def parse_software(body: bytes, *, follows_scope: bool = False) -> Parsed[tuple[Software, ...]]:
    """The software installed on one server.

    Exploits that one entry leaves out while another has them are none (?). Where no entry has them, the API may not
    have followed the scope, so nobody knows; unless ``follows_scope``: it is known to.
    """
    notes = Notes("software")
    entries = _entries(body, "software", notes)
    has_exploits = follows_scope or any(isinstance(entry, dict) and "exploits" in entry for entry in entries)
    found = [read_software(entry, notes, has_exploits=has_exploits) for entry in notes.walk(entries)]
    return notes.on(tuple(software for software in found if software is not None))


def parse_is_scanning(body: bytes) -> bool:
    """Whether a server is being scanned."""
    data = unwrap(decode(body))
    if isinstance(data, dict):
        refuse_error(data)
        data = next((data[key] for key in _SCANNING_KEYS if key in data), None)
    try:
        scanning = read_flag(data)
    except Odd:
        scanning = None
    if scanning is None:
        raise Unreadable("the reply does not say whether there is a scan")
    return scanning


def parse_event(body: bytes) -> Parsed[Event]:
    """An event's data, with or without the envelope; that of a test event may be empty."""
    notes = Notes("event")
    document = decode(body)
    data = unwrap(document)
    enveloped = data is not document
    if isinstance(data, dict) and not _has_any(data, _EVENT_KEYS):
        refuse_error(data)
        data = data["data"] if isinstance(data.get("data"), dict) else data
    if data == [] or (enveloped and is_absent(data)):
        return replace(notes.on(Event()), body=body)
    if not isinstance(data, dict) or not (
        enveloped or _has_any(data, _EVENT_KEYS) or not _has_any(data, _COMPLAINT_KEYS)
    ):
        raise Unreadable("the reply is no event")
    return replace(notes.on(_read_event(data, notes)), body=body)


def _has_any(data: dict[str, Any], keys: tuple[str, ...]) -> bool:
    return any(key in data for key in keys)


def _entries(body: bytes, noun: str, notes: Notes) -> list[Any]:
    """The list that a reply holds; a failure where there is none, for an empty list closes issues and ends series."""
    document = decode(body)
    data = unwrap(document)
    found = _listed(data)
    if found is None and isinstance(data, dict):
        refuse_error(data)
        found = _listed(data.get("data", data.get(noun)))
    if found is None:
        raise Unreadable(f"the reply is no list of {noun}")
    if _says_there_is_more(document) or _says_there_is_more(data):
        notes.dropped("the reply is one page of several, and how to ask for the others is not documented")
    return found


def _listed(data: Any) -> list[Any] | None:
    """A list, or the object that PHP makes of one whose keys have gaps."""
    if isinstance(data, list):
        return data
    if isinstance(data, dict) and data and all(key.isdecimal() for key in data):
        return list(data.values())
    return None


def _says_there_is_more(document: Any) -> bool:
    """Whether an object has one of the usual signs of paging (?)."""
    if not isinstance(document, dict):
        return False
    links, meta = document.get("links"), document.get("meta")
    places = [place for place in (document, links, meta) if isinstance(place, dict)]
    return any(
        place.get("next_page_url") or place.get("next") or place.get("has_more") is True or _is_early_page(place)
        for place in places
    )


def _is_early_page(place: dict[str, Any]) -> bool:
    try:
        return read_id(place.get("current_page")) < read_id(place.get("last_page"))
    except Odd:
        return False


def _read_server(entry: Any, notes: Notes) -> Server | None:
    if not isinstance(entry, dict):
        notes.dropped("is no object")
        return None
    try:
        number = read_id(entry.get("id"))
    except Odd as why:
        notes.dropped(f"id {why}")
        return None
    name = text_of(entry, "name", NAME_LIMIT, notes) or text_of(entry, "domain", NAME_LIMIT, notes)
    if name is None:
        notes.odd("name", "is missing; the id stands for it")
    return Server(id=number, name=name or str(number), verified=_flag_of(entry, "verified", notes))


def _flag_of(entry: dict[str, Any], field: str, notes: Notes) -> bool | None:
    try:
        return read_flag(entry.get(field))
    except Odd as why:
        notes.odd(field, str(why))
        return None


def _read_event(data: dict[str, Any], notes: Notes) -> Event:
    server_id = _read_server_id(data, notes)
    reported = data.get("new_issues")
    if is_absent(reported):
        return Event(server_id=server_id)
    if server_id is None:
        notes.dropped("has new issues of no server")
    entries = _listed(reported)
    if entries is None:
        entries = [] if reported == {} else [reported]
    issues: list[ReportedIssue] = []
    for entry in notes.walk(entries):
        issue = _read_issue(entry, notes)
        if issue is not None:
            issues.append(issue)
    return Event(server_id=server_id, new_issues=tuple(issues), odd_issues=len(entries) - len(issues))


def _read_server_id(data: dict[str, Any], notes: Notes) -> int | None:
    value = data.get("server_id")
    if is_absent(value):
        server = data.get("server")
        value = server.get("id") if isinstance(server, dict) else server
    if is_absent(value):
        return None
    try:
        return read_id(value)
    except Odd as why:
        notes.odd("server_id", str(why))
        return None


def _read_issue(entry: Any, notes: Notes) -> ReportedIssue | None:
    if not isinstance(entry, dict):
        notes.dropped("is no object")
        return None
    software = read_reported_software(entry.get("software"), notes)
    if software is None:
        notes.dropped("names no software")
        return None
    return ReportedIssue(
        software=software,
        title=text_of(entry, "title", TITLE_LIMIT, notes),
        description=text_of(entry, "description", DESCRIPTION_LIMIT, notes),
    )


_CANDIDATES_KEPT = 32
_REFERENCE_KEYS = ("cve", "cve_id", "reference", "id")
_SPACES = re.compile(r"\s+")


def read_software(entry: Any, notes: Notes, *, has_exploits: bool) -> Software | None:
    """One entry of a server's list of software; None, and noted, when it names none.

    ``has_exploits``: some entry of the list carries exploits, so one that carries none has none.
    """
    if not isinstance(entry, dict):
        notes.dropped("is no object")
        return None
    names = _read_names(entry, notes)
    if names is None:
        notes.dropped("has no name")
        return None
    version, candidates = _read_version(entry, notes)
    return Software(
        name=names[0],
        canonical_name=names[1],
        id=_read_optional_id(entry, notes),
        version=version,
        candidates=candidates,
        supported=_read_supported(entry, notes),
        newest_bugfix_release=_read_named(entry, "newest_bugfix_release", "version", VERSION_LIMIT, notes),
        parent=_read_named(entry, "parent", "canonical_name", NAME_LIMIT, notes),
        location=text_of(entry, "location", LOCATION_LIMIT, notes),
        exploits=_read_exploits(entry.get("exploits"), notes) if has_exploits else None,
    )


def read_reported_software(entry: Any, notes: Notes) -> ReportedSoftware | None:
    """The software of an event's issue: the installed one, with the product nested in it (D), or flat (?)."""
    if isinstance(entry, str):
        entry = {"name": entry}
    if not isinstance(entry, dict):
        return None
    nested = entry.get("software")
    product = {"name": nested} if isinstance(nested, str) else nested
    whole = {**product, **_present(entry)} if isinstance(product, dict) else entry
    names = _read_names(product if isinstance(product, dict) else entry, notes) or _read_names(entry, notes)
    if names is None:
        return None
    version, candidates = _read_version(whole, notes)
    return ReportedSoftware(
        name=names[0],
        canonical_name=names[1],
        version=version,
        candidates=candidates,
        location=text_of(whole, "location", LOCATION_LIMIT, notes),
    )


def text_of(entry: dict[str, Any], field: str, limit: int, notes: Notes) -> str | None:
    """A text field of at most ``limit`` characters; None when absent, or odd, which is noted."""
    value = entry.get(field)
    if value is None:
        return None
    if type(value) is str:  # nearly always; twelve fields times fifty software times every server
        return clean(value, limit) or None
    try:
        return read_text(value, limit)
    except Odd as why:
        notes.odd(field, str(why))
        return None


def _present(entry: dict[str, Any]) -> dict[str, Any]:
    return {field: value for field, value in entry.items() if not is_absent(value)}


def _read_names(entry: dict[str, Any], notes: Notes) -> tuple[str, str] | None:
    """Display name and machine name; one stands in for the other, and neither is None."""
    name = text_of(entry, "name", NAME_LIMIT, notes)
    canonical = text_of(entry, "canonical_name", NAME_LIMIT, notes)
    if name is None:
        return None if canonical is None else (canonical, canonical)
    # Lower case can be longer than what it is made of, as that of U+0130 is.
    return name, canonical or _SPACES.sub("-", name.lower())[:NAME_LIMIT]


def _read_version(entry: dict[str, Any], notes: Notes) -> tuple[str | None, tuple[str, ...]]:
    """The exact version, or else the candidates."""
    value = entry.get("version")
    if isinstance(value, str | int | float):
        version = text_of(entry, "version", VERSION_LIMIT, notes)
        if version is not None:
            return version, ()
        value = None
    if is_absent(value):
        value = entry.get("versions")
    return None, _read_candidates(value, notes)


def _read_candidates(value: Any, notes: Notes) -> tuple[str, ...]:
    if is_absent(value):
        return ()
    listed = list(value.values()) if isinstance(value, dict) else value if isinstance(value, list) else [value]
    if len(listed) > _CANDIDATES_KEPT:
        notes.odd("versions", f"are {len(listed)}; the first {_CANDIDATES_KEPT} are kept")
    found = (text_of({"versions": one}, "versions", VERSION_LIMIT, notes) for one in listed[:_CANDIDATES_KEPT])
    return tuple(candidate for candidate in found if candidate is not None)


def _read_supported(entry: dict[str, Any], notes: Notes) -> bool | None:
    try:
        return read_flag(entry.get("supported"))
    except Odd as why:
        notes.odd("supported", str(why))
        return None


def _read_optional_id(entry: dict[str, Any], notes: Notes) -> int | None:
    value = entry.get("id")
    if is_absent(value):
        return None
    try:
        return read_id(value)
    except Odd as why:
        notes.odd("id", str(why))
        return None


def _read_named(entry: dict[str, Any], field: str, inner: str, limit: int, notes: Notes) -> str | None:
    """A text, or the named text of an object in its place."""
    value = entry.get(field)
    if value is None:
        return None
    if isinstance(value, dict):
        return text_of(value, inner, limit, notes)
    if type(value) is not str and value in (0, []):
        return None  # PHP's other ways to say that there is none
    return text_of(entry, field, limit, notes)


def _read_exploits(value: Any, notes: Notes) -> tuple[Exploit, ...] | None:
    """The exploits; None when they cannot be read. One that is there is never left out, however odd."""
    if is_absent(value) or value is False:
        return ()
    if isinstance(value, dict):
        value = [value] if "risk" in value else value.get("data", list(value.values()))
    if not isinstance(value, list):
        notes.dropped("exploits are no list")
        return None
    return tuple(_read_exploit(exploit, notes) for exploit in value)


def _read_exploit(entry: Any, notes: Notes) -> Exploit:
    if not isinstance(entry, dict):
        entry = {"risk": entry}
    reference = next((text for key in _REFERENCE_KEYS if (text := text_of(entry, key, NAME_LIMIT, notes))), None)
    title = text_of(entry, "title", TITLE_LIMIT, notes) or text_of(entry, "name", TITLE_LIMIT, notes)
    return Exploit(risk=_risk_of(entry, notes), reference=reference, title=title)


def _risk_of(entry: dict[str, Any], notes: Notes) -> float | None:
    value = entry.get("risk")
    if is_absent(value):
        return None
    try:
        return read_risk(value)
    except Odd as why:
        notes.odd("risk", str(why))
        return None
