"""Many accounts in one process: they share threads, and none keeps another one from its turn."""

from __future__ import annotations

import socket
import threading
import time
from typing import TYPE_CHECKING

from tests.harness.watching import QUICK, Watching
from tests.unit.sync.accounts import account, configured

from patrolserver_exporter.config.schema import Webhook
from patrolserver_exporter.inbox.deliveries import Acceptance, NewDelivery
from patrolserver_exporter.inbox.intake import BoundedInbox
from patrolserver_exporter.live.effects import InboxMoved
from patrolserver_exporter.simulator.faults import Fault, FaultKind
from patrolserver_exporter.simulator.replies import Endpoint, PartForm, ReplyRule
from patrolserver_exporter.store import fleet

if TYPE_CHECKING:
    from collections.abc import Iterator

    from patrolserver_exporter.config.schema import Config
    from patrolserver_exporter.store import Unit

import pytest

MANY = 60
SILENT = "silent"


@pytest.fixture
def silent_api() -> Iterator[str]:
    """An API that takes every connection and never says a word."""
    with socket.create_server(("127.0.0.1", 0), backlog=128) as listener:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


def names() -> list[str]:
    return [f"account{number:02}" for number in range(MANY)]


def many(watching: Watching, silent: str | None = None) -> Config:
    """Accounts that watch the simulator's servers, and one before them whose API is silent."""
    accounts = [account(name, api_url=watching.simulator.base_url) for name in names()]
    if silent is not None:
        accounts.insert(0, account(SILENT, api_url=silent))
    return configured(*accounts, poll=QUICK, webhook=Webhook(max_event_requests_per_minute=60_000))


def polled(watching: Watching) -> dict[str, int]:
    """Servers whose last poll succeeded, by account."""

    def count(unit: Unit) -> dict[str, int]:
        found: dict[str, int] = {}
        for record in fleet.server_records(unit.connection):
            found[record.account] = found.get(record.account, 0) + record.state.poll_success
        return found

    return watching.store.run(count)


def call_threads() -> int:
    return sum(thread.name.startswith(("call", "poll-", "event-")) for thread in threading.enumerate())


def test_many_accounts_need_no_more_threads_than_a_few(watching: Watching) -> None:
    """All servers of 60 accounts are polled by a pool that is smaller than theirs would be together."""
    watching.accounts.start(many(watching))
    watching.until(lambda: polled(watching) == dict.fromkeys(names(), 3), "the first polls", within=60.0)
    assert call_threads() <= 40
    assert sum(thread.name == "inbox" for thread in threading.enumerate()) == 1


def test_a_silent_api_starves_no_other_account(watching: Watching, silent_api: str) -> None:
    """While one account's calls hang, all servers of the others are polled, and its own trouble is told."""
    watching.accounts.start(many(watching, silent_api))
    watching.until(lambda: polled(watching) == dict.fromkeys(names(), 3), "the first polls", within=60.0)
    watching.until(lambda: {s.name: s.trouble for s in watching.accounts.statuses()}[SILENT])
    assert not any(s.trouble for s in watching.accounts.statuses() if s.name != SILENT)


def test_long_lists_that_many_accounts_read_are_no_hang(prepared_url: str) -> None:
    """While all threads read page by page and other accounts wait, each page is progress: nobody ends the service."""
    with Watching(prepared_url, servers=40) as watching:
        watching.simulator.replies.add(
            ReplyRule(endpoint=Endpoint.SERVERS, form=PartForm.TOTAL_PAGES, per_page=4),
        )
        watching.simulator.faults.add(Fault(kind=FaultKind.LATENCY, seconds=0.6))
        watching.accounts.start(many(watching))
        stood_still = []

        def has_listed() -> bool:
            stood_still.append(time.monotonic() - watching.accounts.last_worker_progress)
            return any(one.list_complete for one in watching.accounts.statuses())

        watching.until(has_listed, "the first list", within=60.0)
        assert max(stood_still) < 2.5


def test_deliveries_of_many_accounts_are_all_worked(watching: Watching) -> None:
    """One look at the inbox finds those of each account, and each has its event fetched."""
    watching.accounts.start(many(watching))
    watching.until(lambda: polled(watching) == dict.fromkeys(names(), 3), "the first polls", within=60.0)
    event = watching.broken()
    new = [NewDelivery(name, 1, event, "webhook.new_server_issues", watching.clock.now()) for name in names()]

    def deliver(unit: Unit) -> list[Acceptance]:
        unit.effects.append(InboxMoved())
        return BoundedInbox(1000).accept(unit, new)

    assert set(watching.store.run(deliver)) == {Acceptance.ACCEPTED}
    watching.until(lambda: set(watching.states()) == {"applied"}, "the events", within=60.0)
    assert len(watching.states()) == MANY
