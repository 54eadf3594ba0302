from __future__ import annotations

import shutil
import subprocess
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from grafana.alerting.files import ROOT
from grafana.dashboards.panels import SOURCE

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

PACKAGING = ROOT / "packaging"
ALERTMANAGER = PACKAGING / "alertmanager" / "alertmanager.yml"
COMPOSE = PACKAGING / "compose.yml"


def compose() -> dict[str, Any]:
    """The compose file's services."""
    services: dict[str, Any] = yaml.safe_load(COMPOSE.read_text())["services"]
    return services


def kubernetes() -> dict[str, Any]:
    """Kind → object."""
    text = (PACKAGING / "kubernetes" / "patrolserver-exporter.yml").read_text()
    return {one["kind"]: one for one in yaml.safe_load_all(text)}


def run(*command: str) -> str:
    """Standard output of a command that has to succeed."""
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_prometheus_takes_its_configuration_with_the_rules(
    tmp_path: Path, require_program: Callable[[str], str]
) -> None:
    """Promtool accepts it as the compose file mounts it, rules included."""
    shutil.copy(PACKAGING / "prometheus" / "prometheus.yml", tmp_path)
    shutil.copytree(ROOT / "grafana" / "rules", tmp_path / "rules")
    said = run(require_program("promtool"), "check", "config", str(tmp_path / "prometheus.yml"))
    assert "rules/patrolserver.yml" in said.replace(str(tmp_path), "")


def test_alertmanager_takes_its_configuration(require_program: Callable[[str], str]) -> None:
    """Amtool accepts it."""
    run(require_program("amtool"), "check-config", str(ALERTMANAGER))


@pytest.mark.parametrize(("severity", "receiver"), [("critical", "pager"), ("warning", "team"), ("info", "weekly")])
def test_alerts_reach_the_receiver_of_their_severity(
    severity: str, receiver: str, require_program: Callable[[str], str]
) -> None:
    """The example route sends each severity to its own receiver."""
    amtool = require_program("amtool")
    labels = (f"severity={severity}", "alertname=PatrolServerX")
    assert run(amtool, "config", "routes", "test", f"--config.file={ALERTMANAGER}", *labels).strip() == receiver


def test_what_the_compose_file_mounts_exists() -> None:
    """Every bind mount and the build's file are in the repository."""
    for service in compose().values():
        for mount in service.get("volumes", ()):
            source = mount.split(":")[0]
            if source.startswith("."):
                assert (PACKAGING / source).exists(), mount
    build = compose()["exporter"]["build"]
    assert (PACKAGING / build["context"] / build["dockerfile"]).is_file()


def test_the_compose_files_services_find_each_other() -> None:
    """Prometheus scrapes the exporter and tells Alertmanager, Grafana asks Prometheus: by the names of the services."""
    names = compose().keys()
    prometheus = yaml.safe_load((PACKAGING / "prometheus" / "prometheus.yml").read_text())
    (target,) = prometheus["scrape_configs"][0]["static_configs"][0]["targets"]
    (alertmanager,) = prometheus["alerting"]["alertmanagers"][0]["static_configs"][0]["targets"]
    (source,) = yaml.safe_load((ROOT / "grafana" / "provisioning" / "datasources" / "prometheus.yml").read_text())[
        "datasources"
    ]
    hosts = {target.split(":")[0], alertmanager.split(":")[0], source["url"].split("/")[2].split(":")[0]}
    assert hosts == {"exporter", "alertmanager", "prometheus"}
    assert hosts <= names


def test_grafana_reads_the_dashboards_from_where_they_are_mounted() -> None:
    """The provider's path is the mount of the JSON folder, and the scrape interval is Prometheus' own."""
    provider = yaml.safe_load((ROOT / "grafana" / "provisioning" / "dashboards" / "patrolserver.yml").read_text())[
        "providers"
    ][0]
    mounts = [mount.split(":")[:2] for mount in compose()["grafana"]["volumes"]]
    assert ["../grafana/dashboards/json", provider["options"]["path"]] in mounts
    (source,) = yaml.safe_load((ROOT / "grafana" / "provisioning" / "datasources" / "prometheus.yml").read_text())[
        "datasources"
    ]
    prometheus = yaml.safe_load((PACKAGING / "prometheus" / "prometheus.yml").read_text())
    assert source["jsonData"]["timeInterval"] == prometheus["global"]["scrape_interval"]
    assert source["type"] == SOURCE.type_val


def test_the_kubernetes_objects_fit_together() -> None:
    """Service and ServiceMonitor select the pods by their labels, and name a port that the pod has."""
    found = kubernetes()
    pod = found["Deployment"]["spec"]["template"]
    assert found["Service"]["spec"]["selector"] == pod["metadata"]["labels"]
    assert found["Deployment"]["spec"]["selector"]["matchLabels"] == pod["metadata"]["labels"]
    assert found["ServiceMonitor"]["spec"]["selector"]["matchLabels"] == found["Service"]["metadata"]["labels"]
    (container,) = pod["spec"]["containers"]
    ports = {port["name"] for port in container["ports"]}
    assert {port["targetPort"] for port in found["Service"]["spec"]["ports"]} <= ports
    assert found["ServiceMonitor"]["spec"]["endpoints"][0]["port"] in {
        port["name"] for port in found["Service"]["spec"]["ports"]
    }
    volumes = {volume["name"] for volume in pod["spec"]["volumes"]}
    assert {mount["name"] for mount in container["volumeMounts"]} == volumes
    assert "patrolserver" in found["Service"]["metadata"]["name"], "the rules look for it in the job's name"


def test_the_kubernetes_configuration_is_one_that_the_exporter_takes(tmp_path: Path) -> None:
    """The ConfigMap's file loads, with the Secret's keys where the pod mounts them."""
    from patrolserver_exporter.config.load import load_config  # noqa: PLC0415  # keeps the other cases quick

    found = kubernetes()
    for name, value in found["Secret"]["stringData"].items():
        (tmp_path / name).write_text(value)
    text = found["ConfigMap"]["data"]["patrolserver.yml"].replace("/run/secrets/patrolserver", str(tmp_path))
    (tmp_path / "patrolserver.yml").write_text(text)
    (account,) = load_config(tmp_path / "patrolserver.yml", {}).config.accounts
    assert account.name == "main"
    assert len(account.webhook_tokens) == 1
