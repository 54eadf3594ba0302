"""The promise on a database that is late, as at boot: the start waits for it, tells systemd, and can be ended."""

from __future__ import annotations

import socket
import threading
import time
from typing import TYPE_CHECKING

import pytest
from tests.harness.process import Exporter
from tests.harness.prometheus import free_port
from tests.harness.waiting import eventually

from patrolserver_exporter.simulator.options import SimulatorOptions
from patrolserver_exporter.simulator.server import Simulator

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.harness.postgres import PostgresCluster

pytestmark = [pytest.mark.calm, pytest.mark.promise("late-database")]


@pytest.fixture(scope="module")
def simulator() -> Iterator[Simulator]:
    with Simulator(SimulatorOptions(listen_address="127.0.0.1:0", servers=2, software=2)) as running:
        yield running


@pytest.fixture
def systemd(tmp_path: Path) -> Iterator[socket.socket]:
    """A socket on which systemd would hear."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as heard:
        heard.bind(str(tmp_path / "notify"))
        heard.settimeout(20)
        yield heard


def until_told(systemd: socket.socket, wanted: bytes) -> list[bytes]:
    """All that it is told, up to that."""
    told: list[bytes] = []
    while not told or wanted not in told[-1]:
        told.append(systemd.recv(4096))
    return told


def test_the_start_waits_for_a_database_and_tells_systemd(
    tmp_path: Path, simulator: Simulator, systemd: socket.socket, postgres: PostgresCluster
) -> None:
    """While nothing answers it is not ready and asks for more time; when the database is there, it goes on."""
    url = postgres.create_database()
    postgres.stop_at_once()
    try:
        exporter = Exporter.watching(
            tmp_path, simulator.base_url, store_url=url, environ={"NOTIFY_SOCKET": str(tmp_path / "notify")}
        )
        exporter.start(wait=False)
        waiting = [*until_told(systemd, b"EXTEND_TIMEOUT_USEC="), *until_told(systemd, b"EXTEND_TIMEOUT_USEC=")]
        assert b"STATUS=Waiting for the database" in waiting[-1]
        assert not any(b"READY=1" in told for told in waiting)
        assert "The database does not answer yet; the start waits for it" in exporter.log()
        assert not exporter.has_ended
    finally:
        postgres.start()
    assert b"READY=1" in until_told(systemd, b"READY=1")[-1]
    assert "The database answers" in exporter.log()
    assert exporter.terminate() == 0


@pytest.mark.parametrize("host", ["127.0.0.1", "database.invalid"])
def test_a_signal_ends_the_wait_at_once(tmp_path: Path, simulator: Simulator, host: str) -> None:
    """Nobody listens, or the name means nothing yet: SIGTERM ends the start within a second or two, with 0."""
    url = f"postgresql+psycopg://user:password-1234@{host}:{free_port()}/patrol"
    exporter = Exporter.watching(tmp_path, simulator.base_url, store_url=url)
    exporter.start(wait=False)
    eventually(lambda: "the start waits for it" in exporter.log(), what="the line")
    began = time.monotonic()
    assert exporter.terminate() == 0
    assert time.monotonic() - began < 5
    assert "password-1234" not in exporter.log()
    assert "Traceback" not in exporter.log()


class RefusingDatabase:
    """Answers each connection with the next error, and then with the last one again, as PostgreSQL would."""

    def __init__(self, *errors: tuple[str, str]) -> None:
        self._errors = list(errors)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            code, message = self._errors.pop(0) if len(self._errors) > 1 else self._errors[0]
            with connection:
                while (request := connection.recv(4096))[4:8] in {SSL_REQUEST, GSS_REQUEST}:
                    connection.sendall(b"N")
                assert request
                fields = f"SFATAL\0VFATAL\0C{code}\0M{message}\0\0".encode()
                connection.sendall(b"E" + (len(fields) + 4).to_bytes(4, "big") + fields)

    def close(self) -> None:
        """Take no more connections."""
        self._listener.close()


SSL_REQUEST, GSS_REQUEST = (number.to_bytes(4, "big") for number in (80877103, 80877104))


def test_a_wrong_password_ends_the_start_even_after_a_wait(tmp_path: Path, simulator: Simulator) -> None:
    """While it starts up the exporter waits; when it refuses the password, that is told with exit code 1."""
    database = RefusingDatabase(
        ("57P03", "the database system is starting up"),
        ("57P03", "the database system is starting up"),
        ("28P01", 'password authentication failed for user "patrol"'),
    )
    url = f"postgresql+psycopg://patrol:password-1234@127.0.0.1:{database.port}/patrol"
    exporter = Exporter.watching(tmp_path, simulator.base_url, store_url=url)
    exporter.start(wait=False)
    assert exporter.wait() == 1
    database.close()
    assert "the start waits for it" in exporter.log()
    assert "Correct the user and the password in store.url" in exporter.log()
    assert "password-1234" not in exporter.log()
    assert "Traceback" not in exporter.log()


def test_what_waiting_cannot_cure_ends_the_start(
    tmp_path: Path, simulator: Simulator, postgres: PostgresCluster
) -> None:
    """A database or a user that does not exist: exit code 1, and what to do."""
    url = postgres.create_database()
    name = url.partition("@/")[2].partition("?")[0]
    for wrong, cure in (
        (url.replace(f"/{name}?", "/nowhere?"), "Create the database"),
        (url.replace("//patrol@", "//nobody@"), "Create the user"),
    ):
        exporter = Exporter.watching(tmp_path, simulator.base_url, store_url=wrong)
        exporter.start(wait=False)
        assert exporter.wait() == 1
        assert cure in exporter.log()
        assert "Traceback" not in exporter.log()
