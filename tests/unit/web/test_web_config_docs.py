from __future__ import annotations

from dataclasses import fields
from pathlib import Path

from patrolserver_exporter.web.http import web_config
from patrolserver_exporter.web.http.web_config import HEADERS, HttpSettings, RateLimit, TlsSettings, WebConfig

DOCS = Path(__file__).parents[3] / "docs" / "web-config.md"


def test_every_key_is_in_the_docs() -> None:
    """Whoever looks a key or one of its values up finds it."""
    text = DOCS.read_text(encoding="utf-8")
    sections = (WebConfig, TlsSettings, HttpSettings, RateLimit)
    names = [field.name for section in sections for field in fields(section)]

    missing = [name for name in (*names, *HEADERS, *web_config.CURVES) if f"`{name}`" not in text]
    assert missing == []
