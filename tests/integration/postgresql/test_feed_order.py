"""The order of the change feed where two transactions write to it at once."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from tests.unit.issues.builders import outdated
from tests.unit.sync.driving import Driver

from patrolserver_exporter.issues.model import Change, ChangeKind
from patrolserver_exporter.store import engines, history

if TYPE_CHECKING:
    from tests.harness.ticking import HeldClock

    from patrolserver_exporter.store import Store


def test_an_entry_is_not_seen_before_one_that_has_a_lower_id(store: Store, clock: HeldClock, prepared_url: str) -> None:
    """Who writes to the feed waits until whoever wrote before it has committed, so a reader never skips an entry."""
    driver = Driver(store, clock)
    driver.take_list("web")
    driver.poll(outdated("p"))
    (issue,) = driver.issues()
    newest = driver.changes()[-1].id
    change = Change(kind=ChangeKind.EASED, at=clock.now(), issue=issue)
    first, second = engines.create_engine(prepared_url), engines.create_engine(prepared_url)
    committed = threading.Event()

    def write_second() -> None:
        with second.begin() as connection:
            history.record(connection, "web", [change])
        committed.set()

    try:
        with first.begin() as connection:
            history.record(connection, "web", [change])
            waiting = threading.Thread(target=write_second)
            waiting.start()
            # Long enough for it, were there nothing to wait for.
            assert not committed.wait(1.0)
            assert store.read(lambda one: history.changes_after(one, newest, 10)) == []
        assert committed.wait(30)
        waiting.join(30)
        ids = [entry.id for entry in store.read(lambda one: history.changes_after(one, newest, 10))]
        assert len(ids) == 2
        assert ids == sorted(ids)
    finally:
        first.dispose()
        second.dispose()
