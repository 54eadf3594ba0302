"""The process and the API calls of an exporter that runs for a week: chance that is the same on every run."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

from patrolserver_exporter import __version__
from patrolserver_exporter.issues.model import Waiver
from patrolserver_exporter.live.account_series import AccountNow, accounts_now
from patrolserver_exporter.live.gate_series import gate_series
from patrolserver_exporter.live.own_metrics import InboxState, Telemetry
from patrolserver_exporter.live.waiver_series import WaiverCollector

if TYPE_CHECKING:
    import random
    from collections.abc import Iterable, Iterator

    from prometheus_client.core import Metric

    from patrolserver_exporter.live.gate_series import Judged

STATES = ("received", "fetching", "retry", "unverified", "blocked", "applied", "rejected", "expired", "dead")
BUDGET = 600.0
POLL_INTERVAL = 900.0
WAIVERS = (Waiver(server="*.lab.example.org", software="python", until=dt.date(2027, 1, 31), reason="replaced"),)


class Machine:
    """One run of the exporter, from a start to a restart: its counters begin at zero."""

    def __init__(self, account: str, chance: random.Random, started: float, applied: int) -> None:
        """``applied``: deliveries that the store remembers from before."""
        self._account = account
        self._chance = chance
        self._started = started
        self._cpu = 2.1
        self._waiting: dict[str, tuple[int, float]] = {}
        self.applied = applied
        self.judged: tuple[Judged, ...] = ()
        self._now = started
        self._delivered_at: float | None = None
        self.telemetry = Telemetry(version=__version__, revision="demo", process_metrics=False)
        self.telemetry.watch_account(account)
        self.telemetry.watch_inbox(self._inbox)
        self.telemetry.register(_Process(self))
        self.telemetry.watch_store(writable=lambda: True, last_follow_at=lambda: self._now)
        self.telemetry.show(accounts_now(self._account_now))
        self.telemetry.show(gate_series(lambda: self.judged))
        self.telemetry.show(WaiverCollector(lambda: WAIVERS))
        self.telemetry.config_loaded(started)
        self.telemetry.poll_interval(account, POLL_INTERVAL)

    def calls(self, endpoint: str, number: int, *, broken: bool = False) -> None:
        """Calls of the API, as long as they take; all fail while it is ``broken``."""
        for _ in range(number):
            slow = self._chance.random() < 0.02
            seconds = 10.0 if broken else self._chance.lognormvariate(-1.6, 0.45) * (8 if slow else 1)
            odd = self._chance.random() < 0.002
            self.telemetry.api_call(self._account, endpoint, seconds, "timeout" if broken or odd else None)
        self._cpu += 0.0011 * number

    def deliver(self, identifier: str, *, twice: bool = False) -> None:
        """A delivery that is applied within seconds."""
        self.telemetry.delivery(identifier, "accepted")
        if twice:
            self.telemetry.delivery(identifier, "duplicate")
        self.telemetry.event_visible(self._chance.lognormvariate(-0.7, 0.8))
        self.applied += 1
        self._delivered_at = self._now

    def knock(self) -> None:
        """Somebody without the token."""
        self.telemetry.delivery("other", "refused")

    def wait(self, state: str, number: int, since: float) -> None:
        """Deliveries that wait for the API; 0 ends it."""
        self._waiting[state] = (number, since)

    def live(self, now: float, seconds: float, calls: int) -> None:
        """Time passes, until ``now``."""
        self._now = now
        self._cpu += seconds * self._chance.uniform(0.008, 0.013)
        self.telemetry.api_budget(self._account, BUDGET - calls - self._chance.randrange(6))

    @property
    def cpu(self) -> float:
        """CPU time used, in seconds."""
        return self._cpu

    @property
    def started(self) -> float:
        """Seconds since the epoch."""
        return self._started

    def memory(self) -> float:
        """Resident bytes."""
        return 74e6 + min(self._cpu, 400.0) * 9e3 + self._chance.uniform(0, 6e5)

    def files(self) -> int:
        """Open files and sockets."""
        return 24 + self._chance.randrange(9)

    def _account_now(self) -> Iterable[AccountNow]:
        return [
            AccountNow(
                owned=True,
                account=self._account,
                webhook_enabled=True,
                last_delivery_at=self._delivered_at,
                clock_offset=0.4,
            )
        ]

    def _inbox(self) -> Iterable[InboxState]:
        for state in STATES:
            number, since = self._waiting.get(state, (0, 0.0))
            if state == "applied":
                yield InboxState(state=state, deliveries=self.applied, oldest_at=self._started)
            else:
                yield InboxState(state=state, deliveries=number, oldest_at=since if number else None)


class _Process:
    """What the client library's process collector would tell of it."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine

    def describe(self) -> Iterable[Metric]:
        """Nothing: the registry has no other collector with these names."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """Give the families that the dashboards show, and Prometheus' own ``up``."""
        machine = self._machine
        yield CounterMetricFamily("process_cpu_seconds", "", value=machine.cpu)
        for name, value in (
            ("process_resident_memory_bytes", machine.memory()),
            ("process_start_time_seconds", machine.started),
            ("process_open_fds", machine.files()),
            ("process_max_fds", 1024),
            ("up", 1),
        ):
            yield GaugeMetricFamily(name, "", value=value)
