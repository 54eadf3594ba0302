from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from tests.harness.ticking import HeldClock

from patrolserver_exporter.store import Store

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def clock() -> HeldClock:
    """A clock that the test moves."""
    return HeldClock()


@pytest.fixture
def effects() -> list[object]:
    """Everything that was committed and is to be shown, in order."""
    return []


@pytest.fixture
def store(prepared_url: str, effects: list[object]) -> Iterator[Store]:
    """An empty store that writes its effects down."""
    with Store(prepared_url, effects.extend) as opened:
        yield opened
