"""How many of our modules one has to know to follow a delivery, or a request to the gate."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest
import requests
from tests.harness.module_trace import ModuleTrace
from tests.harness.process import samples
from tests.harness.watching import SOFTWARE, Watching
from tests.serving import eventually, serving

from patrolserver_exporter.config.schema import Poll
from patrolserver_exporter.config.secret import Secret
from patrolserver_exporter.inbox.intake import Intake
from patrolserver_exporter.logs import Redactor
from patrolserver_exporter.web.access import BearerTokens, Guard
from patrolserver_exporter.web.api import api_routes
from patrolserver_exporter.web.context import WebContext
from patrolserver_exporter.web.http.requests import main_app
from patrolserver_exporter.web.metrics import MetricsApp
from patrolserver_exporter.web.webhook import WebhookApp

if TYPE_CHECKING:
    from collections.abc import Iterator

DELIVERY_AT_MOST = 54
GATE_AT_MOST = 36
"""What is reached. Each module more is one more place to look for those who follow them: join what is one subject."""
OPEN_ISSUES = "patrolserver_server_issues"
TOKEN = "token-of-a-webhook-0123"
POLL = Poll(interval=86_400.0, timeout=30.0, max_requests_per_minute=60_000)
"""Once a day, so that no turn comes while the test runs; and a call may hang for long."""


@dataclass
class Running:
    """All that a delivery and a request to the gate pass, without what works by itself now and then: nothing ticks."""

    watching: Watching
    url: str

    def deliver(self, server_id: int) -> None:
        """Something new is wrong with a server, and PatrolServer says so."""
        payload = {
            "webhook_patrolserver": 1,
            "identifier": "webhook.new_server_issues",
            "webhook_id": 1,
            "event_id": self.watching.broken(server_id),
        }
        response = requests.post(f"{self.url}/webhook/{TOKEN}", json=payload, timeout=20)
        assert (response.status_code, response.json()) == (202, {"status": "accepted"})

    def scrape(self) -> str:
        """As Prometheus does it."""
        response = requests.get(f"{self.url}/metrics", timeout=20)
        assert response.status_code == 200
        return response.text

    def verdict(self, *servers: int) -> str:
        """What the gate says where no issue is allowed."""
        body = {"servers": list(servers), "policy": {"max_total": 0}}
        response = requests.post(f"{self.url}/api/v1/gate", json=body, timeout=20)
        assert response.status_code == 200, response.text
        return str(response.json()["verdict"])


@pytest.fixture
def trace() -> Iterator[ModuleTrace]:
    # The poll that follows a delivery has threads of its own, and is no part of the delivery's way.
    trace = ModuleTrace(but_threads=["poll-"])
    with trace.watching():
        yield trace


@pytest.fixture
def running(trace: ModuleTrace, prepared_url: str) -> Iterator[Running]:
    with Watching(prepared_url) as watching, ThreadPoolExecutor(2) as renderers:
        config = watching.start(poll=POLL, webhook_tokens=(Secret.literal(TOKEN),))
        intake = Intake(watching.store, watching.telemetry)
        intake.set_limit(config.webhook.inbox_limit)
        webhook = WebhookApp(intake, watching.telemetry, watching.clock)
        webhook.configure(config)
        tokens = BearerTokens()
        context = WebContext(
            store=watching.store,
            accounts=watching.accounts,
            tokens=tokens,
            clock=watching.clock,
            config=lambda: config,
            redactor=Redactor(),
            on_feed=watching.publisher.on_feed,
            on_inbox=watching.publisher.on_inbox,
        )
        metrics = MetricsApp(watching.publisher.render, renderers)
        app = main_app(api_routes(context), metrics=metrics, webhook=webhook)
        with serving(Guard(app, None, tokens)) as served:
            yield Running(watching, f"http://127.0.0.1:{served.port}")


def listed(found: dict[str, str]) -> str:
    return f"{len(found)} modules ran:\n" + "\n".join(f"  {name}: {found[name]}" for name in sorted(found))


def test_a_delivery(trace: ModuleTrace, running: Running) -> None:
    """From the socket of the webhook to the body of the scrape that shows the issue."""
    watching = running.watching
    # What happens once in a life, such as the first statement of its kind, is over after this.
    running.deliver(1)
    watching.until(lambda: watching.states() == ["applied"])
    watching.rest()
    before = samples(running.scrape(), OPEN_ISSUES)
    # The poll that follows comes back only after the scrape.
    watching.fault("hang", "servers/*/software", seconds=20.0)
    polls = watching.count(SOFTWARE)
    with trace.noting() as found:
        running.deliver(2)
        eventually(lambda: watching.count(SOFTWARE) > polls)
        scrape = running.scrape()
    watching.simulator.faults.clear()
    assert sum(samples(scrape, OPEN_ISSUES).values()) == sum(before.values()) + 1
    assert len(found) <= DELIVERY_AT_MOST, listed(found)


def test_a_question_to_the_gate(trace: ModuleTrace, running: Running) -> None:
    """From the socket to the verdict on a server with an open issue."""
    running.deliver(1)
    running.watching.until(lambda: running.watching.states() == ["applied"])
    running.watching.rest()
    running.watching.until(lambda: running.verdict(1) == "fail", "the verdict after the poll")
    with trace.noting() as found:
        assert running.verdict(1) == "fail"
    assert len(found) <= GATE_AT_MOST, listed(found)
