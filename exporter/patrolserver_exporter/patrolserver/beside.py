"""What a software, a server or an event says beside the fields that are read: that it failed, or has exploits.

None of these members is known (?). A software that lists no exploits, and by another member has some, is not fine: what
it has, nobody knows. As with the envelope (``completeness``), the words of a member's name decide what it is about.

The grades D, C and ? are those of docs/patrolserver-api.md.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from patrolserver_exporter.patrolserver.completeness import (
    GONE,
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
_OF_OVERALL = _OVERALL | any_of(
    "base score scores rating value v text label name vector string overall nvd metric metrics data"
)
_OF_RATINGS = any_of("nvd metric metrics rating ratings score scores")
_OF_SCALE = any_of("scale risk score rating out of max maximum")
_TEN = 10.0
_WORDS = re.compile(r"[a-z]+")
_RATED_DEPTH = 2
_RATINGS_DEPTH = 5
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
_OF_SERVER = _OF_EXPLOITS | any_of("software softwares package packages item items issue issues active current")
_AFFLICTED = any_of("vulnerable exploitable exploited critical insecure compromised infected hacked")
_OF_SUMMARY = any_of("summary stats statistics counts totals security health status state result results scan last")
_COULD_BE_SEEN = any_of("reachable scanned online monitored enabled")
_NOT_OF_NOW = any_of("stale truncated partial incomplete suspended paused disabled")
_NOT_SCANNED = _NOT_OF_NOW | any_of("offline unreachable unmonitored")
"""How a server may stand whose software is from before, or a part."""
_OTHER_VERSIONS = any_of(
    "alternatives available branches candidates changelog dependencies fixes history latest newest links relations "
    "release releases requires upgrade upgrades update updates vendor version versions"
)
_OF_LINK = frozenset({"href", "rel", "link", "url", "uri", "method", "title", "type", "templated", "self"})
_READ_OF_SOFTWARE = frozenset({"exploits", "parent", "version", "versions", "newest_bugfix_release"})
_NAMES = ("canonical_name", "name")
_OF_INSTALLED = ("version", "versions", "supported", "exploits", "newest_bugfix_release")
_HOLDS_DEPTH = 4
_MEMBERS_LOOKED_AT = 1_000
_SERVER = any_of("server host machine")
_NOT_TOLD = any_of("included loaded checked fetched")
_LOOKED_UP = _NOT_TOLD | any_of("ready complete scan scanned status state")
_NOT_LOOKED_UP = any_of(
    "pending unknown unavailable queued loading failed error missing disabled skipped timeout stale"
)
_LIFE_OVER = any_of("eol unsupported discontinued abandoned deprecated obsolete")
_ENDED = any_of("ended expired over")
_SUPPORT = any_of("supported maintained")
_OF_SUPPORT = _SUPPORT | any_of("is actively officially vendor security support version current")
_OF_STANDING = any_of("status state support security lifecycle health")
_OVER = _LIFE_OVER | _ENDED | any_of("vulnerable insecure compromised")
_NO_SUPPORT = _OVER | any_of("none no never end")
_OF_META = any_of("meta metadata info data response envelope attributes")
_CVE = re.compile(r"CVE-\d{4}-\d{4,19}", re.ASCII | re.IGNORECASE)
_NAME_SHOWN = 80
_OF_EVENT = frozenset({("server", "id"), ("server",), ("servers",), ("new", "issues"), ("new", "issue"), ("issues",)})
_EVENT_DEPTH = 5
_READ_OF_EVENT = frozenset({"server_id", "server", "new_issues"})
_OF_FINDINGS = _EXPLOITS | any_of(
    "software softwares package packages issue issues finding findings problem problems threat threats weakness "
    "weaknesses"
)
_OF_SERVERS = any_of(
    "server servers host hosts hostname hostnames domain domains machine machines node nodes website websites fqdn"
)
_LOOKED_AT = 20


def why_failed(entry: dict[str, Any]) -> Iterator[str]:
    """Each member by which the entry says that something failed, so that the rest of it may be from before."""
    for key, value in entry.items():
        if _is_of_failure(key) and not says_nothing(value):
            yield f"{clean(key, _NAME_SHOWN)} is set"
        elif _is_verdict(key) and tells_of_failed_data(("scan", *words_of(key)), value):
            yield f"{clean(key, _NAME_SHOWN)} tells of a failure"


def trouble_of(server: dict[str, Any]) -> str | None:
    """The member by which a server says that it could not be looked at, so that its software may be from before."""
    for key, value in server.items():
        words = frozenset(words_of(key)) - {"is"}
        if words and words <= _COULD_BE_SEEN and _says_no(value):
            return f"{clean(key, _NAME_SHOWN)} says no"
        if words and words <= _NOT_OF_NOW and _says_yes(value):
            return f"{clean(key, _NAME_SHOWN)} says yes"
        is_standing = words <= {"status", "state"} and isinstance(value, str)
        if words and is_standing and value.strip().lower() in _NOT_SCANNED:
            return f"{clean(key, _NAME_SHOWN)} says {value.strip().lower()}"
    return next(why_failed(server), None)


def claim_of(server: dict[str, Any], depth: int = 2) -> str | None:
    """The member by which a server says that it has exploits."""
    for key, value in server.items():
        words = frozenset(words_of(key))
        if not words:
            continue
        is_claim = (
            (bool(words & (_EXPLOITS | {"critical"})) and words <= _OF_SERVER and _least(words, value) > 0)
            or (bool(words & (_RISK | {"severity", "threat"})) and _is_high(value))
            or (
                words <= _OF_SUMMARY
                and isinstance(value, str)
                and not _AFFLICTED.isdisjoint(_WORDS.findall(value.lower()))
            )
            or (isinstance(value, list) and _holds_exploits(value, _HOLDS_DEPTH))
        )
        if is_claim:
            return clean(key, _NAME_SHOWN)
        if isinstance(value, dict) and depth and words <= _OF_SUMMARY and (inner := claim_of(value, depth - 1)):
            return clean(f"{key}.{inner}", _NAME_SHOWN)
    return None


def denies_support(software: dict[str, Any]) -> str | None:
    """The member by which a software, whatever ``supported`` says, is not supported or not safe."""
    for key, value in software.items():
        words = frozenset(words_of(key)) - {"is"}
        if key in {"supported", "exploits"} or not words:
            continue
        is_over = (
            words <= _LIFE_OVER
            or words == {"end", "of", "life"}
            # A number may be the day of it.
            or (bool(words & _ENDED) and words <= _ENDED | _OF_SUPPORT | {"has"} and not _is_number(value))
        ) and _says_yes(value)
        is_left_alone = bool(words & _SUPPORT) and words <= _OF_SUPPORT and _says_no(value)
        if is_over or is_left_alone or (isinstance(value, str) and _stands_bad(words, value)):
            return clean(key, _NAME_SHOWN)
    return None


def _is_number(value: Any) -> bool:
    text = "" if isinstance(value, bool) else str(value).strip()
    return text not in {"0", "1"} and text.replace(".", "", 1).isdigit()


def _stands_bad(words: frozenset[str], value: str) -> bool:
    """Whether a member of such a name tells by this word how software stands, and that badly."""
    if not words <= _OF_STANDING:
        return False
    said = value.strip().lower()
    return said in _OVER or ("support" in words and said in _NO_SUPPORT) or words_of(said) == ("end", "of", "life")


def untold(software: dict[str, Any]) -> Iterator[str]:
    """Each member by which a software says that nobody has looked for its exploits."""
    for key, value in software.items():
        words = frozenset(words_of(key)) - {"is", "are"}
        rest = words - _EXPLOITS
        if not words & _EXPLOITS or not rest:
            continue
        is_word = isinstance(value, str) and not _NOT_LOOKED_UP.isdisjoint(_WORDS.findall(value.lower()))
        is_not_looked_up = rest <= _LOOKED_UP and (is_word or _says_no(value))
        if is_not_looked_up or (rest <= _NOT_LOOKED_UP and _says_yes(value)):
            yield f"{clean(key, _NAME_SHOWN)} says that exploits are not told"


def _says_yes(value: Any) -> bool:
    try:
        return read_flag(value) is True
    except Odd:
        return False


def _says_no(value: Any) -> bool:
    try:
        return read_flag(value) is False
    except Odd:
        return False


def holds_more(software: dict[str, Any]) -> Iterator[str]:
    """Each member that holds software or exploits of its own, by whatever name, which nobody reads."""
    for key, value in software.items():
        if key in _READ_OF_SOFTWARE or not isinstance(value, dict | list) or _words_on_exploits(key):
            continue
        if _OTHER_VERSIONS.isdisjoint(words_of(key)) and (
            _holds_exploits(value, _HOLDS_DEPTH) or _holds_software(value, _HOLDS_DEPTH)
        ):
            yield f"{clean(key, _NAME_SHOWN)} holds more software or exploits"


def listed_short(envelope: dict[str, Any], listed: int, depth: int = 2) -> Iterator[str]:
    """Each member of a list of software's envelope that tells of more exploits than the ``listed``, or of trouble."""
    for key, value in envelope.items():
        words, shown = frozenset(words_of(key)), clean(key, _NAME_SHOWN)
        if not words or not _OTHER_VERSIONS.isdisjoint(words):
            continue
        if words & (_EXPLOITS | {"critical"}) and words <= _OF_SERVER | _NOT_TOLD:
            if (reason := _why_short(words, value, listed)) is not None:
                yield f"{shown} {reason}"
        elif isinstance(value, dict) and words <= _SERVER:
            yield from (f"{shown}.{reason}" for reason in _of_its_server(value, listed))
        elif isinstance(value, dict) and depth and words <= _OF_SUMMARY | _OF_META:
            yield from (f"{shown}.{reason}" for reason in listed_short(value, listed, depth - 1))
        elif isinstance(value, dict | list) and not listed and _holds_exploits(value, _HOLDS_DEPTH):
            yield f"{shown} tells of exploits, and none came"
        elif isinstance(value, list) and GONE.isdisjoint(words) and _holds_software(value, 1):
            yield f"{shown} is a list too"


def _why_short(words: frozenset[str], value: Any, listed: int) -> str | None:
    """Why a member of such a name, beside a list with ``listed`` exploits, tells of others."""
    if words & _NOT_TOLD:
        return "says that exploits are not told" if _says_no(value) else None
    count = _least(words, value)
    # What else is counted, as software that is vulnerable, is another number than that of exploits.
    if count > (listed if words & {"exploit", "exploits"} or not listed else count):
        return f"tells of {count} exploits, {listed} came"
    is_odd = isinstance(value, str) and not (count or says_nothing(value) or _says_no(value) or _is_address(value))
    return "cannot be read" if is_odd else None


def _of_its_server(server: dict[str, Any], listed: int) -> Iterator[str]:
    if (trouble := trouble_of(server)) is not None:
        yield trouble
    if not listed and (claim := claim_of(server)) is not None:
        yield f"{claim} tells of exploits, and none came"


def _holds_exploits(value: Any, depth: int) -> bool:
    if isinstance(value, list):
        return any(
            _CVE.search(one) is not None if isinstance(one, str) else depth > 0 and _holds_exploits(one, depth - 1)
            for one in value[:_MEMBERS_LOOKED_AT]
        )
    if not isinstance(value, dict):
        return False
    for key, inner in value.items():
        words = frozenset(words_of(key))
        if words & (_EXPLOITS | _RISK) and not words & _CHANCE and _tells_any(words, inner):
            return True
        if words == {"severity"} and isinstance(inner, str) and _is_bad(inner):
            return True
        if depth > 0 and _OTHER_VERSIONS.isdisjoint(words) and _holds_exploits(inner, depth - 1):
            return True
    return False


def _tells_any(words: frozenset[str], value: Any) -> bool:
    """Whether a member of such a name tells of any exploit; where its exploits are, a link tells, and no more."""
    if isinstance(value, dict) and _OF_LINK.issuperset(value):
        return False
    return not (isinstance(value, str) and _is_address(value)) and _least(words, value) > 0


def _is_address(text: str) -> bool:
    return text.strip().startswith(("http", "/"))


def _holds_software(value: Any, depth: int) -> bool:
    """Whether a list, or what holds one, has entries as those of installed software are."""
    entries = list(value.values()) if isinstance(value, dict) else value if isinstance(value, list) else []
    return any(
        isinstance(one, dict) and any(name in one for name in _NAMES) and any(field in one for field in _OF_INSTALLED)
        for one in entries[:_MEMBERS_LOOKED_AT]
    ) or (isinstance(value, dict) and depth > 0 and any(_holds_software(inner, depth - 1) for inner in entries))


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

    Then the risk may be on another scale, as a part of one; so it is where a member tells its scale.
    """
    return next(
        (
            clean(key, _NAME_SHOWN)
            for key, value in exploit.items()
            if _rates_high(key, value, _OVERALL, _RATINGS_DEPTH) or _is_other_scale(key, value)
        ),
        None,
    )


def _rates_high(key: str, value: Any, overall: frozenset[str], depth: int) -> bool:
    words = frozenset(word for word in words_of(key) if not word.isdecimal())
    is_rating = bool(words & overall) and words <= _OF_OVERALL
    if isinstance(value, dict | list):
        if depth == 0 or not words or not (is_rating or words <= _OF_RATINGS):
            return False
        if isinstance(value, list):
            return any(_rates_high(key, one, overall, depth - 1) for one in value[:_LOOKED_AT])
        within = _OF_OVERALL if is_rating else overall
        return any(_rates_high(inner, rating, within, depth - 1) for inner, rating in value.items())
    return is_rating and _is_high(value)


def _is_other_scale(key: str, value: Any) -> bool:
    """Whether it tells that risks do not go up to ten."""
    words = frozenset(words_of(key))
    if not ("scale" in words or {"out", "of"} <= words) or not words <= _OF_SCALE or isinstance(value, bool):
        return False
    try:
        return float(value) not in {0.0, _TEN}
    except (TypeError, ValueError):
        return False


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


def tells_more(event: dict[str, Any], *, has_server: bool, has_issues: bool) -> str | None:
    """A member by which an event tells of servers, software or issues in a form that is not read."""
    if not has_server and (name := names_event(event)) is not None:
        return name
    for key, value in event.items():
        if key in _READ_OF_EVENT or says_nothing(value):
            continue
        words = frozenset(words_of(key))
        is_container = isinstance(value, dict | list)
        if words & _OF_FINDINGS and (is_container or not has_issues):
            return clean(key, _NAME_SHOWN)
        if words & _OF_SERVERS and (is_container or not has_server):
            return clean(key, _NAME_SHOWN)
        if is_container and (_holds_exploits(value, _HOLDS_DEPTH) or names_event(value) is not None):
            return clean(key, _NAME_SHOWN)
    return None


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
