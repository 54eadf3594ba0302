from __future__ import annotations

from pathlib import Path

from patrolserver_exporter.web.http import web_config
from patrolserver_exporter.web.http.web_config import HEADERS, TLS_SERVER_CONFIG, WEB_CONFIG

DOCS = Path(__file__).parents[3] / "docs" / "web-config.md"


def test_every_key_is_in_the_docs() -> None:
    """Whoever looks a key or one of its values up finds it."""
    text = DOCS.read_text(encoding="utf-8")
    sections = [key.shape for key in WEB_CONFIG.keys]
    names = {key.name for key in (*WEB_CONFIG.keys, *TLS_SERVER_CONFIG.keys)}
    names |= {key.name for section in sections for key in getattr(section, "keys", ())}

    missing = [name for name in (*names, *HEADERS, *web_config.CURVES) if f"`{name}`" not in text]
    assert missing == []
