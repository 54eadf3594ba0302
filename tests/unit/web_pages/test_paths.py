from __future__ import annotations

from urllib.parse import parse_qsl, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.sync.accounts import account, configured

from patrolserver_exporter.issues.model import Kind, Severity
from patrolserver_exporter.store.views import as_server_id
from patrolserver_exporter.web.http.requests import ApiError
from patrolserver_exporter.web.pages.paths import Parameters, Paths, Wanted, cut, page_of, wanted_of
from patrolserver_exporter.web.selection import Labels


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


LABELS = Labels(configured(account(labels={"*": {"team": "web"}})))
TAKES = Parameters(states=("open", "unknown"), sorts=("worst", "name", "polled"), days=("1", "7"))


def asked(*pairs: tuple[str, str]) -> Wanted:
    return wanted_of(pairs, TAKES, ("main", "hosting"), LABELS)


TEXTS = st.text(st.characters(exclude_categories=["Cs", "Cc"])).map(cut)
SEARCHES = TEXTS.map(lambda text: text[:200].strip())
SEVERAL = st.lists(TEXTS.filter(bool), unique=True, max_size=3).map(tuple)


@given(
    st.builds(
        Wanted,
        search=SEARCHES,
        account=st.lists(st.sampled_from(["main", "hosting"]), unique=True).map(tuple),
        server=SEVERAL,
        label=st.lists(TEXTS.map("team={}".format), unique=True, max_size=3).map(tuple),
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
    assert (asked(*pairs), page_of(dict(pairs))) == (wanted, page)


@pytest.mark.parametrize(
    ("pair", "said"),
    [
        (("sverity", "high"), "There is no parameter 'sverity' here; there are: q, account, server, label, severity"),
        (("before", "7"), "There is no parameter 'before' here"),
        (("severity", "High"), "severity cannot be 'High'; it is one of critical, high, medium, low."),
        (("kind", "foo"), "kind cannot be 'foo'; it is one of unsupported, outdated, exploitable, reported."),
        (("waived", "yes"), "waived cannot be 'yes'; it is one of true, false, both."),
        (("state", "opne"), "state cannot be 'opne'; it is one of open, unknown."),
        (
            ("sort", "-size"),
            "sort cannot be '-size'; it is one of worst, name, polled, with a minus in front the other",
        ),
        (("days", "3"), "days cannot be '3'; it is one of 1, 7."),
        (("format", "cvs"), "format cannot be 'cvs'; it is csv or left out."),
        (("page", "x"), "page cannot be 'x'; it is a number from 1."),
        (("page", "0"), "page cannot be '0'"),
        (("page", "-1"), "page cannot be '-1'"),
        (("page", "\u0663"), "page cannot be '\u0663'"),
        (("account", "nope"), "There is no account 'nope'; there are: hosting, main."),
        (("label", "team"), "label is wrong: 'team' is no label; write its name, =, and a value or glob"),
        (("label", "teem=web"), "There is no label 'teem'; there are: team."),
        (("software", "a\0b"), "software holds a NUL character."),
        (("software", "x" * 2049), "software has 2049 characters, and 2048 are allowed."),
    ],
)
def test_what_is_misspelt_is_told_with_what_is_allowed(pair: tuple[str, str], said: str) -> None:
    """It never means everything, as in the API."""
    with pytest.raises(ApiError) as refused:
        asked(pair)
    assert (refused.value.status, refused.value.detail[: len(said)]) == (400, said)


@pytest.mark.parametrize(
    ("name", "said"),
    [("server", "100 are allowed"), ("software", "There are 101 globs, and 100 are allowed.")],
)
def test_globs_are_as_many_as_the_api_allows(name: str, said: str) -> None:
    """None is left out in silence."""
    pairs = [(name, f"web-{number}*") for number in range(101)]
    assert len(getattr(asked(*pairs[1:]), name)) == 100
    with pytest.raises(ApiError, match=said):
        asked(*pairs)


def test_what_means_one_thing_is_given_once() -> None:
    """Two states cannot both be meant; two severities can."""
    with pytest.raises(ApiError, match="state is given 2 times; give it once"):
        asked(("state", "open"), ("state", "unknown"))
    assert asked(("severity", "high"), ("severity", "low")).severity == (Severity.HIGH, Severity.LOW)


@pytest.mark.parametrize("name", [*TAKES.names, "utm_source", "fbclid"])
def test_a_field_that_is_left_empty_filters_nothing(name: str) -> None:
    """Forms send all of theirs; what trackers add to a link asks for nothing either."""
    assert asked((name, " ")) == Wanted()


def test_a_list_takes_what_it_can_answer() -> None:
    """One without states, days and pages says so."""
    assert Parameters(sorts=("worst",), paged_by="before").names[-4:] == ("waived", "sort", "before", "format")


def test_waived_issues_do_not_make_a_server_fit_unless_that_is_asked() -> None:
    """A list of servers means open issues that count; one of issues means all of them, as in the API."""
    wanted = asked(("severity", "high"))
    assert (wanted.chosen(of_servers=True).waived, wanted.chosen().waived) == (False, None)
    assert asked(("severity", "high"), ("waived", "both")).chosen(of_servers=True).waived is None
    assert asked(("account", "main")).chosen(of_servers=True).waived is None


def test_what_a_database_cannot_take_is_left_out_of_a_search() -> None:
    """Half a character does not reach the store, and a search has an end."""
    assert asked(("q", " ab\ud800c ")).search == "abc"
    assert len(asked(("q", "x" * 5000)).search) == 200


@pytest.mark.parametrize(("text", "page"), [("3", 3), ("03", 3), ("", 1), ("9" * 9, 100_000), ("9" * 9999, 100_000)])
def test_a_page_is_a_number_from_one(text: str, page: int) -> None:
    """None is too large to count with: past the end is the last page."""
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
