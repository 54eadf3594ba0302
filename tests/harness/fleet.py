"""What the tests look for in the fleet's series."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.harness.process import samples
from tests.harness.waiting import eventually

if TYPE_CHECKING:
    from tests.harness.process import Exporter

LAST_POLL = "patrolserver_server_last_poll_timestamp_seconds"


def fleet_lines(text: str) -> list[str]:
    """The lines of an exposition that show servers."""
    return [line for line in text.splitlines() if line.startswith("patrolserver_server")]


def wait_for_polls(exporter: Exporter, servers: int, *, after: float = 0.0, within: float = 60.0) -> None:
    """Wait until that many servers were polled after this moment (seconds since the epoch)."""
    eventually(
        lambda: sum(at > after for at in exporter.samples(LAST_POLL).values()) == servers,
        within=within,
        what=f"the polls of {servers} servers",
    )


def issues_by_server(text: str) -> dict[tuple[tuple[str, str], ...], float]:
    """Open issues by server and severity, as an exposition shows them."""
    return samples(text, "patrolserver_server_issues")


def total(text: str, name: str, **labels: str) -> float:
    """The sum of all samples of a metric with these labels, others aside."""
    return sum(v for have, v in samples(text, name).items() if labels.items() <= dict(have).items())
