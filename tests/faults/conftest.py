from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from tests.harness.postgres import PostgresCluster, find_programs

from patrolserver_exporter.simulator.options import SimulatorOptions
from patrolserver_exporter.simulator.server import Simulator
from patrolserver_exporter.store import Store

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@pytest.fixture
def simulator() -> Iterator[Simulator]:
    with Simulator(SimulatorOptions(listen_address="127.0.0.1:0", servers=5, software=6)) as running:
        yield running


@pytest.fixture
def cluster() -> Iterator[PostgresCluster]:
    """One of its own, to be stopped."""
    programs = find_programs()
    if programs is None:
        pytest.skip("PostgreSQL's server is not installed")
    with PostgresCluster(programs) as made:
        yield made


@pytest.fixture
def database(postgres: PostgresCluster) -> Iterator[str]:
    """The URL of an empty state."""
    url = postgres.create_database()
    Store(url).close()
    yield url
    postgres.drop_database(url)


@pytest.fixture
def haproxy(require_program: Callable[[str], str]) -> str:
    """HAProxy's path."""
    return require_program("haproxy")
