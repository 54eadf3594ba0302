"""What surrounds the panels, the same on every dashboard: variables, annotations, links, rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from grafana_foundation_sdk.builders import dashboard
from grafana_foundation_sdk.models.dashboard import (
    Dashboard,
    DashboardCursorSync,
    DashboardLinkType,
    DynamicConfigValue,
    GridPos,
    RowPanel,
    VariableHide,
    VariableOption,
    VariableRefresh,
    VariableSort,
)

from grafana.alerting.recorded import SCAN
from grafana.dashboards.look import CALM, SEVERITIES
from grafana.dashboards.panels import SOURCE, WRAPPED, Placed, link
from grafana.dashboards.promql import OWNERS, TARGET, by_server, own

if TYPE_CHECKING:
    from grafana.settings import Settings

TAG = "patrolserver"
COLUMNS = 24
MARK = "10m"
"""How long a mark is: two scrapes and more, and longer than the step that Grafana asks annotations with."""
MARKED_SERVERS = 3
"""With more selected, the marks of their scans would hide the curves."""
FLEET = "patrolserver-fleet"
SERVER = "patrolserver-server"
SOFTWARE = "patrolserver-software"
EXPORTER = "patrolserver-exporter"

KEPT = "${datasource:queryparam}&${job:queryparam}&${instance:queryparam}&${severity:queryparam}&${__url_time_range}"


@dataclass(frozen=True, slots=True)
class Row:
    """A titled band of panels; a collapsed one asks Prometheus nothing before it is opened."""

    title: str
    panels: tuple[Placed, ...]
    collapsed: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """A whole dashboard."""

    uid: str
    title: str
    description: str
    rows: tuple[Row, ...]
    hidden: frozenset[str] = frozenset()
    """Variables that only pass through, from link to link."""
    scans_marked: bool
    """Whether the marks of scans are drawn from the start."""


def build(page: Page, settings: Settings) -> Dashboard:
    """The dashboard with everything that the others have too."""
    builder = (
        dashboard.Dashboard(page.title)
        .uid(page.uid)
        .description(page.description)
        .tags([TAG])
        .readonly()
        .tooltip(DashboardCursorSync.CROSSHAIR)
        .time("now-7d", "now")
        .refresh("1m")
        .timezone("browser")
        .link(_others())
        .link(_pages(settings.exporter_url))
    )
    for variable in _variables(page.hidden, settings.owner_labels):
        builder.with_variable(variable)
    for annotation in _annotations(scans_marked=page.scans_marked):
        builder.annotation(annotation)
    finished = builder.build()
    finished.panels = []
    number = y = 0
    for row in page.rows:
        number += 1
        band = RowPanel(
            title=row.title, collapsed=row.collapsed, id_val=number, grid_pos=GridPos(h=1, w=COLUMNS, x=0, y=y)
        )
        finished.panels.append(band)
        y = _place(row.panels, number, y + 1)
        (band.panels if row.collapsed else finished.panels).extend(placed.panel for placed in row.panels)
        number += len(row.panels)
    return finished


def to_server(server_field: str, account_field: str) -> str:
    """The link from a row of a table to its server's dashboard."""
    server = f"var-server=${{__data.fields[{server_field}]:percentencode}}"
    account = f"var-account=${{__data.fields[{account_field}]:percentencode}}"
    return f"/d/{SERVER}?{account}&{server}&{KEPT}"


def server_link(title: str) -> tuple[DynamicConfigValue, ...]:
    """The look of the column ``Server`` beside one that is called ``Account``: a name too long for it is wrapped."""
    return (*link(title, to_server("Server", "Account")), WRAPPED)


def to_owner(fields: dict[str, str]) -> str:
    """The link from a row of a table to the dashboard of an owner's servers; label → the column that shows it."""
    owners = "&".join(f"var-{label}=${{__data.fields[{title}]:percentencode}}" for label, title in fields.items())
    return f"/d/{SERVER}?var-account=${{__data.fields[Account]:percentencode}}&{owners}&{KEPT}"


def _place(panels: tuple[Placed, ...], number: int, top: int) -> int:
    x, y, tallest = 0, top, 0
    for offset, placed in enumerate(panels, start=1):
        if x + placed.width > COLUMNS:
            x, y, tallest = 0, y + tallest, 0
        placed.panel.id_val = number + offset
        placed.panel.grid_pos = GridPos(h=placed.height, w=placed.width, x=x, y=y)
        x, tallest = x + placed.width, max(tallest, placed.height)
    return y + tallest


def _others() -> dashboard.DashboardLink:
    link = dashboard.DashboardLink("PatrolServer").type(DashboardLinkType.DASHBOARDS).tags([TAG])
    link.icon("external link").tooltip("The other dashboards, with this selection and time")
    return link.as_dropdown(True).include_vars(True).keep_time(True)


def _pages(exporter_url: str) -> dashboard.DashboardLink:
    link = dashboard.DashboardLink("Exporter's pages").type(DashboardLinkType.LINK).url(f"{exporter_url}/")
    link.icon("external link").tooltip("What the exporter itself says: servers, issues, troubles").target_blank(True)
    return link


def _variables(
    hidden: frozenset[str], owner_labels: tuple[str, ...]
) -> list[dashboard.DatasourceVariable | dashboard.QueryVariable | dashboard.CustomVariable]:
    source = dashboard.DatasourceVariable("datasource").label("Data source").type("prometheus")
    servers = f'{TARGET}, account=~"$account"'
    whole_accounts = "server" in hidden
    severities = dashboard.CustomVariable("severity").label("Severity").values(",".join(SEVERITIES))
    severities.multi(True).include_all(True).all_value(".+").current(_all())
    if "severity" in hidden:
        severities.hide(VariableHide.HIDE_VARIABLE)
    return [
        source,
        _choice("job", "Job", "label_values(patrolserver_exporter_build_info, job)"),
        _choice("instance", "Instance", 'label_values(patrolserver_exporter_build_info{job=~"$job"}, instance)'),
        _choice("account", "Account", f"label_values(patrolserver_up{{{TARGET}}}, account)"),
        *(
            # Servers without the label are among all.
            _choice(
                label,
                label.replace("_", " ").capitalize(),
                f"label_values(patrolserver_server_info{{{servers}}}, {label})",
                hide=whole_accounts,
                every=".*",
            )
            for label in owner_labels
        ),
        _choice(
            "server",
            "Server",
            f"label_values(patrolserver_server_info{{{servers}, {OWNERS}}}, server)",
            hide=whole_accounts,
            # Where servers are chosen, the sums over all of them are told by it: see promql.ALL.
            every=".+" if whole_accounts else ".*",
        ),
        severities,
    ]


def _choice(name: str, label: str, query: str, *, hide: bool = False, every: str = ".+") -> dashboard.QueryVariable:
    choice = dashboard.QueryVariable(name).label(label).query(query).datasource(SOURCE)
    choice.multi(True).include_all(True).all_value(every).current(_all())
    choice.refresh(VariableRefresh.ON_TIME_RANGE_CHANGED).sort(VariableSort.ALPHABETICAL_ASC)
    return choice.hide(VariableHide.HIDE_VARIABLE) if hide else choice


def _all() -> VariableOption:
    return VariableOption(selected=True, text="All", value="$__all")


def _annotations(*, scans_marked: bool) -> list[dashboard.AnnotationQuery]:
    scan = by_server(SCAN)
    few = f"count(count by (account, server) ({scan})) <= {MARKED_SERVERS}"
    scans = f"(count by (account, server) (changes({scan}[{MARK}]) > 0)) and on () ({few})"
    restarts = f"changes({own('process_start_time_seconds')}[{MARK}]) > 0"
    return [
        _marks("Scans", scans, CALM).enable(scans_marked),
        _marks("Exporter restarts", restarts, "purple").enable(True),
    ]


def _marks(name: str, expr: str, color: str) -> dashboard.AnnotationQuery:
    return dashboard.AnnotationQuery().name(name).datasource(SOURCE).expr(expr).icon_color(color)
