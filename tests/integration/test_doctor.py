"""``doctor``: each thing that can be wrong is found, said in plain words, and ends in the exit code."""

from __future__ import annotations

import json
import os
import re
import resource
import socket
import subprocess
import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
import requests
import trustme
from tests.harness.faketime import faked_clock
from tests.harness.fleet import total, wait_for_polls
from tests.harness.process import CONFIG, TOKEN, Exporter
from tests.harness.prometheus import free_port
from tests.harness.rawapi import RawApi
from tests.harness.waiting import eventually

from patrolserver_exporter.app.checkup import check_up
from patrolserver_exporter.config.schema import Account, Config
from patrolserver_exporter.config.schema import Store as StoreSettings
from patrolserver_exporter.config.secret import Secret
from patrolserver_exporter.simulator.faults import Fault, FaultKind
from patrolserver_exporter.simulator.options import SimulatorOptions
from patrolserver_exporter.simulator.server import Simulator
from patrolserver_exporter.store import Store

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.harness.postgres import PostgresCluster

ONE_SERVER = {"data": [{"id": 1, "name": "a"}]}
Findings = dict[str, list[dict[str, str]]]


@pytest.fixture
def simulator() -> Iterator[Simulator]:
    with Simulator(SimulatorOptions(listen_address="127.0.0.1:0", servers=3, software=4)) as running:
        yield running


def doctor(config: Path, *flags: str, form: str = "json") -> subprocess.CompletedProcess[str]:
    """Run it as an operator does, from the configuration's folder."""
    command = [sys.executable, "-m", "patrolserver_exporter", "doctor", f"--config.file={config}", f"--format={form}"]
    environ = {name: value for name, value in os.environ.items() if not name.startswith("PATROLSERVER")}
    return subprocess.run(
        [*command, *flags], capture_output=True, text=True, timeout=90, check=False, env=environ, cwd=config.parent
    )


def findings(ended: subprocess.CompletedProcess[str]) -> Findings:
    """What it found, by what it looked at."""
    assert ended.stderr == ""
    found: Findings = {}
    for finding in json.loads(ended.stdout):
        found.setdefault(finding["check"], []).append(finding)
    return found


def write(folder: Path, api_url: str, store_url: str = "") -> Path:
    config = folder / "patrolserver.yml"
    config.touch(mode=0o600)
    text = CONFIG.format(
        api_url=api_url, interval="10m", settle="1s", store_url=store_url or f"sqlite:///{folder / 'state.db'}"
    )
    config.write_text(text)
    return config


def grades(found: Findings) -> dict[str, set[str]]:
    return {check: {finding["grade"] for finding in some} for check, some in found.items()}


def test_a_machine_on_which_all_is_well(tmp_path: Path, simulator: Simulator) -> None:
    """A list call, a poll, the clock, the store, the running exporter, its limits, the webhook; exit code 0."""
    with Exporter.watching(tmp_path, simulator.base_url, interval="5s") as exporter:
        wait_for_polls(exporter, 3)
        assert exporter.process is not None
        ended = doctor(exporter.config_file, f"--web.external-url={exporter.url}")
        resource.prlimit(exporter.process.pid, resource.RLIMIT_NOFILE, (512, 512))
        limited = findings(doctor(exporter.config_file))["limits"][0]
        metrics, stored = exporter.metrics(), exporter.get("/api/v1/inbox", headers=exporter.operator).json()["items"]
    assert ended.returncode == 0, ended.stdout
    found = findings(ended)
    assert set(found) == {
        "configuration",
        "account main",
        "clock",
        "store",
        "exporter",
        "limits",
        "webhook main",
    }
    assert all(grade == {"ok"} for grade in grades(found).values()), ended.stdout
    assert f"process {exporter.process.pid} may open" in found["limits"][0]["found"]
    assert (limited["grade"], "may open 512 files" in limited["found"]) == ("warning", True)
    assert "LimitNOFILE=" in limited["do"]
    assert "3 servers are listed" in found["account main"][0]["found"]
    assert "a second exporter on it ends with exit code 3" in found["store"][0]["found"]
    assert stored == [], "the made-up delivery was kept"
    assert total(metrics, "patrolserver_exporter_webhook_deliveries_total") == 0


def test_a_machine_without_a_running_exporter(tmp_path: Path, simulator: Simulator) -> None:
    """What cannot be looked at is said to be skipped, and is no trouble."""
    ended = doctor(write(tmp_path, simulator.base_url))
    assert ended.returncode == 0, ended.stdout
    assert grades(findings(ended))["exporter"] == {"skipped"}
    assert grades(findings(ended))["webhook main"] == {"skipped"}
    assert not (tmp_path / "state.db").exists(), "it began a state"


def test_a_table_for_people(tmp_path: Path, simulator: Simulator) -> None:
    """One line a finding, the grade first, what to do behind it, the sum at the end."""
    simulator.faults.add(Fault(kind=FaultKind.STATUS, status=401))
    ended = doctor(write(tmp_path, simulator.base_url), form="table")
    assert ended.returncode == 1
    lines = ended.stdout.splitlines()
    assert lines[0].startswith("ok        configuration  it is sound")
    assert any(line.startswith("trouble   account main") for line in lines)
    assert "check this account's key and secret" in " ".join(ended.stdout.split())
    assert lines[-1] == "1 thing is in trouble."


def test_a_wrong_configuration_ends_with_2(tmp_path: Path) -> None:
    """Each mistake with its place."""
    config = tmp_path / "patrolserver.yml"
    config.write_text("accounts: [{name: main, kee: k}]\npoll: {interval: never}\n")
    ended = doctor(config)
    assert ended.returncode == 2
    mistakes = [finding["found"] for finding in findings(ended)["configuration"]]
    assert any("kee" in mistake for mistake in mistakes)
    assert any("poll.interval" in mistake for mistake in mistakes)


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        ({"kind": FaultKind.STATUS, "status": 500}, "500"),
        ({"kind": FaultKind.STATUS, "status": 500, "path": "servers/*/software"}, "500"),
        ({"kind": FaultKind.HTML}, ""),
        ({"kind": FaultKind.REDIRECT, "location": "http://192.0.2.1/"}, "redirect"),
    ],
    ids=["list", "software", "html", "redirect"],
)
def test_an_api_that_fails(tmp_path: Path, simulator: Simulator, fault: dict[str, Any], says: str) -> None:
    """A failing list or poll is a trouble of the account."""
    simulator.faults.add(Fault(**fault))
    ended = doctor(write(tmp_path, simulator.base_url))
    assert ended.returncode == 1
    account = findings(ended)["account main"][-1]
    assert account["grade"] == "trouble"
    assert says in account["found"]


def test_an_account_that_cannot_be_reached(tmp_path: Path) -> None:
    """Nothing answers at its URL: said with what to check."""
    ended = doctor(write(tmp_path, f"http://127.0.0.1:{free_port()}"))
    assert ended.returncode == 1
    assert "api_url" in findings(ended)["account main"][0]["do"]


@pytest.mark.parametrize(
    ("replies", "grade", "says"),
    [
        ({"/servers": {"data": []}}, "warning", "0 servers"),
        ({"/servers": {"data": [{"id": 1, "name": "a"}], "meta": {"total": 9}}}, "trouble", "not whole"),
        (
            {"/servers": {"data": [{"id": 1, "name": "a"}]}, "/servers/1/software": {"data": []}},
            "warning",
            "0 software",
        ),
    ],
    ids=["no servers", "a part of the list", "no software"],
)
def test_what_nobody_can_vouch_for_is_never_ok(
    tmp_path: Path, replies: dict[str, object], grade: str, says: str
) -> None:
    """An empty list, a part of one, a server without software: not fine."""
    answers = {path: json.dumps(reply).encode() for path, reply in replies.items()}
    with RawApi(answers) as api:
        found = findings(doctor(write(tmp_path, api.base_url)))["account main"]
    assert any(one["grade"] == grade and says in one["found"] for one in found), found


def test_a_folder_that_is_missing(tmp_path: Path, simulator: Simulator) -> None:
    """Told before the service would end with it."""
    ended = doctor(write(tmp_path, simulator.base_url, f"sqlite:///{tmp_path}/none/state.db"))
    assert ended.returncode == 1
    assert "does not exist" in findings(ended)["store"][0]["found"]


def test_a_database(tmp_path: Path, simulator: Simulator, postgres: PostgresCluster) -> None:
    """PostgreSQL is asked for its version; one that is away is a trouble, without its password."""
    url = postgres.create_database()
    ended = doctor(write(tmp_path, simulator.base_url, url))
    assert grades(findings(ended))["store"] == {"ok"}
    postgres.drop_database(url)
    away = f"postgresql+psycopg://ops:s3cr3t-canary@127.0.0.1:{free_port()}/state"
    ended = doctor(write(tmp_path, simulator.base_url, away))
    assert grades(findings(ended))["store"] == {"trouble"}
    assert "s3cr3t-canary" not in ended.stdout


def test_a_database_on_which_no_exporter_would_start(
    tmp_path: Path, simulator: Simulator, postgres: PostgresCluster
) -> None:
    """Its user has no rights; a newer version migrated it; its state was copied away. It answers all the same."""
    url = postgres.create_database()
    Store(url).close()
    config, asks = write(tmp_path, simulator.base_url, url), url.replace("+psycopg", "")
    (sound,) = findings(doctor(config))["store"]
    assert sound["grade"] == "ok"
    assert "how much room its disk has cannot be seen from here" in sound["found"]

    def told(statement: str) -> str:
        with psycopg.connect(asks, autocommit=True) as connection:
            connection.execute(statement.encode())
        (store,) = findings(doctor(config))["store"]
        assert store["grade"] == "trouble"
        return f"{store['found']} {store['do']}"

    assert "was copied to postgresql://elsewhere" in told("UPDATE feed SET moved_to = 'postgresql://elsewhere'")
    assert "written by a newer patrolserver-exporter" in told("UPDATE alembic_version SET version_num = '9999'")
    postgres.execute("CREATE ROLE onlooker LOGIN")
    config = write(tmp_path, simulator.base_url, re.sub("//[^@]*@", "//onlooker@", url))
    said = told("GRANT SELECT ON ALL TABLES IN SCHEMA public TO onlooker")
    assert "its user may not INSERT" in said
    assert "make the exporter's user the owner" in said
    postgres.drop_database(url)


def test_an_installation_as_the_pages_have_it(
    tmp_path: Path, simulator: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Credentials of systemd beside the configuration, and a state in the unit's folder: from wherever root looks."""
    etc, state, home = (tmp_path / name for name in ("etc", "state", "home"))
    for folder in (etc / "credentials", state, home):
        folder.mkdir(parents=True)
    for name in ("key", "secret"):
        (etc / "credentials" / name).write_text("demo\n")
    key, secret = (f'{name}: !file "${{CREDENTIALS_DIRECTORY}}/{name}"' for name in ("key", "secret"))
    config = etc / "patrolserver.yml"
    config.write_text(f"accounts:\n  - api_url: {simulator.base_url}\n    {key}\n    {secret}\n")
    (state / "patrolserver.db").write_text("no database\n")
    monkeypatch.setenv("STATE_DIRECTORY", str(state))
    monkeypatch.chdir(home)
    command = [sys.executable, "-m", "patrolserver_exporter", "doctor", f"--config.file={config}", "--format=json"]
    found = findings(subprocess.run(command, capture_output=True, text=True, timeout=90, check=False))
    assert grades(found)["account default"] == {"ok"}
    assert found["store"][0]["grade"] == "trouble"
    assert f"{state}/patrolserver.db is damaged" in found["store"][0]["found"]


@pytest.mark.parametrize(
    ("options", "says"), [("size=2m", "make room"), ("size=400m,ro", "can only be read")], ids=["full", "read-only"]
)
def test_a_disk_that_takes_nothing(tmp_path: Path, simulator: Simulator, options: str, says: str) -> None:
    """With next to no room, or mounted to be read: also for root, who may write anything else."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(disk)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("nothing may be mounted here")
    try:
        (store,) = findings(doctor(write(tmp_path, simulator.base_url, f"sqlite:///{disk}/state.db")))["store"]
    finally:
        subprocess.run(["umount", str(disk)], check=True)
    assert store["grade"] == "trouble"
    assert says in f"{store['found']} {store['do']}"


@pytest.mark.parametrize(("offset", "grade"), [(7200.0, "trouble"), (-20.0, "warning")])
def test_a_clock_that_is_off(
    tmp_path: Path, simulator: Simulator, monkeypatch: pytest.MonkeyPatch, offset: float, grade: str
) -> None:
    """Against the API's Date: by how much, and in which direction."""
    if (clock := faked_clock(tmp_path)) is None:
        pytest.skip("libfaketime is not installed")
    clock.set(offset)
    for name, value in clock.environ.items():
        monkeypatch.setenv(name, value)
    (found,) = findings(doctor(write(tmp_path, simulator.base_url)))["clock"]
    assert found["grade"] == grade
    assert ("ahead of" if offset > 0 else "behind") in found["found"]
    assert "NTP" in found["do"]


def test_a_folder_that_systemd_makes(tmp_path: Path, simulator: Simulator, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before the first start it is not there yet: that is as it should be, and said."""
    state = tmp_path / "state"
    config = write(tmp_path, simulator.base_url, f"sqlite:///{state}/state.db")
    assert grades(findings(doctor(config)))["store"] == {"trouble"}
    monkeypatch.setenv("STATE_DIRECTORY", f"/elsewhere:{state}")
    (store,) = findings(doctor(config))["store"]
    assert store["grade"] == "ok"
    assert "systemd makes" in store["found"]


def test_who_works_on_a_database(tmp_path: Path, simulator: Simulator, postgres: PostgresCluster) -> None:
    """Nobody yet; then the one whose lease holds, named with its process; one that was killed, once it is late."""
    url = postgres.create_database()
    config = write(tmp_path, simulator.base_url, url)
    (nobody,) = findings(doctor(config))["replicas"]
    assert (nobody["grade"], nobody["found"]) == ("ok", "no exporter has used this database yet")
    (tmp_path / "running").mkdir()
    with Exporter.watching(tmp_path / "running", simulator.base_url, store_url=url) as exporter:
        assert exporter.process is not None
        named = f"process {exporter.process.pid} on host"
        looked = findings(doctor(exporter.config_file))
        assert f"process {exporter.process.pid} may open" in looked["limits"][0]["found"]
        held = looked["replicas"]
        assert {one["grade"] for one in held} == {"ok"}
        assert all(named in one["found"] for one in held)
        assert {one["found"].partition(" is held")[0] for one in held} == {"account main", "what belongs to no account"}
        assert all("a second exporter on this database shares the work" in one["do"] for one in held)
        exporter.kill()

        def late() -> Any:
            return [one for one in findings(doctor(config)).get("replicas", []) if one["grade"] == "warning"]

        told = eventually(late, within=60)
        assert all(named in one["found"] and "ran out" in one["found"] for one in told)
    postgres.drop_database(url)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ("another token", "does not know this token"),
        ("another network", "allowed_networks"),
        ("another path", "prefix"),
        ("nobody there", "/webhook/*** leads nowhere: nothing answers there"),
        ("something else", "something else answers"),
        ("no TLS", "does not speak TLS"),
    ],
)
def test_a_webhook_url_that_leads_astray(tmp_path: Path, simulator: Simulator, change: str, says: str) -> None:
    """Each way in which a delivery would not arrive has its own sentence."""
    with Exporter.watching(tmp_path, simulator.base_url) as exporter:
        url = exporter.url
        if change == "another token":
            exporter.write_config(exporter.config_file.read_text().replace(TOKEN, "other-token-0123456789"))
        elif change == "another network":
            text = exporter.config_file.read_text()
            exporter.write_config(text.replace("webhook: {", "webhook: {allowed_networks: [192.0.2.0/24], "))
            reload = requests.post(f"{url}/-/reload", headers=exporter.operator, timeout=20)
            assert reload.status_code == 200
        elif change == "another path":
            url += "/prefix"
        elif change == "no TLS":
            url = url.replace("http://", "https://")
        elif change == "nobody there":
            url = f"http://127.0.0.1:{free_port()}"
        else:
            url = simulator.base_url
        ended = doctor(exporter.config_file, f"--web.external-url={url}")
    assert ended.returncode == 1
    (finding,) = findings(ended)["webhook main"]
    assert finding["grade"] == "trouble"
    assert says in f"{finding['found']} {finding['do']}"
    assert TOKEN not in ended.stdout


def test_an_exporter_that_asks_for_certificates(tmp_path: Path, simulator: Simulator) -> None:
    """It is not called dead; PatrolServer has no certificate, and http is not spoken where TLS is."""
    authority = trustme.CA()
    leaf = authority.issue_cert("127.0.0.1", "localhost")
    leaf.private_key_pem.write_to_path(tmp_path / "s.key")
    leaf.cert_chain_pems[0].write_to_path(tmp_path / "s.pem")
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    web, keys = tmp_path / "web.yml", "cert_file: s.pem, key_file: s.key, client_ca_file: ca.pem"
    web.write_text(f"tls_server_config: {{{keys}, client_auth_type: RequireAndVerifyClientCert}}\n")
    with Exporter.watching(tmp_path, simulator.base_url, f"--web.config.file={web}") as exporter:
        plain_url = exporter.url.replace("https://", "http://")
        flags = (f"--web.config.file={web}", f"--ca-file={tmp_path / 'ca.pem'}")
        over_tls = findings(doctor(exporter.config_file, *flags, f"--web.external-url={exporter.url}"))
        plain = findings(doctor(exporter.config_file, *flags, f"--web.external-url={plain_url}"))
    assert over_tls["web configuration"][0]["found"] == "it is sound: TLS, no users"
    assert grades(over_tls)["exporter"] == {"skipped"}
    assert "takes nobody without a certificate" in over_tls["exporter"][0]["found"]
    assert "asks for a certificate of the client" in over_tls["webhook main"][0]["found"]
    assert "write https://" in plain["webhook main"][0]["do"]


def test_an_exporter_that_has_ended(tmp_path: Path, simulator: Simulator) -> None:
    """Its token file is left, and nobody answers."""
    with Exporter.watching(tmp_path, simulator.base_url) as exporter:
        exporter.kill()
        ended = doctor(exporter.config_file)
    assert grades(findings(ended))["exporter"] == {"warning"}


@pytest.mark.parametrize("by_proxy", [False, True])
def test_a_connection_that_fails_is_told_with_its_address(tmp_path: Path, by_proxy: bool) -> None:  # noqa: FBT001
    """Which host and port was tried, also of a proxy, and never a password."""
    secret = Secret.literal("token-0123456789")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        closed = f"127.0.0.1:{listener.getsockname()[1]}"
    account = Account(key=secret, secret=secret, api_url="https://api.example" if by_proxy else f"http://{closed}")
    if by_proxy:
        account = replace(account, proxy_url=Secret.literal(f"http://user:canary@{closed}"))
    config = Config(accounts=(account,), store=StoreSettings(url=f"sqlite:///{tmp_path / 'state.db'}"))
    found = {one.check: one for one in check_up(config, external_url="", ca_file=None, environ={})}["account default"]
    assert found.found.startswith(f"api.example:443 through the proxy {closed}: " if by_proxy else f"{closed}: ")
    assert "onnection refused" in found.found
    assert "canary" not in found.found + found.do
