"""A real ansible-rulebook on the exporter's change feed: what is or becomes critical starts a playbook."""

from __future__ import annotations

import ast
import json
import signal
import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
import requests
import yaml
from tests.harness.ansible import COLLECTION, Ansible, java_home, rulebook, virtual_environments
from tests.harness.process import TOKEN, Exporter
from tests.harness.waiting import eventually

from patrolserver_exporter.issues.model import ChangeKind, Kind, Severity
from patrolserver_exporter.simulator.options import SimulatorOptions
from patrolserver_exporter.simulator.server import Simulator

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

SOFTWARE = "openssl"
# An inventory may have a group of this name.
GROUP = "web"
# No machine that runs this test has a package of this name.
SHOP, SHOP_SOFTWARE = "shop.example.org", "the-shop-of-the-tests"
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
        software = {"id": 1, "name": "Shop", "canonical_name": SHOP_SOFTWARE, "version": "1", "supported": "yes"}
        for name in (SHOP, GROUP):
            order(running, "/servers", name=name, software=[software])
        yield running


@pytest.fixture
def exporter(tmp_path: Path, simulator: Simulator) -> Iterator[Exporter]:
    # A port of its own, so that it is the same after a restart.
    with socket.create_server(("127.0.0.1", 0)) as held:
        port = held.getsockname()[1]
    flag = f"--web.listen-address=127.0.0.1:{port}"
    with Exporter.watching(tmp_path, simulator.base_url, flag, interval="10m") as running:
        eventually(
            lambda: len(running.samples("patrolserver_server_last_poll_timestamp_seconds")) == 5, what="the first polls"
        )
        order(simulator, "/webhooks", url=f"{running.url}/webhook/{TOKEN}")
        yield running


def order(simulator: Simulator, path: str, /, **body: Any) -> None:
    response = requests.post(f"{simulator.base_url}/-/simulator{path}", json=body, timeout=10)
    assert response.ok, response.text


@pytest.fixture
def ansible(tmp_path: Path, require_program: Callable[[str], str]) -> Ansible:
    environ = {"JAVA_HOME": java_home(require_program("java"))}
    return Ansible(virtual_environments() / "tools" / "bin", tmp_path / "controller", environ)


@dataclass(frozen=True)
class Remediation:
    """The hosts that the playbook may run for, with what it left of each."""

    inventory: Path
    traces: Path

    def of(self, name: str) -> Path:
        """The file that is there once the playbook ran for the host."""
        return self.traces / name

    def issue(self, name: str) -> Any:
        """The issue that the playbook got."""
        return json.loads(self.of(name).read_text())


def own_tasks(ansible: Ansible, tasks: str = REMEDIATE) -> str:
    """Write tasks of the installation's own; returns their path."""
    path = ansible.folder / "remediate.yml"
    path.write_text(tasks)
    return str(path)


def remediation(ansible: Ansible, names: list[str], **others: dict[str, Any]) -> Remediation:
    """Hosts with tasks of their own that leave a trace; the others have the given variables only."""
    traces = ansible.folder / "traces"
    traces.mkdir()
    tasks = own_tasks(ansible)
    hosts = {name: {"remediate_tasks": tasks, "traces": str(traces)} for name in names}
    hosts |= {name: {"traces": str(traces)} | variables for name, variables in others.items()}
    return Remediation(ansible.inventory(hosts), traces)


@pytest.mark.timeout(900)
def test_a_new_critical_issue_starts_the_remediation_also_after_a_restart_of_the_exporter(
    tmp_path: Path, simulator: Simulator, exporter: Exporter, ansible: Ansible
) -> None:
    """The playbook runs for the host that has the issue, and for the next one after the exporter was killed."""
    names = [server.name for server in simulator.world.servers(simulator.world.demo)]
    done = remediation(ansible, names)
    cursor = tmp_path / "cursor"
    with rulebook(ansible, done.inventory, exporter_url=exporter.url, cursor_file=str(cursor)) as log:
        eventually(cursor.exists, within=60, what="the feed's cursor")
        order(simulator, "/break", server=names[0], kind="exploitable", risk=9.8)
        eventually(done.of(names[0]).exists, within=60, what="the first remediation")
        issue = done.issue(names[0])
        assert (issue["severity"], issue["server"]) == ("critical", names[0])

        exporter.kill()
        order(simulator, "/break", server=names[1], kind="exploitable", risk=9.8)
        eventually(lambda: "The exporter's feed" in log.read_text(), within=30, what="a complaint about the silence")
        exporter.start()
        order(simulator, "/scan", server=names[1], seconds=0.2)
        # The source asks again after a pause that has grown meanwhile.
        eventually(done.of(names[1]).exists, within=180, what="the second remediation")
        assert done.issue(names[1])["severity"] == "critical"
    assert not done.of(names[2]).exists()


def test_a_known_medium_that_becomes_critical_starts_the_remediation(
    tmp_path: Path, simulator: Simulator, exporter: Exporter, ansible: Ansible
) -> None:
    """One more exploit makes it worse; the playbook gets the issue with both, and since when it is critical."""
    name = next(iter(simulator.world.servers(simulator.world.demo))).name
    done = remediation(ansible, [name])
    cursor = tmp_path / "cursor"

    def exploit(number: int, risk: float) -> None:
        known = {"id": number, "cve": f"CVE-2099-000{number}", "title": "Overflow", "risk": risk}
        order(simulator, "/break", server=name, software=SOFTWARE, exploit=known)

    def told(change: str) -> bool:
        page = requests.get(f"{exporter.url}/api/v1/changes", params={"limit": 1000}, timeout=10).json()
        return any((one["change"], one["issue"]["canonical_name"]) == (change, SOFTWARE) for one in page["items"])

    with rulebook(ansible, done.inventory, exporter_url=exporter.url, cursor_file=str(cursor)):
        eventually(cursor.exists, within=60, what="the feed's cursor")
        exploit(1, 6.5)
        eventually(lambda: told("eased"), what="the poll that shows the reported issue as medium")
        exploit(2, 9.8)
        eventually(done.of(name).exists, within=60, what="the remediation")
    issue = done.issue(name)
    assert (issue["severity"], [one["cve"] for one in issue["exploits"]]) == (
        "critical",
        ["CVE-2099-0002", "CVE-2099-0001"],
    )
    assert issue["severity_since"] > issue["first_seen"]


def test_a_host_of_another_name_is_remedied_and_what_cannot_be_is_refused_with_a_reason(
    tmp_path: Path, simulator: Simulator, exporter: Exporter, ansible: Ansible
) -> None:
    """By patrolserver_server. No package is installed, and a server without a host is told of."""
    names = [server.name for server in simulator.world.servers(simulator.world.demo)]
    plain = {"patrolserver_server": names[0].upper() + ".", "remediate_tasks": own_tasks(ansible)}
    done = remediation(ansible, [], plain=plain, bare={"patrolserver_server": SHOP})
    cursor = tmp_path / "cursor"
    variables = {"patrolserver_exporter_url": exporter.url, "cursor_file": str(cursor)}
    with rulebook(ansible, done.inventory, **variables) as log:
        eventually(cursor.exists, within=60, what="the feed's cursor")
        for name in (names[0], names[1], SHOP):
            order(simulator, "/break", server=name, kind="exploitable", risk=9.8)
        eventually(done.of("plain").exists, within=60, what="the remediation")
        eventually(lambda: f"No package {SHOP_SOFTWARE} is installed" in log.read_text(), within=60, what="a refusal")
        nobody = f"No host of the inventory is the server {names[1]}"
        eventually(lambda: nobody in log.read_text(), within=60, what="word of a server without a host")
    assert done.issue("plain")["server"] == names[0]
    assert [path.name for path in done.traces.iterdir()] == ["plain"]


def test_no_text_of_an_issue_is_run(tmp_path: Path, simulator: Simulator, exporter: Exporter, ansible: Ansible) -> None:
    """Whoever may name software on a server could run commands on the controller otherwise."""
    name = next(iter(simulator.world.servers(simulator.world.demo))).name
    done = remediation(ansible, [name])
    cursor, proof = tmp_path / "cursor", tmp_path / "proof"
    known = {"id": 1, "cve": "CVE-2099-0001", "title": f"{{{{ lookup('pipe', 'touch {proof}') }}}}", "risk": 9.8}
    with rulebook(ansible, done.inventory, exporter_url=exporter.url, cursor_file=str(cursor)):
        eventually(cursor.exists, within=60, what="the feed's cursor")
        order(simulator, "/break", server=name, software=SOFTWARE, exploit=known)
        eventually(done.of(name).exists, within=60, what="the remediation")
    assert "lookup('pipe'" in done.of(name).read_text()
    assert not proof.exists()


def test_an_event_that_the_engine_had_not_taken_comes_after_a_crash(
    tmp_path: Path, simulator: Simulator, exporter: Exporter, ansible: Ansible
) -> None:
    """The engine, busy with the first and with the second in hand, is killed; the next one remedies the third."""
    names = [server.name for server in simulator.world.servers(simulator.world.demo)][:3]
    done = remediation(ansible, [], **{name: {} for name in names})
    cursor, leave = tmp_path / "cursor", done.traces / "leave"
    wait = f"- ansible.builtin.wait_for:\n    path: {leave}\n    sleep: 1\n    timeout: 60\n"
    begun = "- ansible.builtin.file:\n    path: '{{ traces }}/begun'\n    state: touch\n    mode: '0644'\n"
    variables = {"exporter_url": exporter.url, "cursor_file": str(cursor)}
    one_at_a_time = ("--execution-strategy=parallel", "--max-concurrent-actions=1")
    slow = own_tasks(ansible, begun + wait)
    with rulebook(ansible, done.inventory, *one_at_a_time, ends="killed", remediate_tasks=slow, **variables) as log:
        eventually(cursor.exists, within=60, what="the feed's cursor")
        start = cursor.read_text()
        order(simulator, "/break", server=names[0], kind="exploitable", risk=9.8)
        eventually((done.traces / "begun").exists, within=60, what="the first remediation")
        eventually(lambda: cursor.read_text() != start, within=30, what="the cursor behind the first event")
        for name in names[1:]:
            order(simulator, "/break", server=name, kind="exploitable", risk=9.8)
        waiting = "The rule engine has not taken all events yet"
        eventually(lambda: waiting in log.read_text(), within=30, what="the third event in the queue")
    leave.touch()
    quick = own_tasks(ansible, REMEDIATE)
    with rulebook(ansible, done.inventory, *one_at_a_time, remediate_tasks=quick, **variables):
        eventually(lambda: [name for name in names[1:] if done.of(name).exists()], within=60, what="a remediation")


def test_the_event_source_knows_the_changes_and_words_of_the_exporter() -> None:
    """Whoever adds a kind of change is told here that nobody can choose it yet."""
    path = COLLECTION / "extensions" / "eda" / "plugins" / "event_source" / "issues.py"
    # Read and not imported, since it needs what ansible-rulebook brings.
    assigned = [node for node in ast.parse(path.read_text()).body if isinstance(node, ast.Assign)]
    text = next(node.value for node in assigned if ast.unparse(node.targets[0]) == "DOCUMENTATION")
    options = yaml.safe_load(ast.literal_eval(text))["options"]
    chosen = {"change": ChangeKind, "severity": Severity, "kind": Kind}
    assert {name: set(options[name]["choices"]) for name in chosen} == {
        name: set(words) for name, words in chosen.items()
    }


def test_a_severity_that_does_not_exist_ends_the_rulebook_at_its_start(ansible: Ansible) -> None:
    """An error, and not a rulebook that never reacts."""
    path = ansible.folder / "rulebook.yml"
    source = {"patrolserver.monitoring.issues": {"severity": "Critical"}}
    rule = {"name": "Any", "condition": "event.change is defined", "actions": [{"debug": {"msg": "An event"}}]}
    ruleset = {"name": "Mistaken", "hosts": "all", "sources": [source], "rules": [rule]}
    path.write_text(json.dumps([ruleset]))
    run = ansible.run("ansible-rulebook", f"--rulebook={path}", f"--inventory={ansible.inventory({})}")
    assert not run.ok, run.output
    assert "severity knows critical, high, medium, low, not Critical" in run.output


def test_with_feedback_the_cursor_follows_what_the_engine_acknowledged(
    tmp_path: Path, simulator: Simulator, exporter: Exporter, ansible: Ansible
) -> None:
    """A rulebook of one's own: each event carries its host and no group, and the cursor follows what is taken."""
    cursor, path, output = tmp_path / "cursor", ansible.folder / "rulebook.yml", ansible.folder / "rulebook.log"
    options = {"exporter_url": exporter.url, "cursor_file": str(cursor), "feedback": True, "confirm_timeout": 0}
    rule = {
        "name": "Any",
        "condition": "event.change is defined",
        "actions": [{"debug": {"msg": "for {{ event.meta.hosts }}"}}],
    }
    sources = [{"name": "the feed", "patrolserver.monitoring.issues": options}]
    path.write_text(json.dumps([{"name": "Own", "hosts": "all", "sources": sources, "rules": [rule]}]))
    inventory = ansible.folder / "grouped.json"
    inventory.write_text(json.dumps({"all": {"children": {GROUP: {"hosts": {SHOP: None}}}}}))
    command = ("ansible-rulebook", f"--rulebook={path}", f"--inventory={inventory}", "--persistence-id=tests")
    process = ansible.start(*command, "--verbose", output=output)
    try:
        eventually(cursor.exists, within=60, what="the feed's cursor")
        start = cursor.read_text()
        order(simulator, "/break", server=SHOP, kind="exploitable", risk=9.8)
        eventually(lambda: f"for ['{SHOP}']" in output.read_text(), within=60, what="the event")
        eventually(lambda: cursor.read_text() != start, within=30, what="the cursor behind it")
        order(simulator, "/break", server=GROUP, kind="exploitable", risk=9.8)
        eventually(lambda: "for ['~(?!)']" in output.read_text(), within=60, what="an event for no host")
        assert "did not acknowledge" not in output.read_text()
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(20)
        finally:
            process.kill()
            process.wait()
