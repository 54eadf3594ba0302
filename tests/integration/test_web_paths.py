"""Which paths lead where: no redirects, no way around, and nothing of a token in an answer."""

from __future__ import annotations

import http.client
from typing import TYPE_CHECKING

import pytest
import requests
from tests.harness.process import TOKEN, Exporter

if TYPE_CHECKING:
    from collections.abc import Iterator


DELIVERY = {"webhook_patrolserver": 1, "identifier": "webhook.test", "event_id": 1, "webhook_id": 1}


@pytest.fixture(scope="module")
def exporter(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Exporter]:
    """Below a prefix, with a listener for webhooks; nothing answers for the API."""
    listeners = ("--web.listen-address=127.0.0.1:0", "--webhook.listen-address=127.0.0.1:0")
    flags = (*listeners, "--web.external-url=https://exporter.example.org/ps")
    with Exporter.watching(tmp_path_factory.mktemp("paths"), "http://127.0.0.1:1", *flags) as running:
        yield running


@pytest.mark.parametrize("path", ["/ps/-/ready/", "/ps/servers/1/", "/ps/-/reload/", "/ps//", "/ps/metrics/"])
def test_a_slash_too_many_is_not_redirected(exporter: Exporter, path: str) -> None:
    """A redirect would lead to the host that the client named, and out of the prefix."""
    answer = exporter.get(path, headers={"host": "exporter.example.org"}, allow_redirects=False)
    assert answer.status_code == 404
    assert "location" not in answer.headers


@pytest.mark.parametrize(
    ("method", "path", "status", "detail"),
    [
        ("GET", "/nothing", 404, "first page leads"),
        ("GET", "/-/reload", 405, "Allowed here: POST, PUT."),
        ("DELETE", "/api/v1/gate", 405, "Allowed here: POST."),
        ("POST", "/-/ready", 405, "Allowed here: "),
    ],
)
def test_what_is_not_served_says_what_is(exporter: Exporter, method: str, path: str, status: int, detail: str) -> None:
    """A status alone is no help."""
    answer = requests.request(method, f"{exporter.url}/ps{path}", timeout=10)
    assert answer.status_code == status
    assert detail in answer.json()["detail"]


@pytest.mark.parametrize("listener", [0, 1])
def test_a_token_on_a_wrong_path_is_not_repeated(exporter: Exporter, listener: int) -> None:
    """Who forgets the prefix is told of it, and the answer can be shown around."""
    answer = requests.post(f"{exporter.urls[listener]}/webhook/{TOKEN}", json=DELIVERY, timeout=10)
    assert answer.status_code == 404
    assert TOKEN not in answer.text
    assert "/ps/" in answer.json()["detail"]


@pytest.mark.parametrize("path", ["webhook/webhook", "webhook/x/webhook", "webhook//"])
def test_a_token_counts_only_where_it_belongs(exporter: Exporter, path: str) -> None:
    """Directly below /webhook/, and nowhere deeper."""
    url = exporter.urls[1]
    assert requests.post(f"{url}/ps/{path}/{TOKEN}", json=DELIVERY, timeout=10).status_code == 401
    assert requests.post(f"{url}/ps/webhook/{TOKEN}", json=DELIVERY, timeout=10).status_code == 202


@pytest.mark.parametrize(
    "path", ["/-/healthy", "/-/ready", "/metrics", "/api/v1/status", "/", "/nothing", "/api/v1/servers/x"]
)
def test_nothing_is_taken_for_another_type_or_kept(exporter: Exporter, path: str) -> None:
    """Browsers do not guess types, and no cache holds what is true only now; Prometheus itself never caches."""
    answer = exporter.get(f"/ps{path}")
    assert answer.headers["x-content-type-options"] == "nosniff"
    if path != "/metrics":
        assert answer.headers["cache-control"] == "no-store"


def test_what_a_client_takes_may_be_said_in_several_headers(exporter: Exporter) -> None:
    """Headers of one name are one list, as HTTP has it; proxies add their own."""
    address = exporter.url.removeprefix("http://")
    for second, packed in (("gzip", "gzip"), ("br", None)):
        connection = http.client.HTTPConnection(address, timeout=10)
        connection.putrequest("GET", "/ps/metrics", skip_accept_encoding=True)
        connection.putheader("Accept-Encoding", "deflate")
        connection.putheader("Accept-Encoding", second)
        connection.endheaders()
        assert connection.getresponse().headers["content-encoding"] == packed
        connection.close()
