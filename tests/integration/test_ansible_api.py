"""The modules that talk to PatrolServer itself, against the simulator, and then what the exporter sees of it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
import requests
from tests.harness.ansible import Ansible, virtual_environments
from tests.harness.process import TOKEN, Exporter
from tests.harness.waiting import eventually

from patrolserver_exporter.simulator.options import SimulatorOptions
from patrolserver_exporter.simulator.server import Simulator
from patrolserver_exporter.simulator.wire import Style

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

HOST = "inside.example.org"
PACKAGES = {
    "php": [{"name": "php", "version": "5.6.40", "arch": "amd64", "source": "apt"}],
    "our-own": [{"name": "our-own", "version": "1.0", "release": "3", "arch": "noarch", "source": "rpm"}],
}


@pytest.fixture(params=[Style.PLAIN, Style.STRINGS], ids=str)
def simulator(request: pytest.FixtureRequest) -> Iterator[Simulator]:
    options = SimulatorOptions(listen_address="127.0.0.1:0", servers=2, software=4, style=request.param)
    with Simulator(options) as running:
        yield running


@pytest.fixture
def ansible(tmp_path: Path) -> Ansible:
    return Ansible(virtual_environments() / "core" / "bin", tmp_path / "controller")


def test_package_facts_of_a_host_that_patrolserver_cannot_look_into_become_its_issues(
    tmp_path: Path, simulator: Simulator, ansible: Ansible
) -> None:
    """The collection's playbook adds the server, pushes its packages and scans; the exporter then shows what is old."""
    inventory = ansible.inventory({HOST: {"push_package_facts": PACKAGES}})
    where = {"patrolserver_api_url": simulator.base_url, "patrolserver_key": "demo", "patrolserver_secret": "demo"}
    with Exporter.watching(tmp_path, simulator.base_url, interval="10s") as exporter:
        for expected in ("changed=", "changed=1 "):
            # The second time only a scan is new: the server is there, and the list is the same.
            run = ansible.playbook(
                "patrolserver.monitoring.push_packages",
                f"--inventory={inventory}",
                "--diff",
                push_wait_timeout="60s",
                push_poll_interval="200ms",
                **where,
            )
            assert run.ok, run.output
            assert expected in run.output
            assert TOKEN not in run.output
        names = [server.name for server in simulator.world.servers(simulator.world.demo)]
        assert names.count(HOST) == 1

        def found() -> Any:
            return exporter.get(f"/api/v1/servers/{HOST}/software").json().get("items")

        software = {one["canonical_name"]: one["version"] for one in eventually(found, what="the pushed software")}
        assert software == {"php": "5.6.40", "our-own": "1.0-3"}


def test_a_server_is_added_verified_and_removed_once(simulator: Simulator, ansible: Ansible) -> None:
    """Each state is reached, check mode tells it before, and a second run changes nothing."""
    tasks: list[dict[str, Any]] = []
    for state in ("present", "verified", "absent"):
        module = {"patrolserver.monitoring.server": {"name": "new.example.org", "state": state}}
        tasks += [
            {**module, "check_mode": True, "register": "predicted"},
            {**module, "register": "done"},
            {**module, "register": "again"},
            {
                "ansible.builtin.assert": {
                    "that": ["predicted is changed", "done is changed", "again is not changed"],
                    "fail_msg": json.dumps(state),
                }
            },
        ]
    defaults = {"api_url": simulator.base_url, "api_key": "demo", "api_secret": "demo"}
    play = {
        "hosts": "localhost",
        "gather_facts": False,
        "module_defaults": {"group/patrolserver.monitoring.api": defaults},
        "tasks": tasks,
    }
    run = ansible.playbook([play])
    assert run.ok, run.output


def test_the_nightly_report_tells_what_is_open(tmp_path: Path, simulator: Simulator, ansible: Ansible) -> None:
    """The playbook writes a report for people and one for tools, and does not fail for the issues in them."""
    with Exporter.watching(tmp_path, simulator.base_url, interval="10m") as exporter:
        polled = "patrolserver_server_last_poll_timestamp_seconds"
        eventually(lambda: len(exporter.samples(polled)) == 2, what="the first polls")
        issues = exporter.get("/api/v1/issues").json()["items"]
        assert issues
        folder = ansible.folder / "reports"
        folder.mkdir()
        run = ansible.playbook(
            "patrolserver.monitoring.nightly_report", exporter_url=exporter.url, report_folder=str(folder)
        )
        assert run.ok, run.output
    report = (folder / "report.md").read_text()
    assert all(issue["software"] in report for issue in issues)
    assert json.loads((folder / "verdict.sarif").read_text())["version"] == "2.1.0"


def test_the_gate_waits_for_the_scan_that_a_task_started_and_for_a_refresh(
    tmp_path: Path, simulator: Simulator, ansible: Ansible
) -> None:
    """Scan, wait until the exporter has seen what it found, refresh, judge; the verdict is on data that is newer."""
    name = simulator.world.servers(simulator.world.demo)[0].name
    with Exporter.watching(tmp_path, simulator.base_url, interval="10m") as exporter:
        polled = "patrolserver_server_last_poll_timestamp_seconds"
        eventually(lambda: len(exporter.samples(polled)) == 2, what="the first polls")
        hook = {"url": f"{exporter.url}/webhook/{TOKEN}"}
        assert requests.post(f"{simulator.base_url}/-/simulator/webhooks", json=hook, timeout=10).ok
        before = exporter.value(polled, server=name)
        policy = {"max_by_severity": {"critical": 100}, "max_unknown_software": 100}
        scan = {"server": name, "wait": True, "poll_interval": "100ms", "wait_timeout": "60s"}
        where = {"api_url": simulator.base_url, "api_key": "demo", "api_secret": "demo"}
        wait = {
            "wait_for_scan": True,
            "scanned_after": "{{ scanned.requested_at }}",
            "refresh": True,
            "wait_timeout": "60s",
        }
        token = exporter.operator["Authorization"].removeprefix("Bearer ")
        gate = {"servers": [name], "exporter_url": exporter.url, "token": token, **policy, **wait}
        tasks = [
            {"patrolserver.monitoring.scan": {**scan, **where}, "register": "scanned"},
            {"patrolserver.monitoring.gate": gate, "register": "verdict"},
            {"ansible.builtin.assert": {"that": ["verdict.passed", "verdict.refreshed == 1", "verdict is changed"]}},
        ]
        run = ansible.playbook([{"hosts": "localhost", "gather_facts": False, "tasks": tasks}])
        assert run.ok, run.output
        after = exporter.value(polled, server=name)
        assert before is not None
        assert after is not None
        assert after > before
