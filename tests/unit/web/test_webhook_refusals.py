"""Why a delivery is refused stands in the log, and never its token."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

import pytest
from tests.harness.ticking import HeldClock

from patrolserver_exporter.lasting import SAID_AT_ONCE, ThrottledLog
from patrolserver_exporter.web.access_log import AccessLog
from patrolserver_exporter.web.http.requests import not_found_app
from patrolserver_exporter.web.webhook import StrayDeliveries, odd_spelling

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message

log = logging.getLogger("test.refusals")


def status_of(app: ASGIApp, path: str, method: str = "POST", query: bytes = b"") -> int:
    """What the application answers."""
    statuses: list[int] = []

    async def send(message: Message) -> None:
        if message["type"] == "http.response.start":
            statuses.append(message["status"])

    async def receive() -> Message:
        return {"type": "http.request", "body": b"", "more_body": False}

    scope = {
        "type": "http",
        "method": method,
        "path": path,
        "query_string": query,
        "headers": [(b"x-forwarded-for", b"192.0.2.7")],
        "client": ("127.0.0.1", 5),
        "state": {},
    }
    asyncio.run(app(scope, receive, send))  # type: ignore[arg-type]  # a coroutine
    return statuses[0]


@pytest.mark.parametrize("rest", ["canary-token", "canary-token/", "A.b_c~d-9"])
def test_a_slash_behind_the_token_is_no_odd_spelling(rest: str) -> None:
    """People copy addresses with one."""
    assert odd_spelling(rest) is None


@pytest.mark.parametrize(
    ("rest", "named"),
    [
        ("", "without a token"),
        ("/", "two slashes before"),
        ("/canary", "two slashes before"),
        ("canary//", "two slashes behind"),
        ("canary///", "two slashes behind"),
        ("canary/more", "another part beside"),
        ("webhook/canary", "another part beside"),
        ("canary ", "a blank or a line break"),
        ("canary\n", "a blank or a line break"),
        (" canary/", "a blank or a line break"),
        ("<canary>", "a character that no token has"),
        ('"canary"', "a character that no token has"),
        ("canary;", "a character that no token has"),
        ("cänary", "a character that no token has"),
    ],
)
def test_an_odd_spelling_is_named(rest: str, named: str) -> None:
    """By what is odd, and without what is written there."""
    spelling = odd_spelling(rest)
    assert spelling is not None
    assert named in spelling
    assert "canary" not in spelling


def test_a_token_in_the_query_is_named() -> None:
    """Other services take theirs so."""
    assert odd_spelling("", has_query=True) == "with a question mark where the token belongs"


@pytest.mark.parametrize(
    ("prefix", "path", "named"),
    [
        ("", "/webhooks/canary", "another word"),
        ("", "/hook/canary", "another word"),
        ("", "/Webhook/canary", "capital letters in webhook"),
        ("", "//webhook/canary", "two slashes before webhook"),
        ("", "/ps/webhook/canary", "another path before"),
        ("", "/canary/webhook", "another path before"),
        ("/ps", "/webhook/canary", "without /ps/ in front"),
        ("/ps", "/ps//webhook/canary", "two slashes before webhook"),
        ("/ps", "/PS/webhook/canary", "capital letters before"),
        ("/ps", "/other/webhook/canary", "another path before"),
        ("", "/webhook", "without a token"),
        ("", "/canary", None),
        ("", "/", None),
    ],
)
def test_a_delivery_on_another_path_is_named(prefix: str, path: str, named: str | None) -> None:
    """Also where nothing says that it is one: somebody pressed a button and waits."""
    refused: list[str | None] = []
    app = StrayDeliveries(
        not_found_app, lambda _, how: refused.append(how), route_prefix=prefix, webhook_here=True, only_webhook=False
    )
    assert status_of(app, path) == 404
    (spelling,) = refused
    assert (named or "") in (spelling or "")
    assert (spelling is None) is (named is None)
    assert "canary" not in (spelling or "")


@pytest.mark.parametrize(
    ("method", "path"),
    [("POST", "/webhook/canary"), ("POST", "/api/v1/gate"), ("PUT", "/-/reload"), ("GET", "/Webhook")],
)
def test_what_is_meant_goes_on(method: str, path: str) -> None:
    """To whom it is for, without a word."""
    refused: list[str | None] = []
    app = StrayDeliveries(not_found_app, lambda _, how: refused.append(how), webhook_here=True, only_webhook=False)
    status_of(app, path, method)
    assert not refused


def test_a_listener_that_takes_no_webhooks_says_so() -> None:
    """They have one of their own, whose address the flag says."""
    refused: list[str | None] = []
    app = StrayDeliveries(not_found_app, lambda _, how: refused.append(how), webhook_here=False, only_webhook=False)
    assert status_of(app, "/webhook/canary") == 404
    assert "--webhook.listen-address" in str(refused[0])


def test_a_listener_of_webhooks_takes_nothing_else() -> None:
    """What is posted to its API may be a delivery as well."""
    refused: list[str | None] = []
    app = StrayDeliveries(not_found_app, lambda _, how: refused.append(how), webhook_here=True, only_webhook=True)
    status_of(app, "/api/v1/gate")
    status_of(app, "/webhook/canary")
    assert refused == [None]


def test_the_lines_of_one_kind_are_few(caplog: pytest.LogCaptureFixture) -> None:
    """The first as they come, then one a minute, with the number of those that were left out."""
    clock = HeldClock()
    refusals = ThrottledLog(log, clock.monotonic)
    for _ in range(1000):
        refusals.say("token", "A delivery was refused", status=401)
    assert len(caplog.records) == SAID_AT_ONCE
    refusals.say("network", "Another kind")
    assert len(caplog.records) == SAID_AT_ONCE + 1
    clock.advance(60)
    refusals.say("token", "A delivery was refused", status=401)
    assert len(caplog.records) == SAID_AT_ONCE + 2
    assert vars(caplog.records[-1])["fields"] == {"status": 401, "left_out": 1000 - SAID_AT_ONCE}


@pytest.mark.parametrize(
    ("path", "query", "shown"),
    [
        ("/ps/metrics", b"name[]=up", "/ps/metrics?name[]=up"),
        ("/ps/api/v1/servers", b"", "/ps/api/v1/servers"),
        ("/ps/", b"", "/ps/"),
        ("/ps/webhook/canary", b"canary", "/ps/webhook/***"),
        ("/webhook/canary", b"", "/webhook/***"),
        ("/ps/canary/webhook", b"", "/***"),
        ("/canary", b"", "/***"),
        ("//canary", b"", "/***"),
        ("*", b"", "/***"),
    ],
)
def test_every_request_is_a_line_at_debug(
    path: str, query: bytes, shown: str, caplog: pytest.LogCaptureFixture
) -> None:
    """With what was asked and answered, and without what may be a token."""
    caplog.set_level(logging.DEBUG)
    status_of(AccessLog(not_found_app, route_prefix="/ps"), path, query=query)
    fields = vars(next(one for one in caplog.records if one.name.endswith("access_log")))["fields"]
    assert (fields["path"], fields["status"], fields["method"]) == (shown, 404, "POST")
    assert (fields["client"], fields["forwarded_for"]) == ("127.0.0.1", "192.0.2.7")
    assert fields["bytes"] > 0


def test_without_debug_there_is_no_line(caplog: pytest.LogCaptureFixture) -> None:
    """A scrape a second would fill the log."""
    caplog.set_level(logging.INFO)
    status_of(AccessLog(not_found_app), "/metrics")
    assert not caplog.records
