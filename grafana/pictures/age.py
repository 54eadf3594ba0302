"""Which state of the dashboards the pictures show: beside them stands a digest of each dashboard when it was drawn."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

from grafana.dashboards.files import FOLDER

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

FILE = "drawn.json"


def record(pictures: Path, names: Iterable[str]) -> None:
    """Write down that the pictures in this folder show the dashboards as they are now."""
    drawn = {name: digest(json.loads((FOLDER / f"patrolserver-{name}.json").read_text())) for name in sorted(names)}
    (pictures / FILE).write_text(json.dumps(drawn, indent=2) + "\n")


def digest(dashboard: Any) -> str:
    """A hash of what can be seen of a dashboard; descriptions only show when the pointer is on them."""
    return hashlib.sha256(json.dumps(_seen(dashboard), sort_keys=True).encode()).hexdigest()


def _seen(node: Any) -> Any:
    if isinstance(node, dict):
        return {key: _seen(value) for key, value in node.items() if key != "description"}
    if isinstance(node, list):
        return [_seen(value) for value in node]
    return node
