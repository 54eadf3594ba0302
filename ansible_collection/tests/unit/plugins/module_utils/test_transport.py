# Copyright: (c) 2026, The patrolserver-exporter founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""HTTP over a real socket: retries, refusals, bounds, and no secret in any message."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import socket
import threading
import time
from urllib.parse import quote, quote_plus

import pytest

from ansible_collections.patrolserver.monitoring.plugins.module_utils import transport
from ansible_collections.patrolserver.monitoring.plugins.module_utils.errors import (
    ConnectionFailed,
    InvalidInput,
    Refused,
    Unreadable,
)
from ansible_collections.patrolserver.monitoring.plugins.module_utils.exporter import Exporter, server_reference
from ansible_collections.patrolserver.monitoring.plugins.module_utils.patrolserver import Api, boolean


def overloaded(count):
    """Return so many answers that ask to come back at once."""
    return [{"status": 503, "headers": {"Retry-After": "0"}}] * count


def test_reads_are_tried_again_up_to_the_limit(stand):
    """Two retries get over two failures, not over three."""
    stand.control(fail=overloaded(2))
    assert len(list(Exporter(stand.exporter_params).servers({}))) == 3
    stand.control(fail=overloaded(3))
    with pytest.raises(Refused, match="HTTP 503"):
        list(Exporter(stand.exporter_params).servers({}))


def test_what_changes_something_is_sent_once(stand):
    """A scan that may have been started is not started again."""
    stand.control(fail=overloaded(1))
    with pytest.raises(Refused):
        Api(stand.api_params).start_scan(7)
    assert [entry["path"] for entry in stand.requests()] == ["/servers/7/scan"]


def test_a_list_of_over_a_hundred_names_is_asked_for_in_parts(stand):
    """No request line grows without bound, and nothing comes twice."""
    names = ["web{0}.example.org".format(number % 3 + 1) for number in range(250)]
    assert len(list(Exporter(stand.exporter_params).servers({"servers": names}))) == 3
    assert len(stand.requests()) == 3


PASSES = '"servers": [{"id": 1, "name": "a", "verdict": "pass"}], "servers_by_verdict": {"pass": 1, "fail": 0, "unknown": 0}'


@pytest.mark.parametrize(
    ("status", "members", "told"),
    [
        (200, '"verdict": "pass", "passed": true, ' + PASSES, None),
        (200, '"verdict": "pass", "passed": true, "verdict": "pass", ' + PASSES, None),
        (203, '"verdict": "pass", "passed": true, ' + PASSES, "HTTP status 203 instead of 200"),
        (200, '"verdict": "fail", "passed": true, "verdict": "pass", ' + PASSES, "has 'verdict' twice, with two values"),
        (200, '"verdict": "pass", "passed": 1, "passed": true, ' + PASSES, "has 'passed' twice, with two values"),
        (200, '"verdict": "pass", "passed": true, "counts": {"low": 1, "low": 0}, ' + PASSES, "has 'low' twice"),
    ],
)
def test_a_verdict_is_taken_from_one_clear_answer_only(stand, status, members, told):
    """One with status 200, in which each member has one value."""
    stand.control(fail=[{"status": status, "body": "{" + members + "}"}])
    exporter = Exporter(stand.exporter_params)
    if told is None:
        assert exporter.gate(["a"], None, {})["passed"]
        return
    with pytest.raises(Unreadable) as caught:
        exporter.gate(["a"], None, {})
    assert told in str(caught.value)


@pytest.mark.parametrize(
    ("kind", "members", "told"),
    [
        ("application/json; charset=utf-8", "", None),
        ("text/html", "", "comes as text/html, and not as JSON"),
        ("application/problem+json", "", r"comes as application/problem\+json"),
        ("", "", "comes as nothing that it names"),
        ("application/json", '"data_age_seconds": NaN, ', "no JSON"),
        ("application/json", '"data_age_seconds": -Infinity, ', "no JSON"),
    ],
)
def test_a_verdict_comes_as_json(stand, kind, members, told):
    """A page that happens to hold one is not the exporter's, and NaN is less than no limit."""
    body = "{" + members + '"verdict": "pass", "passed": true, ' + PASSES + "}"
    stand.control(fail=[{"status": 200, "body": body, "headers": {"Content-Type": kind}}])
    exporter = Exporter(stand.exporter_params)
    if told is None:
        assert exporter.gate(["a"], None, {})["passed"]
        return
    with pytest.raises(Unreadable, match=told):
        exporter.gate(["a"], None, {})


def test_an_answer_that_is_cut_off_is_none(stand):
    """Though what came of it is whole JSON."""
    body = '{"verdict": "pass", "passed": true, ' + PASSES + "}"
    stand.control(fail=[{"status": 200, "body": body, "headers": {"Content-Length": str(len(body) + 9)}}])
    with pytest.raises(ConnectionFailed, match="cut off"):
        Exporter({**stand.exporter_params, "retries": 0}).gate(["a"], None, {})


def test_a_verdict_is_held_against_the_question(stand):
    """Servers, account and policy are those that were asked for."""
    exporter = Exporter(stand.exporter_params)
    passed = exporter.gate(["WEB1.example.org", 2, "*"], "main", {"policy": "production"})
    stand.control(verdict=passed)
    for question in ((["web4.example.org"], None, {}), (["*"], "other", {}), (["*"], None, {"policy": "builtin"})):
        with pytest.raises(Unreadable, match="its answer passes"):
            exporter.gate(*question)


def test_a_redirect_is_not_followed(stand):
    """Credentials go to no other host."""
    stand.control(fail=[{"status": 302, "headers": {"Location": stand.url + "/elsewhere?stolen"}}])
    with pytest.raises(Refused, match="redirects elsewhere") as caught:
        Api(stand.api_params).servers()
    assert "stolen" not in str(caught.value)
    assert [entry["path"] for entry in stand.requests()] == ["/servers"]


def test_nobody_there_is_told_without_the_url(stand):
    """The message names the call, and no query."""
    params = {**stand.api_params, "api_url": "http://127.0.0.1:9", "retries": 0}
    with pytest.raises(ConnectionFailed, match=r"PatrolServer: GET /servers: no answer: 127\.0\.0\.1:9: ") as caught:
        Api(params).servers()
    assert "?" not in str(caught.value)
    assert caught.value.__cause__ is None


@contextlib.contextmanager
def saying(answer):
    """Something that says this to everybody and hangs up; yields host and port."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve():
        with contextlib.suppress(OSError):
            while True:
                client, _where = listener.accept()
                client.recv(65536)
                client.sendall(answer)
                client.close()

    threading.Thread(target=serve, daemon=True).start()
    try:
        yield "127.0.0.1:{0}".format(listener.getsockname()[1])
    finally:
        listener.close()


@pytest.mark.parametrize(
    ("url", "sent"),
    [("http://127.0.0.1:9", False), ("http://nosuch.invalid", False), ("http://{0}", True)],
)
def test_a_request_that_never_left_is_told_from_one_without_an_answer(stand, url, sent):
    """The one has changed nothing, the other may have."""
    with saying(b"") as place, pytest.raises(ConnectionFailed) as caught:
        Exporter({**stand.exporter_params, "exporter_url": url.format(place)}).refresh_many({"servers": ["a"]})
    assert caught.value.sent is sent


NO_TUNNEL = b"HTTP/1.1 407 Who are you\r\nContent-Length: 0\r\n\r\n"


@pytest.mark.parametrize(
    ("answer", "options", "advice"),
    [
        (None, {"exporter_url": "http://127.0.0.1:9"}, "check exporter_url, that it runs there, and that it can be reached"),
        (None, {"exporter_url": "http://nosuch.invalid"}, "check the host in exporter_url, and this machine's name service"),
        (b"", {"exporter_url": "http://{0}"}, "check exporter_url, and whether it wants https://"),
        (b"SSH-2.0-x\r\n", {"exporter_url": "http://{0}"}, "check exporter_url, and whether it wants https://"),
        (b"HTTP/1.1 400 No\r\n\r\n", {"exporter_url": "https://{0}"}, "check whether it takes http:// only, and client_cert"),
        (b"HTTP/1.1 404 No\r\n\r\n", {"exporter_url": "http://{0}"}, "HTTP 404: whatever answers does not say why; check exporter_url"),
        (NO_TUNNEL, {"exporter_url": "http://x.invalid", "proxy_url": "http://{0}"}, "HTTP 407: whatever answers does not say why; check the proxy"),
        (NO_TUNNEL, {"exporter_url": "https://x.invalid", "proxy_url": "http://{0}"}, "check the proxy, its credentials, and what it lets through"),
        (None, {"exporter_url": "http://x.invalid", "proxy_url": "127.0.0.1:9"}, "check exporter_url and proxy_url, that it runs there"),
    ],
)  # fmt: skip
def test_a_message_says_what_to_do(stand, answer, options, advice):
    """Whatever it is that does not answer, or answers what no exporter does."""
    with saying(answer or b"") as place:
        params = {**stand.exporter_params, "retries": 0, **{name: value.format(place) for name, value in options.items()}}
        with pytest.raises((ConnectionFailed, Refused)) as caught:
            Exporter(params).status()
    assert advice in str(caught.value)


def test_the_proxy_of_the_environment_is_told(stand, monkeypatch):
    """By host and port."""
    monkeypatch.setenv("http_proxy", "http://someone:canary@127.0.0.1:9")
    with pytest.raises(ConnectionFailed, match="x.invalid:80 through the proxy 127.0.0.1:9: ") as caught:
        Exporter({**stand.exporter_params, "retries": 0, "exporter_url": "http://x.invalid"}).status()
    assert "canary" not in str(caught.value)


def test_an_error_with_status_200_is_one(stand):
    """PatrolServer may say so; its text may repeat the URL."""
    stand.control(fail=[{"body": '{"error": {"code": 15, "message": "secret=' + stand.api_params["api_secret"] + '"}}'}])
    with pytest.raises(Refused, match=r"15: secret=\*") as caught:
        Api(stand.api_params).servers()
    assert caught.value.status == 200


@pytest.mark.parametrize("body", ["<html>", '{"data": ', '{"items": {}}', "[]", '{"items": [1]}'])
def test_an_answer_that_is_no_page_is_no_empty_page(stand, body):
    """Broken JSON, another shape, an item that is no object."""
    stand.control(fail=[{"body": body}])
    with pytest.raises(Unreadable):
        list(Exporter(stand.exporter_params).servers({}))


def test_an_endless_answer_is_cut(stand, monkeypatch):
    """The limit is what is read, not what is announced."""
    monkeypatch.setattr(transport, "MAX_BODY", 1000)
    stand.control(fail=[{"body": "[" + "1," * 1000 + "1]"}])
    with pytest.raises(Unreadable, match="larger than 1000 bytes"):
        Exporter(stand.exporter_params).transport.get("/x")


def test_an_explicit_proxy_is_used_and_the_environment_is_left_as_it_was(stand, monkeypatch):
    """It holds for the one call, also against no_proxy."""
    monkeypatch.setenv("no_proxy", "*")
    params = {**stand.exporter_params, "exporter_url": "http://exporter.invalid", "proxy_url": stand.url}
    assert len(list(Exporter(params).servers({}))) == 3
    assert os.environ["no_proxy"] == "*"
    assert "http_proxy" not in os.environ


@contextlib.contextmanager
def dripping(head):
    """A server that sends the head and then a blank every tenth of a second; yields its URL."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve():
        with contextlib.suppress(OSError):
            while True:
                client, _where = listener.accept()
                client.sendall(head)
                for _tick in range(100):
                    time.sleep(0.1)
                    client.sendall(b" ")

    threading.Thread(target=serve, daemon=True).start()
    try:
        yield "http://127.0.0.1:{0}".format(listener.getsockname()[1])
    finally:
        listener.close()


@pytest.mark.parametrize("head", [b"HTTP/1.1 200 OK\r\nX: ", b"HTTP/1.1 200 OK\r\n\r\n", b"HTTP/1.1 503 No\r\n\r\n", b""])
def test_the_timeout_bounds_the_whole_call(stand, head):
    """However the answer drips, and with all retries."""
    with dripping(head) as url:
        begun = time.monotonic()
        with pytest.raises(ConnectionFailed, match=r"no answer: 127\.0\.0\.1:\d+: no whole answer within 0\.5 seconds"):
            list(Exporter({**stand.exporter_params, "exporter_url": url, "timeout": 0.5}).servers({}))
        assert time.monotonic() - begun < 3


def test_a_retry_that_would_come_too_late_is_not_waited_for(stand):
    """The refusal is told at once."""
    stand.control(fail=[{"status": 503, "headers": {"Retry-After": "20"}}])
    begun = time.monotonic()
    with pytest.raises(Refused, match="HTTP 503"):
        list(Exporter(stand.exporter_params).servers({}))
    assert time.monotonic() - begun < 3


def test_the_answer_of_a_peer_is_told_in_one_line_and_cut(stand):
    """A page of text in an error makes no page of a message."""
    stand.control(fail=[{"status": 400, "body": json.dumps({"detail": "a\nb\x1b[31m" + "c" * 5000})}])
    with pytest.raises(Refused, match=r"HTTP 400: a b \[31mccc") as caught:
        list(Exporter(stand.exporter_params).servers({}))
    assert len(str(caught.value)) < 1200


@pytest.mark.parametrize("form", [str, repr, quote, quote_plus, lambda text: base64.b64encode(text.encode()).decode()])
def test_a_peer_that_repeats_the_credentials_tells_nobody(stand, form):
    """Neither a token nor the two parts of basic authentication, however it spells them."""
    params = {**stand.exporter_params, "token": None, "username": "someone", "password": "canary/pass word+1\n"}
    header = "Basic " + base64.b64encode(b"someone:canary/pass word+1").decode()
    for leak in (header, header[6:], "someone:canary/pass word+1", "canary/pass word+1"):
        stand.control(fail=[{"status": 400, "body": json.dumps({"detail": "you sent " + form(leak)})}])
        with pytest.raises(Refused, match="you sent") as caught:
            list(Exporter(params).servers({}))
        for spelling in (form(leak), leak, header[6:], "canary", "pass word"):
            assert spelling not in str(caught.value)


def test_retry_after_is_understood_within_bounds():
    """Seconds and dates, never negative, never for long; nonsense is nothing."""
    assert transport.retry_after_seconds("7") == 7
    assert transport.retry_after_seconds("86400") == transport.BACKOFF_CAP
    assert transport.retry_after_seconds("Wed, 21 Oct 2015 07:28:00 GMT") == 0
    assert transport.retry_after_seconds("Wed, 21 Oct 2099 07:28:00 GMT") == transport.BACKOFF_CAP
    for nonsense in ("-3", "soon", "", None):
        assert transport.retry_after_seconds(nonsense) is None


def test_pauses_grow_and_are_bounded():
    """Full jitter below a doubling bound, at least what was asked for."""
    for attempt in range(40):
        assert 0 <= transport.backoff(attempt, None) <= min(30, 0.5 * 2**attempt)
        assert 7 <= transport.backoff(attempt, 7) <= 30


@pytest.mark.parametrize(("value", "meant"), [(True, True), (1, True), ("1", True), ("Yes", True), (0, False), ("false", False)])
def test_booleans_in_every_form(value, meant):
    """PHP's, JSON's and people's."""
    assert boolean(value) is meant


@pytest.mark.parametrize("value", ["perhaps", 2, [], {}])
def test_what_is_neither_yes_nor_no_is_not_no(value):
    """A scan does not end because an answer is odd."""
    with pytest.raises(Unreadable):
        boolean(value)


def test_references_are_ids_or_names():
    """Digits may be either, which the exporter decides; an empty name is a mistake."""
    assert server_reference(" 12 ") == "12"
    assert server_reference("web1") == "web1"
    with pytest.raises(InvalidInput):
        server_reference("  ")
