from __future__ import annotations

import json
import logging
import re
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from patrolserver_exporter.patrolserver.redaction import keep_urls_out_of_logs, redact

SECRETS = st.text(st.characters(exclude_categories=["Cc"], exclude_characters="*"), min_size=4, max_size=40)


@given(text=st.text(), secrets=st.lists(st.text(max_size=12), max_size=3))
def test_redacting_twice_changes_nothing(text: str, secrets: list[str]) -> None:
    """Redaction is idempotent, whatever the text and the secrets."""
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
