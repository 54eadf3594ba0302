"""The promise on secrets: through every failure they show in no log, answer, metric, state or command line."""

from __future__ import annotations

import base64
import json
import re
import signal
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

import bcrypt
import pytest
import requests
from tests.harness.process import Exporter
from tests.harness.prometheus import free_port
from tests.harness.upstream import CASES, SERVERS, Upstream
from tests.harness.waiting import eventually

from patrolserver_exporter.simulator.faults import Fault, FaultKind

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.promise("secrets")

MARK = "c4n4ry"
"""Part of every secret; it has no character that percent-encoding or JSON would change."""
KEY, SECRET, PROXY, USER, DATABASE = (
    f"{name} {MARK}+/&=%25é'\"" for name in ("key", "secret", "proxy", "user", "database")
)
# Tokens stand in URLs and headers, so they have only letters, digits and a few signs.
HOOK, API = f"hook-{MARK}_0123456789~.", f"api-{MARK}_0123456789~."
PAGES = (
    "/",
    "/servers/1",
    "/metrics",
    "/-/ready",
    "/api/v1/servers",
    "/api/v1/issues",
    "/api/v1/inbox",
    "/api/v1/openapi.json",
)


def needles() -> list[bytes]:
    """The mark as it is, and in base64 wherever it may begin."""
    mark = MARK.encode()
    # Of each alignment, the part that depends on the mark alone.
    encoded = [base64.b64encode(bytes(shift) + mark)[4 if shift else 0 : 8] for shift in range(3)]
    return [mark, *(part for part in encoded if part)]


def assert_clean(text: bytes, where: str) -> None:
    for needle in needles():
        place = text.find(needle)
        assert place < 0, f"{where} shows a secret: …{text[max(place - 200, 0) : place + 60]!r}…"


@pytest.fixture
def upstream(tmp_path: Path) -> Iterator[Upstream]:
    (tmp_path / "state").mkdir()
    with Upstream(tmp_path / "state", key=KEY, secret=SECRET, token=HOOK) as running:
        yield running


def configuration(upstream: Upstream) -> str:
    """All accounts, one behind a proxy that is not there, and tokens for the API."""
    extra = f"api: {{tokens: [{{name: ops, token: {json.dumps(API)}, scopes: [read, inbox, refresh, reload]}}]}}\n"
    proxy = f"http://proxy:{quote(PROXY, safe='')}@127.0.0.1:{free_port()}"
    proxied = f"""\
  - name: proxied
    api_url: {upstream.apis["error"].base_url}
    key: {json.dumps(KEY)}
    secret: {json.dumps(SECRET)}
    proxy_url: {proxy}
"""
    return upstream.config(extra) + proxied


def in_trouble(told: str) -> set[str]:
    """The accounts that ``/-/ready`` tells of."""
    return set(re.findall(r"^Account ([\w-]+)", told, re.MULTILINE))


@pytest.mark.parametrize("log_format", ["logfmt", "json"])
def test_no_secret_shows_through_any_failure(tmp_path: Path, upstream: Upstream, log_format: str) -> None:
    """Canaries in every place for a secret, all failures, log level debug: none is seen, raw or encoded."""
    web_config = tmp_path / "web.yml"
    hashed = bcrypt.hashpw(USER.encode(), bcrypt.gensalt(4)).decode()
    web_config.write_text(f"basic_auth_users: {{ops: {json.dumps(hashed)}}}\n")
    flags = ("--log.level=debug", f"--log.format={log_format}", f"--web.config.file={web_config}")
    user = ("ops", USER.encode())
    seen: list[tuple[str, bytes]] = []
    with Exporter(tmp_path, configuration(upstream), *flags) as exporter:

        def ask(method: str, path: str, **options: object) -> requests.Response:
            options = {"auth": user, **options}
            response = requests.request(method, exporter.url + path, timeout=10, **options)  # type: ignore[arg-type]
            # What was asked for may stand in the answer; the paths with tokens are ours.
            seen.append(
                (f"{method} {path.partition('/webhook/')[0]}…", response.content + str(response.headers).encode())
            )
            return response

        polled = "patrolserver_server_last_poll_timestamp_seconds{"
        eventually(lambda: ask("GET", "/metrics").text.count(polled) == SERVERS * len(CASES), what="the polls")
        echo = f"no such call: GET /servers?key={quote(KEY, safe='')}&secret={quote(SECRET, safe='')} ({KEY}, {SECRET})"
        upstream.fail()
        upstream.apis["error-200"].faults.clear()
        upstream.apis["error-200"].faults.add(Fault(kind=FaultKind.ERROR_200, error=echo))
        upstream.apis["redirect"].faults.clear()
        location = f"{upstream.canary.url}?key={quote(KEY, safe='')}&secret={quote(SECRET, safe='')}"
        upstream.apis["redirect"].faults.add(Fault(kind=FaultKind.REDIRECT, location=location))
        for name in CASES:
            body = {"webhook_patrolserver": 1, "identifier": "webhook.scan_finished", "event_id": 1, "webhook_id": 1}
            assert ask("POST", f"/webhook/{quote(upstream.token(name), safe='')}", json=body).status_code == 202
        for wrong in (upstream.token("none"), HOOK):
            assert ask("POST", f"/webhook/{quote(wrong, safe='')}", json={}).status_code == 401
        assert ask("POST", f"/webhook/{quote(upstream.token('html'), safe='')}", data=f"x={KEY}").status_code == 400
        assert ask("GET", f"/webhook/{quote(upstream.token('html'), safe='')}").status_code == 405
        assert ask("GET", "/metrics", auth=("ops", f"{USER}?".encode())).status_code == 401
        bearer = {"Authorization": b"Bearer " + API.encode()}
        ask("GET", "/api/v1/inbox", headers=bearer, auth=None)
        ask("GET", "/api/v1/inbox", headers={"Authorization": bearer["Authorization"] + b"?"}, auth=None)
        eventually(lambda: len(in_trouble(ask("GET", "/-/ready").text)) == len(CASES) + 1, what="all troubles")
        exporter.write_config(configuration(upstream).replace("accounts:", f"accounts: {json.dumps(KEY)}\nx:"))
        assert ask("POST", "/-/reload").status_code == 500
        exporter.signal(signal.SIGHUP)
        for page in PAGES:
            ask("GET", page)
        exporter.write_config(configuration(upstream))
        assert ask("POST", "/-/reload").status_code == 200
        assert exporter.process is not None
        seen.append(("cmdline", Path(f"/proc/{exporter.process.pid}/cmdline").read_bytes()))
        seen.extend((f"state file {path.name}", path.read_bytes()) for path in (tmp_path / "state").iterdir())
        assert exporter.terminate() == 0
    seen.extend((f"state file {path.name}", path.read_bytes()) for path in (tmp_path / "state").iterdir())
    seen.append(("the log", exporter.log_file.read_bytes()))
    assert len(seen) > 40
    for where, text in seen:
        assert_clean(text, where)


@pytest.mark.parametrize("log_format", ["logfmt", "json"])
@pytest.mark.parametrize("flags", [(), ("--config.check",)])
def test_the_password_of_the_database_shows_nowhere(tmp_path: Path, log_format: str, flags: tuple[str, ...]) -> None:
    """A PostgreSQL that is not there: the error names it without its password."""
    url = f"postgresql+psycopg://ops:{quote(DATABASE, safe='')}@127.0.0.1:{free_port()}/state"
    config = (
        f"accounts: [{{name: main, api_url: 'http://127.0.0.1:9', key: k, secret: s}}]\nstore: {{url: \"{url}\"}}\n"
    )
    exporter = Exporter(tmp_path, config, "--log.level=debug", f"--log.format={log_format}", *flags)
    exporter.start(wait=False)
    if not flags:
        # It waits for a database that may only be late. The line of its start, too, names the database.
        eventually(lambda: exporter.log().count("127.0.0.1") > 1, what="the line on the database")
        exporter.signal(signal.SIGTERM)
    assert exporter.wait() == 0
    assert_clean(exporter.log_file.read_bytes(), "the log")


def test_the_needles_find_what_they_shall() -> None:
    """A secret in a URL, in a header and in a basic-auth header would be found."""
    for shown in (quote(KEY), f"Bearer {API}", base64.b64encode(f"ops:{USER}".encode()).decode(), json.dumps(SECRET)):
        with pytest.raises(AssertionError, match="shows a secret"):
            assert_clean(shown.encode(), "this")
