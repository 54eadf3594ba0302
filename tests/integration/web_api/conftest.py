from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from tests.harness.api import SetTime, serving_api

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.harness.api import ServedApi

NOON = 1_795_521_600.0
"""2026-11-24 12:00 UTC."""


@pytest.fixture
def clock() -> SetTime:
    return SetTime(NOON)


@pytest.fixture
def api(tmp_path: Path, clock: SetTime) -> Iterator[ServedApi]:
    """The API over an empty store, with the account main."""
    with serving_api(f"sqlite:///{tmp_path / 'state.db'}", clock=clock) as served:
        yield served
