from __future__ import annotations

import base64
import html
import json
import logging
import re
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from patrolserver_exporter.redaction import keep_urls_out_of_logs, may_hold, redact, redact_document

SECRETS = st.text(st.characters(exclude_categories=["Cc"], exclude_characters="*"), min_size=4, max_size=40)


@given(text=st.text(), secrets=st.lists(st.text(st.characters(exclude_characters="*"), max_size=12), max_size=3))
def test_redacting_twice_changes_nothing(text: str, secrets: list[str]) -> None:
    """Redaction is idempotent, whatever the text and the secrets; an asterisk in a secret is the one exception."""
    masked = redact(text, secrets)
    assert redact(masked, secrets) == masked


@given(before=st.text(max_size=20), secret=SECRETS, after=st.text(max_size=20))
def test_a_secret_is_masked_however_it_is_spelled(before: str, secret: str, after: str) -> None:
    """Raw, percent-encoded (also in lower case, twice, or with plus signs) and escaped by JSON: nothing is left."""
    encodable = secret.encode("utf-8", "replace").decode()
    for spelled in (
        secret,
        quote(encodable, safe=""),
        quote(encodable),
        re.sub("%..", lambda code: code[0].lower(), quote(encodable, safe="")),
        quote(quote(encodable, safe=""), safe=""),
        quote_plus(encodable),
        json.dumps(secret)[1:-1],
        json.dumps(secret)[1:-1].replace("/", "\\/"),
    ):
        masked = redact(f"{before}\n{spelled}\n{after}", [secret, encodable])
        assert f"\n{spelled}\n" not in masked


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("/servers?key=abc&secret=def&scope=exploits", "/servers?key=***&secret=***&scope=exploits"),
        ("https://h/p?KEY=a%26b", "https://h/p?KEY=***"),
        ("next=%2Fservers%3Fkey%3Dabc%26secret%3Ddef end", "next=%2Fservers%3Fkey%3D*** end"),
        ("api_key=abc", "api_key=***"),
        ("monkey=banana", "monkey=banana"),
        ('"key=abc" after', '"key=***" after'),
    ],
)
def test_credentials_in_a_query_are_masked_without_being_known(text: str, masked: str) -> None:
    """The parameters ``key`` and ``secret`` are masked by name."""
    assert redact(text, ()) == masked


WORD = "c4n4ry-0123456789+/&=%25 é'\""
URL = f"https://api.example.org/servers?key={quote(WORD, safe='')}&scope=exploits"


@pytest.mark.parametrize(
    "spelled",
    [
        WORD.upper(),
        repr(WORD),
        repr(WORD.encode()),
        html.escape(WORD),
        "".join(f"&#{ord(letter)};" for letter in WORD),
        "".join(f"&#x{ord(letter):X}" for letter in WORD) + ";",
        "".join(f"\\u{ord(letter):04x}" for letter in WORD),
        "".join(f"\\u{{{ord(letter):x}}}" for letter in WORD),
        "".join(f"%u{ord(letter):04x}" for letter in WORD),
        "".join(f"%{byte:02x}" for byte in WORD.encode()),
        quote(WORD.encode("latin-1"), safe=""),
        quote(json.dumps(WORD), safe=""),
        json.dumps(json.dumps(json.dumps(WORD))),
        WORD.encode().hex(),
        *(base64.b64encode(b"x" * shift + WORD.encode()).decode() for shift in range(3)),
        *(base64.urlsafe_b64encode(b"x" * shift + URL.encode()).decode() for shift in range(3)),
        quote(base64.b64encode(URL.encode()).decode(), safe=""),
        base64.encodebytes(URL.encode()).decode(),
        json.dumps(base64.encodebytes(2 * URL.encode()).decode()),
    ],
)
def test_spellings_of_other_languages_are_masked(spelled: str) -> None:
    """Escapes of JSON, Python, PHP and HTML in each other, base64 of whole URLs, in lines too: all is masked."""
    masked = redact(f"before {spelled} after", [WORD])
    rest = masked.removeprefix("before ").removesuffix(" after")
    assert "***" in rest
    assert not re.search("[A-Za-z0-9]{3}", rest)
    assert may_hold(spelled.encode(), [WORD])
    assert may_hold(json.dumps(spelled).encode(), [WORD])


def test_a_document_is_masked_in_every_text() -> None:
    """Names of members, texts in lists, and numbers: whatever an API may echo is masked; the rest stays as it is."""
    document = {"a": [WORD, 1, None, True, 1.5], WORD: {"pin": 12345678, "pi": 3.5}, "url": "?key=demo&x=1"}
    assert redact_document(document, [WORD, "12345678"]) == {
        "a": ["***", 1, None, True, 1.5],
        "***": {"pin": "***", "pi": 3.5},
        "url": "?key=***&x=1",
    }


def test_the_longer_of_two_secrets_goes_first() -> None:
    """A secret that begins with another leaves no tail."""
    assert redact("x abcdef y", ["abc", "abcdef"]) == "x *** y"


def test_log_lines_of_urllib3_lose_their_queries(caplog: pytest.LogCaptureFixture) -> None:
    """Whatever urllib3 logs, the query is masked and no traceback goes along; other loggers are left alone."""
    keep_urls_out_of_logs()
    keep_urls_out_of_logs()
    with caplog.at_level(logging.DEBUG):
        logging.getLogger("urllib3.connectionpool").debug('"%s %s"', "GET", "/a?key=canary&secret=canary")
        logging.getLogger("urllib3.connection").warning(
            "Failed to parse headers (url=%s)", "http://h/a?x=canary", exc_info=ValueError("canary")
        )
        logging.getLogger("urllib3").warning("untouched?yes")
    assert caplog.messages == ['"GET /a?***"', "Failed to parse headers (url=http://h/a?***", "untouched?yes"]
    assert "canary" not in caplog.text
    assert len(logging.getLogger("urllib3.connectionpool").filters) == 1
