"""What the dashboards show is what the API says: their own queries, asked of a real Prometheus with the rules."""

from __future__ import annotations

import json
import re
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest
import requests
from grafana.alerting import recorded
from grafana.alerting.files import RULES
from grafana.dashboards.files import FOLDER
from grafana.lint import drawn
from tests.harness.process import Exporter
from tests.harness.prometheus import Prometheus, hurried
from tests.harness.promtool import rules_hold, series
from tests.harness.waiting import eventually

from patrolserver_exporter.simulator.options import SimulatorOptions
from patrolserver_exporter.simulator.server import Simulator

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

SERVERS = 12
TARGET = 'job="patrolserver",instance="first:10058"'
Labelled = dict[tuple[str, ...], float]


def asked(dashboard: str, title: str, place: int = 0, server: str = "") -> str:
    """The query of a panel, with All chosen everywhere; ``server`` is what Grafana writes for servers by name."""
    page = json.loads((FOLDER / f"patrolserver-{dashboard}.json").read_text())
    (panel,) = (panel for panel in drawn(page) if panel["title"] == title)
    expr: str = panel["targets"][place]["expr"]
    if server:
        expr = expr.replace('"$server"', f'"{server}"')
    for variable in page["templating"]["list"]:
        expr = expr.replace(f'"${variable["name"]}"', f'"{variable.get("allValue")}"')
    return expr


class Shown:
    """The fleet as Prometheus and the API show it."""

    def __init__(self, prometheus: Prometheus, exporter: Exporter) -> None:
        self._prometheus = prometheus
        self._exporter = exporter

    def numbers(self, dashboard: str, title: str, *labels: str, place: int = 0, server: str = "") -> Labelled:
        """What a panel shows: the values of labels → the number; what is 0 is left out."""
        found = self._prometheus.query(asked(dashboard, title, place, server))
        return {
            tuple(one["metric"].get(label, "") for label in labels): float(one["value"][1])
            for one in found
            if float(one["value"][1])
        }

    def listed(self, path: str, **asked_for: Any) -> list[dict[str, Any]]:
        """All items of a list of the API."""
        items: list[dict[str, Any]] = self._exporter.get(f"/api/v1/{path}", params={"limit": 1000, **asked_for}).json()[
            "items"
        ]
        return items


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory, require_program: Callable[[str], str]) -> Iterator[Shown]:
    """A fleet with an exploit of each severity, seen by an exporter, scraped by a Prometheus whose rules hurry."""
    folder = tmp_path_factory.mktemp("numbers")
    options = SimulatorOptions(listen_address="127.0.0.1:0", servers=SERVERS, software=12)
    with Simulator(options) as simulator:
        names = [server.name for server in simulator.world.servers(simulator.world.demo)]
        for name, risk in zip(names, (9.8, 9.1, 7.5, 5.1), strict=False):
            body = {"server": name, "kind": "exploitable", "risk": risk}
            assert requests.post(f"{simulator.base_url}/-/simulator/break", json=body, timeout=10).ok
        with (
            Exporter.watching(folder, simulator.base_url, interval="5s") as exporter,
            Prometheus(
                folder,
                require_program("prometheus"),
                exporter.url.removeprefix("http://"),
                extra=f'rule_files: ["{hurried(RULES, folder)}"]\n',
            ) as prometheus,
        ):
            polled = "count(patrolserver_server_last_poll_timestamp_seconds > 0)"
            eventually(lambda: prometheus.value(polled) == SERVERS, within=120, what="a poll of each server")
            yield Shown(prometheus, exporter)


def agree(one: Callable[[], Labelled], other: Callable[[], Labelled]) -> None:
    """Both come to the same, and it is not nothing."""
    found: list[Labelled] = []

    def same() -> bool:
        found[:] = [one(), other()]
        return found[0] == found[1] != {}

    try:
        eventually(same, within=120, what="the same numbers")
    except AssertionError:
        assert found[0] == found[1]
        raise


@pytest.mark.parametrize("dashboard", ["fleet", "server"])
@pytest.mark.parametrize(("place", "severity"), [(0, "critical"), (1, "high"), (2, "medium")])
def test_open_issues_are_those_of_the_api(shown: Shown, dashboard: str, place: int, severity: str) -> None:
    """Of each severity, on the fleet's dashboard as on the servers' own."""
    agree(
        lambda: shown.numbers(dashboard, "Open issues", place=place),
        lambda: {(): float(len(shown.listed("issues", severity=severity, waived="false")))},
    )


@pytest.mark.parametrize(
    ("title", "place"),
    [
        *(("Open issues", place) for place in range(3)),
        *(("Open issues by severity", place) for place in range(3)),
        *(("Software that is not current", place) for place in range(2)),
        *((title, 0) for title in ("Exploits", "Highest risk", "Exploits over time", "Highest risk over time")),
    ],
)
def test_all_servers_are_those_that_can_be_named(shown: Shown, title: str, place: int) -> None:
    """All is answered from sums of the fleet, and servers by name from their own series: both come to the same."""
    named = "(" + "|".join(one["name"].replace(".", r"\\.") for one in shown.listed("servers")) + ")"
    agree(
        lambda: shown.numbers("server", title, place=place),
        lambda: shown.numbers("server", title, place=place, server=named),
    )


def test_servers_are_those_of_the_api(shown: Shown) -> None:
    """All of them, those to act on, and those that nobody can vouch for."""
    agree(lambda: shown.numbers("fleet", "Servers"), lambda: {(): float(len(shown.listed("servers")))})
    urgent = {"severity": ["critical", "high"], "waived": "false"}
    agree(lambda: shown.numbers("fleet", "To act on"), lambda: {(): float(len(shown.listed("servers", **urgent)))})
    agree(
        lambda: shown.numbers("fleet", "Unknown"),
        lambda: {(): float(sum(bool(one["unknown_because"]) for one in shown.listed("servers")))},
    )


def test_the_worst_servers_have_the_issues_of_the_api(shown: Shown) -> None:
    """The critical column, server by server."""
    agree(
        lambda: shown.numbers("fleet", "Worst servers", "server"),
        lambda: {
            key: float(number)
            for key, number in Counter((one["server"],) for one in shown.listed("issues", severity="critical")).items()
        },
    )


def test_exploits_are_on_as_many_servers_as_the_api_says(shown: Shown) -> None:
    """Each known exploit, by what it is called."""
    agree(
        lambda: shown.numbers("software", "By exploit", "exploit", "software"),
        lambda: {
            (one["cve"] or one["id"] or one["title"], software): float(one["servers"])
            for one in shown.listed("exploits")
            for software in one["software"]
        },
    )


def test_the_software_to_update_is_that_of_the_api(shown: Shown) -> None:
    """On the server dashboard each software of each server that has a critical issue."""
    agree(
        lambda: {
            key: 1.0
            for key, rank in shown.numbers("server", "What to update, the worst first", "server", "software").items()
            if rank == 4.0  # Critical.
        },
        lambda: {(one["server"], one["canonical_name"]): 1.0 for one in shown.listed("issues", severity="critical")},
    )


PLACES = {
    ("openssl", "/"): "openssl",
    ("nginx", ""): "nginx",
    ("wordpress", "/var/www/shop"): "wordpress /var/www/shop",
    ("wordpress", "/srv/my blog/"): "wordpress /srv/my blog/",
    ('a"b\\c /', "/"): 'a"b\\c /',
}
"""Software and location → how they are shown."""


def test_software_is_shown_with_its_location_unless_that_is_the_systems_own(
    tmp_path: Path, require_program: Callable[[str], str]
) -> None:
    """The same software at two places has two rows that can be told apart, whatever the names are."""
    server = f'{TARGET},account="main",server="web-01",server_id="7"'
    found = {f"{recorded.WEIGHT}{{{server}}}": "1x5", f"{recorded.INFO}{{{server}}}": "1x5"}
    for software, location in PLACES:
        labels = f'software={json.dumps(software)},location={json.dumps(location)},severity="medium"'
        found[f"patrolserver_server_software_info{{{server},{labels}}}"] = "1x5"
    test = {
        "interval": "1m",
        "input_series": series(found),
        "promql_expr_test": [
            {
                "expr": f"count by (place) ({asked('server', 'What to update, the worst first')})",
                "eval_time": "5m",
                "exp_samples": [{"labels": f"{{place={json.dumps(place)}}}", "value": 1} for place in PLACES.values()],
            }
        ],
    }
    no_rules = tmp_path / "rules.yml"
    no_rules.write_text("groups: []\n")
    assert rules_hold(require_program("promtool"), no_rules, [test], tmp_path) == ""


def test_software_that_changed_since_yesterday_and_last_week_is_listed(
    tmp_path: Path, require_program: Callable[[str], str]
) -> None:
    """What is as it was is left out; 0 is of what did not change since that day; what is fixed is listed with 0."""
    hours = 8 * 24
    values = {
        "as-it-was": f"3x{hours}",
        "since-today": f"2x{hours - 2} 5x2",
        "fixed-days-ago": f"4x{hours - 80} stale",
        "since-days-ago": f"_x{hours - 60} 1x60",
    }
    labels = f'{TARGET},account="main",severity="high"'
    counted = {f'{recorded.SOFTWARE_SERVERS}{{{labels},software="{name}"}}': value for name, value in values.items()}
    known = {f"{recorded.ACCOUNT_ISSUES}{{{labels}}}": f"1x{hours}"}
    expected = (
        {"since-today": 5, "fixed-days-ago": 0, "since-days-ago": 1},
        {"since-today": 3, "fixed-days-ago": 0, "since-days-ago": 0},
        {"since-today": 3, "fixed-days-ago": -4, "since-days-ago": 1},
    )
    test = {
        "interval": "1h",
        "input_series": series(counted | known),
        "promql_expr_test": [
            {
                "expr": asked("software", "Software since yesterday and last week", place),
                "eval_time": f"{hours}h",
                "exp_samples": [{"labels": f'{{software="{name}"}}', "value": value} for name, value in shown.items()],
            }
            for place, shown in enumerate(expected)
        ],
    }
    no_rules = tmp_path / "rules.yml"
    no_rules.write_text("groups: []\n")
    assert rules_hold(require_program("promtool"), no_rules, [test], tmp_path, step="1h") == ""


def test_software_that_is_exploitable_has_one_row(tmp_path: Path, require_program: Callable[[str], str]) -> None:
    """Whether it is current or of unknown state; what is outdated besides is another row."""
    states = {"supported": 750, "unknown": 33, "outdated": 121}
    labels = f'{TARGET},account="main",software="php",severity="critical"'
    counted = {f'{recorded.SOFTWARE_SERVERS}{{{labels},state="{name}"}}': f"{n}x5" for name, n in states.items()}
    test = {
        "interval": "1m",
        "input_series": series(counted),
        "promql_expr_test": [
            {
                "expr": asked("software", "By software"),
                "eval_time": "5m",
                "exp_samples": [
                    {"labels": f'{{software="php",severity="critical",state="{state}"}}', "value": value}
                    for state, value in (("exploitable", 783), ("outdated", 121))
                ],
            }
        ],
    }
    no_rules = tmp_path / "rules.yml"
    no_rules.write_text("groups: []\n")
    assert rules_hold(require_program("promtool"), no_rules, [test], tmp_path) == ""


LISTS = {
    "By software": (recorded.SOFTWARE_SERVERS, 'state="outdated",severity="medium"', "severity"),
    "By exploit": (recorded.EXPLOIT_SERVERS, 'exploit="CVE-1",risk="6.5"', "risk"),
}
"""What they count, labels of something that is not the worst, and which of them tells how bad it is."""


@pytest.mark.parametrize(
    ("title", "worst"),
    [("By software", "critical"), *(("By exploit", risk) for risk in ("9.8", "10", "7", "unknown"))],
)
def test_what_is_worst_is_listed_however_few_servers_it_is_on(
    title: str, worst: str, tmp_path: Path, require_program: Callable[[str], str]
) -> None:
    """Beside 150 that are on more servers and less bad, of which the list has room for 99."""
    counts, many, told_by = LISTS[title]
    alone, less = re.sub(f'{told_by}="[^"]*"', f'{told_by}="{worst}"', many), many.rpartition(",")[2]
    counted = {f'{counts}{{{TARGET},account="main",software="s{n}",{many}}}': "9x5" for n in range(150)}
    counted[f'{counts}{{{TARGET},account="main",software="worst",{alone}}}'] = "1x5"
    test = {
        "interval": "1m",
        "input_series": series(counted),
        "promql_expr_test": [
            {
                "expr": f"count by ({told_by}) ({asked('software', title)})",
                "eval_time": "5m",
                "exp_samples": [
                    {"labels": f'{{{told_by}="{worst}"}}', "value": 1},
                    {"labels": f"{{{less}}}", "value": 99},
                ],
            }
        ],
    }
    no_rules = tmp_path / "rules.yml"
    no_rules.write_text("groups: []\n")
    assert rules_hold(require_program("promtool"), no_rules, [test], tmp_path) == ""


@pytest.mark.parametrize("dashboard", ["fleet", "server"])
@pytest.mark.parametrize(
    ("recorded_values", "expected"),
    [
        pytest.param(("3x5", "100x5"), 200, id="the oldest poll"),
        pytest.param(("3x5", ""), -1, id="there are servers, none of which was ever polled: never"),
        pytest.param(("0x5", ""), None, id="there are no servers"),
        pytest.param(("", ""), None, id="nothing was scraped"),
    ],
)
def test_never_is_said_only_where_there_are_servers(
    dashboard: str,
    recorded_values: tuple[str, str],
    expected: float | None,
    tmp_path: Path,
    require_program: Callable[[str], str],
) -> None:
    """Where nothing was scraped, nobody knows whether a poll succeeded."""
    servers, polled = recorded_values
    owners = {recorded.OWNERS_SERVERS: servers, recorded.OWNERS_POLL: polled}
    found = {recorded.SERVERS: servers, recorded.OLDEST_POLL: polled} if dashboard == "fleet" else owners
    test = {
        "interval": "1m",
        "input_series": series({f'{name}{{{TARGET},account="main"}}': values for name, values in found.items()}),
        "promql_expr_test": [
            {
                "expr": asked(dashboard, "Oldest poll"),
                "eval_time": "5m",
                "exp_samples": [] if expected is None else [{"labels": "{}", "value": expected}],
            }
        ],
    }
    no_rules = tmp_path / "rules.yml"
    no_rules.write_text("groups: []\n")
    assert rules_hold(require_program("promtool"), no_rules, [test], tmp_path) == ""
