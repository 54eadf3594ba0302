from __future__ import annotations

from pathlib import Path

from patrolserver_exporter.config.reading import Section
from patrolserver_exporter.web.http import web_config
from patrolserver_exporter.web.http.web_config import HEADERS, WEB_CONFIG

DOCS = Path(__file__).parents[3] / "docs" / "web-config.md"


def test_every_key_is_in_the_docs() -> None:
    """Whoever looks a key or one of its values up finds it."""
    text = DOCS.read_text(encoding="utf-8")
    sections = [WEB_CONFIG, *(shape for shape in WEB_CONFIG.shapes.values() if isinstance(shape, Section))]
    names = {key for section in sections for key in section.shapes}

    missing = [name for name in (*names, *HEADERS, *web_config.CURVES) if f"`{name}`" not in text]
    assert missing == []
