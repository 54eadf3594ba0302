from __future__ import annotations

import gzip
import json
import logging
import socket
import ssl
import threading
import time
import traceback
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, quote_plus

import pytest
import trustme
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.integration.patrolserver.raw_server import KEY, SECRET, RawServer, reply

from patrolserver_exporter import __version__
from patrolserver_exporter.patrolserver.errors import (
    ApiError,
    ConnectionFailed,
    FailureReason,
    NameNotResolved,
    NotFound,
    PatrolServerError,
    RateLimited,
    RedirectRefused,
    Refused,
    ServerFailure,
    TimedOut,
    TlsFailed,
    TooLarge,
    UnexpectedStatus,
    Unreadable,
)
from patrolserver_exporter.patrolserver.models import MAX_ID, Server
from patrolserver_exporter.patrolserver.transport import IDLE_LIMIT

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.integration.patrolserver.conftest import Calls

    from patrolserver_exporter.patrolserver.client import PatrolServerClient

SERVERS = b'{"data":[{"id":1,"name":"a.example","verified":true}]}'


@dataclass(frozen=True)
class SetClock:
    """A clock that stands still."""

    at: float

    def now(self) -> float:
        """Seconds since the epoch."""
        return self.at

    def monotonic(self) -> float:
        """The same."""
        return self.at


SPELLINGS = {spell for text in (KEY, SECRET) for spell in (text, quote(text), quote(text, safe=""), quote_plus(text))}


def everything_told(error: BaseException) -> str:
    """All that a log, a debugger or an error tracker could show of an error."""
    told = [str(error), repr(error), repr(error.args), repr(vars(error))]
    told += traceback.format_exception(error)
    told += traceback.TracebackException.from_exception(error, capture_locals=True).format()
    chained = error.__cause__ or error.__context__
    return "\n".join(told) + (everything_told(chained) if chained else "")


def assert_free_of_credentials(text: str) -> None:
    for spelling in SPELLINGS:
        assert spelling.lower() not in text.lower()


def fail(call: Callable[[], object], kind: type[PatrolServerError]) -> PatrolServerError:
    with pytest.raises(kind) as raised:
        call()
    assert type(raised.value) is kind
    assert_free_of_credentials(everything_told(raised.value))
    assert "account main" in str(raised.value)
    return raised.value


def test_each_call_asks_for_its_path_with_the_credentials(serve: Callable[..., RawServer], calls: Calls) -> None:
    """Paths, scope, encoded credentials and headers are what the API wants, below the base's own path."""
    bodies = iter([SERVERS, b'{"data":{"id":"12","name":"b"}}', b'{"data":[]}', b'{"data":true}', b'{"server_id":12}'])
    server = serve(lambda connection, _: connection.sendall(reply(next(bodies))))
    client = calls.client(f"{server.url}/extern/api/")
    assert client.servers().value == (Server(id=1, name="a.example", verified=True),)
    assert client.server(12).value == Server(id=12, name="b")
    assert client.software(12).value == ()
    assert client.is_scanning(12) is True
    assert client.event(3, MAX_ID).value.server_id == 12
    credentials = f"key={quote(KEY, safe='')}&secret={quote(SECRET, safe='')}"
    assert [request.split(b"\r\n")[0].decode() for request in server.requests] == [
        f"GET /extern/api/servers?{credentials} HTTP/1.1",
        f"GET /extern/api/servers/12?{credentials} HTTP/1.1",
        f"GET /extern/api/servers/12/software?{credentials}&scope=exploits HTTP/1.1",
        f"GET /extern/api/servers/12/isScanning?{credentials} HTTP/1.1",
        f"GET /extern/api/webhooks/3/events/{MAX_ID}?{credentials} HTTP/1.1",
    ]
    head = server.requests[0].decode().lower()
    assert f"user-agent: patrolserver-exporter/{__version__}\r\n" in head
    assert "accept-encoding: gzip\r\n" in head
    assert server.connections == 1
    assert [(call.account, call.endpoint, call.reason) for call in calls.observed] == [
        ("main", endpoint, None) for endpoint in ("servers", "server", "software", "is_scanning", "event")
    ]


def test_a_connection_that_was_idle_is_not_used_again(serve: Callable[..., RawServer], calls: Calls) -> None:
    """A server may be about to close it: a call that met the end would fail, and with it the account's ``up``."""
    server = serve(reply(SERVERS))
    client = calls.client(server.url)
    client.servers()
    client.servers()
    assert server.connections == 1
    time.sleep(IDLE_LIMIT)
    client.servers()
    assert server.connections == 2


@pytest.mark.parametrize(
    ("status", "kind", "reason"),
    [
        ("401 Unauthorized", Refused, FailureReason.CREDENTIALS),
        ("403 Forbidden", Refused, FailureReason.CREDENTIALS),
        ("404 Not Found", NotFound, FailureReason.NOT_FOUND),
        ("410 Gone", NotFound, FailureReason.NOT_FOUND),
        ("429 Too Many Requests", RateLimited, FailureReason.RATE_LIMITED),
        ("500 Internal Server Error", ServerFailure, FailureReason.SERVER_ERROR),
        ("503 Service Unavailable", ServerFailure, FailureReason.SERVER_ERROR),
        ("304 Not Modified", RedirectRefused, FailureReason.REDIRECT),
        ("418 I'm a teapot", UnexpectedStatus, FailureReason.OTHER_STATUS),
    ],
)
@pytest.mark.parametrize("body", [b"", b"<html>no</html>", b'{"data": []}'])
def test_a_status_that_says_no_is_a_failure(  # noqa: PLR0917 - pytest passes them by name
    serve: Callable[..., RawServer],
    calls: Calls,
    status: str,
    kind: type[PatrolServerError],
    reason: FailureReason,
    body: bytes,
) -> None:
    """The status decides, whatever the body; the message names account, call, status and what to do."""
    client = calls.client(serve(reply(body if "304" not in status else b"", status)).url)
    error = fail(client.servers, kind)
    assert (error.reason, error.status) == (reason, int(status[:3]))
    assert f"account main: servers: status {status[:3]}" in str(error)
    assert str(error).endswith(error.advice)
    assert calls.observed[-1].reason is reason


@pytest.mark.parametrize("status", ["200 OK", "400 Bad Request", "422 Unprocessable Entity"])
def test_an_error_in_the_reply_is_a_failure_whatever_its_status(
    serve: Callable[..., RawServer], calls: Calls, status: str
) -> None:
    """The API's own code and words come through, without credentials that it echoes."""
    echoed = {"error": {"code": 15, "message": f"no account for {KEY} {SECRET} {quote(KEY, safe='')}"}}
    error = fail(calls.client(serve(reply(json.dumps(echoed).encode(), status)).url).servers, ApiError)
    assert isinstance(error, ApiError)
    assert (error.code, error.message) == ("15", "no account for *** *** ***")


@pytest.mark.parametrize("status", ["200 OK", "400 Bad Request", "422 Unprocessable Entity"])
@pytest.mark.parametrize(
    ("error", "kind"),
    [
        ({"code": 404, "message": "No such event"}, NotFound),
        ({"code": "not_found", "message": ""}, NotFound),
        ({"code": 12, "message": "Bucket does not exist"}, NotFound),
        ("Event does not exist", NotFound),
        ("Not found", NotFound),
        ("not_found", NotFound),
        ({"code": "401", "message": "Invalid key"}, Refused),
        ("Unauthorized", Refused),
        ("forbidden", Refused),
        (429, RateLimited),
        ({"code": 503, "message": "Maintenance"}, ServerFailure),
        ({"code": 422, "message": "invalid"}, ApiError),
        ({"code": 15, "message": "An account was already created for this host"}, ApiError),
        ({"code": 83, "message": "The host does not resolve."}, ApiError),
        ("too_many_failed_attempts", ApiError),
        ("Something went wrong", ApiError),
    ],
)
def test_an_error_whose_status_does_not_tell_is_taken_by_its_words(
    serve: Callable[..., RawServer], calls: Calls, status: str, error: object, kind: type[PatrolServerError]
) -> None:
    """An event that is not there, or a wrong key, is that with status 200 too; or a forged id would live for weeks."""
    body = json.dumps({"error": error}).encode()
    failure = fail(calls.client(serve(reply(body, status)).url).servers, kind)
    assert type(failure) is kind
    assert failure.status == int(status[:3])


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        ({"success": False, "message": "Unauthorized", "data": []}, Refused),
        ({"status": "error", "message": "Unauthenticated."}, Refused),
        ({"status": 401}, Refused),
        ({"status": "fail", "code": 404}, NotFound),
        ({"success": False, "message": "Event does not exist"}, NotFound),
        ({"status": "503 Service Unavailable", "data": []}, ServerFailure),
        ({"success": False, "data": [{"id": 1, "name": "a"}]}, ApiError),
    ],
)
def test_a_failure_in_other_words_is_taken_by_them_too(
    serve: Callable[..., RawServer], calls: Calls, body: dict[str, Any], kind: type[PatrolServerError]
) -> None:
    """Without an ``error``, the status or the message that says so decides how to go on."""
    client = calls.client(serve(reply(json.dumps(body).encode())).url)
    fail(client.servers, kind)
    fail(lambda: client.event(1, 2), kind)


@pytest.mark.parametrize(("status", "kind"), [("401 No", Refused), ("404 No", NotFound), ("500 No", ServerFailure)])
def test_the_status_outranks_an_error_in_the_reply(
    serve: Callable[..., RawServer], calls: Calls, status: str, kind: type[PatrolServerError]
) -> None:
    """A status that says how to go on keeps its meaning, and the API's words are in the message."""
    error = fail(calls.client(serve(reply(b'{"error": "Bucket does not exist"}', status)).url).servers, kind)
    assert "Bucket does not exist" in str(error)


@pytest.mark.parametrize("status", ["429 Too Many Requests", "503 Service Unavailable"])
@pytest.mark.parametrize(("header", "seconds"), [("120", 120.0), ("-3", 0.0), ("99999999", 99999999.0), ("soon", None)])
def test_retry_after_is_told(
    serve: Callable[..., RawServer], calls: Calls, status: str, header: str, seconds: float | None
) -> None:
    """The error says how long the API wants to be left alone."""
    client = calls.client(serve(reply(b"", status, f"Retry-After: {header}\r\n")).url)
    with pytest.raises(PatrolServerError) as raised:
        client.servers()
    assert raised.value.retry_after == seconds


@pytest.mark.parametrize(
    ("date", "offset"),
    [
        ("Mon, 24 Nov 2025 00:00:00 GMT", 30.0),
        ("Mon, 24 Nov 2025 00:01:00 GMT", -30.0),
        ("Sun, 23 Nov 2025 00:00:00 GMT", 86_430.0),
        ("yesterday", None),
        ("", None),
    ],
)
@pytest.mark.parametrize("status", ["200 OK", "404 Not Found"])
def test_how_far_the_clocks_are_apart_is_observed(
    serve: Callable[..., RawServer], calls: Calls, status: str, date: str, offset: float | None
) -> None:
    """Each reply's ``Date`` tells how far our clock is ahead of the API's, whatever else the reply says."""
    head = f"Date: {date}\r\n" if date else ""
    client = calls.client(serve(reply(SERVERS, status, head)).url, clock=SetClock(1_763_942_430.0))
    _attempt(client)
    assert calls.observed[-1].clock_offset == offset


def test_no_reply_tells_nothing_of_clocks(calls: Calls) -> None:
    """Without a reply nothing is known of the API's clock."""
    _attempt(calls.client("http://127.0.0.1:1"))
    assert calls.observed[-1].clock_offset is None


@pytest.mark.parametrize("status", ["301 Moved", "302 Found", "307 Temporary Redirect", "308 Permanent Redirect"])
def test_credentials_follow_no_redirect(serve: Callable[..., RawServer], calls: Calls, status: str) -> None:
    """Another host to which the API redirects sees nothing; the message names it, without its query."""
    canary = serve(reply(SERVERS))
    location = f"Location: {canary.url}/?key={quote(KEY)}\r\n"
    error = fail(calls.client(serve(reply(b"", status, location)).url).servers, RedirectRefused)
    assert "127.0.0.1" in str(error)
    assert (canary.requests, canary.connections) == ([], 0)


@pytest.mark.parametrize(
    "raw",
    [
        reply(b"<!DOCTYPE html><html></html>"),
        reply(b""),
        reply(b'{"data": [{"id": 1'),
        reply(b'{"data": null}'),
        reply(b"[" * 100_000),
        b"HTTP/1.1 204 No Content\r\n\r\n",
        reply(gzip.compress(SERVERS, mtime=0)[:-9], headers="Content-Encoding: gzip\r\n"),
        reply(b"no gzip", headers="Content-Encoding: gzip\r\n"),
        reply(b"\x1f\x8b\x08 no gzip", headers="Content-Encoding: gzip\r\n"),
        reply(b"", headers="Content-Encoding: gzip\r\n"),
        reply(zlib.compress(SERVERS), headers="Content-Encoding: deflate\r\n"),
    ],
)
def test_a_reply_that_is_no_data_is_unreadable(serve: Callable[..., RawServer], calls: Calls, raw: bytes) -> None:
    """HTML, nothing, half a document, null, nesting, damaged or unasked-for packing: never an empty list."""
    assert fail(calls.client(serve(raw).url).servers, Unreadable).reason is FailureReason.UNREADABLE


@pytest.mark.parametrize(
    "raw",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n" + SERVERS,
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nff\r\n" + SERVERS,
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"SSH-2.0-OpenSSH_9.9\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"x" * 70_000 + b": y\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"x: y\r\n" * 200 + b"\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5, 6\r\n\r\nabcdef",
    ],
)
def test_half_a_reply_is_unreadable(serve: Callable[..., RawServer], calls: Calls, raw: bytes) -> None:
    """A body shorter than announced, broken chunks, and what is no HTTP."""

    def answer(connection: socket.socket, _: bytes) -> None:
        connection.sendall(raw)
        connection.shutdown(socket.SHUT_WR)

    fail(calls.client(serve(answer).url).servers, Unreadable)


PIECES = (
    *(b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/9.9 99999 \r\n", b"HTTP/1.1 302 \xff\r\n"),
    *(b"Content-Length: -5\r\n", b"Content-Length: x\r\n", b"Content-Length: 5,6\r\n", b"Content-Encoding: gzip\r\n"),
    *(b"Transfer-Encoding: chunked\r\n", b"Retry-After: \xff\r\n", b"Location: http://[\r\n", b"\r\n", b"5\r\n"),
    *(b"Set-Cookie: a=\x01; expires=never\r\n", b": \r\n", b" folded\r\n", b"\x1f\x8b", SERVERS, b"{}"),
)
HEADS = st.lists(st.one_of(st.sampled_from(PIECES), st.binary(max_size=10)), max_size=8)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(raw=HEADS, valid=st.booleans())
def test_any_bytes_for_a_reply_do_no_harm(
    serve: Callable[..., RawServer],
    calls: Calls,
    raw: list[bytes],
    valid: bool,  # noqa: FBT001 - hypothesis passes it by name
) -> None:
    """Whatever comes back is read or is one of this package's errors, without credentials."""

    def answer(connection: socket.socket, _: bytes) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\n" * valid + b"".join(raw))
        connection.shutdown(socket.SHUT_WR)

    server = serve(answer)
    client = calls.client(server.url)
    try:
        client.servers()
    except PatrolServerError as error:
        assert_free_of_credentials(everything_told(error))
    finally:
        client.close()
        server.stop()


@pytest.mark.parametrize("location", ["http://[", "/login?key=canary", "?"])
def test_a_redirect_to_nowhere_is_refused_too(serve: Callable[..., RawServer], calls: Calls, location: str) -> None:
    """A broken or relative address in a redirect changes nothing, and its query is not shown."""
    error = fail(calls.client(serve(reply(b"", "302 Found", f"Location: {location}\r\n")).url).servers, RedirectRefused)
    assert "the API redirects;" in str(error)


def test_an_unreadable_reply_is_kept_in_part_without_credentials(serve: Callable[..., RawServer], calls: Calls) -> None:
    """The operator sees how the reply began, and the error's text does not hold it."""
    page = f"<html>{quote(KEY, safe='')} {SECRET} {'x' * 1_970}{SECRET}</html>".encode()
    error = fail(calls.client(serve(reply(page)).url).servers, Unreadable)
    assert isinstance(error, Unreadable)
    assert error.excerpt.startswith("<html>*** *** xxx")
    assert len(error.excerpt) <= 2_000
    assert "xxx" not in str(error)


def escaped_by_json(text: str) -> str:
    """As PHP writes it."""
    return json.dumps(text)[1:-1].replace("/", "\\/")


@pytest.mark.parametrize("spell", [str, lambda text: quote(text, safe=""), quote_plus, escaped_by_json])
def test_an_event_that_echoes_its_url_is_kept_without_credentials(
    serve: Callable[..., RawServer], calls: Calls, spell: Callable[[str], str]
) -> None:
    """Title, description, names and the body that is kept for the operator hold no credentials, however spelled."""
    echo = f"GET \\/webhooks\\/3\\/events\\/4?key={quote(KEY, safe='')}&secret={quote(SECRET, safe='')} {spell(SECRET)}"
    body = (
        '{"data":{"server_id":12,"url":"%s","new_issues":[{"title":"%s","description":"%s",'
        '"software":{"version":"%s","software":{"name":"%s"}}}]}}' % ((echo,) * 4 + (spell(KEY),))
    )
    parsed = calls.client(serve(reply(body.encode())).url).event(3, 4)
    told = repr(parsed) + parsed.body.decode()
    assert_free_of_credentials(told)
    (issue,) = parsed.value.new_issues
    assert issue.title == "GET /webhooks/3/events/4?key=***&secret=*** ***"
    assert issue.about.name == "***"
    assert b'"server_id":12' in parsed.body


def test_reasons_and_oddities_hold_no_credentials(serve: Callable[..., RawServer], calls: Calls) -> None:
    """What a reply says of itself is told without credentials that it echoes, in members and headers alike."""
    body = json.dumps({"data": [{"id": 1, "name": "a", "verified": KEY}], "status": f"partial for {KEY}"})
    client = calls.client(
        serve(reply(body.encode(), headers=f"X-Status: in parts for the client {quote(SECRET)}\r\n")).url
    )
    parsed = client.servers()
    assert not parsed.complete
    assert "kanari" not in repr(parsed)
    assert "servers: status says partial for ***" in parsed.partial_because


def test_short_credentials_change_no_names(serve: Callable[..., RawServer], calls: Calls) -> None:
    """A key like ``demo`` stands in many a name, which has to stay what it is."""
    server = serve(reply(b'{"data":[{"id":1,"name":"demo.example"}]}'))
    assert calls.client(server.url, credentials=lambda: ("demo", "demo")).servers().value[0].name == "demo.example"


def test_replies_come_packed_chunked_or_to_the_end(serve: Callable[..., RawServer], calls: Calls) -> None:
    """Every honest framing is read, and its connection is used again where HTTP allows it."""
    packed = gzip.compress(SERVERS[:20]) + gzip.compress(SERVERS[20:])
    chunks = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in (SERVERS[:7], SERVERS[7:])) + b"0\r\n\r\n"
    raws = [
        reply(packed, headers="Content-Encoding: gzip\r\n"),
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks,
        reply(SERVERS, headers="Content-Encoding: identity\r\n"),
    ]
    left = iter(raws)
    server = serve(lambda connection, _: connection.sendall(next(left)))
    client = calls.client(server.url)
    for _ in raws:
        assert client.servers().value[0].id == 1
    assert server.connections == 1

    def until_the_end(connection: socket.socket, _: bytes) -> None:
        connection.sendall(b"HTTP/1.0 200 OK\r\n\r\n" + SERVERS)
        connection.shutdown(socket.SHUT_WR)

    assert calls.client(serve(until_the_end).url).servers().value[0].id == 1


@pytest.mark.parametrize(
    "raw",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n\r\n" + b" " * (5 * 1024 * 1024),
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n600000\r\n" + b" " * 0x600000,
        reply(gzip.compress(b" " * (1 << 28), 1, mtime=0), headers="Content-Encoding: gzip\r\n"),
        reply(gzip.compress(b" " * (3 << 20), mtime=0) * 2, headers="Content-Encoding: gzip\r\n"),
    ],
)
def test_a_reply_over_the_limit_is_given_up(serve: Callable[..., RawServer], calls: Calls, raw: bytes) -> None:
    """Announced, endless, chunked, or a gzip bomb: no more than the limit is ever held."""

    def answer(connection: socket.socket, _: bytes) -> None:
        connection.sendall(raw)
        connection.shutdown(socket.SHUT_WR)

    error = fail(calls.client(serve(answer).url).servers, TooLarge)
    assert error.reason is FailureReason.TOO_LARGE


@pytest.mark.alone
def test_no_answer_times_out(serve: Callable[..., RawServer], calls: Calls) -> None:
    """A server that takes the request and stays silent costs one time-out."""
    started = time.monotonic()
    error = fail(calls.client(serve(lambda *_: None).url, timeout=0.2).servers, TimedOut)
    assert error.reason is FailureReason.TIMEOUT
    assert time.monotonic() - started < 3


@pytest.mark.alone
@pytest.mark.parametrize(
    "beginning",
    [
        b"",
        b"HTTP/1.1 200 OK\r\nX: ",
        b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffff\r\n",
    ],
)
def test_a_dripping_reply_holds_no_thread_for_long(
    serve: Callable[..., RawServer], calls: Calls, beginning: bytes
) -> None:
    """Bytes that come one by one, in the head, the body or the chunk sizes, are cut off at three time-outs."""

    def drip(connection: socket.socket, _: bytes) -> None:
        connection.sendall(beginning)
        while True:
            connection.sendall(b"0")
            time.sleep(0.02)  # the fault itself, and no waiting for a condition

    started = time.monotonic()
    fail(calls.client(serve(drip).url, timeout=0.2).servers, TimedOut)
    assert 0.4 < time.monotonic() - started < 3


def test_a_refused_connection_is_told(calls: Calls) -> None:
    """Nobody listens: the message says so."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    error = fail(calls.client(f"http://127.0.0.1:{port}").servers, ConnectionFailed)
    assert error.reason is FailureReason.CONNECT
    assert "Connection refused" in str(error)


def test_an_unknown_host_is_told(calls: Calls) -> None:
    """A name under the reserved domain has no address."""
    fail(calls.client("http://api..invalid").servers, NameNotResolved)
    error = fail(calls.client("http://api.invalid").servers, NameNotResolved)
    assert error.reason is FailureReason.DNS
    assert "the host cannot be resolved" in str(error)


def test_a_connection_closed_without_an_answer_is_told(serve: Callable[..., RawServer], calls: Calls) -> None:
    """The client does not try again by itself: that is the schedule's business."""
    server = serve(lambda connection, _: connection.shutdown(socket.SHUT_RDWR))
    fail(calls.client(server.url).servers, ConnectionFailed)
    assert len(server.requests) == 1


def test_a_kept_connection_that_the_server_closed_is_noticed(serve: Callable[..., RawServer], calls: Calls) -> None:
    """A pooled connection that went away meanwhile costs a new one, and no failure."""
    closed = threading.Event()

    def answer_once(connection: socket.socket, _: bytes) -> None:
        connection.sendall(reply(SERVERS))
        connection.shutdown(socket.SHUT_RDWR)
        closed.set()

    server = serve(answer_once)
    client = calls.client(server.url)
    for _ in range(5):
        closed.clear()
        assert client.servers().complete
        assert closed.wait(5)
    assert server.connections == 5


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module")
def tls(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    return context


@pytest.fixture
def ca_file(authority: trustme.CA, tmp_path: Path) -> Path:
    path = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(path)
    return path


def test_an_authority_of_ones_own_is_trusted_when_named(
    serve: Callable[..., RawServer], calls: Calls, tls: ssl.SSLContext, ca_file: Path
) -> None:
    """``ca_file`` makes an own certificate valid, and the connection is kept as without TLS."""
    server = serve(reply(SERVERS), tls)
    client = calls.client(server.url, ca_file=ca_file)
    assert client.servers().complete
    assert client.servers().complete
    assert server.connections == 1


def test_a_certificate_of_unknown_origin_is_refused(
    serve: Callable[..., RawServer], calls: Calls, tls: ssl.SSLContext
) -> None:
    """Without ``ca_file`` nothing is sent to a server that nobody vouches for."""
    server = serve(reply(SERVERS), tls)
    error = fail(calls.client(server.url).servers, TlsFailed)
    assert error.reason is FailureReason.TLS
    assert "certificate is not trusted" in str(error)
    assert server.requests == []


def test_a_certificate_of_another_host_is_refused(
    serve: Callable[..., RawServer], calls: Calls, authority: trustme.CA, ca_file: Path
) -> None:
    """A trusted authority does not make up for the wrong name."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("elsewhere.example").configure_cert(context)
    server = serve(reply(SERVERS), context)
    fail(calls.client(server.url, ca_file=ca_file).servers, TlsFailed)
    assert server.requests == []


def test_plain_http_where_tls_is_expected_is_refused(serve: Callable[..., RawServer], calls: Calls) -> None:
    """A server without TLS behind an https URL is a TLS failure, and learns nothing."""
    server = serve(reply(b"", "400 Bad Request"))
    server.end_of_head = b""
    error = fail(calls.client(server.url.replace("http", "https")).servers, TlsFailed)
    assert "does not speak TLS" in str(error)
    assert "_ssl.c" not in str(error)
    assert b"kanari" not in b"".join(server.requests)


def test_a_dripping_reply_over_tls_is_cut_off_too(
    serve: Callable[..., RawServer], calls: Calls, tls: ssl.SSLContext, ca_file: Path
) -> None:
    """The time limit holds inside TLS."""

    def drip(connection: socket.socket, _: bytes) -> None:
        while True:
            connection.sendall(b"0")
            time.sleep(0.02)  # the fault itself, and no waiting for a condition

    fail(calls.client(serve(drip, tls).url, ca_file=ca_file, timeout=0.3).servers, TimedOut)


def test_an_unusable_ca_file_is_an_error_at_once(calls: Calls, tmp_path: Path) -> None:
    """A missing or empty file of authorities is found when the client is made."""
    empty = tmp_path / "empty.pem"
    empty.touch()
    for path in (tmp_path / "missing.pem", empty):
        with pytest.raises(OSError, match=r"No such file|\[X509|NO_CERTIFICATE"):
            calls.client("https://127.0.0.1:1", ca_file=path)


def test_calls_go_through_the_configured_proxy_only(
    serve: Callable[..., RawServer], calls: Calls, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The configured proxy gets the request with its password; the environment's proxy is not asked."""
    canary, proxy = serve(reply(SERVERS)), serve(reply(SERVERS))
    monkeypatch.setenv("http_proxy", canary.url)
    monkeypatch.setenv("HTTPS_PROXY", canary.url)
    client = calls.client("http://api.invalid/x", proxy_url=proxy.url.replace("//", "//user:pass@"))
    assert client.servers().complete
    assert proxy.requests[0].startswith(b"GET http://api.invalid/x/servers?key=")
    assert b"Proxy-Authorization: Basic dXNlcjpwYXNz" in proxy.requests[0]
    direct = serve(reply(SERVERS))
    assert calls.client(direct.url).servers().complete
    assert canary.connections == 0


def test_a_proxy_that_refuses_is_told(serve: Callable[..., RawServer], calls: Calls) -> None:
    """A tunnel that the proxy does not open is a failed connection, and names the proxy, without its password."""
    proxy = serve(reply(b"", "407 Proxy Authentication Required"))
    client = calls.client("https://api.invalid", proxy_url=proxy.url.replace("//", "//user:canary@"))
    error = fail(client.servers, ConnectionFailed)
    assert "the proxy: Tunnel connection failed: 407" in str(error)
    assert "canary" not in everything_told(error)
    assert proxy.requests[0].startswith(b"CONNECT api.invalid:443")
    assert b"kanari" not in proxy.requests[0]


def test_a_proxy_that_drips_is_cut_off(serve: Callable[..., RawServer], calls: Calls) -> None:
    """The time limit holds for the proxy's answer to CONNECT."""

    def drip(connection: socket.socket, _: bytes) -> None:
        while True:
            connection.sendall(b"0")
            time.sleep(0.02)  # the fault itself, and no waiting for a condition

    fail(calls.client("https://api.invalid", proxy_url=serve(drip).url, timeout=0.2).servers, TimedOut)


def test_calls_through_a_tunnel_keep_tls_to_the_end(
    serve: Callable[..., RawServer], calls: Calls, tls: ssl.SSLContext, ca_file: Path
) -> None:
    """The proxy sees the host and nothing else; the certificate is checked behind it."""
    api = serve(reply(SERVERS), tls)

    def tunnel(connection: socket.socket, _: bytes) -> None:
        connection.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
        with socket.create_connection(("127.0.0.1", api.port)) as upstream:
            back = threading.Thread(target=_copy, args=(upstream, connection))
            back.start()
            _copy(connection, upstream)
            back.join(5)

    proxy = serve(tunnel)
    client = calls.client(api.url, proxy_url=proxy.url, ca_file=ca_file)
    assert client.servers().complete
    assert len(proxy.requests) == 1
    client.close()


def _copy(source: socket.socket, target: socket.socket) -> None:
    try:
        while data := source.recv(65_536):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)
    except OSError:
        pass


def test_rotated_credentials_are_used_at_the_next_call(serve: Callable[..., RawServer], calls: Calls) -> None:
    """Credentials are asked for at each call."""
    server = serve(reply(SERVERS))
    given = iter([("a", "b"), ("c", "d")])
    client = calls.client(server.url, credentials=lambda: next(given))
    client.servers()
    client.servers()
    assert [request.split()[1] for request in server.requests] == [
        b"/servers?key=a&secret=b",
        b"/servers?key=c&secret=d",
    ]


def test_unreadable_credentials_are_a_refusal(serve: Callable[..., RawServer], calls: Calls) -> None:
    """A file that is gone, that is not text, or is empty is a matter of credentials, and nothing is sent."""
    server = serve(reply(SERVERS))

    def gone() -> tuple[str, str]:
        raise FileNotFoundError(2, "No such file", KEY)

    def no_text() -> tuple[str, str]:
        return KEY, b"\xff".decode()

    for credentials in (gone, no_text, lambda: (KEY, ""), lambda: ("", SECRET), lambda: (KEY, "\ud800")):
        error = fail(calls.client(server.url, credentials=credentials).servers, Refused)
        assert error.reason is FailureReason.CREDENTIALS
    assert server.requests == []


@pytest.mark.parametrize("number", [0, -1, MAX_ID + 1, True, "1", "1/../2", 1.0])
def test_ids_are_checked_before_they_become_a_path(serve: Callable[..., RawServer], calls: Calls, number: Any) -> None:
    """What is not an id is never sent."""
    server = serve(reply(SERVERS))
    client = calls.client(server.url)
    for call in (client.server, client.software, client.is_scanning, lambda n: client.event(n, 1)):
        with pytest.raises(ValueError, match="ids are whole numbers"):
            call(number)
    with pytest.raises(ValueError, match="ids are whole numbers"):
        client.event(1, number)
    assert server.connections == 0
    assert calls.observed == []


@pytest.mark.parametrize(
    "url",
    [
        "",
        "api.example",
        "ftp://api.example",
        "https://",
        "https://canary:pw@h",
        "https://h?a=canary",
        "http://[h",
        "http://h/#",
    ],
)
def test_an_unusable_base_is_an_error_at_once(calls: Calls, url: str) -> None:
    """The base has to be http or https, with a host and nothing secret; the error does not repeat it."""
    with pytest.raises(ValueError, match="api_url must") as raised:
        calls.client(url)
    assert "canary" not in str(raised.value)


@pytest.mark.parametrize("proxy_url", ["proxy:3128", "socks5://u:canary@proxy", "http://"])
def test_an_unusable_proxy_is_an_error_at_once(calls: Calls, proxy_url: str) -> None:
    """The proxy has to be http or https; the error does not repeat it."""
    with pytest.raises(ValueError, match="proxy_url must") as raised:
        calls.client("http://api.example", proxy_url=proxy_url)
    assert "canary" not in str(raised.value)


def test_a_closed_client_makes_no_calls(serve: Callable[..., RawServer], calls: Calls) -> None:
    """After ``close`` a call fails as a lost connection would, so the caller tries again later."""
    server = serve(reply(SERVERS))
    client = calls.client(server.url)
    client.close()
    fail(client.servers, ConnectionFailed)
    assert server.connections == 0


def test_threads_share_the_pool(serve: Callable[..., RawServer], calls: Calls) -> None:
    """Eight threads use no more connections than the pool has, and all get their answers."""
    server = serve(reply(SERVERS))
    client = calls.client(server.url)
    complete: list[bool] = []
    threads = [
        threading.Thread(target=lambda: complete.extend(client.servers().complete for _ in range(20))) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert complete == [True] * 160
    assert server.connections <= 2


def test_nothing_logged_holds_credentials(
    serve: Callable[..., RawServer], calls: Calls, tls: ssl.SSLContext, caplog: pytest.LogCaptureFixture
) -> None:
    """With every logger at DEBUG, through success and failures, the log shows calls and no credentials."""
    strange = b"HTTP/1.1 200 OK\r\nno colon here\r\nContent-Length: 2\r\n\r\n[]"
    answers = [reply(SERVERS), reply(b"", "503 No"), reply(b"", "302 No", "Location: /x\r\n"), strange, b"junk\r\n\r\n"]
    with caplog.at_level(logging.DEBUG):
        for answer in answers:
            _attempt(calls.client(serve(answer).url, timeout=0.5))
        _attempt(calls.client(serve(lambda *_: None).url, timeout=0.1))
        _attempt(calls.client(serve(reply(SERVERS), tls).url))
        _attempt(calls.client("http://127.0.0.1:1"))
        _attempt(calls.client("http://127.0.0.1:1", proxy_url="http://127.0.0.1:1"))
    assert "GET /servers?***" in caplog.text
    assert "Failed to parse headers" in caplog.text
    assert_free_of_credentials(caplog.text)


def _attempt(client: PatrolServerClient) -> None:
    try:
        client.servers()
    except PatrolServerError as error:
        logging.getLogger("test").exception("failed", exc_info=error)
