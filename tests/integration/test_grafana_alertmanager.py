"""The whole way of an alert: simulator, exporter, Prometheus with the rules, Alertmanager with the example route."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import pytest
import requests
import yaml
from grafana.prometheus_rule import ROOT, RULES
from tests.harness.alertmanager import Alertmanager, Pager
from tests.harness.process import TOKEN, Exporter
from tests.harness.prometheus import Prometheus
from tests.harness.sizes import FULL
from tests.harness.waiting import eventually

from patrolserver_exporter.simulator.options import SimulatorOptions
from patrolserver_exporter.simulator.server import Simulator

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

INTERVAL = "15s" if FULL else "2s"
"""Of scrapes and rules; the long run takes that of packaging/prometheus/prometheus.yml."""
CRITICAL = "PatrolServerCriticalIssueOpen"


def route_to(pager: Pager) -> str:
    """The example configuration, with a receiver filled in as its comments say."""
    config = yaml.safe_load((ROOT / "packaging" / "alertmanager" / "alertmanager.yml").read_text())
    for receiver in config["receivers"]:
        if receiver["name"] == "pager":
            receiver["webhook_configs"] = [{"url": pager.url, "send_resolved": True}]
    text: str = yaml.safe_dump(config)
    return text


@pytest.fixture
def pager() -> Iterator[Pager]:
    with Pager() as running:
        yield running


@pytest.fixture
def simulator() -> Iterator[Simulator]:
    with Simulator(SimulatorOptions(listen_address="127.0.0.1:0", servers=4, software=6)) as running:
        yield running


@pytest.fixture
def exporter(tmp_path: Path, simulator: Simulator) -> Iterator[Exporter]:
    # The interval is long, so that what shows in time came by the webhook.
    with Exporter.watching(tmp_path, simulator.base_url, interval="10m") as running:
        order(simulator, "/webhooks", url=f"{running.url}/webhook/{TOKEN}")
        yield running


@pytest.fixture
def prometheus(
    tmp_path: Path, exporter: Exporter, pager: Pager, require_program: Callable[[str], str]
) -> Iterator[Prometheus]:
    with Alertmanager(tmp_path, require_program("prometheus-alertmanager"), route_to(pager)) as alertmanager:
        target = alertmanager.url.removeprefix("http://")
        extra = f"""\
rule_files: ["{RULES}"]
alerting:
  alertmanagers: [{{static_configs: [{{targets: ["{target}"]}}]}}]
"""
        program = require_program("prometheus")
        scraped = exporter.url.removeprefix("http://")
        with Prometheus(tmp_path, program, scraped, interval=INTERVAL, extra=extra) as running:
            yield running


def order(simulator: Simulator, path: str, /, **body: Any) -> None:
    response = requests.post(f"{simulator.base_url}/-/simulator{path}", json=body, timeout=10)
    assert response.ok, response.text


def test_a_critical_issue_reaches_the_pager_within_a_minute_and_so_does_its_end(
    simulator: Simulator, prometheus: Prometheus, pager: Pager
) -> None:
    """From the simulator's webhook to the pager in less than 60 s; resolved after fix and scan."""
    critical = 'sum(patrolserver_server_issues{severity="critical"})'
    eventually(lambda: prometheus.value(critical) == 0.0, within=60, what="a healthy fleet in Prometheus")
    name = simulator.world.servers(simulator.world.demo)[0].name

    began = time.monotonic()
    order(simulator, "/break", server=name, kind="exploitable", risk=9.8)
    (alert,) = eventually(lambda: pager.heard(CRITICAL, "firing"), within=60, what="the alert")
    assert time.monotonic() - began < 60
    assert alert["labels"]["server"] == name
    assert alert["labels"]["severity"] == "critical"
    assert "1 open critical issue" in alert["annotations"]["description"]

    order(simulator, "/mend", server=name)
    order(simulator, "/scan", server=name, seconds=0.2)
    (resolved, *_) = eventually(lambda: pager.heard(CRITICAL, "resolved"), within=120, what="the alert's end")
    assert resolved["labels"] == alert["labels"]
