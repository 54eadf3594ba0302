"""Each fault, as a client on a real socket sees it."""

from __future__ import annotations

import email.utils
import socket
import time
from typing import TYPE_CHECKING, Any

import pytest
import requests

from patrolserver_exporter.simulator import Fault, Simulator, SimulatorOptions
from patrolserver_exporter.simulator.faults import FaultKind

if TYPE_CHECKING:
    from collections.abc import Iterator

KEYS = {"key": "demo", "secret": "demo"}


@pytest.fixture(scope="module")
def running() -> Iterator[Simulator]:
    with Simulator(SimulatorOptions(listen_address="127.0.0.1:0")) as simulator:
        yield simulator


@pytest.fixture
def simulator(running: Simulator) -> Iterator[Simulator]:
    yield running
    running.faults.clear()
    running.requests.clear()


def ask(simulator: Simulator, path: str = "servers", **options: Any) -> requests.Response:
    """One call on a connection of its own."""
    with requests.Session() as session:
        session.trust_env = False
        return session.get(f"{simulator.base_url}/{path}", params=KEYS, timeout=10, allow_redirects=False, **options)


@pytest.mark.parametrize("status", [400, 404, 500, 502, 503])
def test_an_error_status(simulator: Simulator, status: int) -> None:
    """With the documented error object."""
    simulator.faults.add(Fault(kind=FaultKind.STATUS, status=status))
    reply = ask(simulator)
    assert (reply.status_code, reply.json()["error"]["code"]) == (status, status)
    assert "Retry-After" not in reply.headers


@pytest.mark.parametrize("retry_after", [7, -3, 10**12, 0.5, "soon", "date+soon", "Wed, 21 Oct 2015 07:28:00 GMT"])
def test_too_many_requests(simulator: Simulator, retry_after: str | float) -> None:
    """429 with ``Retry-After`` as ordered: seconds, negative, huge, a date or nonsense."""
    simulator.faults.add(Fault(kind=FaultKind.RATE_LIMIT, retry_after=retry_after))
    reply = ask(simulator)
    assert (reply.status_code, reply.headers["Retry-After"]) == (429, str(retry_after))


def test_a_retry_after_date_in_the_future(simulator: Simulator) -> None:
    """``date+30`` is the HTTP date half a minute from now, on any status."""
    simulator.faults.add(Fault(kind=FaultKind.STATUS, status=503, retry_after="date+30"))
    written = ask(simulator).headers["Retry-After"]
    assert abs(email.utils.parsedate_to_datetime(written).timestamp() - time.time() - 30) < 5


def test_a_page_instead_of_json(simulator: Simulator) -> None:
    """HTML with status 200, as a proxy in the way sends it."""
    simulator.faults.add(Fault(kind=FaultKind.HTML))
    reply = ask(simulator)
    assert (reply.status_code, reply.headers["Content-Type"]) == (200, "text/html; charset=utf-8")
    assert reply.text.startswith("<!DOCTYPE html>")


def test_garbage(simulator: Simulator) -> None:
    """Status 200 and JSON that cannot be read."""
    simulator.faults.add(Fault(kind=FaultKind.GARBAGE))
    reply = ask(simulator)
    assert reply.status_code == 200
    with pytest.raises(requests.exceptions.JSONDecodeError):
        reply.json()


@pytest.mark.parametrize("error", ["oops", 83, {"code": "x", "message": "y"}, None])
def test_an_error_with_status_200(simulator: Simulator, error: Any) -> None:
    """In any of the forms that ``error`` may have."""
    simulator.faults.add(Fault(kind=FaultKind.ERROR_200, error=error))
    reply = ask(simulator)
    assert (reply.status_code, reply.json()) == (200, {"error": error})


def test_half_a_body(simulator: Simulator) -> None:
    """The length is announced, half of it comes, and the connection is closed."""
    simulator.faults.add(Fault(kind=FaultKind.HALF_BODY))
    with pytest.raises((requests.exceptions.ChunkedEncodingError, requests.exceptions.ConnectionError)):
        ask(simulator)


def test_a_gzip_bomb(simulator: Simulator) -> None:
    """A few kilobytes on the wire are many megabytes."""
    simulator.faults.add(Fault(kind=FaultKind.GZIP_BOMB, bytes=8 * 1024 * 1024))
    reply = ask(simulator)
    assert int(reply.headers["Content-Length"]) < 20_000
    assert len(reply.content) > 8 * 1024 * 1024
    assert reply.json() == {"data": []}


def test_a_redirect(simulator: Simulator) -> None:
    """To wherever it was ordered."""
    simulator.faults.add(Fault(kind=FaultKind.REDIRECT, location="http://127.0.0.1:9/canary"))
    reply = ask(simulator)
    assert (reply.status_code, reply.headers["Location"]) == (302, "http://127.0.0.1:9/canary")


def test_no_answer(simulator: Simulator) -> None:
    """Nothing comes; after its time the connection is closed."""
    simulator.faults.add(Fault(kind=FaultKind.HANG, seconds=0.3))
    host, _, port = simulator.base_url.removeprefix("http://").partition(":")
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        started = time.monotonic()
        connection.sendall(b"GET /servers?key=demo&secret=demo HTTP/1.1\r\nHost: x\r\n\r\n")
        assert connection.recv(1) == b""
        assert time.monotonic() - started >= 0.3


@pytest.mark.alone
def test_no_answer_does_not_keep_the_simulator_from_stopping() -> None:
    """A client that waits is let go."""
    simulator = Simulator(SimulatorOptions(listen_address="127.0.0.1:0"))
    base_url = simulator.start()
    simulator.faults.add(Fault(kind=FaultKind.HANG, seconds=600))
    host, _, port = base_url.removeprefix("http://").partition(":")
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        connection.sendall(b"GET /servers HTTP/1.1\r\nHost: x\r\n\r\n")
        while not simulator.faults.documents()[0]["hits"]:
            time.sleep(0.01)
        started = time.monotonic()
        simulator.stop()
        assert time.monotonic() - started < 5
        assert connection.recv(1) == b""


def test_latency(simulator: Simulator) -> None:
    """The answer is right, but late."""
    simulator.faults.add(Fault(kind=FaultKind.LATENCY, seconds=0.2))
    started = time.monotonic()
    assert len(ask(simulator).json()["data"]) == 25
    assert time.monotonic() - started >= 0.2


def test_only_the_calls_of_the_pattern_are_hit(simulator: Simulator) -> None:
    """The rest of the API works, and each call is counted with what became of it."""
    simulator.faults.add(Fault(kind=FaultKind.STATUS, status=503, path="servers/*/software", count=1))
    paths = ("servers", "servers/1/software", "servers/1/software")
    assert [ask(simulator, path).status_code for path in paths] == [200, 503, 200]
    counted = simulator.requests.document()
    assert counted["total"] == 3
    assert counted["by_endpoint"] == {
        "GET servers": {"count": 1, "statuses": {"200": 1}},
        "GET servers/:server/software": {"count": 2, "statuses": {"200": 1, "503": 1}},
    }
    assert simulator.requests.count("GET servers/:server/software") == 2
    assert "demo" not in str(counted)
