"""The promise on bad deliveries: each gets a 4xx with a reason, never a 5xx, and none does harm."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING
from urllib.parse import urlencode

import pytest
import requests
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.harness.fleet import total, wait_for_polls
from tests.harness.process import CONFIG, TOKEN, Exporter

from patrolserver_exporter.simulator.options import SimulatorOptions
from patrolserver_exporter.simulator.server import Simulator

if TYPE_CHECKING:
    from collections.abc import Iterator

DELIVERY = {"webhook_patrolserver": 1, "identifier": "webhook.scan_finished", "event_id": 1, "webhook_id": 1}
LIMIT = 16 * 1024
TYPES = ["application/json", "application/x-www-form-urlencoded", "multipart/form-data; boundary=y", "text/plain", ""]


@pytest.fixture(scope="module")
def simulator() -> Iterator[Simulator]:
    with Simulator(SimulatorOptions(listen_address="127.0.0.1:0", servers=2, software=3)) as running:
        yield running


@pytest.fixture(scope="module")
def exporter(tmp_path_factory: pytest.TempPathFactory, simulator: Simulator) -> Iterator[Exporter]:
    with Exporter.watching(tmp_path_factory.mktemp("door"), simulator.base_url, interval="10m") as running:
        wait_for_polls(running, 2)
        yield running
        assert "Traceback" not in running.log()


def post(exporter: Exporter, body: bytes, token: str = TOKEN, **headers: str) -> requests.Response:
    return requests.post(f"{exporter.url}/webhook/{token}", data=body, headers=headers, timeout=10)


_FIELDS = st.dictionaries(
    st.sampled_from(list(DELIVERY)) | st.text(max_size=5), st.none() | st.integers() | st.text(max_size=20), max_size=6
)
_BODIES = (
    st.binary(max_size=400)
    | _FIELDS.map(lambda fields: json.dumps(DELIVERY | fields).encode())
    | _FIELDS.map(lambda fields: urlencode(DELIVERY | fields, errors="replace").encode())
    | st.binary(max_size=200).map(b"--x\r\n".__add__)
    | st.integers(LIMIT - 2, LIMIT + 2).map(bytes)
)


@pytest.mark.promise("bad-input")
@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(body=_BODIES, content_type=st.sampled_from(TYPES))
def test_any_body_is_taken_or_refused_with_a_reason(exporter: Exporter, body: bytes, content_type: str) -> None:
    """Fuzzed bodies over a real socket: a 202, or a 4xx whose problem document says why."""
    response = post(exporter, body, **{"Content-Type": content_type})
    assert response.status_code in {202, 400, 413}, body
    if response.status_code != 202:
        assert response.headers["content-type"] == "application/problem+json"
        assert response.json()["detail"]


@pytest.mark.promise("bad-input")
@pytest.mark.parametrize("content_type", TYPES)
def test_each_form_is_taken_whatever_its_type_claims(exporter: Exporter, content_type: str) -> None:
    """JSON, form and multipart under lying Content-Types."""
    multipart = (
        requests.Request("POST", "http://x", files={k: (None, str(v)) for k, v in DELIVERY.items()}).prepare().body
    )
    assert isinstance(multipart, bytes)
    for body in (json.dumps(DELIVERY).encode(), urlencode(DELIVERY).encode(), multipart):
        assert post(exporter, body, **{"Content-Type": content_type}).status_code == 202


@pytest.mark.promise("large-body")
def test_the_door_says_no_with_the_status_that_fits(exporter: Exporter) -> None:
    """401 wrong token, 404 none, 405 other methods, 413 too large with and without a length, 415 encoded."""
    body = json.dumps(DELIVERY).encode()
    url = f"{exporter.url}/webhook/{TOKEN}"
    got = {
        "wrong token": post(exporter, body, token="wrong-token-0123456789"),
        "no token": post(exporter, body, token=""),
        "no token at all": requests.post(f"{exporter.url}/webhook", data=body, timeout=10),
        "by GET": requests.get(url, timeout=10),
        "by DELETE": requests.delete(url, timeout=10),
        "too large": post(exporter, bytes(LIMIT + 1)),
        "too large in chunks": requests.post(url, data=iter([bytes(LIMIT), b"x"]), timeout=10),
        "compressed": post(exporter, body, **{"Content-Encoding": "gzip"}),
    }
    assert {what: response.status_code for what, response in got.items()} == {
        "wrong token": 401,
        "no token": 404,
        "no token at all": 404,
        "by GET": 405,
        "by DELETE": 405,
        "too large": 413,
        "too large in chunks": 413,
        "compressed": 415,
    }
    for response in got.values():
        assert response.headers["content-type"] == "application/problem+json"
        assert response.json()["detail"]
    refused = total(exporter.metrics(), "patrolserver_exporter_webhook_deliveries_total", outcome="refused")
    assert refused >= 5


@pytest.mark.promise("bad-input")
def test_a_network_that_is_not_allowed_gets_403(tmp_path_factory: pytest.TempPathFactory, simulator: Simulator) -> None:
    """With webhook.allowed_networks even the right token is refused from elsewhere."""
    folder = tmp_path_factory.mktemp("networks")
    config = CONFIG.format(
        api_url=simulator.base_url, interval="10m", settle="1s", store_url=f"sqlite:///{folder / 'state.db'}"
    ).replace("webhook: {", "webhook: {allowed_networks: [192.0.2.0/24], ")
    with Exporter(folder, config) as exporter:
        assert post(exporter, json.dumps(DELIVERY).encode()).status_code == 403
        assert exporter.get("/metrics").status_code == 200
