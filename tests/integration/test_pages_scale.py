from __future__ import annotations

import statistics
import time
from typing import TYPE_CHECKING

import pytest
import requests
from tests.harness import pages
from tests.harness.pages import Site
from tests.serving import serving

from patrolserver_exporter.store import Store

if TYPE_CHECKING:
    from collections.abc import Iterator

VIEWS = 15


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with pages.open_store(tmp_path_factory.mktemp("large")) as store:
        assert isinstance(store, Store)
        with serving(Site(store, pages.large(store)).app()) as served:
            yield f"http://127.0.0.1:{served.port}"


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
def test_ten_thousand_servers_do_not_hurt(base: str, path: str) -> None:
    """Half of the views of a page take less than 200 ms of work, and a page stays small.

    Server, store and client are this one process, so its CPU time is all that a view costs, however busy the machine.
    """
    times = []
    with requests.Session() as session:
        for _ in range(VIEWS):
            start = time.process_time()
            response = session.get(base + path, timeout=20)
            times.append(time.process_time() - start)
            assert response.status_code == 200
            assert len(response.content) < 150_000
    assert statistics.median(times) < 0.2, times
