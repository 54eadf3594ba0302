"""The real Prometheus scrapes the real exporter, which polls the simulator and takes its webhooks."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING, Any

import pytest
import requests
from tests.harness.process import TOKEN, Exporter
from tests.harness.prometheus import Prometheus
from tests.harness.waiting import eventually

from patrolserver_exporter.simulator.options import SimulatorOptions
from patrolserver_exporter.simulator.server import Simulator

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


@pytest.fixture
def simulator() -> Iterator[Simulator]:
    with Simulator(SimulatorOptions(listen_address="127.0.0.1:0", servers=4, software=6)) as running:
        yield running


@pytest.fixture
def exporter(tmp_path: Path, simulator: Simulator) -> Iterator[Exporter]:
    # The interval is long, so that what shows in time was polled because of a webhook.
    with Exporter.watching(tmp_path, simulator.base_url, interval="10m") as running:
        eventually(
            lambda: len(running.samples("patrolserver_server_last_poll_timestamp_seconds")) == 4, what="the first polls"
        )
        yield running


@pytest.fixture
def prometheus(tmp_path: Path, exporter: Exporter, require_program: Callable[[str], str]) -> Iterator[Prometheus]:
    with Prometheus(tmp_path, require_program("prometheus"), exporter.url.removeprefix("http://")) as running:
        yield running


def order(simulator: Simulator, path: str, /, **body: Any) -> Any:
    response = requests.post(f"{simulator.base_url}/-/simulator{path}", json=body, timeout=10)
    assert response.ok, response.text
    return response.json()


@pytest.mark.parametrize("form", ["json", "form"])
def test_a_new_critical_issue_shows_in_prometheus_and_goes_with_the_poll_after_its_fix(
    simulator: Simulator, exporter: Exporter, prometheus: Prometheus, form: str
) -> None:
    """A webhook opens the issue at once; after the fix, the poll that a scan causes closes it."""
    critical = 'sum(patrolserver_server_issues{severity="critical"})'
    eventually(lambda: prometheus.value(critical) == 0.0, what="a healthy fleet in Prometheus")
    order(simulator, "/webhooks", url=f"{exporter.url}/webhook/{TOKEN}", format=form)
    name = simulator.world.servers(simulator.world.demo)[0].name

    broken = order(simulator, "/break", server=name, kind="exploitable", risk=9.8)
    assert broken
    eventually(lambda: prometheus.value(critical) == 1.0, what="the critical issue in Prometheus")
    order(simulator, "/mend", server=name)
    order(simulator, "/scan", server=name, seconds=0.2)
    eventually(lambda: prometheus.value(critical) == 0.0, what="the fix in Prometheus")
    assert prometheus.value('patrolserver_issues_fixed_total{severity="critical"}') == 1.0


def test_promtool_finds_nothing_to_say_about_the_metrics(
    exporter: Exporter, require_program: Callable[[str], str]
) -> None:
    """``promtool check metrics`` exits 0 and is silent."""
    command = [require_program("promtool"), "check", "metrics"]
    checked = subprocess.run(command, input=exporter.metrics().encode(), capture_output=True, check=False)
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, b"", b"")


def test_a_restart_shows_the_same_series_at_once(exporter: Exporter, simulator: Simulator) -> None:
    """After a restart the fleet's series are the same as before, without waiting for a poll."""
    before = _fleet(exporter.metrics())
    assert exporter.terminate() == 0
    order(simulator, "/faults", kind="status", path="servers/*", status=503)
    exporter.start()
    assert _fleet(exporter.metrics()) == before


def _fleet(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.startswith("patrolserver_server")]
