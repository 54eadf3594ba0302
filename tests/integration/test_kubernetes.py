"""The manifests for Kubernetes, held against its own schemas, and the page's command for the dashboards."""

from __future__ import annotations

import os
import re
import subprocess
from typing import TYPE_CHECKING

import pytest
import yaml
from tests.harness.daemons import ServerThread
from tests.harness.kube_api import KubeApi
from tests.harness.locked import locked_program
from tests.harness.page_blocks import ROOT, block

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = pytest.mark.turn(0)

MANIFESTS = sorted((ROOT / "packaging" / "kubernetes").glob("*.yml"))
OF_THE_OPERATOR = {"ServiceMonitor", "PrometheusRule"}
"""Kinds that Prometheus' operator brings; Kubernetes itself has no schema of them."""
OLDEST, NEWEST = "1.25", "1.37"


@pytest.fixture(scope="session")
def validate() -> Path:
    return locked_program("kubernetes-validate", "kubernetes")


@pytest.mark.parametrize("version", [OLDEST, NEWEST])
@pytest.mark.parametrize("manifest", MANIFESTS, ids=lambda path: path.name)
def test_kubernetes_knows_each_member_of_a_manifest(validate: Path, manifest: Path, version: str) -> None:
    """By the schemas of an old and a new version; a member that they do not have is an error."""
    told = judged(validate, manifest, version)
    assert told.returncode == 0, told.stdout
    objects = {one["kind"] for one in yaml.safe_load_all(manifest.read_text())}
    assert set(re.findall(r"find schema for kind (\w+)", told.stdout)) == objects & OF_THE_OPERATOR


def test_a_member_that_kubernetes_does_not_know_is_found(validate: Path, tmp_path: Path) -> None:
    """The check above sees a slip of the pen."""
    text = next(one for one in MANIFESTS if "exporter" in one.name).read_text()
    slipped = tmp_path / "slipped.yml"
    slipped.write_text(text.replace("readOnlyRootFilesystem", "readOnlyRootFileSystem"))
    told = judged(validate, slipped, NEWEST)
    assert told.returncode != 0
    assert "readOnlyRootFileSystem" in told.stdout


def judged(validate: Path, manifest: Path, version: str) -> subprocess.CompletedProcess[str]:
    command = [str(validate), "--strict", f"--kubernetes-version={version}", str(manifest)]
    return subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=120, check=False
    )


def test_kubectl_applies_the_folder(tmp_path: Path, require_program: Callable[[str], str]) -> None:
    """The page's command sends each object once, into its namespace."""
    require_program("kubectl")
    with KubeApi() as api, ServerThread(api):
        environ = {**os.environ, "KUBECONFIG": str(api.write_kubeconfig(tmp_path / "config")), "HOME": str(tmp_path)}
        command = ["bash", "-ec", block("apply the manifests").commands]
        done = subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    objects = [one for manifest in MANIFESTS for one in yaml.safe_load_all(manifest.read_text())]
    assert sorted(one["kind"] for one in api.applied) == sorted(one["kind"] for one in objects)
    assert {one["metadata"]["namespace"] for one in api.applied} == {"monitoring"}


def test_the_dashboards_fit_into_one_configmap(require_program: Callable[[str], str]) -> None:
    """The page's command makes it of all four, below the limit of 1 MiB."""
    require_program("kubectl")
    command = f"{block('put the dashboards into a ConfigMap').commands.rstrip()} --dry-run=client --output=yaml"
    made = subprocess.run(["bash", "-ec", command], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert made.returncode == 0, made.stderr
    configmap = yaml.safe_load(made.stdout)
    assert len(made.stdout.encode()) < 2**20
    assert (configmap["kind"], configmap["metadata"]["namespace"]) == ("ConfigMap", "monitoring")
    assert set(configmap["data"]) == {file.name for file in (ROOT / "grafana" / "dashboards" / "json").glob("*.json")}
