"""The exporter and its rules with VictoriaMetrics and vmalert in place of Prometheus."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import requests
import yaml
from grafana.alerting.files import RULES
from prometheus_client.parser import text_string_to_metric_families
from tests.harness.fleet import wait_for_polls
from tests.harness.process import Exporter
from tests.harness.prometheus import Prometheus
from tests.harness.victoria import VictoriaMetrics, VmAlert
from tests.harness.waiting import eventually

from patrolserver_exporter.simulator.options import SimulatorOptions
from patrolserver_exporter.simulator.server import Simulator

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    Labels = tuple[tuple[str, str], ...]

pytestmark = pytest.mark.turn(1)

SERVERS = 4
MOVING = ("patrolserver_exporter_api_budget", "patrolserver_exporter_clock_offset", "patrolserver_server_scanning")


@pytest.fixture
def simulator() -> Iterator[Simulator]:
    with Simulator(SimulatorOptions(listen_address="127.0.0.1:0", servers=SERVERS, software=6)) as running:
        yield running


@pytest.fixture
def exporter(tmp_path: Path, simulator: Simulator) -> Iterator[Exporter]:
    with Exporter.watching(tmp_path, simulator.base_url, interval="2s") as running:
        wait_for_polls(running, SERVERS)
        yield running


@pytest.fixture
def rules(tmp_path: Path) -> Path:
    """The shipped ones, each second: vmalert sees what a rule records an evaluation later."""
    file = tmp_path / "rules.yml"
    file.write_text(RULES.read_text().replace("    interval: 1m\n", "    interval: 1s\n"))
    return file


@pytest.fixture
def prometheus(
    tmp_path: Path, exporter: Exporter, rules: Path, require_program: Callable[[str], str]
) -> Iterator[Prometheus]:
    """Beside it, over the same exporter and with the same rules: what is right is what it says."""
    target = exporter.url.removeprefix("http://")
    with Prometheus(tmp_path, require_program("prometheus"), target, extra=f"rule_files: [{rules}]\n") as running:
        yield running


@pytest.fixture
def database(
    tmp_path: Path, prometheus: Prometheus, require_program: Callable[[str], str]
) -> Iterator[VictoriaMetrics]:
    with VictoriaMetrics(tmp_path, require_program("victoria-metrics"), prometheus.configuration) as running:
        yield running


@pytest.fixture
def vmalert(
    tmp_path: Path, rules: Path, database: VictoriaMetrics, require_program: Callable[[str], str]
) -> Iterator[VmAlert]:
    with VmAlert(tmp_path, require_program("vmalert"), rules, database) as running:
        yield running


def test_it_takes_over_every_series_with_its_value(exporter: Exporter, database: VictoriaMetrics) -> None:
    """Names, labels and values are those of /metrics, for all that stands still while the fleet does."""

    def shown() -> dict[Labels, float]:
        return {
            of_target((("__name__", sample.name), *sample.labels.items())): sample.value
            for family in text_string_to_metric_families(exporter.metrics())
            if family.name.startswith("patrolserver_") and family.type == "gauge" and "timestamp" not in family.name
            for sample in family.samples
            if not sample.name.startswith(MOVING)
        }

    def whole() -> bool:
        query = '{__name__=~"patrolserver_.+",job="patrolserver"}'
        stored = {of_target(labels): value for labels, value in database.query(query).items()}
        expected = shown()
        assert len(expected) > 90
        assert {labels: stored.get(labels) for labels in expected} == expected
        return True

    eventually(whole, what="every series")


def of_target(labels: Labels) -> Labels:
    """Without what Prometheus adds; and a label without a value is none."""
    return tuple(sorted((name, value) for name, value in labels if name not in {"job", "instance"} and value))


def test_every_rule_is_evaluated_and_says_what_prometheus_says(
    simulator: Simulator, exporter: Exporter, prometheus: Prometheus, database: VictoriaMetrics, vmalert: VmAlert
) -> None:
    """No rule fails; the recorded series and the alerts of a fleet with a critical issue are the same in both."""
    name = simulator.world.servers(simulator.world.demo)[0].name
    broken = {"server": name, "kind": "exploitable", "software": "openssl", "risk": 9.8}
    assert requests.post(f"{simulator.base_url}/-/simulator/break", json=broken, timeout=10).ok
    written = [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]
    alerts = 'count by (alertname, severity, alertstate) (ALERTS{severity!=""})'

    def by_prometheus(query: str) -> dict[Labels, float]:
        return {tuple(sorted(one["metric"].items())): float(one["value"][1]) for one in prometheus.query(query)}

    def agreed() -> bool:
        firing = by_prometheus(alerts)
        assert any("PatrolServerCriticalIssueOpen" in dict(labels).values() for labels in firing)
        assert database.query(alerts) == firing
        return True

    eventually(agreed, within=180, what="the same alerts in both")
    states = vmalert.rules()
    assert len(states) == len(written)
    assert {(rule["name"], rule["lastError"]) for rule in states if rule["health"] != "ok"} == set()
    recorded = sorted({rule["record"] for rule in written if "record" in rule})
    count = f'count by (__name__) ({{__name__=~"{"|".join(recorded)}"}})'

    def all_recorded() -> bool:
        assert database.query(count) == by_prometheus(count)
        return True

    eventually(all_recorded, within=60, what="the same recorded series in both")
    total = "sum(account_severity:patrolserver_account_issues:freshest) by (severity)"
    assert database.query(total) == by_prometheus(total)
