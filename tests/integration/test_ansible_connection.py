"""One way to connect: TLS, a user and a proxy for modules and lookup, from variables and the environment."""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING, Any

import bcrypt
import pytest
import requests
import trustme
from tests.harness.ansible import Ansible, target_pythons, virtual_environments
from tests.harness.forward_proxy import PASSWORD_IN_URL, ForwardProxy
from tests.harness.process import Exporter
from tests.harness.sizes import all_or_few
from tests.harness.waiting import eventually

from patrolserver_exporter.simulator.options import SimulatorOptions
from patrolserver_exporter.simulator.server import Simulator

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.turn(1)

SERVERS = 2
USER, PASSWORD = "deploy", "canary pass/word+ü"
BASIC = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Certificates of the exporter and of a client, and the exporter's web configuration."""
    made = tmp_path_factory.mktemp("exporter")
    authority = trustme.CA()
    authority.cert_pem.write_to_path(made / "ca.pem")
    for name, certificate in (
        ("server", authority.issue_cert("localhost")),
        ("client", authority.issue_cert("client.example.org")),
    ):
        certificate.private_key_pem.write_to_path(made / f"{name}.key")
        certificate.cert_chain_pems[0].write_to_path(made / f"{name}.pem")
    web = {
        "tls_server_config": {
            "cert_file": str(made / "server.pem"),
            "key_file": str(made / "server.key"),
            "client_ca_file": str(made / "ca.pem"),
            "client_auth_type": "RequireAndVerifyClientCert",
        },
        "basic_auth_users": {USER: bcrypt.hashpw(PASSWORD.encode(), bcrypt.gensalt(4)).decode()},
    }
    (made / "web.yml").write_text(json.dumps(web))
    return made


@pytest.fixture(scope="module")
def exporter(folder: Path) -> Iterator[Exporter]:
    """It wants a client's certificate and a user."""
    with (
        Simulator(SimulatorOptions(listen_address="127.0.0.1:0", servers=SERVERS)) as simulator,
        Exporter.watching(
            folder, simulator.base_url, f"--web.config.file={folder / 'web.yml'}", interval="10m"
        ) as running,
    ):
        url = f"https://localhost:{running.url.rpartition(':')[2]}"

        def polled() -> bool:
            reply = requests.get(
                f"{url}/api/v1/servers",
                headers={"Authorization": f"Basic {BASIC}"},
                verify=str(folder / "ca.pem"),
                cert=(str(folder / "client.pem"), str(folder / "client.key")),
                timeout=10,
            )
            return sum(one["last_poll_at"] is not None for one in reply.json()["items"]) == SERVERS

        eventually(polled, what="the first polls")
        running.urls = [url]
        yield running


@pytest.fixture
def ansible(tmp_path: Path) -> Ansible:
    return Ansible(virtual_environments() / "core" / "bin", tmp_path / "controller")


def connection(exporter: Exporter) -> dict[str, Any]:
    """The variables of the connection."""
    options = {
        "url": exporter.url,
        "username": USER,
        "password": PASSWORD + "\n",
        "ca_file": str(exporter.folder / "ca.pem"),
        "client_cert": str(exporter.folder / "client.pem"),
        "client_key": str(exporter.folder / "client.key"),
        "retries": 0,
    }
    return {f"patrolserver_exporter_{name}": value for name, value in options.items()}


TASKS: list[dict[str, Any]] = [
    {"patrolserver.monitoring.gate": {"servers": ["*"], "mode": "report", "on_unknown": "warn"}, "register": "verdict"},
    {"patrolserver.monitoring.fleet_info": {}, "register": "fleet"},
    {
        "ansible.builtin.assert": {
            "that": [
                "verdict.judged_at is not none",
                f"fleet.count == {SERVERS}",
                "query('patrolserver.monitoring.issues') | length > 0",
            ]
        }
    },
]


def play(**variables: Any) -> list[dict[str, Any]]:
    return [{"hosts": "localhost", "gather_facts": False, "vars": variables, "tasks": TASKS}]


def test_variables_carry_certificates_user_and_proxy(ansible: Ansible, exporter: Exporter) -> None:
    """Modules and lookup go through the proxy with its credentials, and what is wrong is told without any secret."""
    with ForwardProxy() as there:
        url = there.url
        run = ansible.playbook(play(**connection(exporter), patrolserver_exporter_proxy_url=url), "-vvvv")
        assert run.ok, run.output
        assert len(there.asked) >= 3
        assert {line.split()[1] for line in there.asked} == {exporter.url.removeprefix("https://")}
        wrong = url.replace(PASSWORD_IN_URL, "canary-wrong")
        refused = ansible.playbook(play(**connection(exporter), patrolserver_exporter_proxy_url=wrong), "-vvvv")
        assert f"through the proxy {there.address}: " in refused.output
    for output in (run.output, refused.output):
        for secret in (PASSWORD, "canary", BASIC):
            assert secret not in output


def test_the_environment_carries_the_same(ansible: Ansible, exporter: Exporter) -> None:
    """Under the same names in capitals."""
    ansible.environ.update({name.upper(): str(value) for name, value in connection(exporter).items()})
    run = ansible.playbook(play())
    assert run.ok, run.output
    ansible.environ["PATROLSERVER_EXPORTER_CA_FILE"] = "/no/such/ca.pem"
    assert "ca_file: /no/such/ca.pem cannot be read: No such file" in ansible.playbook(play()).output


@pytest.mark.sized
def test_modules_run_on_each_python_of_a_target(ansible: Ansible, exporter: Exporter) -> None:
    """From 3.8 to 3.13, those that this machine has: all that ask the exporter, with files, waivers and a baseline.

    The oldest one, which lacks most, is always tried.
    """
    (oldest, *newer) = target_pythons().items()
    tried = dict((oldest, *all_or_few(newer, 1)))
    plays = []
    for minor, interpreter in tried.items():
        files: dict[str, Any] = {"report_file": f"{minor}.xml", "baseline_file": f"{minor}.json"}
        waiver = {"server": "*", "software": "php", "until": "2099-01-31", "reason": "x"}
        lenient = {"mode": "report", "on_unknown": "warn", "max_unknown_software": 1000}
        tasks: list[dict[str, Any]] = [
            {"ansible.builtin.setup": {"gather_subset": ["!all", "!min", "python"]}},
            {"ansible.builtin.assert": {"that": f"ansible_facts.python.version.minor == {minor}"}},
            *TASKS,
            {
                "patrolserver.monitoring.gate": {
                    "servers": ["*"],
                    **lenient,
                    **files,
                    "baseline_mode": "create",
                    "waivers": [waiver],
                    "grace": {"high": "7d"},
                    "max_age": "12h",
                }
            },
            {"patrolserver.monitoring.issues_info": {}},
            {"patrolserver.monitoring.refresh": {"servers": ["*"], "poll_interval": "200ms"}},
            {"patrolserver.monitoring.waiver_report": {"waivers": [waiver], "report_file": f"{minor}.md"}},
        ]
        variables = connection(exporter) | {"ansible_python_interpreter": interpreter}
        plays.append({"hosts": "localhost", "gather_facts": False, "vars": variables, "tasks": tasks})
    run = ansible.playbook(plays)
    assert run.ok, run.output
    for minor in tried:
        assert {path.suffix for path in ansible.folder.glob(f"{minor}.*")} == {".xml", ".json", ".md"}
