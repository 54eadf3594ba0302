"""Replies to models: the only place where the API's looseness lives (see the API reference, grade ?).

One odd field never loses an entry, one odd entry never loses the rest, and nothing that is lost is lost in silence:
every function returns a ``Parsed`` with ``oddities`` and ``complete``. All raise ``ApiError`` for a reply with an
``error`` and ``Unreadable`` for one of no known shape; nothing else.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from patrolserver_exporter.patrolserver.envelope import Notes, Parsed, decode, refuse_error, unwrap
from patrolserver_exporter.patrolserver.errors import Unreadable
from patrolserver_exporter.patrolserver.models import Event, ReportedIssue, Server, Software
from patrolserver_exporter.patrolserver.scalars import Odd, is_absent, read_flag, read_id
from patrolserver_exporter.patrolserver.software import read_reported_software, read_software, text_of
from patrolserver_exporter.patrolserver.text import DESCRIPTION_LIMIT, NAME_LIMIT, TITLE_LIMIT

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
