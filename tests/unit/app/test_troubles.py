from __future__ import annotations

import asyncio
import dataclasses
import datetime as dt
import time
from typing import TYPE_CHECKING, Any, NoReturn

import pytest
from starlette.requests import Request
from tests.harness.api import put_server
from tests.harness.pages import CANARY, CONFIG, NOW, Accounts, Site, StillClock, status
from tests.unit.issues.builders import software

from patrolserver_exporter.app.troubles import Troubles
from patrolserver_exporter.config.schema import Issues
from patrolserver_exporter.issues.model import Waiver
from patrolserver_exporter.store import Store
from patrolserver_exporter.store.threads import StoreTrouble
from patrolserver_exporter.web.access import BearerTokens
from patrolserver_exporter.web.lifecycle import Lifecycle

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from starlette.responses import Response

    from patrolserver_exporter.store import Unit

END = dt.datetime.fromtimestamp(NOW, dt.UTC).date() + dt.timedelta(days=3)


class StoreInTrouble(Store):
    """A store that can be said to have a trouble."""

    said: StoreTrouble | None = None

    @property
    def trouble(self) -> StoreTrouble | None:
        """What was said."""
        return self.said


@pytest.fixture
def store(tmp_path: Path) -> Iterator[StoreInTrouble]:
    with StoreInTrouble(f"sqlite:///{tmp_path / 'state.db'}") as store:
        yield store


def troubles_of(store: Store, **changes: object) -> Troubles:
    waiver = Waiver(server="shop-*", software="php", until=END, reason="r")
    context = Site(store, Accounts((status("main", 2, **changes),)), StillClock(NOW)).context()
    config = dataclasses.replace(CONFIG, issues=Issues(waivers=(waiver,)))
    return Troubles(dataclasses.replace(context, config=lambda: config))


class SlowStore(StoreInTrouble):
    """A store that does not answer a reader while it is told to wait."""

    held: asyncio.Event | None = None

    async def read_async(self, work: Any) -> Any:
        """Wait first."""
        if self.held is not None:
            await self.held.wait()
        return await super().read_async(work)


def put_servers(unit: Unit) -> None:
    put_server(unit, 1, "empty.example.org", software=(), polled_at=NOW - 5, empty=True)
    put_server(unit, 2, "fine.example.org", software=(software(),), polled_at=NOW - 5)


def test_everybody_hears_what_is_wrong_and_only_readers_where(store: StoreInTrouble) -> None:
    """Those who may not read the state must not learn the servers' names from ``/-/ready``."""
    store.run(put_servers)
    troubles = troubles_of(store, list_complete=False, list_partial_because=(f"member truncated {CANARY}",))
    public, named = (asyncio.run(read()) for read in (troubles.for_anybody, troubles.for_readers))
    assert [len(public), len(named)] == [3, 3]
    assert "Member truncated" in public[0]
    assert CANARY not in "".join(public)
    assert public[1] == "PatrolServer lists no software for 1 server."
    assert "example.org" not in "".join(public)
    assert "shop-*" not in "".join(public)
    assert named[1] == "PatrolServer lists no software for 1 server (empty.example.org)."
    assert f"php on shop-*, {END}" in named[2]


def test_what_is_wrong_is_told_while_the_store_does_not_answer(store: StoreInTrouble) -> None:
    """The state of accounts is in memory."""
    store.close()
    assert "Account main: 503" in asyncio.run(troubles_of(store, trouble="account main: 503").for_anybody())[0]


@pytest.mark.parametrize(("lasted", "answer"), [(0.0, 200), (29.0, 200), (31.0, 503)])
def test_it_is_not_ready_once_nothing_could_be_taken_in_for_half_a_minute(
    store: StoreInTrouble, lasted: float, answer: int
) -> None:
    """Before that a 503 would divert webhooks for a hiccup. The trouble is told from the start."""
    store.said = StoreTrouble(time.monotonic() - lasted, "The store cannot write: disk is full")
    response = ready(troubles_of(store))
    assert response == (answer, True)
    store.said = None
    assert ready(troubles_of(store)) == (200, False)


def test_it_says_that_it_cannot_follow_its_database(store: StoreInTrouble) -> None:
    """Not that no account answered: others on the same database may show everything."""
    context = Site(store, Accounts((status("main", 2),), ready=False, follows=False), StillClock(NOW)).context()
    response = answer_of(Troubles(context), follows=False)
    body = bytes(response.body).decode()
    assert response.status_code == 503
    assert body.startswith("patrolserver-exporter is not ready: it cannot follow its database")
    assert "its metrics show no fleet" in body
    assert answer_of(troubles_of(store)).status_code == 200


def ready(troubles: Troubles) -> tuple[int, bool]:
    """The status of ``/-/ready``, and whether it tells of the store."""
    answer = answer_of(troubles)
    return answer.status_code, b"The store cannot write: disk is full" in bytes(answer.body)


def answer_of(troubles: Troubles, *, follows: bool = True) -> Response:
    """What ``/-/ready`` answers."""

    async def reload() -> NoReturn:
        raise AssertionError

    lifecycle = Lifecycle(
        is_ready=lambda: follows,
        follows=lambda: follows,
        can_take_in=troubles.can_take_in,
        troubles=troubles.for_anybody,
        reload=reload,
        tokens=BearerTokens(),
        reload_enabled=False,
    )
    return asyncio.run(lifecycle.ready(Request({"type": "http"})))


@pytest.mark.slow
def test_what_could_not_be_read_in_time_is_told(tmp_path: Path) -> None:
    """Silence would pass for fine; the reading goes on, and who asks next has what it found."""

    async def ask(store: SlowStore) -> tuple[tuple[str, ...], tuple[str, ...]]:
        store.held = asyncio.Event()
        troubles = troubles_of(store)
        first = await troubles.for_anybody()
        store.held.set()
        store.held = None
        return first, await troubles.for_anybody()

    with SlowStore(f"sqlite:///{tmp_path / 'state.db'}") as store:
        store.run(put_servers)
        first, second = asyncio.run(ask(store))
    assert first[-1].startswith("How old the servers' data is could not be read in time")
    assert "PatrolServer lists no software for 1 server." in second
    assert first[-1] not in second
