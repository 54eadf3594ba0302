"""The dashboards, drawn with Grafana's own components against a real Prometheus. Needs a copy of render_dashboard."""

from __future__ import annotations

import datetime as dt
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import requests
from grafana.alerting.files import RULES
from grafana.dashboards.files import FOLDER
from grafana.pictures.__main__ import END, fill, prometheus
from grafana.pictures.draw import View, draw
from grafana.pictures.week import STEP, WEEK
from tests.harness.process import TOKEN, Exporter
from tests.harness.prometheus import Prometheus, hurried
from tests.harness.skipping import NOT_OURS
from tests.harness.waiting import eventually

from patrolserver_exporter.simulator.options import SimulatorOptions
from patrolserver_exporter.simulator.server import Simulator

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

NAMES = ("fleet", "server", "software", "exporter")
NOTHING_THERE = {"Waivers", "Firing alerts", "Known exploits", "By exploit"}
"""Lists that say so when a small fleet has none."""
YOUNG = {"Opened and fixed", "Software since yesterday and last week", "Time to fix"}
"""Bars begin at full five minutes, of which none may be in what was scraped so far; nothing is known of yesterday; and
what was fixed may have been so before the selected minutes.
"""
SELECTIONS: dict[str, tuple[str, int]] = {
    "all": ("$__all", 1600),
    "all, narrow": ("$__all", 1000),
    "one": ("web-02.example.org", 1600),
    "several": ("web-02.example.org,ci-01.lab.example.org,shop-02.example.org", 1600),
}
"""Servers, and the width of the window in pixels."""


@pytest.fixture(scope="session")
def renderer() -> Path:
    """A copy of the tool that ``npm ci`` made ready: RENDER_DASHBOARD_DIR. The tool is no part of this repository."""
    given = os.environ.get("RENDER_DASHBOARD_DIR")
    if not given:
        pytest.skip(f"{NOT_OURS}RENDER_DASHBOARD_DIR does not name a copy of render_dashboard after npm ci")
    return Path(given)


@pytest.fixture(scope="module")
def week(
    tmp_path_factory: pytest.TempPathFactory, renderer: Path, require_program: Callable[[str], str]
) -> Iterator[str]:
    """URL of a Prometheus with a week of the demo's fleet."""
    for program in ("prometheus", "promtool"):
        require_program(program)
    folder = tmp_path_factory.mktemp("week")
    fill(folder)
    with prometheus(folder) as url:
        yield url


def dashboard(name: str) -> Path:
    return FOLDER / f"patrolserver-{name}.json"


def not_drawn(panels: list[dict[str, Any]]) -> list[tuple[str, str]]:
    """Panels with an error or with nothing to show."""
    return [(panel["title"], panel.get("error") or panel["status"]) for panel in panels if panel["status"] != "ok"]


def iso(moment: dt.datetime) -> str:
    return moment.isoformat().replace("+00:00", "Z")


@pytest.mark.parametrize("selection", SELECTIONS)
@pytest.mark.parametrize("name", NAMES)
def test_every_panel_shows_something_of_a_week(
    week: str, renderer: Path, tmp_path: Path, name: str, selection: str
) -> None:
    """No error and no empty panel, with all servers, one and several."""
    servers, width = SELECTIONS[selection]
    view = View(
        dashboard=dashboard(name),
        prometheus=week,
        start=iso(END - dt.timedelta(seconds=WEEK)),
        end=iso(END),
        scrape_interval=f"{STEP}s",
        variables={"server": servers},
        width=width,
    )
    panels = draw(renderer, view, tmp_path / f"{name}.png")
    assert len(panels) >= 14
    assert not_drawn(panels) == []


@pytest.mark.parametrize("name", NAMES)
def test_an_empty_prometheus_is_no_error(renderer: Path, tmp_path: Path, name: str) -> None:
    """Every panel then shows its own text for having nothing; none fails and none calls an unknown fleet healthy."""
    with prometheus(tmp_path) as url:
        view = View(dashboard=dashboard(name), prometheus=url)
        panels = draw(renderer, view, tmp_path / f"{name}.png")
    assert {panel["status"] for panel in panels} == {"no data"}


@pytest.fixture(scope="module")
def scraped(
    tmp_path_factory: pytest.TempPathFactory, renderer: Path, require_program: Callable[[str], str]
) -> Iterator[tuple[Prometheus, list[str]]]:
    """A real Prometheus that scrapes a real exporter, after an issue came and went; the names, its server's first."""
    folder = tmp_path_factory.mktemp("scraped")
    with (
        Simulator(SimulatorOptions(listen_address="127.0.0.1:0", servers=6, software=12)) as simulator,
        Exporter.watching(folder, simulator.base_url) as exporter,
        Prometheus(
            folder,
            require_program("prometheus"),
            exporter.url.removeprefix("http://"),
            extra=f'rule_files: ["{hurried(RULES, folder)}"]\n',
        ) as running,
    ):
        fixed = "sum(patrolserver_issues_fixed_total)"
        eventually(lambda: running.value(fixed) == 0.0, within=60, what="the first scrapes")
        order(simulator, "/webhooks", url=f"{exporter.url}/webhook/{TOKEN}")
        names = [server.name for server in simulator.world.servers(simulator.world.demo)]
        name = names.pop(1)
        order(simulator, "/break", server=name, kind="exploitable", risk=9.8)
        critical = 'sum(patrolserver_server_issues{severity="critical"})'
        eventually(lambda: running.value(critical) == 1.0, within=60, what="the issue")
        order(simulator, "/mend", server=name)
        order(simulator, "/break", server=name, kind="outdated")
        order(simulator, "/scan", server=name, seconds=0.2)
        eventually(lambda: running.value(f"{fixed} > 0"), within=60, what="its fix")
        ended = "count(patrolserver_server_last_scan_timestamp_seconds)"
        eventually(lambda: running.value(ended) == 1.0, within=60, what="the end of the scan")
        # Rates are drawn at full minutes: one of them has to be in what was scraped.
        a_minute = "min(count_over_time(patrolserver_exporter_api_requests_total[5m])) > 75"
        eventually(lambda: running.value(a_minute), within=120, what="the scrapes of a minute and more")
        yield running, [name, *names]


def order(simulator: Simulator, path: str, /, **body: Any) -> None:
    response = requests.post(f"{simulator.base_url}/-/simulator{path}", json=body, timeout=10)
    assert response.ok, response.text


@pytest.mark.parametrize("selected", [None, 1, 3], ids=["all", "one", "several"])
@pytest.mark.parametrize("name", NAMES)
def test_every_panel_shows_something_of_a_real_exporter(
    scraped: tuple[Prometheus, list[str]], renderer: Path, tmp_path: Path, name: str, selected: int | None
) -> None:
    """Minutes after the start nothing is empty, with all servers, one and several."""
    running, servers = scraped
    view = View(
        dashboard=dashboard(name),
        prometheus=running.url,
        start="now-3m",
        variables={} if selected is None else {"server": ",".join(servers[:selected])},
    )
    empty = not_drawn(draw(renderer, view, tmp_path / f"{name}.png"))
    assert [(title, why) for title, why in empty if title not in NOTHING_THERE | YOUNG] == []
