"""What a software or an event says beside the fields that are read: that it failed, has exploits, or is about a server.

None of these members is known (?). A software that lists no exploits, and by another member has some, is not fine: what
it has, nobody knows. As with the envelope (``completeness``), the words of a member's name decide what it is about.

The grades D, C and ? are those of docs/patrolserver-api.md.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from patrolserver_exporter.patrolserver.completeness import (
    any_of,
    says_nothing,
    tells_of_failed_data,
    words_of,
)
from patrolserver_exporter.patrolserver.values import Odd, clean, read_flag, read_risk

if TYPE_CHECKING:
    from collections.abc import Iterator

_FAILED = any_of("error errors exception exceptions failure failures failed")
_OF_FAILURE = _FAILED | any_of("code detail is last message scan")
_OF_VERDICT = any_of("status state result outcome scan scans check refresh")
_EXPLOITS = any_of("exploit exploits exploitable cve cves vulnerability vulnerabilities vulnerable vuln vulns")
_RISK = any_of("cvss risk risks")
_RATING = any_of(
    "base cvss impact level priority rating risk score scores severity threat vector"
    " cvssv cvssscore cvssvector basescore riskscore risklevel threatlevel"
)
_CHANCE = any_of("confidence epss percentile probability")
_BAD = any_of("critical high important severe medium moderate serious urgent")
_HIGH = any_of("critical high severe serious urgent")
HIGH_RISK = 7.0
"""From where on CVSS calls a score high."""
_OVERALL = any_of(
    "cvss risk severity level threat cvssv cvssscore cvssvector basescore riskscore risklevel threatlevel"
)
_OF_OVERALL = _OVERALL | any_of("base score scores rating value v text label name vector string overall")
_WORDS = re.compile(r"[a-z]+")
_RATED_DEPTH = 2
_CUT = any_of("cut hidden incomplete limited missing more omitted part partial remaining truncated")
_OF_EXPLOITS = (
    _EXPLOITS
    | _RISK
    | _CUT
    | any_of(
        "all any available base count counts critical has high highest id ids is known list low max medium num number "
        "of open score total worst"
    )
)
_CVE = re.compile(r"CVE-\d{4}-\d{4,19}", re.ASCII | re.IGNORECASE)
_NAME_SHOWN = 80
_OF_EVENT = frozenset({("server", "id"), ("server",), ("servers",), ("new", "issues"), ("new", "issue"), ("issues",)})
_EVENT_DEPTH = 5
_LOOKED_AT = 20


def why_failed(entry: dict[str, Any]) -> Iterator[str]:
    """Each member by which the entry says that something failed, so that the rest of it may be from before."""
    for key, value in entry.items():
        if _is_of_failure(key) and not says_nothing(value):
            yield f"{clean(key, _NAME_SHOWN)} is set"
        elif _is_verdict(key) and tells_of_failed_data(("scan", *words_of(key)), value):
            yield f"{clean(key, _NAME_SHOWN)} tells of a failure"


def more_exploits(entry: dict[str, Any], listed: int, *, highest: float | None = None) -> Iterator[str]:
    """Each member, ``exploits`` aside, that tells of more exploits than the ``listed``, or of a worse one.

    ``highest`` is the highest risk of the listed ones; ``None``: not known, so the worst is assumed.
    """
    for key, value in entry.items():
        words = _words_on_exploits(key)
        if words and (_is_cut(words, value) or _least(words, value) > listed):
            yield f"{clean(key, _NAME_SHOWN)} tells of more exploits than the {listed} that are listed"
        elif words & _RISK and highest is not None and highest < HIGH_RISK and _is_high(value):
            yield f"{clean(key, _NAME_SHOWN)} tells of a higher risk than those that are listed"


def rated_by(exploit: dict[str, Any], depth: int = 2) -> str | None:
    """A member by which an exploit whose risk is 0 has some: a score by another name, or a word for a bad one."""
    for key, value in exploit.items():
        words = frozenset(words_of(key))
        if words & _CHANCE:
            continue
        if isinstance(value, dict) and depth and (words & _RATING or depth < _RATED_DEPTH):
            if rated_by(value, depth - 1) is not None:
                return clean(key, _NAME_SHOWN)
        elif words & _RATING and (_is_risk(value) or (isinstance(value, str) and _is_bad(value))):
            return clean(key, _NAME_SHOWN)
    return None


def rated_worse(exploit: dict[str, Any]) -> str | None:
    """A member by which an exploit of a low risk is a bad one: a high score by another name, or a word for it.

    Then the risk may be on another scale, as a part of one.
    """
    return next((clean(key, _NAME_SHOWN) for key, value in exploit.items() if _rates_high(key, value, _OVERALL)), None)


def _rates_high(key: str, value: Any, overall: frozenset[str]) -> bool:
    words = frozenset(words_of(key))
    if not words & overall or not words <= _OF_OVERALL:
        return False
    if isinstance(value, dict):
        return any(_rates_high(inner, rating, _OF_OVERALL) for inner, rating in value.items())
    return _is_high(value)


def _is_high(value: Any) -> bool:
    if isinstance(value, str) and not _HIGH.isdisjoint(_WORDS.findall(value.lower())):
        return True
    try:
        return read_risk(value) >= HIGH_RISK
    except Odd:
        return False


def _is_bad(word: str) -> bool:
    return not _BAD.isdisjoint(_WORDS.findall(word.lower()))


@lru_cache(maxsize=4_096)
def _is_of_failure(name: str) -> bool:
    words = frozenset(words_of(name))
    return bool(words & _FAILED) and words <= _OF_FAILURE | _EXPLOITS


@lru_cache(maxsize=4_096)
def _is_verdict(name: str) -> bool:
    """Whether it tells how the entry came about: ``status``, ``scan_status``, ``last_scan``."""
    words = frozenset(words_of(name))
    return bool(words & _OF_VERDICT) and words <= _OF_VERDICT | _EXPLOITS | {"last", "is", "has"}


@lru_cache(maxsize=4_096)
def _words_on_exploits(name: str) -> frozenset[str]:
    """The words of a name that is about how many exploits there are, or how bad they are; else none."""
    words = frozenset(words_of(name))
    is_about = words & (_EXPLOITS | _RISK) and words <= _OF_EXPLOITS and name != "exploits"
    return words if is_about else frozenset()


def _is_cut(words: frozenset[str], value: Any) -> bool:
    """Whether it says that some are left out."""
    if not words & _CUT or isinstance(value, list | dict):
        return False
    try:
        return read_flag(value) is True
    except Odd:
        return False


def _least(words: frozenset[str], value: Any) -> int:
    """How many exploits there are at least, by a member of such a name."""
    if isinstance(value, list | dict):
        return 0 if says_nothing(value) else len(value) if isinstance(value, list) else 1
    if words & _RISK:
        return int(_is_risk(value))
    if isinstance(value, str) and _CVE.search(value):
        return 1
    try:
        if not read_flag(value):
            return 0
    except Odd:
        return 0
    return 1 if isinstance(value, bool) or not str(value).strip().isdecimal() else int(str(value)[:9])


def _is_risk(value: Any) -> bool:
    try:
        return read_risk(value) > 0
    except Odd:
        return False


def names_event(data: Any, depth: int = _EVENT_DEPTH) -> str | None:
    """A member, by another name than the documented one or further inside, that tells what an event is about."""
    if isinstance(data, list):
        return next((name for one in data[:_LOOKED_AT] if (name := names_event(one, depth - 1))), None)
    if not isinstance(data, dict) or depth == 0:
        return None
    for key, value in data.items():
        if words_of(key) in _OF_EVENT and not says_nothing(value):
            return clean(key, _NAME_SHOWN)
        if (name := names_event(value, depth - 1)) is not None:
            return name
    return None
