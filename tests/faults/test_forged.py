"""The promise on forged deliveries: a flood of them burns no quota, delays no poll, and fills no memory."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from typing import TYPE_CHECKING, Self

import pytest
import requests
from tests.harness.fleet import LAST_POLL, total, wait_for_polls
from tests.harness.process import CONFIG, TOKEN, Exporter
from tests.harness.promises import measured
from tests.harness.sizes import FULL, LONGEST
from tests.harness.waiting import eventually

from patrolserver_exporter.simulator.options import SimulatorOptions
from patrolserver_exporter.simulator.server import Simulator

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = [pytest.mark.alone, pytest.mark.promise("forged")]

log = logging.getLogger(__name__)

SERVERS = 20
FORGED = 1_000_000 if FULL else 20_000
CONNECTIONS = 64
INTERVAL = 15.0
INBOX_LIMIT = 5_000
EVENT_CALLS = "GET webhooks/:webhook/events/:event"
MIB = 1024 * 1024


@pytest.fixture
def simulator() -> Iterator[Simulator]:
    with Simulator(SimulatorOptions(listen_address="127.0.0.1:0", servers=SERVERS, software=6)) as running:
        yield running


def forge(url: str) -> dict[bytes, int]:
    """Post made-up events over 64 connections as fast as they are answered; the answers, by status line."""
    answers: dict[bytes, int] = {}
    numbers = iter(range(10**9, 10**9 + FORGED))
    host, port = url.removeprefix("http://").split(":")

    async def connection() -> None:
        reader, writer = await asyncio.open_connection(host, int(port))
        for number in numbers:
            body = b'{"webhook_patrolserver":1,"identifier":"webhook.new_server_issues","event_id":%d,"webhook_id":1}'
            content = body % number
            head = b"POST /webhook/%s HTTP/1.1\r\nHost: %s\r\nContent-Length: %d\r\n\r\n"
            writer.write(head % (TOKEN.encode(), host.encode(), len(content)) + content)
            answer = await reader.readuntil(b"\r\n\r\n")
            status = answer.partition(b"\r\n")[0]
            answers[status] = answers.get(status, 0) + 1
            length = int(answer.lower().partition(b"content-length:")[2].partition(b"\r\n")[0])
            await reader.readexactly(length)
        writer.close()

    async def flood() -> None:
        await asyncio.gather(*(connection() for _ in range(CONNECTIONS)))

    asyncio.run(flood())
    return answers


class Watch:
    """Looks at the exporter once in a while: its memory, and how long ago its servers were polled."""

    def __init__(self, exporter: Exporter) -> None:
        self.memory = 0
        self.age = 0.0
        self.inbox = 0.0
        self.slowest_scrape = 0.0
        self._exporter = exporter
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(0.5):
            began = time.monotonic()
            polled = self._exporter.samples(LAST_POLL)
            self.slowest_scrape = max(self.slowest_scrape, time.monotonic() - began)
            self.age = max(self.age, *(time.time() - at for at in polled.values()))
            self.memory = max(self.memory, self._exporter.rss())
            waiting = total(self._exporter.metrics(), "patrolserver_exporter_inbox_deliveries")
            self.inbox = max(self.inbox, waiting)


@pytest.mark.timeout(LONGEST)
def test_a_flood_of_forged_events_does_no_harm(
    tmp_path: Path, simulator: Simulator, request: pytest.FixtureRequest
) -> None:
    """A valid token in wrong hands: at most 60 event calls a minute, polls in time, and a real event still counts."""
    config = CONFIG.format(
        api_url=simulator.base_url,
        interval=f"{INTERVAL:.0f}s",
        settle="1s",
        store_url=f"sqlite:///{tmp_path / 'state.db'}",
    ).replace("max_event_requests_per_minute: 60000", f"max_event_requests_per_minute: 60, inbox_limit: {INBOX_LIMIT}")
    with Exporter(tmp_path, config) as exporter:
        wait_for_polls(exporter, SERVERS)
        # The first turns are spread over the interval.
        wait_for_polls(exporter, SERVERS, after=time.time(), within=2 * INTERVAL)
        real = threading.Timer(2.0, _break_something, (simulator, exporter))
        with Watch(exporter) as watch:
            real.start()
            began = time.monotonic()
            answers = forge(exporter.url)
            sent_in = time.monotonic() - began
            real.join()
            eventually(
                lambda: total(exporter.metrics(), "patrolserver_server_issues", severity="critical") == 1.0,
                within=2 * INTERVAL,
                what="the effect of the real event",
            )
            elapsed = time.monotonic() - began
        calls = simulator.requests.count(EVENT_CALLS)
        log.info(
            "%d forged in %.1f s, %d event calls in %.1f s, oldest poll %.1f s, inbox %d, %d MiB, scrape %.3f s",
            *(FORGED, sent_in, calls, elapsed, watch.age, watch.inbox, watch.memory // MIB, watch.slowest_scrape),
        )
        measured(
            request.node,
            sent=FORGED,
            load=f"forged events over {CONNECTIONS} connections",
            bound=f"{calls} event calls in {elapsed:.0f} s, {watch.memory // MIB} MiB, oldest poll {watch.age:.0f} s",
        )
        assert answers == {b"HTTP/1.1 202 Accepted": FORGED}
        assert calls <= 60 * (1 + elapsed / 60)
        assert watch.age < 1.25 * INTERVAL + 2.0
        assert watch.inbox <= INBOX_LIMIT
        assert watch.memory < 150 * MIB
        assert exporter.value("patrolserver_up", account="main") == 1.0
        overflows = exporter.value("patrolserver_exporter_inbox_overflows_total", account="main")
        assert overflows is not None
        assert overflows > 0


def _break_something(simulator: Simulator, exporter: Exporter) -> None:
    broken = {"server": "7", "kind": "exploitable", "risk": 9.8}
    requests.post(f"{simulator.base_url}/-/simulator/break", json=broken, timeout=10).raise_for_status()
    assert exporter.deliver(len(simulator.world.outbox)).status_code == 202
