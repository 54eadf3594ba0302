"""Where the next page of a list is, and whether the pages that were read are all."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from patrolserver_exporter.patrolserver import paging
from patrolserver_exporter.patrolserver.envelope import Head
from patrolserver_exporter.patrolserver.paging import next_address
from patrolserver_exporter.patrolserver.wire import pages_of_servers, read_servers

BASE = "https://api.example/extern/api"
CURRENT = f"{BASE}/servers"
PAGES = [[{"id": 1, "name": "a"}, {"id": 2, "name": "b"}], [{"id": 3, "name": "c"}]]


@pytest.mark.parametrize(
    ("told", "address"),
    [
        ("?page=2", f"{CURRENT}?page=2"),
        ("servers?page=2", f"{BASE}/servers?page=2"),
        ("/extern/api/servers?page=2", f"{BASE}/servers?page=2"),
        (f"{BASE}/servers/page/2", f"{BASE}/servers/page/2"),
        ("https://API.example:443/extern/api/servers?page=2#x", f"{BASE}/servers?page=2"),
        ("?KEY=a&page=2&secret=b&%6bey=c", f"{CURRENT}?page=2"),
        ("http://api.example/extern/api/servers?page=2", None),
        ("https://api.example:8443/extern/api/servers?page=2", None),
        ("https://api.example.evil.example/extern/api/servers", None),
        ("https://user@api.example/extern/api/servers", None),
        ("//evil.example/extern/api/servers", None),
        ("/servers?page=2", None),
        ("/extern/apix/servers", None),
        ("/extern/api/../../servers", None),
        ("https://api.example/extern/api/../../x", None),
        ("https://api.example/extern/api/%2e%2e/%2e%2e/x", None),
        ("https://api.example/extern/api/%252e%252e/x", None),
        ("https://api.example/extern/api/..%2f..%2fx", None),
        ("/extern/api//evil.example/x", None),
        ("\\\\evil.example\\x", None),
        ("/extern/api/servers?page=2\r\nX: y", None),
        ("/extern/api/servers ?page=2", None),
        ("/extern/api/sérvers", None),
        ("https://[::1", None),
        ("https://api.example:x/extern/api/servers", None),
        ("javascript:alert(1)", None),
        ("", None),
        ("?" + "a" * 5_000, None),
    ],
)
def test_the_next_page_stays_below_the_base(told: str, address: str | None) -> None:
    """Same scheme, host and port, below the base's path, and without credentials of the reply's own."""
    assert next_address(BASE, CURRENT, told, "") == address


@given(
    told=st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=60),
    base=st.sampled_from([BASE, "http://h"]),
)
def test_no_address_leaves_the_base(told: str, base: str) -> None:
    """Whatever a reply says, the next call goes to the API, and carries no credentials but ours."""
    address = next_address(base, f"{base}/servers", told, "scope=exploits")
    if address is not None:
        assert address.startswith(f"{base}/")
        assert not {"key", "secret"} & {name.lower() for name in parse_qs(urlsplit(address).query)}
        assert "scope=" in address


def read(*pages: tuple[dict[str, Any], list[dict[str, Any]]]) -> Any:
    """Read pages as a client would, and then what became of them."""
    reading = pages_of_servers("https://api.example", "servers")
    for number, (members, entries) in enumerate(pages):
        if number and not reading.go_on():
            break
        reading.add(json.dumps({"data": entries, **members}).encode(), Head())
    reading.go_on()
    return reading, read_servers(reading)


@pytest.mark.parametrize(
    ("pages", "why"),
    [
        ([({"last_page": 3}, PAGES[0]), ({"last_page": 3}, PAGES[0])], "page 2 repeats what came before"),
        ([({"next": "?page=2"}, PAGES[0]), ({"next": "?page=1"}, PAGES[1])], None),
        ([({"next": "?page=2"}, PAGES[0]), ({"next": "?page=2"}, PAGES[1])], "next leads back to a page that was read"),
        ([({"next": "/servers"}, PAGES[0])], "next leads back to a page that was read"),
        ([({"total": 5, "next": "?page=2"}, PAGES[0]), ({"total": 5}, PAGES[1])], "total says 5, 3 came"),
        (
            [({"next": "?page=2"}, PAGES[0]), ({}, [PAGES[0][1], PAGES[1][0]])],
            "page 2 repeats some of what came before",
        ),
        (
            [({"next": "?page=2"}, PAGES[0]), ({}, [{**PAGES[0][1], "id": f"0{PAGES[0][1]['id']}"}, PAGES[1][0]])],
            "page 2 repeats some of what came before",
        ),
        ([({"last_page": 2}, PAGES[0]), ({"last_page": 2, "current_page": 4}, PAGES[1])], "current_page says 4"),
        ([({"last_page": 2}, PAGES[0]), ({"last_page": 2, "truncated": True}, PAGES[1])], "truncated says true"),
        ([({"last_page": 2}, PAGES[0]), ({"last_page": 1}, [])], "last_page says 2, then 1"),
        ([({"last_page": 2}, PAGES[0]), ({}, [])], "last_page says 2, and page 2 is empty"),
        ([({"last_page": 3, "next": "?page=2"}, PAGES[0]), ({"last_page": 2}, PAGES[1])], "last_page says 3, then 2"),
        ([({"last_page": 2, "partial": 1}, PAGES[0]), ({"last_page": 2}, PAGES[1])], "partial says 1"),
        ([({"next": 7}, PAGES[0])], "next is set"),
    ],
)
def test_pages_that_do_not_add_up_are_a_part(
    pages: list[tuple[dict[str, Any], list[dict[str, Any]]]], why: str | None
) -> None:
    """Loops, repeats, what is missing at the end, and what any page says of itself."""
    reading, parsed = read(*pages)
    assert not reading.go_on() or why is None
    if why is not None:
        assert f"servers: {why}" in parsed.partial_because
    assert len({one.id for one in parsed.value}) == len(parsed.value)


def test_pages_counted_from_zero_are_read() -> None:
    """Where the first page is called 0, the second is asked for as 1."""
    reading, _ = read(({"number": 0, "totalPages": 2}, PAGES[0]))
    assert reading.url == "https://api.example/servers?page=1"
    _, parsed = read(
        ({"page": {"number": 0, "totalPages": 2}}, PAGES[0]), ({"page": {"number": 1, "totalPages": 2}}, PAGES[1])
    )
    assert parsed.complete


def test_there_is_an_end_to_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    """A list that goes on for ever is read as far as the bound, and is a part."""
    monkeypatch.setattr(paging, "MAX_PAGES", 5)
    reading = pages_of_servers("https://api.example", "servers")
    for number in range(1, 6):
        reading.add(json.dumps({"data": [{"id": number, "name": "a"}], "next": f"?page={number + 1}"}).encode())
        assert reading.go_on() is (number < 5)
    assert "servers: it has more than 5 pages" in read_servers(reading).partial_because
