"""Every example in the collection's documentation runs, against the real exporter and the simulator."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from dataclasses import fields
from typing import TYPE_CHECKING, Any, Self

import pytest
import requests
import yaml
from tests.harness.ansible import COLLECTION, Ansible, virtual_environments
from tests.harness.daemons import Program
from tests.harness.page_blocks import ROOT, block, blocks, checkout
from tests.harness.process import CONFIG, Exporter
from tests.harness.prometheus import free_port
from tests.harness.waiting import eventually

from patrolserver_exporter.config.schema import Config
from patrolserver_exporter.simulator.options import SimulatorOptions
from patrolserver_exporter.simulator.server import Simulator

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SERVERS = ["web1.example.org", "old.example.org", "a.shop.example.org"]
PLUGINS = [
    (kind, path.stem)
    for kind, folder in (("module", "modules"), ("lookup", "lookup"), ("test", "test"), ("filter", "filter"))
    for path in sorted((COLLECTION / "plugins" / folder).iterdir())
    if path.suffix == (".yml" if kind in {"test", "filter"} else ".py")
]
BEFORE = [
    {"patrolserver.monitoring.issues_info": {}, "register": "found"},
    {"patrolserver.monitoring.gate": {"servers": ["*"], "mode": "report", "on_unknown": "warn"}, "register": "verdict"},
]


@pytest.fixture(scope="module")
def simulator() -> Iterator[Simulator]:
    with Simulator(SimulatorOptions(listen_address="127.0.0.1:0", servers=1, software=4)) as running:
        for name in SERVERS:
            # Nothing but fine software, so that a gate in an example has no reason to fail.
            body = {
                "name": name,
                "software": [{"id": 1, "name": "X", "canonical_name": "x", "version": "1", "supported": "yes"}],
            }
            assert requests.post(f"{running.base_url}/-/simulator/servers", json=body, timeout=10).ok
        yield running


@pytest.fixture(scope="module")
def exporter(tmp_path_factory: pytest.TempPathFactory, simulator: Simulator) -> Iterator[Exporter]:
    with Exporter.watching(tmp_path_factory.mktemp("exporter"), simulator.base_url, interval="10m") as running:
        eventually(
            lambda: len(running.samples("patrolserver_server_last_poll_timestamp_seconds")) == len(SERVERS) + 1,
            what="the first polls",
        )
        yield running


@pytest.fixture(scope="module")
def ansible(tmp_path_factory: pytest.TempPathFactory) -> Ansible:
    made = Ansible(virtual_environments() / "core" / "bin", tmp_path_factory.mktemp("ansible") / "controller")
    made.inventory({SERVERS[0]: {}})
    (made.folder / "deploy.yml").write_text("- ansible.builtin.debug:\n    msg: deployed\n")
    return made


@pytest.fixture(scope="module")
def examples(ansible: Ansible) -> dict[tuple[str, str], str]:
    """The examples by kind and name, read as ``ansible-doc`` reads them, paths moved into the test's folder."""
    found = {}
    for kind in sorted({kind for kind, _ in PLUGINS} | {"inventory"}):
        listed = ansible.run("ansible-doc", "-t", kind, "--metadata-dump", "patrolserver.monitoring")
        for name, doc in json.loads(listed.output[listed.output.index("{") :])["all"][kind].items():
            found[kind, name.removeprefix("patrolserver.monitoring.")] = doc["examples"].replace(
                "/var/lib/deploy", str(ansible.folder)
            )
    return found


@pytest.fixture(scope="module")
def package_facts(ansible: Ansible) -> None:
    """Ansible can read this machine's packages, which on Debian takes python3-apt."""
    play = {"hosts": SERVERS[0], "gather_facts": False, "tasks": [{"ansible.builtin.package_facts": {}}]}
    if not ansible.playbook([play], f"--inventory={ansible.folder / 'hosts.yml'}").ok:
        pytest.skip("ansible.builtin.package_facts cannot read this machine's packages; on Debian: python3-apt")


@pytest.mark.parametrize(("kind", "name"), PLUGINS, ids=str)
def test_an_example_runs(  # noqa: PLR0917  # Fixtures are arguments.
    kind: str,
    name: str,
    ansible: Ansible,
    exporter: Exporter,
    simulator: Simulator,
    examples: dict[tuple[str, str], str],
    request: pytest.FixtureRequest,
) -> None:
    """As it stands in the documentation, with the connection in ``module_defaults`` and variables."""
    if "ansible.builtin.package_facts:" in examples[kind, name]:
        request.getfixturevalue("package_facts")
    tasks = yaml.safe_load(examples[kind, name])
    assert tasks
    play: dict[str, Any] = {
        "hosts": SERVERS[0],
        "gather_facts": False,
        "vars": {
            "patrolserver_exporter_url": exporter.url,
            "patrolserver_exporter_token": exporter.operator["Authorization"].removeprefix("Bearer "),
            **({"ansible_facts": {"packages": {}}} if kind == "filter" else {}),
        },
        "module_defaults": {
            "group/patrolserver.monitoring.exporter": {"exporter_url": exporter.url},
            "group/patrolserver.monitoring.api": {
                "api_url": simulator.base_url,
                "api_key": "demo",
                "api_secret": "demo",
            },
            "patrolserver.monitoring.scan": {"poll_interval": "200ms"},
        },
        "tasks": [*(BEFORE if kind in {"test", "filter"} else []), *tasks],
    }
    run = ansible.playbook([play], f"--inventory={ansible.folder / 'hosts.yml'}")
    assert run.ok, run.output


def test_the_example_of_the_inventory_is_one(
    ansible: Ansible, exporter: Exporter, examples: dict[tuple[str, str], str]
) -> None:
    """It lists the servers that the exporter knows, each called by the first part of its name, grouped as it says."""
    source = ansible.folder / "servers.patrolserver.yml"
    source.write_text(examples["inventory", "servers"].replace("https://exporter.example.org", exporter.url))
    environ = dict(ansible.environ)
    ansible.environ["ANSIBLE_INVENTORY_ANY_UNPARSED_IS_FAILED"] = "true"
    try:
        run = ansible.run("ansible-inventory", "-i", str(source), "--graph")
    finally:
        ansible.environ = environ
    assert run.ok, run.output
    hosts = {name.partition(".")[0] for name in (SERVERS[0], SERVERS[2])}
    assert {name for name in (*hosts, "@account_main") if f"--{name}\n" not in run.output.replace(":", "")} == set()


def test_the_pages_wait_for_a_scan_can_be_checked(ansible: Ansible, exporter: Exporter, simulator: Simulator) -> None:
    """docs/ansible.md: with --check no scan is started, and none that nobody started is waited for."""
    (example,) = (one.text for one in blocks(ROOT / "docs" / "ansible.md") if one.text.startswith("- name: Scan\n"))
    connection = {"exporter_url": exporter.url}
    api = {"api_url": simulator.base_url, "api_key": "demo", "api_secret": "demo"}
    defaults = {"group/patrolserver.monitoring.exporter": connection, "group/patrolserver.monitoring.api": api}
    told = {"ansible.builtin.debug": {"msg": "{{ scanned.state }}"}}
    tasks = [*yaml.safe_load(example), told]
    play = {"hosts": SERVERS[0], "gather_facts": False, "module_defaults": defaults, "tasks": tasks}
    run = ansible.playbook([play], "--check", f"--inventory={ansible.folder / 'hosts.yml'}")
    assert run.ok, run.output
    assert "would_start" in run.output


@pytest.mark.parametrize(
    ("name", "is_read"), [("a.patrolserver.yml", True), ("patrolserver.yaml", True), ("servers.yml", False)]
)
def test_the_page_says_how_an_inventorys_file_has_to_be_called(
    ansible: Ansible, exporter: Exporter, name: str, *, is_read: bool
) -> None:
    """Ansible reads a file of one of the page's two endings, and no other, with this plugin."""
    page = (ROOT / "docs" / "ansible.md").read_text()
    assert "The file's name has to end in `patrolserver.yml` or `patrolserver.yaml`" in page
    source = ansible.folder / name
    source.write_text(json.dumps({"plugin": "patrolserver.monitoring.servers", "exporter_url": exporter.url}))
    run = ansible.run("ansible-inventory", "-i", str(source), "--graph")
    source.unlink()
    assert (f"--{SERVERS[0]}\n" in run.output) is is_read, run.output


ANSIBLES_OWN = {
    "strict": True,
    "use_extra_vars": False,
    "leading_separator": True,
    "compose": {},
    "groups": {},
    "keyed_groups": [],
    "cache": False,
    "cache_plugin": "ansible.builtin.memory",
    "cache_timeout": 60,
    "cache_prefix": "p",
    "cache_connection": "c",
}


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ({"severty": ["critical"]}, "there is no option 'severty'; did you mean severity?"),
        ({"server": ["web*"]}, "there is no option 'server'; did you mean servers?"),
        ({"max_aeg": "24h"}, "there is no option 'max_aeg'; did you mean max_age?"),
        ({"zzz": 1}, "there is no option 'zzz'; there are account, "),
        (ANSIBLES_OWN, ""),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else None,
)
def test_an_inventory_refuses_an_option_that_there_is_none_of(
    ansible: Ansible, exporter: Exporter, more: dict[str, Any], told: str
) -> None:
    """A mistyped filter would choose every server; what all inventories of Ansible can have is taken."""
    source = ansible.folder / "mistyped.patrolserver.yml"
    source.write_text(json.dumps({"plugin": "patrolserver.monitoring.servers", "exporter_url": exporter.url, **more}))
    run = ansible.run("ansible-inventory", "-i", str(source), "--graph")
    assert told in re.sub(r"\s+", " ", run.output)
    assert (SERVERS[0] in run.output) is not bool(told), run.output


def test_the_pages_inventory_limits_a_playbook_by_labels(ansible: Ansible, tmp_path: Path) -> None:
    """docs/ansible.md: its labels, its inventory and its command reach the one host that has both groups."""
    page = [one.text for one in blocks(ROOT / "docs" / "ansible.md")]
    (labelled,) = (text for text in page if text.startswith("# patrolserver.yml of the exporter\n"))
    (source,) = (text for text in page if text.startswith("# servers.patrolserver.yml\n"))
    labels = json.dumps(yaml.safe_load(labelled)["accounts"][0]["labels"])
    both = "web-02.staging.example.org"
    with Simulator(SimulatorOptions(listen_address="127.0.0.1:0", servers=3, software=2)) as simulator:
        url = simulator.base_url
        assert requests.post(f"{url}/-/simulator/servers", json={"name": both, "software": []}, timeout=10).ok
        config = CONFIG.format(api_url=url, interval="10m", settle="1s", store_url=f"sqlite:///{tmp_path / 'state.db'}")
        config = config.replace("    webhook_tokens", f"    labels: {labels}\n    webhook_tokens")
        with Exporter(tmp_path, config) as exporter:
            eventually(lambda: len(exporter.samples("patrolserver_server_info")) == 4, what="the first list")
            inventory = ansible.folder / "servers.patrolserver.yml"
            inventory.write_text(source.replace("https://exporter.example.org", exporter.url))
            tells = [{"ansible.builtin.debug": {"msg": "{{ patrolserver_name }} is reached"}}]
            play = {"hosts": "all", "gather_facts": False, "tasks": tells}
            (ansible.folder / "site.yml").write_text(json.dumps([play]))
            run = ansible.run(*shlex.split(block("limit a playbook by labels").commands))
    assert run.ok, run.output
    assert re.findall(r"(\S+) is reached", run.output.replace('"', " ")) == [both]


class Demo(Program):
    """What the collection's README begins with, in a checkout and a virtual environment of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = checkout(folder / "checkout")
        self.url = f"http://127.0.0.1:{free_port()}"
        venv = folder / "venv"
        subprocess.run([sys.executable, "-m", "venv", str(venv)], check=True, timeout=300)
        self.environ = {"PATH": f"{venv}/bin:{os.environ['PATH']}", "HOME": str(folder), "LC_ALL": "C.UTF-8"}

    def __enter__(self) -> Self:
        before, _, command = block("install and start the demo").commands.rstrip().removesuffix(" &").rpartition("\n")
        assert command == "patrolserver-exporter demo"
        text = f"{before}\nexec {command} --web.listen-address={self.url.removeprefix('http://')}"
        log = self.folder / "demo.log"
        self.launch(["bash", "-e", "-c", text], log_file=log, folder=self.folder, environ=self.environ)
        self.await_start(lambda: self._is_known() or (self.has_ended and pytest.fail(log.read_text())), within=300)
        return self

    def _is_known(self) -> bool:
        try:
            servers = requests.get(f"{self.url}/api/v1/servers", timeout=5).json()["items"]
        except requests.ConnectionError:
            return False
        return bool(servers) and all(server["last_poll_at"] for server in servers)

    def types(self, name: str) -> str:
        """Run a block; what it printed."""
        command = ["bash", "-e", "-c", block(name).commands]
        done = subprocess.run(
            command, cwd=self.folder, env=self.environ, capture_output=True, text=True, timeout=120, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def __exit__(self, *_: object) -> None:
        self.stop()


@pytest.mark.timeout(900)
def test_the_readme_from_nothing_to_a_verdict(tmp_path: Path) -> None:
    """The exporter, Ansible and the collection are installed, and the demo's fleet is judged."""
    (example,) = (one.text for one in blocks(COLLECTION / "README.md") if "- name: Try the gate\n" in one.text)
    with Demo(tmp_path) as demo:
        (demo.folder / "try.yml").write_text(example.replace("http://127.0.0.1:10058", demo.url))
        printed = demo.types("try the gate")
    assert "The gate failed" in printed
    assert "max_by_severity." in printed


def test_the_role_names_every_section_that_its_settings_can_have() -> None:
    """Accounts and the API's tokens are variables of their own."""
    specs = yaml.safe_load((COLLECTION / "roles" / "exporter" / "meta" / "argument_specs.yml").read_text())
    told = specs["argument_specs"]["main"]["options"]["exporter_settings"]["description"]
    assert re.findall(r"C\((\w+)\)", told) == [
        one.name for one in fields(Config) if one.name not in {"accounts", "api"}
    ]


def test_the_role_installs_the_packaged_unit() -> None:
    """One unit for all ways of installing; what is a host's stands in a drop-in."""
    name = "patrolserver-exporter.service"
    packaged = COLLECTION.parent / "packaging" / name
    assert (COLLECTION / "roles" / "exporter" / "files" / name).read_bytes() == packaged.read_bytes()
