"""Redraws docs/pictures: the four dashboards over a week of the demo's fleet, light and dark."""

from __future__ import annotations

import argparse
import datetime as dt
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from grafana.dashboards.files import FOLDER
from grafana.pictures import recording
from grafana.pictures.age import record
from grafana.pictures.backfill import backfill
from grafana.pictures.draw import View, draw
from grafana.pictures.week import STEP, WEEK, Week

if TYPE_CHECKING:
    from collections.abc import Iterator

END = dt.datetime(2026, 6, 15, 9, tzinfo=dt.UTC)
"""Always the same, so that only what changed looks different."""
PICTURES = Path(__file__).parents[2] / "docs" / "pictures"
DASHBOARDS = {"fleet": {}, "server": {"server": "web-02.example.org"}, "software": {}, "exporter": {}}


def main() -> int:
    """Draw all; 1 when a panel has an error or nothing to show."""
    parser = argparse.ArgumentParser(prog="python -m grafana.pictures", description=__doc__)
    parser.add_argument("--renderer", type=Path, required=True, help="a copy of render_dashboard, after npm ci")
    parser.add_argument("--out", type=Path, default=PICTURES, help="folder of the pictures")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    bad = 0
    with tempfile.TemporaryDirectory(prefix="patrolserver-pictures-") as folder:
        fill(Path(folder))
        with prometheus(Path(folder)) as url:
            for name, variables in DASHBOARDS.items():
                for theme in ("light", "dark"):
                    bad += _draw(arguments.renderer, arguments.out / f"{name}-{theme}.png", url, name, variables)
    if not bad:
        record(arguments.out, DASHBOARDS)
    return int(bool(bad))


def fill(folder: Path) -> None:
    """Write the week, and what Prometheus would have recorded of it, into ``folder/tsdb``."""
    end = int(END.timestamp())
    backfill(Week(end).play(), folder / "tsdb")
    recording.record(folder, end - WEEK, end, STEP, prometheus)


def _draw(renderer: Path, picture: Path, url: str, name: str, variables: dict[str, str]) -> int:
    view = View(
        dashboard=FOLDER / f"patrolserver-{name}.json",
        prometheus=url,
        start=(END - dt.timedelta(seconds=WEEK)).isoformat().replace("+00:00", "Z"),
        end=END.isoformat().replace("+00:00", "Z"),
        scrape_interval=f"{STEP}s",
        variables=variables,
        theme=picture.stem.rpartition("-")[2],
    )
    bad = [panel for panel in draw(renderer, view, picture) if panel["status"] != "ok"]
    for panel in bad:
        sys.stderr.write(f"{picture.name}: {panel['title']}: {panel['status']} {panel.get('error', '')}\n")
    return len(bad)


@contextmanager
def prometheus(folder: Path) -> Iterator[str]:
    """A Prometheus with the data in ``folder/tsdb`` that scrapes nothing; gives its URL."""
    config = folder / "prometheus.yml"
    config.write_text("global: {}\n")
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{sock.getsockname()[1]}"
    command = [
        "prometheus",
        f"--config.file={config}",
        f"--storage.tsdb.path={folder / 'tsdb'}",
        "--storage.tsdb.retention.time=10y",
        f"--web.listen-address={url.removeprefix('http://')}",
    ]
    with (folder / "prometheus.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)  # noqa: S603 - our own arguments
    try:
        _wait_for(url)
        yield url
    finally:
        process.terminate()
        process.wait(20)


def _wait_for(url: str, seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while True:
        try:
            with urllib.request.urlopen(f"{url}/-/ready", timeout=5):  # noqa: S310 - on loopback
                return
        except (urllib.error.URLError, OSError):
            if time.monotonic() > deadline:
                raise
            time.sleep(0.2)


if __name__ == "__main__":
    sys.exit(main())
