from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from patrolserver_exporter.issues.model import Severity
from patrolserver_exporter.web.api import endpoint
from patrolserver_exporter.web.api.endpoint import ChangesQuery, FleetQuery, IssuesQuery, IssueState, Waived
from patrolserver_exporter.web.http.requests import ApiError


def test_parameters_are_typed_and_repeatable_ones_are_collected() -> None:
    """Values come as what they mean, and several of one name as all of them."""
    read = endpoint.read(b"limit=5&severity=high&severity=low&server=a%2Ab&waived=true&state=all", IssuesQuery)
    assert (read.limit, read.severity, read.server) == (5, (Severity.HIGH, Severity.LOW), ("a*b",))
    assert (read.waived, read.state) == (Waived.TRUE, IssueState.ALL)


@pytest.mark.parametrize(
    ("query", "named"),
    [
        (b"colour=red", "colour"),
        (b"limit=0", "limit"),
        (b"limit=1001", "limit"),
        (b"limit=ten", "limit"),
        (b"limit=", "limit"),
        (b"limit=1&limit=2", "limit"),
        (b"severity=high&severity=worst", r"severity\[1\] is wrong: it has to be one of critical, high, medium, low\."),
        (b"waived=yes", r"waived is wrong: it has to be one of true, false, both\."),
        (b"waived=null", "waived"),
        (b"state=", "state"),
        (b"server=a%00b", "server"),
        (b"software=" + b"x" * 1025, "software"),
    ],
)
def test_what_is_wrong_is_named(query: bytes, named: str) -> None:
    """An unknown, doubled or unfit parameter is a 400 that names it."""
    with pytest.raises(ApiError, match=named) as refused:
        endpoint.read(query, IssuesQuery)
    assert refused.value.status == 400


@pytest.mark.parametrize("wait", ["nan", "inf", "-1", "60.1", "1e400"])
def test_a_wait_is_a_number_of_seconds_up_to_a_minute(wait: str) -> None:
    """Neither an endless wait nor one that is not a number is taken."""
    with pytest.raises(ApiError, match="wait"):
        endpoint.read(f"wait={wait}".encode(), ChangesQuery)


def test_a_thousand_parameters_are_the_limit() -> None:
    """A flood of parameters is refused before it is looked at."""
    with pytest.raises(ApiError, match="1000"):
        endpoint.read(b"&".join([b"server=a"] * 1001), FleetQuery)


@given(st.binary(max_size=60))
def test_any_query_is_read_or_refused(query: bytes) -> None:
    """Whatever stands behind the question mark gives parameters or a 400."""
    with suppress(ApiError):
        assert endpoint.read(query, IssuesQuery).limit
