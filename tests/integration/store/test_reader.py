"""Reads beside the writer, on both databases."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sqlite3
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import sqlalchemy as sa
from tests.harness.waiting import eventually

from patrolserver_exporter.store import Store, StoreBusy, StoreCorrupt, StoreUnavailable, fleet
from patrolserver_exporter.store.tables import accounts
from patrolserver_exporter.store.threads import READERS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from concurrent.futures import Future

    from tests.harness.postgres import PostgresCluster

    from patrolserver_exporter.store import Unit

on_both = pytest.mark.parametrize("prepared_url", ["sqlite", "postgresql"], indirect=True)


def names(connection: sa.Connection) -> list[str]:
    return list(connection.execute(sa.select(accounts.c.name).order_by(accounts.c.name)).scalars())


def adding(name: str) -> Callable[[Unit], None]:
    def work(unit: Unit) -> None:
        unit.connection.execute(accounts.insert().values(name=name))

    return work


class Held:
    """Work that looks at the store and then does not end before it is let go."""

    def __init__(self) -> None:
        self.begun = threading.Semaphore(0)
        self._go_on = threading.Event()

    def unit(self, unit: Unit) -> list[str]:
        """A unit of work."""
        return self.read(unit.connection)

    def read(self, connection: sa.Connection) -> list[str]:
        """A read; it finds the same at its end as at its beginning, and returns it."""
        found = names(connection)
        self.begun.release()
        assert self._go_on.wait(30)
        assert names(connection) == found
        return found

    def let_go(self) -> None:
        """Let all of them end, and those that are still to begin."""
        self._go_on.set()


@pytest.fixture
def held() -> Iterator[Held]:
    made = Held()
    yield made
    made.let_go()


def occupy(store: Store, held: Held) -> list[Future[list[str]]]:
    """Keep every reader busy."""
    reads = [store.submit_read(held.read) for _ in range(READERS)]
    for _ in reads:
        assert held.begun.acquire(timeout=30)
    return reads


@on_both
def test_a_read_does_not_wait_for_a_unit_of_work(store: Store, held: Held) -> None:
    """While a unit takes its time, reads are answered; they see nothing of what is not committed."""
    slow = store.submit(lambda unit: (adding("late")(unit), held.unit(unit)))
    assert held.begun.acquire(timeout=30)
    assert store.read(names) == []
    assert not slow.done()
    held.let_go()
    slow.result(30)
    assert store.read(names) == ["late"]


def test_a_read_does_not_wait_for_a_lock_of_the_database(postgres: PostgresCluster, migrated_database: str) -> None:
    """While a unit sleeps in PostgreSQL, and another waits for it, a read is answered."""
    with Store(migrated_database) as store:
        begun = threading.Event()

        def sleep(unit: Unit) -> None:
            begun.set()
            unit.connection.exec_driver_sql("SELECT pg_sleep(4)")

        slow = store.submit(sleep)
        assert begun.wait(30)
        waiting = store.submit(lambda unit: unit.connection.exec_driver_sql("SELECT 1").scalar())
        assert store.read(lambda connection: connection.exec_driver_sql("SELECT 1").scalar()) == 1
        assert not slow.done()
        assert not waiting.done()
        postgres.execute("SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE query = 'SELECT pg_sleep(4)'")
        assert waiting.result(30) == 1


@on_both
def test_a_slow_read_holds_up_no_unit_of_work_and_sees_one_state(store: Store, held: Held) -> None:
    """Units commit beside a read that takes its time, and the read finds at its end what it found at its beginning."""
    slow = store.submit_read(held.read)
    assert held.begun.acquire(timeout=30)
    store.run(adding("meanwhile"))
    assert not slow.done()
    assert store.read(names) == ["meanwhile"]
    held.let_go()
    assert slow.result(30) == []


@on_both
def test_a_caller_that_waited_for_a_commit_reads_it(store: Store) -> None:
    """A read sees every unit that had ended before it began, whichever of the readers does it."""
    for number in range(5 * READERS):
        store.run(adding(f"{number:02}"))
        assert store.read(names)[-1] == f"{number:02}"


@pytest.mark.promise("one-writer")
@on_both
def test_a_reader_cannot_write(store: Store) -> None:
    """What a read tries to write is refused by the database itself."""
    with pytest.raises(StoreUnavailable, match="cannot be read"):
        store.read(lambda connection: connection.execute(accounts.insert().values(name="a")))
    with pytest.raises(StoreUnavailable, match="cannot be read"):
        store.read(lambda connection: connection.exec_driver_sql("CREATE TABLE mine (id INTEGER)"))
    assert store.read(names) == []


@on_both
def test_reads_at_the_same_time_are_bounded_and_a_late_one_is_told(prepared_url: str, held: Held) -> None:
    """No more reads than there are readers are under way; who waits too long hears that it is busy, and why."""
    with Store(prepared_url, turn_timeout=0.05) as store:
        reads = occupy(store, held)
        begun: list[str] = []
        for ask in (store.read, lambda work: asyncio.run(store.read_async(work))):
            with pytest.raises(StoreBusy, match=r"did not get its turn within 0\.05 seconds"):
                ask(lambda _: begun.append("late"))
        held.let_go()
        assert [read.result(30) for read in reads] == [[]] * READERS
        assert store.read(names) == []
        assert begun == []


@on_both
def test_a_read_that_began_is_waited_for(prepared_url: str, held: Held) -> None:
    """The bound is on the wait for a turn: a read that has begun may take longer."""
    with Store(prepared_url, turn_timeout=0.05) as store:
        letting_go = threading.Timer(0.3, held.let_go)
        letting_go.start()
        assert store.read(held.read) == []
        letting_go.join()


@on_both
def test_a_read_that_nobody_waits_for_is_not_begun(store: Store, held: Held) -> None:
    """A client that hangs up takes its read back."""
    begun: list[str] = []

    async def give_up() -> None:
        asking = asyncio.create_task(store.read_async(lambda _: begun.append("given up")))
        await asyncio.sleep(0)
        asking.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await asking

    reads = occupy(store, held)
    asyncio.run(give_up())
    held.let_go()
    for read in reads:
        read.result(30)
    # Served in their order: when these are done, it would have been.
    for _ in range(READERS):
        store.read(names)
    assert begun == []


@on_both
def test_a_read_in_an_event_loop_blocks_nobody(store: Store, held: Held) -> None:
    """The loop goes on while a read is under way, and hears its result or its error."""

    async def main() -> None:
        reading = asyncio.create_task(store.read_async(held.read))
        assert await asyncio.to_thread(held.begun.acquire, timeout=30)
        held.let_go()
        assert await reading == []
        with pytest.raises(ZeroDivisionError):
            await store.read_async(lambda _: 1 / 0)

    asyncio.run(main())


@on_both
def test_an_error_belongs_to_its_reader(store: Store) -> None:
    """What the work raises reaches its caller, and every reader goes on."""

    def broken(_: sa.Connection) -> None:
        raise LookupError("no")

    for _ in range(2 * READERS):
        with pytest.raises(LookupError, match="no"):
            store.read(broken)
    assert store.read(names) == []


@on_both
def test_a_damaged_document_is_told_by_a_reader(store: Store) -> None:
    """A reader that meets a document which is not what was written says so, and shows nothing of it."""
    store.run(lambda unit: unit.connection.execute(accounts.insert().values(name="main", state=b"\0\0\0\0{}")))
    with pytest.raises(StoreCorrupt, match="checksum"):
        store.read(fleet.account_records)


@on_both
def test_the_end_refuses_what_waits_and_what_comes(prepared_url: str, held: Held) -> None:
    """A store that closes waits for reads under way, refuses the others, and hangs for nobody."""
    store = Store(prepared_url)
    reads = occupy(store, held)
    waiting = store.submit_read(names)
    closing = threading.Thread(target=store.close)
    closing.start()
    with pytest.raises(StoreUnavailable, match="closing"):
        eventually(lambda: store.submit_read(names).exception(0.01) is not None and store.read(names))
    held.let_go()
    closing.join(30)
    assert not closing.is_alive()
    assert isinstance(waiting.exception(30), StoreUnavailable)
    assert all(read.done() for read in reads)


# Only on SQLite, whose file others can get at


ENDLESS = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT max(i) FROM n"


def state_file(url: str) -> Path:
    return Path(url.removeprefix("sqlite:///"))


def test_a_read_that_does_not_end_is_ended_with_the_store(prepared_url: str) -> None:
    """A stop does not wait for a slow statement, and the file is whole and sealed after it."""
    store = Store(prepared_url)
    begun = threading.Event()

    def endless(connection: sa.Connection) -> None:
        names(connection)
        begun.set()
        connection.exec_driver_sql(ENDLESS)

    read = store.submit_read(endless)
    assert begun.wait(30)
    store.run(adding("a"))
    store.close()
    assert isinstance(read.exception(30), StoreUnavailable)
    file = state_file(prepared_url)
    assert {path.name for path in file.parent.iterdir()} == {file.name, f"{file.name}.lock", f"{file.name}.sum"}
    with Store(prepared_url) as again:
        assert again.read(names) == ["a"]


def test_a_file_that_takes_the_place_of_ours_is_not_read(prepared_url: str) -> None:
    """Nothing is written to a file that was removed, or read from the one in its place, until ours is there again."""
    with Store(prepared_url) as store:
        store.run(adding("ours"))
        file = state_file(prepared_url)
        aside = file.parent / "aside"
        aside.mkdir()
        for path in list(file.parent.glob(f"{file.name}*")):
            path.rename(aside / path.name)
        with sqlite3.connect(file) as other:
            other.execute("PRAGMA journal_mode=WAL")
            other.execute("CREATE TABLE accounts (name TEXT)")
            other.execute("INSERT INTO accounts VALUES ('theirs')")
        other.close()
        for _ in range(2 * READERS):
            with pytest.raises(StoreUnavailable, match="replaced by another one while the exporter uses it"):
                store.read(names)
        with pytest.raises(StoreUnavailable, match="Put the file back, or restart the exporter"):
            store.run(adding("lost"))
        for path in file.parent.glob(f"{file.name}*"):
            path.unlink()
        for path in aside.iterdir():
            path.rename(file.parent / path.name)
        store.run(adding("more"))
        assert store.read(names) == ["more", "ours"]


def test_what_sqlite_puts_beside_the_file_is_its_owners_alone(tmp_path: Path) -> None:
    """Nobody else can read the file, its log or the log's index while there are readers."""
    before = os.umask(0)
    try:
        with Store(f"sqlite:///{tmp_path / 'state.db'}") as store:
            store.run(adding("a"))
            assert store.read(names) == ["a"]
            modes = {path.name: path.stat().st_mode & 0o777 for path in tmp_path.iterdir()}
    finally:
        os.umask(before)
    assert modes == dict.fromkeys(("state.db", "state.db-wal", "state.db-shm", "state.db.lock", "state.db.sum"), 0o600)


def test_reads_that_overlap_do_not_let_the_log_grow_for_ever(prepared_url: str) -> None:
    """However densely it is read, the log is emptied when it is large: new reads wait until it is."""
    log = Path(f"{state_file(prepared_url)}-wal")
    with Store(prepared_url, max_log_bytes=1_000_000) as store:
        store.run(adding("a"))
        current, largest = Held(), 0
        reads = [store.submit_read(current.read)]
        for _ in range(100):
            # One read begins before the one before it ends, unless reads have to wait.
            following = Held()
            reads.append(store.submit_read(following.read))
            following.begun.acquire(timeout=0.01)
            current.let_go()
            current = following
            store.run(lambda unit: unit.connection.execute(accounts.update().values(state=os.urandom(50_000))))
            largest = max(largest, log.stat().st_size)
        current.let_go()
        assert [read.result(30) for read in reads] == [["a"]] * len(reads)
    assert 1_000_000 < largest < 2_000_000
