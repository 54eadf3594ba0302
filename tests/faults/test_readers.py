"""The promise on many readers: they hold up neither deliveries nor scrapes, and are told when to come back."""

from __future__ import annotations

import statistics
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest
from tests.bench.bench_api import POLLED, fill
from tests.harness.process import Exporter
from tests.harness.promises import measured
from tests.harness.readers import Request, deliver, readers
from tests.harness.sizes import FULL
from tests.harness.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = [pytest.mark.alone, pytest.mark.promise("readers")]

CLIENTS = 24
MOST_SECONDS = 0.1 if FULL else 2.0
"""In which 99 of 100 deliveries are taken in. The quick run shares its machine with other tests."""


@pytest.fixture
def exporter(tmp_path: Path) -> Iterator[Exporter]:
    """Over a fleet that was filled before; nobody listens where it would poll."""
    url = f"sqlite:///{tmp_path / 'state.db'}"
    fill(url, 3000 if FULL else 300, 12)
    with Exporter.watching(tmp_path, "http://127.0.0.1:1", store_url=url, interval="1h") as started:
        eventually(lambda: not any(started.samples(POLLED).values()), within=60, what="the first failed polls")
        yield started


@contextmanager
def scraped(exporter: Exporter) -> Iterator[list[float]]:
    """Scrapes all the while; the list gets the seconds of each."""
    took: list[float] = []
    stop = threading.Event()

    def scrape() -> None:
        while not stop.wait(0.2):
            began = time.perf_counter()
            exporter.metrics()
            took.append(time.perf_counter() - began)

    thread = threading.Thread(target=scrape)
    thread.start()
    try:
        yield took
    finally:
        stop.set()
        thread.join()


@pytest.mark.parametrize("is_equal", [True, False], ids=["the same question", "each its own"])
def test_many_gates_of_the_whole_fleet_hold_up_no_delivery(
    exporter: Exporter, request: pytest.FixtureRequest, *, is_equal: bool
) -> None:
    """Each delivery is taken in, soon; a reader gets its verdict, or is told when to come back."""
    port = int(exporter.url.rpartition(":")[2])
    gates = [
        Request("POST", "/api/v1/gate", {"servers": ["*"], "policy": {"max_total": 1 if is_equal else number}})
        for number in range(CLIENTS)
    ]
    alone = deliver(port, 100, every=0.02)
    with readers(port, gates, CLIENTS) as answers, scraped(exporter) as scrapes:
        meanwhile = deliver(port, 200, every=0.02, first=1000)
    (got,) = answers
    measured(
        request.node,
        sent=300,
        lost=alone.refused + meanwhile.refused,
        load=f"{CLIENTS} gates",
        bound=f"p99 {meanwhile.p99 * 1e3:.0f} ms, without them {alone.p99 * 1e3:.0f} ms",
    )
    assert (alone.refused, meanwhile.refused) == (0, 0)
    assert meanwhile.p99 < MOST_SECONDS
    assert statistics.median(scrapes) < 1
    assert got.statuses[200] > 0
    assert set(got.statuses) <= {200, 503}
    assert got.without_retry_after == 0


COMMAND = """
import gc, os, signal, sys
from pathlib import Path
from patrolserver_exporter.app.service import ServiceOptions
from patrolserver_exporter.commands.serve import serve
from patrolserver_exporter.config.load import load_config
from patrolserver_exporter.logs import setup_logging

def started(_):
    print(sys.getswitchinterval(), gc.get_freeze_count())
    os.kill(os.getpid(), signal.SIGTERM)

file = Path(sys.argv[1])
options = ServiceOptions(config_file=file, listen_addresses=("127.0.0.1:0",))
sys.exit(serve(options, load_config(file, {}), setup_logging("error", "logfmt"), on_started=started))
"""


def test_who_computes_gives_way_soon(tmp_path: Path) -> None:
    """What is a matter of a tenth of a second on a machine of its own shows here, however busy this one is."""
    exporter = Exporter.watching(tmp_path, "http://127.0.0.1:1")
    command = [sys.executable, "-c", COMMAND, str(exporter.config_file)]
    ended = subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, text=True, timeout=60)
    switch_interval, left_alone = ended.stdout.split()
    assert float(switch_interval) <= 0.001
    assert int(left_alone) > 10_000, "the garbage collection looks through all that was there at the start"


def test_readers_of_every_kind_leave_room(exporter: Exporter) -> None:
    """Lists, pages and gates at the same time, more of them than there is room for."""
    port = int(exporter.url.rpartition(":")[2])
    everything = [
        Request("GET", "/api/v1/issues?limit=1000"),
        Request("GET", "/"),
        Request("GET", "/api/v1/servers?limit=1000"),
        Request("POST", "/api/v1/gate", {"servers": ["*"], "detail": "all"}),
    ]
    with readers(port, everything, 2 * CLIENTS) as answers:
        found = deliver(port, 100, every=0.02)
        ready = exporter.get("/-/ready")
    (got,) = answers
    assert found.refused == 0
    assert found.p99 < 2 * MOST_SECONDS
    assert ready.status_code == 200
    assert set(got.statuses) <= {200, 503}
    assert got.without_retry_after == 0
