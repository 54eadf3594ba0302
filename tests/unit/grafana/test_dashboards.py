from __future__ import annotations

import copy
import json
import re
from typing import TYPE_CHECKING, Any

import pytest
from grafana.dashboards.files import FOLDER, rendered
from grafana.dashboards.look import BAD, CALM, GOOD, MUTED, SEVERITIES, SOFTWARE_STATES, WARN, WORST
from grafana.lint import drawn, problems
from grafana.settings import load

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

Json = dict[str, Any]
NAMES = ("patrolserver-exporter", "patrolserver-fleet", "patrolserver-server", "patrolserver-software")


def dashboard(name: str) -> Json:
    """The committed JSON."""
    found: Json = json.loads((FOLDER / f"{name}.json").read_text())
    return found


def test_the_committed_json_is_fresh() -> None:
    """What the generator writes is what Grafana gets; else run ``make dashboards``."""
    assert {path.name: path.read_text() for path in FOLDER.iterdir()} == rendered(load())


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


def test_own_settings_change_limits_and_links(tmp_path: Path) -> None:
    """Thresholds and addresses of a user's own file are in the dashboards, and nothing of what they replace."""
    own = tmp_path / "own.yml"
    own.write_text(
        "exporter_url: https://patrol.example.org\nthresholds: {scan_overdue: 5d, overdue: {critical: 1d}}\n"
    )
    text = rendered(load(own))
    assert '"url": "https://patrol.example.org/"' in text["patrolserver-fleet.json"]
    assert "more than 5 days ago" in text["patrolserver-fleet.json"]
    assert '"value": 432000' in text["patrolserver-server.json"]
    assert "after 1 day a critical one is overdue" in text["patrolserver-fleet.json"]
    assert "1 day for a critical one" in text["patrolserver-software.json"]


def variables(found: Json) -> dict[str, Json]:
    """By name."""
    return {one["name"]: one for one in found["templating"]["list"]}


def test_the_owners_labels_choose_servers() -> None:
    """Each is a variable with an All that has servers without it; every number of the server dashboard follows it."""
    found = dashboard("patrolserver-server")
    for label in load().owner_labels:
        assert variables(found)[label]["allValue"] == ".*"
        assert f'{label}=~"${label}"' in variables(found)["server"]["query"]
        for panel in drawn(found):
            assert all(f'{label}=~"${label}"' in target["expr"] for target in panel["targets"]), panel["title"]
    table = next(panel for panel in drawn(dashboard("patrolserver-software")) if panel["title"] == "By owner")
    assert "var-team=${__data.fields[Team]:percentencode}&var-environment=" in json.dumps(table)


def test_without_owners_labels_there_are_no_such_variables(tmp_path: Path) -> None:
    """Then nothing asks for them, and the table of owners is not there."""
    own = tmp_path / "own.yml"
    own.write_text("owner_labels: []\n")
    for text in rendered(load(own)).values():
        assert "team" not in text
        assert "OWNERS" not in text
        assert "By owner" not in text
        assert problems(json.loads(text)) == []


def luminance(color: str) -> float:
    """Of ``#rrggbb``, as WCAG defines it."""
    parts = [int(color[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    red, green, blue = (part / 12.92 if part <= 0.03928 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def written(color: str) -> str:
    """The colour of the text that Grafana writes on a colour, by its brightness."""
    red, green, blue = (int(color[place : place + 2], 16) for place in (1, 3, 5))
    return "#202226" if (red * 299 + green * 587 + blue * 114) / 1000 > 180 else "#f7f8fa"


def test_text_can_be_read_on_every_colour() -> None:
    """It has a contrast of 4.5 and more on every colour that a cell or a number can get."""
    for color in {GOOD, WARN, BAD, WORST, CALM, MUTED, *SEVERITIES.values(), *SOFTWARE_STATES.values()}:
        darker, lighter = sorted((luminance(color), luminance(written(color))))
        assert (lighter + 0.05) / (darker + 0.05) >= 4.5, color


def test_no_text_has_a_colour_of_its_own() -> None:
    """A value's colour is that of its cell: coloured text cannot be read in both themes. No curve is behind one."""
    for name in NAMES:
        for panel in drawn(dashboard(name)):
            assert '"color-text"' not in json.dumps(panel)
            if panel["type"] == "stat":
                assert panel["options"]["colorMode"] == "background_solid"
                assert panel["options"]["graphMode"] == "none"


def test_counts_are_exact_and_tables_limited() -> None:
    """No 1.96 K; and what lists servers or software asks for so many rows at most."""
    for name in NAMES:
        for panel in drawn(dashboard(name)):
            assert panel["fieldConfig"]["defaults"]["unit"] != "short", panel["title"]
    tables = [panel for name in NAMES for panel in drawn(dashboard(name)) if panel["type"] == "table"]
    assert {"Worst servers", "What to update, the worst first", "Servers"} <= {panel["title"] for panel in tables}
    for panel in tables:
        for target in panel["targets"]:
            labels = {label for by in re.findall(r"by \(([^)]*)\)", target["expr"]) for label in by.split(", ")}
            if labels & {"server", "software", "exploit"}:
                # Or the rules record so many.
                assert re.search(r"\b(top|bottom)k\(|:worst\b", target["expr"]), panel["title"]


def test_names_of_servers_have_room() -> None:
    """In every table they get what the other columns leave, and a name that is longer than that is wrapped."""
    tables = [panel for name in NAMES for panel in drawn(dashboard(name)) if panel["type"] == "table"]
    listed = [looks(table)["Server"] for table in tables if "Server" in looks(table) and "Account" in looks(table)]
    assert len(listed) == 4
    for look in listed:
        assert look["custom.wrapText"] is True
        assert "custom.width" not in look


NARROW = 1000
"""Pixels of a window on which nothing may have to be scrolled sideways."""


def test_no_table_is_wider_than_its_panel_in_a_narrow_window() -> None:
    """Columns without a width share what is left alike, so none of them may need more than that."""
    for name in NAMES:
        for table in (panel for panel in drawn(dashboard(name)) if panel["type"] == "table"):
            margins, gap, frame = 32, 8, 18
            places = table["gridPos"]["w"]
            inside = places * (NARROW - margins - 23 * gap) / 24 + (places - 1) * gap - frame
            columns = [look for field, look in looks(table).items() if field not in {"string", "number"}]
            fixed = [look["custom.width"] for look in columns if "custom.width" in look]
            shared = [look["custom.minWidth"] for look in columns if "custom.minWidth" in look]
            assert sum(fixed) + len(shared) * max(shared, default=0) <= inside, table["title"]


WIDE, SLIM, PADDING, ARROW, SIEVE = 8.3, 4.5, 12, 9, 20
"""Pixels of a heading: letters at Grafana's size, and what stands beside them."""


def test_no_heading_is_wider_than_its_column() -> None:
    """With the arrow of what the rows are sorted by, and the filter where there is one."""
    for name in NAMES:
        for table in (panel for panel in drawn(dashboard(name)) if panel["type"] == "table"):
            filtered = table["fieldConfig"]["defaults"]["custom"]["filterable"]
            sorted_by = {one["displayName"] for one in table["options"]["sortBy"]}
            for title, look in looks(table).items():
                needed = PADDING + sum(SLIM if letter in "Ifijlrt1 ," else WIDE for letter in title)
                needed += ARROW * (title in sorted_by) + SIEVE * look.get("custom.filterable", filtered)
                assert needed <= look.get("custom.width", needed), (table["title"], title)


def test_no_axis_rounds_its_steps() -> None:
    """A step of 0.25 is not 0.3. Counts have whole ones; the others, as many digits as they need."""
    for name in NAMES:
        for panel in drawn(dashboard(name)):
            defaults = panel["fieldConfig"]["defaults"]
            # The ends of an axis of risks are fixed, and steps of seconds become hours and weeks anyway.
            if panel["type"] == "timeseries" and "max" not in defaults and defaults["unit"] != "s":
                assert defaults.get("decimals", 0) == 0, panel["title"]


def test_words_that_read_as_numbers_are_shown_as_they_are_written() -> None:
    """Version 6.7 is not 6.70, and 5.10 not 5.1; so it is with risks, ids and names."""
    for name in NAMES:
        for table in (panel for panel in drawn(dashboard(name)) if panel["type"] == "table"):
            assert looks(table)["string"]["unit"] == "string", table["title"]


def test_quantiles_of_nothing_are_left_out() -> None:
    """Where no event fell into a window a quantile is no number, with which Grafana draws neither axis nor curve."""
    asked = [target["expr"] for name in NAMES for panel in drawn(dashboard(name)) for target in panel["targets"]]
    quantiles = [expr for expr in asked if expr.startswith("histogram_quantile(")]
    assert len(quantiles) >= 8
    assert [expr for expr in quantiles if not expr.endswith(") >= 0")] == []


def test_curves_of_rare_events_are_not_rounded_to_none() -> None:
    """An error an hour is 0.0167 a minute."""
    for name in NAMES:
        for panel in drawn(dashboard(name)):
            if panel["title"].endswith(" a minute"):
                assert "decimals" not in panel["fieldConfig"]["defaults"], panel["title"]


def looks(panel: Json) -> dict[str, dict[str, Any]]:
    """Name of a field → property → value."""
    return {
        one["matcher"]["options"]: {each["id"]: each.get("value") for each in one["properties"]}
        for one in panel["fieldConfig"]["overrides"]
    }


def test_curves_of_one_panel_have_different_colours() -> None:
    """The palette is taken in turn: by name two of them can get hardly different ones. What is unknown is dashed."""
    for name in NAMES:
        for panel in drawn(dashboard(name)):
            if panel["type"] == "timeseries":
                assert panel["fieldConfig"]["defaults"]["color"]["mode"] == "palette-classic", panel["title"]
    fleet = drawn(dashboard("patrolserver-fleet"))
    (gate,) = (panel for panel in fleet if panel["title"] == "Servers that the gate would stop")
    assert looks(gate)["/: unknown$/"]["custom.lineStyle"]["fill"] == "dash"


def test_severities_are_named_the_worst_first() -> None:
    """One query for each: the labels of a single one would come by alphabet."""
    for name in NAMES:
        for panel in drawn(dashboard(name)):
            legends = [target["legendFormat"] for target in panel["targets"]]
            assert not any("{{severity}}" in legend for legend in legends), panel["title"]
            for word in {legend.partition(" ")[2] for legend in legends if legend.partition(" ")[0] in SEVERITIES}:
                named = [first for first, _, rest in (one.partition(" ") for one in legends) if rest == word]
                assert [one for one in named if one in SEVERITIES] == list(SEVERITIES), panel["title"]


def test_an_axis_of_nothing_but_zeros_does_not_go_to_100() -> None:
    """Each ends somewhere by itself: at the highest value that there can be, or softly."""
    for name in NAMES:
        for panel in drawn(dashboard(name)):
            if panel["type"] == "timeseries":
                defaults = panel["fieldConfig"]["defaults"]
                soft = defaults["custom"].get("axisSoftMax")
                assert (soft or 0) > 0 or "max" in defaults, panel["title"]
                # Where there is a soft end, Grafana takes the other one for no more than a limit.
                assert soft is None or "max" not in defaults, panel["title"]


def test_fleet_figures_read_no_series_of_single_servers_over_time() -> None:
    """Curves of the fleet come from sums: at 5,000 servers others take seconds."""
    for name in ("patrolserver-fleet", "patrolserver-software"):
        for panel in drawn(dashboard(name)):
            for target in panel["targets"]:
                if target.get("range"):
                    raw = re.sub(r"\w+:\w+:\w+", "", target["expr"])
                    assert "patrolserver_server_" not in raw, panel["title"]
                    assert not re.search(r"account_server(_\w+)?:", target["expr"]), panel["title"]


def test_two_rows_are_open_and_the_others_wait() -> None:
    """A collapsed row costs Prometheus nothing before it is opened."""
    for name in NAMES:
        rows = [panel["collapsed"] for panel in dashboard(name)["panels"] if panel["type"] == "row"]
        assert rows == [False, False, True, True]
