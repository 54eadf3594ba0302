"""The rules on a large fleet: a real Prometheus scrapes two exporters' worth of servers, all with one exploit."""

from __future__ import annotations

from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import pytest
import requests
from grafana.alerting.files import RULES
from tests.harness.daemons import ServerThread
from tests.harness.prometheus import Prometheus
from tests.harness.rule_cases import MAIN, software
from tests.harness.sizes import FULL
from tests.harness.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

SERVERS = 10_000 if FULL else 1000
INTERVAL = 15
"""Seconds from one evaluation to the next in packaging/prometheus/prometheus.yml."""
PAGING = "patrolserver"
"""The group with all that wakes somebody up."""


class Target(ServerThread):
    """Answers every scrape with the same text."""

    def __init__(self, text: str) -> None:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                body = text.encode()
                self.send_response(200)
                self.send_header("Content-Type", "text/plain; version=0.0.4")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        super().__init__(ThreadingHTTPServer(("127.0.0.1", 0), Handler))
        self.address = f"127.0.0.1:{self.port}"


def exposition(polled_at: float) -> str:
    """What an exporter shows of the fleet."""
    lines = [f"patrolserver_up{{{MAIN}}} 1", f"patrolserver_last_success_timestamp_seconds{{{MAIN}}} {polled_at}"]
    for number in range(SERVERS):
        who = f'{MAIN},server="web-{number:05}.example.org",server_id="{number}"'
        lines += [
            f'patrolserver_server_info{{{who},verified="true",team="shop"}} 1',
            f"patrolserver_server_last_poll_timestamp_seconds{{{who}}} {polled_at}",
            f'patrolserver_server_issues{{{who},severity="critical"}} 1',
            f'patrolserver_server_issues{{{who},severity="high"}} 0',
            f'patrolserver_server_issues{{{who},severity="medium"}} 2',
            f'patrolserver_server_issues{{{who},severity="low"}} 0',
            f'patrolserver_server_oldest_issue_timestamp_seconds{{{who},severity="critical"}} {polled_at}',
            f"patrolserver_server_software_info{{{software('critical', 'openssl', who)}}} 1",
        ]
    return "\n".join(lines) + "\n"


def groups(prometheus: Prometheus) -> list[dict[str, Any]]:
    """The groups of rules, as Prometheus tells of them."""
    found: list[dict[str, Any]] = requests.get(f"{prometheus.url}/api/v1/rules", timeout=60).json()["data"]["groups"]
    return found


@pytest.mark.sized
@pytest.mark.calm
@pytest.mark.long
def test_one_exploit_on_all_servers_is_one_page_and_is_evaluated_in_time(
    tmp_path: Path, require_program: Callable[[str], str]
) -> None:
    """Two exporters show every server: one alert pages, each server is one ticket, and the rules are done in time."""
    now = 1_000_000_000.0
    with Target(exposition(now)) as first, Target(exposition(now + 60)) as second:
        targets = f'{first.address}", "{second.address}'
        extra = f'rule_files: ["{RULES}"]\n'
        program = require_program("prometheus")
        with Prometheus(tmp_path, program, targets, interval=f"{INTERVAL}s", extra=extra) as prometheus:
            tickets = 'count(ALERTS{alertname="PatrolServerServerCritical",alertstate="firing"})'
            eventually(lambda: prometheus.value(tickets) == SERVERS, within=300, what="a ticket for each server")
            (page,) = prometheus.query('ALERTS{alertname="PatrolServerCriticalIssueOpen",alertstate="firing"}')
            assert page["metric"]["team"] == "shop"
            assert page["metric"]["software"] == "openssl"
            found = groups(prometheus)
            assert {rule["lastError"] for group in found for rule in group["rules"] if rule.get("lastError")} == set()
            took = {group["name"]: (group["evaluationTime"], group["interval"]) for group in found}
            print(f"{SERVERS} servers on two exporters, seconds of interval: {took}")  # noqa: T201  # what was measured
            assert {name for name, (seconds, interval) in took.items() if seconds >= interval} == set()
            assert took[PAGING][0] < INTERVAL * 2 / 3
