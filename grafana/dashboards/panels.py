"""Panels with the settings that all of them share, so that a dashboard says only what it shows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from grafana_foundation_sdk.builders import common, dashboard, prometheus, stat, table, timeseries
from grafana_foundation_sdk.cog import builder as cogbuilder
from grafana_foundation_sdk.models import common as kinds
from grafana_foundation_sdk.models.dashboard import (
    DataSourceRef,
    DataTransformerConfig,
    DynamicConfigValue,
    FieldColorModeId,
)
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

from grafana.dashboards.look import GOOD, PLAIN, Limits, fixed_color, threshold_colors, thresholds

if TYPE_CHECKING:
    from grafana_foundation_sdk.models.dashboard import Panel, ValueMap

Sorting = cogbuilder.Builder[kinds.TableSortByFieldState]
Builder = stat.Panel | timeseries.Panel | table.Panel

SOURCE = DataSourceRef(type_val="prometheus", uid="${datasource}")
SHORTEST_STEP = "15s"
RATE_STEP = "1m"
"""Makes ``$__rate_interval`` four minutes at least, so that rates show even when the scrapes are a minute apart."""
DAYS, HOURS = "suffix:d", "suffix:h"
"""As in the headings; Grafana's own units write 0.5 day, and 28 hours as 1.17 days at a step of the axis."""
LEAST_END = {"s": 1, "m": 1, HOURS: 1, DAYS: 1, "percentunit": 0.01, "bytes": 1024}
"""Where the axis of a unit ends at least, though all values are zero."""
NOTHING = DynamicConfigValue(id_val="noValue", value="\u2013")
"""In a cell or a legend, while the default is what the whole panel says when it is empty."""
AS_WRITTEN = DynamicConfigValue(id_val="unit", value="string")
"""Otherwise a version that reads as a number is shown as one: 6.7 as 6.70, and 5.10 as 5.1."""
WRAPPED = DynamicConfigValue(id_val="custom.wrapText", value=True)
"""Text that is too long for its column is wrapped. Before Grafana 12 it is cut, and whole under the pointer."""
UNFILTERED = DynamicConfigValue(id_val="custom.filterable", value=False)
"""The column's heading has no filter though the table's have one: it has no room for it."""
NOTHING_YET = (
    "No data in this time: no exporter was scraped, Prometheus lacks the rules, or it is too young for a time so long"
)


@dataclass(frozen=True, slots=True)
class Query:
    """One PromQL expression and the name of what it returns."""

    expr: str
    legend: str = "__auto"


@dataclass(frozen=True, slots=True)
class About:
    """What a panel is called, what its reader should do, and its size on the grid of 24 columns."""

    title: str
    description: str
    width: int
    height: int
    empty: str = NOTHING_YET


@dataclass(frozen=True, slots=True)
class Placed:
    """A finished panel and its size."""

    panel: Panel
    width: int
    height: int


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table: the field it comes from, its heading and how its cells look."""

    source: str
    title: str
    width: int | None = None
    """Pixels; ``None``: its share of what is left, and ``narrowest`` at least."""
    look: tuple[DynamicConfigValue, ...] = ()
    narrowest: int = 90


def stats(
    about: About,
    queries: list[Query],
    *,
    unit: str = "none",
    limits: Limits = PLAIN,
    base: str = GOOD,
    decimals: int | None = None,
    mapping: ValueMap | None = None,
    each: dict[str, Limits] | None = None,
    text: kinds.BigValueTextMode = kinds.BigValueTextMode.AUTO,
) -> Placed:
    """Big numbers; ``each`` gives single ones limits of their own.

    The queries are instant ones, so that what is gone does not linger.
    """
    builder = stat.Panel().unit(unit).thresholds(thresholds(limits, base)).text_mode(text)
    builder.color_scheme(dashboard.FieldColor().mode(FieldColorModeId.THRESHOLDS))
    builder.color_mode(kinds.BigValueColorMode.BACKGROUND_SOLID).justify_mode(kinds.BigValueJustifyMode.CENTER)
    builder.graph_mode(kinds.BigValueGraphMode.NONE)
    builder.reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]).fields("").values(False))
    if decimals is not None:
        builder.decimals(decimals)
    if mapping is not None:
        builder.mappings([mapping])
    for name, own in (each or {}).items():
        builder.override_by_name(name, threshold_colors(own))
    for index, query in enumerate(queries):
        builder.with_target(_ask(query, index, instant=True))
    return _finish(builder, about)


def lines(
    about: About,
    queries: list[Query],
    *,
    unit: str = "none",
    colors: dict[str, str] | None = None,
    stacked: bool = False,
    step: bool = False,
    decimals: int | None = None,
    highest: float | None = None,
    legend_values: tuple[str, ...] = ("lastNotNull", "max"),
    fill: int = 8,
    dashed: str = "",
) -> Placed:
    """Curves over time from zero upwards; ``colors`` are those of known names, the rest takes the palette in turn.

    By name two curves of one panel can get colours that are hardly different. ``highest``: where the axis ends,
    whatever the values are. ``dashed``: a regular expression for the names of curves that are not solid. ``decimals``
    rounds the steps of the axis, too: without it 0.25 is not 0.3 there, and values have three digits.
    """
    builder = timeseries.Panel().unit(unit).min(0)
    builder.line_width(0 if stacked else 2).fill_opacity(70 if stacked else fill).show_points(
        kinds.VisibilityMode.NEVER
    )
    builder.color_scheme(dashboard.FieldColor().mode(FieldColorModeId.PALETTE_CLASSIC))
    if stacked:
        builder.stacking(common.StackingConfig().mode(kinds.StackingMode.NORMAL).group("A"))
    if step:
        builder.line_interpolation(kinds.LineInterpolation.STEP_AFTER)
    if decimals is not None:
        builder.decimals(decimals)
    # Without any end an axis of nothing but zeros goes to 100; with a soft one it has none that is fixed.
    if highest is None:
        builder.axis_soft_max(1 if decimals == 0 else LEAST_END.get(unit, 0.1))
    else:
        builder.max(highest)
    for name, color in (colors or {}).items():
        builder.override_by_name(name, [fixed_color(color)])
    if dashed:
        style = {"fill": "dash", "dash": [8, 6]}
        builder.override_by_regexp(dashed, [DynamicConfigValue(id_val="custom.lineStyle", value=style)])
    for index, query in enumerate(queries):
        builder.with_target(_ask(query, index))
    builder.override_by_field_type("number", [NOTHING])
    _explain(builder, legend_values)
    return _finish(builder, about)


def bars(about: About, up: list[Query], down: list[Query], *, colors: dict[str, str], most: int) -> Placed:
    """At most ``most`` bars over time, what came above the line and what went below it; the thinnest are 5 m."""
    builder = timeseries.Panel().unit("none").decimals(0).draw_style(kinds.GraphDrawStyle.BARS).fill_opacity(80)
    builder.line_width(0).bar_width_factor(0.8).max_data_points(most).axis_centered_zero(False)
    builder.axis_soft_min(-1).axis_soft_max(1)
    builder.color_scheme(dashboard.FieldColor().mode(FieldColorModeId.PALETTE_CLASSIC))
    builder.stacking(common.StackingConfig().mode(kinds.StackingMode.NORMAL).group("A"))
    for name, color in colors.items():
        builder.override_by_regexp(f"/^{name} /", [fixed_color(color)])
    below = DynamicConfigValue(id_val="custom.transform", value=kinds.GraphTransform.NEGATIVE_Y)
    for index, query in enumerate((*up, *down)):
        builder.with_target(_ask(query, index, step="5m"))
        if index >= len(up):
            builder.override_by_query(chr(ord("A") + index), [below])
    _explain(builder, ())
    placed = _finish(builder, about)
    placed.panel.interval = "5m"
    return placed


def rows(
    about: About,
    queries: list[Query],
    columns: list[Column],
    *,
    sort: list[str],
    key: str = "",
    hidden: tuple[str, ...] = (),
    filterable: bool = False,
) -> Placed:
    """A table of instant queries, one row for each set of labels; ``sort`` names columns, highest first.

    ``key``: a column to sort by afterwards, lowest first. ``hidden``: fields that are not columns. ``filterable``:
    each heading has a filter.
    """
    builder = (
        table.Panel().unit("none").cell_height(kinds.TableCellHeight.SM).footer(common.TableFooterOptions().show(False))
    )
    builder.color_scheme(dashboard.FieldColor().mode(FieldColorModeId.THRESHOLDS)).thresholds(thresholds(PLAIN, "text"))
    builder.filterable(filterable)
    for index, query in enumerate(queries):
        builder.with_target(_ask(query, index, instant=True, as_table=True))
    builder.with_transformation(DataTransformerConfig(id_val="merge", options={}))
    builder.with_transformation(
        DataTransformerConfig(
            id_val="organize",
            options={
                "excludeByName": dict.fromkeys(("Time", *hidden), True),
                "indexByName": {column.source: index for index, column in enumerate(columns)},
                "renameByName": {column.source: column.title for column in columns},
            },
        )
    )
    builder.override_by_field_type("string", [NOTHING, AS_WRITTEN])
    builder.override_by_field_type("number", [NOTHING])
    for column in columns:
        name, width = ("custom.minWidth", column.narrowest) if column.width is None else ("custom.width", column.width)
        builder.override_by_name(column.title, [DynamicConfigValue(id_val=name, value=width), *column.look])
    order: list[Sorting] = [common.TableSortByFieldState().display_name(name).desc(True) for name in sort]
    if key:
        order.append(common.TableSortByFieldState().display_name(key).desc(False))
    builder.sort_by(order)
    return _finish(builder, about)


def colored_cell(limits: Limits, base: str = "transparent") -> tuple[DynamicConfigValue, ...]:
    """A cell whose background says how bad its number is."""
    background = DynamicConfigValue(id_val="custom.cellOptions", value={"type": "color-background", "mode": "basic"})
    return (background, *threshold_colors(limits, base))


def said(meanings: ValueMap) -> tuple[DynamicConfigValue, ...]:
    """A value shown as a word on its colour."""
    return (
        DynamicConfigValue(id_val="mappings", value=[meanings]),
        DynamicConfigValue(id_val="custom.cellOptions", value={"type": "color-background", "mode": "basic"}),
        DynamicConfigValue(id_val="color", value={"mode": "fixed", "fixedColor": "transparent"}),
        DynamicConfigValue(id_val="custom.align", value="left"),
    )


def unit(name: str, decimals: int | None = None) -> tuple[DynamicConfigValue, ...]:
    """A column's own unit."""
    rounded = () if decimals is None else (DynamicConfigValue(id_val="decimals", value=decimals),)
    return (DynamicConfigValue(id_val="unit", value=name), *rounded)


def link(title: str, url: str, *, elsewhere: bool = False) -> tuple[DynamicConfigValue, ...]:
    """A click on the cell leads there; ``elsewhere``: in another window."""
    return (DynamicConfigValue(id_val="links", value=[{"title": title, "url": url, "targetBlank": elsewhere}]),)


def _ask(
    query: Query, index: int, *, instant: bool = False, as_table: bool = False, step: str = ""
) -> prometheus.Dataquery:
    target = prometheus.Dataquery().expr(query.expr).legend_format(query.legend).ref_id(chr(ord("A") + index))
    target.datasource(SOURCE)
    if as_table:
        target.format(PromQueryFormat.TABLE)
    if instant:
        return target.instant()
    shortest = RATE_STEP if "$__rate_interval" in query.expr else SHORTEST_STEP
    return target.range().interval(step or shortest)


def _explain(builder: timeseries.Panel, values: tuple[str, ...]) -> None:
    legend = common.VizLegendOptions().show_legend(True).placement(kinds.LegendPlacement.BOTTOM).calcs(list(values))
    builder.legend(legend.display_mode(kinds.LegendDisplayMode.LIST))
    builder.tooltip(common.VizTooltipOptions().mode(kinds.TooltipDisplayMode.MULTI).sort(kinds.SortOrder.DESCENDING))


def _finish(builder: Builder, about: About) -> Placed:
    builder.title(about.title).description(about.description).datasource(SOURCE).interval(SHORTEST_STEP)
    builder.no_value(about.empty)
    return Placed(builder.build(), about.width, about.height)
