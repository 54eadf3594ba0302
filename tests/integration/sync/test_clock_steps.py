"""A system's clock that is set while accounts are watched."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from tests.harness.watching import FailingStore, Watching

if TYPE_CHECKING:
    from tests.harness.ticking import HeldClock


def test_the_clock_is_followed_and_what_was_under_way_too(prepared_url: str, clock: HeldClock) -> None:
    """A poll that began before a step back counts as begun when it did."""
    with Watching(prepared_url, clock=clock) as watching:
        watching.start()
        watching.rest()
        began = watching.clock.moment()
        clock.advance(10.0)
        clock.set(clock.now() - 3600.0)
        watching.accounts.tick()
        assert watching.clock.now() == pytest.approx(clock.now())
        assert watching.clock.time_of(began) == pytest.approx(clock.now() - 10.0)


def test_a_clock_that_the_store_cannot_follow_goes_on_as_it_was(prepared_url: str, clock: HeldClock) -> None:
    """Else what comes in meanwhile would have times that compare wrongly with those in the store."""
    FailingStore.full.clear()
    with Watching(prepared_url, clock=clock, store=FailingStore) as watching:
        watching.start()
        watching.rest()
        FailingStore.full.set()
        before = watching.clock.now()
        clock.advance(1.0)
        clock.set(clock.now() - 3600.0)
        watching.accounts.tick()
        assert watching.clock.now() == pytest.approx(before + 1.0)
        FailingStore.full.clear()
        watching.accounts.tick()
        assert watching.clock.now() == pytest.approx(clock.now())
