"""Looks at pages with Chromium and axe-core, as ``tests/integration/pages_node/look.mjs`` sees them."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

NODE_FOLDER = Path(__file__).parents[1] / "integration" / "pages_node"
WIDE, PHONE = (1440, 900), (390, 844)
"""Width and height in CSS pixels."""


def install(npm: str) -> str | None:
    """Install what the lock names, if it is not there yet; what went wrong, or ``None``."""
    if (NODE_FOLDER / "node_modules" / "playwright-core").exists():
        return None
    command = [npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
    done = subprocess.run(command, cwd=NODE_FOLDER, capture_output=True, text=True, timeout=240, check=False)
    return None if done.returncode == 0 else done.stderr.strip()[-500:]


def visit(url: str, size: tuple[int, int], scheme: str, **more: object) -> dict[str, object]:
    """One visit to order: ``scheme`` is light or dark, ``picture`` a path for a PNG."""
    return {"url": url, "width": size[0], "height": size[1], "scheme": scheme, **more}


def look(node: str, chromium: str, visits: Sequence[dict[str, object]]) -> list[dict[str, Any]]:
    """Make the visits; one dictionary each of what was seen."""
    order = json.dumps({"chromium": chromium, "visits": list(visits)})
    command = [node, str(NODE_FOLDER / "look.mjs")]
    done = subprocess.run(command, input=order, capture_output=True, text=True, timeout=480, check=False)
    assert done.returncode == 0, done.stderr
    seen: list[dict[str, Any]] = json.loads(done.stdout)
    return seen
