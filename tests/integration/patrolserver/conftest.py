from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest
from tests.integration.patrolserver.raw_server import KEY, SECRET, Answer, RawServer

from patrolserver_exporter.patrolserver.client import ApiCall, PatrolServerClient

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from patrolserver_exporter.clock import Clock


@pytest.fixture
def serve() -> Iterator[Callable[..., RawServer]]:
    servers: list[RawServer] = []

    def start(answer: bytes | Answer, tls: ssl.SSLContext | None = None) -> RawServer:
        servers.append(RawServer(answer, tls))
        return servers[-1]

    yield start
    for server in servers:
        server.stop()


@dataclass
class Calls:
    """Makes clients with canary credentials and keeps what they observe."""

    observed: list[ApiCall] = field(default_factory=list)
    clients: list[PatrolServerClient] = field(default_factory=list)

    def client(
        self,
        url: str,
        *,
        timeout: float = 5.0,
        proxy_url: str | None = None,
        ca_file: Path | None = None,
        credentials: Callable[[], tuple[str, str]] | None = None,
        before_page: Callable[[], bool] | None = None,
        clock: Clock | None = None,
    ) -> PatrolServerClient:
        """A client of a server; closed at the end of the test."""
        made = PatrolServerClient(
            "main",
            url,
            credentials or (lambda: (KEY, SECRET)),
            timeout=timeout,
            proxy_url=proxy_url,
            ca_file=ca_file,
            pool_size=2,
            observer=self.observed.append,
            before_page=before_page,
            clock=clock,
        )
        self.clients.append(made)
        return made


@pytest.fixture
def calls() -> Iterator[Calls]:
    made = Calls()
    yield made
    for client in made.clients:
        client.close()
