from __future__ import annotations

import asyncio
import gzip
from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.requests import Request

from patrolserver_exporter.web.pages.paths import Paths
from patrolserver_exporter.web.pages.routes import Templates, accepts_html
from patrolserver_exporter.web.pages.words import moment

TEMPLATES = Templates()


class Seen(HTMLParser):
    """What a browser would make of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note the element."""
        self.tags.append(tag)
        self.attributes += attrs

    def handle_data(self, data: str) -> None:
        """Note the text."""
        self.text += data


def answered(detail: str, accept_encoding: str = "identity", scheme: str = "http") -> tuple[dict[str, str], bytes]:
    headers = [(b"accept-encoding", accept_encoding.encode())]
    request = Request({"type": "http", "scheme": scheme, "headers": headers})
    values = {"title": "Not Found", "detail": detail, "way": None, "paths": Paths(), "made": moment(0, 0)}
    response = asyncio.run(TEMPLATES.answer(request, "problem.html", values))
    return dict(response.headers), bytes(response.body)


PLAIN = Seen()
PLAIN.feed(answered("x")[1].decode())


@given(st.text().filter(str.strip))
def test_no_text_becomes_an_element(text: str) -> None:
    """Whatever a text is made of, the page has the same elements and attributes as with an x."""
    seen = Seen()
    seen.feed(answered(text)[1].decode())
    assert (seen.tags, seen.attributes) == (PLAIN.tags, PLAIN.attributes)


def test_the_text_is_shown_as_it_is() -> None:
    """Escaping does not eat it."""
    seen = Seen()
    seen.feed(answered("<b>\"&'")[1].decode())
    assert "<b>\"&'" in seen.text


def test_half_a_character_does_not_break_a_page() -> None:
    """A lone surrogate comes out as a question mark."""
    assert b"a?b" in answered("a\ud800b")[1]


def test_no_script_and_nothing_foreign_can_run() -> None:
    """The policy denies everything that is not allowed, and allows no script, frame or foreign address."""
    headers, body = answered("x")
    policy = headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; style-src 'sha256-")
    assert "unsafe" not in policy
    assert "script-src" not in policy
    assert "frame-ancestors 'none'" in policy
    assert b"<script" not in body
    assert b" style=" not in body
    assert (headers["x-content-type-options"], headers["referrer-policy"]) == ("nosniff", "no-referrer")


def test_pages_are_kept_by_no_cache() -> None:
    """They say which software is vulnerable."""
    assert answered("x")[0]["cache-control"] == "no-store"


def test_a_page_is_zipped_for_who_takes_it() -> None:
    """The same page in a fraction of the bytes."""
    headers, body = answered("x", "gzip, br")
    assert headers["content-encoding"] == "gzip"
    assert headers["content-length"] == str(len(body))
    assert gzip.decompress(body) == answered("x")[1]


def test_within_tls_a_page_has_its_own_length() -> None:
    """Compressed, its length would tell a listener what it holds, a guess at a time."""
    headers, body = answered("x", "gzip, br", "https")
    assert "content-encoding" not in headers
    assert body == answered("x")[1]


@pytest.mark.parametrize(
    ("accept", "html"),
    [
        ("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", True),
        ("TEXT/HTML", True),
        ("application/json, text/html;q=0", False),
        ("application/json", False),
        ("*/*", False),
        ("", False),
        (None, False),
    ],
)
def test_html_is_for_those_who_ask_for_it(accept: str | None, html: bool) -> None:  # noqa: FBT001  # a case
    """Browsers name it; curl and scripts do not."""
    assert accepts_html(accept) is html
