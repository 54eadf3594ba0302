"""Stopping, reloading and starting: nothing acknowledged is lost, and what is wrong is said where it helps."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from typing import TYPE_CHECKING

import pytest
import requests
import sqlalchemy as sa
from tests.harness.events import report
from tests.harness.fleet import fleet_lines, total, wait_for_polls
from tests.harness.process import CONFIG, TOKEN, Exporter
from tests.harness.prometheus import free_port
from tests.harness.waiting import eventually

from patrolserver_exporter.simulator.faults import Fault, FaultKind
from patrolserver_exporter.store import Store
from patrolserver_exporter.store.tables import inbox

if TYPE_CHECKING:
    from pathlib import Path

    from patrolserver_exporter.simulator.server import Simulator

pytestmark = [pytest.mark.calm, pytest.mark.promise("stop")]

LAST_RELOAD = "patrolserver_exporter_config_last_reload_successful"


def config(simulator: Simulator, folder: Path, *, timeout: str = "2s", waivers: str = "") -> str:
    text = CONFIG.format(
        api_url=simulator.base_url, interval="10m", settle="10m", store_url=f"sqlite:///{folder / 'state.db'}"
    )
    return text.replace("timeout: 2s", f"timeout: {timeout}").replace("settle: 10m", f"settle: 10m{waivers}")


def test_sigterm_under_load_loses_nothing(tmp_path: Path, simulator: Simulator) -> None:
    """It ends with 0 within seconds while deliveries rain down, and each that got a 202 is in the state."""
    events = [report(simulator, 1, f"pkg-{n}").id for n in range(3_000)]
    acknowledged: list[int] = []
    with Exporter(tmp_path, config(simulator, tmp_path)) as exporter:
        wait_for_polls(exporter, 5)

        def send() -> None:
            with contextlib.suppress(requests.RequestException):
                while events:
                    event_id = events.pop()
                    if exporter.deliver(event_id).status_code == 202:
                        acknowledged.append(event_id)

        senders = [threading.Thread(target=send) for _ in range(8)]
        for sender in senders:
            sender.start()
        eventually(lambda: len(acknowledged) > 50, what="load")
        began = time.monotonic()
        assert exporter.terminate() == 0
        assert time.monotonic() - began < 6.0
        for sender in senders:
            sender.join()
    assert events, "the load was over before the stop"
    with Store(f"sqlite:///{tmp_path / 'state.db'}") as store:
        kept = store.run(lambda unit: set(unit.connection.execute(sa.select(inbox.c.event_id)).scalars()))
    assert set(acknowledged) - kept == set()
    assert "Traceback" not in exporter.log()


def test_sigterm_does_not_wait_for_a_silent_api(tmp_path: Path, simulator: Simulator) -> None:
    """It ends with 0 within ten seconds while calls hang, long before they would time out."""
    with Exporter(tmp_path, config(simulator, tmp_path, timeout="60s")) as exporter:
        wait_for_polls(exporter, 5)
        simulator.faults.add(Fault(kind=FaultKind.HANG, seconds=60.0))
        for number in range(4):
            exporter.deliver(report(simulator, 1, f"pkg-{number}").id)
        eventually(
            lambda: exporter.value("patrolserver_exporter_inbox_deliveries", state="fetching") == 4.0,
            what="calls that hang",
        )
        began = time.monotonic()
        assert exporter.terminate() == 0
        assert time.monotonic() - began < 10.0
        simulator.faults.clear()
        exporter.start()
        eventually(lambda: total(exporter.metrics(), "patrolserver_exporter_inbox_deliveries", state="applied") == 4.0)


@pytest.mark.parametrize("way", ["signal", "http"])
def test_a_reload_takes_a_good_file_and_refuses_a_bad_one(tmp_path: Path, simulator: Simulator, way: str) -> None:
    """A new waiver counts at once; a bad file leaves the old one running and names file, line and key."""
    with Exporter(tmp_path, config(simulator, tmp_path)) as exporter:
        wait_for_polls(exporter, 5)

        def waived() -> float:
            return total(exporter.metrics(), "patrolserver_server_issues_waived")

        def reload() -> requests.Response | None:
            if way == "signal":
                exporter.signal(signal.SIGHUP)
                return None
            return requests.post(f"{exporter.url}/-/reload", headers=exporter.operator, timeout=10)

        opened = total(exporter.metrics(), "patrolserver_server_issues")
        assert (opened > 0, waived(), exporter.value(LAST_RELOAD)) == (True, 0.0, 1.0)
        waiver = ', waivers: [{server: "*", software: "*", until: 2099-12-31, reason: "trial"}]'
        exporter.write_config(config(simulator, tmp_path, waivers=waiver))
        answer = reload()
        assert answer is None or answer.status_code == 200
        eventually(lambda: waived() == opened, within=20.0, what="waived issues")
        assert total(exporter.metrics(), "patrolserver_server_issues") == 0.0

        exporter.write_config(config(simulator, tmp_path).replace("poll:", "pol:"))
        answer = reload()
        eventually(lambda: exporter.value(LAST_RELOAD) == 0.0, within=20.0, what="the refusal")
        assert "patrolserver.yml:7: pol: " in exporter.log()
        if answer is not None:
            assert answer.status_code == 500
            assert "patrolserver.yml:7: pol: " in answer.json()["detail"]
        assert waived() == opened
        ready = exporter.get("/-/ready")
        assert (ready.status_code, "was not reloaded" in ready.text, "pol:" in ready.text) == (200, True, False)
        assert "patrolserver.yml:7: pol: " in exporter.get("/").text

        exporter.write_config(config(simulator, tmp_path))
        reload()
        eventually(lambda: exporter.value(LAST_RELOAD) == 1.0 and waived() == 0.0, within=20.0, what="the third reload")
        assert total(exporter.metrics(), "patrolserver_server_issues") == opened
        assert "reloaded" not in exporter.get("/-/ready").text + exporter.get("/").text


def test_the_webhook_has_its_own_listener_when_told(tmp_path: Path, simulator: Simulator) -> None:
    """With --webhook.listen-address the webhook is served only there, and nothing else is."""
    with Exporter(
        tmp_path,
        config(simulator, tmp_path),
        "--web.listen-address=127.0.0.1:0",
        "--webhook.listen-address=127.0.0.1:0",
    ) as exporter:
        main, hook = exporter.urls
        delivery = {"webhook_patrolserver": 1, "identifier": "webhook.test", "event_id": 1, "webhook_id": 1}
        posted = {
            url: requests.post(f"{url}/webhook/{TOKEN}", json=delivery, timeout=10).status_code for url in (main, hook)
        }
        assert posted == {main: 404, hook: 202}
        for path in ("/metrics", "/", "/-/ready", "/api/v1/servers"):
            assert requests.get(hook + path, timeout=10).status_code == 404
        assert requests.get(f"{main}/metrics", timeout=10).status_code == 200


def test_a_port_in_use_ends_with_1_and_says_so(tmp_path: Path, simulator: Simulator) -> None:
    """Another listener on the address: exit code 1, and the one line after the start names address and cause."""
    address = f"127.0.0.1:{free_port()}"
    (tmp_path / "first").mkdir()
    (tmp_path / "second").mkdir()
    listen = f"--web.listen-address={address}"
    with Exporter(tmp_path / "first", config(simulator, tmp_path / "first"), listen):
        second = Exporter(tmp_path / "second", config(simulator, tmp_path / "second"), listen)
        second.start(wait=False)
        assert second.wait() == 1
        start, line = second.log().splitlines()
        assert "msg=Starting" in start
        assert address in line
        assert "in use" in line


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (("key: demo", "kye: demo"), "patrolserver.yml:4: accounts[0].kye"),
        (("interval: 10m", "interval: soon"), "patrolserver.yml:7: poll.interval"),
    ],
)
def test_a_bad_configuration_ends_with_2_and_says_where(
    tmp_path: Path, simulator: Simulator, change: tuple[str, str], said: str
) -> None:
    """Exit code 2; file, line and key are named."""
    exporter = Exporter(tmp_path, config(simulator, tmp_path).replace(*change))
    exporter.start(wait=False)
    assert exporter.wait() == 2
    assert said in exporter.log()


def test_bad_flags_end_with_2(tmp_path: Path, simulator: Simulator) -> None:
    """Exit code 2 for a flag that does not exist."""
    exporter = Exporter(tmp_path, config(simulator, tmp_path), "--web.listen-adress=:1")
    exporter.start(wait=False)
    assert exporter.wait() == 2


def test_a_state_file_in_use_ends_with_3_and_names_the_holder(tmp_path: Path, simulator: Simulator) -> None:
    """A second start on one state file exits with 3 and names the first's process; the first goes on undisturbed."""
    with Exporter(tmp_path, config(simulator, tmp_path)) as first:
        wait_for_polls(first, 5)
        before = fleet_lines(first.metrics())
        (tmp_path / "second").mkdir()
        second = Exporter(tmp_path / "second", config(simulator, tmp_path))
        second.start(wait=False)
        assert second.wait() == 3
        assert first.process is not None
        assert f"in use by another patrolserver-exporter (process {first.process.pid})" in second.log()
        assert "Traceback" not in second.log()
        assert first.deliver(1).status_code == 202
        assert fleet_lines(first.metrics()) == before
