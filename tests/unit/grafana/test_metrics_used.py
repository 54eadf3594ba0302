from __future__ import annotations

import json
import re
from functools import cache
from typing import Any

import promql_parser as promql
import pytest
import yaml
from grafana.alerting.files import RULES
from grafana.dashboards.files import FOLDER
from grafana.dashboards.promql import NAMED
from grafana.lint import expressions, nodes
from grafana.pictures.week import Week

from patrolserver_exporter.live.account_series import accounts_now
from patrolserver_exporter.live.fleet import FleetExposition
from patrolserver_exporter.live.gate_series import gate_series
from patrolserver_exporter.live.own_metrics import Telemetry
from patrolserver_exporter.live.publisher import Scrape
from patrolserver_exporter.live.waiver_series import WaiverCollector

UNUSED = {
    "patrolserver_exporter_config_last_reload_success_timestamp_seconds": "the time of a reload is in the log; that it "
    "failed has an alert and a panel",
    "process_virtual_memory_bytes": "says little on 64 bits; the resident memory is shown",
    "python_gc_collections_total": "for developers",
    "python_gc_objects_collected_total": "for developers",
    "python_gc_objects_uncollectable_total": "for developers",
    "python_info": "the version is in build_info",
}
PROMETHEUS_OWN = {"up", "ALERTS"}
PARTS = {"histogram": ("_bucket", "_sum", "_count")}
LABELS_OF_THE_TARGET = {"job", "instance"}


@cache
def shown() -> dict[str, str]:
    """Name → kind of every family in the exporter's text format."""
    telemetry = Telemetry(version="1", revision="r")
    telemetry.watch_inbox(lambda: ())
    telemetry.watch_store(writable=lambda: True, last_follow_at=lambda: 0.0)
    telemetry.show(accounts_now(tuple))
    telemetry.show(gate_series(tuple))
    telemetry.show(WaiverCollector(tuple))
    fleet = FleetExposition(software_enabled=True, software_limit_total=1000)
    text = b"".join(Scrape(fleet, telemetry).render("text/plain", None).body).decode()
    return dict(re.findall(r"^# TYPE (\S+) (\S+)$", text, re.MULTILINE))


@cache
def samples() -> dict[str, set[str]]:
    """Name → labels of each series that a scrape of the demo's fleet has."""
    _, text = next(Week(1_781_514_000).play())
    found: dict[str, set[str]] = {}
    for name, labels in re.findall(r"^([a-z_]+)(?:\{(.*)\})? \S+$", text, re.MULTILINE):
        found.setdefault(name, set()).update(re.findall(r'(\w+)="', labels))
    return found


def rules() -> list[dict[str, Any]]:
    """All rules, recording and alerting."""
    groups = yaml.safe_load(RULES.read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


@cache
def selectors() -> tuple[promql.VectorSelector, ...]:
    """Every selector of dashboards and rules."""
    asked = [rule["expr"] for rule in rules()]
    for path in FOLDER.iterdir():
        asked += expressions(json.loads(path.read_text()))
    found = [node for expr in asked for node, _ in nodes(promql.parse(expr))]
    return tuple(node for node in found if isinstance(node, promql.VectorSelector))


def sample_names(families: dict[str, str]) -> set[str]:
    """The names that samples of these families have."""
    return {name + part for name, kind in families.items() for part in PARTS.get(kind, ("",))}


def test_dashboards_and_rules_ask_only_for_what_the_exporter_has() -> None:
    """Every metric in them is one of the exporter, a recorded one or Prometheus' own."""
    recorded = {rule["record"] for rule in rules() if "record" in rule}
    asked = {selector.name or "" for selector in selectors()}
    assert asked - sample_names(shown()) - recorded - PROMETHEUS_OWN == set()


def test_dashboards_and_rules_restrict_only_labels_that_the_metric_has() -> None:
    """A matcher on a label that does not exist would silently select nothing."""
    have = samples()
    wrong = {
        (selector.name, matcher.name)
        for selector in selectors()
        if (selector.name or "") in have
        for matcher in selector.matchers.matchers
        if matcher.name not in have[selector.name or ""] | LABELS_OF_THE_TARGET
        # A label that nothing has, on purpose: it tells whether All servers are chosen.
        and f'{matcher.name}!~"{matcher.value}"' != NAMED
    }
    assert wrong == set()


@pytest.mark.parametrize("family", sorted(shown()))
def test_every_metric_is_used_or_unused_for_a_reason(family: str) -> None:
    """A metric that nobody looks at is listed here with the reason; one that is used is not."""
    names = {family + part for part in PARTS.get(shown()[family], ("",))}
    used = bool(names & {selector.name for selector in selectors()})
    assert used != (family in UNUSED)


def test_every_recorded_metric_is_read() -> None:
    """Recording what neither a rule nor a dashboard reads costs for nothing."""
    recorded = {rule["record"] for rule in rules() if "record" in rule}
    assert recorded - {selector.name for selector in selectors()} == set()
