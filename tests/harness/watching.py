"""All accounts on a real store before a real simulator; ticked by the test."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any, Self, TypeVar

from tests.unit.sync.accounts import MAIN, SETTLE, account, configured

from patrolserver_exporter.clock import SteadyClock, SystemClock
from patrolserver_exporter.config.schema import Issues, Poll, Webhook
from patrolserver_exporter.inbox import deliveries
from patrolserver_exporter.inbox.deliveries import Acceptance, NewDelivery
from patrolserver_exporter.inbox.intake import BoundedInbox
from patrolserver_exporter.live.effects import InboxMoved
from patrolserver_exporter.live.own_metrics import Telemetry
from patrolserver_exporter.live.publisher import Publisher
from patrolserver_exporter.simulator.faults import Fault, FaultKind
from patrolserver_exporter.simulator.options import SimulatorOptions
from patrolserver_exporter.simulator.server import Simulator
from patrolserver_exporter.simulator.software import Change, Kind
from patrolserver_exporter.store import Store, StoreUnavailable, fleet
from patrolserver_exporter.sync.accounts import Accounts
from patrolserver_exporter.sync.schedule import Job

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.harness.ticking import HeldClock

    from patrolserver_exporter.config.schema import Config
    from patrolserver_exporter.inbox.deliveries import Delivery
    from patrolserver_exporter.issues.model import Issue
    from patrolserver_exporter.store import Unit
    from patrolserver_exporter.store.fleet import AccountRecord, ServerRecord
    from patrolserver_exporter.sync.account import RunningAccount
    from patrolserver_exporter.sync.poller import AccountPoller
    from patrolserver_exporter.sync.schedule import Task

T = TypeVar("T")
SOFTWARE = "GET servers/:server/software"
LIST = "GET servers"
EVENT = "GET webhooks/:webhook/events/:event"
QUICK = Poll(interval=900.0, timeout=2.0, max_requests_per_minute=60_000)


class FailingStore(Store):
    """A store whose disk is full now and then."""

    full = threading.Event()

    def run(self, work: Callable[[Unit], T], *accounts: str) -> T:
        """As the store does it, unless the disk is full."""
        if self.full.is_set():
            raise StoreUnavailable("The store cannot write: database or disk is full")
        return super().run(work, *accounts)


class Watching:
    """Start it with a configuration of one account named main; everything ends with the block."""

    def __init__(
        self, url: str, *, servers: int = 3, store: type[Store] = Store, clock: HeldClock | None = None
    ) -> None:
        self.simulator = Simulator(SimulatorOptions(listen_address="127.0.0.1:0", servers=servers, software=4))
        self.simulator.start()
        self._url = url
        self._store_type = store
        self.clock = SteadyClock(clock or SystemClock())
        self.begin()

    def begin(self) -> None:
        """Open the store and build everything on it, as a start does."""
        self.telemetry = Telemetry(version="0", revision="0", process_metrics=False)
        self.publisher = Publisher(self.telemetry, self.clock, configured().metrics)
        self.store = self._store_type(self._url, self.publisher.publish)
        self.accounts = Accounts(self.store, self.publisher, self.telemetry, self.clock)

    def end(self) -> None:
        """Stop it, as a stop does."""
        self.accounts.stop()
        self.store.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self.end()
        finally:
            self.simulator.stop()

    def config(self, *, settle: float = SETTLE, poll: Poll = QUICK, **of_account: Any) -> Config:
        """A configuration that leads to the simulator."""
        made = account(api_url=self.simulator.base_url, **of_account)
        webhook = Webhook(max_event_requests_per_minute=60_000)
        return configured(made, poll=poll, issues=Issues(settle=settle), webhook=webhook)

    def start(self, **settings: Any) -> Config:
        """Watch the account, and wait until every server was polled."""
        config = self.config(**settings)
        self.accounts.start(config)
        count = len(self.simulator.world.servers(self.simulator.world.demo))
        self.until(lambda: len(self.polled()) == count, "the first polls")
        return config

    def until(self, holds: Callable[[], T], what: str = "it", within: float = 20.0) -> T:
        """Tick until it holds."""
        began = time.monotonic()
        while True:
            self.accounts.tick()
            found = holds()
            if found:
                return found
            waited = time.monotonic() - began
            assert waited < within, f"{what} did not come about"
            time.sleep(min(max(waited / 20, 0.01), 0.1))

    def tick_for(self, seconds: float) -> None:
        """Let time pass, where what is tested is that nothing happens."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.accounts.tick()
            time.sleep(0.01)

    def rest(self) -> int:
        """Tick until no call is under way; how many were made in all. With a held clock, no tick starts another."""

        def resting() -> bool:
            return not self.in_flight() and not self.account._listing  # noqa: SLF001  # Nobody else asks.

        for _ in range(3):
            self.until(resting, "the end of all calls")
        return int(str(self.simulator.requests.document()["total"]))

    # The other side

    def count(self, label: str) -> int:
        """How often the API was called so."""
        return self.simulator.requests.count(label)

    def fault(self, kind: str, path: str, **settings: Any) -> int:
        """From now on these calls fail."""
        return self.simulator.faults.add(Fault(kind=FaultKind(kind), path=path, **settings))

    def broken(self, server_id: int = 1, *, at_scan: bool = False) -> int:
        """Software of a server breaks; the id of the event that tells of it."""
        world = self.simulator.world
        made = len(world.outbox)
        server = world.server(world.demo, server_id)
        world.change(server, Change(Kind.OUTDATED), at_scan=at_scan, tell=True)
        assert len(world.outbox) == made + 1
        return made + 1

    def deliver(self, event_id: int, identifier: str = "webhook.new_server_issues", *, account: str = MAIN) -> None:
        """A delivery comes in."""
        new = NewDelivery(account, 1, event_id, identifier, self.clock.now())
        door = BoundedInbox(1000)

        def work(unit: Unit) -> None:
            unit.effects.append(InboxMoved())
            assert door.accept(unit, [new]) == [Acceptance.ACCEPTED]

        self.store.run(work)

    # This side

    @property
    def poller(self) -> AccountPoller:
        """The account's poller."""
        return self.accounts._running[MAIN].poller  # noqa: SLF001  # Nobody else has to see it.

    @property
    def account(self) -> RunningAccount:
        """The account's state in memory."""
        return self.poller.account

    def planned(self) -> int:
        """How many jobs are planned, looks for scans left aside."""
        return len(self.account._schedule) - self.looks()  # noqa: SLF001  # Nobody else has to see it.

    def looks(self) -> int:
        """How many looks for scans that nobody announced are planned."""
        due = self.account._schedule._due  # noqa: SLF001  # Nobody else has to see it.
        return sum(task.job is Job.LOOK_FOR_SCAN for task in due)

    def in_flight(self) -> frozenset[Task]:
        """What runs now."""
        return frozenset(self.account._in_flight)  # noqa: SLF001  # Nobody else has to see it.

    def passed_over(self) -> frozenset[int]:
        """Servers whose turn came while no call could be made."""
        return frozenset(self.account._passed_over)  # noqa: SLF001  # Nobody else has to see it.

    def awaited(self) -> frozenset[int]:
        """Servers for whose next poll somebody waits."""
        return frozenset(self.account._awaiting)  # noqa: SLF001  # Nobody else has to see it.

    def list_now(self) -> None:
        """Have the list call made at once, whatever spaces such calls out."""
        self.account._health.list_at = 0.0  # noqa: SLF001  # Nobody else may.

    def end_pause(self) -> None:
        """The API's pause is over."""
        self.account._health.paused_until = 0.0  # noqa: SLF001  # Nobody else may.

    def records(self, *, gone: bool = False) -> list[ServerRecord]:
        """The servers."""
        return self.store.run(lambda unit: list(fleet.server_records(unit.connection, MAIN, gone=gone)))

    def account_record(self) -> AccountRecord:
        """The account's row."""
        return self.store.run(lambda unit: fleet.account_records(unit.connection))[MAIN]

    def polled(self) -> list[int]:
        """Servers whose last poll succeeded."""
        return [record.server_id for record in self.records() if record.state.poll_success]

    def issues(self, server_id: int = 1) -> list[Issue]:
        """A server's open issues."""
        found = self.store.run(lambda unit: fleet.issues_of(unit.connection, MAIN, server_id))
        return [issue for issue in found if issue.is_open]

    def inbox(self) -> list[Delivery]:
        """All deliveries."""
        return self.store.run(lambda unit: deliveries.page(unit.connection, after=0, limit=1000))

    def states(self) -> list[str]:
        """Their states."""
        return [delivery.state.value for delivery in self.inbox()]

    def scrape(self) -> str:
        """What a scrape gets."""
        return b"".join(self.publisher.render(None, None).body).decode()


class Listener:
    """Somebody who asked for a poll."""

    def __init__(self) -> None:
        self.heard: list[str | None] = []

    def __call__(self, outcome: str | None) -> None:
        """Hear of its end."""
        self.heard.append(outcome)


def folder_secret(folder: Path, name: str, value: str) -> Path:
    """A file with a secret."""
    file = folder / name
    file.write_text(value + "\n")
    return file
