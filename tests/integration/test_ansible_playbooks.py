"""One set of variables, or of the environment, connects all of the collection: TLS both ways, a user, and proxies."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import bcrypt
import pytest
import trustme
from tests.harness.ansible import Ansible, java_home, rulebook, virtual_environments
from tests.harness.forward_proxy import PASSWORD_IN_URL, ForwardProxy
from tests.harness.fronts import TlsFront
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


@pytest.fixture
def proxy() -> Iterator[ForwardProxy]:
    with ForwardProxy() as running:
        yield running


NOBODY = "http://127.0.0.1:9"


@pytest.mark.parametrize("how", ["variables", "environment", "proxy", "no_proxy"])
def test_the_playbooks_connect(closed: Closed, ansible: Ansible, proxy: ForwardProxy, tmp_path: Path, how: str) -> None:
    """The report is written and the deploy done: directly, through a proxy, and past one that no_proxy rules out."""
    inventory = ansible.inventory({name: {} for name in closed.names})
    deploy = tmp_path / "deploy.yml"
    deploy.write_text("- ansible.builtin.debug:\n    msg: deployed\n")
    limits: dict[str, Any] = {"deploy_max_by_severity": {"low": 1000}, "deploy_max_unknown_software": 1000}
    runs = {
        "nightly_report": {"report_folder": str(tmp_path)},
        "rolling_deploy": {"deploy_tasks": str(deploy), **limits},
    }
    variables = closed.variables if how in {"variables", "proxy"} else {}
    ansible.environ = closed.environ if how in {"environment", "no_proxy"} else {}
    if how == "proxy":
        variables |= {"patrolserver_exporter_proxy_url": proxy.url}
    if how == "no_proxy":
        ansible.environ |= {"HTTPS_PROXY": NOBODY, "https_proxy": NOBODY, "NO_PROXY": "127.0.0.1"}
    for name, more in runs.items():
        run = ansible.playbook(f"patrolserver.monitoring.{name}", f"--inventory={inventory}", **more, **variables)
        assert run.ok, run.output
        assert PASSWORD not in run.output
        assert PASSWORD_IN_URL not in run.output
        assert bool(proxy.asked) is (how == "proxy")
        proxy.asked.clear()
    assert "# Open issues" in (tmp_path / "report.md").read_text()


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("rolling_deploy", "Set deploy_tasks to the absolute path of a file with the tasks that deploy"),
        ("nightly_report", "Set report_folder to the folder in which the reports are written"),
    ],
)
@pytest.mark.parametrize("unset", [{}, {"deploy_tasks": None, "report_folder": ""}], ids=["undefined", "empty"])
def test_a_playbook_says_what_to_set_before_it_asks_anybody(
    ansible: Ansible, name: str, told: str, unset: dict[str, Any]
) -> None:
    """Where nobody listens, the exporter is not even asked."""
    inventory = ansible.inventory({"web1.example.org": {}})
    where = {"patrolserver_exporter_url": NOBODY}
    run = ansible.playbook(f"patrolserver.monitoring.{name}", f"--inventory={inventory}", **where, **unset)
    assert not run.ok
    assert told in run.output
    assert "no answer" not in run.output


def test_packages_are_pushed_by_tls_and_through_a_proxy(ansible: Ansible, proxy: ForwardProxy, tmp_path: Path) -> None:
    """To PatrolServer itself; a certificate that nobody trusts ends it, whatever the proxy says."""
    facts = {"php": [{"name": "php", "version": "5.6.40", "arch": "amd64", "source": "apt"}]}
    inventory = ansible.inventory({"inside.example.org": {"push_package_facts": facts}})
    with (
        Simulator(SimulatorOptions(listen_address="127.0.0.1:0", servers=1)) as simulator,
        TlsFront(tmp_path, int(simulator.base_url.rpartition(":")[2])) as front,
    ):
        where = {"url": front.url, "proxy_url": proxy.url, "ca_file": str(front.ca_file), "retries": 0}
        variables = {f"patrolserver_api_{name}": value for name, value in where.items()}
        variables |= {"patrolserver_key": "demo", "patrolserver_secret": "demo", "push_wait": False}
        playbook, flag = "patrolserver.monitoring.push_packages", f"--inventory={inventory}"
        run = ansible.playbook(playbook, flag, **variables)
        assert run.ok, run.output
        assert {line.split()[0] for line in proxy.asked} == {"CONNECT"}
        assert len(simulator.world.servers(simulator.world.demo)) == 2
        distrusted = ansible.playbook(playbook, flag, **(variables | {"patrolserver_api_ca_file": "{{ omit }}"}))
        assert not distrusted.ok
        assert "CERTIFICATE_VERIFY_FAILED" in distrusted.output
        # Not encrypted, by the environment.
        ansible.environ = {"http_proxy": proxy.url}
        proxy.asked.clear()
        plain = {"patrolserver_api_url": simulator.base_url, "patrolserver_api_proxy_url": "{{ omit }}"}
        run = ansible.playbook(playbook, flag, **(variables | plain))
        assert run.ok, run.output
        assert proxy.asked
        assert all("http://" in line for line in proxy.asked)


def test_the_inventory_connects_by_the_environment(closed: Closed, ansible: Ansible, proxy: ForwardProxy) -> None:
    """Its file says nothing of the connection; hosts of other names know theirs at PatrolServer."""
    source = ansible.folder / "servers.patrolserver.yml"
    hostnames = ["patrolserver_name | split('.') | first"]
    source.write_text(json.dumps({"plugin": "patrolserver.monitoring.servers", "hostnames": hostnames}))
    ansible.environ = {**closed.environ, "ANSIBLE_INVENTORY_ANY_UNPARSED_IS_FAILED": "true", "https_proxy": proxy.url}
    name = closed.names[0]
    run = ansible.run("ansible-inventory", "-i", str(source), "--host", name.split(".")[0])
    assert run.ok, run.output
    assert proxy.asked
    assert f'"patrolserver_server": "{name}"' in run.output.replace('{\n            "__ansible_unsafe": ', "")


@pytest.mark.parametrize("how", ["proxy", "no_proxy"])
def test_a_rulebook_connects_by_its_variables(
    closed: Closed, proxy: ForwardProxy, tmp_path: Path, require_program: Callable[[str], str], how: str
) -> None:
    """It has its place in the feed, and keeps it: through a proxy, and past one that no_proxy rules out."""
    environ = {"JAVA_HOME": java_home(require_program("java"))}
    if how == "no_proxy":
        environ |= {"HTTPS_PROXY": NOBODY, "https_proxy": NOBODY, "NO_PROXY": "127.0.0.1"}
    ansible = Ansible(virtual_environments() / "tools" / "bin", tmp_path / "controller", environ)
    cursor = tmp_path / "cursor"
    inventory = ansible.inventory({name: {} for name in closed.names})
    variables = closed.variables | ({"patrolserver_exporter_proxy_url": proxy.url} if how == "proxy" else {})
    with rulebook(ansible, inventory, cursor_file=str(cursor), **variables) as log:
        eventually(cursor.exists, within=60, what="the feed's cursor")
        assert bool(proxy.asked) is (how == "proxy")
        assert PASSWORD not in log.read_text()
        assert PASSWORD_IN_URL not in log.read_text()
