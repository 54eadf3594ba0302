from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from patrolserver_exporter.web.http.addresses import Address
from patrolserver_exporter.web.http.server import ListenError, parse_address


@pytest.mark.parametrize(
    ("text", "address"),
    [
        (":10058", Address("", 10058)),
        ("127.0.0.1:0", Address("127.0.0.1", 0)),
        ("[::1]:1", Address("::1", 1)),
        ("[::]:65535", Address("::", 65535)),
        ("exporter.example.org:80", Address("exporter.example.org", 80)),
    ],
)
def test_parse_address(text: str, address: Address) -> None:
    """An address is read as Go reads it, and written the same."""
    assert parse_address(text) == address
    assert str(address) == text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "write it as host:port"),
        ("10058", "write it as host:port"),
        ("localhost", "write it as host:port"),
        ("localhost:", "the port is a number"),
        ("localhost:http", "the port is a number"),
        (":65536", "the port is a number"),
        (":-1", "the port is a number"),
        (":\u0661", "the port is a number"),
        ("::1:80", "put an IPv6 address in brackets"),
    ],
)
def test_bad_address(text: str, message: str) -> None:
    """What is not an address is refused with what to write."""
    with pytest.raises(ListenError, match=message):
        parse_address(text)


@given(st.text())
def test_any_address(text: str) -> None:
    """Every text is an address or refused."""
    with suppress(ListenError):
        assert 0 <= parse_address(text).port <= 65_535
