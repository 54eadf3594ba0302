"""What a reply says of itself: that it failed, that it holds only a part, and where the rest is.

None of this is documented (?), and a part that is taken for the whole closes issues. So it is decided by the meaning of
the words in the envelope's and the headers' names, not by a list of known forms, and where the meaning is in doubt the
reply counts as a part. What is empty, zero, ``ok`` or equal says nothing. Entries are data: whatever they say, they say
of themselves.

The grades D, C and ? are those of docs/patrolserver-api.md.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import msgspec

from patrolserver_exporter.patrolserver.values import Odd, clean, is_absent, read_flag, read_text

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence


@dataclass(frozen=True, slots=True)
class Step:
    """How to ask for the next page."""

    name: str
    """The member that tells it."""
    url: str | None = None
    """As the reply has it: absolute, or relative to the request's."""
    page: int | None = None
    cursor: str | None = None


Told = list[tuple[str, int]]
"""Numbers with the names of the members that tell them."""


@dataclass(slots=True)
class Signs:
    """What one reply says of itself. Each text names the member."""

    failures: list[str] = field(default_factory=list)
    """It failed."""
    parts: list[str] = field(default_factory=list)
    """It is a part, whatever else is read."""
    more: list[str] = field(default_factory=list)
    """It is a part unless the next page is read."""
    ended: bool = False
    """It says that nothing follows."""
    totals: Told = field(default_factory=list)
    whole: Told = field(default_factory=list)
    """Those of them that can only mean all there is, and not what this page holds."""
    sizes: Told = field(default_factory=list)
    """``size`` or ``length``: a total, or the size of a page."""
    pages: Told = field(default_factory=list)
    """How many pages there are."""
    whole_pages: Told = field(default_factory=list)
    """Those of them that can mean nothing else."""
    page_totals: Told = field(default_factory=list)
    """``page.total``: how many entries there are, or how many pages."""
    places: Told = field(default_factory=list)
    """Which page this is."""
    not_first: list[str] = field(default_factory=list)
    """Something comes before it."""
    hints: list[str] = field(default_factory=list)
    """There may be more, unless the end is told."""
    page_sizes: Told = field(default_factory=list)
    steps: list[Step] = field(default_factory=list)


def any_of(words: str) -> frozenset[str]:
    """These words, which have blanks between them."""
    return frozenset(words.split())


_FAILURE = any_of(
    "error errors err errs errno exception exceptions fault faults failure failures failed fail fails "
    "errored unsuccessful"
)
_SUCCESS = any_of("success successful succeeded succeed ok okay")
_VERDICT = any_of("status state result outcome code statuscode")
_KIND = any_of("type kind level severity")
_WARNING = any_of("warning warnings warn alert alerts")
_PROSE = any_of("message messages msg detail details note notes notice notices info description reason hint comment")
_PART = any_of(
    "partial partially part truncated truncate truncation incomplete limited capped cropped clipped cut "
    "cutoff degraded stale aborted interrupted overflow exceeded omitted skipped dropped missing hidden "
    "lost unavailable sampled reached trimmed elided timedout excluded unreachable ignored discarded "
    "suppressed maintenance terminated restricted filtered sample preview fallback"
)
_WHOLE = any_of("complete completed full whole exhaustive final finished done end eof exhausted fully entire last all")
_MORE = any_of(
    "more remaining remainder left rest continue continues continued continuation further additional "
    "pending outstanding"
)
_NEXT = any_of("next following forward")
_CURSOR = any_of("cursor cursors scroll marker bookmark after resume skiptoken evaluated")
_BACK = any_of("prev previous before backward")
_HERE = any_of("current self this first start")
_PAGE = any_of("page pages")
_PAGE_SIZE = any_of("per size limit max top take")
_COUNT = any_of(
    "total totals count counts counter num number found hits matches matched available amount quantity "
    "cardinality returned shown displayed fetched overall showing expected registered monitored watched others "
    "invisible"
)
_SIZE = any_of("size length len")
_NOUNS = any_of(
    "result results item items record records entry entries row rows element elements object objects list "
    "data server servers software package packages hosts domains machines nodes sites websites devices instances "
    "systems agents vms"
)
_NOT = any_of("no not non without")
_TOTAL = any_of("total totals overall found hits matches matched available cardinality")
_OF_THIS_PAGE = any_of("returned shown displayed fetched showing page pages per size limit")
_THE_END = any_of("last complete all end eof exhausted")
_NO_MORE = any_of("more remaining remainder left rest continue continues continued continuation further next")
_STATES = any_of("ready available authorized reachable scanned synced valid active fresh loaded connected online")
"""What is as it should be; where one of these is denied, the data may not be."""
_UNDERWAY = any_of("loading processing queued initializing warming busy indexing importing rebuilding syncing")
GONE = any_of("archived deleted former previous removed trashed uninstalled")
"""Lists of what there was once."""
_MOMENT = any_of("at date time timestamp since until ms seconds sec took elapsed duration ttl expires")
# Members that are about something else than this reply.
_ELSEWHERE = any_of(
    "rate ratelimit ratelimits quota throttle throttling user users account profile debug performance "
    "timing license plan subscription credits request requests call calls version scan scans update "
    "updates refresh check retry poll billing upgrade login"
)
_WHOSE = any_of("user account profile")
_SERVERS = any_of("server servers")
_ACCOUNT_DEPTH = 2
# What an envelope may count beside its entries.
_OTHER_NOUNS = any_of(
    "issue issues exploit exploits vulnerability vulnerabilities vulnerable exploitable outdated "
    "unsupported supported critical high medium low risk risks fixed open new unread verified unverified "
    "byte bytes test tests event events"
)
_CONTAINERS = any_of(
    "meta metadata pagination paging pager paginator links link info header headers summary response "
    "envelope data list collection page result results cursors search odata hal embedded status range stats"
)
_OK_WORDS = any_of(
    "ok okay success successful succeeded done complete completed finished active healthy up available "
    "enabled true yes eq exact none null created found online ready whole full"
)
_FAILED_WORDS = _FAILURE | any_of(
    "ko nok nak unauthorized unauthenticated forbidden denied invalid timeout unavailable aborted "
    "rejected refused fatal false no down crashed cancelled canceled"
)
_MAKES_DATA = any_of("scan scans update updates refresh check")
"""What brings the data about: where it failed, the data is from before."""
_SCANS = any_of("scan scans refresh check")
_NOT_DONE = any_of("unreachable interrupted skipped timed stalled stuck offline unfinished never")
"""How a scan stands that brought nothing."""
_CUTS_DATA = _PART - any_of("hidden available ignored missing limited reached exceeded unavailable maintenance")
_FAILED = any_of("error failed failure fail aborted crashed cancelled canceled exception")
_OVER_LIMIT = any_of("exceeded reached exhausted expired suspended invalid inactive")
_IN_FORCE = any_of("valid active authorized allowed")
_OF_LIMIT = _OVER_LIMIT | _ELSEWHERE | _VERDICT | _IN_FORCE | any_of("is has was limit limits")
_PERCENT = any_of("percent percentage coverage completeness")
_FALSE = (False, 0, "0", "false", "no", "off")
_EMPTY_WORDS = frozenset({"", "null", "none", "nil", "undefined"})
_FILLERS = any_of("x is has have are any the of in by")
_HEADER_WORDS = (
    _NEXT
    | _PAGE
    | _PART
    | _WARNING
    | _SUCCESS
    | _NOUNS
    | any_of(
        "x total totals count counts num number per size limit has more last current cursor pagination paging error "
        "errors failed failure status result code offset prev previous complete of is"
    )
) - {"server", "data"}
# Enough by themselves to be heard, whatever else is in a header's name: as in ``X-WP-TotalPages``.
_HEADER_WORDS_STRONG = any_of(
    "total totals pages next more truncated partial incomplete pagination paging failed failure failures continuation"
)
_HEADER_WORDS_FAILED = (
    _MAKES_DATA | _FAILURE | _VERDICT | _SUCCESS | _PART | any_of("x api app application backend last is has")
)
_OTHER_HEADERS = any_of(
    "accept cache control cost dns frame length memory policy runtime security time timing trace transfer"
)
_OTHER_UNLESS_STRONG = any_of("content server")
"""Of these, too, unless another word of the name is about parts."""
_ENTITIES = frozenset({"server", "host", "machine", "node", "client"})
_RELATIONS = frozenset({"next", "last", "prev", "previous"})
_KNOWN = (
    _FAILURE
    | _SUCCESS
    | _VERDICT
    | _WARNING
    | _PROSE
    | _PART
    | _WHOLE
    | _MORE
    | _NEXT
    | _CURSOR
    | _BACK
    | _HERE
    | _PAGE
    | _PAGE_SIZE
    | _COUNT
    | _SIZE
    | _NOUNS
    | _ELSEWHERE
    | _OTHER_NOUNS
    | _CONTAINERS
    | any_of("is has not per of offset token url link")
)

_OF_TOTAL = (_COUNT | _NOUNS | _SIZE | _CONTAINERS | any_of("value of all")) - _OF_THIS_PAGE
_OF_PAGES = _PAGE | _COUNT | _CONTAINERS | any_of("last")
_OF_THE_END = _WHOLE | _PAGE | _NOUNS | _CONTAINERS | any_of("of reached")
_OF_NO_MORE = (
    _NO_MORE | _NEXT | _CURSOR | _PAGE | _NOUNS | _CONTAINERS | any_of("token url uri href offset id link key")
)
_SYNONYMS = {
    **dict.fromkeys(("chunk", "batch", "segment", "slice"), "page"),
    **dict.fromkeys(("chunks", "batches", "segments", "slices", "parts"), "pages"),
}

_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")
_STATUS_LINE = re.compile(r"([1-5]\d\d)(?:\s.*)?", re.ASCII | re.DOTALL)
_NUMBER = re.compile(r"\d{1,18}", re.ASCII)
_PAGE_IN_URL = re.compile(r"[?&](?:page|p|page_number|pageNumber|page(?:\[|%5B)number(?:\]|%5D))=(\d{1,9})(?:[&#]|$)")
_LINK = re.compile(r"<([^<>]*)>([^<]*)")
_RELATION = re.compile(r"""\brel\s*=\s*(?:"([^"]*)"|'([^']*)'|([^\s;,"']+))""", re.IGNORECASE)
_RANGE = re.compile(r"[a-z]*\s*(?:(\d{1,18})\s*-\s*(\d{1,18})|\*)\s*/\s*(\d{1,18}|\*)", re.ASCII | re.IGNORECASE)
_DEPRECATION = re.compile(r"deprecat|sunset|obsolete|will be removed|outdated client", re.IGNORECASE)
_SAYS_PART = re.compile(
    r"""\b(?:incomplete|partial(?:ly)?|truncat\w*|cut\s(?:short|off)|not\s(?:all|complete|everything)|only\s\w+
    |first\s\d+|limit(?:ed)?\s(?:reached|exceeded|to)|more\s(?:results?|servers?|software|entries|items|pages?|data|records|rows|to|are|is|than)|next\spage|could\snot|cannot|can't|unable|unavailable
    |fail(?:ed|ure|s)?|errors?|timed?\s?out|missing|omitted|skipped|dropped|too\smany|exceed\w*|denied|unauth\w+)\b""",
    re.IGNORECASE | re.VERBOSE,
)
_SAYS_NONE = re.compile(
    r"\b(?:no|0|without|zero|nothing)\s(?:\w+\s)?(?:errors?|failures?|more|missing|skipped)\b", re.IGNORECASE
)
_M_OF_N = re.compile(r"(?<![\d/])(\d{1,9})\s*(?:/|\bof\b|\bout\sof\b)\s*(\d{1,9})(?![\d/])", re.ASCII | re.IGNORECASE)

_PARTIAL_CONTENT = "status 206"
_FRESH_FOR = 60
"""Seconds that a cache may have kept a reply (``Age``): an older one tells of a time before it was asked for."""
_OF_CACHES = any_of("cache cached stale freshness")
"""Words of headers by which a cache, or who asked it, tells how old the reply is."""
_OLD_CACHE = re.compile(r"\b(?:stale|updating|expired)\b|\bttl=-", re.IGNORECASE)
"""What a cache was allowed to hand out though its time was over."""
_LARGEST_PLACE = 1_000_000_000
"""Larger numbers are moments."""
_MAX_DEPTH = 6
_MAX_MEMBERS = 2_000
_SHOWN = 40
_NAME_SHOWN = 80


def _is_of_cache(words: tuple[str, ...]) -> bool:
    """Whether a header of such a name may tell how old the reply is."""
    if words == ("age",) or words[-2:] in {("data", "status"), ("data", "state")}:
        return True
    return "control" not in words and not _OF_CACHES.isdisjoint(words)


def _is_old(words: tuple[str, ...], value: str) -> bool:
    """Whether a cache's header says that the reply may be from before it was asked for."""
    if words[-1] != "age":
        return _OLD_CACHE.search(value) is not None or ("stale" in words and _flag(value) is True)
    # Each cache on the way may have added one of its own. One that means nothing may be any.
    ages = [_number(age.strip()) for age in value.split(",") if age.strip()]
    return any(age is None or age > _FRESH_FOR for age in ages)


def read_signs(
    objects: Iterable[tuple[Mapping[str, Any], frozenset[str]]],
    *,
    status: int = 200,
    headers: Mapping[str, str] | None = None,
    nouns: frozenset[str] = frozenset(),
) -> Signs:
    """What the envelope's ``objects``, the status and the headers say.

    Args:
        objects: each with the names of its members that are data.
        status: HTTP status, 2xx.
        headers: of the reply.
        nouns: what the entries are called, so that a count of these is one of the entries.
    """
    reader = _Reader(nouns)
    if status == 206:
        reader.signs.more.append(_PARTIAL_CONTENT)
    elif status != 200:
        reader.signs.parts.append(f"status {status}")
    for name, value in (headers or {}).items():
        reader.read_header(name, value)
    for members, data in objects:
        reader.read_object(members, data, (), "", 0)
    return reader.signs


def read_signs_of_data(members: Mapping[str, Any], data: frozenset[str], nouns: frozenset[str]) -> Signs:
    """What an object says that is data and envelope in one, as an event without the envelope is.

    Words that data has too, as ``status`` or ``message``, say nothing there.
    """
    reader = _Reader(nouns, only_plain=True)
    reader.read_object(members, data, (), "", 0)
    return reader.signs


def why_partial(pages: Sequence[Signs], count: int, last_count: int) -> list[str]:
    """Why the entries of all ``pages`` that were read, in order, may not be all there are; empty when they are.

    Args:
        pages: what each says of itself, at least one.
        count: how many entries they hold.
        last_count: how many the last one holds.
    """
    last, read = pages[-1], len(pages)
    reasons = [reason for signs in pages for reason in signs.parts]
    # That each page says that it is one of several is as it should be.
    reasons += [more for more in last.more if read == 1 or more != _PARTIAL_CONTENT]
    reasons += pages[0].not_first
    for number, signs in enumerate(pages, 1):
        # The first page may be called 0, and so the second 1.
        reasons += [f"{name} says {n}" for name, n in signs.places if not number - 1 <= n <= number]
    totals = [told for signs in pages for told in signs.totals]
    reasons += [f"{name} says {n}, {count} came" for name, n in totals if n > count]
    numbers = [told for signs in pages for told in signs.pages]
    reasons += _shifts(numbers)
    # A single page may be empty. Of several, what was on the last one has moved to one that was read before.
    reasons += [
        f"{name} says {n}, and page {read} is empty" for name, n in numbers if read > 1 and n >= read and not last_count
    ]
    reasons += [f"{name} says {n}, {read} read" for name, n in numbers if n > read]
    either = [told for signs in pages for told in signs.page_totals]
    reasons += [f"{name} says {n}" for name, n in either if n > count or (n != count and n > read)]
    # What else is counted says nothing of the end: a page's own number of entries always is what came.
    told_whole = any(n == count for signs in pages for _, n in signs.whole)
    told_whole = told_whole or any(0 < n <= read for signs in pages for _, n in signs.whole_pages)
    if not (last.ended or told_whole or any(n in {count, read} for _, n in either)):
        reasons += last.hints
        reasons += [f"{name} says {n}, {count} came" for name, n in last.sizes if n > count]
        reasons += [f"{name} says {n}, and as many came" for name, n in last.page_sizes if 0 < n <= last_count]
    return reasons


def _shifts(numbers: Told) -> list[str]:
    """Where pages disagree on how many there are: something came or went, and what it shifted was on no page."""
    before: dict[str, int] = {}
    return [f"{name} says {before[name]}, then {n}" for name, n in numbers if before.setdefault(name, n) != n]


def says_nothing(value: Any) -> bool:
    """Whether an error's value means that there is none: empty, zero, false, ``ok``, or made of such."""
    if isinstance(value, str) and value.strip().lower() in {"no", "false"}:
        return True
    return _is_empty(value)


def _is_empty(value: Any) -> bool:
    if isinstance(value, dict | list):
        return all(_is_empty(inner) for inner in (value.values() if isinstance(value, dict) else value))
    if isinstance(value, str):
        word = value.strip().lower()
        return word in _EMPTY_WORDS or word in {"ok", "success"} or not word.strip("0")
    return not value


def tells_of_failed_data(  # noqa: PLR0911 - one for each form
    words: Sequence[str], value: Any, depth: int = 3
) -> bool:
    """Whether it says that a scan, or another thing that brings the data about, failed or was cut: then it is older."""
    meant = frozenset(words)
    if not meant & _MAKES_DATA or meant & _MOMENT:
        return False
    if isinstance(value, dict):
        return depth > 0 and any(
            tells_of_failed_data((*words, *words_of(key)), inner, depth - 1) for key, inner in value.items()
        )
    if isinstance(value, list) and len(value) == 1 and isinstance(value[0], dict):
        return tells_of_failed_data(words, value[0], depth)
    denied = bool(meant & _NOT)
    if meant & _FAILURE:
        return value is False if denied else not says_nothing(value)
    if meant & _CUTS_DATA and meant & _SCANS:
        return bool(value) if isinstance(value, list) else _flag(value) is not denied and not is_absent(value)
    if meant & _SUCCESS:
        return _flag(value) is denied or is_failure(value)
    is_verdict = words[-1] in _VERDICT or (words[-1] in _MAKES_DATA and isinstance(value, str))
    return is_verdict and (is_failure(value) or (isinstance(value, str) and _is_not_done(value)))


def _is_not_done(word: str) -> bool:
    return not _NOT_DONE.isdisjoint(words_of(word.lower())[:2])


def is_failure(value: Any) -> bool:
    """Whether a word or a code, in place of a verdict, is a failure."""
    if isinstance(value, str):
        return value.strip().lower() in _FAILED_WORDS or not _FAILED.isdisjoint(words_of(value.lower())[:2])
    number = _number(value)
    return value is False or (number is not None and 400 <= number < 600)


def _flag(value: Any) -> bool | None:
    """Yes, no, or what is neither."""
    try:
        return read_flag(value)
    except Odd:
        return None


def _is_underway(words: Sequence[str], value: Any, depth: int = 2) -> bool:
    """Whether it says that a scan is not over: what came may be a part of what it finds."""
    meant = frozenset(words)
    if not meant & {"scan", "scans"} or meant & _MOMENT:
        return False
    if isinstance(value, dict):
        return depth > 0 and any(
            _is_underway((*words, *words_of(key)), inner, depth - 1) for key, inner in value.items()
        )
    return bool(meant & _WHOLE - {"last", "all"}) and _flag(value) is bool(meant & _NOT)


def _says_failed(entry: Mapping[str, Any]) -> bool:
    """Whether an entry of a list beside the data, such as the sources of it, says that it failed."""
    return any((words := words_of(key)) and words[-1] in _VERDICT and is_failure(value) for key, value in entry.items())


def _is_midway(value: Any) -> bool:
    """Whether it is a part of the way: a number, as a part of 100 or of 1, or a percentage."""
    text = str(value).strip().removesuffix("%").strip()
    try:
        done = float(text)
    except ValueError:
        return False
    return done not in {1.0, 100.0}


def _tells_of_limit(words: Sequence[str], value: Any, depth: int = 2) -> bool:
    """Whether it says that a limit of the account is reached, so that what came may be less or older than there is."""
    if not _OF_LIMIT.issuperset(words):
        return False  # of a trial, a password
    if isinstance(value, dict):
        return depth > 0 and any(_tells_of_limit(words_of(key), inner, depth - 1) for key, inner in value.items())
    if not words:
        return False
    if isinstance(value, str) and value.strip().lower() in _OVER_LIMIT:
        return words[-1] in _VERDICT | _ELSEWHERE
    flag = _flag(value)
    return (flag is True and not _OVER_LIMIT.isdisjoint(words)) or (flag is False and words[-1] in _IN_FORCE)


def _is_about_parts(words: Sequence[str]) -> bool:
    """Whether a header of such a name may tell that the reply is a part."""
    is_strong = not (_HEADER_WORDS_STRONG | {"count"}).isdisjoint(words)
    if not words or not (_OTHER_HEADERS if is_strong else _OTHER_HEADERS | _OTHER_UNLESS_STRONG).isdisjoint(words):
        return False
    return is_strong or any(known.issuperset(words) for known in (_HEADER_WORDS, _HEADER_WORDS_FAILED))


class _Reader:
    """Reads member after member into ``signs``."""

    def __init__(self, nouns: frozenset[str], *, only_plain: bool = False) -> None:
        self.signs = Signs()
        self._nouns = nouns
        self._other_nouns = _OTHER_NOUNS - nouns
        self._only_plain = only_plain
        self._members_left = _MAX_MEMBERS

    def read_object(
        self, members: Mapping[str, Any], data: frozenset[str], above: tuple[str, ...], path: str, depth: int
    ) -> None:
        """Read an object of the envelope; ``above`` are words of its own name that give its members their meaning."""
        for key, value in members.items():
            if key in data:
                continue
            self._members_left -= 1
            if self._members_left < 0:
                self.signs.parts.append("the envelope has too many members to be understood")
                return
            name = clean(f"{path}{key}", _NAME_SHOWN)
            self._read(name, (*above, *words_of(key)), value, depth)

    def read_header(self, name: str, value: str) -> None:
        """Read a header, if its name is about parts or failures; a server's own ones are not."""
        lowered = name.lower()
        shown = clean(name, _NAME_SHOWN)
        if lowered == "link":
            for url, parameters in _LINK.findall(value):
                relations = " ".join(map("".join, _RELATION.findall(parameters))).lower().split()
                for relation in _RELATIONS.intersection(relations):
                    self._read(f"{shown} rel={relation}", (relation,), url.strip(), 0)
            return
        if lowered in {"content-range", "x-content-range", "x-range"}:
            self._read_range(shown, value)
            return
        words = words_of(name)
        if _is_of_cache(words):
            if _is_old(words, value):
                self.signs.parts.append(self._quoted(shown, value))
            return
        if lowered == "status" or not _is_about_parts(words):
            return
        words = tuple(word for word in words if word != "x")
        stripped = value.strip()
        decoded: Any = stripped
        if stripped.startswith(("{", "[")):
            try:
                decoded = msgspec.json.decode(stripped)
            except (ValueError, RecursionError):
                decoded = stripped
        self._read(shown, words, decoded, 0)

    def _read(self, name: str, words: tuple[str, ...], value: Any, depth: int) -> None:
        meant = frozenset(words) - _FILLERS
        if self._only_plain and meant & _FAILURE and not meant <= _FAILURE | {"code", "message", "no"}:
            return
        if meant & _ELSEWHERE and not (meant & _FAILURE and meant & {"request", "call"}):
            if tells_of_failed_data(words, value) or _tells_of_limit(words, value) or _is_underway(words, value):
                self.signs.parts.append(self._quoted(name, value))
            self._read_counts_of_account(name, words, value)
            return
        if meant & _MOMENT and not meant & (_FAILURE | _PART | {"continue"}):
            return
        if isinstance(value, dict):
            self._read_nested(name, words, value, depth)
        elif isinstance(value, list):
            self._read_list(name, words, value, depth)
        elif words:
            self._read_scalar(name, words, meant, value)

    def _read_counts_of_account(self, name: str, words: tuple[str, ...], value: Any) -> None:
        """How many servers an account has, unless it is how many it may have."""
        if isinstance(value, dict):
            for key, inner in value.items() if len(words) <= _ACCOUNT_DEPTH and {*words} <= _WHOSE | _SERVERS else ():
                self._read_counts_of_account(clean(f"{name}.{key}", _NAME_SHOWN), (*words, *words_of(key)), inner)
            return
        meant, number = frozenset(words) - _FILLERS, _number(value)
        about = meant & _SERVERS if self._nouns & _SERVERS else frozenset()
        if number is not None and about and meant & _WHOSE and meant & _COUNT and meant <= _WHOSE | _COUNT | about:
            self.signs.totals.append((name, number))

    def _read_nested(self, name: str, words: tuple[str, ...], value: dict[str, Any], depth: int) -> None:
        meant = frozenset(words)
        if meant & _FAILURE:
            if not meant & _NOT and not says_nothing(value):
                self.signs.failures.append(name)
            return
        if not value:
            self._note_end(meant)
        is_entity = any(key in value for key in ("id", "name", "domain")) or bool(meant & _ENTITIES)
        if is_entity and meant & {"cursor", "evaluated"}:
            self.signs.more.append(f"{name} is set")
            return
        if depth >= _MAX_DEPTH or (is_entity and not meant & (_CONTAINERS | _NEXT | _COUNT | _PAGE)):
            return
        if meant & _WARNING:
            self._read_prose(name, meant, list(value.values()))
            return
        above = tuple(word for word in words if word not in _CONTAINERS | _PROSE)
        if words and words[-1] == "page" and not above:
            for key in [key for key in value if set(words_of(key)) <= {"total", "count"}]:
                number = _number(value[key])
                if number is not None:
                    self.signs.page_totals.append((clean(f"{name}.{key}", _NAME_SHOWN), number))
        self.read_object(value, frozenset(), above, f"{name}.", depth + 1)

    def _read_list(self, name: str, words: tuple[str, ...], value: list[Any], depth: int) -> None:  # noqa: C901 - as below
        meant = frozenset(words)
        if meant & _FAILURE:
            if not meant & _NOT and not says_nothing(value):
                self.signs.failures.append(name)
        elif meant & (_WARNING | _PROSE):
            for one in value:
                texts = [inner for inner in one.values() if isinstance(inner, str)] if isinstance(one, dict) else [one]
                self._read_prose(name, meant, texts)
        elif (meant & _PART and not meant & _NOT) or (meant & _NOT and meant & _STATES):
            if value:
                self.signs.parts.append(f"{name} is not empty")
        elif meant & (_NEXT | _CURSOR | _MORE):
            if value:
                self.signs.more.append(f"{name} is not empty")
            else:
                self._note_end(meant)
        elif meant & _COUNT and len(value) == 1 and not isinstance(value[0], list):
            self._read(name, words, value[0], depth)
        elif any(isinstance(one, dict) and _says_failed(one) for one in value[:_MAX_MEMBERS]):
            self.signs.parts.append(f"{name} tells of a failure")
        elif depth < _MAX_DEPTH:
            self._read_links(name, value)

    def _read_links(self, name: str, value: list[Any]) -> None:
        """Links as ``[{"rel": "next", "href": …}]``, or as Laravel labels them: ``Next »`` and the pages' numbers."""
        for link in value[:_MAX_MEMBERS]:
            if not isinstance(link, dict) or not ({"rel", "label"} & link.keys()):
                continue
            url = next((link[key] for key in ("href", "url", "link") if key in link), None)
            told = read_or_none(link.get("rel", link.get("label"))) or ""
            number = _number(told)
            if number is not None:
                if not is_absent(url):
                    self.signs.pages.append((f"{name} {number}", number))
                    self.signs.whole_pages.append((f"{name} {number}", number))
                if link.get("active") is True:
                    self.signs.places.append((f"{name} {number}", number))
                continue
            for word in words_of(told):
                if word in _NEXT | _BACK | {"last"}:
                    self._read(f"{name} {word}", (word,), url, _MAX_DEPTH)

    def _read_scalar(self, name: str, words: tuple[str, ...], meant: frozenset[str], value: Any) -> None:
        word = value.strip().lower() if isinstance(value, str) else None
        if meant & _FAILURE:
            failed = value is False if meant & _NOT else not says_nothing(value)
            if failed:
                self.signs.failures.append(self._quoted(name, value))
        elif (
            value is None or word in _EMPTY_WORDS or (meant & (_NEXT | _CURSOR) and (value in _FALSE or word in _FALSE))
        ):
            self._note_end(meant)
        else:
            # The first that fits.
            _ = (
                self._read_judgement(name, words, meant, value)
                or self._read_place(name, meant, value)
                or self._read_extent(name, meant, value)
                or self._read_size(name, meant, value)
                or self._only_plain
                or self._read_state(name, words, value)
            )

    def _read_judgement(self, name: str, words: tuple[str, ...], meant: frozenset[str], value: Any) -> bool:
        """Whether the call succeeded, in a flag, a word, a code or prose."""
        if meant & _SUCCESS:
            self._read_success(name, meant, value)
        elif words[-1] in _VERDICT and _is_verdict(meant):
            if not self._only_plain:
                self._read_verdict(name, value)
        elif words[-1] in _KIND:
            if not self._only_plain and isinstance(value, str) and value.strip().lower() in _FAILURE:
                self.signs.failures.append(self._quoted(name, value))
        elif meant & _WARNING or (meant & _PROSE and isinstance(value, str)):
            self._read_prose(name, meant, [value])
        else:
            return False
        return True

    def _read_place(self, name: str, meant: frozenset[str], value: Any) -> bool:
        """Where this page stands among the others, and how the next one is asked for."""
        if meant == {"number"} or (meant == {"part"} and _number(value) is not None):  # of the page, from 0 or 1
            self._note_number(self.signs.places, name, value)
        elif {"page", "pages", "last"} & meant and self._read_page(name, meant, value):
            pass
        elif meant & _BACK or "offset" in meant or meant == {"skip"}:
            if value not in _FALSE:
                self.signs.not_first.append(f"{name} is set")
        elif meant == {"first"} and value is False:
            self.signs.not_first.append(self._quoted(name, value))
        elif meant & _NEXT:
            self._read_next(name, meant, value)
        elif meant & _CURSOR or ("token" in meant and meant & (_PAGE | _MORE)):
            if not meant & _HERE:
                self.signs.hints.append(f"{name} is set")
        elif "range" in meant:
            self._read_range(name, str(value))
        else:
            return False
        return True

    def _read_extent(self, name: str, meant: frozenset[str], value: Any) -> bool:
        """Whether it is a part or the whole, in a flag."""
        if meant & _PART or {"timed", "out"} <= meant or ("timeout" in meant and value is True):
            self._read_flagged(name, meant, value)
        elif meant & (_MORE & {"more"} if self._only_plain else _MORE):
            self._read_more(name, meant, value)
        elif meant & _WHOLE and not meant & _COUNT and not self._only_plain:
            self._read_whole(name, meant, value)
        else:
            return False
        return True

    def _read_size(self, name: str, meant: frozenset[str], value: Any) -> bool:
        """How many there are, or how many a page holds."""
        if meant & _PAGE_SIZE - _SIZE and not meant & _COUNT:
            self._note_number(self.signs.page_sizes, name, value)
            if value is True:
                self.signs.parts.append(self._quoted(name, value))
        elif meant & _COUNT or (meant and meant <= _NOUNS and _number(value) is not None):
            self._read_count(name, meant, value)
        elif meant & _SIZE:
            self._note_number(self.signs.sizes, name, value)
        else:
            return False
        return True

    def _read_state(self, name: str, words: tuple[str, ...], value: Any) -> bool:
        """Whether what is there is as it should be, by a name that is about nothing else."""
        meant, flag, number = frozenset(words), _flag(value), _number(value)
        denied = bool(meant & _NOT)
        counted = _M_OF_N.search(value) if isinstance(value, str) else None
        word = value.strip().lower() if isinstance(value, str) else ""
        if meant <= {"of", "out"} and number is not None:
            self.signs.totals.append((name, number))
        elif meant <= {"start", "from"} and number is not None:
            if 1 < number < _LARGEST_PLACE:
                self.signs.not_first.append(self._quoted(name, value))
        elif (
            (meant & _STATES and flag is denied)
            or (meant & _UNDERWAY and flag is not denied and not is_absent(value))
            or (meant & (_PERCENT | {"progress"}) and _is_midway(value))
            or (counted is not None and int(counted[1]) < int(counted[2]))
            or (word in _FAILED_WORDS | _PART | _UNDERWAY and flag is None)
        ):
            self.signs.parts.append(self._quoted(name, value))
        elif isinstance(value, str) and (page := _PAGE_IN_URL.search(value)) is not None and int(page[1]) > 1:
            self.signs.hints.append(f"{name} is set")
        else:
            return False
        return True

    def _read_success(self, name: str, meant: frozenset[str], value: Any) -> None:
        try:
            succeeded = read_flag(value)
        except Odd:
            if isinstance(value, str) and value.strip().lower() in _OK_WORDS:
                return
            self.signs.parts.append(self._quoted(name, value))
            return
        if succeeded is bool(meant & _NOT):
            self.signs.failures.append(self._quoted(name, value))

    def _read_verdict(self, name: str, value: Any) -> None:
        word = value.strip().lower() if isinstance(value, str) else ""
        status = _STATUS_LINE.fullmatch(word) if word else None
        number = int(status[1]) if status else _number(value)
        if value is True or word in _OK_WORDS or (number is not None and (number in {0, 1} or 200 <= number < 300)):
            if number is not None and 200 < number < 300:
                self.signs.more.append(self._quoted(name, value))
            return
        words = set(words_of(word))
        if value is False or (number is not None and 300 <= number < 600) or words & _FAILED_WORDS:
            self.signs.failures.append(self._quoted(name, value))
        else:
            self.signs.parts.append(self._quoted(name, value))

    def _read_prose(self, name: str, meant: frozenset[str], texts: list[Any]) -> None:
        """A warning counts unless it is about something that is going to be; other texts where they say that it is."""
        if self._only_plain:
            return
        for text in texts:
            if not isinstance(text, str):
                if meant & _WARNING and text and text is not True:
                    self.signs.parts.append(f"{name} is set")
                continue
            if text.strip().lower() in _EMPTY_WORDS | {"0"}:
                continue
            counted = _M_OF_N.search(text)
            says_part = bool(_SAYS_PART.search(_SAYS_NONE.sub("", text))) or (
                counted is not None and int(counted[1]) < int(counted[2])
            )
            if says_part or (meant & _WARNING and not _DEPRECATION.search(text)):
                self.signs.parts.append(self._quoted(name, text))

    def _read_page(self, name: str, meant: frozenset[str], value: Any) -> bool:
        """A number of pages, the number of this one, or how large it is; whether it was one."""
        number = _number(value)
        place = _M_OF_N.fullmatch(value.strip()) if number is None and isinstance(value, str) else None
        if place is not None:
            self.signs.places.append((name, int(place[1])))
            self.signs.pages.append((name, int(place[2])))
            self.signs.whole_pages.append((name, int(place[2])))
            return True
        if number is None:
            page = _PAGE_IN_URL.search(value) if "last" in meant and isinstance(value, str) else None
            if page is not None:
                self.signs.pages.append((name, int(page[1])))
                self.signs.whole_pages.append((name, int(page[1])))
            return page is not None
        if meant & (_NEXT | _BACK):
            return False
        if meant & _PAGE_SIZE - {"max"} and meant & {"page", "pages"}:
            self.signs.page_sizes.append((name, number))
        elif meant & {"last", "total", "totals", "count", "max", "pages"} and not meant & _HERE:
            self.signs.pages.append((name, number))
            if meant & _PAGE and meant <= _OF_PAGES:
                self.signs.whole_pages.append((name, number))
        elif "page" in meant:
            self.signs.places.append((name, number))
        return True

    def _read_next(self, name: str, meant: frozenset[str], value: Any) -> None:
        number = _number(value)
        self.signs.more.append(f"{name} is set" if "rel=" not in name else name)
        if number is not None:
            if not meant & {"offset", "cursor", "token", "id"}:
                self.signs.steps.append(Step(name, page=number))
        elif isinstance(value, str):
            text = value.strip()
            if any(sign in text for sign in "/?") or "rel=" in name:
                self.signs.steps.append(Step(name, url=text))
            elif "cursor" in meant:
                self.signs.steps.append(Step(name, cursor=text))

    def _read_flagged(self, name: str, meant: frozenset[str], value: Any) -> None:
        says_part = not meant & _NOT
        try:
            flag = read_flag(value)
        except Odd:
            flag = says_part
        if flag is says_part:
            # A page that is truncated may be one that another follows.
            where = self.signs.more if "truncated" in meant else self.signs.parts
            where.append(self._quoted(name, value))

    def _read_more(self, name: str, meant: frozenset[str], value: Any) -> None:
        try:
            flag = read_flag(value)
        except Odd:
            flag = not meant & _NOT
        if flag is not bool(meant & _NOT):
            self.signs.more.append(self._quoted(name, value))
        else:
            self._note_end(meant - _NOT)

    def _note_end(self, meant: frozenset[str]) -> None:
        """What is empty or false says that nothing follows, where it could not be about anything else.

        A cursor alone may be the one that was asked with, and the first page has none before it.
        """
        if meant & _NO_MORE and meant <= _OF_NO_MORE:
            self.signs.ended = True

    def _read_whole(self, name: str, meant: frozenset[str], value: Any) -> None:
        """A flag; what is none is no sign for ``last`` or ``all``, which mean many things."""
        if "all" in meant and (number := _number(value)) is not None and number > 1:
            self.signs.totals.append((name, number))
            return
        if meant & _PERCENT:
            if _is_midway(value):
                self.signs.parts.append(self._quoted(name, value))
            return
        try:
            flag = read_flag(value)
        except Odd:
            if not meant & {"last", "all", "end", "final", "full"}:
                self.signs.parts.append(self._quoted(name, value))
            return
        if flag is bool(meant & _NOT):
            self.signs.more.append(self._quoted(name, value))
        elif meant & _THE_END and meant - _NOT <= _OF_THE_END:
            self.signs.ended = True

    def _read_count(self, name: str, meant: frozenset[str], value: Any) -> None:
        if meant & self._other_nouns or isinstance(value, bool):
            if value is False and meant == {"available"}:
                self.signs.parts.append(self._quoted(name, value))
            return
        number, counted = _number(value), _M_OF_N.search(value) if isinstance(value, str) else None
        if counted is not None and int(counted[1]) >= int(counted[2]):
            return
        if number is not None:
            self.signs.totals.append((name, number))
            if meant & _TOTAL and meant <= _OF_TOTAL:
                self.signs.whole.append((name, number))
        elif not (isinstance(value, int | float) and value == 0) and str(value).strip().lower() not in _OK_WORDS:
            self.signs.parts.append(f"{self._quoted(name, value)}, which is not a number")

    def _read_range(self, name: str, text: str) -> None:
        """``items 0-1/14``, as ``Content-Range`` has it."""
        told = _RANGE.fullmatch(text.strip())
        if told is None:
            if text.strip():
                self.signs.more.append(self._quoted(name, text))
            return
        first, last, whole = told.groups()
        if whole == "*" or first is None:
            if whole not in {"*", "0"} or first is not None:
                self.signs.more.append(self._quoted(name, text))
        elif int(last) + 1 < int(whole):
            self.signs.more.append(self._quoted(name, text))
        if first is not None and int(first) > 0:
            self.signs.not_first.append(f"{name} is set")

    def _note_number(self, where: Told, name: str, value: Any) -> None:
        number = _number(value)
        if number is not None:
            where.append((name, number))

    def _quoted(self, name: str, value: Any) -> str:
        """``meta.status says partial``."""
        said = "true" if value is True else "false" if value is False else read_or_none(value)
        return f"{name} says {clean(said, _SHOWN)}" if said else f"{name} is set"


def _is_verdict(meant: frozenset[str]) -> bool:
    """Whether a name that ends in ``code`` or ``result`` is a verdict and no count or language."""
    return not meant & (_COUNT | {"country", "language", "lang", "currency", "zip", "search", "filter"})


def _number(value: Any) -> int | None:
    """A whole number, from a number or digits; None for all else."""
    if isinstance(value, bool):
        return None
    if isinstance(value, int):
        return value if value >= 0 else None
    if isinstance(value, float):
        return int(value) if value.is_integer() and value >= 0 else None
    text = value.strip() if isinstance(value, str) else ""
    return int(text) if _NUMBER.fullmatch(text) else None


def read_or_none(value: Any) -> str | None:
    """Text for a message, or None."""
    try:
        return read_text(value, 4 * _NAME_SHOWN)
    except Odd:
        return None


@lru_cache(maxsize=4_096)
def words_of(name: str) -> tuple[str, ...]:
    """What a name is made of, in small letters: ``nextPageUrl``, ``next_page_url`` and ``nextpageurl`` are the same."""
    words: list[str] = []
    for word in _WORD.findall(name[:_NAME_SHOWN]):
        words += [_SYNONYMS.get(one, one) for one in _split(word.lower())]
    return tuple(words)


def _split(word: str) -> list[str]:
    """A word that is made of known ones, apart; else the word."""
    if word in _KNOWN or len(word) < 6:
        return [word]
    for length in range(len(word) - 2, 1, -1):
        if word[:length] in _KNOWN:
            rest = _split(word[length:])
            if all(one in _KNOWN for one in rest):
                return [word[:length], *rest]
    return [word]
