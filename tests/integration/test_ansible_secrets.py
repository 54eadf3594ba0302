"""What the collection prints at its loudest, while things go wrong: no secret, neither raw nor as URLs spell it."""

from __future__ import annotations

import socket
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, quote_plus

import pytest
import requests
from tests.harness.ansible import Ansible, virtual_environments

from patrolserver_exporter.simulator.options import SimulatorOptions
from patrolserver_exporter.simulator.server import Simulator

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

KEY, SECRET, TOKEN = "canary key/+1ä", "canary&secret=2%", "canary+token/3 x"
PROXY_PASSWORD = "canary-proxy~4"


@contextmanager
def silent_port() -> Iterator[int]:
    """A port on which nobody answers."""
    with socket.create_server(("127.0.0.1", 0)) as held:
        port = held.getsockname()[1]
    yield port


@pytest.fixture
def simulator() -> Iterator[Simulator]:
    with Simulator(SimulatorOptions(listen_address="127.0.0.1:0", servers=2, key=KEY, secret=SECRET)) as running:
        yield running


@pytest.fixture
def ansible(tmp_path: Path) -> Ansible:
    return Ansible(virtual_environments() / "core" / "bin", tmp_path / "controller", {"ANSIBLE_DEBUG": "0"})


def order(simulator: Simulator, path: str, /, **body: Any) -> None:
    response = requests.post(f"{simulator.base_url}/-/simulator{path}", json=body, timeout=10)
    assert response.ok, response.text


def spellings(secret: str) -> set[str]:
    """Return what a leak would look like."""
    return {secret, quote(secret), quote(secret, safe=""), quote_plus(secret), quote_plus(secret).lower()}


def shout(ansible: Ansible, tasks: list[dict[str, Any]], **variables: Any) -> str:
    """Run the tasks at -vvvv, whatever becomes of each; returns the output without its secrets, or fails."""
    playbook = [
        {
            "hosts": "localhost",
            "gather_facts": False,
            "ignore_errors": True,
            "module_defaults": {
                "group/patrolserver.monitoring.api": {
                    "api_url": "{{ api_url }}",
                    "api_key": "{{ lookup('ansible.builtin.env', 'CANARY_KEY') }}",
                    "api_secret": "{{ lookup('ansible.builtin.env', 'CANARY_SECRET') }}",
                    "retries": 0,
                },
                "group/patrolserver.monitoring.exporter": {
                    "exporter_url": "{{ api_url }}",
                    "token": "{{ lookup('ansible.builtin.env', 'CANARY_TOKEN') }}",
                    "retries": 0,
                },
            },
            "tasks": tasks,
        }
    ]
    ansible.environ.update(CANARY_KEY=KEY, CANARY_SECRET=SECRET, CANARY_TOKEN=TOKEN)
    output = ansible.playbook(playbook, "-vvvv", **variables).output
    for secret in (KEY, SECRET, TOKEN, PROXY_PASSWORD):
        for spelling in spellings(secret):
            assert spelling not in output
    return output


API_TASKS: list[dict[str, Any]] = [
    {"patrolserver.monitoring.server": {"name": "new.example.org", "state": "verified"}},
    {"patrolserver.monitoring.scan": {"server": "1", "wait": True, "wait_timeout": "2", "poll_interval": "100ms"}},
    {"patrolserver.monitoring.software_bucket": {"server": "1", "software": [{"name": "php", "version": "8.2"}]}},
]
EXPORTER_TASKS: list[dict[str, Any]] = [
    {"patrolserver.monitoring.gate": {"servers": ["*"]}},
    {"patrolserver.monitoring.issues_info": {}},
    {"patrolserver.monitoring.fleet_info": {}},
    {
        "ansible.builtin.debug": {
            "msg": "{{ query('patrolserver.monitoring.issues', exporter_url=api_url, retries=0,"
            " token=lookup('ansible.builtin.env', 'CANARY_TOKEN')) }}"
        }
    },
]


def test_calls_that_succeed_show_no_secret(ansible: Ansible, simulator: Simulator) -> None:
    """A server is added, a scan started and a list pushed; -vvvv tells of all three."""
    output = shout(ansible, API_TASKS, api_url=simulator.base_url)
    assert output.count("new.example.org") > 1
    assert "module_args" in output


def test_calls_that_nobody_answers_show_no_secret(ansible: Ansible) -> None:
    """The connection is refused, directly and at a proxy whose URL holds a password."""
    with silent_port() as port:
        url = f"http://127.0.0.1:{port}"
        assert "no answer" in shout(ansible, API_TASKS + EXPORTER_TASKS, api_url=url)
        proxy = f"http://user:{PROXY_PASSWORD}@127.0.0.1:{port}"
        tasks = [{name: {**options, "proxy_url": proxy}} for task in API_TASKS for name, options in task.items()]
        assert "no answer" in shout(ansible, tasks, api_url="http://patrolserver.invalid")


def test_calls_that_are_refused_or_misled_show_no_secret(ansible: Ansible, simulator: Simulator) -> None:
    """Pages instead of JSON, a redirect that would take the credentials along, and credentials that are revoked."""
    for path, fault in (
        ("servers", {"kind": "html", "status": 502}),
        ("servers/*", {"kind": "garbage"}),
        ("*", {"kind": "redirect", "location": "http://127.0.0.1:1/elsewhere"}),
        (
            "*",
            {"kind": "error_200", "error": {"code": 3, "message": f"no: key={quote(KEY)}&secret={quote_plus(SECRET)}"}},
        ),
    ):
        order(simulator, "/faults", path=path, count=3, **fault)
    output = shout(ansible, API_TASKS * 3, api_url=simulator.base_url)
    assert "redirects elsewhere" in output
    order(simulator, "/credentials", key="other", secret="other")
    assert "HTTP 401" in shout(ansible, API_TASKS + EXPORTER_TASKS, api_url=simulator.base_url)
