from __future__ import annotations

import copy
import json
from typing import TYPE_CHECKING, Any

import pytest
from grafana.dashboards.files import FOLDER, rendered
from grafana.dashboards.look import SEVERITIES
from grafana.lint import drawn, problems

if TYPE_CHECKING:
    from collections.abc import Callable

Json = dict[str, Any]
NAMES = ("patrolserver-exporter", "patrolserver-fleet", "patrolserver-server")


def dashboard(name: str) -> Json:
    """The committed JSON."""
    found: Json = json.loads((FOLDER / f"{name}.json").read_text())
    return found


def test_the_committed_json_is_fresh() -> None:
    """What the generator writes is what Grafana gets; else run ``make dashboards``."""
    assert {path.name: path.read_text() for path in FOLDER.iterdir()} == rendered()


@pytest.mark.parametrize("name", NAMES)
def test_dashboards_keep_the_rules(name: str) -> None:
    """No exceptions are needed."""
    assert problems(dashboard(name)) == []


def first(found: Json, kind: str) -> Json:
    """The first panel of that kind."""
    return next(panel for panel in drawn(found) if panel["type"] == kind)


def no_description(found: Json) -> None:
    del first(found, "stat")["description"]


def no_unit(found: Json) -> None:
    del first(found, "table")["fieldConfig"]["defaults"]["unit"]


def other_source(found: Json) -> None:
    first(found, "timeseries")["datasource"]["uid"] = "prometheus"


def unrestricted(found: Json) -> None:
    first(found, "stat")["targets"][0]["expr"] = 'max(patrolserver_up{job=~"$job"})'


def fixed_window(found: Json) -> None:
    expr = 'rate(process_cpu_seconds_total{job=~"$job", instance=~"$instance"}[5m])'
    first(found, "timeseries")["targets"][0]["expr"] = expr


def naked_counter(found: Json) -> None:
    expr = 'sum(patrolserver_issues_fixed_total{job=~"$job", instance=~"$instance"})'
    first(found, "timeseries")["targets"][0]["expr"] = expr


def no_promql(found: Json) -> None:
    first(found, "timeseries")["targets"][0]["expr"] = "sum by ("


def wrong_color(found: Json) -> None:
    properties = [{"id": "color", "value": {"mode": "fixed", "fixedColor": "pink"}}]
    override = {"matcher": {"id": "byName", "options": "critical"}, "properties": properties}
    first(found, "timeseries")["fieldConfig"]["overrides"].append(override)


def no_all(found: Json) -> None:
    variable = next(one for one in found["templating"]["list"] if one["name"] == "server")
    variable["includeAll"] = False


def no_variable(found: Json) -> None:
    found["templating"]["list"] = [one for one in found["templating"]["list"] if one["name"] != "severity"]


def no_link(found: Json) -> None:
    found["links"] = []


def no_annotation(found: Json) -> None:
    found["annotations"]["list"] = []


def editable(found: Json) -> None:
    found["editable"] = True


def overlapping(found: Json) -> None:
    one, other, *_ = drawn(found)
    one["gridPos"] = dict(other["gridPos"])


def same_number(found: Json) -> None:
    one, other, *_ = drawn(found)
    one["id"] = other["id"]


def silent_when_empty(found: Json) -> None:
    del first(found, "table")["fieldConfig"]["defaults"]["noValue"]


@pytest.mark.parametrize(
    "spoil",
    [
        no_description,
        no_unit,
        other_source,
        unrestricted,
        fixed_window,
        naked_counter,
        no_promql,
        wrong_color,
        no_all,
        no_variable,
        no_link,
        no_annotation,
        editable,
        overlapping,
        same_number,
        silent_when_empty,
    ],
)
def test_each_rule_can_fail(spoil: Callable[[Json], None]) -> None:
    """A dashboard that breaks one rule is found out."""
    found = copy.deepcopy(dashboard("patrolserver-fleet"))
    spoil(found)
    assert len(problems(found)) >= 1


def test_the_worst_servers_lead_to_their_dashboard() -> None:
    """A click on a server's name keeps the data source and selects that server of that account."""
    table = next(panel for panel in drawn(dashboard("patrolserver-fleet")) if panel["title"] == "Worst servers")
    overrides = {one["matcher"]["options"]: one["properties"] for one in table["fieldConfig"]["overrides"]}
    (link,) = next(one["value"] for one in overrides["Server"] if one["id"] == "links")
    assert link["url"].startswith("/d/patrolserver-server?")
    assert "var-server=${__data.fields[Server]:percentencode}" in link["url"]
    assert "var-account=${__data.fields[Account]:percentencode}" in link["url"]
    assert "${datasource:queryparam}" in link["url"]


def test_severities_have_the_same_colour_on_every_dashboard() -> None:
    """Where a severity has a colour, by name or by limit, it is its own."""
    for name in ("patrolserver-fleet", "patrolserver-server"):
        text = json.dumps([panel["fieldConfig"]["overrides"] for panel in drawn(dashboard(name))])
        assert all(f'"{color}"' in text for color in SEVERITIES.values())


def test_two_rows_are_open_and_the_others_wait() -> None:
    """A collapsed row costs Prometheus nothing before it is opened."""
    for name in NAMES:
        rows = [panel["collapsed"] for panel in dashboard(name)["panels"] if panel["type"] == "row"]
        assert rows == [False, False, True, True]
