"""The simulator in a process of its own, so that its CPU is not the exporter's."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, Self

import requests
from tests.harness.daemons import Program
from tests.harness.prometheus import free_port


class Simulated(Program):
    """``patrolserver-exporter simulator`` on a free port; stopped at the end."""

    def __init__(self, *, servers: int, software: int) -> None:
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        self._command = [
            sys.executable,
            *("-m", "patrolserver_exporter", "simulator", "--no-story"),
            f"--web.listen-address=127.0.0.1:{port}",
            f"--servers={servers}",
            f"--software={software}",
        ]

    def __enter__(self) -> Self:
        self.launch(self._command)
        self.await_start(lambda: self.ask("/healthy"), within=60)
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def order(self, path: str, /, **body: Any) -> Any:
        """Give an order over its control interface."""
        response = requests.post(f"{self.url}/-/simulator{path}", json=body, timeout=60)
        response.raise_for_status()
        return response.json()

    def ask(self, path: str) -> Any:
        """Ask its control interface."""
        response = requests.get(f"{self.url}/-/simulator{path}", timeout=60)
        response.raise_for_status()
        return response.json()

    def polls(self) -> int:
        """How often software was asked for."""
        endpoints = self.ask("/requests")["by_endpoint"]
        return sum(found["count"] for label, found in endpoints.items() if label.endswith("/software"))


def scratch() -> Path:
    """Where benchmarks write: on the disk of the checkout, since /tmp may be memory, and ignored by git."""
    folder = Path(__file__).parents[2] / "build"
    folder.mkdir(exist_ok=True)
    return folder
