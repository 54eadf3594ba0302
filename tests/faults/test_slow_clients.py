"""The promise on slow clients, in full: 2,000 of them at once, in a server that has its usual limits."""

from __future__ import annotations

import asyncio
import multiprocessing
import resource
import statistics
import time
from typing import TYPE_CHECKING

import pytest
import uvloop
from starlette.responses import PlainTextResponse
from tests.harness.promises import measured

from patrolserver_exporter.web.http.requests import BodyError, read_body
from patrolserver_exporter.web.http.server import Listener, WebServer

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

    from starlette.types import Receive, Scope, Send

pytestmark = [pytest.mark.alone, pytest.mark.promise("slow-clients")]

CLIENTS = 2000
FULL_REQUEST = b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
HEADERS = b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nX-Slow: "
BODY = b"POST /webhook HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10000\r\n\r\n"


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    try:
        await read_body(scope, receive)
    except BodyError as error:
        await error.problem()(scope, receive, send)
    else:
        await PlainTextResponse("x" * 1000)(scope, receive, send)


async def serve(connection: Connection) -> None:
    server = WebServer([Listener("127.0.0.1:0", app)])
    await server.start()
    connection.send(server.addresses[0].port)
    await asyncio.to_thread(connection.recv)
    await server.stop(0)


def run_server(connection: Connection) -> None:
    uvloop.run(serve(connection))


async def slow_client(port: int, start: bytes, drop: bytes) -> float:
    """Behave badly until the server closes; return the seconds that it took."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    began = time.monotonic()
    writer.write(start)
    closed = asyncio.create_task(reader.read())
    while not (await asyncio.wait({closed}, timeout=1))[0] and time.monotonic() - began < 30:
        writer.write(drop)
    closed.cancel()
    await asyncio.wait({closed})
    if not closed.cancelled():
        # To be reset is as good as to be closed.
        closed.exception()
    writer.close()
    return time.monotonic() - began


async def measured_get(port: int) -> float:
    began = time.monotonic()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(FULL_REQUEST)
    answer = await reader.read()
    writer.close()
    assert answer.startswith(b"HTTP/1.1 200")
    return time.monotonic() - began


async def attack(port: int) -> tuple[list[float], list[float]]:
    """Return how long each slow client was kept, and each honest one waited while they were there."""
    ways = [(b"", b""), (HEADERS, b""), (HEADERS, b"a"), (BODY, b""), (BODY, b"a"), (b"", b"\r\n")]
    slow = [asyncio.create_task(slow_client(port, *ways[number % len(ways)])) for number in range(CLIENTS)]
    waits = []
    for _ in range(400):
        waits.append(await measured_get(port))
        await asyncio.sleep(0.01)
    return await asyncio.gather(*slow), waits


@pytest.mark.timeout(60)
def test_2000_slow_clients(request: pytest.FixtureRequest) -> None:
    """2,000 slow clients are all closed in 10 s, and 99 of 100 others are answered in 200 ms meanwhile."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < CLIENTS + 200:
        pytest.skip(f"the system allows {hard} open files")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, CLIENTS + 200), hard))
    ours, theirs = multiprocessing.Pipe()
    server = multiprocessing.get_context("spawn").Process(target=run_server, args=(theirs,))
    server.start()
    try:
        assert ours.poll(20), "the server did not start"
        kept, waits = uvloop.run(attack(ours.recv()))
    finally:
        ours.send("stop")
        server.join(20)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))

    p99 = statistics.quantiles(waits, n=100)[98]
    bound = f"kept at most {max(kept):.1f} s, others p99 {p99 * 1000:.0f} ms"
    measured(request.node, sent=CLIENTS, load="slow clients in six ways", bound=bound)
    assert max(kept) <= 10, f"a slow client was kept for {max(kept):.1f} s"
    assert p99 < 0.2
    assert server.exitcode == 0
