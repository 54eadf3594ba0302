"""The container file: built on a Debian, and run with a root that is only read, by a user who may do nothing else.

The pages' commands for containers run as they stand there, by podman.
"""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import pytest
import requests
import yaml
from tests.harness.container import BASE, Container, Engine, Images
from tests.harness.daemons import Program
from tests.harness.page_blocks import block, checkout
from tests.harness.prometheus import free_port
from tests.harness.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = [pytest.mark.timeout(900), pytest.mark.turn(2)]

ROOT = Path(__file__).parents[2]
CONTAINERFILE = ROOT / "packaging" / "Containerfile"
COMPOSE = ROOT / "packaging" / "compose.yml"
IMAGE = "localhost/patrolserver-exporter"
MIB = 2**20
STATE, TEMPORARY = "/var/lib/patrolserver-exporter", "/tmp"  # noqa: S108  # In the container.


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Images]:
    built = Images(tmp_path_factory.mktemp("images"))
    built.build(IMAGE, CONTAINERFILE, ROOT, BASE=BASE, REVISION="0123abc")
    yield built
    built.remove()


@pytest.fixture(scope="module")
def engine(images: Images) -> Iterator[Engine]:
    made = Engine(images)
    yield made
    made.remove()


@pytest.fixture(scope="module")
def container(images: Images) -> Container:
    return Container(images, IMAGE)


def run(container: Container, *command: str, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        container.inside(*command, **environ), capture_output=True, text=True, timeout=60, check=False
    )


def test_the_image_says_how_it_is_run(container: Container) -> None:
    """A user with a number, which Kubernetes asks for, the state as a volume, port, health check and commit."""
    assert container.image["User"] == "65532:65532"
    assert list(container.image["Volumes"]) == [STATE]
    assert container.image["WorkingDir"] == STATE
    assert list(container.image["ExposedPorts"]) == ["10058/tcp"]
    assert container.image["Healthcheck"]["Test"][0] == "CMD"
    assert container.image["Labels"]["org.opencontainers.image.revision"] == "0123abc"


def test_it_is_small_and_has_only_what_runs(container: Container) -> None:
    """Less than 100 MiB beside the base; nothing that installs, no tests, no checkout."""
    found = subprocess.run(["du", "-s", "--bytes", container.root / "opt"], capture_output=True, text=True, check=True)
    assert int(found.stdout.split()[0]) < 100 * MIB
    assert not list((container.root / "opt" / "venv" / "bin").glob("pip*"))
    assert not (container.root / "src").exists()
    assert not list(container.root.rglob("patrolserver-exporter.token"))


def test_nothing_of_a_checkout_gets_in_by_accident(images: Images, tmp_path: Path) -> None:
    """The build's context leaves out states, credentials and environments."""
    context = tmp_path / "context"
    for name in ("exporter/a.py", "exporter/__pycache__/a.pyc", "patrolserver.db", "key", ".venv/pyvenv.cfg", ".git/x"):
        (context / name).parent.mkdir(parents=True, exist_ok=True)
        (context / name).write_text("x")
    (context / ".dockerignore").write_text((ROOT / ".dockerignore").read_text())
    everything = tmp_path / "Containerfile"
    everything.write_text("FROM scratch\nCOPY . /\n")
    images.build("localhost/context", everything, context)
    shown = Path(images.buildah("mount", images.buildah("from", "localhost/context")))
    assert [str(path.relative_to(shown)) for path in shown.rglob("*") if path.is_file()] == ["exporter/a.py"]


def test_it_serves_is_healthy_and_writes_nothing_but_its_state(container: Container) -> None:
    """The demo as the compose file starts it; the health check of the image says yes, and no once it has ended."""
    address = f"127.0.0.1:{free_port()}"
    url = f"http://{address}"
    check = container.image["Healthcheck"]["Test"][1:]
    health = {"HEALTH_URL": f"{url}/-/healthy"}
    assert run(container, *check, **health).returncode == 1
    container.launch(container.inside(*container.image["Entrypoint"], "demo", f"--web.listen-address={address}"))
    try:
        container.await_start(lambda: _ready(url))
        assert eventually(lambda: "patrolserver_server_info{" in requests.get(f"{url}/metrics", timeout=10).text)
        assert run(container, *check, **health).returncode == 0
    finally:
        container.stop()
    assert run(container, *check, **health).returncode == 1
    refused = run(container, "touch", "/opt/venv/x", f"{STATE}/x")
    assert re.findall(r"cannot touch '(\S+)'", refused.stderr) == ["/opt/venv/x"]
    rights = run(container, "grep", "-E", "^(Uid|CapEff|CapPrm|CapAmb|NoNewPrivs):", "/proc/self/status").stdout
    assert rights.split() == [
        *("Uid:", *["65532"] * 4),
        *(part for name in ("CapPrm", "CapEff") for part in (f"{name}:", "0" * 16)),
        *("CapAmb:", "0" * 16, "NoNewPrivs:", "1"),
    ]


def _ready(url: str) -> bool:
    try:
        return requests.get(f"{url}/-/ready", timeout=5).ok
    except requests.ConnectionError:
        return False


def test_it_keeps_its_state_in_the_volume(container: Container) -> None:
    """Without a configuration file: the environment says where the account is, and the state is there afterwards."""
    environ = {"PATROLSERVER_KEY": "demo", "PATROLSERVER_SECRET": "demo"}
    environ["PATROLSERVER_API_URL"] = f"http://127.0.0.1:{free_port()}"
    ended = run(container, *container.image["Entrypoint"], "--once", **environ)
    assert ended.returncode == 1, ended.stderr
    assert 'patrolserver_up{account="default"} 0.0' in ended.stdout
    assert 'revision="0123abc"' in ended.stdout
    assert (container.state / "patrolserver.db").stat().st_uid == 65532


def test_the_manifests_run_it_as_it_was_built() -> None:
    """Compose file and Kubernetes: the same user, port and folder, a root that is only read, no other rights."""
    said = CONTAINERFILE.read_text()
    (user,) = re.findall(r"^USER (\d+):", said, re.MULTILINE)
    documents = yaml.load_all(
        (ROOT / "packaging" / "kubernetes" / "patrolserver-exporter.yml").read_text(), Loader=yaml.SafeLoader
    )
    (pod,) = [one["spec"]["template"]["spec"] for one in documents if one["kind"] == "Deployment"]
    (one,) = pod["containers"]
    assert pod["securityContext"]["runAsUser"] == int(user)
    assert one["securityContext"]["readOnlyRootFilesystem"]
    assert one["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert {mount["mountPath"] for mount in one["volumeMounts"]} >= {STATE, TEMPORARY}
    assert one["ports"][0]["containerPort"] == 10058
    service = yaml.safe_load(COMPOSE.read_text())["services"]["exporter"]
    assert (service["read_only"], service["cap_drop"], service["tmpfs"]) == (True, ["ALL"], [TEMPORARY])


class Typed(Program):
    """A block of a page whose last command goes on, typed in a checkout; each port is one that is free here."""

    def __init__(self, engine: Engine, name: str, folder: Path, *, compose_file: str = "") -> None:
        self._engine = engine
        self.checkout = checkout(folder / "checkout")
        self.urls: dict[int, str] = {}
        self._text = self._on_free_ports(block(name).commands)
        if compose_file:
            file = self.checkout / compose_file
            file.write_text(self._on_free_ports(file.read_text()))
        self._log = folder / "log"

    def _on_free_ports(self, text: str) -> str:
        def free(found: re.Match[str]) -> str:
            port = free_port()
            self.urls[int(found[1])] = f"http://127.0.0.1:{port}"
            return f"127.0.0.1:{port}:"

        return re.sub(r"127\.0\.0\.1:(\d+):", free, text)

    def __enter__(self) -> Self:
        keys = {"PATROLSERVER_KEY": "demo", "PATROLSERVER_SECRET": "demo"}
        command = ["bash", "-e", "-c", self._text]
        self.launch(command, log_file=self._log, folder=self.checkout, environ={**self._engine.environ, **keys})
        self.await_start(
            lambda: self.answers(10058, "/-/healthy") or (self.has_ended and pytest.fail(self.log)), within=400
        )
        return self

    def __exit__(self, *_: object) -> None:
        self._engine.podman("stop", "--all", "--time=10")
        self.stop()

    @property
    def log(self) -> str:
        """The end of what it printed."""
        return self._log.read_text(errors="replace")[-5000:]

    def answers(self, port: int, path: str) -> str:
        """What is served there; nothing where nobody answers."""
        try:
            answer = requests.get(f"{self.urls[port]}{path}", timeout=5)
        except requests.ConnectionError:
            return ""
        return answer.text if answer.ok else ""


def test_podman_builds_and_runs_it(engine: Engine, tmp_path: Path) -> None:
    """As the page has it: on loopback, a root that is only read, healthy, the state in the volume; it ends in peace."""
    with Typed(engine, "build and run a container", tmp_path) as typed:
        assert eventually(lambda: 'patrolserver_up{account="default"}' in typed.answers(10058, "/metrics"))
        (name,) = engine.podman("ps", "--format={{.Names}}").splitlines()
        (run,) = json.loads(engine.podman("inspect", name))
        assert run["HostConfig"]["ReadonlyRootfs"]
        assert run["EffectiveCaps"] in (None, [])
        assert run["Config"]["User"] == "65532:65532"
        engine.podman("healthcheck", "run", name)
        engine.podman("stop", "--time=10", name)
        assert typed.wait() == 0, typed.log
    volume = Path(engine.podman("volume", "inspect", "--format={{.Mountpoint}}", "patrolserver"))
    assert (volume / "patrolserver.db").stat().st_uid == 65532


GRAFANA = """\
#!/usr/bin/python3
import http.server, os
os.chdir("/")
http.server.ThreadingHTTPServer(("", 3000), http.server.SimpleHTTPRequestHandler).serve_forever()
"""
"""In Grafana's place, which is in none of Debian's packages: it shows what Grafana would read."""


@pytest.fixture
def everything(engine: Engine, tmp_path: Path, require_program: Callable[[str], str]) -> Iterator[Typed]:
    """The compose file, with Debian's Prometheus and Alertmanager in their images' places."""
    images = {one.partition(":")[0]: one for one in re.findall(r"image: (\S+)", COMPOSE.read_text())}
    (tmp_path / "grafana").write_text(GRAFANA)
    (tmp_path / "grafana").chmod(0o755)
    engine.build_program(images["docker.io/prom/prometheus"], Path(require_program("prometheus")))
    alertmanager = Path(require_program("prometheus-alertmanager"))
    engine.build_program(
        images["docker.io/prom/alertmanager"], alertmanager, Path("/usr/share/prometheus/alertmanager")
    )
    engine.build_program(images["docker.io/grafana/grafana"], tmp_path / "grafana")
    with Typed(engine, "bring everything up", tmp_path, compose_file="packaging/compose.yml") as typed:
        yield typed


def test_compose_brings_everything_up(engine: Engine, everything: Typed) -> None:
    """The demo is scraped by its name, its critical issue fires at the Alertmanager, and Grafana has what it shows."""

    def alerts() -> set[str]:
        return {one["labels"]["alertname"] for one in json.loads(everything.answers(9093, "/api/v2/alerts") or "[]")}

    assert eventually(lambda: "PatrolServerCriticalIssueOpen" in alerts(), within=120)
    (grafana,) = (one for one in engine.podman("ps", "--format={{.Names}}").splitlines() if "grafana" in one)
    (run,) = json.loads(engine.podman("inspect", grafana))
    environ = dict(one.split("=", 1) for one in run["Config"]["Env"])
    home = json.loads(everything.answers(3000, environ["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]))
    assert home["uid"] == "patrolserver-fleet"
    (source,) = _provisioned(everything, "datasources")["datasources"]
    asks = f"import urllib.request as u; print(u.urlopen('{source['url']}/-/ready').status)"
    assert engine.podman("exec", grafana, "python3", "-c", asks) == "200"
    (provider,) = _provisioned(everything, "dashboards")["providers"]
    assert "patrolserver-server.json" in everything.answers(3000, f"{provider['options']['path']}/")


def _provisioned(everything: Typed, what: str) -> dict[str, Any]:
    """What Grafana is told at its start."""
    (file,) = re.findall(r'href="(\w+\.ya?ml)"', everything.answers(3000, f"/etc/grafana/provisioning/{what}/"))
    told: dict[str, Any] = yaml.safe_load(everything.answers(3000, f"/etc/grafana/provisioning/{what}/{file}"))
    return told
