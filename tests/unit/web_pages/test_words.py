from __future__ import annotations

import pytest

from patrolserver_exporter.web.pages.words import counted, listed, number, place


def test_numbers_have_separators() -> None:
    """Ten thousand servers can be read at a glance."""
    assert number(12_345) == "12,345"


@pytest.mark.parametrize(("count", "words"), [(0, "0 servers"), (1, "1 server"), (2, "2 servers")])
def test_a_noun_follows_its_count(count: int, words: str) -> None:
    """Only one is singular."""
    assert counted(count, "server") == words


def test_an_odd_plural_can_be_given() -> None:
    """Not every plural ends in an s alone."""
    assert counted(2, "delivery", "deliveries") == "2 deliveries"


@pytest.mark.parametrize(
    ("parts", "words"), [([], ""), (["a"], "a"), (["a", "b"], "a and b"), (["a", "b", "c"], "a, b and c")]
)
def test_a_list_ends_with_and(parts: list[str], words: str) -> None:
    """As people write lists."""
    assert listed(parts) == words


@pytest.mark.parametrize(
    ("location", "parent", "words"),
    [
        ("/srv", None, "/srv"),
        ("/srv", "wordpress", "/srv, part of wordpress"),
        (None, "npm", "part of npm"),
        (None, None, ""),
    ],
)
def test_a_place_says_what_is_known(location: str | None, parent: str | None, words: str) -> None:
    """Location and parent, each where there is one."""
    assert place(location, parent) == words
