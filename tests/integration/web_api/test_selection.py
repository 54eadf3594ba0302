from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from msgspec.structs import replace
from tests.harness.api import put_server

from patrolserver_exporter.store import Store, fleet, queries
from patrolserver_exporter.store.queries import Selector
from patrolserver_exporter.store.queries import servers_meant as find
from patrolserver_exporter.web.api import endpoint
from patrolserver_exporter.web.http.requests import ApiError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from patrolserver_exporter.store import Unit

SERVERS = [
    ("main", 1, "web1.example.org"),
    ("main", 2, "web2.example.org"),
    ("main", 3, "*"),
    ("main", 4, "7"),
    ("main", 5, "odd/name?"),
    ("other", 7, "db1.example.org"),
    ("other", 8, "web1.example.org"),
]


@pytest.fixture
def store(store_url: str) -> Iterator[Store]:
    with Store(store_url) as opened:

        def put(unit: Unit) -> None:
            for account, server_id, name in SERVERS:
                put_server(unit, server_id, name, account=account)
            gone = put_server(unit, 9, "web9.example.org")
            fleet.save_servers(unit.connection, [replace(gone, gone_at=1.0)])

        opened.run(put)
        yield opened


def ids(store: Store, asked: int | str, *accounts: str) -> list[int]:
    selector = Selector.of(asked)
    found = store.run(lambda unit: find(unit.connection, [selector], accounts))
    return sorted(server.server_id for server in found[selector])


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        (1, [1]),
        ("1", [1]),
        (7, [7]),
        ("7", [4, 7]),
        ("web2.example.org", [2]),
        ("WEB2.Example.org", [2]),
        ("web1.example.org", [1, 8]),
        ("web?.example.org", [1, 2, 8]),
        ("WEB*", [1, 2, 8]),
        ("*", [1, 2, 3, 4, 5, 7, 8]),
        ("odd/name?", [5]),
        ("web9.example.org", []),
        ("web*9*", []),
        (9, []),
        ("", []),
        ("nosuch", []),
        ("9" * 16, []),
    ],
)
def test_ids_names_and_globs_find_their_servers(store: Store, asked: int | str, found: list[int]) -> None:
    """Digits are an id or a name; a name that is not there exactly is found without regard to case; gone is gone."""
    assert ids(store, asked) == found


@pytest.mark.parametrize(
    ("asked", "number"), [("9007199254740991", 9_007_199_254_740_991), ("9007199254740992", None), ("0", None)]
)
def test_digits_are_an_id_up_to_the_largest(asked: str, number: int | None) -> None:
    """From 1 to 2⁵³−1; other digits can only be a name."""
    assert Selector.of(asked).number == number


def test_accounts_narrow_the_search(store: Store) -> None:
    """With an account only its servers are meant."""
    assert ids(store, "web1.example.org", "other") == [8]
    assert ids(store, "*", "nobody") == []


def test_a_name_does_not_stand_in_the_way_of_an_id(store: Store) -> None:
    """A server that is called like another's id hides it from nobody, and can be asked for by its own."""
    store.run(lambda unit: put_server(unit, 70, "8", account="other"))
    assert store.run(lambda unit: endpoint.only_one(unit.connection, "8", None)) == ("other", 8)
    assert store.run(lambda unit: endpoint.only_one(unit.connection, "70", None)) == ("other", 70)


def test_a_path_means_one_server(store: Store) -> None:
    """A glob is only a name there; a name in two accounts is a 409 that tells them apart."""

    def one(asked: str, account: str | None = None) -> queries.ServerKey:
        return store.run(lambda unit: endpoint.only_one(unit.connection, asked, account))

    assert one("*") == ("main", 3)
    assert one("web1.example.org", "other") == ("other", 8)
    with pytest.raises(ApiError) as ambiguous:
        one("web1.example.org")
    assert (ambiguous.value.status, ambiguous.value.extra["accounts"]) == (409, ["main", "other"])
    with pytest.raises(ApiError) as unknown:
        one("web9.example.org")
    assert unknown.value.status == 404
