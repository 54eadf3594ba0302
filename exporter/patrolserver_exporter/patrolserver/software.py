"""Installed software, its versions and exploits, read leniently from decoded replies."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from patrolserver_exporter.patrolserver.models import Exploit, ReportedSoftware, Software
from patrolserver_exporter.patrolserver.scalars import Odd, is_absent, read_flag, read_id, read_risk, read_text
from patrolserver_exporter.patrolserver.text import LOCATION_LIMIT, NAME_LIMIT, TITLE_LIMIT, VERSION_LIMIT, clean

if TYPE_CHECKING:
    from patrolserver_exporter.patrolserver.envelope import Notes

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
