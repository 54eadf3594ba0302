from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest
from tests.harness.shared_stores import shared

if TYPE_CHECKING:
    from collections.abc import Iterator

    from patrolserver_exporter.store import Store


@pytest.fixture
def pair(url: str) -> Iterator[tuple[Store, Store]]:
    """Two exporters' stores on it."""
    with ExitStack() as stack:
        first = stack.enter_context(shared(url, "blue"))
        yield first, stack.enter_context(shared(url, "green"))
