"""The promise on a hang inside: systemd's watchdog is only fed while everything makes progress."""

from __future__ import annotations

import asyncio
import signal
import socket
import threading
import time
from typing import TYPE_CHECKING

import pytest
from tests.harness.process import CONFIG, Exporter
from tests.harness.waiting import eventually

from patrolserver_exporter.app.service import Service, ServiceOptions
from patrolserver_exporter.clock import SystemClock
from patrolserver_exporter.config.load import load_config
from patrolserver_exporter.logs import setup_logging

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from patrolserver_exporter.simulator.server import Simulator

pytestmark = [pytest.mark.calm, pytest.mark.promise("hang")]


class Systemd:
    """The other end of NOTIFY_SOCKET."""

    def __init__(self, path: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(path))
        self.environ = {"NOTIFY_SOCKET": str(path), "WATCHDOG_USEC": "60000000"}

    def hear(self, within: float) -> str:
        """The next message; empty if none comes in time."""
        self._socket.settimeout(within)
        try:
            return self._socket.recv(1024).decode()
        except TimeoutError:
            return ""

    def forget(self) -> None:
        """Leave out what was said so far."""
        self._socket.settimeout(0)
        try:
            while self._socket.recv(1024):
                pass
        except BlockingIOError:
            return

    def close(self) -> None:
        """Listen no more."""
        self._socket.close()


@pytest.fixture
def systemd(tmp_path: Path) -> Iterator[Systemd]:
    listening = Systemd(tmp_path / "notify")
    yield listening
    listening.close()


def test_a_stopped_process_feeds_no_watchdog(tmp_path: Path, simulator: Simulator, systemd: Systemd) -> None:
    """READY=1 once it listens, then WATCHDOG=1 every second; none while it is stopped, and STOPPING=1 at the end."""
    with Exporter.watching(tmp_path, simulator.base_url, environ=systemd.environ) as exporter:
        assert systemd.hear(5.0).splitlines()[0] == "READY=1"
        assert [systemd.hear(3.0) for _ in range(3)] == ["WATCHDOG=1"] * 3
        exporter.signal(signal.SIGSTOP)
        systemd.forget()
        assert systemd.hear(3.0) == ""
        exporter.signal(signal.SIGCONT)
        assert systemd.hear(3.0) == "WATCHDOG=1"
        assert exporter.terminate() == 0
        said = [systemd.hear(1.0) for _ in range(4)]
        assert "STOPPING=1" in said


def test_a_store_that_hangs_starves_the_watchdog(tmp_path: Path, simulator: Simulator, systemd: Systemd) -> None:
    """While the store's thread hangs, other parts go on and the watchdog hears nothing; when it goes on, it does."""
    config_file = tmp_path / "patrolserver.yml"
    config_file.touch(mode=0o600)
    config_file.write_text(
        CONFIG.format(
            api_url=simulator.base_url, interval="10m", settle="1s", store_url=f"sqlite:///{tmp_path / 'state.db'}"
        )
    )
    options = ServiceOptions(
        config_file=config_file, listen_addresses=("127.0.0.1:0",), environ=systemd.environ, hangs_after=2.0
    )
    service = Service(
        options, load_config(config_file, {}), clock=SystemClock(), redactor=setup_logging("error", "logfmt")
    )
    release = threading.Event()
    seen: list[str] = []

    def hang_for_a_while() -> None:
        try:
            assert systemd.hear(5.0).splitlines()[0] == "READY=1"
            assert systemd.hear(3.0) == "WATCHDOG=1"
            service.context().store.submit(lambda _: release.wait(30))
            eventually(lambda: not systemd.hear(2.5), within=10.0, what="silence")
            release.set()
            began = time.monotonic()
            seen.append(systemd.hear(5.0))
            assert time.monotonic() - began < 5.0
        finally:
            release.set()
            loops[0].call_soon_threadsafe(service.stop)

    async def serve() -> None:
        loops.append(asyncio.get_running_loop())
        watcher.start()
        await service.run()

    loops: list[asyncio.AbstractEventLoop] = []
    watcher = threading.Thread(target=hang_for_a_while)
    asyncio.run(serve())
    watcher.join()
    assert seen == ["WATCHDOG=1"]
