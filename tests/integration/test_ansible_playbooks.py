"""One set of variables, or of the environment, connects all of the collection: TLS both ways, and a user."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import bcrypt
import pytest
import trustme
from tests.harness.ansible import Ansible, java_home, rulebook, virtual_environments
from tests.harness.process import Exporter
from tests.harness.waiting import eventually

from patrolserver_exporter.simulator.options import SimulatorOptions
from patrolserver_exporter.simulator.server import Simulator

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

USER, PASSWORD = "ansible", "a-word-for-tests"


@dataclass(frozen=True)
class Closed:
    """An exporter that asks for a certificate and a user; ``connection`` are the options with which it lets one in."""

    names: list[str]
    connection: dict[str, str]

    @property
    def variables(self) -> dict[str, str]:
        """As variables of Ansible."""
        return {f"patrolserver_exporter_{name}": value for name, value in self.connection.items()}

    @property
    def environ(self) -> dict[str, str]:
        """As the environment."""
        return {name.upper(): value for name, value in self.variables.items()}


@pytest.fixture(scope="module")
def closed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Closed]:
    folder, authority = tmp_path_factory.mktemp("exporter"), trustme.CA()
    server, client = authority.issue_cert("127.0.0.1"), authority.issue_cert("client.example.org")
    ca, key, chain = folder / "ca.pem", folder / "client.key", folder / "client.pem"
    authority.cert_pem.write_to_path(str(ca))
    server.private_key_pem.write_to_path(str(folder / "server.key"))
    server.cert_chain_pems[0].write_to_path(str(folder / "server.pem"))
    client.private_key_pem.write_to_path(str(key))
    client.cert_chain_pems[0].write_to_path(str(chain))
    web = {
        "tls_server_config": {
            "cert_file": "server.pem",
            "key_file": "server.key",
            "client_ca_file": "ca.pem",
            "client_auth_type": "RequireAndVerifyClientCert",
        },
        "basic_auth_users": {USER: bcrypt.hashpw(PASSWORD.encode(), bcrypt.gensalt(4)).decode()},
    }
    (folder / "web.yml").write_text(json.dumps(web))
    with (
        Simulator(SimulatorOptions(listen_address="127.0.0.1:0", servers=2, software=4)) as simulator,
        Exporter.watching(
            folder, simulator.base_url, f"--web.config.file={folder / 'web.yml'}", interval="10m"
        ) as exporter,
    ):
        names = [one.name for one in simulator.world.servers(simulator.world.demo)]
        eventually(lambda: exporter.log().count("poll") > 0, what="a poll")
        connection = {"url": exporter.url, "username": USER, "password": PASSWORD}
        connection |= {"ca_file": str(ca), "client_cert": str(chain), "client_key": str(key)}
        yield Closed(names, connection)


@pytest.fixture
def ansible(tmp_path: Path) -> Ansible:
    return Ansible(virtual_environments() / "core" / "bin", tmp_path / "controller")


@pytest.mark.parametrize("how", ["variables", "environment"])
def test_the_playbooks_connect(closed: Closed, ansible: Ansible, tmp_path: Path, how: str) -> None:
    """The report is written and the deploy done; with no connection to it, neither."""
    inventory = ansible.inventory({name: {} for name in closed.names})
    deploy = tmp_path / "deploy.yml"
    deploy.write_text("- ansible.builtin.debug:\n    msg: deployed\n")
    limits: dict[str, Any] = {"deploy_max_by_severity": {"low": 1000}, "deploy_max_unknown_software": 1000}
    runs = {
        "nightly_report": {"report_folder": str(tmp_path)},
        "rolling_deploy": {"deploy_tasks": str(deploy), **limits},
    }
    variables = closed.variables if how == "variables" else {}
    ansible.environ = closed.environ if how == "environment" else {}
    for name, more in runs.items():
        run = ansible.playbook(f"patrolserver.monitoring.{name}", f"--inventory={inventory}", **more, **variables)
        assert run.ok, run.output
        assert PASSWORD not in run.output
    assert "# Open issues" in (tmp_path / "report.md").read_text()


def test_the_inventory_connects_by_the_environment(closed: Closed, ansible: Ansible) -> None:
    """Its file says nothing of the connection; hosts of other names know theirs at PatrolServer."""
    source = ansible.folder / "servers.patrolserver.yml"
    hostnames = ["patrolserver_name | split('.') | first"]
    source.write_text(json.dumps({"plugin": "patrolserver.monitoring.servers", "hostnames": hostnames}))
    ansible.environ = {**closed.environ, "ANSIBLE_INVENTORY_ANY_UNPARSED_IS_FAILED": "true"}
    name = closed.names[0]
    run = ansible.run("ansible-inventory", "-i", str(source), "--host", name.split(".")[0])
    assert run.ok, run.output
    assert f'"patrolserver_server": "{name}"' in run.output.replace('{\n            "__ansible_unsafe": ', "")


def test_a_rulebook_connects_by_its_variables(
    closed: Closed, tmp_path: Path, require_program: Callable[[str], str]
) -> None:
    """It has its place in the feed, and keeps it."""
    environ = {"JAVA_HOME": java_home(require_program("java"))}
    ansible = Ansible(virtual_environments() / "tools" / "bin", tmp_path / "controller", environ)
    cursor = tmp_path / "cursor"
    inventory = ansible.inventory({name: {} for name in closed.names})
    with rulebook(ansible, inventory, cursor_file=str(cursor), **closed.variables) as log:
        eventually(cursor.exists, within=60, what="the feed's cursor")
        assert PASSWORD not in log.read_text()
