"""The pages for people: the fleet, and one server."""

from __future__ import annotations

from patrolserver_exporter.web.pages.routes import Pages

__all__ = ["Pages"]
