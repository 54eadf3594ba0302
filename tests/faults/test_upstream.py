"""The promise on an API that fails: old values stay and are marked old, the cause is told, recovery needs nobody."""

from __future__ import annotations

import signal
import time
from typing import TYPE_CHECKING

import pytest
import requests
from tests.harness.events import report
from tests.harness.fleet import LAST_POLL, wait_for_polls
from tests.harness.process import TOKEN, Exporter, samples
from tests.harness.upstream import CASES, SERVERS, Upstream
from tests.harness.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from patrolserver_exporter.simulator.server import Simulator

MIB = 1024 * 1024


@pytest.fixture
def upstream(tmp_path: Path) -> Iterator[Upstream]:
    with Upstream(tmp_path) as running:
        yield running


def by_account(text: str, name: str, **labels: str) -> dict[str, list[float]]:
    """A metric's values, by account."""
    found: dict[str, list[float]] = {account: [] for account in CASES}
    for have, value in samples(text, name).items():
        if labels.items() <= dict(have).items():
            found[dict(have)["account"]].append(value)
    return found


def all_are(text: str, name: str, value: float, *, but: str = "") -> bool:
    found = by_account(text, name)
    return all(values and set(values) == {value} for account, values in found.items() if account != but)


@pytest.mark.promise("upstream")
def test_each_failure_leaves_old_values_marked_and_passes(tmp_path: Path, upstream: Upstream) -> None:
    """Sixteen APIs fail in sixteen ways: values stay, are marked old and tell why; when the APIs work, all goes on."""
    with Exporter(tmp_path, upstream.config()) as exporter:
        wait_for_polls(exporter, SERVERS * len(CASES))
        eventually(lambda: all_are(exporter.metrics(), "patrolserver_up", 1.0), what="all accounts up")
        issues = by_account(exporter.metrics(), "patrolserver_server_issues")
        memory = exporter.rss()

        upstream.fail()
        failed_at = time.time()
        eventually(lambda: all_are(exporter.metrics(), "patrolserver_up", 0.0), within=20.0, what="all accounts down")
        eventually(
            lambda: all_are(exporter.metrics(), "patrolserver_server_poll_success", 0.0),
            within=20.0,
            what="all servers marked as old",
        )
        text = exporter.metrics()
        grown = exporter.rss() - memory
        _is_told(exporter, text)
        assert by_account(text, "patrolserver_server_issues") == issues
        assert all(len(polls) == SERVERS for polls in by_account(text, LAST_POLL).values())
        assert max(max(polls) for polls in by_account(text, LAST_POLL).values()) < failed_at + 0.5
        assert grown < 20 * MIB
        event = report(upstream.apis["error"], 1, "surprising")
        delivery = {"webhook_patrolserver": 1, "identifier": "webhook.new_server_issues", "webhook_id": 1}
        hook = f"{exporter.url}/webhook/{upstream.token('error')}"
        assert requests.post(hook, json=delivery | {"event_id": event.id}, timeout=10).status_code == 202

        upstream.work_again()
        mended_at = time.time()
        eventually(
            lambda: all_are(exporter.metrics(), "patrolserver_up", 1.0, but="wait-huge"), within=75.0, what="recovery"
        )
        eventually(
            lambda: all(
                min(polls) > mended_at
                for name, polls in by_account(exporter.metrics(), LAST_POLL).items()
                if name != "wait-huge"
            ),
            what="polls of all servers",
        )
        eventually(
            lambda: exporter.value("patrolserver_exporter_inbox_deliveries", state="applied") == 1.0,
            what="the delivery's effect",
        )
        assert upstream.canary.visits == 0
        assert "Traceback" not in exporter.log()

        # An API that asked for a day is left alone for an hour, also over a restart; a reload allows one try.
        assert by_account(exporter.metrics(), "patrolserver_up")["wait-huge"] == [0.0]
        assert "Account wait-huge makes no calls until" in exporter.get("/-/ready").text
        assert exporter.terminate() == 0
        exporter.start()
        assert "Account wait-huge makes no calls until" in exporter.get("/-/ready").text
        exporter.signal(signal.SIGHUP)
        eventually(lambda: all_are(exporter.metrics(), "patrolserver_up", 1.0), what="the last account")


def _is_told(exporter: Exporter, text: str) -> None:
    """Metric, log and readiness name the cause of each account's failure."""
    ready = exporter.get("/-/ready")
    assert ready.status_code == 200
    log = exporter.log().splitlines()
    for name, case in CASES.items():
        counted = by_account(text, "patrolserver_exporter_api_request_failures_total", reason=case.reason)
        assert counted[name], f"no failure of {name} was counted as {case.reason}"
        assert f"Account {name}: " in ready.text
        assert any("The API cannot be used" in line and f"account={name} " in line for line in log)


CREDENTIALS = """\
accounts:
  - name: main
    api_url: {api_url}
    key: demo
    secret: !file {folder}/secret
    webhook_tokens: [{token}]
poll: {{interval: 10s, max_requests_per_minute: 60000, timeout: 2s}}
issues: {{settle: 1s}}
store: {{url: "sqlite:///{folder}/state.db"}}
"""


@pytest.mark.promise("credentials")
@pytest.mark.parametrize("restart", [False, True])
def test_refused_credentials_pause_all_calls_until_there_are_new_ones(
    tmp_path: Path, simulator: Simulator, *, restart: bool
) -> None:
    """Calls pause, deliveries wait, and a new secret in its file is used within ten seconds, or after a restart."""
    secret = tmp_path / "secret"
    secret.touch(mode=0o600)
    secret.write_text("demo\n")
    config = CREDENTIALS.format(api_url=simulator.base_url, folder=tmp_path, token=TOKEN)
    with Exporter(tmp_path, config) as exporter:
        wait_for_polls(exporter, 5)
        revoked = {"key": "demo", "secret": "changed"}
        requests.post(f"{simulator.base_url}/-/simulator/credentials", json=revoked, timeout=10).raise_for_status()
        assert exporter.deliver(report(simulator, 1, "first").id).status_code == 202
        eventually(lambda: exporter.value("patrolserver_up", account="main") == 0.0, what="the refusal")
        eventually(
            lambda: exporter.value("patrolserver_exporter_inbox_deliveries", state="blocked") == 1.0,
            what="a blocked delivery",
        )
        assert exporter.deliver(report(simulator, 2, "second").id).status_code == 202
        assert "refuses the credentials" in exporter.log()
        assert "check this account's key and secret" in exporter.get("/-/ready").text
        counted = _calls(simulator)
        time.sleep(6.0)  # No call is what is waited for.
        assert _calls(simulator) - counted <= 2

        if restart:
            exporter.kill()
        secret.write_text("changed\n")
        if restart:
            exporter.start()
        eventually(
            lambda: exporter.value("patrolserver_exporter_inbox_deliveries", state="applied") == 2.0,
            within=12.0,
            what="the effect of both deliveries",
        )
        assert exporter.value("patrolserver_up", account="main") == 1.0
        assert "Traceback" not in exporter.log()


def _calls(simulator: Simulator) -> int:
    state = requests.get(f"{simulator.base_url}/-/simulator/requests", timeout=10).json()
    return int(state["total"])
