from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from tests.harness.api import put_server
from tests.harness.pages import NOW, StillClock
from tests.unit.issues.builders import software

from patrolserver_exporter.store import Store
from patrolserver_exporter.web.pages.accounts import StatesReader
from patrolserver_exporter.web.pages.kept import Kept

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class CountingStore(Store):
    """A store that counts readings, and holds them back while it is told to."""

    readings = 0
    held: asyncio.Event | None = None

    async def read_async(self, work: Any) -> Any:
        """Wait first."""
        self.readings += 1
        if self.held is not None:
            await self.held.wait()
        return await super().read_async(work)


class HurriedLoop(asyncio.SelectorEventLoop):
    """An event loop whose time can be moved on."""

    moved = 0.0

    def time(self) -> float:
        """Seconds since some moment."""
        return super().time() + self.moved


@pytest.fixture
def store(tmp_path: Path) -> Iterator[CountingStore]:
    with CountingStore(f"sqlite:///{tmp_path / 'state.db'}") as store:
        store.run(lambda unit: put_server(unit, 1, "web", software=(software(),), polled_at=NOW - 5))
        yield store


def test_a_reading_goes_on_when_who_waits_for_it_gives_up(store: CountingStore) -> None:
    """Else a fleet whose reading takes longer than a client waits would never be shown."""

    async def ask() -> int:
        reader, store.held = StatesReader(store, StillClock()), asyncio.Event()
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(reader.read(), 0.01)
        store.held.set()
        return len((await reader.read()).servers.states)

    assert asyncio.run(ask()) == 1
    assert store.readings == 2  # The accounts and the servers, once.


def test_what_was_read_a_moment_ago_is_shown_while_it_is_read_again(store: CountingStore) -> None:
    """For a minute; then it is too old to be shown, and the new reading is waited for."""

    async def ask() -> list[int]:
        clock, shown = StillClock(), []
        reader = StatesReader(store, clock)
        shown.append(len((await reader.read()).servers.states))
        store.run(lambda unit: put_server(unit, 2, "db", software=(software(),), polled_at=NOW - 5))
        store.held, clock.ticks = asyncio.Event(), 16.0
        shown.append(len((await reader.read()).servers.states))
        clock.ticks = 61.0
        late = asyncio.create_task(reader.read())
        await asyncio.sleep(0)
        assert not late.done()
        store.held.set()
        shown.append(len((await late).servers.states))
        return shown

    assert asyncio.run(ask()) == [1, 1, 2]


def test_what_was_read_is_kept_for_a_minute_and_then_forgotten(store: CountingStore) -> None:
    """However long ago an earlier reading was: its minute is not that of the later one."""
    loop, clock = HurriedLoop(), StillClock()

    async def later(seconds: float) -> None:
        loop.moved = clock.ticks = seconds
        await asyncio.sleep(0.01)

    async def ask() -> list[int]:
        reader, shown = StatesReader(store, clock), []
        shown.append(len((await reader.read()).servers.states))
        store.run(lambda unit: put_server(unit, 2, "db", software=(software(),), polled_at=NOW - 5))
        await later(30.0)
        shown.append(len((await reader.read()).servers.states))
        await later(61.0)
        store.held = asyncio.Event()
        shown.append(len((await asyncio.wait_for(reader.read(), 5.0)).servers.states))
        await later(91.0)
        late = asyncio.create_task(reader.read())
        await asyncio.sleep(0.01)
        assert not late.done()
        store.held.set()
        shown.append(len((await late).servers.states))
        return shown

    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        assert runner.run(ask()) == [1, 2, 2, 2]


def test_what_is_kept_is_read_once_for_all_who_ask(store: CountingStore) -> None:
    """Also for those who come while it is read, and after somebody gave up; an error is told, and not kept."""

    async def ask() -> list[int]:
        clock, asked, held = StillClock(), 0, asyncio.Event()
        kept = Kept[str, int](clock, 60.0)

        async def read() -> int:
            nonlocal asked
            asked += 1
            await held.wait()
            if asked == 1:
                raise ValueError
            return asked

        with pytest.raises(TimeoutError):
            await asyncio.wait_for(kept.get("a", read), 0.01)
        held.set()
        with pytest.raises(ValueError, match=r"^$"):
            await kept.get("a", read)
        found = [await kept.get("a", read), await kept.get("a", read)]
        clock.ticks = 61.0
        return [*found, *await asyncio.gather(kept.get("a", read), kept.get("a", read))]

    assert asyncio.run(ask()) == [2, 2, 3, 3]
