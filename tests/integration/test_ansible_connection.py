"""One way to connect: TLS, a user and a proxy for modules and lookup, from variables and the environment."""

from __future__ import annotations

import base64
import json
import socket
import threading
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import bcrypt
import pytest
import requests
import trustme
from tests.harness.ansible import Ansible, virtual_environments
from tests.harness.process import Exporter
from tests.harness.waiting import eventually

from patrolserver_exporter.simulator.options import SimulatorOptions
from patrolserver_exporter.simulator.server import Simulator

if TYPE_CHECKING:
    from collections.abc import Iterator

SERVERS = 2
USER, PASSWORD = "deploy", "canary pass/word+ü"
BASIC = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
PROXY_USER, PROXY_PASSWORD = "proxy", "canary%2Fproxy"
TARGETS = range(8, 14)


class Proxy:
    """A proxy that asks for credentials, and keeps what it is asked to connect to."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self.asked: list[str] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        """Take no more connections."""
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        head = b""
        while b"\r\n\r\n" not in head and (data := client.recv(65536)):
            head += data
        lines = head.decode().split("\r\n")
        self.asked.append(lines[0])
        pair = base64.b64encode(f"{PROXY_USER}:canary/proxy".encode()).decode()
        if f"Proxy-Authorization: Basic {pair}" not in (line.title().replace(pair.title(), pair) for line in lines):
            client.sendall(b"HTTP/1.1 407 No\r\nContent-Length: 0\r\n\r\n")
            client.close()
            return
        host, _, port = lines[0].split()[1].partition(":")
        server = socket.create_connection((host, int(port)))
        client.sendall(b"HTTP/1.1 200 Yes\r\n\r\n")
        threading.Thread(target=self._pass, args=(server, client), daemon=True).start()
        self._pass(client, server)

    def _pass(self, source: socket.socket, target: socket.socket) -> None:
        try:
            while data := source.recv(65536):
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)
        except OSError:
            return


@contextmanager
def proxy() -> Iterator[Proxy]:
    made = Proxy()
    yield made
    made.close()


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
    with proxy() as there:
        url = f"http://{PROXY_USER}:{PROXY_PASSWORD}@{there.address}"
        run = ansible.playbook(play(**connection(exporter), patrolserver_exporter_proxy_url=url), "-vvvv")
        assert run.ok, run.output
        assert len(there.asked) >= 3
        assert {line.split()[1] for line in there.asked} == {exporter.url.removeprefix("https://")}
        wrong = url.replace(PROXY_PASSWORD, "canary-wrong")
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


def interpreters() -> list[str]:
    """The Pythons of this machine on which modules may run."""
    found = []
    for minor in TARGETS:
        places = [Path(f"/usr/bin/python3.{minor}"), *Path.home().glob(f".pyenv/versions/3.{minor}.*/bin/python3")]
        found += [str(place) for place in places if place.exists()][:1]
    return found


def test_modules_run_on_each_python_of_a_target(ansible: Ansible, exporter: Exporter) -> None:
    """From 3.8 to 3.13, those that this machine has."""
    found = interpreters()
    assert found
    plays = [
        {**play(**connection(exporter), ansible_python_interpreter=interpreter)[0], "name": interpreter}
        for interpreter in found
    ]
    run = ansible.playbook(plays)
    assert run.ok, run.output
    assert all(f"PLAY [{interpreter}]" in run.output for interpreter in found)
