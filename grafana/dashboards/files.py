"""The dashboards as the files that Grafana reads."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from grafana_foundation_sdk.cog.encoder import JSONEncoder

from grafana.dashboards.exporter import exporter
from grafana.dashboards.fleet import fleet
from grafana.dashboards.frame import build
from grafana.dashboards.server import server
from grafana.dashboards.software import software

if TYPE_CHECKING:
    from grafana.settings import Settings

FOLDER = Path(__file__).parent / "json"


def rendered(settings: Settings) -> dict[str, str]:
    """File name → JSON text, the same on every run."""
    pages = (fleet(settings), server(settings), software(settings), exporter(settings))
    address = settings.exporter_url
    return {
        f"{page.uid}.json": json.dumps(
            build(page, address), cls=JSONEncoder, indent=2, sort_keys=True, ensure_ascii=False
        )
        + "\n"
        for page in pages
    }
