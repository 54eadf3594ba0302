from __future__ import annotations

import datetime as dt
import sys
from functools import partial
from typing import TYPE_CHECKING

import pytest

from patrolserver_exporter.config import values
from patrolserver_exporter.config.problem import Unfit

if TYPE_CHECKING:
    from collections.abc import Callable

WHOLE = partial(values.whole_number, least=0, most=None)
TO_TEN = partial(values.number, least=0, most=10)


@pytest.mark.parametrize(
    ("parse", "text", "value"),
    [
        (values.name, "n" * 64, "n" * 64),
        (values.name, "Büro 1", "Büro 1"),
        (values.boolean, "false", False),
        (WHOLE, "0", 0),
        (TO_TEN, "10", 10.0),
        (TO_TEN, "0.5", 0.5),
        (values.date, "2028-02-29", dt.date(2028, 2, 29)),
        (values.api_url, "HTTPS://api.example.org:8443/extern/api//", "HTTPS://api.example.org:8443/extern/api"),
        (values.api_url, "http://[::1]:10059", "http://[::1]:10059"),
        (values.proxy_url, "http://user:p%2Fw@proxy:3128/", "http://user:p%2Fw@proxy:3128/"),
        (values.store_url, "sqlite:///patrolserver.db", "sqlite:///patrolserver.db"),
        *(
            (values.store_url, url, url)
            for url in (
                "postgresql+psycopg://user:p%40s/s?:w@[::1]:5432/d",
                "postgresql+psycopg:///d?host=/var/run/postgresql&user=me@here",
                "postgresql+psycopg://@/d",
                "postgresql+psycopg://user@host?sslmode=require",
            )
        ),
        (
            values.store_url,
            "postgresql+psycopg:///database?host=/run/postgresql",
            "postgresql+psycopg:///database?host=/run/postgresql",
        ),
        (values.token, "aA0-._~x", "aA0-._~x"),
    ],
)
def test_fits(parse: Callable[[str], object], text: str, value: object) -> None:
    """What fits is returned typed."""
    assert parse(text) == value


@pytest.mark.parametrize(
    ("parse", "text"),
    [
        (values.name, "n" * 65),
        (values.name, " n"),
        (values.name, "a\u202eb"),
        (values.text, "x" * 1025),
        (values.text, "\ud800"),
        (values.boolean, "True"),
        (WHOLE, "٣"),
        (WHOLE, "1_000"),
        (WHOLE, "1" * 5000),
        (partial(WHOLE, least=5), "4"),
        (TO_TEN, "nan"),
        (TO_TEN, ".5"),
        (TO_TEN, "1e1"),
        (values.date, "20280229"),
        (values.date, "2028-W09-2"),
        (values.network, "10.0.0.0/33"),
        (values.network, "2001:db8::1/32"),
        (values.network, "10.0.0.0/255.0.0.1"),
        (values.network, "1"),
        (values.api_url, "https://"),
        (values.api_url, "https://[::1"),
        (values.api_url, "https://h:99999"),
        (values.api_url, "https://h:0"),
        (values.api_url, "https://h/?"),
        (values.api_url, "https://h/#"),
        (values.api_url, "https://a b/"),
        (values.api_url, "api.example.org"),
        (values.proxy_url, "http://proxy/path"),
        (values.store_url, "sqlite://"),
        (values.store_url, "sqlite:///"),
        (values.store_url, "sqlite://host/file"),
        (values.store_url, "sqlite:///file:x?mode=memory&uri=true"),
        (values.store_url, "mysql://h/d"),
        (values.store_url, "postgresql+psycopg://"),
        (values.store_url, "postgresql+psycopg://user:pass@host:port/d"),
        (values.store_url, "postgresql+psycopg://user:pass@host:99999/d"),
        (values.store_url, "postgresql+psycopg://user:pass@host:0/d"),
        (values.store_url, "postgresql+psycopg://user:p@ss@host/d"),
        (values.store_url, "patrolserver.db"),
        (values.token, "x" * 1025),
        (values.token, "abcdefgh/"),
    ],
)
def test_does_not_fit(parse: Callable[[str], object], text: str) -> None:
    """What does not fit is refused in one line."""
    with pytest.raises(Unfit) as caught:
        parse(text)
    assert str(caught.value).isprintable()


def test_postgresql_without_its_driver_is_a_mistake_of_the_configuration(monkeypatch: pytest.MonkeyPatch) -> None:
    """An installation without the extra says what is missing, and does not end in a traceback."""
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(Unfit, match="extra postgres"):
        values.store_url("postgresql+psycopg://user@host/d")


@pytest.mark.parametrize(
    ("text", "network"),
    [
        ("192.0.2.1", "192.0.2.1/32"),
        ("2001:db8::1", "2001:db8::1/128"),
        ("10.0.0.0/255.0.0.0", "10.0.0.0/8"),
        ("0.0.0.0/0", "0.0.0.0/0"),
    ],
)
def test_networks(text: str, network: str) -> None:
    """One address is a network of its own."""
    assert str(values.network(text)) == network
