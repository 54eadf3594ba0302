"""Behind a proxy everybody looks local, and gets no right by it; real nginx, Caddy and HAProxy."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
import requests
from tests.harness.process import NEW_ISSUES, TOKEN, Exporter
from tests.harness.proxies import NAME, PROXIES, bare_nginx, documented
from tests.harness.waiting import eventually

from patrolserver_exporter.simulator.options import SimulatorOptions
from patrolserver_exporter.simulator.server import Simulator

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

pytestmark = pytest.mark.promise("proxy")

CHANGES = [
    ("POST", "/-/reload"),
    ("POST", "/api/v1/servers/{server}/refresh"),
    ("GET", "/api/v1/inbox"),
    ("POST", "/api/v1/inbox/1/replay"),
    ("DELETE", "/api/v1/inbox/1"),
]
READS = [("GET", "/"), ("GET", "/api/v1/servers"), ("GET", "/api/v1/status"), ("POST", "/api/v1/gate")]
WITH_TOKENS = """\
api:
  tokens:
    - { name: ansible, token: token-of-ansible, scopes: [read, refresh] }
    - { name: prometheus, token: token-of-prometheus, scopes: [read] }
"""


@pytest.fixture(scope="module")
def simulator() -> Iterator[Simulator]:
    with Simulator(SimulatorOptions(listen_address="127.0.0.1:0", servers=2, software=3)) as running:
        yield running


def ask(url: str, method: str, path: str, server: int, **headers: str) -> requests.Response:
    body: dict[str, Any] | None = {"servers": [server]} if path.endswith("/gate") else None
    return requests.request(method, url + path.format(server=server), json=body, headers=headers, timeout=10)


def first_server(simulator: Simulator) -> int:
    return simulator.world.servers(simulator.world.demo)[0].id


def deliver_one(exporter: Exporter) -> None:
    """So that there is something in the inbox to delete."""
    assert exporter.deliver(99_999).status_code == 202
    operator = exporter.operator
    eventually(lambda: exporter.get("/api/v1/inbox/1", headers=operator).status_code == 200, what="the delivery")


@pytest.mark.parametrize("extra", ["", WITH_TOKENS])
def test_a_bare_proxy_pass_gives_nobody_a_right(
    tmp_path: Path, simulator: Simulator, require_program: Callable[[str], str], extra: str
) -> None:
    """Refresh, reload and the inbox stay closed, and reading, too, once a token is meant for it; scrapes go on."""
    server = first_server(simulator)
    with (
        Exporter.watching(tmp_path, simulator.base_url, extra=extra) as exporter,
        bare_nginx(tmp_path, exporter.url, require_program) as nginx,
    ):
        eventually(lambda: len(exporter.samples("patrolserver_server_info")) == 2, what="the list")
        eventually(lambda: exporter.get("/-/ready").status_code == 200, what="readiness")
        deliver_one(exporter)
        for url in (nginx, exporter.url):
            for method, path in CHANGES:
                assert ask(url, method, path, server).status_code == 401, (url, path)
            for method, path in READS:
                assert ask(url, method, path, server).status_code == (401 if extra else 200), (url, path)
            for path in ("/metrics", "/-/ready", "/-/healthy"):
                assert ask(url, "GET", path, server).status_code == 200
        payload = {"webhook_patrolserver": 1, "identifier": NEW_ISSUES, "event_id": 5, "webhook_id": 1}
        assert requests.post(f"{nginx}/webhook/{TOKEN}", json=payload, timeout=10).status_code == 202
        for method, path in CHANGES:
            assert ask(nginx, method, path, server, **exporter.operator).ok, path


def test_metrics_may_need_a_token(tmp_path: Path, simulator: Simulator) -> None:
    """Only with `web.metrics_need_token`, which a reload takes; until then the log warns."""
    closed = WITH_TOKENS + "web: { metrics_need_token: true }\n"
    with Exporter.watching(tmp_path, simulator.base_url, extra=WITH_TOKENS) as exporter:
        assert exporter.get("/metrics").status_code == 200
        eventually(lambda: "web.metrics_need_token" in exporter.log(), what="the warning")
        exporter.write_config(exporter.config_file.read_text().replace(WITH_TOKENS, closed))
        assert ask(exporter.url, "POST", "/-/reload", 0, **exporter.operator).status_code == 200
        refused = exporter.get("/metrics")
        assert (refused.status_code, "web.metrics_need_token" in refused.json()["detail"]) == (401, True)
        with_token = {"authorization": "Bearer token-of-prometheus"}
        assert exporter.get("/metrics", headers=with_token).status_code == 200
        assert exporter.get("/-/ready").status_code != 401


def test_the_machines_operator_needs_no_token_of_the_configuration(tmp_path: Path, simulator: Simulator) -> None:
    """The exporter's command lines read the file beside its state; it is the owner's alone, and new at each start."""
    file = tmp_path / "patrolserver-exporter.token"
    with Exporter.watching(tmp_path, simulator.base_url, extra=WITH_TOKENS) as exporter:
        deliver_one(exporter)
        assert file.stat().st_mode & 0o777 == 0o600
        url, token = file.read_text().splitlines()
        assert url == exporter.url

        def run(*arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
            command = [sys.executable, "-m", "patrolserver_exporter", *arguments, f"--exporter-url={exporter.url}"]
            where = tmp_path.parent if environ else tmp_path
            return subprocess.run(
                command,
                cwd=where,
                env={"PATH": "/usr/bin:/bin", "PYTHONPATH": ":".join(sys.path), **environ},
                capture_output=True,
                text=True,
                check=False,
                timeout=60,
            )

        for environ in ({}, {"STATE_DIRECTORY": str(tmp_path)}):
            listed = run("inbox", "list", "--format=json", **environ)
            assert (listed.returncode, listed.stderr) == (0, "")
            assert len(json.loads(listed.stdout)) == 1
        elsewhere = run("inbox", "list", STATE_DIRECTORY="/nowhere")
        assert (elsewhere.returncode, "patrolserver-exporter.token" in elsewhere.stderr) == (1, True)
        assert token not in exporter.log()
        exporter.terminate()
        exporter.start()
        assert file.read_text().splitlines()[1] != token
        headers = {"authorization": f"Bearer {token}"}
        assert exporter.get("/api/v1/inbox", headers=headers).status_code == 401


def test_a_token_file_that_cannot_be_written_is_a_warning(tmp_path: Path) -> None:
    """The service runs without it, and says who needs a token then."""
    (tmp_path / "patrolserver-exporter.token").mkdir()
    with Exporter.watching(tmp_path, "http://127.0.0.1:1") as exporter:
        assert exporter.get("/-/healthy").status_code == 200
        assert "cannot be written; they need one of api.tokens" in exporter.log()


@pytest.mark.parametrize("proxy", PROXIES)
def test_the_documented_proxies(
    tmp_path: Path, simulator: Simulator, require_program: Callable[[str], str], proxy: str
) -> None:
    """Pages, API and webhook are there below the prefix, by the name that people use, and nobody gets a right by it."""
    curl = require_program("curl")
    external = f"https://{NAME}/patrol"
    extra = "web: { trusted_proxies: [127.0.0.1] }\n"
    with (
        Exporter.watching(tmp_path, simulator.base_url, f"--web.external-url={external}", extra=extra) as exporter,
        documented(proxy, tmp_path, exporter.url, require_program) as (port, authority),
    ):

        def fetch(path: str, *flags: str) -> tuple[str, str]:
            command = [curl, "-sS", "--max-time", "20", "--cacert", str(authority), "-w", "\n%{http_code}"]
            command += ["--resolve", f"{NAME}:{port}:127.0.0.1", *flags, f"https://{NAME}:{port}{path}"]
            ran = subprocess.run(command, capture_output=True, text=True, check=True, timeout=30)
            body, _, status = ran.stdout.rpartition("\n")
            return status, body

        eventually(lambda: exporter.get("/patrol/-/ready").status_code == 200, what="readiness")
        status, page = fetch("/patrol/", "-H", "Accept: text/html")
        assert (status, f"{external}/webhook/" in page) == ("200", True)
        assert fetch("/patrol/api/v1/servers")[0] == "200"
        assert fetch("/patrol/-/reload", "-X", "POST")[0] == "401"
        assert fetch("/patrol/api/v1/inbox")[0] == "401"
        operator = f"Authorization: {exporter.operator['Authorization']}"
        assert fetch("/patrol/-/reload", "-X", "POST", "-H", operator)[0] == "200"
        payload = {"webhook_patrolserver": 1, "identifier": "webhook.test", "event_id": 1, "webhook_id": 1}
        hook = ["-H", "Content-Type: application/json", "-d", json.dumps(payload)]
        assert fetch(f"/patrol/webhook/{TOKEN}", *hook)[0] == "202"

        # The sender is the proxy's client, whatever that says of itself.
        networks = "webhook: {allowed_networks: [127.0.0.9], "
        exporter.write_config(exporter.config_file.read_text().replace("webhook: {", networks))
        assert fetch("/patrol/-/reload", "-X", "POST", "-H", operator)[0] == "200"
        assert fetch(f"/patrol/webhook/{TOKEN}", "--interface", "127.0.0.9", *hook)[0] == "202"
        forged = ["-H", "X-Forwarded-For: 127.0.0.9"]
        assert fetch(f"/patrol/webhook/{TOKEN}", "--interface", "127.0.0.8", *hook, *forged)[0] == "403"
