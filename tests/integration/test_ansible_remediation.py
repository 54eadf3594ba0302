"""The collection's remediation by hand: whom it takes for the server of an issue, and what it leaves alone."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from tests.harness.ansible import Ansible, Run, virtual_environments

if TYPE_CHECKING:
    from pathlib import Path

TRACE = (
    "- ansible.builtin.file:\n    path: '{{ traces }}/{{ inventory_hostname }}'\n    state: touch\n    mode: '0644'\n"
)


@pytest.fixture
def ansible(tmp_path: Path) -> Ansible:
    return Ansible(virtual_environments() / "core" / "bin", tmp_path / "controller")


def remedy(ansible: Ansible, *flags: str, own_tasks: bool = True, **issue: Any) -> tuple[Run, set[str]]:
    """Remedy an issue; returns how it ended, and the hosts on which tasks of one's own ran."""
    traces, tasks = ansible.folder / "traces", ansible.folder / "tasks.yml"
    traces.mkdir(exist_ok=True)
    tasks.write_text(TRACE)
    local = {"ansible_connection": "local", "ansible_python_interpreter": "{{ ansible_playbook_python }}"}
    hosts: dict[str, dict[str, str]] = {"web1": {}, "web2": {}, "db1": {"patrolserver_server": "db.example.org"}}
    group: dict[str, Any] = {"hosts": {"web1": {}, "web2": {}}}
    inventory = ansible.folder / "hosts.json"
    inventory.write_text(json.dumps({"all": {"hosts": hosts, "children": {"web": group}, "vars": local}}))
    known: dict[str, Any] = {
        "server": "web1",
        "software": "PHP",
        "canonical_name": "php",
        "version": "1",
        "location": "/",
    }
    known |= {"severity": "critical", "kind": "exploitable", "exploits": []}
    variables = {"remediate_issue": known | issue, "traces": str(traces)}
    variables |= {"remediate_tasks": str(tasks)} if own_tasks else {}
    run = ansible.playbook("patrolserver.monitoring.remediate", f"--inventory={inventory}", *flags, **variables)
    return run, {path.name for path in traces.iterdir()}


@pytest.mark.parametrize("name", ["all", "web", "web*", "web1,web2"])
def test_a_servers_name_is_never_a_group_or_a_pattern(ansible: Ansible, name: str) -> None:
    """No host is called so, and none is touched; the message says what a host needs to be found."""
    run, touched = remedy(ansible, server=name)
    assert (run.ok, touched) == (False, set()), run.output
    assert f"No host of the inventory is the server {name}" in run.output
    assert "patrolserver_server" in run.output


def test_the_one_host_of_the_name_is_remedied(ansible: Ansible) -> None:
    """By its own name or the variable's, whatever capitals and dot; in check mode it is only told."""
    for name, host in (("WEB1.", "web1"), ("db.example.org", "db1")):
        checked, touched = remedy(ansible, "--check", server=name)
        assert checked.ok, checked.output
        assert host not in touched
        run, touched = remedy(ansible, server=name)
        assert run.ok, run.output
        assert host in touched
        assert "web2" not in touched


def test_software_that_is_none_of_the_systems_packages_is_left_alone(ansible: Ansible) -> None:
    """Of the same name as a package, but elsewhere; and where nobody knows which software it is."""
    for issue in ({"location": "/srv/www"}, {"canonical_name": "", "software": ""}):
        run, _ = remedy(ansible, own_tasks=False, **issue)
        assert not run.ok, run.output
        assert "none of the system's packages. Nothing was remediated." in " ".join(run.output.split())
