"""All pages of a list are read where the API says how, within its own base and within bounds; else it is a part."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, quote, urlsplit

import pytest
from tests.integration.patrolserver.raw_server import KEY, SECRET, RawServer, reply

from patrolserver_exporter.patrolserver.errors import RateLimited, ServerFailure

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

    from tests.integration.patrolserver.conftest import Calls

CREDENTIALS = f"key={quote(KEY, safe='')}&secret={quote(SECRET, safe='')}"
PAGES = [[{"id": 1, "name": "a"}, {"id": 2, "name": "b"}], [{"id": 3, "name": "c"}], [{"id": 4, "name": "d"}]]


def pages_by(tell: Callable[[int, str], tuple[dict[str, Any], str]]) -> Callable[[socket.socket, bytes], None]:
    """A server of three pages; ``tell`` gives a page's members and headers from its number and the server's URL."""

    def answer(connection: socket.socket, request: bytes) -> None:
        target = request.split()[1].decode()
        asked = parse_qs(urlsplit(target).query)
        number = int(asked.get("page", asked.get("cursor", ["1"]))[0].removeprefix("c"))
        url = "http://" + request.split(b"Host: ")[1].split(b"\r\n")[0].decode()
        members, headers = tell(number, url)
        body = json.dumps({"data": PAGES[number - 1], **members}).encode()
        connection.sendall(reply(body, headers=headers))

    return answer


def following(number: int, form: str) -> str | None:
    return form.format(number + 1) if number < 3 else None


FORMS: dict[str, Callable[[int, str], tuple[dict[str, Any], str]]] = {
    "Link": lambda n, _: ({}, f'Link: </servers?page={n + 1}>; rel="next"\r\n' if n < 3 else ""),
    "absolute Link": lambda n, url: ({}, f"Link: <{url}/servers?page={n + 1}>; rel=next\r\n" if n < 3 else ""),
    "next_page_url": lambda n, _: ({"next_page_url": following(n, "/servers?page={}")}, ""),
    "links.next": lambda n, _: ({"links": {"next": following(n, "?page={}")}, "meta": {"total": 4}}, ""),
    "_links.next.href": lambda n, _: ({"_links": {"next": {"href": following(n, "servers?page={}")}}}, ""),
    "next with echoed credentials": lambda n, _: (
        {"next": following(n, f"/servers?{CREDENTIALS.replace('kanari', 'other')}&page={{}}")},
        "",
    ),
    "next_page": lambda n, _: ({"next_page": n + 1 if n < 3 else None}, ""),
    "last_page": lambda n, _: ({"current_page": n, "last_page": 3, "per_page": 2, "total": 4}, ""),
    "total_pages as text": lambda n, _: ({"meta": {"pagination": {"total_pages": "3", "current_page": str(n)}}}, ""),
    "X-Total-Pages": lambda *_: ({}, "X-Total-Pages: 3\r\nX-Total: 4\r\n"),
    "X-Next-Page": lambda n, _: ({}, f"X-Next-Page: {n + 1 if n < 3 else ''}\r\n"),
    "next_cursor": lambda n, _: ({"meta": {"next_cursor": following(n, "c{}"), "has_more": n < 3}}, ""),
    "truncated": lambda n, _: ({"is_truncated": n < 3, "next": following(n, "/servers?page={}")}, ""),
    "206": lambda n, _: ({"next": following(n, "/servers?page={}"), "total": 4}, "Content-Range: x 0-0/1\r\n"),
}


@pytest.mark.parametrize("form", FORMS)
def test_all_pages_are_read(serve: Callable[..., RawServer], calls: Calls, form: str) -> None:
    """Every known form of paging is followed to its end, each page with our credentials and observed as a call."""
    server = serve(pages_by(FORMS[form]))
    asked: list[int] = []
    client = calls.client(server.url, before_page=lambda: not asked.append(1))  # type: ignore[func-returns-value]
    parsed = client.servers()
    assert parsed.partial_because == ()
    assert [one.id for one in parsed.value] == [1, 2, 3, 4]
    targets = [request.split()[1].decode() for request in server.requests]
    assert targets[0] == f"/servers?{CREDENTIALS}"
    assert all(target.startswith(f"/servers?{CREDENTIALS}&") for target in targets[1:])
    assert all("other" not in target for target in targets)
    assert [call.endpoint for call in calls.observed] == ["servers"] * 3
    assert len(asked) == 2


def test_every_page_keeps_the_scope(serve: Callable[..., RawServer], calls: Calls) -> None:
    """A next page that forgets what was asked for would lose the exploits."""

    def answer(connection: socket.socket, request: bytes) -> None:
        first = b"page=2" not in request
        body: dict[str, Any] = {"data": [{"name": "PHP" if first else "nginx", "exploits": []}]}
        connection.sendall(reply(json.dumps(body | ({"next": "?page=2"} if first else {})).encode()))

    server = serve(answer)
    assert len(calls.client(f"{server.url}/extern/api/").software(7).value) == 2
    assert [request.split()[1].decode() for request in server.requests] == [
        f"/extern/api/servers/7/software?{CREDENTIALS}&scope=exploits",
        f"/extern/api/servers/7/software?{CREDENTIALS}&page=2&scope=exploits",
    ]


def test_no_page_is_asked_for_on_another_host(serve: Callable[..., RawServer], calls: Calls) -> None:
    """Another host sees nothing, and the list is a part."""
    canary = serve(reply(b'{"data": []}'))
    body = json.dumps({"data": PAGES[0], "next": f"{canary.url}/servers?page=2"}).encode()
    parsed = calls.client(serve(reply(body)).url).servers()
    assert (canary.requests, canary.connections) == ([], 0)
    assert len(parsed.value) == 2
    assert parsed.partial_because == (
        "servers: next leads away from the API's own base, so it is not followed",
        "servers: next is set",
    )


def test_a_caller_may_end_the_reading(serve: Callable[..., RawServer], calls: Calls) -> None:
    """Where no call is left in the budget, what came is a part, and says so."""
    server = serve(pages_by(FORMS["last_page"]))
    parsed = calls.client(server.url, before_page=lambda: False).servers()
    assert len(server.requests) == 1
    assert len(parsed.value) == 2
    assert parsed.partial_because[0] == "servers: there was no call left for page 2"


def failing_second_page(status: str, body: bytes = b"", headers: str = "") -> Callable[[socket.socket, bytes], None]:
    def answer(connection: socket.socket, request: bytes) -> None:
        if b"page=2" in request:
            connection.sendall(reply(body, status, headers))
        else:
            connection.sendall(reply(json.dumps({"data": PAGES[0], "last_page": 2}).encode()))

    return answer


@pytest.mark.parametrize(
    ("status", "body", "why"),
    [
        ("404 Not Found", b"", "page 2 could not be read: status 404"),
        ("400 Bad Request", b"", "page 2 could not be read: status 400"),
        ("200 OK", b"<html>", "page 2 could not be read: the reply is HTML"),
        ("200 OK", b'{"success": false, "data": []}', "page 2 could not be read: the API reports error: success says"),
        ("204 No Content", b"", "page 2 could not be read: status 204: status 204 holds no data"),
    ],
)
def test_a_page_that_means_nothing_leaves_a_part(
    serve: Callable[..., RawServer], calls: Calls, status: str, body: bytes, why: str
) -> None:
    """How this API pages was a guess that failed: what came is kept, and the page is named."""
    parsed = calls.client(serve(failing_second_page(status, body)).url).servers()
    assert len(parsed.value) == 2
    assert parsed.partial_because[0].startswith(f"servers: {why}")
    assert calls.observed[-1].reason is not None


def test_a_page_that_fails_fails_the_call(serve: Callable[..., RawServer], calls: Calls) -> None:
    """A failure of the API is one of the whole call, with the page in its message and the wait that it asks for."""
    server = serve(failing_second_page("429 Too Many Requests", headers="Retry-After: 90000\r\n"))
    with pytest.raises(RateLimited, match="account main: servers page 2: status 429") as raised:
        calls.client(server.url).servers()
    assert raised.value.retry_after == 90_000.0
    with pytest.raises(ServerFailure):
        calls.client(serve(failing_second_page("500 No")).url).servers()
