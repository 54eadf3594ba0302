"""Replies to models: the only place where the API's looseness lives (docs/patrolserver-api.md, grade ?).

One odd field never loses an entry, one odd entry never loses the rest, and nothing that is lost is lost in silence:
every function returns a ``Parsed`` that tells its ``oddities`` and why it is partial. All raise ``ApiError`` for a
reply that says that it failed and ``Unreadable`` for one of no known shape; nothing else.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from itertools import islice, pairwise
from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from patrolserver_exporter.patrolserver.beside import (
    HIGH_RISK,
    claim_of,
    denies_support,
    holds_more,
    listed_short,
    more_exploits,
    rated_by,
    rated_worse,
    tells_more,
    trouble_of,
    untold,
    why_failed,
)
from patrolserver_exporter.patrolserver.completeness import (
    Signs,
    any_of,
    read_signs,
    read_signs_of_data,
    why_partial,
)
from patrolserver_exporter.patrolserver.envelope import (
    PLAIN,
    Head,
    Notes,
    as_list,
    decode_reply,
    find_list,
    other_event,
    other_server,
    refuse_error,
    refuse_failure,
    shown_body,
    unwrap,
)
from patrolserver_exporter.patrolserver.errors import ApiError, Unreadable
from patrolserver_exporter.patrolserver.models import (
    Event,
    Exploit,
    Parsed,
    ReportedIssue,
    ReportedSoftware,
    Server,
    Software,
)
from patrolserver_exporter.patrolserver.paging import Pages
from patrolserver_exporter.patrolserver.stream import Limits
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
from patrolserver_exporter.redaction import redact

if TYPE_CHECKING:
    from collections.abc import Iterator

    from patrolserver_exporter.patrolserver.envelope import Listed

SERVERS = Limits(max_bytes=1024 * 1024 * 1024, max_entries=1_000_000, lasts=True)
SOFTWARE = Limits(max_bytes=4 * 1024 * 1024, max_entries=100_000)
_SCANNING_KEYS = ("isScanning", "is_scanning", "scanning")
_SCANNING = frozenset(_SCANNING_KEYS)
_EVENT_KEYS = ("server_id", "server", "new_issues")
_EVENT_DATA = frozenset({*_EVENT_KEYS, "id", "identifier", "event_id", "webhook_id"})
# A bare object with one of these and none of an event's own is a complaint, not a test event.
_COMPLAINT_KEYS = ("error", "errors", "message", "success", "exception")
_ISSUE_KEYS = ("software", "title", "description")


def pages_of_servers(base: str = "", path: str = "") -> Pages:
    """Where the pages of an account's servers are collected."""
    return Pages("servers", ("servers",), limits=SERVERS, base=base, path=path, by_id=True)


def pages_of_software(base: str = "", path: str = "", query: str = "", server_id: int | None = None) -> Pages:
    """Where the pages of a server's software are collected; one that is about another server makes them a part."""
    nouns = ("software", "softwares")
    return Pages("software", nouns, limits=SOFTWARE, base=base, path=path, query=query, server_id=server_id)


def parse_servers(body: bytes, head: Head = PLAIN) -> Parsed[tuple[Server, ...]]:
    """The list of an account's servers, of one page."""
    pages = pages_of_servers()
    pages.add(body, head)
    return read_servers(pages)


def read_servers(pages: Pages) -> Parsed[tuple[Server, ...]]:
    """The account's servers; of two with one id the first counts, and nobody knows which name is right."""
    notes = pages.end()
    servers: dict[int, Server] = {}
    for entry in notes.walk(pages.entries):
        server = _read_server(entry, notes)
        if server is None:
            continue
        if server.id in servers:
            again = f"{server.id} came before; the first one counts"
            if server.name == servers[server.id].name:
                notes.odd("id", again)
            else:
                notes.dropped(f"id {again}")
                servers[server.id] = replace(servers[server.id], has_other_name=True)
            continue
        servers[server.id] = server
    return notes.on(tuple(servers.values()))


def parse_server(body: bytes, head: Head = PLAIN) -> Parsed[Server]:
    """One server."""
    notes = Notes("server", head.secrets)
    document = decode_reply(body, head)
    _note_part(notes, _read_envelope(document, head), 1)
    data = unwrap(document)
    if isinstance(data, dict) and "id" not in data:
        refuse_error(data)
        data = data.get("server")
    server = _read_server(data, notes)
    if server is None:
        raise Unreadable("the reply is no server")
    return notes.on(server)


def parse_software(body: bytes, head: Head = PLAIN) -> Parsed[tuple[Software, ...]]:
    """The software installed on one server, of one page; see ``read_installed``."""
    pages = pages_of_software()
    pages.add(body, head)
    return read_installed(pages)


def read_installed(pages: Pages) -> Parsed[tuple[Software, ...]]:
    """The software installed on one server.

    Exploits that one entry leaves out while another of the page has them, if only as an empty list, are none (?). Where
    no entry has them, the page tells nothing of exploits: those of its entries are ``None``.
    """
    notes = pages.end()
    entries = pages.entries
    tells = [
        any(isinstance(entry, dict) and not is_absent(entry.get("exploits")) for entry in islice(entries, start, end))
        for start, end in pairwise((0, *pages.ends))
    ]
    found = [
        _read_software(entry, notes, has_exploits=tells[bisect_right(pages.ends, place)])
        for place, entry in enumerate(notes.walk(entries))
    ]
    known = tuple(software for software in found if software is not None)
    listed = sum(len(software.exploits or ()) for software in known)
    for reason in dict.fromkeys(reason for beside in pages.beside for reason in listed_short(beside, listed)):
        notes.partial(reason)
    return notes.on(known)


def parse_is_scanning(body: bytes, head: Head = PLAIN, *, server_id: int | None = None) -> bool:
    """Whether a server is being scanned."""
    document = decode_reply(body, head)
    if server_id is not None and (other := other_server(document, server_id)) is not None:
        raise Unreadable(f"the reply is about server {other}")
    signs = _read_envelope(document, head)
    reasons = why_partial([signs], 1, 1)
    data = unwrap(document)
    told = [document] if data is document else [data, document]
    if isinstance(data, dict):
        refuse_error(data)
        reasons += [*why_failed(data), *why_partial([read_signs_of_data(data, _SCANNING, frozenset())], 1, 1)]
    answers = [one[key] for one in told if isinstance(one, dict) for key in _SCANNING_KEYS if key in one]
    try:
        said = {read_flag(answer) for answer in (answers if isinstance(data, dict) else [data, *answers])}
    except Odd:
        said = set()
    scanning = said.pop() if len(said) == 1 else None
    if scanning is None or head.status != 200:
        raise Unreadable("the reply does not say whether there is a scan")
    if reasons:
        # An end that did not come about would make the last scan new.
        raise Unreadable(f"the reply may not tell whether there is a scan: {redact(reasons[0], head.secrets)}")
    return scanning


def parse_event(body: bytes, head: Head = PLAIN, *, asked: tuple[int, int] | None = None) -> Parsed[Event]:
    """An event's data, with or without the envelope; that of a test event may be empty.

    ``asked`` are the ids of the webhook and of the event that was asked for.
    """
    notes = Notes("event", head.secrets)
    document = decode_reply(body, head)
    if asked is not None and (other := other_event(document, *asked)) is not None:
        raise Unreadable(f"the reply is about another event, by its {other}")
    signs = _read_envelope(document, head)
    data = unwrap(document)
    enveloped = data is not document
    if isinstance(data, dict) and not _has_any(data, _EVENT_KEYS):
        refuse_error(data)
        data = data["data"] if isinstance(data.get("data"), dict) else data
    shown = shown_body(body, document, head)
    if data == [] or (enveloped and is_absent(data)):
        _note_part(notes, signs, 1)
        return notes.on(Event(), shown)
    if not isinstance(data, dict) or not (
        enveloped or _has_any(data, _EVENT_KEYS) or not _has_any(data, _COMPLAINT_KEYS)
    ):
        raise Unreadable("the reply is not an event")
    return notes.on(_read_event(data, signs, notes), shown)


def _has_any(data: dict[str, Any], keys: tuple[str, ...]) -> bool:
    return any(key in data for key in keys)


def _read_envelope(document: Any, head: Head) -> Signs:
    """What status, headers and envelope say of a reply that is not a list; raises ``ApiError`` if it failed."""
    wrappers = []
    if isinstance(document, dict):
        refuse_error(document)
        if "data" in document or not _has_any(document, ("id", *_EVENT_KEYS)):
            wrappers = [(document, frozenset({"data", *_SCANNING_KEYS}))]
    signs = read_signs(wrappers, status=head.status, headers=head.clean_headers())
    refuse_failure(signs, document)
    return signs


def _note_part(notes: Notes, signs: Signs, count: int, where: str = "") -> None:
    """Note why what came, ``count`` of something, may not be all there is."""
    for reason in why_partial([signs], count, count):
        notes.partial(f"{where}{reason}")


def _read_server(entry: Any, notes: Notes) -> Server | None:
    if not isinstance(entry, dict):
        notes.dropped("is not an object")
        return None
    try:
        number = read_id(entry.get("id"))
    except Odd as why:
        notes.dropped(f"id {why}")
        return None
    name = text_of(entry, "name", NAME_LIMIT, notes) or text_of(entry, "domain", NAME_LIMIT, notes)
    if name is None:
        # Which globs mean it, nobody knows.
        notes.dropped("name is missing; the id stands for it")
    return Server(
        id=number,
        name=name or str(number),
        verified=_flag_of(entry, "verified", notes),
        trouble=trouble_of(entry),
        claim=claim_of(entry),
    )


def _flag_of(entry: dict[str, Any], field: str, notes: Notes) -> bool | None:
    try:
        return read_flag(entry.get(field))
    except Odd as why:
        notes.odd(field, str(why))
        return None


def _read_event(data: dict[str, Any], envelope: Signs, notes: Notes) -> Event:
    server_id = _read_server_id(data, notes)
    signs = read_signs_of_data(data, _EVENT_DATA, frozenset({"issue", "issues"}))
    refuse_failure(signs, data)
    reported = data.get("new_issues")
    is_told = not is_absent(reported)
    if (name := tells_more(data, has_server=server_id is not None, has_issues=is_told)) is not None:
        notes.dropped(f"says {name} in a form that is not known")
    if is_told and server_id is None:
        notes.dropped("has new issues of no server")
    entries = _reported_entries(reported, notes) if is_told else []
    for one in (envelope, signs):
        _note_part(notes, one, len(entries) if is_told else 1)
    issues: list[ReportedIssue] = []
    for entry in notes.walk(entries):
        issue = _read_issue(entry, notes)
        if issue is not None:
            issues.append(issue)
    return Event(server_id=server_id, new_issues=tuple(issues), odd_issues=len(entries) - len(issues))


def _reported_entries(reported: Any, notes: Notes) -> list[Any]:
    """The issues of an event: a list, one alone, or wrapped."""
    entries = as_list(reported)
    if entries is not None or reported == {}:
        return entries or []
    if isinstance(reported, dict) and not _has_any(reported, _ISSUE_KEYS):
        found = find_list(reported, ("new_issues", "issues"))
        if found is not None:
            _note_part(notes, found.signs, len(found.entries), "new_issues: ")
            return found.entries
    return [reported]


def _read_server_id(data: dict[str, Any], notes: Notes) -> int | None:
    """That of ``server_id``, or of ``server`` where that stands alone. What is no number beside it is a name."""
    server = data.get("server")
    told = [data.get("server_id"), server.get("id") if isinstance(server, dict) else server]
    ids = set()
    for value in (value for value in told if not is_absent(value)):
        try:
            ids.add(read_id(value))
        except Odd as why:
            if not ids:
                notes.dropped(f"server_id {why}")
                return None
    if len(ids) > 1:
        notes.dropped("names two servers")
        return None
    return next(iter(ids), None)


def _read_issue(entry: Any, notes: Notes) -> ReportedIssue | None:
    """One of an event's issues; one that names no software is kept with what it says, if only that it is there."""
    if isinstance(entry, str):
        entry = {"title": entry}
    if not isinstance(entry, dict) or not entry:
        notes.dropped("is no issue")
        return None
    issue = ReportedIssue(
        software=_read_reported_software(entry.get("software"), notes),
        title=text_of(entry, "title", TITLE_LIMIT, notes),
        description=text_of(entry, "description", DESCRIPTION_LIMIT, notes),
    )
    if issue.software is None:
        notes.odd("software", "is not named")
    return issue


_CANDIDATES_KEPT = 32
_NO_VERSION = any_of(
    "a available detected determined empty false found is n na nil no none not null set specified undefined undetected "
    "undetermined unknown unspecified version x yet "
    "access denied error failed failure hidden nan out pending permission timed timeout unavailable unreadable"
)
_WORD = re.compile(r"[^\W_]+")
_OTHER_NUMBER = re.compile(r"(?!1(?:\.0*)?$)\d+(?:\.\d*)?(?:e\+?\d+)?", re.ASCII | re.IGNORECASE)
_EXPLOITS_DEPTH = 3
_RISK_KEYS = ("risk", "cvss", "cvss_score", "score", "base_score", "risk_score", "cvss_vector", "vector")
_ID_KEYS = ("id", "exploit_id")
_CVE_KEYS = ("cve", "cve_id", "cves")
_SPARE_ID_KEYS = (*_CVE_KEYS, "reference")
_URL_KEYS = ("url", "link", "href", "reference", "references")
_EXPLOIT_KEYS = (*_RISK_KEYS, *_ID_KEYS, *_CVE_KEYS, "title", "name", "severity")
_CVE = re.compile(r"CVE-\d{4}-\d{4,19}", re.ASCII | re.IGNORECASE)
_CVE_NUMBER = re.compile(r"\d{4}-\d{4,19}", re.ASCII)
_URL = re.compile(r"https?://[!#-;=?-~]+", re.ASCII | re.IGNORECASE)
_SPACES = re.compile(r"\s+")


def _read_software(entry: Any, notes: Notes, *, has_exploits: bool) -> Software | None:
    """One entry of a server's list of software; None, and noted, when it names none.

    ``has_exploits``: some entry of the list carries exploits, so one that carries none has none.
    """
    if not isinstance(entry, dict):
        notes.dropped("is not an object")
        return None
    names = _read_names(entry, notes)
    if names is None:
        notes.dropped("has no name")
        return None
    for reason in why_failed(entry):
        notes.dropped(reason)
    version, candidates = _read_version(entry, notes)
    return Software(
        name=names[0],
        canonical_name=names[1],
        id=_read_optional_id(entry, notes),
        version=version,
        candidates=candidates,
        supported=_read_supported(entry, notes),
        newest_bugfix_release=_read_fix(entry, notes),
        parent=_read_named(entry, "parent", "canonical_name", NAME_LIMIT, notes),
        location=text_of(entry, "location", LOCATION_LIMIT, notes),
        exploits=_read_listed_exploits(entry, notes) if has_exploits else None,
    )


def _read_fix(entry: dict[str, Any], notes: Notes) -> str | None:
    """The version to update to; one that is there and cannot be read is no sign that there is none."""
    value = entry.get("newest_bugfix_release")
    if isinstance(value, list) and len(value) == 1:
        entry = {"newest_bugfix_release": value[0]}
    fix = _read_named(entry, "newest_bugfix_release", "version", VERSION_LIMIT, notes)
    is_none = not value or is_absent(value) or (isinstance(value, dict) and is_absent(value.get("version", value)))
    if fix is None and not is_none:
        notes.dropped("newest_bugfix_release cannot be read")
    return None if fix is None else _version_or_none(fix)


def _read_reported_software(entry: Any, notes: Notes) -> ReportedSoftware | None:
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
        version = _version_or_none(text_of(entry, "version", VERSION_LIMIT, notes))
        if version is not None:
            return version, ()
        value = None
    if is_absent(value):
        value = entry.get("versions")
    return None, _read_candidates(value, notes)


def _version_or_none(text: str | None) -> str | None:
    """None where the text only says that there is none, as ``N/A``, ``not detected`` and ``?`` do (?)."""
    return None if text is None or _NO_VERSION.issuperset(_WORD.findall(text.lower())) else text


def _read_candidates(value: Any, notes: Notes) -> tuple[str, ...]:
    if is_absent(value):
        return ()
    listed = list(value.values()) if isinstance(value, dict) else value if isinstance(value, list) else [value]
    if len(listed) > _CANDIDATES_KEPT:
        notes.odd("versions", f"are {len(listed)}; the first {_CANDIDATES_KEPT} are kept")
    texts = (text_of({"versions": one}, "versions", VERSION_LIMIT, notes) for one in listed[:_CANDIDATES_KEPT])
    found = map(_version_or_none, texts)
    return tuple(candidate for candidate in found if candidate is not None)


def _read_supported(entry: dict[str, Any], notes: Notes) -> bool | None:
    value = entry.get("supported")
    try:
        supported = read_flag(value)
    except Odd as why:
        notes.odd("supported", str(why))
        return None
    if supported and not isinstance(value, bool) and _OTHER_NUMBER.fullmatch(str(value).strip()):
        notes.odd("supported", "is a number, and neither 0 nor 1")  # such as the day on which support ends
        return None
    if supported and (denied_by := denies_support(entry)) is not None:
        notes.odd("supported", f"says yes, and {denied_by} says otherwise")
        return None
    return supported


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


def _read_listed_exploits(entry: dict[str, Any], notes: Notes) -> tuple[Exploit, ...] | None:
    """The exploits of a software; None, too, where it lists none and says elsewhere that it has some."""
    exploits = _read_exploits(entry.get("exploits"), notes)
    if exploits is None:
        return None
    risks = [exploit.risk for exploit in exploits if exploit.risk is not None]
    highest = max(risks) if risks and len(risks) == len(exploits) else None
    reasons = [*more_exploits(entry, len(exploits), highest=highest), *holds_more(entry), *untold(entry)]
    for reason in reasons:
        notes.dropped(reason)
    return (exploits or None) if reasons else exploits


def _read_exploits(value: Any, notes: Notes) -> tuple[Exploit, ...] | None:
    """The exploits; None when they cannot be read. One that is there is never left out, however odd."""
    if is_absent(value) or value is False or (type(value) is int and value == 0):
        return ()
    entries = _exploit_entries(value, notes, _EXPLOITS_DEPTH)
    if entries is None:
        notes.dropped("exploits cannot be distinguished")
        return None
    return tuple(_read_exploit(exploit, notes) for exploit in entries)


def _exploit_entries(  # noqa: PLR0911 - one for each form
    value: Any, notes: Notes, depth: int
) -> list[Any] | None:
    """Each exploit for itself: from a list, one alone, an object of them by id or CVE, or what wraps one of these."""
    listed = as_list(value)
    if listed is not None:
        return _flat(listed, notes, depth)
    if not isinstance(value, dict) or depth == 0:
        return None
    if not value:
        return []
    if _is_exploit(value):
        return [value]
    if _has_any(value, _RISK_KEYS):
        return None  # an exploit and a list of them in one
    keyed = _keyed(value)
    if keyed is not None:
        return keyed
    try:
        found = find_list(value, ("exploits",))
    except ApiError as error:
        notes.partial(f"exploits: {error.detail}")
        return None
    if found is None:
        inner = value.get("data", value.get("exploits"))
        if not isinstance(inner, dict):
            return None
        count = 1 if inner else 0
        _note_part(notes, read_signs([(value, frozenset({"data", "exploits"}))]), count, "exploits: ")
        return _exploit_entries(inner, notes, depth - 1)
    return _flat(found.entries, notes, depth) if _is_all(found, notes) or found.entries else None


def _is_all(found: Listed, notes: Notes) -> bool:
    """Whether what wraps a list of exploits tells of no others than the list has."""
    count = len(found.entries)
    _note_part(notes, found.signs, count, "exploits: ")
    reasons = [reason for one in found.beside for reason in (*more_exploits(one, count), *listed_short(one, count))]
    for reason in dict.fromkeys(reasons):
        notes.dropped(f"exploits: {reason}")
    return not reasons


def _flat(entries: list[Any], notes: Notes, depth: int) -> list[Any] | None:
    """The entries, with those that wrap exploits unwrapped."""
    flat: list[Any] = []
    for entry in entries:
        if isinstance(entry, list) or (isinstance(entry, dict) and _wraps(entry)):
            inner = None if depth == 0 or isinstance(entry, list) else _exploit_entries(entry, notes, depth - 1)
            if inner is None:
                return None
            flat += inner
        else:
            flat.append(entry)
    return flat


def _wraps(entry: dict[str, Any]) -> bool:
    return any(isinstance(entry.get(key), list | dict) and entry.get(key) for key in ("data", "exploits"))


def _is_exploit(entry: dict[str, Any]) -> bool:
    return any(key in entry for key in _EXPLOIT_KEYS) and not any(
        isinstance(entry.get(key), list | dict) for key in ("data", "exploits", "items", "results", "records", "list")
    )


def _keyed(value: dict[str, Any]) -> list[dict[str, Any]] | None:
    """Exploits by their CVE or id; None where the keys are something else."""
    keyed: list[dict[str, Any]] = []
    for key, inner in value.items():
        is_cve = _CVE.fullmatch(key) is not None
        if isinstance(inner, dict) and (is_cve or _is_exploit(inner)):
            keyed.append({"cve" if is_cve else "id": key} | inner)
        elif is_cve and not isinstance(inner, list):
            keyed.append({"cve": key, "risk": inner})
        else:
            return None
    return keyed


def _read_exploit(entry: Any, notes: Notes) -> Exploit:
    if not isinstance(entry, dict):
        # A whole number may be an identifier; a risk of 7.5 is none.
        is_risk = isinstance(entry, float) and not entry.is_integer()
        entry = {"risk" if is_risk else "title" if isinstance(entry, str) else "id": entry}
    cve = _read_cve(entry)
    named = next((text for key in _ID_KEYS if (text := text_of(entry, key, NAME_LIMIT, notes))), None)
    if named is None and cve is None:
        named = next((text for key in _SPARE_ID_KEYS if (text := text_of(entry, key, NAME_LIMIT, notes))), None)
    title = text_of(entry, "title", TITLE_LIMIT, notes) or text_of(entry, "name", TITLE_LIMIT, notes)
    return Exploit(id=named, cve=cve, title=title, url=_read_url(entry), risk=_read_risk(entry, notes))


def _read_cve(entry: dict[str, Any]) -> str | None:
    """The CVE, from the first member that names exactly one."""
    for key in (*_CVE_KEYS, "id", "reference", "name", "title"):
        texts = [text for text in _texts(entry.get(key)) if len(text) <= TITLE_LIMIT]
        found = {cve.upper() for text in texts for cve in _CVE.findall(text)}
        if key in _CVE_KEYS:
            found |= {f"CVE-{text.strip()}" for text in texts if _CVE_NUMBER.fullmatch(text.strip())}
        if len(found) == 1:
            return str(found.pop())
    return None


def _texts(value: Any) -> Iterator[str]:
    for one in value if isinstance(value, list) else [value]:
        if isinstance(one, str):
            yield one


def _read_url(entry: dict[str, Any]) -> str | None:
    """The first address; none that would have to be cut, which would lead elsewhere."""
    for key in _URL_KEYS:
        for text in _texts(entry.get(key)):
            stripped = text.strip()
            if len(stripped) <= LOCATION_LIMIT and _URL.fullmatch(stripped):
                return stripped
    return None


def _read_risk(entry: dict[str, Any], notes: Notes) -> float | None:
    """The risk; where it is missing or means nothing, the score by another name. What stays unknown is odd.

    One of 0 may mean that nobody rated it, so it holds only where nothing else says more; a low one, which may be on
    another scale, only where nothing else says that it is high.
    """
    why, zero = "is missing", False
    for key in _RISK_KEYS:
        value = entry.get(key)
        if is_absent(value):
            continue
        try:
            risk = read_risk(value)
        except Odd as odd:
            why = str(odd) if key == "risk" or why == "is missing" else why
        else:
            if risk >= HIGH_RISK:
                return risk
            if risk:
                if (rated := rated_worse(entry)) is None:
                    return risk
                why = f"is {risk:g}, and {rated} says more"
                break
            zero = True
    if zero and (rated := rated_by(entry)) is not None:
        why = f"is 0, and {rated} says more"
    elif zero:
        return 0.0
    notes.odd("risk", why)
    return None
