"""Have servers polled before they are judged, and wait for it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from patrolserver_exporter.commands.exporter_client import ExporterError, Refused
from patrolserver_exporter.config.duration import format_duration

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from patrolserver_exporter.commands.exporter_client import ExporterClient

SELECTED_AT_ONCE = 50
"""Names in one request: a request line has its limits."""
AT_ONCE = 100
"""Refreshes under way; the exporter keeps account of a thousand."""
_LOOK_EVERY = 0.2


def selections(servers: Sequence[str], account: str | None) -> Iterator[list[tuple[str, str]]]:
    """Queries that together ask for these servers."""
    of_account = [] if account is None else [("account", account)]
    for start in range(0, len(servers), SELECTED_AT_ONCE):
        yield [*of_account, *(("server", one) for one in servers[start : start + SELECTED_AT_ONCE])]


def refresh(client: ExporterClient, servers: Sequence[str], account: str | None, timeout: float) -> list[str]:
    """Poll the servers and wait; returns a sentence for each that was not polled. Raises `ExporterError`."""
    end = time.monotonic() + timeout
    found: dict[tuple[str, int], str] = {}
    for query in selections(servers, account):
        for server in client.items("/servers", query):
            found[server["account"], server["id"]] = server["name"]
    left = list(found)
    running: dict[str, tuple[str, int]] = {}
    failures: list[str] = []
    while left or running:
        if time.monotonic() > end:
            late = [found[key] for key in (*running.values(), *left)]
            return [*failures, *(_too_late(name, timeout) for name in late)]
        while left and len(running) < AT_ONCE and (operation := _start(client, *left[0])) is not None:
            running[operation["id"]] = left.pop(0)
        for operation_id, key in list(running.items()):
            operation = _member(client.get(f"/operations/{operation_id}"))
            if operation["state"] in {"done", "failed"}:
                del running[operation_id]
                if operation["state"] == "failed":
                    failures.append(f"{found[key]}: it could not be polled before the verdict: {operation['error']}")
        if running or left:
            time.sleep(_LOOK_EVERY)
    return failures


def _start(client: ExporterClient, account: str, server_id: int) -> dict[str, Any] | None:
    """The operation; ``None`` when the exporter has too many under way."""
    try:
        return _member(client.post(f"/servers/{server_id}/refresh", query=[("account", account)]))
    except Refused as error:
        if error.status == 429:
            return None
        raise


def _member(answer: Any) -> dict[str, Any]:
    operation = answer.get("operation") if isinstance(answer, dict) else None
    if not isinstance(operation, dict) or not {"id", "state"} <= operation.keys():
        raise ExporterError("The exporter's answer to a refresh holds no operation.")
    return operation


def _too_late(name: str, timeout: float) -> str:
    return f"{name}: its poll did not end within {format_duration(timeout)} (--refresh-timeout)."
