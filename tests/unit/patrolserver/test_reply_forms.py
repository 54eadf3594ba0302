"""The table of reply forms: what a software list, a server list, an event and exploits must say for each of them."""

from __future__ import annotations

import json
import unicodedata
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from patrolserver_exporter.patrolserver.envelope import Head
from patrolserver_exporter.patrolserver.errors import ApiError, PatrolServerError, Unreadable
from patrolserver_exporter.patrolserver.wire import parse_event, parse_is_scanning, parse_servers, parse_software

if TYPE_CHECKING:
    from collections.abc import Callable

    from patrolserver_exporter.patrolserver.models import Parsed


class Says(Enum):
    """What a form must be taken for."""

    WHOLE = "whole"
    PART = "part"
    FAILED = "failed"


@dataclass(frozen=True)
class Form:
    """Something that a reply of two entries says of itself, beside them."""

    members: dict[str, Any] = field(default_factory=dict)
    headers: dict[str, str] = field(default_factory=dict)
    status: int = 200

    def __str__(self) -> str:
        told = [json.dumps(self.members)] if self.members else []
        told += [f"{name}: {value}" for name, value in self.headers.items()]
        return " ".join(told + [str(self.status)] * (self.status != 200)) or "plain"


def members(*many: dict[str, Any]) -> list[Form]:
    return [Form(members=one) for one in many]


def headers(*many: dict[str, str]) -> list[Form]:
    return [Form(headers=one) for one in many]


SECOND_LIST = Form(members={"results": [{"id": 3}]})
# Replies of two entries.
WHOLE = [
    Form(),
    *members(
        {"total": 2},
        {"total": "2"},
        {"count": 2, "total_count": 2.0},
        {"total": 0},
        {"total": None},
        {"totalCount": ""},
        {"meta": {"total": 2}},
        {"meta": {"pagination": {"total": 2, "count": 2, "per_page": 100, "current_page": 1, "total_pages": 1}}},
        {"meta": {"pagination": {"total": 2, "per_page": 2, "current_page": 1, "total_pages": 1, "links": {}}}},
        {"current_page": 1, "last_page": 1, "from": 1, "to": 2, "per_page": 15, "prev_page_url": None, "path": "/x"},
        {"next_page_url": None},
        {"links": {"next": None, "prev": "", "first": "/servers?page=1", "last": "/servers?page=1"}},
        {"links": [{"url": None, "label": "Next &raquo;"}, {"url": "/servers?page=1", "label": "1", "active": True}]},
        {"_links": {"self": {"href": "/servers"}}},
        {"next": None},
        {"next": False},
        {"next": ""},
        {"next_cursor": None},
        {"cursor": None},
        {"paging": {"cursors": {"after": None}, "has_more": False}},
        {"has_more": False},
        {"hasMore": "false"},
        {"has_more": 0},
        {"truncated": False},
        {"truncated": "no"},
        {"is_truncated": 0},
        {"partial": None},
        {"incomplete_results": False},
        {"complete": True},
        {"success": True},
        {"success": 1},
        {"success": "true"},
        {"ok": "yes"},
        {"status": "ok"},
        {"status": "success"},
        {"status": 200},
        {"status": "200 OK"},
        {"code": 0},
        {"code": 200, "message": "OK"},
        {"error": None},
        {"error": False},
        {"error": ""},
        {"error": 0},
        {"error": "0"},
        {"error": {"code": 0, "message": ""}},
        {"errors": []},
        {"errors": {}},
        {"error_code": 0},
        {"error_count": "0"},
        {"has_errors": False},
        {"no_errors": True},
        {"warnings": []},
        {"warning": None},
        {"warnings": ["scope is deprecated, use include"]},
        {"message": "2 of 2 shown, no errors"},
        {"page": {"size": 20, "totalElements": 2, "totalPages": 1, "number": 0}},
        {"page": 1, "pages": 1},
        {"page": {"number": 1, "total": 1}},
        {"per_page": 100},
        {"limit": 100, "offset": 0},
        {"remaining": 0},
        {"rate_limit": {"limit": 100, "remaining": 57, "next": 12}},
        {"took_ms": 14},
        {"version": 14},
        {"generated_at": "2026-11-25T00:00:00Z"},
        {"next_scan_at": "2026-11-26T00:00:00Z"},
        {"user": {"id": 7, "status": "error", "total": 14}},
        {"outdated_count": 14},
        {"hint": "see more in the docs"},
        {"chunk": 1, "chunks": 1},
        {"part": 1, "parts": 1},
        {"page": "1 of 1"},
        {"range": {"from": 0, "to": 1, "total": 2}},
        {"server": {"status": "idle", "total": 14}},
        {"timeout": 30},
        {"ready": True, "scanned": 1, "reachable": "yes", "loading": False, "is_queued": None},
        {"progress": 100, "scan_complete": True, "last_scan": {"finished": True, "at": 14}},
        {"license": {"valid": True}, "subscription": {"active": 1, "seats": 14}},
        {"feeds": [{"name": "cve", "status": "ok"}], "not_scanned": []},
        {"showing": "1-2 of 2", "hosts": 2, "start": 1, "from": 0, "all": 2},
        {"start": 1_764_000_000, "day": "25/11/2026", "access": "full", "mode": "live"},
        {"total": 2, "limit": 2},
        {"numFound": 2, "limit": 2},
        {"per_page": 2, "next_page_url": None},
        {"limit": 2, "has_more": False},
        {"limit": 2, "remaining": 0},
        {"limit": 2, "pages": 1},
        {"limit": 2, "is_last_page": True},
        {"page": {"size": 2, "total": 1}},
        {"per_page": 2, "links": {"last": "/servers?page=1"}},
        {"scan_status": "done"},
        {"scan": {"status": "running", "errors": [], "partial": False}},
        {"scan_failed": False, "failed_scans": 0},
        {"last_failed_scan_at": "2026-01-01"},
        {"scans": [{"status": "failed"}, {"status": "ok"}]},
        {"missing_updates": 5},
        {"hosts": []},
        {"deleted_servers": [{"id": 9, "name": "z"}]},
        {"users": [{"id": 1, "name": "Ada"}]},
        {"account": {"server_limit": 50, "max_servers": 50, "servers_total": 2, "id": 14}},
        {"plan": {"server_count": 50}},
        {"stats": {"issues": 14, "events": 3}},
        {"percent_complete": 100, "coverage": "100%"},
        {"documentation": "/docs?page=2", "next_page": None, "count": 2},
    ),
    *headers(
        {"X-Api-Version": "3", "X-Api-Status": "ok", "X-Scan-Status": "done", "X-Last-Scan": "2026-11-25"},
        {"Link": '<https://api.example/docs>; rel="help", <https://api.example/servers>; rel=self'},
        {"X-Total-Count": "2"},
        {"X-Total-Pages": "1", "X-Next-Page": "", "X-Page": "1", "X-Per-Page": "100"},
        {"Content-Range": "items 0-1/2"},
        {"Content-Length": "14", "Server": "nginx", "Keep-Alive": "timeout=5, max=100", "Age": "14"},
        {"Age": "14, 3", "X-Cache": "HIT, MISS", "X-Cache-Status": "BYPASS", "CF-Cache-Status": "DYNAMIC"},
        {"X-RateLimit-Limit": "100", "X-RateLimit-Remaining": "57", "X-Cache-Hits": "14", "X-Cache": "MISS"},
        {"Date": "Mon, 24 Nov 2025 00:00:00 GMT", "Server-Timing": "total;dur=123", "X-Runtime": "0.14"},
        {"X-Pagination": '{"total": 2, "next": null}'},
        {"Cache-Status": "edge; hit; ttl=300", "Cache-Control": "max-age=0, stale-while-revalidate=600"},
        {"Surrogate-Control": "stale-if-error=600", "X-Served-Stale": "false", "X-Data-Status": "fresh"},
        {"X-Cache-Age": "14", "X-Freshness": "current", "X-Cache-Key": "list-of-14"},
        {"Status": "200 OK"},
    ),
]
PARTS = [
    *members(
        {"total": 14},
        {"total": "14"},
        {"total": 14.0},
        {"Total": 14},
        {"count": 14},
        {"total_count": 14},
        {"totalCount": "14"},
        {"totalcount": 14},
        {"recordsTotal": 14},
        {"num_results": 14},
        {"numFound": 14},
        {"hits": {"total": {"value": 14, "relation": "eq"}}},
        {"@odata.count": 14},
        {"total": "many"},
        {"items": 14},
        {"size": 14},
        {"meta": {"total": 14}},
        {"meta": {"page": {"total": 14}}},
        {"_meta": {"totalCount": 14}},
        {"meta": {"pagination": {"total_pages": 3}}},
        {"pagination": {"current_page": 1, "last_page": "3"}},
        {"paging": {"pageCount": 3}},
        {"page": 1, "pages": 3},
        {"pages": {"total": 3}},
        {"page": {"current": 1, "total": 3}},
        {"page": 2},
        {"current_page": "2", "last_page": 2},
        {"prev_page_url": "/servers?page=1"},
        {"offset": 2},
        {"per_page": 2},
        {"limit": "2"},
        {"next_page_url": "/servers?page=2"},
        {"nextPageUrl": "/servers?page=2"},
        {"nextpageurl": "/servers?page=2"},
        {"links": {"next": "/servers?page=2"}},
        {"_links": {"next": {"href": "/servers?page=2"}}},
        {"links": [{"rel": "next", "href": "/servers?page=2"}]},
        {"links": [{"url": "/servers?page=2", "label": "Next &raquo;", "active": False}]},
        {"links": {"last": "/servers?page=3"}},
        {"@odata.nextLink": "/servers?page=2"},
        {"next": 2},
        {"next": "abc"},
        {"next": True},
        {"next_cursor": "abc"},
        {"nextPageToken": "abc"},
        {"cursor": "abc"},
        {"paging": {"cursors": {"after": "abc"}}},
        {"continuation_token": "abc"},
        {"scroll_id": "abc"},
        {"has_more": True},
        {"hasMore": 1},
        {"has_more": "yes"},
        {"has_next": True},
        {"more": "true"},
        {"remaining": 12},
        {"truncated": True},
        {"truncated": "yes"},
        {"meta": {"truncated": 1}},
        {"is_truncated": "some"},
        {"partial": True},
        {"incomplete": 1},
        {"incomplete_results": True},
        {"complete": False},
        {"is_complete": "no"},
        {"last": False},
        {"limit_reached": True},
        {"timed_out": True},
        {"skipped": 3},
        {"missing": ["web-1"]},
        {"truncated_at": 100},
        {"over_limit": True},
        {"chunk": 1, "chunks": 3},
        {"part": "1", "parts": "3"},
        {"page": "1/3"},
        {"timeout": True},
        {"total": -1},
        {"status": "partial"},
        {"state": "pending"},
        {"status": 206},
        {"success": "partly"},
        {"code": 15},
        {"warnings": ["Only the first 2 results are shown"]},
        {"warning": "something is off"},
        {"message": "Result was truncated"},
        {"message": "2 of 14 shown"},
        {"meta": {"message": "Some servers could not be read"}},
        # As many as a page holds, and nothing else tells that there is no other one.
        {"meta": {"count": 2, "limit": 2}},
        {"pagination": {"count": 2, "per_page": 2, "current_page": 1}},
        {"returned": 2, "per_page": 2},
        {"results": 2, "limit": 2},
        {"total": 1, "limit": 2},
        {"total_cost": 1, "limit": 2},
        {"total_scanned": 2, "limit": 2},
        {"num_groups": 1, "limit": 2},
        {"limit": 2, "cursor": None},
        {"limit": 2, "prev_cursor": None},
        {"limit": 2, "start_cursor": None},
        {"limit": 2, "params": {"limit": 2, "next": None}},
        {"limit": 2, "filter": {"after": None}},
        {"limit": 2, "all_verified": True},
        {"limit": 2, "setup_complete": True},
        {"limit": 2, "last_seen": True},
        {"limit": 2, "next_steps": []},
        {"limit": 2, "pending": 0},
        {"count": 2, "cursor": "abc"},
        {"count": 2, "scroll_id": "abc"},
        {"cursor": "abc", "prev_cursor": None},
        # What brings the data about failed, so that it is from before.
        {"scan_failed": True},
        {"scan_error": "agent did not answer"},
        {"scan_errors": ["x"]},
        {"scan_incomplete": True},
        {"scan_success": False},
        {"scans_skipped": 2},
        {"scan": {"partial": True}},
        {"last_scan": {"status": "failed: time-out"}},
        {"last_scan_error": "x"},
        {"update": {"status": "error"}},
        {"update_failed": 1},
        {"check": {"ok": False}},
        {"scan_status": "unreachable"},
        {"scan": {"status": "timed_out"}},
        {"scan_complete": False},
        {"last_scan": {"finished": "no"}},
        *({name: False} for name in ("ready", "available", "authorized", "reachable", "scanned", "synced")),
        *({name: True} for name in ("loading", "processing", "is_queued", "initializing", "warming_up", "busy")),
        *({name: True} for name in ("terminated_early", "restricted", "filtered", "fallback", "preview")),
        {"access": "denied"},
        {"permissions": "partial"},
        {"progress": "50%"},
        {"progress": 0.5},
        {"license": {"valid": False}},
        {"subscription": {"active": 0}},
        {"feeds": [{"name": "cve", "status": "failed"}]},
        {"not_scanned": ["/srv"]},
        {"showing": "1-2 of 14"},
        {"window": "1-2/14"},
        {"summary": "2 of 14 servers"},
        {"showing": 2, "of": 14},
        *({name: 14} for name in ("hosts", "all", "others", "expected", "registered", "servers_monitored")),
        {"visible": 2, "invisible": 12},
        {"start": 2},
        {"stats": {"servers": 14}},
        *({name: value} for name in ("percent_complete", "coverage", "completeness") for value in (40, "40%")),
        *({name: "/servers?page=2"} for name in ("older", "suivant", "successor")),
        {"continue_at": 3},
        {"LastEvaluatedKey": {"id": 2, "name": "b"}},
    ),
    *headers(
        {"X-Count": "2", "X-Limit": "2"},
        {"X-Scan-Status": "failed"},
        {"X-Scan-Error": "boom"},
        {"Link": '<https://elsewhere.example/servers?page=2>; rel="next"'},
        {"link": "</servers?page=2>; rel=next"},
        {"Link": '<a>; rel=self, <b>; title="x"; rel="last next"'},
        {"Link": '</servers?page=3>; rel="last"'},
        {"X-Total": "14"},
        {"X-Total-Count": "14"},
        {"X-Server-Count": "14"},
        {"X-Server-Total": "14"},
        {"X-Content-Truncated": "true"},
        {"X-Total-Pages": "3"},
        {"X-WP-TotalPages": "3"},
        {"X-Next-Page": "2"},
        {"X-Has-More": "true"},
        {"X-Truncated": "1"},
        {"X-Continuation-Token": "abc"},
        {"X-Pagination": '{"total": 14}'},
        {"Content-Range": "items 0-1/14"},
        {"Content-Range": "items 0-1/*"},
        {"Warning": '199 - "result set was cut"'},
        {"Age": "61"},
        {"Age": "86400, 14"},
        {"Age": "86400.0"},
        {"X-Cache-Status": "STALE"},
        {"X-Cache": "Stale from edge"},
        {"CF-Cache-Status": "UPDATING"},
        *({name: "STALE"} for name in ("X-Nginx-Cache", "X-Vercel-Cache", "X-Freshness", "X-Data-Status")),
        {"Cache-Status": "edge; hit; ttl=-7200"},
        {"Cache-Status": "origin; fwd=miss, edge; hit; ttl=-1"},
        {"X-Served-Stale": "true"},
        {"X-Cache-Age": "86400"},
        {"age": "86400"},
    ),
    SECOND_LIST,
    Form(status=206),
    Form(status=206, headers={"Content-Range": "items 0-1/14"}),
    Form(status=203),
    Form(status=207),
]
FAILED = [
    *members(
        {"success": False},
        {"success": "false"},
        {"success": 0},
        {"Success": "no"},
        {"succeeded": False},
        {"ok": False},
        {"ok": 0},
        {"status": "error"},
        {"status": "ERROR"},
        {"status": "fail"},
        {"status": "failed"},
        {"status": False},
        {"status": 500},
        {"status": "503 Service Unavailable"},
        {"status": {"code": 404, "text": "Not Found"}},
        {"result": "failure"},
        {"state": "failed"},
        {"code": 404},
        {"type": "error"},
        {"error": "no such account"},
        {"error": True},
        {"error": 15},
        {"error": {"code": 15}},
        {"error": [{"message": "no"}]},
        {"errors": ["no"]},
        {"errors": {"field": ["no"]}},
        {"errors": 3},
        {"Error": "boom"},
        {"error_message": "boom"},
        {"errorCode": 15},
        {"error_count": 1},
        {"has_errors": True},
        {"isError": "yes"},
        {"failed": True},
        {"failures": ["web-1"]},
        {"exception": "RuntimeException"},
        {"meta": {"status": "error"}},
        {"meta": {"success": False}},
        {"meta": {"errors": [{"code": 1}]}},
        {"unsuccessful": True},
    ),
    *headers({"X-Error": "boom"}, {"X-Api-Error": "boom"}, {"X-Success": "false"}, {"X-Status": "failed"}),
    *headers({"X-Shard-Failures": "1"}),
]
TABLE = [
    (form, says) for says, forms in ((Says.WHOLE, WHOLE), (Says.PART, PARTS), (Says.FAILED, FAILED)) for form in forms
]


def rows(keep: Callable[[Form], object] = lambda _: True) -> list[Any]:
    """The table's rows, each with a name that tells it."""
    return [pytest.param(form, says, id=f"{says.value} {form}") for form, says in TABLE if keep(form)]


ENTRIES: dict[str, list[dict[str, Any]]] = {
    "servers": [{"id": 1, "name": "a"}, {"id": 2, "name": "b"}],
    "software": [{"name": "PHP", "exploits": []}, {"name": "nginx", "exploits": []}],
}
LISTS: dict[str, Callable[[bytes, Head], Parsed[Any]]] = {"servers": parse_servers, "software": parse_software}


def judged(parse: Callable[[bytes, Head], Parsed[Any]], document: Any, form: Form) -> Says:
    """What a parser takes a document for."""
    try:
        parsed = parse(json.dumps(document).encode(), Head(form.status, form.headers))
    except ApiError:
        return Says.FAILED
    assert parsed.complete is not bool(parsed.partial_because)
    assert len(parsed.partial_because) <= 11
    return Says.WHOLE if parsed.complete else Says.PART


@pytest.mark.parametrize("noun", LISTS)
@pytest.mark.parametrize(("form", "says"), rows())
def test_a_list_is_taken_for_what_it_says(noun: str, form: Form, says: Says) -> None:
    """Beside the list, beside a list within the envelope, or around the list by its own name: the same is meant."""
    entries = ENTRIES[noun]
    for document in (
        {"data": entries, **form.members},
        {**form.members, "data": {"0": entries[0], "2": entries[1]}},
        {"data": {"data": entries, **form.members}},
        {"data": {noun: entries, **form.members}},
        {"data": {noun: entries}, **form.members},
        {noun: entries, **form.members},
    ):
        assert judged(LISTS[noun], document, form) is says, document


@pytest.mark.parametrize("name", ["unsupported", "vulnerabilities", "x"])
@pytest.mark.parametrize("entry", [{"canonical_name": "php"}, {"risk": 9.8}, {"cve": "CVE-2026-0001"}])
def test_findings_beside_the_list_make_it_a_part(name: str, entry: dict[str, Any]) -> None:
    """Whatever they are called: who knows what else is not in the list."""
    document = {"data": [{"name": "php", "exploits": {"data": [], name: [entry]}}]}
    assert parse_software(json.dumps({"data": [], name: [entry]}).encode()).partial_because
    assert parse_software(json.dumps(document).encode()).partial_because
    assert parse_software(json.dumps({"data": [], "links": [{"rel": "self"}], "included": []}).encode()).complete


@pytest.mark.parametrize(("form", "says"), rows(lambda form: form is not SECOND_LIST))
def test_an_event_is_taken_for_what_it_says(form: Form, says: Says) -> None:
    """What an event's envelope counts are its issues."""
    event = {"server_id": 1, "new_issues": [{"title": "a"}, {"title": "b"}]}
    assert judged(parse_event, {"data": event, **form.members}, form) is says


@pytest.mark.parametrize(("form", "says"), rows(lambda form: form.members))
def test_wrapped_issues_are_taken_for_what_the_wrapper_says(form: Form, says: Says) -> None:
    """The wrapper of an event's issues is an envelope too."""
    wrapped = {"data": [{"title": "a"}, {"title": "b"}], **form.members}
    assert judged(parse_event, {"data": {"server_id": 1, "new_issues": wrapped}}, Form()) is says


@pytest.mark.parametrize(("form", "says"), rows(lambda form: form.members))
def test_wrapped_exploits_are_taken_for_what_the_wrapper_says(form: Form, says: Says) -> None:
    """The wrapper of exploits is an envelope too: what it says makes them unknown, or the list partial."""
    for name in ("data", "exploits"):
        wrapped = {name: [{"id": 1, "risk": 9.8}, {"id": 2, "risk": 3}], **form.members}
        parsed = parse_software(json.dumps({"data": [{"name": "PHP", "exploits": wrapped}]}).encode())
        (software,) = parsed.value
        assert parsed.complete is (says is Says.WHOLE)
        read = None if says is Says.FAILED else [9.8, 3.0]
        assert (None if software.exploits is None else [exploit.risk for exploit in software.exploits]) == read


@pytest.mark.parametrize(
    "entry",
    [
        {"next": "/x", "has_more": True, "truncated": True, "partial": True, "total": 14, "status": "outdated"},
        {"scan": True, "last_scan": "2026-11-25", "state": "unsupported", "check": False, "update": {"version": "2"}},
        {"next": "/x", "status": "error"},
        {"scan_status": "failed"},
        {"last_scan": {"status": "failed"}},
        {"success": False, "error": "no", "errors": ["no"], "message": "failed", "meta": {"total": 14}},
    ],
)
def test_what_an_entry_says_is_data(entry: dict[str, Any]) -> None:
    """Only the envelope is read for signs: an entry speaks of itself, and what failed is not known of a software."""
    assert parse_servers(json.dumps({"data": [{"id": 1, "name": "a", **entry}]}).encode()).complete
    assert parse_servers(json.dumps([{"id": 1, "name": "a", **entry}]).encode()).complete
    software = parse_software(json.dumps({"data": {"4": {"name": "PHP", **entry}}}).encode())
    assert software.complete is (not {"error", "failed"} & set(json.dumps(entry).split('"')))


@pytest.mark.parametrize("status", [202, 204, 205])
@pytest.mark.parametrize("body", [b"", b'{"data": []}', b"[]"])
def test_a_status_without_data_is_no_empty_list(status: int, body: bytes) -> None:
    """Nothing was looked at, so nobody knows."""
    for parse in (parse_servers, parse_software, parse_event, parse_is_scanning):
        with pytest.raises(Unreadable):
            parse(body, Head(status))


@pytest.mark.parametrize(
    ("form", "named"),
    [
        (Form({"total": 14}), "servers: total says 14, 2 came"),
        (Form({"meta": {"pagination": {"total_pages": 3}}}), "servers: meta.pagination.total_pages says 3, 1 read"),
        (Form({"truncated": True}), "servers: truncated says true"),
        (Form({}, {"Link": "<https://x.example/>; rel=next"}), "servers: Link rel=next"),
        (Form({}, {}, 206), "servers: status 206"),
        (Form({"has_more": 1}), "servers: has_more says 1"),
        (Form({"status": "in\nparts"}), "servers: status says in parts"),
    ],
)
def test_the_reason_names_the_member(form: Form, named: str) -> None:
    """Who reads it in the log or in a verdict finds it in the reply."""
    body = json.dumps({"data": ENTRIES["servers"], **form.members}).encode()
    parsed = parse_servers(body, Head(form.status, form.headers))
    assert parsed.partial_because == (named,)
    assert named in parsed.oddities


def test_the_failure_names_the_member_and_says_what_the_api_said() -> None:
    """Who reads the error knows why a reply with status 200 was one."""
    with pytest.raises(ApiError) as raised:
        parse_servers(b'{"success": false, "code": 404, "message": "Gone fishing", "data": []}')
    assert (raised.value.code, raised.value.message) == ("404", "Gone fishing; success says false; code says 404")


def test_an_entry_that_cannot_be_read_is_a_reason() -> None:
    """Something was there that is not in the value."""
    parsed = parse_servers(b'[{"id": 1, "name": "a"}, 7]')
    assert parsed.partial_because == ("servers [1]: is not an object",)


def test_reasons_have_an_end() -> None:
    """A list of nothing but unreadable entries does not fill a page with reasons."""
    parsed = parse_software(json.dumps([None] * 1_000).encode())
    assert len(parsed.partial_because) == 11
    assert parsed.partial_because[-1] == "and 990 more"


NAMES = st.text(st.characters(min_codepoint=97, max_codepoint=122), min_size=1, max_size=8)
NESTS = st.sampled_from([(), ("meta",), ("meta", "pagination"), ("paging",), ("result_info",), ("_metadata",)])


def nested(path: tuple[str, ...], inner: dict[str, Any]) -> dict[str, Any]:
    for name in reversed(path):
        inner = {name: inner}
    return inner


@given(
    key=st.sampled_from(["total", "totalCount", "count", "total_items", "recordsTotal", "number_of_results"]),
    path=NESTS,
    told=st.integers(0, 10_000),
    came=st.integers(0, 30),
    as_text=st.booleans(),
)
def test_a_total_makes_a_part_exactly_when_it_is_larger(
    key: str,
    path: tuple[str, ...],
    told: int,
    came: int,
    as_text: bool,  # noqa: FBT001
) -> None:
    """However a total is called and wherever it stands, equal and smaller ones say nothing."""
    entries = [{"id": number + 1, "name": "a"} for number in range(came)]
    document = {"data": entries, **nested(path, {key: str(told) if as_text else told})}
    assert parse_servers(json.dumps(document).encode()).complete is (told <= came)


@given(
    words=st.sampled_from([("has", "more"), ("is", "truncated"), ("is", "partial"), ("has", "next", "page")]),
    style=st.sampled_from(["snake", "camel", "kebab", "joined", "upper"]),
    path=NESTS,
    value=st.sampled_from([True, 1, "true", "yes", False, 0, "false", "no", None, ""]),
)
def test_a_flag_means_the_same_in_every_spelling(
    words: tuple[str, ...], style: str, path: tuple[str, ...], value: Any
) -> None:
    """``has_more``, ``hasMore``, ``has-more``, ``hasmore`` and ``HAS_MORE`` are one."""
    key = {
        "snake": "_".join(words),
        "camel": words[0] + "".join(word.title() for word in words[1:]),
        "kebab": "-".join(words),
        "joined": "".join(words),
        "upper": "_".join(words).upper(),
    }[style]
    document = {"data": ENTRIES["servers"], **nested(path, {key: value})}
    assert parse_servers(json.dumps(document).encode()).complete is (value in (False, 0, "false", "no", None, ""))


ANY_JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=20)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=12), inner, max_size=4)),
    max_leaves=12,
)


@given(
    extra=st.dictionaries(
        st.one_of(st.text(max_size=16), st.sampled_from(["meta", "links", "next", "total"])), ANY_JSON
    ),
    head=st.builds(
        Head, st.sampled_from([200, 203, 206]), st.dictionaries(st.sampled_from(["Link", "X-Total"]), st.text())
    ),
    parse=st.sampled_from([parse_servers, parse_software, parse_event]),
)
def test_any_envelope_is_read_or_refused(
    extra: dict[str, Any], head: Head, parse: Callable[[bytes, Head], Parsed[Any]]
) -> None:
    """Whatever stands beside the data, the outcome is a value with reasons or an error of this package."""
    try:
        parsed = parse(json.dumps({**extra, "data": []}).encode(), head)
    except PatrolServerError as error:
        assert isinstance(error, ApiError | Unreadable)  # noqa: PT017 - either outcome is fine
        return
    for reason in parsed.partial_because:
        assert len(reason) < 400
        assert not {"Cc", "Cs", "Zl", "Zp"} & set(map(unicodedata.category, reason))


@given(entries=st.lists(st.dictionaries(st.text(max_size=12), ANY_JSON, max_size=4), max_size=6))
def test_whatever_entries_hold_the_envelope_is_whole(entries: list[dict[str, Any]]) -> None:
    """Entries are data: no member of theirs makes the list a part or a failure."""
    servers = [{**entry, "id": number, "name": "a"} for number, entry in enumerate(entries, 1)]
    assert parse_servers(json.dumps({"data": servers}).encode()).complete


@pytest.mark.parametrize(
    "beside",
    [
        {"hosts": [{"id": 3, "name": "c"}]},
        {"machines": [{"id": 3}]},
        {"domains": ["c.example.org"]},
        {"offline": [{"id": 3, "name": "c"}]},
        {"disabled": [{"id": 3, "domain": "c"}]},
        {"groups": [{"servers": [{"id": 3}]}]},
    ],
)
def test_servers_by_another_name_are_a_list_too(beside: dict[str, Any]) -> None:
    """Which of the two is the account's, nobody knows."""
    parsed = parse_servers(json.dumps({"data": ENTRIES["servers"], **beside}).encode())
    assert parsed.partial_because == (f"servers: {next(iter(beside))} is a list too",)


NOT_SCANNING: list[dict[str, Any]] = [
    {"data": False, "stale": True},
    {"data": False, "partial": True},
    {"data": False, "scan_failed": True},
    {"data": False, "last_scan": {"status": "failed"}},
    {"data": False, "isScanning": True},
    {"data": {"isScanning": False, "status": "failed"}},
    {"data": {"isScanning": False, "stale": True}},
    {"data": {"isScanning": False, "scanning": True}},
]


@pytest.mark.parametrize("document", NOT_SCANNING, ids=json.dumps)
def test_a_no_that_contradicts_itself_is_no_end_of_a_scan(document: dict[str, Any]) -> None:
    """It would make the last scan new, and the gate pass by it."""
    with pytest.raises(Unreadable):
        parse_is_scanning(json.dumps(document).encode())


def test_an_old_no_is_no_end_of_a_scan() -> None:
    """A cache may have kept it since before the scan began."""
    assert parse_is_scanning(b'{"data": false}', Head(200, {"Age": "3"})) is False
    with pytest.raises(Unreadable, match="Age says 3600"):
        parse_is_scanning(b'{"data": false}', Head(200, {"Age": "3600"}))


@pytest.mark.parametrize(
    "inner", [{"status": "idle"}, {"id": 5, "name": "web", "status": "active"}, {"last_scan_at": "2026-11-25"}]
)
def test_a_no_may_have_more_to_say(inner: dict[str, Any]) -> None:
    """As long as that does not speak against it."""
    assert parse_is_scanning(json.dumps({"data": {"isScanning": False, **inner}}).encode()) is False


@pytest.mark.parametrize(
    ("account", "whole"),
    [
        ({"server_count": 14}, False),
        ({"servers": {"total": "14"}}, False),
        ({"server_count": 2, "server_limit": 14}, True),
        ({"servers": 14}, True),
        ({"max_server_count": 14}, True),
    ],
    ids=str,
)
def test_an_account_with_more_servers_than_are_listed_was_not_listed_whole(
    account: dict[str, Any],
    whole: bool,  # noqa: FBT001 - as in the table
) -> None:
    """How many it may have is another number, and so may be one that nobody calls a count."""
    body = json.dumps({"data": ENTRIES["servers"], "account": account}).encode()
    assert parse_servers(body, Head(200, {})).complete is whole
    assert parse_software(
        json.dumps({"data": ENTRIES["software"], "account": account}).encode(), Head(200, {})
    ).complete
