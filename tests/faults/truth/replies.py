"""What one reply of the API says, read apart from the product: how much of the truth was served, and what is wrong.

The model compares the bytes that were sent with the reply that would have been the plain truth.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

EXPLOIT_RISK = 5.0
"""The product's default: exploits at or above it are issues."""
_OUT_OF_TEN = re.compile(r"\s*(\d+(?:\.\d+)?)\s*(?:/\s*10)?\s*", re.ASCII)
_RANGE = re.compile(r"\s*\S+\s+\S+/(\d+)\s*", re.ASCII)
_NOTHING: tuple[object, ...] = (None, "", 0, False, [], {}, "0", "false", "no", "none", "null")
_GOOD_WORDS = ("ok", "success", "succeeded", "true", "yes", "200", "1")


class Outcome(StrEnum):
    """What a reply is worth."""

    WHOLE = "whole"
    PART = "a part"
    """It says so, or that something failed, in whatever words."""
    EMPTY = "empty"
    SILENT = "without a word on exploits"
    FAILED = "failed"
    """No data at all: an error, or nothing that can be read."""
    REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class Sheet:
    """One page of a reply."""

    outcome: Outcome
    data: Any = None
    more: bool = False
    """It says that it is not all."""
    total: int = 0
    """So many entries it says there are in all."""


FAILED = Sheet(Outcome.FAILED)


def read_sheet(status: int, headers: Mapping[str, str], body: bytes, *, cut: bool) -> Sheet:
    """What was sent, as far as its envelope tells; ``cut``: the connection closed before the body's end."""
    if status in (401, 403):
        return Sheet(Outcome.REFUSED)
    document = _decode(body) if 200 <= status < 300 and not cut else None
    if not isinstance(document, dict):
        return FAILED
    if document.get("error") not in _NOTHING:
        return FAILED
    more, total = _more(status, headers, document)
    # An event may come without the envelope.
    return Sheet(Outcome.PART if more else Outcome.WHOLE, document.get("data", document), more, total)


def _decode(body: bytes) -> Any:
    try:
        return json.loads(body)
    except ValueError:
        return None


def _more(status: int, headers: Mapping[str, str], document: dict[str, Any]) -> tuple[bool, int]:
    meta = document.get("meta")
    meta = meta if isinstance(meta, dict) else {}
    pages = meta.get("pagination")
    pages = pages if isinstance(pages, dict) else {}
    found = _RANGE.fullmatch(headers.get("content-range", ""))
    totals = [document.get("total"), meta.get("total"), pages.get("total"), found[1] if found else None]
    more = (
        document.get("errors") not in _NOTHING
        or document.get("success", True) in _NOTHING
        or str(document.get("status", "ok")).lower() not in _GOOD_WORDS
        or (status == 206 and found is None)
        or any(document.get(name) not in _NOTHING for name in ("truncated", "partial", "next_page_url"))
        or 'rel="next"' in headers.get("link", "")
        or _number(pages.get("total_pages")) > max(_number(pages.get("current_page")), 1)
    )
    return more, max(map(_number, totals))


def _number(value: object) -> int:
    return int(str(value)) if str(value).isdigit() else 0


class State(StrEnum):
    """What is known of an installed version."""

    FINE = "fine"
    OUTDATED = "outdated"
    UNSUPPORTED = "unsupported"
    UNKNOWN = "unknown"


class Exploit(NamedTuple):
    """A known exploit."""

    names: frozenset[str]
    """Its id and its CVE."""
    risk: float | None
    """``None``: nobody can read it, so it may be the worst."""

    @property
    def worst(self) -> float:
        """The highest risk that it may have."""
        return 10.0 if self.risk is None else self.risk

    @property
    def severity(self) -> str:
        """What an issue of this exploit alone may be."""
        return "critical" if self.worst >= 9 else "high" if self.worst >= 7 else "medium"


@dataclass(frozen=True, slots=True)
class Found:
    """One software of a server."""

    name: str
    state: State
    exploits: tuple[Exploit, ...] = ()

    @property
    def broken(self) -> bool:
        """An issue, or what may be one."""
        return self.state in BROKEN or bool(self.exploits)


SEVERITIES = ("critical", "high", "medium", "low")
BROKEN = {State.OUTDATED: "medium", State.UNSUPPORTED: "high"}
"""What is an issue by its version, and how severe."""


def read_contents(served: Sequence[Any], true: Sequence[Any]) -> tuple[Found, ...]:
    """What the entries say to whoever reads them well.

    An exploit's risk is known where it is written plainly, as a number with or without ``/10``, as a CVSS vector, or
    as the only thing in an object or a list; its worth is the true one's. Everything else nobody can read.
    """
    real = {(one["canonical_name"], one.get("location")): one for one in true}
    return tuple(
        Found(
            one["canonical_name"],
            _state(one),
            tuple(
                _exploits(one.get("exploits"), real[one["canonical_name"], one.get("location")].get("exploits") or [])
            ),
        )
        for one in served
    )


def is_silent(served: Sequence[Any]) -> bool:
    """No software says anything of exploits."""
    return bool(served) and all(one.get("exploits") is None for one in served)


def _state(software: Mapping[str, Any]) -> State:
    supported = software.get("supported")
    if supported in (None, "") or not software.get("version"):
        return State.UNKNOWN
    if supported == "yes":
        return State.FINE
    return State.OUTDATED if software.get("newest_bugfix_release") else State.UNSUPPORTED


def _exploits(served: object, true: Sequence[Any]) -> list[Exploit]:
    # Wrapped or with keys: the same exploits, for who looks closely.
    listed = served if isinstance(served, list) else true if isinstance(served, dict) else []
    real = {one.get("id"): one.get("risk") for one in true if isinstance(one, dict)}
    return [
        Exploit(
            frozenset(str(one[key]) for key in ("id", "cve") if one.get(key)),
            _risk(one.get("risk"), real.get(one.get("id"))),
        )
        for one in listed
    ]


def _risk(value: object, true: object) -> float | None:
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    if isinstance(value, dict):
        value = value.get("score")
    if isinstance(value, str) and value.startswith("CVSS:") and not isinstance(true, str):
        value = true
    if isinstance(value, str):
        plain = _OUT_OF_TEN.fullmatch(value)
        value = float(plain[1]) if plain else None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 10:
        return None
    return float(value)
