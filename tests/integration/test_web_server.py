from __future__ import annotations

import asyncio
import socket
import subprocess
import time
import urllib.error
import urllib.request
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest
from starlette.responses import PlainTextResponse
from tests.serving import QUICK, eventually, read_to_end, serving

from patrolserver_exporter.web.http.protocol import ConnectionLimits, Timeouts, WebEvent
from patrolserver_exporter.web.http.requests import BodyError, ClientGone, read_body
from patrolserver_exporter.web.http.server import LOOPBACK_STATE, Listener, ListenError, WebServer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from starlette.types import Receive, Scope, Send
    from tests.serving import Served

BIG = b"x" * (16 * 1024 * 1024)
CLOSE = b"Host: localhost\r\nConnection: close\r\n"


async def hello(scope: Scope, receive: Receive, send: Send) -> None:
    await PlainTextResponse(f"hello {scope['path']}")(scope, receive, send)


async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    try:
        body = await read_body(scope, receive)
    except ClientGone:
        return
    except BodyError as error:
        await error.problem()(scope, receive, send)
    else:
        await PlainTextResponse(b"got " + body)(scope, receive, send)


async def big(scope: Scope, receive: Receive, send: Send) -> None:
    await PlainTextResponse(BIG)(scope, receive, send)


@pytest.fixture
def echoing() -> Iterator[Served]:
    with serving(echo) as served:
        yield served


def status_of(answer: bytes) -> int:
    assert answer.startswith(b"HTTP/1.1 "), answer[:100]
    return int(answer.split(b" ", 2)[1])


def post(body: bytes, *headers: bytes) -> bytes:
    head = [b"POST /webhook HTTP/1.1", b"Host: localhost", b"Connection: close", *headers]
    return b"\r\n".join([*head, b"", b""]) + body


def test_get() -> None:
    """A request is answered, with a date and without the server's name."""
    with serving(hello) as served:
        answer = served.exchange(b"GET /a%20b HTTP/1.1\r\n" + CLOSE + b"\r\n")

    assert status_of(answer) == 200
    assert answer.endswith(b"\r\n\r\nhello /a b")
    assert b"\r\ndate: " in answer
    assert b"\r\nserver:" not in answer.lower()


def test_keep_alive() -> None:
    """A connection serves one request after the other."""
    with serving(hello) as served, served.connect() as sock:
        for path in (b"/1", b"/2", b"/3"):
            sock.sendall(b"GET " + path + b" HTTP/1.1\r\nHost: localhost\r\n\r\n")
            received = b""
            while not received.endswith(b"hello " + path):
                received += sock.recv(65536)


def test_pipelined() -> None:
    """Requests sent at once are answered in their order."""
    requests = [b"GET /%d HTTP/1.1\r\nHost: localhost\r\n\r\n" % number for number in range(50)]
    with serving(hello) as served:
        answer = served.exchange(b"".join(requests) + b"GET /last HTTP/1.1\r\n" + CLOSE + b"\r\n")

    order = [answer.index(b"hello /%d" % number) for number in range(50)]
    assert order == sorted(order)
    assert answer.endswith(b"hello /last")


def test_malformed_after_a_good_one() -> None:
    """The answer to a good request is not mixed with the refusal of what follows it."""
    with serving(hello) as served:
        answer = served.exchange(b"GET /good HTTP/1.1\r\nHost: localhost\r\n\r\nrubbish\r\n\r\n")

    assert answer.count(b"HTTP/1.1") == 1
    assert answer.endswith(b"hello /good")


def test_head() -> None:
    """HEAD gets the headers of GET alone."""
    with serving(hello) as served:
        answer = served.exchange(b"HEAD / HTTP/1.1\r\n" + CLOSE + b"\r\n")

    assert b"content-length: 7" in answer
    assert answer.endswith(b"\r\n\r\n")


def test_http_1_0() -> None:
    """HTTP/1.0 is answered and closed."""
    with serving(hello) as served:
        assert served.exchange(b"GET / HTTP/1.0\r\n\r\n").endswith(b"hello /")


def test_upgrade() -> None:
    """A wish to upgrade is passed over."""
    with serving(hello) as served:
        request = b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
        assert served.exchange(request).endswith(b"hello /")


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"rubbish\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET /\xff HTTP/1.1\r\n\r\n",
        b"GET http://[::1 HTTP/1.1\r\n\r\n",
        b"CONNECT example.org:443 HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nA: b\r\n c\r\n\r\n",
        b"GET / HTTP/1.1\r\nA\0: b\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
        b"POST / HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: 99999999999999999999999\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n",
        b"POST / HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: h2c\r\nContent-Length: 3\r\n\r\nabc",
    ],
)
def test_malformed(echoing: Served, caplog: pytest.LogCaptureFixture, request_bytes: bytes) -> None:
    """What is no HTTP/1.1 gets a 400 with a reason, and no word in the log."""
    answer = echoing.exchange(request_bytes)

    assert status_of(answer) == 400
    assert b"content-type: application/problem+json" in answer
    assert echoing.events == [WebEvent.MALFORMED]
    assert [record for record in caplog.records if record.levelname in {"WARNING", "ERROR"}] == []


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"GET /" + b"a" * 200_000 + b" HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nX: " + b"a" * 200_000 + b"\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + b"".join(b"X-%d: a\r\n" % number for number in range(10_000)) + b"\r\n",
        b"GET / HTTP/1.1\r\n" + b"a:\r\n" * 300 + b"\r\n",
        b"GET / HTTP/1.1\r\nX: " + b"a" * 60_000,
    ],
    ids=["path", "one header", "all headers", "many headers", "without an end"],
)
def test_large_headers(echoing: Served, request_bytes: bytes) -> None:
    """Headers over the limit get a 431."""
    assert status_of(echoing.exchange(request_bytes)) == 431
    assert echoing.events == [WebEvent.HEADERS_TOO_LARGE]


def test_large_trailers(echoing: Served) -> None:
    """What trails a chunked body is held to the same limit."""
    chunked = b"Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n3\r\nabc\r\n0\r\nX: "
    answer = echoing.exchange(b"POST / HTTP/1.1\r\nHost: localhost\r\n" + chunked + b"a" * 100_000)

    assert status_of(answer) == 431


def test_body(echoing: Served) -> None:
    """A body arrives, whether its length is given or it comes in chunks, up to the limit."""
    full = b"y" * 16_384

    assert echoing.exchange(post(full, b"Content-Length: 16384")).endswith(b"\r\n\r\ngot " + full)
    chunks = b"1\r\na\r\n2;ext=1\r\nbc\r\n0\r\nTrailer: 1\r\n\r\n"
    assert echoing.exchange(post(chunks, b"Transfer-Encoding: chunked")).endswith(b"got abc")


def test_expect_continue(echoing: Served) -> None:
    """A client that asks first is told to go on, or spared sending what is too large."""
    with echoing.connect() as sock:
        sock.sendall(post(b"", b"Content-Length: 3", b"Expect: 100-continue"))
        assert sock.recv(65536).startswith(b"HTTP/1.1 100 Continue\r\n\r\n")
        sock.sendall(b"abc")
        assert read_to_end(sock).endswith(b"got abc")
    assert status_of(echoing.exchange(post(b"", b"Content-Length: 99999", b"Expect: 100-continue"))) == 413


@pytest.mark.parametrize("size", [16_385, 300_000, 3_000_000])
@pytest.mark.parametrize("is_chunked", [False, True])
def test_large_body(echoing: Served, size: int, is_chunked: bool) -> None:  # noqa: FBT001 - a parameter of the test
    """A body over the limit gets a 413 that arrives, though the client is still sending."""
    body: bytes | Iterator[bytes] = b"z" * size
    headers = {}
    if is_chunked:
        body = (b"z" * 1000 for _ in range(size // 1000 + 1))
        headers["Transfer-Encoding"] = "chunked"
    request = urllib.request.Request(f"http://127.0.0.1:{echoing.port}/", data=body, headers=headers)
    with pytest.raises(urllib.error.HTTPError) as caught, urllib.request.urlopen(request, timeout=10):
        pass

    with caught.value:
        assert caught.value.code == 413
        assert caught.value.headers["content-type"] == "application/problem+json"


def test_large_body_keeps_the_connection(echoing: Served) -> None:
    """After a 413 the rest of the body is passed over, and the connection can be used again."""
    request = b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 20000\r\n\r\n" + b"z" * 20_000
    answer = echoing.exchange(request + post(b"abc", b"Content-Length: 3"))

    assert status_of(answer) == 413
    assert answer.endswith(b"got abc")


def test_encoded_body(echoing: Served) -> None:
    """A compressed body gets a 415 that says what is taken instead."""
    answer = echoing.exchange(post(b"abc", b"Content-Length: 3", b"Content-Encoding: gzip"))

    assert status_of(answer) == 415
    assert b"accept-encoding: identity" in answer
    assert status_of(echoing.exchange(post(b"abc", b"Content-Length: 3", b"Content-Encoding: identity"))) == 200


def drip(sock: socket.socket, first: bytes, then: bytes) -> float:
    """Send a byte every 50 ms until the server closes; return the seconds."""
    start = time.monotonic()
    sock.sendall(first)
    sock.settimeout(0.05)
    while time.monotonic() - start < 10:
        try:
            if not sock.recv(65536):
                break
        except TimeoutError:
            pass
        except OSError:
            break
        try:
            sock.sendall(then)
        except OSError:
            break
    return time.monotonic() - start


@pytest.mark.alone
@pytest.mark.parametrize(
    ("first", "then", "event"),
    [
        (b"", b"", WebEvent.IDLE),
        (b"", b"\r\n", WebEvent.IDLE),
        (b"GET / HTTP/1.1\r\nX: ", b"", WebEvent.HEADER_TIMEOUT),
        (b"GET / HTTP/1.1\r\nX: ", b"a", WebEvent.HEADER_TIMEOUT),
        (post(b"", b"Content-Length: 9999"), b"", WebEvent.BODY_TIMEOUT),
        (post(b"", b"Content-Length: 9999"), b"a", WebEvent.BODY_TIMEOUT),
        (post(b"", b"Transfer-Encoding: chunked"), b"1\r\na\r\n", WebEvent.BODY_TIMEOUT),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n", b"", WebEvent.IDLE),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n", b"\r\n", WebEvent.IDLE),
    ],
    ids=[
        "silent",
        "empty lines",
        "headers stall",
        "headers drip",
        "body stalls",
        "body drips",
        "chunks drip",
        "keep-alive",
        "keep-alive with empty lines",
    ],
)
def test_slow_client(echoing: Served, first: bytes, then: bytes, event: WebEvent) -> None:
    """A client that idles, stalls or drips is closed in time."""
    with echoing.connect() as sock:
        seconds = drip(sock, first, then)

    assert 0.3 < seconds < 3
    assert echoing.events == [event]
    eventually(lambda: echoing.server.connections == 0)


@pytest.mark.parametrize("start", [b"GET / HTTP/1.1\r\nX: ", post(b"abc", b"Content-Length: 9999")])
def test_stall_is_told(echoing: Served, start: bytes) -> None:
    """A client that stalls in the middle of a request gets a 408."""
    assert status_of(echoing.exchange(start)) == 408


@pytest.mark.alone
def test_many_slow_clients() -> None:
    """Hundreds of slow clients neither delay the others nor stay."""
    with serving(echo) as served, ExitStack() as stack:
        for number in range(400):
            sock = stack.enter_context(served.connect())
            sock.sendall((b"", b"GET / HTTP/1.1\r\n", post(b"a", b"Content-Length: 9"))[number % 3])
        start = time.monotonic()
        assert status_of(served.exchange(b"GET / HTTP/1.1\r\n" + CLOSE + b"\r\n")) == 200
        assert time.monotonic() - start < 1
        eventually(lambda: served.server.connections == 0)


def test_unread_answer() -> None:
    """A client that does not read its answer is cut off, and does not hold up the rest."""
    with serving(big) as served, served.connect() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        eventually(lambda: served.events == [WebEvent.WRITE_TIMEOUT])
        eventually(lambda: served.server.connections == 0)


def test_unread_pipelined_answers() -> None:
    """A client that asks a lot at once and never reads is cut off too."""

    async def some(scope: Scope, receive: Receive, send: Send) -> None:
        await PlainTextResponse(BIG[:500_000])(scope, receive, send)

    with serving(some) as served, served.connect() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n" * 60)
        eventually(lambda: served.events == [WebEvent.WRITE_TIMEOUT])
        eventually(lambda: served.server.connections == 0)


def test_too_many_pipelined() -> None:
    """Of thousands of requests sent at once some are answered, then the connection ends: they would be held at once."""
    with serving(hello) as served:
        answer = served.exchange(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n" * 2000)

        assert 64 <= answer.count(b"HTTP/1.1 200") <= 66
        assert answer.endswith(b"hello /")
        assert served.events == [WebEvent.TOO_MANY_PIPELINED]


def test_slow_reader_that_goes_on() -> None:
    """A client that takes its answer slowly gets all of it, over all limits of idleness."""
    with serving(big) as served, served.connect() as sock:
        sock.sendall(b"GET / HTTP/1.1\r\n" + CLOSE + b"\r\n")
        received = 0
        start = time.monotonic()
        while data := sock.recv(256 * 1024):
            received += len(data)
            time.sleep(0.02)

        assert received > len(BIG)
        assert time.monotonic() - start > QUICK.write + QUICK.idle
        assert served.events == []


def test_slow_application() -> None:
    """An application may take longer than a client may."""

    async def slow(scope: Scope, receive: Receive, send: Send) -> None:
        await asyncio.sleep(1)
        await hello(scope, receive, send)

    with serving(slow) as served:
        assert served.exchange(b"GET / HTTP/1.1\r\n" + CLOSE + b"\r\n").endswith(b"hello /")


def test_too_many_connections() -> None:
    """Above the limit a connection gets a 503; below it, all is well again."""
    limits = ConnectionLimits(timeouts=Timeouts(), max_connections=3)
    with serving(hello, limits=limits) as served:
        with ExitStack() as stack:
            for _ in range(3):
                stack.enter_context(served.connect())
            eventually(lambda: served.server.connections == 3)
            with served.connect() as sock:
                assert status_of(read_to_end(sock)) == 503
            assert served.events == [WebEvent.TOO_MANY_CONNECTIONS]
        eventually(lambda: served.server.connections == 0)
        assert status_of(served.exchange(b"GET / HTTP/1.1\r\n" + CLOSE + b"\r\n")) == 200


def test_failing_application(caplog: pytest.LogCaptureFixture) -> None:
    """What an application lets escape becomes a 500 and a line in the log, without the path."""

    async def fail(_scope: Scope, _receive: Receive, _send: Send) -> None:
        raise LookupError("canary")

    with serving(fail) as served:
        answer = served.exchange(b"GET /secret-token HTTP/1.1\r\n" + CLOSE + b"\r\n")

    assert status_of(answer) == 500
    assert b"application/problem+json" in answer
    assert served.events == [WebEvent.INTERNAL_ERROR]
    assert "LookupError: canary" in caplog.text
    assert "secret-token" not in caplog.text


def test_nothing_logs_the_path(caplog: pytest.LogCaptureFixture) -> None:
    """The path, which may hold a token, shows at no level."""
    caplog.set_level(1)
    with serving(hello) as served:
        served.exchange(b"GET /webhook/secret-token HTTP/1.1\r\n" + CLOSE + b"\r\n")
        served.exchange(b"GET /webhook/secret-token HTTP/1.1\r\nbad header\r\n\r\n")

    assert "secret-token" not in caplog.text


def test_several_listeners() -> None:
    """Each listener has its own application; each knows whether it is on loopback."""

    async def where(scope: Scope, receive: Receive, send: Send) -> None:
        await PlainTextResponse(str(scope["state"][LOOPBACK_STATE]))(scope, receive, send)

    with serving(hello, where) as served:
        port = served.server.addresses[1].port
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=10) as answer:
            assert answer.read() == b"True"
        assert served.exchange(b"GET / HTTP/1.0\r\n\r\n").endswith(b"hello /")


def test_everywhere() -> None:
    """Without a host the server listens on IPv4 and, where the machine has it, IPv6, and is not on loopback."""

    async def who(scope: Scope, receive: Receive, send: Send) -> None:
        await PlainTextResponse(f"{scope['client'][0]} {scope['state'][LOOPBACK_STATE]}")(scope, receive, send)

    with serving(who, address=":0") as served:
        assert served.exchange(b"GET / HTTP/1.0\r\n\r\n").endswith(b"127.0.0.1 False")
        if served.server.addresses[0].host == "::":
            with socket.create_connection(("::1", served.port), timeout=10) as sock:
                sock.sendall(b"GET / HTTP/1.0\r\n\r\n")
                assert read_to_end(sock).endswith(b"::1 False")


def test_host_name() -> None:
    """A host may be given by its name."""
    with serving(hello, address="localhost:0") as served:
        assert str(served.server.addresses[0]) == f"127.0.0.1:{served.port}"


def test_address_in_use() -> None:
    """An address that is taken is named, and the other listeners are given up."""
    with serving(hello) as served:

        async def start_another() -> None:
            taken = Listener(f"127.0.0.1:{served.port}", hello)
            await WebServer([Listener("127.0.0.1:0", hello), taken]).start()

        with pytest.raises(
            ListenError, match=rf"cannot listen on 127\.0\.0\.1:{served.port}: Address already in use: "
        ):
            served.run(start_another())


@pytest.mark.parametrize(
    ("address", "message"), [("192.0.2.1:0", "has no such address"), ("no-such-host.invalid:0", "choose another")]
)
def test_no_such_address(address: str, message: str) -> None:
    """An address that is not the machine's is named."""
    with pytest.raises(ListenError, match=message), serving(hello, address=address):
        pass


@pytest.mark.alone
def test_graceful_stop() -> None:
    """A stop lets the requests in flight finish, closes what idles, and takes no more."""

    async def slow(scope: Scope, receive: Receive, send: Send) -> None:
        await asyncio.sleep(0.5)
        await hello(scope, receive, send)

    with serving(slow, limits=ConnectionLimits()) as served, served.connect() as idle, served.connect() as busy:
        busy.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        eventually(lambda: served.server.requests == 1)
        start = time.monotonic()
        served.run(served.server.stop(10))

        assert time.monotonic() - start < 5
        assert read_to_end(idle) == b""
        answer = read_to_end(busy)
        assert answer.endswith(b"hello /")
        assert b"connection: close" in answer
        with pytest.raises(ConnectionRefusedError):
            served.connect()


@pytest.mark.alone
def test_stop_without_patience(caplog: pytest.LogCaptureFixture) -> None:
    """A stop cuts off what is not done in time, without a traceback."""

    async def endless(_scope: Scope, _receive: Receive, _send: Send) -> None:
        await asyncio.Event().wait()

    with serving(endless, limits=ConnectionLimits()) as served, served.connect() as sock:
        sock.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        eventually(lambda: served.server.requests == 1)
        start = time.monotonic()
        served.run(served.server.stop(0.2))

        assert time.monotonic() - start < 3
        assert read_to_end(sock) == b""
        assert served.server.requests == 0
    assert "Traceback" not in caplog.text


def test_client_that_hangs_up() -> None:
    """An application that waits for the body learns that the client is gone."""
    seen: list[BodyError] = []

    async def wait(scope: Scope, receive: Receive, _send: Send) -> None:
        try:
            await read_body(scope, receive)
        except BodyError as error:
            seen.append(error)

    with serving(wait, limits=ConnectionLimits()) as served:
        with served.connect() as sock:
            sock.sendall(post(b"abc", b"Content-Length: 10"))
        eventually(lambda: bool(seen))

    assert isinstance(seen[0], ClientGone)


def test_curl(echoing: Served, require_program: Callable[[str], str]) -> None:
    """Curl's wish for HTTP/2 and its compressed answers do not disturb."""
    command = [require_program("curl"), "-sS", "--http2", "--compressed", f"http://127.0.0.1:{echoing.port}/"]
    assert subprocess.run(command, capture_output=True, check=True, timeout=20).stdout == b"got "
