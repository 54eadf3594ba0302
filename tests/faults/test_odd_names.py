"""The promises on what upstream may send: odd names never break a scrape, and a bomb of them stays small."""

from __future__ import annotations

import logging
import random
import time
from typing import TYPE_CHECKING

from prometheus_client.openmetrics import parser as openmetrics
from prometheus_client.parser import text_string_to_metric_families
from tests.harness.fleet import total, wait_for_polls
from tests.harness.process import Exporter
from tests.harness.prometheus import Prometheus
from tests.harness.sizes import FULL
from tests.harness.waiting import eventually

from patrolserver_exporter.simulator.options import SimulatorOptions
from patrolserver_exporter.simulator.server import Simulator

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import pytest

log = logging.getLogger(__name__)

NAMES = 10_000 if FULL else 2_000
PER_SERVER = 100
