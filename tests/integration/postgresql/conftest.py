"""The tests of ``tests/unit`` that write to the store, once more on PostgreSQL: both databases keep one contract."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from tests.unit.sync.conftest import clock, effects, store

if TYPE_CHECKING:
    from tests.harness.postgres import PostgresCluster

__all__ = ["clock", "effects", "store"]


@pytest.fixture
def prepared_url(postgres: PostgresCluster, migrated_database: str) -> str:
    """URL of an empty store there."""
    postgres.empty(migrated_database)
    return migrated_database
