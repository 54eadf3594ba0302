from __future__ import annotations

import asyncio
import threading
from concurrent.futures import CancelledError
from typing import TYPE_CHECKING

import pytest
import sqlalchemy as sa

from patrolserver_exporter.store import Store, StoreUnavailable
from patrolserver_exporter.store.tables import accounts
from patrolserver_exporter.store.threads import StoreThread, StoreTrouble

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from concurrent.futures import Future

    from patrolserver_exporter.store import Unit


class Witness:
    """A store whose effects are written down, with what it takes to hold its thread up."""

    def __init__(self, url: str) -> None:
        self.published: list[list[object]] = []
        self.store = Store(url, self.published.append)
        self._held: threading.Event | None = None

    def hold(self) -> None:
        """Keep the thread busy, so that everything submitted until `release` is one group."""
        busy, held = threading.Event(), threading.Event()

        def work(_: Unit) -> None:
            busy.set()
            held.wait(30)

        self.store.submit(work)
        assert busy.wait(30)
        self._held = held

    def release(self) -> None:
        """Go on."""
        assert self._held is not None
        self._held.set()

    async def accept(self, item: int, work: Callable[[Unit, list[int]], list[int]]) -> int:
        """Do the work on an item; the store does not care what the items of a batch are."""
        return await self.store.run_together(item, work)

    def names(self) -> list[str]:
        """The accounts that were committed."""
        query = sa.select(accounts.c.name).order_by(accounts.c.name)
        return list(self.store.run(lambda unit: unit.connection.execute(query).scalars().all()))


def adding(name: str, effect: object = None) -> Callable[[Unit], str]:
    def work(unit: Unit) -> str:
        unit.connection.execute(accounts.insert().values(name=name))
        unit.effects.append(effect or name)
        return name

    return work


@pytest.fixture
def witness(prepared_url: str) -> Iterator[Witness]:
    made = Witness(prepared_url)
    yield made
    made.store.close()


def outcomes(futures: Sequence[Future[str]]) -> list[object]:
    return [future.exception(30) or future.result() for future in futures]


def test_what_waits_together_is_committed_together(witness: Witness) -> None:
    """Units that pile up share a commit, and their effects come at once, in order."""
    witness.hold()
    futures = [witness.store.submit(adding(f"a{n}")) for n in range(5)]
    witness.release()
    assert outcomes(futures) == [f"a{n}" for n in range(5)]
    assert witness.published == [[f"a{n}" for n in range(5)]]
    assert witness.names() == [f"a{n}" for n in range(5)]


@pytest.mark.parametrize("grouped", [True, False])
def test_a_failing_unit_takes_nobody_with_it(witness: Witness, grouped: bool) -> None:  # noqa: FBT001  # by name
    """A unit that raises leaves nothing behind, and its error goes to its caller; the others of the group commit."""

    def bad(unit: Unit) -> str:
        adding("bad")(unit)
        raise ValueError("no")

    if grouped:
        witness.hold()
    futures = [witness.store.submit(bad)]
    if grouped:
        futures = [witness.store.submit(adding("before")), *futures, witness.store.submit(adding("after"))]
        witness.release()
    errors = [outcome for outcome in outcomes(futures) if isinstance(outcome, ValueError)]
    assert [str(error) for error in errors] == ["no"]
    assert witness.names() == (["after", "before"] if grouped else [])
    assert witness.published == ([["before", "after"]] if grouped else [])


@pytest.mark.parametrize("grouped", [True, False])
def test_a_broken_rule_of_the_schema_is_its_units_own(witness: Witness, grouped: bool) -> None:  # noqa: FBT001  # by name
    """A unit that violates a constraint hears so, alone or in a group, and neighbours commit."""
    witness.store.run(adding("a"))
    if grouped:
        witness.hold()
    neighbours = [witness.store.submit(adding("b"))] if grouped else []
    twin = witness.store.submit(adding("a"))
    if grouped:
        witness.release()
        assert outcomes(neighbours) == ["b"]
    assert isinstance(twin.exception(30), sa.exc.IntegrityError)
    assert witness.names() == (["a", "b"] if grouped else ["a"])


def test_a_database_that_cannot_write_fails_the_group_and_no_more(witness: Witness) -> None:
    """When the database itself fails (disk full), everybody in the group hears it, and the next group works."""

    def full(_: Unit) -> str:
        raise sa.exc.OperationalError("INSERT", {}, Exception("database or disk is full"))

    witness.hold()
    futures = [witness.store.submit(work) for work in (adding("a"), full, adding("b"))]
    witness.release()
    for outcome in outcomes(futures):
        assert isinstance(outcome, StoreUnavailable)
        assert "disk is full" in str(outcome)
    assert witness.published == []
    assert witness.store.run(adding("c")) == "c"
    assert witness.names() == ["c"]


def test_a_trouble_is_told_when_it_begins_and_when_it_ends(prepared_url: str, caplog: pytest.LogCaptureFixture) -> None:
    """A full disk may last for hours and the log may be on it, so not every failed write is a line."""

    def failing(why: str) -> Callable[[Unit], None]:
        def work(_: Unit) -> None:
            raise sa.exc.OperationalError("INSERT", {}, Exception(why))

        return work

    caplog.set_level("INFO")
    engine = sa.create_engine(prepared_url)
    thread = StoreThread(engine, lambda _: None, calm=0.0)
    for why in ("database or disk is full", "database or disk is full", "disk I/O error"):
        with pytest.raises(StoreUnavailable):
            thread.run(failing(why))
    thread.run(lambda _: None)
    thread.run(adding("a"))
    thread.run(adding("b"))
    thread.close()
    engine.dispose()
    said = [line.getMessage().partition(":")[0] for line in caplog.records if line.name == StoreThread.__module__]
    assert said == ["The store cannot commit", "The store cannot commit", "The store commits again"]


def test_effects_come_before_the_answer(prepared_url: str) -> None:
    """A caller with an answer finds its effect everywhere; and nothing is shown that is not committed."""
    seen: list[object] = []
    told = threading.Event()

    def slowly(effects: list[object]) -> None:
        told.wait(30)
        seen.extend(effects)

    with Store(prepared_url, slowly) as store:
        future = store.submit(adding("a"))
        assert not future.done()
        told.set()
        future.result(30)
        assert seen == ["a"]


def test_an_effect_that_cannot_be_shown_is_logged_and_the_store_goes_on(
    prepared_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The commit holds and the waiters get their results even if the exposition has a bug."""

    def broken(_: list[object]) -> None:
        raise RuntimeError("no place")

    with Store(prepared_url, broken) as store:
        assert store.run(adding("a")) == "a"
        assert store.run(lambda _: 1) == 1
    assert "could not be shown" in caplog.text


def test_a_group_is_bounded_and_keeps_the_order(witness: Witness) -> None:
    """However much waits, units run in the order in which they came."""
    order: list[int] = []
    witness.hold()
    futures = [witness.store.submit(lambda _, n=n: order.append(n)) for n in range(1100)]  # type: ignore[misc]
    witness.release()
    for future in futures:
        future.result(30)
    assert order == list(range(1100))


@pytest.mark.parametrize("count", [511, 512, 513])
def test_everything_queued_is_done_before_the_store_closes(prepared_url: str, count: int) -> None:
    """Closing waits for what was submitted before it, whatever the size of a group; later units are refused."""
    witness = Witness(prepared_url)
    witness.hold()
    futures = [witness.store.submit(lambda _: None) for _ in range(count)]
    closing = threading.Thread(target=witness.store.close)
    closing.start()
    witness.release()
    closing.join(30)
    assert not closing.is_alive()
    assert all(future.done() and future.exception() is None for future in futures)
    with pytest.raises(StoreUnavailable, match="closing"):
        witness.store.run(lambda _: None)
    with pytest.raises(StoreUnavailable, match="closing"):
        asyncio.run(_accept(witness.store))
    witness.store.close()


async def _accept(store: Store) -> None:
    await store.run_together(1, lambda _, items: items)


def test_nobody_waits_for_ever_for_a_store_that_closes(prepared_url: str) -> None:
    """However submitting and closing race, each unit ends: done or refused."""
    for _ in range(3):
        store = Store(prepared_url)
        futures: list[Future[None]] = []
        started = threading.Event()

        def submit(
            store: Store = store, futures: list[Future[None]] = futures, started: threading.Event = started
        ) -> None:
            for n in range(300):
                futures.append(store.submit(lambda _: None))
                if n == 50:
                    started.set()

        thread = threading.Thread(target=submit)
        thread.start()
        started.wait(30)
        store.close()
        thread.join(30)
        assert [future for future in futures if not future.done()] == []


def test_a_caller_that_gives_up_does_no_harm(witness: Witness) -> None:
    """A future that was cancelled, as by a client that went away, must not end the store's thread."""
    witness.hold()
    cancelled = witness.store.submit(adding("a"))
    assert cancelled.cancel()
    other = witness.store.submit(adding("b"))
    witness.release()
    assert other.result(30) == "b"
    with pytest.raises(CancelledError):
        cancelled.result(30)
    assert witness.store.run(lambda _: 1) == 1


def test_items_with_the_same_work_are_one_unit_and_each_hears_its_own_result(witness: Witness) -> None:
    """A batch is done by one call; each waiter hears its own result on its own event loop, and may have gone away."""
    batches: list[list[int]] = []

    def work(_: Unit, items: list[int]) -> list[int]:
        batches.append(items)
        return [10 * item for item in items]

    async def main() -> list[int]:
        entries = [asyncio.create_task(witness.accept(n, work)) for n in range(4)]
        await asyncio.sleep(0)
        entries[1].cancel()
        await asyncio.sleep(0)
        witness.release()
        return list(await asyncio.gather(*(entry for n, entry in enumerate(entries) if n != 1)))

    witness.hold()
    assert asyncio.run(main()) == [0, 20, 30]
    assert batches == [[0, 1, 2, 3]]


def test_items_of_two_loops_are_told_on_their_own_loop(witness: Witness) -> None:
    """Waiters of one batch may live on different event loops; one that has ended is no reason to fail the others."""
    heard: list[tuple[int, int]] = []
    queued = threading.Barrier(3)

    def loop(n: int) -> None:
        async def main() -> None:
            thread = threading.get_ident()
            entry = asyncio.ensure_future(witness.accept(n, lambda_work))
            await asyncio.sleep(0)
            queued.wait(30)
            result = await entry
            assert threading.get_ident() == thread
            heard.append((n, result))

        asyncio.run(main())

    def lambda_work(_: Unit, items: list[int]) -> list[int]:
        return [item + 100 for item in items]

    witness.hold()
    threads = [threading.Thread(target=loop, args=(n,)) for n in range(2)]
    for thread in threads:
        thread.start()
    queued.wait(30)
    witness.release()
    for thread in threads:
        thread.join(30)
    assert sorted(heard) == [(0, 100), (1, 101)]


def test_a_batch_that_fails_tells_all_of_its_items(witness: Witness) -> None:
    """The error of a batch's work reaches each of its waiters, and the store goes on."""

    def work(_: Unit, items: list[int]) -> list[int]:
        raise ValueError(len(items))

    async def main() -> list[object]:
        return list(await asyncio.gather(*(witness.accept(n, work) for n in range(3)), return_exceptions=True))

    outcome = asyncio.run(main())
    assert all(isinstance(error, ValueError) for error in outcome)
    assert witness.store.run(lambda _: 1) == 1


def test_progress_is_noted(witness: Witness) -> None:
    """The watchdog sees that the thread goes on."""
    before = witness.store.last_progress
    witness.store.run(lambda _: None)
    witness.store.run(lambda _: None)
    assert witness.store.last_progress > before


def full(_: Unit) -> None:
    raise sa.exc.OperationalError("INSERT", {}, Exception("database or disk is full"))


def test_a_failed_commit_is_a_trouble_until_a_write_succeeds(prepared_url: str) -> None:
    """An empty unit proves nothing: it commits on a full disk, too. The proof is a write of its own."""
    engine = sa.create_engine(prepared_url)
    thread = StoreThread(engine, lambda _: None, steady=0.0)

    def trouble() -> StoreTrouble | None:
        return thread.trouble

    assert trouble() is None
    with pytest.raises(StoreUnavailable):
        thread.run(full)
    thread.run(lambda _: None)
    found = trouble()
    assert found is not None
    assert found.reason == "The store cannot write: database or disk is full"
    thread.prove()
    thread.run(lambda _: None)
    assert trouble() is None
    thread.close()
    engine.dispose()


def test_what_proves_nothing_does_not_end_a_trouble_nor_begin_it_anew(prepared_url: str) -> None:
    """A full disk takes small writes for long; who looks at how long nothing could be taken in must see that."""
    engine = sa.create_engine(prepared_url)
    thread = StoreThread(engine, lambda _: None)
    with pytest.raises(StoreUnavailable):
        thread.run(full)
    began = thread.trouble
    assert began is not None
    for _ in range(3):
        thread.prove()
        thread.run(lambda _: None)
    assert thread.trouble == began
    thread.close()
    engine.dispose()


def test_a_write_that_is_let_through_does_not_end_a_trouble(prepared_url: str) -> None:
    """A full disk does that now and then. But the trouble lasts from then on, since something could be taken in."""
    engine = sa.create_engine(prepared_url)
    thread = StoreThread(engine, lambda _: None)

    def fail_and_write(name: str) -> StoreTrouble | None:
        with pytest.raises(StoreUnavailable):
            thread.run(full)
        thread.run(adding(name))
        return thread.trouble

    first, second = fail_and_write("a"), fail_and_write("b")
    assert first is not None
    assert second is not None
    assert second.since > first.since
    thread.close()
    engine.dispose()


def test_a_group_that_does_not_end_is_a_trouble(prepared_url: str) -> None:
    """A silent disk raises nothing, and nothing can be taken in all the same."""
    engine = sa.create_engine(prepared_url)
    thread = StoreThread(engine, lambda _: None, slow=0.0)
    held, busy = threading.Event(), threading.Event()

    def silent(_: Unit) -> None:
        busy.set()
        held.wait(30)

    future = thread.submit(silent)
    assert busy.wait(30)
    trouble = thread.trouble
    held.set()
    future.result(30)
    thread.close()
    engine.dispose()
    assert trouble is not None
    assert "does not answer" in trouble.reason
    assert thread.trouble is None


def test_effects_without_a_commit_come_behind_those_of_what_was_queued_before(witness: Witness) -> None:
    """A note that something was lost must not be overtaken by what was kept before."""
    witness.hold()
    added = witness.store.submit(adding("a"))
    witness.store.emit(["lost"])
    witness.release()
    added.result(30)
    witness.store.run(adding("b"))
    assert witness.published == [["a"], ["lost"], ["b"]]
