from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from scripts.distribution import gate_file as builder
from tests.harness.gate_editions import IN_FILE, IN_PACKAGE, GateEdition

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.harness.postgres import PostgresCluster


@pytest.fixture
def url(postgres: PostgresCluster) -> Iterator[str]:
    """URL of an empty PostgreSQL database."""
    made = postgres.create_database()
    yield made
    postgres.drop_database(made)


@pytest.fixture(scope="session")
def gate_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``patrolserver-gate`` as it is given out, alone in a folder."""
    return builder.build(tmp_path_factory.mktemp("gate"), 1_790_000_000)


@pytest.fixture(params=[IN_PACKAGE, IN_FILE])
def edition(
    request: pytest.FixtureRequest, gate_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> GateEdition:
    """The gate's command of the package, and as one file, which have to do the same."""
    return GateEdition(request.param, gate_file, tmp_path, capsys)
