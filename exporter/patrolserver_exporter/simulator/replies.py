"""Replies that are not the plain truth, by order of a test: parts of the whole, odd exploits, or anything at all.

A fault stands in for a reply; a rule of this module alters the true one. Without a rule nothing here is run.
"""

from __future__ import annotations

import json
import re
from enum import StrEnum
from fnmatch import fnmatchcase
from math import ceil
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple
from urllib.parse import urlencode, urlsplit

import msgspec
from msgspec import Meta

from .exchange import Answer
from .faults import InForce
from .wire import Style, php_json, styled

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


class Endpoint(StrEnum):
    """The calls whose replies can be altered."""

    SERVERS = "servers"
    SERVER = "server"
    SOFTWARE = "software"
    IS_SCANNING = "is_scanning"
    EVENT = "event"


_ENDPOINTS = {
    "GET servers": Endpoint.SERVERS,
    "GET servers/:server": Endpoint.SERVER,
    "GET servers/:server/software": Endpoint.SOFTWARE,
    "GET servers/:server/isScanning": Endpoint.IS_SCANNING,
    "GET webhooks/:webhook/events/:event": Endpoint.EVENT,
}


class PartForm(StrEnum):
    """How a reply says that it is not the whole. All but the last three have pages, to be read with ``?page=N``."""

    TOTAL = "total"
    """``total``: how many entries there are."""
    META_TOTAL = "meta_total"
    """The same inside ``meta``."""
    TOTAL_PAGES = "total_pages"
    """``meta.pagination`` with ``total_pages`` and ``current_page``."""
    TRUNCATED = "truncated"
    """``truncated: true``."""
    NEXT_LINK = "next_link"
    """The header ``Link`` with ``rel="next"``."""
    NEXT_PAGE_URL = "next_page_url"
    """The member of that name, ``null`` on the last page."""
    CONTENT_RANGE = "content_range"
    """Status 206 and the header ``Content-Range``."""
    SUCCESS_FALSE = "success_false"
    """``success: false``."""
    STATUS_ERROR = "status_error"
    """``status: "error"``."""
    ERRORS = "errors"
    """``errors``: a list of one text."""


class ExploitsForm(StrEnum):
    """How the member ``exploits`` of a software is written."""

    MISSING = "missing"
    NULL = "null"
    EMPTY = "empty"
    WRAPPED = "wrapped"
    """``{"data": […]}``."""
    KEYED = "keyed"
    """``{"CVE-…": {…}}``."""


class RiskForm(StrEnum):
    """How the risk of an exploit is written."""

    MISSING = "missing"
    NULL = "null"
    OUT_OF_TEN = "out_of_ten"
    """``"9.8/10"``."""
    WORD = "word"
    """``"critical"``."""
    VECTOR = "vector"
    """A CVSS vector."""
    OBJECT = "object"
    """``{"score": 9.8}``."""
    LIST = "list"
    """``[9.8]``."""
    OUT_OF_RANGE = "out_of_range"
    """A hundred too high."""


Share = Annotated[float, Meta(ge=0, le=1)]
Number = Annotated[int, Meta(ge=1, le=1_000_000)]


class ReplyRule(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How the good replies of one endpoint are altered; errors stay as they are.

    All that is given applies, in the order of the fields below. ``count`` ends it after that many replies; the later
    pages of one reply do not count.
    """

    endpoint: Endpoint
    server: int | str | None = None
    """Only for this server's software, scans and events; the control interface turns a name into its id."""
    count: Annotated[int, Meta(ge=0)] | None = None
    data: Any = msgspec.UNSET
    """Instead of the true data."""
    software: str = "*"
    """Glob on the canonical name: whose ``exploits`` and ``risk`` are altered."""
    risk: RiskForm | None = None
    exploits: ExploitsForm | None = None
    share: Share | None = None
    """So much of the list is left, from its start; 0 leaves it empty."""
    form: PartForm | None = None
    per_page: Number | None = None
    """Entries of a page; without it half of the list. A page that holds all says so: the reply is whole."""
    fail_from_page: Number | None = None
    """This page and those behind it get status 500."""
    endless: bool = False
    """Every page says that there is one more; behind the last it comes again."""
    next_base: str | None = None
    """Scheme and host of the link to the next page, if not the simulator's own."""
    members: dict[str, Any] = {}
    """Members of the envelope that are added or replaced."""
    status: Annotated[int, Meta(ge=200, le=599)] | None = None
    headers: dict[str, str | int | float] = {}
    body: str | None = None
    """Instead of all JSON."""

    def __post_init__(self) -> None:
        if self.endpoint is Endpoint.SERVERS and self.server is not None:
            raise ValueError("the list of servers is not one server's: leave server out")
        if (self.risk or self.exploits) and self.endpoint is not Endpoint.SOFTWARE:
            raise ValueError('risk and exploits are for the endpoint "software"')
        for text in (self.next_base or "", *self.headers, *map(str, self.headers.values())):
            if not (text.isascii() and text.isprintable()):
                raise ValueError("a header holds printable ASCII only")
        if "content-length" in map(str.lower, self.headers):
            raise ValueError("Content-Length cannot be given; the fault half_body announces more than it sends")


class Request(NamedTuple):
    """A call, as far as rules look at it."""

    label: str
    """``GET servers/:server/software``."""
    path: Mapping[str, str]
    query: Mapping[str, str]
    url: str
    """Without the query, which holds the secret."""

    @property
    def page(self) -> int:
        """``?page=N``; 1 when it is missing or no number."""
        text = self.query.get("page", "")
        return int(text) if text.isascii() and text.isdigit() and 0 < len(text) < 10 and int(text) else 1


class Replies(InForce[ReplyRule]):
    """The rules in force; asked by the API at every good reply."""

    def __init__(self) -> None:
        super().__init__()
        self._paged: dict[tuple[Endpoint, str], int] = {}

    def rule_for(self, request: Request, body: bytes) -> ReplyRule | None:
        """The oldest rule for this reply, counted; for a later page the rule that the first page had."""
        endpoint = _ENDPOINTS.get(request.label)
        if not self._rules or endpoint is None:
            return None
        place = endpoint, request.url
        server_id = _server_id(endpoint, request, body)
        with self._lock:
            if request.page > 1:
                return self._rules.get(self._paged.get(place, 0))
            for number, rule in self._rules.items():
                if (
                    rule.endpoint is endpoint
                    and (rule.count is None or self._hits[number] < rule.count)
                    and (rule.server is None or str(rule.server) == server_id)
                ):
                    self._hits[number] += 1
                    self._paged[place] = number
                    return rule
            self._paged.pop(place, None)
            return None


def _server_id(endpoint: Endpoint, request: Request, body: bytes) -> str:
    if endpoint is not Endpoint.EVENT:
        return request.path.get("server", "").strip('"')
    event = json.loads(body)
    data = event.get("data", event) if isinstance(event, dict) else event
    return str(data.get("server_id", "")) if isinstance(data, dict) else ""


def altered_reply(rule: ReplyRule, request: Request, body: bytes, style: Style) -> Answer:
    """The reply that the rule makes of the true one."""
    if rule.fail_from_page is not None and request.page >= rule.fail_from_page:
        return Answer(500, php_json({"error": {"code": 500, "message": "This page cannot be shown."}}))
    document = json.loads(body)
    bare = style is Style.BARE and rule.endpoint is Endpoint.EVENT
    data = document if bare else document["data"]
    if rule.data is not msgspec.UNSET:
        data = rule.data
    if (rule.risk or rule.exploits) and isinstance(data, list):
        data = [_with_odd_exploits(rule, one) for one in data]
    if rule.share is not None:
        data = _cut(data, 0, int(len(_entries(data)) * rule.share))
    members: dict[str, object] = {}
    headers: dict[str, str] = {}
    if rule.form is not None:
        page = _page(rule, request, data)
        data = page.data
        if rule.form in _MEMBERS:
            members = {name: styled(value, style) for name, value in _MEMBERS[rule.form](page).items()}
        if rule.form in _HEADERS:
            headers = _HEADERS[rule.form](page)
    members |= rule.members
    headers |= {name.lower(): str(value) for name, value in rule.headers.items()}
    return Answer(
        rule.status or (206 if rule.form is PartForm.CONTENT_RANGE else 200),
        php_json(_document(data, members, bare=bare))
        if rule.body is None
        else rule.body.encode(errors="surrogatepass"),
        headers.pop("content-type", "application/json"),
        tuple((name.encode(), value.encode()) for name, value in headers.items()),
    )


def _document(data: Any, members: dict[str, object], *, bare: bool) -> object:
    """In the envelope, or bare: an event that is not an object has no place for members."""
    if not bare:
        return {"data": data, **members}
    return {**data, **members} if isinstance(data, dict) else data


class _Page(NamedTuple):
    data: Any
    """What is shown of the whole."""
    number: int
    pages: int
    size: int
    first: int
    """Place of its first entry, from 0."""
    total: int
    next_url: str | None


def _page(rule: ReplyRule, request: Request, data: Any) -> _Page:
    """The page that was asked for. What cannot be cut claims to be the first half of two."""
    number = request.page
    amount = len(_entries(data)) if _is_list(data) else 2
    size = rule.per_page or max(1, ceil(amount / 2))
    pages = max(1, ceil(amount / size))
    shown = min(number, pages) if rule.endless else number
    total = amount
    if rule.endless:
        pages, total = number + 1, (number + 1) * size
    return _Page(
        _cut(data, (shown - 1) * size, shown * size),
        number,
        pages,
        size,
        (number - 1) * size,
        total,
        _next_url(rule, request) if number < pages else None,
    )


def _pagination(page: _Page) -> dict[str, object]:
    return {"total": page.total, "per_page": page.size, "current_page": page.number, "total_pages": page.pages}


def _content_range(page: _Page) -> dict[str, str]:
    end = max(page.first, min(page.first + page.size, page.total) - 1)
    return {"content-range": f"items {page.first}-{end}/{page.total}"}


_MEMBERS: Mapping[PartForm, Callable[[_Page], dict[str, Any]]] = {
    PartForm.TOTAL: lambda page: {"total": page.total},
    PartForm.META_TOTAL: lambda page: {"meta": {"total": page.total}},
    PartForm.TOTAL_PAGES: lambda page: {"meta": {"pagination": _pagination(page)}},
    PartForm.TRUNCATED: lambda page: {"truncated": page.next_url is not None},
    PartForm.NEXT_PAGE_URL: lambda page: {"next_page_url": page.next_url},
    PartForm.SUCCESS_FALSE: lambda _page: {"success": False},
    PartForm.STATUS_ERROR: lambda _page: {"status": "error"},
    PartForm.ERRORS: lambda _page: {"errors": ["Not all data could be read."]},
}
_HEADERS: Mapping[PartForm, Callable[[_Page], dict[str, str]]] = {
    PartForm.NEXT_LINK: lambda page: {"link": f'<{page.next_url}>; rel="next"'} if page.next_url else {},
    PartForm.CONTENT_RANGE: _content_range,
}


def _next_url(rule: ReplyRule, request: Request) -> str:
    """The next page with the scope that was asked for, and without key and secret: no link holds a secret."""
    query = {"page": request.page + 1} | {name: text for name, text in request.query.items() if name == "scope"}
    url = request.url if rule.next_base is None else rule.next_base.rstrip("/") + urlsplit(request.url).path
    return f"{url}?{urlencode(query)}"


def _is_list(data: Any) -> bool:
    return isinstance(data, list) or (isinstance(data, dict) and isinstance(data.get("new_issues"), list))


def _entries(data: Any) -> list[Any]:
    """What a page is cut from: a list, or the issues of an event; of all else there is nothing to cut."""
    if not _is_list(data):
        return []
    return data if isinstance(data, list) else data["new_issues"]


def _cut(data: Any, first: int, end: int) -> Any:
    if not _is_list(data):
        return data
    return data[first:end] if isinstance(data, list) else {**data, "new_issues": data["new_issues"][first:end]}


def _with_odd_exploits(rule: ReplyRule, software: Any) -> Any:
    if not isinstance(software, dict) or not isinstance(software.get("exploits"), list):
        return software
    if not fnmatchcase(str(software.get("canonical_name", "")), rule.software):
        return software
    listed = software["exploits"]
    if rule.risk is not None:
        listed = [_with_odd_risk(rule.risk, one) for one in listed]
    if rule.exploits is ExploitsForm.MISSING:
        return {name: value for name, value in software.items() if name != "exploits"}
    return {**software, "exploits": listed if rule.exploits is None else _ODD_EXPLOITS[rule.exploits](listed)}


def _key(exploit: Any, number: int) -> str:
    return str(exploit.get("cve", number)) if isinstance(exploit, dict) else str(number)


def _with_odd_risk(form: RiskForm, exploit: Any) -> Any:
    if not isinstance(exploit, dict) or not _PLAIN_RISK.fullmatch(str(exploit.get("risk"))):
        return exploit
    rest = {name: value for name, value in exploit.items() if name != "risk"}
    return rest if form is RiskForm.MISSING else {**rest, "risk": _ODD_RISKS[form](exploit["risk"])}


def _word(risk: str | float) -> str:
    return next(word for least, word in _WORDS if float(risk) >= least)


def _vector(risk: str | float) -> str:
    """The vector whose score is nearest: equal for every risk that the simulator draws by itself."""
    return _VECTORS[min(_VECTORS, key=lambda score: abs(score - float(risk)))]


_ODD_EXPLOITS: Mapping[ExploitsForm, Callable[[list[Any]], object]] = {
    ExploitsForm.NULL: lambda _listed: None,
    ExploitsForm.EMPTY: lambda _listed: [],
    ExploitsForm.WRAPPED: lambda listed: {"data": listed},
    ExploitsForm.KEYED: lambda listed: {_key(one, number): one for number, one in enumerate(listed)},
}
_PLAIN_RISK = re.compile(r"\d+(\.\d+)?", re.ASCII)
_WORDS = ((9.0, "critical"), (7.0, "high"), (4.0, "medium"), (0.0, "low"))
_VECTORS = {
    3.1: "CVSS:3.1/AV:N/AC:H/PR:N/UI:R/S:U/C:L/I:N/A:N",
    4.3: "CVSS:3.1/AV:N/AC:L/PR:N/UI:R/S:U/C:N/I:L/A:N",
    5.3: "CVSS:3.1/AV:N/AC:L/PR:N/UI:N/S:U/C:L/I:N/A:N",
    6.1: "CVSS:3.1/AV:N/AC:L/PR:N/UI:R/S:C/C:L/I:L/A:N",
    7.5: "CVSS:3.1/AV:N/AC:L/PR:N/UI:N/S:U/C:H/I:N/A:N",
    8.8: "CVSS:3.1/AV:N/AC:L/PR:N/UI:R/S:U/C:H/I:H/A:H",
    9.8: "CVSS:3.1/AV:N/AC:L/PR:N/UI:N/S:U/C:H/I:H/A:H",
}
_ODD_RISKS: Mapping[RiskForm, Callable[[Any], object]] = {
    RiskForm.NULL: lambda _risk: None,
    RiskForm.OUT_OF_TEN: lambda risk: f"{risk}/10",
    RiskForm.WORD: _word,
    RiskForm.VECTOR: _vector,
    RiskForm.OBJECT: lambda risk: {"score": risk},
    RiskForm.LIST: lambda risk: [risk],
    RiskForm.OUT_OF_RANGE: lambda risk: 100 + float(risk),
}
