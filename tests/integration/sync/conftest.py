from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from tests.harness.ticking import HeldClock
from tests.harness.watching import Watching

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def clock() -> HeldClock:
    """A clock that the test moves."""
    return HeldClock()


@pytest.fixture
def watching(prepared_url: str) -> Iterator[Watching]:
    """The whole ingest before a simulator, not started yet."""
    with Watching(prepared_url) as made:
        yield made
