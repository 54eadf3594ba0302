"""The dashboards as the files that Grafana reads."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from grafana_foundation_sdk.cog.encoder import JSONEncoder

from grafana.dashboards.exporter import exporter
from grafana.dashboards.fleet import fleet
from grafana.dashboards.frame import build
from grafana.dashboards.promql import with_owners
from grafana.dashboards.server import server
from grafana.dashboards.software import software

if TYPE_CHECKING:
    from grafana.dashboards.frame import Page
    from grafana.settings import Settings

FOLDER = Path(__file__).parent / "json"


def rendered(settings: Settings) -> dict[str, str]:
    """File name → JSON text, the same on every run."""
    pages = (fleet(settings), server(settings), software(settings), exporter(settings))
    return {f"{page.uid}.json": _text(page, settings) for page in pages}


def _text(page: Page, settings: Settings) -> str:
    built = json.loads(json.dumps(build(page, settings), cls=JSONEncoder))
    filled = _filled(built, settings.owner_labels)
    return json.dumps(filled, indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def _filled(value: Any, labels: tuple[str, ...]) -> Any:
    """With the variables of the owner's labels in every query."""
    if isinstance(value, dict):
        return {key: _filled(one, labels) for key, one in value.items()}
    if isinstance(value, list):
        return [_filled(one, labels) for one in value]
    return with_owners(value, labels) if isinstance(value, str) else value
