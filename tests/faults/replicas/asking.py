"""The gate, asked of random replicas, and what is true meanwhile."""

from __future__ import annotations

import contextlib
import random
import threading
import time
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

import psycopg
from tests.faults.truth.replies import Outcome
from tests.harness.replicas import ask_gate

if TYPE_CHECKING:
    from tests.faults.truth.replies import Sheet
    from tests.harness.replicas import Balancer, Replicas

LENIENT = {"max_by_severity": {"critical": 1000}, "max_unknown_software": 999}
"""A policy that minds nothing but what is not known, and what was told and not polled since."""
STRICT = {"max_total": 0}


class Truth:
    """What the API has said and what was acknowledged, with the time of each (monotonic seconds)."""

    def __init__(self, settle: float) -> None:
        self._settle = settle
        self._lock = threading.Lock()
        self.servers: dict[int, int] = {}
        """The server of each event."""
        self._acknowledged: dict[int, tuple[float, float]] = {}
        """When an event's first delivery that got a 202 was sent, and when it got it. Another one is no news."""
        self._failed: dict[int, float] = {}
        """When some gate first said so, by server."""
        self._polls: dict[int, list[tuple[float, float]]] = defaultdict(list)
        """When the call came in and when its answer left, by server."""

    def list_served(self, *_: object) -> None:
        """Of no interest."""

    def event_served(self, *_: object) -> None:
        """Of no interest."""

    def software_served(  # As the witness tells it.
        self, server_id: int, _page: int, arrived: float, left: float, sheet: Sheet, _true: Any
    ) -> None:
        """The API said what is installed on a server."""
        if sheet.outcome is Outcome.WHOLE:
            with self._lock:
                self._polls[server_id].append((arrived, left))

    def acknowledged(self, event_id: int, sent: float) -> None:
        """A delivery of this event got its 202."""
        with self._lock:
            self._acknowledged.setdefault(event_id, (sent, time.monotonic()))

    def failed(self, server_id: int) -> None:
        """A gate said ``fail``; what breaks is never mended."""
        with self._lock:
            self._failed.setdefault(server_id, time.monotonic())

    def objection(self, server_id: int, began: float, ended: float) -> str:
        """Why a ``pass`` in this time is false, or nothing.

        What an acknowledged delivery tells of counts until a poll that began ``settle`` later does not show it. What
        one replica has judged by, all have.
        """
        with self._lock:
            if self._failed.get(server_id, float("inf")) < began:
                return f"server {server_id}: failed {began - self._failed[server_id]:.2f} s before"
            told = max(
                (
                    sent
                    for event_id, (sent, at) in self._acknowledged.items()
                    if at < began and self.servers[event_id] == server_id
                ),
                default=float("-inf"),
            )
            polled = max((came for came, left in self._polls[server_id] if left <= ended), default=float("-inf"))
        if polled >= told + self._settle:
            return ""
        return f"server {server_id}: told {began - told:.2f} s before, and polled {began - polled:.2f} s before"


@dataclass
class Asking:
    """Asks the gate of random replicas and of the balancer, and holds each ``pass`` against the truth."""

    replicas: Replicas
    balancer: Balancer
    truth: Truth
    servers: int
    """Their ids are 1 to this."""
    lenient: int
    """With ids up to this, nothing but what is not known counts. The others begin without an issue."""
    every: float = 0.05
    """Seconds between two questions of each of the two that ask."""
    verdicts: Counter[str] = field(default_factory=Counter)
    false: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(number,), daemon=True) for number in range(2)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(60)

    def _run(self, seed: int) -> None:
        draw = random.Random(seed)
        while not self._stop.wait(self.every):
            server_id = draw.randint(1, self.servers)
            url = draw.choice([self.balancer.url, *(one.url for one in self.replicas)])
            began = time.monotonic()
            policy = STRICT if server_id > self.lenient else LENIENT
            said = ask_gate(url, {"servers": [server_id], "policy": policy}, timeout=5.0)
            if said == "fail":
                self.truth.failed(server_id)
            objection = self.truth.objection(server_id, began, time.monotonic())
            self.verdicts[f"{said}, rightly" if said == "pass" and not objection else said] += 1
            if said == "pass" and objection:
                self.false.append(f"{url}: {objection}")

    def await_pass(self, within: float) -> None:
        """Wait until something passes, if nothing new hinders it."""
        before, end = self.verdicts["pass, rightly"], time.monotonic() + within
        while self.verdicts["pass, rightly"] < before + 3 and time.monotonic() < end:
            time.sleep(0.1)


class Watching:
    """Looks at the database all the time for servers that are told to be gone."""

    def __init__(self, url: str) -> None:
        self._url = url.replace("+psycopg", "")
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.gone: set[str] = set()
        """Their names, as they were ever seen."""

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(60)

    def _run(self) -> None:
        while not self._stop.wait(0.2):
            # The database may be away just then.
            with contextlib.suppress(psycopg.Error), psycopg.connect(self._url, autocommit=True) as connection:
                while not self._stop.wait(0.05):
                    self.gone |= {str(row[0]) for row in connection.execute(_GONE)}


_GONE = b"SELECT name FROM servers WHERE gone_at IS NOT NULL"
