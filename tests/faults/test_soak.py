"""The promise on long runs: a day of work, pressed into minutes, and nothing has grown."""

from __future__ import annotations

import random
import re
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import requests
from tests.harness.events import report
from tests.harness.fleet import total, wait_for_polls
from tests.harness.process import CONFIG, Exporter
from tests.harness.promises import measured
from tests.harness.sizes import FULL, LONGEST

from patrolserver_exporter.simulator.options import SimulatorOptions
from patrolserver_exporter.simulator.server import Simulator

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.alone, pytest.mark.promise("soak")]

SERVERS = 50
POLLS_A_DAY = 96
"""Of one server, every 15 minutes."""
SECONDS = 600.0 if FULL else 30.0
WARM_UP = 0.4
"""Share of the time after which caches and pools are as full as they become."""
ROUND = 0.5
MIB = 1024 * 1024


@pytest.fixture
def simulator() -> Iterator[Simulator]:
    with Simulator(SimulatorOptions(listen_address="127.0.0.1:0", servers=SERVERS, software=12)) as running:
        yield running


@dataclass(frozen=True)
class Size:
    """What an exporter holds at one moment."""

    rss: int
    threads: int
    descriptors: int
    store: int

    @classmethod
    def of(cls, exporter: Exporter) -> Size:
        """Look at its process and its files."""
        assert exporter.process is not None
        process = Path(f"/proc/{exporter.process.pid}")
        files = exporter.folder.glob("state.db*")
        return cls(
            exporter.rss(),
            len(list((process / "task").iterdir())),
            len(list((process / "fd").iterdir())),
            sum(file.stat().st_size for file in files),
        )

    def __str__(self) -> str:
        return (
            f"{self.rss / MIB:.1f} MiB, {self.threads} threads, {self.descriptors} descriptors, "
            f"store {self.store / MIB:.2f} MiB"
        )


class Day:
    """What happens to an exporter: deliveries, some forged and some twice, scrapes, gates, pages, reloads."""

    def __init__(self, exporter: Exporter, simulator: Simulator) -> None:
        self.done: Counter[str] = Counter()
        self._exporter = exporter
        self._simulator = simulator
        self._draw = random.Random(1)

    def round(self) -> None:
        """One round of everything."""
        draw, exporter = self._draw, self._exporter
        server = draw.randint(1, SERVERS)
        change = draw.choice(("exploitable", "outdated"))
        control = f"{self._simulator.base_url}/-/simulator"
        # Mended first: a server on which all is broken has nothing to break.
        for what, order in (("mend", {"server": str(server)}), ("break", {"server": str(server), "kind": change})):
            requests.post(f"{control}/{what}", json=order, timeout=10).raise_for_status()
        # Few names, so that issues come again and the state is not meant to grow.
        event = report(self._simulator, server, f"pkg-{draw.randrange(20)}")
        for event_id in (event.id, event.id, draw.randrange(10**9, 10**10)):
            self._count("deliveries", exporter.deliver(event_id).status_code == 202)
        self._count("scrapes", exporter.get("/metrics", headers={"Accept-Encoding": "gzip"}).ok)
        body = {"servers": ["*"], "policy": {"max_total": 0}}
        gate = requests.post(f"{exporter.url}/api/v1/gate", json=body, timeout=10)
        self._count("gates", gate.ok)
        for path in ("/", f"/servers/{server}", "/api/v1/issues?limit=100", "/api/v1/changes?after=0"):
            self._count("pages", exporter.get(path).status_code in {200, 400, 410})
        if self.done["scrapes"] % 10 == 0:
            reload = requests.post(f"{exporter.url}/-/reload", headers=exporter.operator, timeout=20)
            self._count("reloads", reload.ok)
        with pytest.raises(requests.ConnectionError):
            # A client that goes away in the middle of what it says.
            requests.post(f"{exporter.url}/webhook/x", data=_breaks_off(), timeout=5)
        self.done["clients that broke off"] += 1

    def _count(self, what: str, ok: bool) -> None:  # noqa: FBT001 - reads as what it counts
        assert ok, what
        self.done[what] += 1


def _breaks_off() -> Iterator[bytes]:
    yield b"{"
    raise requests.ConnectionError


@pytest.mark.timeout(LONGEST)
def test_nothing_grows_over_a_day(tmp_path: Path, simulator: Simulator, request: pytest.FixtureRequest) -> None:
    """After two fifths of the day memory, threads, descriptors and the state's files are as large as at its end."""
    interval = max(SECONDS / POLLS_A_DAY, 1.0)
    config = CONFIG.format(
        api_url=simulator.base_url,
        interval=f"{interval:.0f}s",
        settle="1s",
        store_url=f"sqlite:///{tmp_path / 'state.db'}",
    )
    with Exporter(tmp_path, config) as exporter:
        wait_for_polls(exporter, SERVERS)
        day, sizes, began = Day(exporter, simulator), [Size.of(exporter)], time.monotonic()
        while (elapsed := time.monotonic() - began) < SECONDS:
            day.round()
            if len(sizes) == 1 and elapsed > WARM_UP * SECONDS:
                sizes.append(Size.of(exporter))
            time.sleep(max(0.0, ROUND - (time.monotonic() - began - elapsed)))  # The pace of the load.
        _, warm, end = *sizes, Size.of(exporter)
        polls = total(exporter.metrics(), "patrolserver_exporter_api_requests_total")
        load = ", ".join(f"{count} {what}" for what, count in day.done.items())
        # Rows of applied deliveries and of the change feed are kept for days, as they should be.
        rows = day.done["deliveries"] * (1 - WARM_UP)
        measured(request.node, sent=day.done["deliveries"], load=f"{load}, {polls:.0f} calls", bound=f"{warm} → {end}")
        # SQLite's caches hold what is added, those of readers, too, until they are full.
        assert end.rss - warm.rss < (6 if FULL else 12) * MIB + 2 * (end.store - warm.store)
        assert end.threads <= warm.threads + 2
        assert end.descriptors <= warm.descriptors + 8
        assert end.store - warm.store < 2 * MIB + 2048 * rows
        assert re.search(r"Traceback|level=error", exporter.log()) is None
