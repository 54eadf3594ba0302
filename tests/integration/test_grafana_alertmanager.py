"""The whole way of an alert: simulator, exporters, Prometheus with the rules, Alertmanager with the example route."""

from __future__ import annotations

import time
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Self

import pytest
import requests
from grafana.alerting.files import ROOT
from tests.harness.alerting import Cable, route_to, shortened
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

pytestmark = [pytest.mark.long, pytest.mark.sized]

INTERVAL = "15s" if FULL else "2s"
"""Of scrapes and rules; the long run takes that of packaging/prometheus/prometheus.yml."""
CRITICAL = "PatrolServerCriticalIssueOpen"


def order(simulator: Simulator, path: str, /, **body: Any) -> None:
    response = requests.post(f"{simulator.base_url}/-/simulator{path}", json=body, timeout=10)
    assert response.ok, response.text


class Watch:
    """Two exporters on one fleet, Prometheus, and Alertmanager with somebody behind each receiver."""

    def __init__(self, folder: Path, require_program: Callable[[str], str], *, servers: int = 4) -> None:
        self._folder = folder
        self._require = require_program
        self._stack = ExitStack()
        self._servers = servers

    def __enter__(self) -> Self:
        enter = self._stack.enter_context
        options = SimulatorOptions(listen_address="127.0.0.1:0", servers=self._servers, software=6)
        self.simulator = enter(Simulator(options))
        self.cables = [enter(Cable(self.simulator.base_url)) for _ in range(2)]
        self.exporters = []
        for number, cable in enumerate(self.cables):
            folder = self._folder / f"exporter{number}"
            folder.mkdir()
            self.exporters.append(enter(Exporter.watching(folder, cable.url, interval="2s")))
        self.pager, self.team, self.tickets = (enter(Pager()) for _ in range(3))
        receivers = {"pager": self.pager.url, "team": self.team.url, "tickets": self.tickets.url}
        alertmanager = enter(Alertmanager(self._folder, self._require("prometheus-alertmanager"), route_to(receivers)))
        extra = f"""\
rule_files: ["{shortened(self._folder)}"]
alerting:
  alertmanagers: [{{static_configs: [{{targets: ["{alertmanager.url.removeprefix("http://")}"]}}]}}]
"""
        targets = '", "'.join(exporter.url.removeprefix("http://") for exporter in self.exporters)
        self.prometheus = enter(
            Prometheus(self._folder, self._require("prometheus"), targets, interval="1s", extra=extra)
        )
        polled = "count(patrolserver_server_last_poll_timestamp_seconds)"
        eventually(lambda: self.prometheus.value(polled) == 2.0 * self._servers, within=60, what="all polls")
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def suffer(self, number: int, what: str) -> None:
        """Something happens to an exporter."""
        if what == "cut":
            self.cables[number].is_cut.set()
        elif what == "killed":
            self.exporters[number].kill()


@dataclass(frozen=True)
class Told:
    """An alert, who is told of it, and of which exporters."""

    alert: str
    severity: str
    exporters: frozenset[int] = frozenset()


DOWN, CUT, STALE = "PatrolServerExporterDown", "PatrolServerApiUnreachable", "PatrolServerDataStale"
BOTH = frozenset({0, 1})


def of(number: int, alert: str) -> Told:
    return Told(alert, "warning", frozenset({number}))


WHO_IS_TOLD_WHAT: dict[tuple[str, str], tuple[set[Told], set[Told]]] = {
    # Two exporters            the pager                                    the team
    ("well", "well"): (set(), set()),
    ("cut", "well"): (set(), {of(0, CUT)}),
    ("killed", "well"): (set(), {of(0, DOWN)}),
    ("well", "cut"): (set(), {of(1, CUT)}),
    ("well", "killed"): (set(), {of(1, DOWN)}),
    ("cut", "killed"): ({Told(STALE, "critical", frozenset({0}))}, {of(0, CUT), of(1, DOWN)}),
    ("killed", "cut"): ({Told(STALE, "critical", frozenset({1}))}, {of(0, DOWN), of(1, CUT)}),
    ("cut", "cut"): ({Told(STALE, "critical", BOTH)}, {of(0, CUT), of(1, CUT)}),
    ("killed", "killed"): ({Told(DOWN, "critical")}, set()),
}
WITHIN = {CUT: 25, DOWN: 25, STALE: 60}
"""Seconds, of which the rules themselves wait 8, 5 and 25, and the pager's route 10."""


MIRRORED = {("well", "cut"), ("well", "killed"), ("killed", "cut")}
"""The same with the exporters exchanged: for the long run."""


@pytest.mark.parametrize(("first", "second"), sorted(WHO_IS_TOLD_WHAT.keys() - (set() if FULL else MIRRORED)))
def test_who_is_told_what_when_one_of_two_exporters_is_cut_or_killed(
    first: str, second: str, tmp_path: Path, require_program: Callable[[str], str]
) -> None:
    """As the table says, each in its time; a critical issue that appears meanwhile reaches the pager in a minute."""
    pages, warnings = WHO_IS_TOLD_WHAT[first, second]
    with Watch(tmp_path, require_program) as watch:
        began = time.monotonic()
        watch.suffer(0, first)
        watch.suffer(1, second)
        if "well" in (first, second):
            _a_critical_issue_is_told(watch)
        for receiver, expected in ((watch.team, warnings), (watch.pager, pages)):
            for told in expected:
                left = WITHIN[told.alert] + began - time.monotonic()
                eventually(partial(_heard, watch, receiver, told), within=max(left, 1), what=f"{told}")
        assert _alerts(watch.pager) - {CRITICAL} == {told.alert for told in pages}
        for told in pages:
            assert not told.exporters or _instances(watch, watch.pager, told.alert) == told.exporters
        # Of a critical issue the ticket tells, which is no warning to the team.
        expected_warnings = {told.alert for told in warnings}
        assert _alerts(watch.team) <= expected_warnings | ({CUT, DOWN, STALE} if pages else set())


def _heard(watch: Watch, receiver: Pager, told: Told) -> bool:
    alerts = [one for one in receiver.heard(told.alert, "firing") if one["labels"]["severity"] == told.severity]
    return bool(alerts) and told.exporters <= _instances(watch, receiver, told.alert)


def _instances(watch: Watch, receiver: Pager, alert: str) -> set[int]:
    numbers = {exporter.url.removeprefix("http://"): number for number, exporter in enumerate(watch.exporters)}
    return {
        numbers[one["labels"]["instance"]] for one in receiver.heard(alert, "firing") if "instance" in one["labels"]
    }


def _alerts(receiver: Pager) -> set[str]:
    return {one["labels"]["alertname"] for one in receiver.alerts}


def _a_critical_issue_is_told(watch: Watch) -> None:
    name = watch.simulator.world.servers(watch.simulator.world.demo)[0].name
    began = time.monotonic()
    order(watch.simulator, "/break", server=name, kind="exploitable", risk=9.8)
    (alert, *_) = eventually(lambda: watch.pager.heard(CRITICAL, "firing"), within=60, what="the page")
    assert time.monotonic() - began < 60
    assert name in alert["annotations"]["description"]


def test_sixty_servers_are_one_page_and_sixty_tickets(tmp_path: Path, require_program: Callable[[str], str]) -> None:
    """A common exploit wakes somebody up once; its text has the number, five servers and the software."""
    with Watch(tmp_path, require_program, servers=60) as watch:
        names = [server.name for server in watch.simulator.world.servers(watch.simulator.world.demo)]
        for name in names:
            order(watch.simulator, "/break", server=name, kind="exploitable", risk=9.8, software="openssl", event=False)
        eventually(
            lambda: len(watch.tickets.heard("PatrolServerServerCritical", "firing")) >= 60, within=90, what="tickets"
        )
        assert {one["labels"]["server"] for one in watch.tickets.heard("PatrolServerServerCritical", "firing")} == set(
            names
        )
        eventually(lambda: watch.pager.heard(CRITICAL, "firing"), within=30, what="the page")
        assert len(watch.pager.heard(CRITICAL, "firing")) == 1
        text = watch.prometheus.query('ALERTS{alertname="PatrolServerCriticalIssueOpen",alertstate="firing"}')
        assert [one["metric"]["software"] for one in text] == ["openssl"]


@pytest.fixture
def pager() -> Iterator[Pager]:
    with Pager() as running:
        yield running


def test_a_critical_issue_reaches_the_pager_within_a_minute_and_so_does_its_end(
    tmp_path: Path, pager: Pager, require_program: Callable[[str], str]
) -> None:
    """From the simulator's webhook to the pager in less than 60 s, with the times that are shipped; then resolved."""
    options = SimulatorOptions(listen_address="127.0.0.1:0", servers=4, software=6)
    with (
        Simulator(options) as simulator,
        # The interval is long, so that what shows in time came by the webhook.
        Exporter.watching(tmp_path, simulator.base_url, interval="10m") as exporter,
        Alertmanager(
            tmp_path, require_program("prometheus-alertmanager"), route_to({"pager": pager.url})
        ) as alertmanager,
    ):
        order(simulator, "/webhooks", url=f"{exporter.url}/webhook/{TOKEN}")
        extra = f"""\
rule_files: ["{ROOT / "grafana" / "rules" / "patrolserver.yml"}"]
alerting:
  alertmanagers: [{{static_configs: [{{targets: ["{alertmanager.url.removeprefix("http://")}"]}}]}}]
"""
        target = exporter.url.removeprefix("http://")
        with Prometheus(tmp_path, require_program("prometheus"), target, interval=INTERVAL, extra=extra) as prometheus:
            critical = 'sum(patrolserver_server_issues{severity="critical"})'
            eventually(lambda: prometheus.value(critical) == 0.0, within=60, what="a healthy fleet in Prometheus")
            name = simulator.world.servers(simulator.world.demo)[0].name

            began = time.monotonic()
            order(simulator, "/break", server=name, kind="exploitable", risk=9.8)
            (alert,) = eventually(lambda: pager.heard(CRITICAL, "firing"), within=60, what="the alert")
            assert time.monotonic() - began < 60
            assert alert["labels"]["severity"] == "critical"
            assert f"is critical on 1 server of account main: {name}." in alert["annotations"]["description"]

            order(simulator, "/mend", server=name)
            order(simulator, "/scan", server=name, seconds=0.2)
            (resolved, *_) = eventually(lambda: pager.heard(CRITICAL, "resolved"), within=120, what="the alert's end")
            assert resolved["labels"] == alert["labels"]
