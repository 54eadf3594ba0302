"""docs/first-steps.md, as it stands there: each block in order, and what it says comes of it."""

from __future__ import annotations

import re
import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest
from tests.harness.page_blocks import ROOT, blocks, checkout
from tests.harness.prometheus import free_port

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

BLOCK = re.compile(r"^```(sh|text)\n(.*?)^```", re.DOTALL | re.MULTILINE)
PORTS = ("10058", "10059", "19090")


def script(page: str) -> str:
    """All blocks as one script, on ports that are free here; each shown text is asked for at its place."""
    for port in PORTS:
        page = re.sub(rf"\b{port}\b", str(free_port()), page)
    page = page.replace("patrolserver-exporter simulator ", f"{_simulator(page)} ")
    page = page.replace("patrolserver-exporter --config.file", f"{_exporter(page)} --config.file")
    page = page.replace("patrolserver-exporter gate ", f"patrolserver-exporter gate --exporter-url={_url(page)} ")
    lines = ["set -e", "trap 'kill $(jobs -p) 2>/dev/null || true' EXIT"]
    for kind, text in BLOCK.findall(page):
        lines += ["{", text, "} > output 2>&1 || { cat output; exit 1; }"] if kind == "sh" else []
        if kind == "text":
            lines += [f"grep -qF -- {_quoted(line)} output || {{ cat output; exit 9; }}" for line in text.splitlines()]
    return "\n".join(lines)


def _url(page: str) -> str:
    return str(re.findall(r"Open <(http://127\.0\.0\.1:\d+)/>", page)[0])


def _exporter(page: str) -> str:
    return f"patrolserver-exporter --web.listen-address={_url(page).removeprefix('http://')}"


def _simulator(page: str) -> str:
    address = re.findall(r"api_url: http://(\S+)", page)[0]
    return f"patrolserver-exporter simulator --web.listen-address={address}"


def _quoted(line: str) -> str:
    return "'" + line.replace("'", "'\\''") + "'"


@pytest.mark.timeout(900)
def test_a_newcomer_gets_from_nothing_to_a_green_deploy(tmp_path: Path, require_program: Callable[[str], str]) -> None:
    """Install, simulator, exporter, Prometheus, a delivery by hand, a red alert, a blocked deploy, a green one."""
    for program in ("bash", "curl", "prometheus"):
        require_program(program)
    text = script((ROOT / "docs" / "first-steps.md").read_text("utf-8"))
    ended = subprocess.run(
        ["bash", "-c", text], cwd=checkout(tmp_path / "checkout"), capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stdout[-4000:] + ended.stderr[-4000:]


def test_the_pages_prometheus_keeps_off_the_one_that_debians_package_starts() -> None:
    """On its port the page would wait for ever: for an alert that the other one does not know."""
    assert not re.search(r"127\.0\.0\.1:9090\b", (ROOT / "docs" / "first-steps.md").read_text("utf-8"))


def test_the_readmes_scrape_configuration_is_refused_without_its_rules(
    tmp_path: Path, require_program: Callable[[str], str]
) -> None:
    """To Prometheus itself a rule file that is not there is no error, nor a pattern that finds none to promtool."""
    (text,) = (one.text for one in blocks(ROOT / "README.md") if one.text.startswith("scrape_configs:"))
    config, rules = tmp_path / "prometheus.yml", tmp_path / "patrolserver.yml"
    config.write_text(text.replace("/etc/prometheus/", f"{tmp_path}/"))
    check = [require_program("promtool"), "check", "config", str(config)]
    assert subprocess.run(check, capture_output=True, check=False).returncode == 1
    shutil.copy(ROOT / "grafana" / "rules" / rules.name, rules)
    done = subprocess.run(check, capture_output=True, text=True, check=True)
    assert f"Checking {rules}" in done.stdout
