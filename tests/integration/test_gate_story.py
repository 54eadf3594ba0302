"""The gate against the simulator through a whole story, with the commands that a CI job would run."""

from __future__ import annotations

import datetime as dt
import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
import requests
from tests.harness.process import TOKEN, Exporter
from tests.harness.waiting import eventually

from patrolserver_exporter.simulator.options import SimulatorOptions
from patrolserver_exporter.simulator.server import Simulator

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

APP = "app.example.org"


@pytest.fixture
def simulator() -> Iterator[Simulator]:
    with Simulator(SimulatorOptions(listen_address="127.0.0.1:0", servers=2, software=3)) as running:
        order(running, "/servers", name=APP, software=4)
        order(running, "/mend", server=APP)
        for one in order(running, f"/servers/{APP}", "GET")["software"]:
            if one.get("supported") is None or not one.get("version"):
                order(running, f"/servers/{APP}/software/{one['id']}", "DELETE")
        yield running


@pytest.fixture
def exporter(tmp_path: Path, simulator: Simulator) -> Iterator[Exporter]:
    with Exporter.watching(tmp_path, simulator.base_url, interval="10m") as running:
        order(simulator, "/webhooks", url=f"{running.url}/webhook/{TOKEN}")
        eventually(lambda: running.value("patrolserver_server_poll_success", server=APP), what="the first poll")
        yield running


def order(simulator: Simulator, path: str, method: str = "POST", /, **body: Any) -> Any:
    response = requests.request(method, f"{simulator.base_url}/-/simulator{path}", json=body or None, timeout=10)
    assert response.ok, response.text
    return response.json()


def gate(exporter: Exporter, *flags: str) -> tuple[int, Any]:
    """The command's exit code, and its report."""
    command = [
        sys.executable,
        "-m",
        "patrolserver_exporter",
        "gate",
        APP,
        "--format=json",
        f"--exporter-url={exporter.url}",
    ]
    # There the command finds the token of the machine's operator, which a refresh needs.
    there = exporter.folder
    ran = subprocess.run([*command, *flags], cwd=there, capture_output=True, text=True, check=False, timeout=60)
    assert not ran.stderr, ran.stderr
    return ran.returncode, json.loads(ran.stdout)


def waivers(folder: Path, software: str, until: dt.date) -> str:
    file = folder / f"waivers-{until}.yml"
    file.write_text(f'- {{ server: "*", software: {software}, until: {until}, reason: "fixed with the next image" }}\n')
    return f"--waivers={file}"


def delivered(exporter: Exporter) -> float:
    name = "patrolserver_exporter_webhook_deliveries_total"
    return exporter.value(name, identifier="webhook.new_server_issues", outcome="accepted") or 0.0


def codes(report: Any) -> set[str]:
    return {reason["code"] for reason in report["reasons"] if reason["blocking"]}


def test_the_gate_through_a_whole_story(tmp_path: Path, simulator: Simulator, exporter: Exporter) -> None:
    """Green, red by webhook, waived, expired waiver, stale because the API went away, refused, green again."""
    today = dt.datetime.now(dt.UTC).date()
    code, report = gate(exporter)
    assert (code, report["verdict"]) == (0, "pass"), report["reasons"]

    broken = order(simulator, "/break", server=APP, kind="exploitable", risk=9.8)["software"][0]["canonical_name"]

    false_passes: list[Any] = []

    def red() -> Any:
        # Until the poll confirms the event it is unknown: once the delivery is in, it is never a pass.
        is_in = delivered(exporter) > 0
        code, report = gate(exporter)
        false_passes.extend([report] if is_in and code == 0 else [])
        return report if code == 1 else None

    report = eventually(red, what="the red gate")
    assert not false_passes
    (violation,) = report["violations"]
    assert (violation["limit"], violation["allowed"], violation["found"]) == ("max_by_severity.critical", 0, 1)
    (issue,) = violation["issues"]
    assert (issue["server"], issue["canonical_name"], issue["risk"]) == (APP, broken, 9.8)

    code, report = gate(exporter, waivers(tmp_path, broken, today + dt.timedelta(days=30)))
    assert (code, [one["canonical_name"] for one in report["waived"]]) == (0, [broken])
    assert report["waived"][0]["waiver"]["reason"] == "fixed with the next image"

    code, report = gate(exporter, waivers(tmp_path, broken, today - dt.timedelta(days=1)))
    assert (code, [one["software"] for one in report["expired_waivers"]]) == (1, [broken])

    lasting = waivers(tmp_path, broken, today + dt.timedelta(days=30))
    order(simulator, "/faults", kind="status", status=503, path="*")
    code, report = gate(exporter, lasting, "--refresh", "--refresh-timeout=20s")
    assert (code, codes(report)) == (4, {"refresh_failed"})
    code, report = eventually(lambda: _if_unknown(gate(exporter, lasting, "--max-age=1s")), what="old data")
    assert "data_too_old" in codes(report)

    order(simulator, "/faults", "DELETE")
    order(simulator, "/credentials", key="rotated", secret="rotated")
    code, report = eventually(lambda: _if_refused(gate(exporter, lasting)), within=75, what="refused credentials")
    assert (code, report["verdict"]) == (4, "unknown")

    order(simulator, "/credentials", key="demo", secret="demo")
    order(simulator, "/mend", server=APP, software=broken)
    exporter.terminate()
    exporter.start()
    code, report = eventually(lambda: _if_passed(gate(exporter, "--refresh", "--max-age=1m")), what="the green gate")
    assert (report["counts"]["total"], report["violations"]) == (0, [])


def _if_unknown(ran: tuple[int, Any]) -> Any:
    return ran if ran[0] == 4 else None


def _if_refused(ran: tuple[int, Any]) -> Any:
    return ran if "credentials_refused" in codes(ran[1]) else None


def _if_passed(ran: tuple[int, Any]) -> Any:
    return ran if ran[0] == 0 else None


def test_an_exporter_that_is_gone_is_unknown(exporter: Exporter) -> None:
    """A crashed exporter lets nothing pass, and the report says so."""
    exporter.kill()
    code, report = gate(exporter)
    assert (code, codes(report)) == (4, {"exporter_unavailable"})
    assert "is the exporter running" in report["reasons"][0]["message"]


def test_a_scan_order_does_not_hold_the_gate_for_ever(simulator: Simulator, exporter: Exporter) -> None:
    """Deliveries about scans come and go, and the scan is seen running; afterwards the gate passes again."""
    order(simulator, "/scan", server=APP, seconds=3.0)
    eventually(lambda: exporter.value("patrolserver_server_last_scan_timestamp_seconds", server=APP), what="the scan")
    assert eventually(lambda: _if_passed(gate(exporter, "--max-scan-age=1h")), what="the green gate")
