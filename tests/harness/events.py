"""Events that a simulator keeps, and that a test delivers itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from patrolserver_exporter.simulator.server import Simulator
    from patrolserver_exporter.simulator.webhooks import Event

NEW_ISSUES = "webhook.new_server_issues"


def report(simulator: Simulator, server_id: int, software: str) -> Event:
    """A new issue that no poll will ever show: the event can be fetched, nobody has delivered it yet."""
    issue = {
        "title": f"Upgrade {software}.",
        "description": f"{software} is no longer supported.",
        "software": {"version": "1.0", "software": {"name": software, "canonical_name": software}},
    }
    data = {"server_id": server_id, "new_issues": [issue]}
    (event,) = simulator.world.outbox.emit(simulator.world.demo.id, NEW_ISSUES, data, deliver=False)
    return event
