"""What every dashboard has to keep, after grafana/dashboard-linter and this project's own look."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import promql_parser as promql

from grafana.dashboards.look import INBOX_STATES, OUTCOMES, SEVERITIES, SOFTWARE_STATES

if TYPE_CHECKING:
    from collections.abc import Iterator

Json = dict[str, Any]

SOURCE = "${datasource}"
RATE_WINDOW = "9999s"
_SAMPLES = {"__rate_interval": RATE_WINDOW, "__interval": "8888s", "__range": "7777s"}
_VARIABLE = re.compile(r"\$(\w+)|\$\{(\w+)[^}]*\}")
_QUERY_FUNCTIONS = ("label_values(", "label_names(", "metrics(", "query_result(")
_ALL = {".+", ".*"}
_COUNTING = {"rate", "irate", "increase"}


def problems(dashboard: Json) -> list[str]:
    """Everything that is wrong with it; empty for a good one."""
    return [
        *_variables(dashboard),
        *_frame(dashboard),
        *(problem for panel in drawn(dashboard) for problem in _panel(panel)),
        *_grid(dashboard),
    ]


def drawn(dashboard: Json) -> list[Json]:
    """All panels that show something, those in collapsed rows too."""
    return [panel for panel in _with_rows(dashboard) if panel["type"] != "row"]


def expressions(dashboard: Json) -> list[str]:
    """Every PromQL expression: of panels, variables and annotations, with Grafana's variables filled in."""
    asked = [target["expr"] for panel in drawn(dashboard) for target in panel["targets"]]
    asked += [annotation["expr"] for annotation in dashboard["annotations"]["list"] if "expr" in annotation]
    return [filled(expr) for expr in asked]


def filled(expr: str) -> str:
    """With values that PromQL can parse where Grafana's variables stand; those within quotes are left."""
    parts = expr.split('"')
    parts[::2] = [
        _VARIABLE.sub(lambda found: _SAMPLES.get(found[1] or found[2], found[0]), part) for part in parts[::2]
    ]
    return '"'.join(parts)


def nodes(
    expr: promql.Expr, above: tuple[promql.Expr, ...] = ()
) -> Iterator[tuple[promql.Expr, tuple[promql.Expr, ...]]]:
    """Each node of a parsed expression, with those above it, the outermost first."""
    yield expr, above
    for name in ("expr", "lhs", "rhs", "args", "vector_selector", "param"):
        child = getattr(expr, name, None)
        for one in child if isinstance(child, list) else [child]:
            if isinstance(one, promql.Expr):
                yield from nodes(one, (*above, expr))


def _with_rows(dashboard: Json) -> Iterator[Json]:
    for panel in dashboard["panels"]:
        yield panel
        yield from panel.get("panels") or ()


def _variables(dashboard: Json) -> Iterator[str]:
    known = {variable["name"]: variable for variable in dashboard["templating"]["list"]}
    for name in {"datasource", "job", "instance", "account", "server", "severity"} - known.keys():
        yield f"variable {name} is missing"
    for name, label in (("datasource", "Data source"), ("job", "Job"), ("instance", "Instance")):
        if known.get(name, {}).get("label", label) != label:
            yield f"variable {name} is not labelled {label}"
    for name, variable in known.items():
        if variable["type"] == "datasource":
            continue
        if not (variable.get("multi") and variable.get("includeAll") and variable.get("allValue") in _ALL):
            yield f"variable {name} is not multi with an All of .+, or of .* for what servers need not have"
        if variable["type"] == "query":
            if variable["datasource"]["uid"] != SOURCE or variable["refresh"] != 2:
                yield f"variable {name} does not ask the chosen source at each change of time"
            if not str(variable["query"]).startswith(_QUERY_FUNCTIONS):
                yield f"variable {name} asks {variable['query']}"


def _frame(dashboard: Json) -> Iterator[str]:
    if dashboard.get("editable"):
        yield "it is editable"
    if not any(link["includeVars"] and link["keepTime"] and link["tags"] for link in dashboard.get("links", [])):
        yield "no link leads to the other dashboards with variables and time"
    names = {annotation["name"] for annotation in dashboard["annotations"]["list"]}
    for name in {"Scans", "Exporter restarts"} - names:
        yield f"annotation {name} is missing"


def _panel(panel: Json) -> Iterator[str]:
    where = f"panel {panel.get('title')!r}"
    defaults, overrides = panel["fieldConfig"]["defaults"], panel["fieldConfig"]["overrides"]
    for key in ("title", "description", "targets", "datasource"):
        if not panel.get(key):
            yield f"{where} has no {key}"
    if panel.get("datasource", {}).get("uid") != SOURCE:
        yield f"{where} does not ask the chosen source"
    if not defaults.get("unit"):
        yield f"{where} has no unit"
    if not defaults.get("noValue"):
        yield f"{where} does not say what it means when it is empty"
    if panel["type"] == "timeseries" and "showLegend" not in panel["options"]["legend"]:
        yield f"{where} does not say whether it shows its legend"
    yield from _colors(where, overrides)
    for target in panel.get("targets") or ():
        yield from _expression(where, target["expr"])


def _colors(where: str, overrides: list[Json]) -> Iterator[str]:
    fixed = SEVERITIES | SOFTWARE_STATES | INBOX_STATES
    for override in overrides:
        name = str(override["matcher"]["options"])
        colors = [one["value"].get("fixedColor") for one in override["properties"] if one["id"] == "color"]
        expected = {fixed[name], OUTCOMES.get(name)} if name in fixed else {None, *colors}
        for color in colors:
            if color is not None and color not in expected:
                yield f"{where} shows {name} in {color}, not in {fixed[name]}"


def _expression(where: str, expr: str) -> Iterator[str]:
    try:
        parsed = promql.parse(filled(expr))
    except ValueError as error:
        yield f"{where} asks what is no PromQL: {error}"
        return
    for node, above in nodes(parsed):
        if isinstance(node, promql.VectorSelector):
            yield from _selector(where, node, above)
        if isinstance(node, promql.MatrixSelector) and above and isinstance(above[-1], promql.Call):
            function = above[-1].func.name
            if function in {"rate", "irate"} and f"{node.range.total_seconds():.0f}s" != RATE_WINDOW:
                yield f"{where}: {function} over a fixed window"


def _selector(where: str, selector: promql.VectorSelector, above: tuple[promql.Expr, ...]) -> Iterator[str]:
    matchers = {(one.name, one.value) for one in selector.matchers.matchers}
    for label in ("job", "instance"):
        if (label, f"${label}") not in matchers:
            yield f"{where}: {selector.name} is not restricted to ${label}"
    calls = {node.func.name for node in above if isinstance(node, promql.Call)}
    if (selector.name or "").endswith("_total") and not calls & _COUNTING:
        yield f"{where}: the counter {selector.name} is shown as it is"


def _grid(dashboard: Json) -> Iterator[str]:
    numbers = [panel["id"] for panel in _with_rows(dashboard)]
    if len(set(numbers)) != len(numbers):
        yield "panels share a number"
    taken: dict[tuple[int, int], str] = {}
    for panel in _with_rows(dashboard):
        place = panel["gridPos"]
        if place["x"] + place["w"] > 24:
            yield f"panel {panel['title']!r} is beyond the grid"
        for x in range(place["x"], place["x"] + place["w"]):
            for y in range(place["y"], place["y"] + place["h"]):
                other = taken.setdefault((x, y), panel["title"])
                if other != panel["title"]:
                    yield f"panels {other!r} and {panel['title']!r} overlap"
                    return
