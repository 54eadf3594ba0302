from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from patrolserver_exporter.simulator.options import SimulatorOptions
from patrolserver_exporter.simulator.server import Simulator

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@pytest.fixture
def simulator() -> Iterator[Simulator]:
    with Simulator(SimulatorOptions(listen_address="127.0.0.1:0", servers=5, software=6)) as running:
        yield running


@pytest.fixture
def unavailable() -> Callable[[str], None]:
    """Skip a test that this machine cannot run; where CI=true says that it must run, fail it."""

    def missing(what: str) -> None:
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(what)

    return missing
