"""docs/first-steps.md, as it stands there: each block in order, and what it says comes of it."""

from __future__ import annotations

import re
import subprocess
from typing import TYPE_CHECKING

import pytest
from tests.harness.page_blocks import ROOT, checkout
from tests.harness.prometheus import free_port

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

BLOCK = re.compile(r"^```(sh|text)\n(.*?)^```", re.DOTALL | re.MULTILINE)
PORTS = ("10058", "10059", "9090")


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


@pytest.mark.timeout(600)
def test_a_newcomer_gets_from_nothing_to_a_green_deploy(tmp_path: Path, require_program: Callable[[str], str]) -> None:
    """Install, simulator, exporter, Prometheus, a delivery by hand, a red alert, a blocked deploy, a green one."""
    for program in ("bash", "curl", "prometheus"):
        require_program(program)
    text = script((ROOT / "docs" / "first-steps.md").read_text("utf-8"))
    ended = subprocess.run(
        ["bash", "-c", text], cwd=checkout(tmp_path / "checkout"), capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stdout[-4000:] + ended.stderr[-4000:]
