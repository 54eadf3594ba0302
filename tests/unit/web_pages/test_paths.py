from __future__ import annotations

from urllib.parse import parse_qsl, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from patrolserver_exporter.issues.model import Kind, Severity
from patrolserver_exporter.store.views import as_server_id
from patrolserver_exporter.web.pages.paths import Paths, Wanted, cut, page_of, wanted_of


def test_links_stand_below_the_prefix() -> None:
    """Behind a prefix, no link leads out of it."""
    paths = Paths("/patrol", "/patrol/metrics")
    assert paths.home == "/patrol/"
    assert paths.server(7, "main") == "/patrol/servers/7?account=main"
    assert paths.api("issues", account="a b") == "/patrol/api/v1/issues?account=a+b"


def test_a_link_leaves_out_what_is_as_usual() -> None:
    """The first page of everything is just the page."""
    assert Paths().fleet(Wanted()) == "/"
    assert Paths("/patrol").to("issues", Wanted()) == "/patrol/issues"


TEXTS = st.text(st.characters(exclude_categories=["Cs", "Cc"])).map(cut)
SEVERAL = st.lists(TEXTS.filter(bool), unique=True, max_size=3).map(tuple)


@given(
    st.builds(
        Wanted,
        search=TEXTS,
        account=SEVERAL,
        server=SEVERAL,
        label=SEVERAL,
        severity=st.lists(st.sampled_from(list(Severity)), unique=True).map(tuple),
        kind=st.lists(st.sampled_from(list(Kind)), unique=True).map(tuple),
        software=SEVERAL,
        exploit=SEVERAL,
        waived=st.sampled_from(["", "true", "false", "both"]),
        state=st.sampled_from(["", "unknown"]),
        sort=st.sampled_from(["", "name", "-polled"]),
        days=st.sampled_from(["", "1", "7"]),
    ),
    st.integers(1, 900),
)
def test_a_link_leads_to_the_filter_that_it_was_made_of(wanted: Wanted, page: int) -> None:
    """Paging keeps search, filters and order, whatever characters they are of."""
    link = Paths().fleet(wanted, page)
    pairs = parse_qsl(urlsplit(link).query, keep_blank_values=True)
    assert (wanted_of(pairs), page_of(dict(pairs))) == (wanted, page)


@pytest.mark.parametrize("pair", [("severity", "worst"), ("kind", "x"), ("waived", "yes"), ("days", "9"), ("q", "")])
def test_a_filter_that_is_none_filters_nothing(pair: tuple[str, str]) -> None:
    """A wrong link shows the list and no error."""
    assert wanted_of([pair]) == Wanted()


def test_waived_issues_do_not_make_a_server_fit_unless_that_is_asked() -> None:
    """A list of servers means open issues that count; one of issues means all of them, as in the API."""
    wanted = wanted_of([("severity", "high")])
    assert (wanted.chosen(of_servers=True).waived, wanted.chosen().waived) == (False, None)
    assert wanted_of([("severity", "high"), ("waived", "both")]).chosen(of_servers=True).waived is None
    assert wanted_of([("account", "main")]).chosen(of_servers=True).waived is None


def test_what_is_no_label_filters_nothing() -> None:
    """A page has no errors to tell of a filter; the API has."""
    assert wanted_of([("label", "team"), ("label", "team=web")]).chosen().labels == (("team", "web"),)


def test_what_a_database_cannot_take_is_left_out_of_a_search() -> None:
    """Neither a null nor half a character reaches the store, and a search has an end."""
    assert wanted_of([("q", " a\0b\ud800c ")]).search == "abc"
    assert len(wanted_of([("q", "x" * 5000)]).search) == 200


@pytest.mark.parametrize(
    ("text", "page"),
    [("3", 3), ("0", 1), ("-1", 1), ("", 1), ("x", 1), ("\u0663", 1), ("9" * 9, 100_000), ("9" * 99, 1)],
)
def test_a_page_is_a_number_from_one(text: str, page: int) -> None:
    """Everything else is the first page, and no number is too large to count with."""
    assert page_of({"page": text}) == page


@pytest.mark.parametrize(
    ("text", "server_id"),
    [
        ("7", 7),
        (str(2**53 - 1), 2**53 - 1),
        (str(2**53), None),
        ("0", None),
        ("-1", None),
        ("\u0667", None),
        ("", None),
    ],
)
def test_an_id_is_a_number_that_a_server_can_have(text: str, server_id: int | None) -> None:
    """One to 2⁵³−1, in ASCII digits."""
    assert as_server_id(text) == server_id
