"""The vendor's clients, spoken as they speak: the Bash scanner's whole run, and the SDK's webhook receiver."""

from __future__ import annotations

import json
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs
from urllib.request import Request, urlopen

import pytest
from tests.harness.daemons import ServerThread

from patrolserver_exporter.simulator import Format, Simulator, SimulatorOptions, Style

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PACKAGES = (
    '[{"l":"/","p":"","n":"adduser","v":"3.134"},{"n":"g++-12","v":"12.2.0-14"},{"n":"it\\\'s","v":"1.0+dfsg & co"},'
    '{"n":"php","v":"5.2.17"},{"l":"/var/www/blog","n":"wordpress","v":"4.9.26"},'
    '{"p":"wordpress","n":"wordpress:akismet","v":"5.3.1"},{"n":"wordpress:hello","v":""},{}]'
)
"""What the scanner's awk script makes of a Debian machine with a blog, its apostrophe and its last line included."""


class Scanner:
    """Talks like the scanner: wget, which shows nothing of a failed reply, and the text of the JSON as it stands."""

    def __init__(self, home: str) -> None:
        self._home = home

    def wget(self, path: str, post: str | None = None) -> Any:
        """Fetch, with a body as it would be in the file given to ``--post-file``."""
        headers = {"X-PS-Bash": "1", "User-Agent": "Wget/1.21.3"}
        body = None if post is None else post.encode()
        if body is not None:
            headers["Content-Type"] = "application/x-www-form-urlencoded"
        with urlopen(Request(self._home + path, body, headers), timeout=10) as reply:
            text = reply.read().decode()
        assert text, "patrolserver.com is not reachable, contact us"
        return json.loads(text)


def encoded(text: str) -> str:
    """What the scanner's sed script encodes, and nothing else: quotes and apostrophes stay."""
    for character in "% <>#{}|^~[]`;/?:@=&!*+":
        text = text.replace(character, f"%{ord(character):02X}")
    return text


def as_printed(value: object) -> str:
    """An id as the scanner cuts it out of the JSON: of a string with its quotes, which wget then encodes."""
    return json.dumps(value).replace('"', "%22")


@pytest.mark.parametrize("style", [*Style])
@pytest.mark.parametrize("folder", ["software_bucket", "buckets"])
def test_the_scanners_whole_run(style: Style, folder: str) -> None:
    """Register, create and verify the server, push, scan, wait, read the software, change the address, leave."""
    options = SimulatorOptions(listen_address="127.0.0.1:0", style=style, scan_seconds=0.2)
    with Simulator(options) as simulator:
        scanner = Scanner(simulator.base_url)
        assert "error" not in scanner.wget("/extern/api/serverExists?host=new.example.net")

        email, password = "tmp-Ab1@new.example.net", "Ab1Cd2Ef3"
        post = f"email={encoded(email)}&password={password}&password_confirmation={password}"
        registered = scanner.wget("/extern/api/users", post)["data"]
        keys = "key={key}&secret={secret}".format(**registered["api_credentials"])
        assert registered["user"]["email"] == email

        assert scanner.wget(f"/extern/api/servers?{keys}") == {"data": []}
        created = scanner.wget(f"/extern/api/servers?{keys}", "domain=new.example.net")["data"]
        (server,) = scanner.wget(f"/extern/api/servers?{keys}")["data"]
        assert server == created
        assert (server["name"], server["verified"]) == ("new.example.net", False)
        path = f"/extern/api/servers/{as_printed(server['id'])}"
        token = scanner.wget("/extern/api/request_verification_token?domain=new.example.net")["data"]["token"]
        assert "error" not in scanner.wget(f"{path}/verify?{keys}", f"token={token}")
        assert scanner.wget(f"/extern/api/servers?{keys}")["data"][0]["verified"] is True

        pushed = f"expire=129600&software={encoded(PACKAGES)}\n"
        assert "error" not in scanner.wget(f"{path}/{folder}/BashScanner?{keys}&scope=silent", pushed)
        assert "error" not in scanner.wget(f"{path}/scan?{keys}", "not=used")
        assert scanner.wget(f"{path}/isScanning?{keys}") == {"data": True}
        _until(lambda: scanner.wget(f"{path}/isScanning?{keys}") == {"data": False})

        found = scanner.wget(f"{path}/software?{keys}&scope=exploits")["data"]
        assert [_as_the_scanner_words_it(one) for one in found] == [
            "/ adduser: 3.134",
            "/ g++-12: 12.2.0-14",
            "/ it's: 1.0+dfsg & co",
            "/ php: 5.2.17, not supported anymore",
            "/var/www/blog wordpress: 4.9.26, not supported anymore",
            "/var/www/blog wordpress > akismet: 5.3.1, update to 5.3.5",
            "/var/www/blog wordpress > hello: version not detected",
        ]

        taken = scanner.wget(f"/extern/api/user?{keys}", f"email={encoded('demo@example.org')}")
        assert str(taken["error"]["code"]) == "82"
        moved = scanner.wget(f"/extern/api/user?{keys}", f"email={encoded('real@example.net')}")
        assert moved["data"]["email"] == "real@example.net"
        assert str(scanner.wget("/extern/api/serverExists?host=new.example.net")["error"]["code"]) == "15"
        login = scanner.wget(
            "/api/user/request_api_credentials", f"email={encoded('real@example.net')}&password={password}"
        )
        assert login["api_credentials"] == registered["api_credentials"]
        scanner.wget(f"/extern/api/user/delete?{keys}", "not=used")
        assert "error" in scanner.wget(f"/extern/api/servers?{keys}")


def test_the_scanners_logins_that_fail() -> None:
    """A wrong password, and the block that a test orders by the control interface."""
    with Simulator(SimulatorOptions(listen_address="127.0.0.1:0")) as simulator:
        scanner = Scanner(simulator.base_url)
        login, post = "/api/user/request_api_credentials", f"email={encoded('demo@example.org')}&password="
        assert scanner.wget(login, post + "wrong")["error"]["code"] == "wrong_credentials"
        order = {"email": "demo@example.org", "login_error": "different_country"}
        _order(simulator, "accounts", order)
        assert scanner.wget(login, post + "demo")["error"]["code"] == "different_country"
        _order(simulator, "accounts", order | {"login_error": None})
        assert scanner.wget(login, post + "demo")["user"]["email"] == "demo@example.org"


@pytest.mark.parametrize("style", [Style.PLAIN, Style.STRINGS])
def test_the_sdks_webhook_receiver(style: Style) -> None:
    """A form in ``$_POST`` with all four fields; the event can be fetched before the receiver has answered."""
    events: list[tuple[str, Any]] = []

    def receive(post: dict[str, str]) -> None:
        assert post["webhook_patrolserver"] == "1"
        url = (
            f"{simulator.base_url}/webhooks/{post['webhook_id']}/events/{post['event_id']}"
            f"?key={simulator.options.key}&secret={simulator.options.secret}"
        )
        with urlopen(url, timeout=10) as reply:
            events.append((post["identifier"], json.load(reply)["data"]))

    with php_receiver(receive) as url:
        options = SimulatorOptions(
            listen_address="127.0.0.1:0", style=style, webhook_urls=(url,), webhook_format=Format.FORM
        )
        with Simulator(options) as simulator:
            _order(simulator, "events", {"identifier": "webhook.test"})
            _order(simulator, "break", {"server": "web-01.example.org", "software": "php"})
            _order(simulator, "scan", {"server": 2, "seconds": 0.01})
            _until(lambda: len(events) == 4)
            assert simulator.postman.drain(10)
            assert simulator.postman.counts() == {"200": 4, "waiting": 0}
    told = dict(events)
    assert sorted(told) == [
        "webhook.new_server_issues",
        "webhook.scan_finished",
        "webhook.scan_started",
        "webhook.test",
    ]
    # The SDK logs an event without data as invalid.
    assert all(told.values())
    assert str(told["webhook.scan_finished"]["server_id"]) == "2"
    assert told["webhook.new_server_issues"]["new_issues"][0]["software"]["software"]["canonical_name"] == "php"


@contextmanager
def php_receiver(receive: Callable[[dict[str, str]], None]) -> Iterator[str]:
    """A receiver that sees what PHP has in ``$_POST``: only forms."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            is_form = self.headers["Content-Type"] == "application/x-www-form-urlencoded"
            receive({name: values[-1] for name, values in parse_qs(body.decode()).items()} if is_form else {})
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_arguments: object) -> None:
            """Say nothing."""

    with ServerThread(ThreadingHTTPServer(("127.0.0.1", 0), Handler)) as server:
        yield f"http://127.0.0.1:{server.port}/patrolserver/webhook"


def _as_the_scanner_words_it(software: dict[str, Any]) -> str:
    """The scanner's own rules; a ``null`` would be printed as a word."""
    version, newest = software.get("version", ""), software.get("newest_bugfix_release", "")
    assert version is not None
    assert newest is not None
    if "versions" in software:
        version = f"<={software['versions'][0]}"
    words = f", update to {newest}" if newest else ", not supported anymore"
    if software.get("supported") == "yes":
        words = ""
    parent = f"{software['parent']} > " if software["parent"] is not None else ""
    return f"{software['location']} {parent}{software['name']}: " + (
        f"{version}{words}" if version else "version not detected"
    )


def _order(simulator: Simulator, path: str, order: dict[str, Any]) -> Any:
    url = f"{simulator.base_url}/-/simulator/{path}"
    with urlopen(Request(url, json.dumps(order).encode()), timeout=10) as reply:
        return json.load(reply)


def _until(holds: Callable[[], bool], within: float = 10.0) -> None:
    end = time.monotonic() + within
    while not holds():
        assert time.monotonic() < end, "it did not come about in time"
        time.sleep(0.01)
