"""The container file: built on a Debian, and run with a root that is only read, by a user who may do nothing else."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import requests
import yaml
from tests.harness.container import BASE, Container, Images
from tests.harness.prometheus import free_port
from tests.harness.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.timeout(900)

ROOT = Path(__file__).parents[2]
CONTAINERFILE = ROOT / "packaging" / "Containerfile"
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
    service = yaml.safe_load((ROOT / "packaging" / "compose.yml").read_text())["services"]["exporter"]
    assert (service["read_only"], service["cap_drop"], service["tmpfs"]) == (True, ["ALL"], [TEMPORARY])
