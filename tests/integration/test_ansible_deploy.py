"""Rolling deploys, gated by the collection on the real exporter, which watches the simulator."""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING, Any

import pytest
import requests
from tests.harness.ansible import Ansible, Run, virtual_environments
from tests.harness.process import TOKEN, Exporter
from tests.harness.waiting import eventually

from patrolserver_exporter.simulator.options import SimulatorOptions
from patrolserver_exporter.simulator.server import Simulator

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

BATCHES = 3
DEPLOY = """
- name: Put the new version there
  ansible.builtin.file:
    path: "{{ deployed_to }}/{{ inventory_hostname }}"
    state: touch
    mode: "0644"

- name: While the first batch is being deployed to, PatrolServer finds something on a host of the second
  ansible.builtin.uri:
    url: "{{ simulator }}/-/simulator/break"
    method: POST
    body_format: json
    body: {server: "{{ victim }}", kind: exploitable, risk: 9.8}
  run_once: true
  when: victim is defined and victim in ansible_play_hosts_all[2:4] and victim not in ansible_play_batch

- name: The deploy takes as long as PatrolServer takes to tell
  ansible.builtin.uri:
    url: "{{ simulator }}/-/simulator/deliveries"
  run_once: true
  when: victim is defined
"""


@pytest.fixture
def simulator() -> Iterator[Simulator]:
    with Simulator(SimulatorOptions(listen_address="127.0.0.1:0", servers=2 * BATCHES, software=6)) as running:
        yield running


@pytest.fixture
def names(simulator: Simulator) -> list[str]:
    return [server.name for server in simulator.world.servers(simulator.world.demo)]


@pytest.fixture
def exporter(tmp_path: Path, simulator: Simulator) -> Iterator[Exporter]:
    with Exporter.watching(tmp_path, simulator.base_url, interval="10m") as running:
        eventually(
            lambda: len(running.samples("patrolserver_server_last_poll_timestamp_seconds")) == 2 * BATCHES,
            what="the first polls",
        )
        order(simulator, "/webhooks", url=f"{running.url}/webhook/{TOKEN}")
        yield running


@pytest.fixture(scope="session")
def ansible_bin() -> Path:
    return virtual_environments() / "core" / "bin"


@pytest.fixture
def ansible(tmp_path: Path, ansible_bin: Path) -> Ansible:
    return Ansible(ansible_bin, tmp_path / "controller")


def order(simulator: Simulator, path: str, /, **body: Any) -> None:
    response = requests.post(f"{simulator.base_url}/-/simulator{path}", json=body, timeout=10)
    assert response.ok, response.text


def deploy(ansible: Ansible, names: list[str], exporter_url: str, **variables: Any) -> tuple[Run, list[str]]:
    """Run the collection's own playbook; returns how it ended and which hosts were deployed to."""
    inventory = ansible.inventory({name: {} for name in names})
    tasks = ansible.folder / "deploy.yml"
    tasks.write_text(DEPLOY)
    target = ansible.folder / "deployed"
    target.mkdir(exist_ok=True)
    for old in target.iterdir():
        old.unlink()
    ended = ansible.playbook(
        "patrolserver.monitoring.rolling_deploy",
        f"--inventory={inventory}",
        exporter_url=exporter_url,
        deploy_serial=2,
        deploy_tasks=str(tasks),
        deployed_to=str(target),
        deploy_max_unknown_software=100,  # The simulator's fleet has some, as real ones do.
        **variables,
    )
    return ended, sorted(path.name for path in target.iterdir())


def test_an_issue_that_arrives_by_webhook_stops_the_deploy_and_its_fix_lets_it_through(
    simulator: Simulator, exporter: Exporter, ansible: Ansible, names: list[str]
) -> None:
    """Of three batches the first is deployed to, then nothing more; after the fix all of them are."""
    stopped, deployed = deploy(ansible, names, exporter.url, simulator=simulator.base_url, victim=names[3])
    assert not stopped.ok, stopped.output
    assert deployed == sorted(names[:2]), stopped.output
    assert names[3] in stopped.output
    assert len(re.findall(r"^PLAY \[", stopped.output, re.MULTILINE)) == 2, stopped.output

    # Not only while the event is unconfirmed: the poll that follows it shows the issue itself.
    eventually(lambda: exporter.value("patrolserver_server_issues", server=names[3], severity="critical") == 1.0)
    again, deployed = deploy(ansible, names, exporter.url)
    assert (again.ok, deployed) == (False, sorted(names[:2])), again.output
    assert "critical" in again.output

    order(simulator, "/mend", server=names[3])
    order(simulator, "/scan", server=names[3], seconds=0.2)
    eventually(lambda: exporter.value("patrolserver_server_issues", server=names[3], severity="critical") == 0.0)
    eventually(lambda: _verdict(exporter, names) == "pass", what="a verdict that is known")
    through, deployed = deploy(ansible, names, exporter.url)
    assert (through.ok, deployed) == (True, sorted(names)), through.output


def test_a_deploy_stops_when_the_exporter_is_down(exporter: Exporter, ansible: Ansible, names: list[str]) -> None:
    """Nobody answers, so nothing is deployed, and the reason is told."""
    url = exporter.url
    assert exporter.terminate() == 0
    stopped, deployed = deploy(ansible, names, url)
    assert (stopped.ok, deployed) == (False, []), stopped.output
    assert "no answer" in stopped.output


def test_a_deploy_stops_when_the_data_is_too_old(
    simulator: Simulator, exporter: Exporter, ansible: Ansible, names: list[str]
) -> None:
    """The API has been failing for longer than the policy allows, so nothing is deployed, and the reason is told."""
    order(simulator, "/faults", kind="status", path="*", status=503)
    polled = exporter.samples("patrolserver_server_last_poll_timestamp_seconds")
    newest = max(polled.values())
    eventually(lambda: time.time() - newest > 3.0, what="data of over three seconds")
    stopped, deployed = deploy(ansible, names, exporter.url, deploy_max_age="3s")
    assert (stopped.ok, deployed) == (False, []), stopped.output
    assert "max_age" in stopped.output


def _verdict(exporter: Exporter, names: list[str]) -> str:
    question = {"servers": names, "policy": {"max_unknown_software": 100}}
    reply = requests.post(f"{exporter.url}/api/v1/gate", json=question, timeout=10)
    return str(reply.json()["verdict"])
