from __future__ import annotations

from urllib.parse import parse_qs, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from patrolserver_exporter.issues.model import Severity
from patrolserver_exporter.store.views import FleetFilter, as_server_id
from patrolserver_exporter.web.pages.paths import Paths, page_of, wanted_of


def test_links_stand_below_the_prefix() -> None:
    """Behind a prefix, no link leads out of it."""
    paths = Paths("/patrol", "/patrol/metrics")
    assert paths.home == "/patrol/"
    assert paths.server(7, "main") == "/patrol/servers/7?account=main"
    assert paths.api("issues", account="a b") == "/patrol/api/v1/issues?account=a+b"


def test_a_link_leaves_out_what_is_as_usual() -> None:
    """The first page of everything is just the page."""
    assert Paths().fleet(FleetFilter()) == "/"


@given(
    search=st.text(st.characters(exclude_categories=["Cs", "Cc"])).map(lambda text: text.strip()[:200].strip()),
    severity=st.sampled_from([None, *Severity]),
    account=st.none() | st.just("<a&b>"),
    page=st.integers(1, 900),
)
def test_a_link_leads_to_the_filter_that_it_was_made_of(
    search: str, severity: Severity | None, account: str | None, page: int
) -> None:
    """Paging keeps search, severity and account, whatever characters they are of."""
    wanted = FleetFilter(search=search, severity=severity, account=account)
    link = Paths().fleet(wanted, page)
    query = {name: values[0] for name, values in parse_qs(urlsplit(link).query).items()}
    assert (wanted_of(query), page_of(query)) == (wanted, page)


def test_a_severity_that_is_none_filters_nothing() -> None:
    """A wrong link shows the fleet and no error."""
    assert wanted_of({"severity": "worst"}) == FleetFilter()


def test_what_a_database_cannot_take_is_left_out_of_a_search() -> None:
    """Neither a null nor half a character reaches the store, and a search has an end."""
    assert wanted_of({"q": " a\0b\ud800c "}).search == "abc"
    assert len(wanted_of({"q": "x" * 5000}).search) == 200


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
