from __future__ import annotations

import statistics
import time
from typing import TYPE_CHECKING

import pytest
import requests
from prometheus_client import CollectorRegistry, Gauge, generate_latest
from tests.harness import pages
from tests.harness.pages import Site
from tests.serving import serving

from patrolserver_exporter.store import Store

if TYPE_CHECKING:
    from collections.abc import Iterator

SERVERS = 10_000
VIEWS = 7
SERIES = 5
"""Of a server, in what a page is held against."""


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with pages.open_store(tmp_path_factory.mktemp("large")) as store:
        assert isinstance(store, Store)
        with serving(Site(store, pages.large(store)).app()) as served:
            yield f"http://127.0.0.1:{served.port}"


@pytest.fixture(scope="module")
def peer() -> CollectorRegistry:
    """A few gauges of as many servers, as the client library for Python exposes them."""
    registry = CollectorRegistry()
    for number in range(SERIES):
        gauge = Gauge(f"peer_{number}", "As of an exporter without a cache.", ["server"], registry=registry)
        for server in range(SERVERS):
            gauge.labels(f"web-{server:05}.example.org").set(server)
    return registry


@pytest.mark.parametrize(
    "path",
    [
        *("/", "/?page=100", "/?q=web-0123", "/?severity=high", "/servers/777"),
        *(
            "/?sort=polled&page=100",
            "/?state=unknown",
            "/?kind=outdated",
            "/issues",
            "/software",
            "/exploits",
            "/changes",
        ),
    ],
)
def test_ten_thousand_servers_do_not_hurt(base: str, peer: CollectorRegistry, path: str) -> None:
    """A view of a page takes less work than one scrape of a few gauges of that fleet would, and a page stays small.

    Server, store and client are this one process, so its CPU time is all that a view costs. What the machine can do at
    that moment is the same for both, since they take turns.
    """
    ours, theirs = [], []
    with requests.Session() as session:
        for _ in range(VIEWS):
            start = time.process_time()
            response = session.get(base + path, timeout=20)
            between = time.process_time()
            generate_latest(peer)
            theirs.append(time.process_time() - between)
            ours.append(between - start)
            assert response.status_code == 200
            assert len(response.content) < 150_000
    assert statistics.median(ours) < statistics.median(theirs), (ours, theirs)
