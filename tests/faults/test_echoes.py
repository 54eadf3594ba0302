"""The promise on secrets, where PatrolServer's own replies echo them: nothing of them is kept or shown."""

from __future__ import annotations

import base64
import html
import json
import re
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING
from urllib.parse import quote

import pytest
import requests
from tests.harness.daemons import ServerThread
from tests.harness.process import Exporter
from tests.harness.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

pytestmark = pytest.mark.promise("secrets")

MARK = "c4n4ry"
KEY, SECRET = f"key-{MARK}-0123+/&=%25é'\" x", f"secret-{MARK}-4567"
HOOK, API = f"hook-{MARK}_0123456789~.", f"api-{MARK}_0123456789~."
WEBHOOK = f"https://hook.example.org/webhook/{HOOK}"

SPELLINGS: dict[str, Callable[[str], str]] = {
    "raw": str,
    "repr": repr,
    "repr of bytes": lambda text: repr(text.encode()),
    "percent": lambda text: quote(text, safe=""),
    "percent twice": lambda text: quote(quote(text, safe=""), safe=""),
    "every letter percent": lambda text: "".join(f"%{byte:02x}" for byte in text.encode()),
    "base64": lambda text: base64.b64encode(text.encode()).decode(),
    "base64, shifted": lambda text: base64.b64encode(b"x" + text.encode()).decode(),
    "base64, shifted twice": lambda text: base64.urlsafe_b64encode(b"xx" + text.encode()).decode(),
    "base64 in lines": lambda text: re.sub("(.{40})", "\\1\r\n", base64.b64encode(text.encode()).decode()),
    "base64 of percent": lambda text: base64.b64encode(quote(text, safe="").encode()).decode(),
    "json within json": lambda text: json.dumps({"url": json.dumps(text)}),
    "every letter an escape": lambda text: "".join(f"\\u{ord(letter):04x}" for letter in text),
    "html": lambda text: f'<a href="{html.escape(text)}">',
    "html numbers": lambda text: "".join(f"&#{ord(letter)};" for letter in text),
    "hex": lambda text: text.encode().hex(),
    "capitals": str.upper,
}


def needles() -> Iterator[bytes]:
    """The mark as it may stand in what is shown."""
    mark = MARK.encode()
    yield mark
    yield mark.upper()
    yield mark.hex().encode()
    yield from (base64.b64encode(bytes(shift) + mark)[skip : skip + 7] for shift, skip in ((0, 0), (1, 2), (2, 3)))
    yield "".join(f"%{byte:02x}" for byte in mark).encode()
    yield "".join(f"\\u{byte:04x}" for byte in mark).encode()
    yield "".join(f"&#{byte};" for byte in mark).encode()


def assert_clean(text: bytes, where: str) -> None:
    for needle in needles():
        place = text.find(needle)
        assert place < 0, f"{where} shows a secret: …{text[max(place - 200, 0) : place + 60]!r}…"


NAMES = list(SPELLINGS)


def event_of(echo: str, url: str, server_id: int | None) -> object:
    """An event that says the echo wherever it may say something."""
    software = {"version": echo, "location": echo, "software": {"name": echo, "canonical_name": echo}}
    issues = [{"title": echo, "description": echo, "software": software}, {"title": url, "software": url}, echo]
    data = {"server_id": server_id, "asked": url, echo: echo, "new_issues": issues}
    return {"error": False, "data": data}


def software_of(echo: str, url: str) -> object:
    """A server's software that says the echo wherever it may say something."""
    release = {"name": echo, "canonical_name": "php", "version": "7", "newest_bugfix_release": "8", "url": url}
    exploit = {"id": 1, "risk": 9.5, "title": echo, "url": url}
    data = [{"id": 1, **release, "supported": False, "location": echo, "parent": echo, "exploits": [exploit]}]
    return {"error": False, "data": data, "links": {"self": url}}


def answer(path: str, url: str) -> tuple[int, object]:
    """Status and reply to a call; which spelling it is in, the call's id says."""
    echoes = [" ".join(map(spell, (url, KEY, SECRET, WEBHOOK, API))) for spell in SPELLINGS.values()]
    if path == "/servers":
        servers = [{"id": place + 1, "name": f"web{place} {echo}"} for place, echo in enumerate(echoes)]
        return 200, {"error": False, "data": servers}
    number = int(re.findall(r"\d+", path)[-1]) - 1
    echo = echoes[number % len(echoes)]
    if path.endswith("/software"):
        return 200, software_of(echo, url)
    if path.endswith("/isScanning"):
        return 200, {"error": False, "data": False}
    replies = (
        (200, event_of(echo, url, number + 1)),
        (200, {"error": {"code": echo, "message": echo}}),
        (500, {"error": f"cannot serve {echo}"}),
        (200, [echo]),
        (404, {"error": {"code": 404, "message": echo}}),
        # Of no server, so that its body is kept for the operator.
        (200, event_of(echo, url, None)),
    )
    return replies[number // len(echoes)]


class EchoingApi(ServerThread):
    """Tells in every text of every reply which URL was asked for, and what else it knows, in each spelling."""

    def __init__(self) -> None:
        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                status, reply = answer(self.path.partition("?")[0], f"{self.headers['Host']}{self.path}")
                # Letters as escapes of JSON, here and there.
                split = json.dumps(reply).replace("c4n", "c\\u0034n", 2).replace("/", "\\/")
                body = split.encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        server.daemon_threads = True
        server.block_on_close = False
        super().__init__(server)
        self.base_url = f"http://127.0.0.1:{self.port}"


CONFIG = f"""\
accounts:
  - name: main
    api_url: {{api_url}}
    key: {json.dumps(KEY)}
    secret: {SECRET}
    webhook_tokens: ["{HOOK}"]
poll: {{{{interval: 10s, max_requests_per_minute: 60000, timeout: 2s}}}}
webhook: {{{{max_event_requests_per_minute: 60000}}}}
api: {{{{tokens: [{{{{name: ops, token: "{API}", scopes: [read, inbox, refresh, reload]}}}}]}}}}
store: {{{{url: "sqlite:///{{folder}}/state/state.db"}}}}
"""
OUTLETS = (
    *("/", "/metrics", "/-/ready", "/config", "/api/v1/status", "/api/v1/servers?limit=100", "/api/v1/openapi.json"),
    *("/api/v1/issues?limit=1000", "/api/v1/issues?format=csv", "/api/v1/software", "/api/v1/exploits", "/api/v1/sd"),
    *("/api/v1/changes", "/api/v1/inbox?limit=200"),
    *(f"{place}/{number + 1}" for place in ("/servers", "/api/v1/servers") for number in range(len(NAMES))),
    *(f"/api/v1/servers/{number + 1}/{part}" for part in ("software", "issues") for number in range(len(NAMES))),
)


def outlets(exporter: Exporter, headers: dict[str, str], delivery_ids: Iterable[int]) -> Iterator[tuple[str, bytes]]:
    """All that it shows over HTTP."""
    for path in (*OUTLETS, *(f"/api/v1/inbox/{number}" for number in delivery_ids)):
        yield path, exporter.get(path, headers=headers).content
    gate = requests.post(f"{exporter.url}/api/v1/gate?detail=all", json={"servers": ["*"]}, headers=headers, timeout=10)
    yield "the gate", gate.content


def test_no_reply_that_echoes_its_url_shows_a_secret(tmp_path: Path) -> None:
    """However a reply spells its URL and the tokens, no outlet shows them: pages, API, metrics, log, state file."""
    (tmp_path / "state").mkdir()
    headers = {"Authorization": f"Bearer {API}"}
    with EchoingApi() as api:
        config = CONFIG.format(api_url=api.base_url, folder=tmp_path)
        with Exporter(tmp_path, config, "--log.level=debug") as exporter:

            def listed(path: str) -> list[dict[str, object]]:
                return list(exporter.get(path, headers=headers).json()["items"])

            def polled() -> bool:
                return len({issue["server_id"] for issue in listed("/api/v1/issues?kind=outdated")}) == len(NAMES)

            def tried() -> list[dict[str, object]]:
                rows = listed("/api/v1/inbox?limit=200")
                return rows if not any(row["state"] in {"received", "fetching"} for row in rows) else []

            eventually(polled, what="the polls")
            for event_id in range(1, 6 * len(NAMES) + 1):
                payload = {"webhook_patrolserver": 1, "identifier": "webhook.new_server_issues", "webhook_id": 1}
                delivery = {**payload, "event_id": event_id}
                assert requests.post(f"{exporter.url}/webhook/{HOOK}", json=delivery, timeout=10).status_code == 202
            rows = eventually(tried, what="the events")
            seen = list(outlets(exporter, headers, (int(str(row["id"])) for row in rows)))
            assert exporter.terminate() == 0
    shown = dict(seen)
    kept = [shown[f"/api/v1/inbox/{row['id']}"] for row in rows if row["event_id"] == 5 * len(NAMES) + 1]
    assert b"***" in kept[0]
    assert b'"new_issues' in kept[0].replace(b"\\", b"")
    for where in ("/api/v1/issues?limit=1000", "/metrics", "/", "/servers/1"):
        assert b"***" in shown[where], where
    seen += [(f"state file {path.name}", path.read_bytes()) for path in (tmp_path / "state").iterdir()]
    seen.append(("the log", exporter.log_file.read_bytes()))
    for where, text in seen:
        assert_clean(text, where)
