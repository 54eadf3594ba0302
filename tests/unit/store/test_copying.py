"""A state moves from one file to another one: whole or not at all, and it goes on in one place."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import sqlalchemy as sa
from tests.harness.ticking import HeldClock
from tests.unit.issues.builders import outdated
from tests.unit.sync.driving import Driver

from patrolserver_exporter.store import Store, StoreLocked, copy_store, fleet, history
from patrolserver_exporter.store.tables import issues

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def urls(tmp_path: Path) -> tuple[str, str, str]:
    """Of three files; the first one has a state."""
    first, second, third = (f"sqlite:///{tmp_path / name}.db" for name in ("first", "second", "third"))
    with Store(first) as store:
        driver = Driver(store, HeldClock())
        driver.take_list("web1")
        driver.poll(outdated("php"), outdated("ssh"))
        # The last one, so that only the counter knows that its id was given.
        last = sa.select(sa.func.max(issues.c.id)).scalar_subquery()
        store.run(lambda unit: unit.connection.execute(issues.delete().where(issues.c.id == last)))
    return first, second, third


def copy(source: str, target: str) -> dict[str, int]:
    """What ``store copy`` does."""
    with Store(source, even_moved=True) as one, Store(target, even_moved=True) as other:
        return copy_store(one, other)


def test_a_state_goes_on_in_its_new_place_and_there_only(urls: tuple[str, str, str]) -> None:
    """No id is given twice, the feed is another one, all accounts are polled; and the old place says where it went."""
    first, second, _ = urls
    with Store(first) as store:
        before = store.read(history.feed_standing)
    copied = copy(first, second)
    assert (copied["servers"], copied["issues"], copied["changes"]) == (1, 1, 2)
    with Store(second) as store:
        assert store.read(history.feed_standing).history != before.history
        (record,) = store.read(fleet.account_records).values()
        assert record.catch_up_since is not None
        driver = Driver(store, HeldClock())
        driver.clock.advance(3600.0)
        driver.poll(outdated("php"), outdated("ssh"), outdated("exim"))
        ids = store.read(lambda connection: connection.execute(sa.select(issues.c.id)).scalars().all())
        assert len(ids) == 3
        assert 2 not in ids
    with pytest.raises(StoreLocked, match=r"was copied to .*second.db and goes on there"):
        Store(first)


def test_a_state_comes_back_and_overwrites_no_other(urls: tuple[str, str, str]) -> None:
    """To where it came from, which is emptied first; but to nowhere that has a state, and not from where it was."""
    first, second, third = urls
    copy(first, second)
    with pytest.raises(StoreLocked, match="goes on there"):
        copy(first, third)
    assert copy(second, first)["servers"] == 1
    with pytest.raises(StoreLocked, match="goes on there"):
        Store(second)
    Store(third).close()
    copy(first, third)
    with Store(second, even_moved=True), pytest.raises(StoreLocked, match="is in use"):
        copy(third, second)


def test_a_target_with_a_state_is_left_alone(urls: tuple[str, str, str]) -> None:
    """And the source goes on as it was."""
    first, second, _ = urls
    with Store(second) as store:
        Driver(store, HeldClock()).take_list("other")
    with pytest.raises(StoreLocked, match="has a state already"):
        copy(first, second)
    with Store(first) as store:
        assert len(store.read(fleet.account_records)) == 1
