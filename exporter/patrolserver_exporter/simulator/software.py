"""Installed software, and how it breaks and is mended. Pure.

The grades D, C and ? are those of docs/patrolserver-api.md.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec.structs import replace

from .wire import invalid

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


class Exploit(msgspec.Struct, frozen=True, cache_hash=True):
    """A known exploit: the clients read only ``risk``, 0 to 10 (C); the rest is the simulator's (?)."""

    id: int
    cve: str
    title: str
    risk: float | None
    """``None``: it is written in a form that nobody has to understand."""
    written: str | None = None
    """The JSON that is shown instead, however odd: a text, because that can be hashed."""

    @property
    def names(self) -> frozenset[str]:
        """What it can be called by: its id and its CVE."""
        return frozenset({str(self.id), self.cve}) - {""}

    def document(self) -> object:
        """As the API shows it."""
        if self.written is not None:
            return json.loads(self.written)
        url = f"https://exploits.example.org/{self.cve}"
        return {"id": self.id, "cve": self.cve, "title": self.title, "url": url, "risk": self.risk}


class Software(msgspec.Struct, frozen=True, cache_hash=True, kw_only=True):
    """A software in a version at a place, as a scan found it."""

    name: str
    canonical_name: str
    version: str | None = None
    candidates: tuple[str, ...] = ()
    supported: bool | None = None
    """``None``: nobody knows, and the reply leaves it out."""
    newest_bugfix_release: str | None = None
    parent: str | None = None
    location: str = "/"
    exploits: tuple[Exploit, ...] = ()

    @property
    def identity(self) -> tuple[str, str]:
        """What makes it the same software in the next scan."""
        return self.canonical_name, self.location

    @property
    def broken(self) -> bool:
        """Whether a poll would derive an open issue from it."""
        return self.supported is False or bool(self.exploits)


class Installed(msgspec.Struct, frozen=True):
    """A software with its identity within the API."""

    id: int
    software: Software
    overrides: dict[str, Any] | None = None
    """Fields written as they are, however odd: what tests of lenience ask for."""


class Kind(StrEnum):
    """What can happen to a software."""

    OUTDATED = "outdated"
    UNSUPPORTED = "unsupported"
    EXPLOITABLE = "exploitable"
    UNKNOWN = "unknown"
    """``supported`` is left out: nobody knows."""
    UNDETECTED = "undetected"
    """The version is left out."""
    CANDIDATES = "candidates"
    """``versions`` instead of ``version``, and outdated."""
    MENDED = "mended"


def altered(software: Software, kind: Kind, *, risk: float = 9.8, serial: int = 1) -> Software:
    """``software`` after that happened to it; ``serial`` numbers the exploit."""
    version = software.version or next(iter(software.candidates), "1.0.0")
    later = bumped(version)
    fresh: dict[str, Any]
    match kind:
        case Kind.OUTDATED:
            fresh = {"version": version, "candidates": (), "supported": False, "newest_bugfix_release": later}
        case Kind.UNSUPPORTED:
            fresh = {"version": version, "candidates": (), "supported": False, "newest_bugfix_release": None}
        case Kind.EXPLOITABLE:
            fresh = {"exploits": (*software.exploits, exploit_of(software.name, risk=risk, serial=serial))}
        case Kind.UNKNOWN:
            fresh = {"supported": None, "newest_bugfix_release": None}
        case Kind.UNDETECTED:
            fresh = {"version": None, "candidates": (), "supported": None, "newest_bugfix_release": None}
        case Kind.CANDIDATES:
            fresh = {"version": None, "candidates": (later, version), "newest_bugfix_release": bumped(later)}
            fresh["supported"] = False
        case Kind.MENDED:
            new = software.newest_bugfix_release or (later if software.broken else version)
            fresh = {"version": new, "candidates": (), "newest_bugfix_release": None, "exploits": ()}
            fresh["supported"] = True
    return replace(software, **fresh)


def bumped(version: str) -> str:
    """The next version: the last number of ``version`` plus one."""
    numbers = list(re.finditer(r"\d+", version, re.ASCII))
    if not numbers:
        return f"{version}.1"
    last = numbers[-1]
    return f"{version[: last.start()]}{int(last.group()) + 1}{version[last.end() :]}"


def exploit_of(name: str, *, risk: float, serial: int) -> Exploit:
    """An exploit that does not exist; its number lies in a year without real ones."""
    what = "Remote code execution" if risk >= 9 else "Privilege escalation" if risk >= 7 else "Information disclosure"
    return Exploit(id=serial, cve=f"CVE-2099-{serial:04d}", title=f"{what} in {name}", risk=risk)


def exploit_from(value: object, serial: int) -> Exploit:
    """The exploit that is shown as ``value``, whatever that is; ``serial`` is its id if it tells none."""
    fields = value if isinstance(value, dict) else {}
    told, risk = fields.get("id"), fields.get("risk")
    return Exploit(
        id=told if isinstance(told, int) else serial,
        cve=str(fields.get("cve") or ""),
        title=str(fields.get("title") or ""),
        risk=float(risk) if isinstance(risk, int | float) else None,
        written=json.dumps(value),
    )


def new_issue(software: Software, kind: Kind) -> dict[str, object]:
    """The issue as ``new_issues`` carries it (D)."""
    name, shown = software.name, software.version or "unknown"
    match kind:
        case Kind.OUTDATED | Kind.CANDIDATES:
            newest = software.newest_bugfix_release
            title = f"Update your {name} to version {newest}."
            description = f"Your current {name} version ({shown}) is outdated, it is advised to update to {newest}."
        case Kind.EXPLOITABLE:
            risks = [exploit.risk for exploit in software.exploits if exploit.risk is not None]
            risk = f"risk {max(risks)}" if risks else "unknown risk"
            title = f"Your {name} can be exploited."
            description = f"A known exploit with {risk} affects your current {name} version ({shown})."
        case _:
            title = f"Upgrade your {name} to a supported version."
            description = (
                f"Your current {name} version ({shown}) is no longer supported, "
                "it is advised to upgrade to a supported version."
            )
    found: dict[str, object] = {}
    if software.version is not None:
        found["version"] = software.version
    elif software.candidates:
        found["versions"] = list(software.candidates)
    found["software"] = {"name": name, "canonical_name": software.canonical_name}
    return {"title": title, "description": description, "software": found}


@dataclass(frozen=True, slots=True)
class Change:
    """Something that happens to the software of a server."""

    kind: Kind
    canonical_name: str | None = None
    """``None``: to the first that is fine, or with ``MENDED`` to all that is broken."""
    location: str | None = None
    risk: float = 9.8
    found: Exploit | None = None
    """With ``EXPLOITABLE``: the exploit that becomes known; without it one is made up."""
    gone: str | None = None
    """With ``MENDED``: only the exploit with this id or CVE goes."""


def applied(
    installed: Sequence[Installed], change: Change, exploit_ids: Iterator[int]
) -> tuple[tuple[Installed, ...], list[Installed]]:
    """All software after the change, and of it what was changed; nothing is when there is no such software."""
    targets = {one.id for one in installed if _is_target(one.software, change)}
    if change.canonical_name is None and change.kind is not Kind.MENDED:
        targets = {next((one.id for one in installed if one.id in targets), -1)}
    after = []
    for one in installed:
        if one.id in targets:
            after.append(Installed(one.id, _after(one.software, change, exploit_ids), one.overrides))
        else:
            after.append(one)
    return tuple(after), [one for one in after if one.id in targets]


def _after(software: Software, change: Change, exploit_ids: Iterator[int]) -> Software:
    if change.gone is not None:
        return replace(software, exploits=tuple(one for one in software.exploits if change.gone not in one.names))
    if change.found is not None:
        return replace(software, exploits=(*software.exploits, change.found))
    serial = next(exploit_ids) if change.kind is Kind.EXPLOITABLE else 0
    return altered(software, change.kind, risk=change.risk, serial=serial)


def trouble(software: Software) -> Kind | None:
    """What is wrong with it, the worst first."""
    if software.exploits:
        return Kind.EXPLOITABLE
    if software.supported is False:
        return Kind.OUTDATED if software.newest_bugfix_release else Kind.UNSUPPORTED
    return None


def _is_target(software: Software, change: Change) -> bool:
    if change.gone is not None and not any(change.gone in exploit.names for exploit in software.exploits):
        return False
    if change.canonical_name is not None:
        return software.canonical_name == change.canonical_name and change.location in (None, software.location)
    return software.broken if change.kind is Kind.MENDED else not software.broken and software.version is not None


_PLAIN_FIELDS = {"name", "canonical_name", "version", "newest_bugfix_release", "parent", "location"}


def software_from(fields: dict[str, Any]) -> tuple[Software, dict[str, Any]]:
    """The software that API fields describe, and those of them that have to be written as they are."""
    if not isinstance(fields.get("canonical_name", ""), str) or not isinstance(fields.get("name", ""), str):
        raise invalid("name and canonical_name must be texts; use a fault for worse")
    name = fields.get("name") or fields.get("canonical_name") or "software"
    texts = {key: fields[key] for key in _PLAIN_FIELDS - {"name"} if isinstance(fields.get(key), str)}
    exploits = fields.get("exploits")
    listed = exploits if isinstance(exploits, list) else []
    risks = [one["risk"] for one in listed if isinstance(one, dict) and isinstance(one.get("risk"), int | float)]
    candidates = fields.get("versions")
    software = Software(
        name=name,
        canonical_name=texts.pop("canonical_name", name),
        candidates=tuple(map(str, candidates)) if isinstance(candidates, list) else (),
        supported=_supported(fields.get("supported")),
        exploits=tuple(Exploit(number, "", "", float(risk)) for number, risk in enumerate(risks, 1)),
        **texts,
    )
    return software, {key: value for key, value in fields.items() if key != "id"}


def _supported(value: object) -> bool | None:
    if value is None or value == "":
        return None
    return str(value).lower() in {"yes", "true", "1"}
