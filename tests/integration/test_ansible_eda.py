"""A real ansible-rulebook on the exporter's change feed: a new critical issue starts a playbook."""

from __future__ import annotations

import json
import os
import signal
import socket
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest
import requests
from tests.harness.ansible import Ansible, virtual_environments
from tests.harness.process import TOKEN, Exporter
from tests.harness.waiting import eventually

from patrolserver_exporter.simulator.options import SimulatorOptions
from patrolserver_exporter.simulator.server import Simulator

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

REMEDIATE = """
- name: Leave a trace for the test
  ansible.builtin.copy:
    dest: "{{ traces }}/{{ inventory_hostname }}"
    content: "{{ remediate_issue | to_json }}"
    mode: "0644"
"""


@pytest.fixture
def simulator() -> Iterator[Simulator]:
    with Simulator(SimulatorOptions(listen_address="127.0.0.1:0", servers=3, software=6)) as running:
        yield running


@pytest.fixture
def exporter(tmp_path: Path, simulator: Simulator) -> Iterator[Exporter]:
    # A port of its own, so that it is the same after a restart.
    with socket.create_server(("127.0.0.1", 0)) as held:
        port = held.getsockname()[1]
    flag = f"--web.listen-address=127.0.0.1:{port}"
    with Exporter.watching(tmp_path, simulator.base_url, flag, interval="10m") as running:
        eventually(
            lambda: len(running.samples("patrolserver_server_last_poll_timestamp_seconds")) == 3, what="the first polls"
        )
        order(simulator, "/webhooks", url=f"{running.url}/webhook/{TOKEN}")
        yield running


def order(simulator: Simulator, path: str, /, **body: Any) -> None:
    response = requests.post(f"{simulator.base_url}/-/simulator{path}", json=body, timeout=10)
    assert response.ok, response.text


@contextmanager
def rulebook(ansible: Ansible, inventory: Path, **variables: Any) -> Iterator[Path]:
    """Run the collection's rulebook in the background; yields the file with what it says."""
    output, extra = ansible.folder / "rulebook.log", ansible.folder / "variables.yml"
    extra.write_text(json.dumps(variables))
    process = ansible.start(
        "ansible-rulebook",
        "--rulebook=patrolserver.monitoring.critical_issue",
        f"--inventory={inventory}",
        f"--vars={extra}",
        "--verbose",
        output=output,
    )
    try:
        yield output
        assert process.poll() is None, output.read_text()
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(20)
        finally:
            process.kill()
            process.wait()


def test_a_new_critical_issue_starts_the_remediation_also_after_a_restart_of_the_exporter(
    tmp_path: Path, simulator: Simulator, exporter: Exporter, require_program: Callable[[str], str]
) -> None:
    """The playbook runs for the host that has the issue, and for the next one after the exporter was killed."""
    java = require_program("java")
    home = os.path.dirname(os.path.dirname(os.path.realpath(java)))  # noqa: PTH120  # Two levels up of a real path.
    ansible = Ansible(virtual_environments() / "tools" / "bin", tmp_path / "controller", {"JAVA_HOME": home})
    names = [server.name for server in simulator.world.servers(simulator.world.demo)]
    traces = tmp_path / "traces"
    traces.mkdir()
    tasks = ansible.folder / "remediate.yml"
    tasks.write_text(REMEDIATE)
    inventory = ansible.inventory({name: {"remediate_tasks": str(tasks), "traces": str(traces)} for name in names})
    cursor = tmp_path / "cursor"

    def issue_of(name: str) -> Any:
        return json.loads((traces / name).read_text())

    with rulebook(ansible, inventory, exporter_url=exporter.url, cursor_file=str(cursor)) as log:
        eventually(cursor.exists, within=60, what="the feed's cursor")
        order(simulator, "/break", server=names[0], kind="exploitable", risk=9.8)
        eventually((traces / names[0]).exists, within=60, what="the first remediation")
        assert (issue_of(names[0])["severity"], issue_of(names[0])["server"]) == ("critical", names[0])

        exporter.kill()
        order(simulator, "/break", server=names[1], kind="exploitable", risk=9.8)
        eventually(lambda: "The exporter's feed" in log.read_text(), within=30, what="a complaint about the silence")
        exporter.start()
        order(simulator, "/scan", server=names[1], seconds=0.2)
        eventually((traces / names[1]).exists, within=90, what="the second remediation")
        assert issue_of(names[1])["severity"] == "critical"
    assert not (traces / names[2]).exists()
