"""``--once``: everything is polled once, the metrics come out, and that is all. Nothing listens."""

from __future__ import annotations

import logging
import threading
import time
from typing import TYPE_CHECKING, NamedTuple

from patrolserver_exporter import __version__
from patrolserver_exporter.app.gate_sweep import GateSweep
from patrolserver_exporter.app.shown import show_service
from patrolserver_exporter.clock import SteadyClock
from patrolserver_exporter.inbox.intake import Intake
from patrolserver_exporter.live.own_metrics import Telemetry
from patrolserver_exporter.live.publisher import Publisher
from patrolserver_exporter.logs import log_fields
from patrolserver_exporter.store import LeaseLost, Store
from patrolserver_exporter.store.database_time import DatabaseTime
from patrolserver_exporter.store.engines import database_file
from patrolserver_exporter.sync.accounts import Accounts
from patrolserver_exporter.sync.ticker import Dispatcher

if TYPE_CHECKING:
    from patrolserver_exporter.clock import Clock
    from patrolserver_exporter.config.schema import Config

log = logging.getLogger(__name__)
_LOOK_EVERY = 0.05
_GRACE = 5.0
_LONGEST_LIST = 120.0
"""Seconds that a server list may take; a call of its own has a time-out, and a list has pages."""


class PolledOnce(NamedTuple):
    """What came of it."""

    exposition: bytes
    """As a scrape would have got it, in the text format."""
    failures: tuple[str, ...]
    """What could not be polled, or not in whole; free of credentials."""


def poll_once(config: Config, clock: Clock, *, revision: str = "unknown", process_metrics: bool = True) -> PolledOnce:
    """Ask each account for its list and then each server for its software. Raises `StoreError`.

    State is kept as the service keeps it, so that times and counters go on from one run to the next.
    """
    is_shared = database_file(config.store.url) is None
    time_of_database = DatabaseTime(clock) if is_shared else None
    clock = SteadyClock(clock) if time_of_database is None else time_of_database.steady()
    telemetry = Telemetry(version=__version__, revision=revision, process_metrics=process_metrics)
    publisher = Publisher(telemetry, clock, config.metrics)
    name = config.store.replica_name or ""
    with Store(config.store.url, publisher.publish, name=name, time=time_of_database) as store:
        accounts = Accounts(store, publisher, telemetry, clock)
        sweep = GateSweep(store, accounts, lambda: config, clock=clock, telemetry=telemetry, rest=0.0)
        intake = Intake(store, telemetry)
        show_service(
            telemetry,
            clock,
            store=store,
            accounts=accounts,
            intake=intake,
            sweep=sweep,
            config=lambda: config,
        )
        dispatcher = Dispatcher(accounts.tick, lambda: telemetry.error("poller"))
        intake.recall()
        accounts.start(config)
        dispatcher.start()
        try:
            failures = _poll_everything(accounts, store)
            # What was committed is shown once the store's thread has come to this.
            store.run(lambda _: None)
            sweep.sweep()
            exposition = b"".join(publisher.render(None, None).body)
        finally:
            dispatcher.stop()
            accounts.stop(_GRACE)
    return PolledOnce(exposition, tuple(dict.fromkeys(failures)))


def _poll_everything(accounts: Accounts, store: Store) -> list[str]:
    failures: list[str] = []
    accounts.list_now()
    end = time.monotonic() + _LONGEST_LIST
    while not accounts.have_listed() and time.monotonic() < end:
        time.sleep(_LOOK_EVERY)
    waiting = _Waiting(failures)
    in_trouble = {status.name for status in accounts.statuses() if status.trouble}
    for account, server_ids in accounts.server_ids().items():
        # One sentence on the account says more than one on each of its servers.
        for server_id in () if account in in_trouble else server_ids:
            waiting.add()
            accounts.refresh(account, server_id, waiting.done)
    log.info("Polling every server once", extra=log_fields(servers=waiting.servers))
    waiting.wait(store)
    for status in accounts.statuses():
        if not status.list_was_tried:
            failures.append(f"account {status.name}: its server list did not come within {_LONGEST_LIST:.0f} s")
        elif status.trouble:
            failures.append(status.trouble)
        elif not status.list_complete:
            why = "; ".join(status.list_partial_because)
            failures.append(f"account {status.name}: its server list is not whole" + (f": {why}" if why else ""))
    return failures


class _Waiting:
    """Counts polls that have not ended, and keeps what went wrong with the others."""

    def __init__(self, failures: list[str]) -> None:
        self.servers = 0
        self._failures = failures
        self._left = 0
        self._changed = threading.Condition()

    def add(self) -> None:
        """One more poll is under way."""
        with self._changed:
            self.servers += 1
            self._left += 1

    def done(self, error: str | None) -> None:
        """One has ended."""
        with self._changed:
            self._left -= 1
            if error is not None:
                self._failures.append(error)
            self._changed.notify_all()

    def wait(self, store: Store) -> None:
        """Until all have; each has its time-out, and the budget of calls decides how long that takes.

        Raises `LeaseLost` when another process took the store over: then none ends any more.
        """
        with self._changed:
            while not self._changed.wait_for(lambda: self._left == 0, 1.0):
                if store.lost is not None:
                    raise LeaseLost(store.lost)
