from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from patrolserver_exporter.simulator.replies import (
    Endpoint,
    ExploitsForm,
    PartForm,
    Replies,
    ReplyRule,
    Request,
    RiskForm,
    altered_reply,
)
from patrolserver_exporter.simulator.wire import Style

if TYPE_CHECKING:
    from patrolserver_exporter.simulator.exchange import Answer

URL = "http://127.0.0.1:10059/servers"
FIVE = [{"id": number} for number in range(1, 6)]
PHP = {"canonical_name": "php", "exploits": [{"cve": "CVE-2099-0001", "risk": 9.8}, {"risk": 3}]}
NGINX = {"canonical_name": "nginx", "exploits": []}


def asked(endpoint: Endpoint = Endpoint.SERVERS, server: int = 1, query: dict[str, str] | None = None) -> Request:
    """A call of that endpoint."""
    label = {
        Endpoint.SERVERS: "GET servers",
        Endpoint.SERVER: "GET servers/:server",
        Endpoint.SOFTWARE: "GET servers/:server/software",
        Endpoint.IS_SCANNING: "GET servers/:server/isScanning",
        Endpoint.EVENT: "GET webhooks/:webhook/events/:event",
    }[endpoint]
    path = {"server": str(server)} if ":server" in label else {}
    return Request(label, path, query or {}, URL if endpoint is Endpoint.SERVERS else f"{URL}/{server}/{endpoint}")


def altered(
    data: object, /, *, style: Style = Style.PLAIN, query: dict[str, str] | None = None, **fields: Any
) -> Answer:
    """The reply that a rule with those fields makes of ``data``."""
    rule = ReplyRule(**{"endpoint": Endpoint.SERVERS, **fields})
    bare = style is Style.BARE and rule.endpoint is Endpoint.EVENT
    body = json.dumps(data if bare else {"data": data}).encode()
    return altered_reply(rule, asked(rule.endpoint, query=query), body, style)


def document(answer: Answer) -> Any:
    """Its JSON."""
    return json.loads(answer.body)


@pytest.mark.parametrize(("share", "left"), [(0, 0), (0.2, 1), (0.5, 2), (1, 5)])
def test_a_list_collapses(share: float, left: int) -> None:
    """So much of it is left, and nothing in the reply says that there was more."""
    assert document(altered(FIVE, share=share)) == {"data": FIVE[:left]}


@pytest.mark.parametrize(
    ("form", "first", "last"),
    [
        (PartForm.TOTAL, {"total": 5}, {"total": 5}),
        (PartForm.META_TOTAL, {"meta": {"total": 5}}, {"meta": {"total": 5}}),
        (
            PartForm.TOTAL_PAGES,
            {"meta": {"pagination": {"total": 5, "per_page": 2, "current_page": 1, "total_pages": 3}}},
            {"meta": {"pagination": {"total": 5, "per_page": 2, "current_page": 3, "total_pages": 3}}},
        ),
        (PartForm.TRUNCATED, {"truncated": True}, {"truncated": False}),
        (PartForm.NEXT_PAGE_URL, {"next_page_url": f"{URL}?page=2"}, {"next_page_url": None}),
        (PartForm.SUCCESS_FALSE, {"success": False}, {"success": False}),
        (PartForm.STATUS_ERROR, {"status": "error"}, {"status": "error"}),
        (
            PartForm.ERRORS,
            {"errors": ["Not all data could be read."]},
            {"errors": ["Not all data could be read."]},
        ),
    ],
)
def test_a_page_says_in_the_envelope_that_it_is_a_part(
    form: PartForm, first: dict[str, Any], last: dict[str, Any]
) -> None:
    """Each form on the first page and on the last; together the pages are the whole list."""
    pages = [document(altered(FIVE, form=form, per_page=2, query={"page": str(page)})) for page in (1, 2, 3)]
    assert [entry for page in pages for entry in page.pop("data")] == FIVE
    assert (pages[0], pages[2]) == (first, last)


def test_a_page_says_in_a_header_that_there_is_a_next() -> None:
    """``Link`` with ``rel="next"``, but for the last page."""
    links = [altered(FIVE, form=PartForm.NEXT_LINK, query={"page": page}).headers for page in ("1", "2")]
    assert links == [((b"link", f'<{URL}?page=2>; rel="next"'.encode()),), ()]


def test_a_page_says_by_its_status_that_it_is_a_part() -> None:
    """206 with the places of its entries."""
    first, last = (altered(FIVE, form=PartForm.CONTENT_RANGE, query={"page": page}) for page in ("1", "2"))
    assert (first.status, first.headers) == (206, ((b"content-range", b"items 0-2/5"),))
    assert (last.status, last.headers) == (206, ((b"content-range", b"items 3-4/5"),))


def test_a_link_keeps_the_scope_and_no_secret() -> None:
    """A client that follows it gets the same kind of data, and has to send key and secret as always."""
    query = {"key": "canary", "secret": "canary", "scope": "exploits"}
    told = document(altered(FIVE, form=PartForm.NEXT_PAGE_URL, query=query))
    assert told["next_page_url"] == f"{URL}?page=2&scope=exploits"


def test_a_link_may_lead_to_another_host() -> None:
    """A client that follows it would send its key and secret there."""
    told = document(altered(FIVE, form=PartForm.NEXT_PAGE_URL, next_base="http://127.0.0.1:9/"))
    assert told["next_page_url"] == "http://127.0.0.1:9/servers?page=2"


def test_a_page_that_holds_all_says_that_it_is_whole() -> None:
    """The harmless side of the same forms: equal counts and no next page."""
    assert document(altered(FIVE, form=PartForm.TOTAL, per_page=5)) == {"data": FIVE, "total": 5}
    assert document(altered(FIVE, form=PartForm.NEXT_PAGE_URL, per_page=9))["next_page_url"] is None


def test_later_pages_can_fail() -> None:
    """The first is there, the second is an error."""
    first, second = (
        altered(FIVE, form=PartForm.NEXT_LINK, fail_from_page=2, query={"page": page}) for page in ("1", "2")
    )
    assert (first.status, second.status) == (200, 500)
    assert document(second)["error"]["code"] == 500


def test_pages_can_have_no_end() -> None:
    """Behind the last page it comes again, and there is always a next one."""
    told = document(altered(FIVE, form=PartForm.TOTAL_PAGES, endless=True, query={"page": "70"}))
    assert told["data"] == FIVE[3:]
    assert told["meta"]["pagination"]["total_pages"] == 71


def test_the_issues_of_an_event_are_cut() -> None:
    """What an event has a list of is ``new_issues``."""
    event = {"server_id": 1, "new_issues": [{"title": "a"}, {"title": "b"}]}
    told = document(altered(event, endpoint=Endpoint.EVENT, form=PartForm.TOTAL))
    assert told == {"data": {"server_id": 1, "new_issues": [{"title": "a"}]}, "total": 2}
    assert document(altered(event, endpoint=Endpoint.EVENT, share=0))["data"]["new_issues"] == []


def test_what_cannot_be_cut_only_claims_to_be_a_part() -> None:
    """A running scan is ``true`` on page 1 of 2."""
    running: object = True
    told = document(altered(running, endpoint=Endpoint.IS_SCANNING, form=PartForm.TOTAL))
    assert told == {"data": True, "total": 2}
    assert document(altered(running, endpoint=Endpoint.IS_SCANNING, share=0)) == {"data": True}


def test_a_bare_event_has_the_members_at_its_top() -> None:
    """There is no envelope that could hold them."""
    told = altered({"server_id": 1}, style=Style.BARE, endpoint=Endpoint.EVENT, members={"success": False})
    assert document(told) == {"server_id": 1, "success": False}
    assert document(altered([1], style=Style.BARE, endpoint=Endpoint.EVENT, members={"success": False})) == [1]


def test_the_strings_style_has_counts_as_strings() -> None:
    """As all its numbers."""
    assert document(altered(FIVE, style=Style.STRINGS, form=PartForm.TOTAL))["total"] == "5"


@pytest.mark.parametrize(
    ("form", "written"),
    [
        (RiskForm.NULL, {"risk": None}),
        (RiskForm.MISSING, {}),
        (RiskForm.OUT_OF_TEN, {"risk": "9.8/10"}),
        (RiskForm.WORD, {"risk": "critical"}),
        (RiskForm.VECTOR, {"risk": "CVSS:3.1/AV:N/AC:L/PR:N/UI:N/S:U/C:H/I:H/A:H"}),
        (RiskForm.OBJECT, {"risk": {"score": 9.8}}),
        (RiskForm.LIST, {"risk": [9.8]}),
        (RiskForm.OUT_OF_RANGE, {"risk": 109.8}),
    ],
)
def test_a_risk_in_an_odd_form(form: RiskForm, written: dict[str, Any]) -> None:
    """Every exploit that has a plain risk gets it in that form."""
    software = [PHP, {"canonical_name": "odd", "exploits": ["CVE-2099-0002", {"risk": "odd"}, {}]}]
    told = document(altered(software, endpoint=Endpoint.SOFTWARE, risk=form))["data"]
    assert told[0]["exploits"][0] == {"cve": "CVE-2099-0001", **written}
    assert told[1] == software[1]


@pytest.mark.parametrize(("risk", "word"), [(10, "critical"), (7, "high"), (4.0, "medium"), ("3.9", "low")])
def test_a_risk_in_words(risk: str | float, word: str) -> None:
    """As CVSS rates a score."""
    software = [{"exploits": [{"risk": risk}]}]
    assert document(altered(software, endpoint=Endpoint.SOFTWARE, risk=RiskForm.WORD))["data"] == [
        {"exploits": [{"risk": word}]}
    ]


@pytest.mark.parametrize(
    ("form", "written"),
    [
        (ExploitsForm.MISSING, {}),
        (ExploitsForm.NULL, {"exploits": None}),
        (ExploitsForm.EMPTY, {"exploits": []}),
        (ExploitsForm.WRAPPED, {"exploits": {"data": PHP["exploits"]}}),
        (ExploitsForm.KEYED, {"exploits": {"CVE-2099-0001": {"cve": "CVE-2099-0001", "risk": 9.8}, "1": {"risk": 3}}}),
    ],
)
def test_exploits_in_an_odd_form(form: ExploitsForm, written: dict[str, Any]) -> None:
    """On the software that the glob picks, and on no other."""
    told = document(altered([PHP, NGINX], endpoint=Endpoint.SOFTWARE, exploits=form, software="p*"))
    assert told["data"] == [{"canonical_name": "php", **written}, NGINX]
    assert document(altered(["no object"], endpoint=Endpoint.SOFTWARE, exploits=form)) == {"data": ["no object"]}


def test_a_reply_of_ones_own() -> None:
    """Members, status, headers; other data; or a body that is not JSON at all."""
    told = altered(FIVE, members={"total": 14, "links": {}}, status=203, headers={"Retry-After": 7, "X-Part": "1"})
    assert document(told) == {"data": FIVE, "total": 14, "links": {}}
    assert (told.status, told.headers) == (203, ((b"retry-after", b"7"), (b"x-part", b"1")))
    assert document(altered(FIVE, data={"odd": None})) == {"data": {"odd": None}}
    raw = altered(FIVE, body="<p>caf\u00e9", headers={"Content-Type": "text/html"})
    assert (raw.body, raw.content_type, raw.headers) == ("<p>caf\u00e9".encode(), "text/html", ())


def applies(replies: Replies, request: Request, body: object = None) -> bool:
    """Whether any rule is for this reply."""
    return replies.rule_for(request, json.dumps({"data": body}).encode()) is not None


def test_a_rule_is_for_one_endpoint_and_one_server() -> None:
    """An event is the server's that its data names."""
    replies = Replies()
    replies.add(ReplyRule(endpoint=Endpoint.SOFTWARE, server=2))
    replies.add(ReplyRule(endpoint=Endpoint.EVENT, server=2))
    assert applies(replies, asked(Endpoint.SOFTWARE, 2))
    assert not applies(replies, asked(Endpoint.SOFTWARE, 1))
    assert not applies(replies, asked(Endpoint.SERVERS))
    assert applies(replies, asked(Endpoint.EVENT), {"server_id": 2})
    assert not applies(replies, asked(Endpoint.EVENT), {"server_id": 1})
    assert not applies(replies, asked(Endpoint.EVENT), "a text")
    assert not applies(replies, Request("GET user", {}, {}, URL))


def test_rules_follow_each_other() -> None:
    """The oldest applies until its count is reached, then the next: a list can shrink step by step."""
    replies = Replies()
    for share in (0.5, 0.2):
        replies.add(ReplyRule(endpoint=Endpoint.SERVERS, share=share, count=1))
    found = [replies.rule_for(asked(), b"{}") for _ in range(3)]
    assert [rule and rule.share for rule in found] == [0.5, 0.2, None]
    assert [rule["hits"] for rule in replies.documents()] == [1, 1]


def test_later_pages_belong_to_the_rule_of_the_first() -> None:
    """They are neither counted nor left to the next rule; a reply without a rule has one page."""
    replies = Replies()
    replies.add(ReplyRule(endpoint=Endpoint.SERVERS, form=PartForm.TOTAL, count=1))
    assert not applies(replies, asked(query={"page": "2"}))
    assert applies(replies, asked())
    assert applies(replies, asked(query={"page": "2"}))
    assert [rule["hits"] for rule in replies.documents()] == [1]
    assert not applies(replies, asked())
    assert not applies(replies, asked(query={"page": "2"}))


@pytest.mark.parametrize(
    "wrong",
    [
        {"endpoint": "servers", "server": 1},
        {"endpoint": "servers", "risk": "null"},
        {"endpoint": "event", "exploits": "null"},
        {"endpoint": "servers", "headers": {"X": "a\r\nb"}},
        {"endpoint": "servers", "headers": {"Content-Length": 1}},
        {"endpoint": "servers", "next_base": "http://a\n"},
        {"endpoint": "servers", "share": 1.5},
    ],
)
def test_a_rule_that_means_nothing_is_refused(wrong: dict[str, Any]) -> None:
    """A test that orders nonsense must hear of it."""
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert(wrong, ReplyRule)
