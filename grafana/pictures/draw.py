"""Draws a dashboard with a built copy of render_dashboard: Grafana's components, without a Grafana server."""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """What is looked at, and how."""

    dashboard: Path
    prometheus: str
    start: str = "now-7d"
    end: str = "now"
    scrape_interval: str = "15s"
    variables: dict[str, str] = field(default_factory=dict)
    theme: str = "dark"
    width: int = 1600
    expand: bool = True


def draw(renderer: Path, view: View, picture: Path) -> list[dict[str, Any]]:
    """Draw it into ``picture`` and return what the tool reports of each panel: ``title``, ``status``, ``error``.

    Raises:
        subprocess.CalledProcessError: the tool did not draw at all.
    """
    report = picture.with_suffix(".json")
    command = [
        "node",
        "render_dashboard.mjs",
        f"--dashboard={view.dashboard.resolve()}",
        f"--prometheus={view.prometheus}",
        f"--out={picture.resolve()}",
        f"--report={report.resolve()}",
        f"--from={view.start}",
        f"--to={view.end}",
        f"--scrape-interval={view.scrape_interval}",
        f"--theme={view.theme}",
        f"--width={view.width}",
        *(f"--var={name}={value}" for name, value in view.variables.items()),
        *(["--expand"] if view.expand else []),
    ]
    subprocess.run(command, cwd=renderer, check=True, capture_output=True, timeout=180)  # noqa: S603 - our own arguments
    panels: list[dict[str, Any]] = json.loads(report.read_text())["panels"]
    report.unlink()
    return panels
