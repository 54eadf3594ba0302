from __future__ import annotations

import datetime as dt

import pytest
from hypothesis import given
from hypothesis import strategies as st

from patrolserver_exporter.web.pages.words import maybe, moment, span


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0, "0 seconds"),
        (1, "1 second"),
        (59.9, "59 seconds"),
        (60, "1 minute"),
        (119, "1 minute"),
        (3600, "1 hour"),
        (3600 + 120, "1 hour 2 minutes"),
        (3 * 3600 + 120, "3 hours"),
        (86_400 + 3600, "1 day 1 hour"),
        (40 * 86_400, "40 days"),
        (-5, "0 seconds"),
    ],
)
def test_a_length_of_time_is_worded_by_its_largest_unit(seconds: float, words: str) -> None:
    """One unit, or two where the rest of a small count matters."""
    assert span(seconds) == words


@pytest.mark.parametrize(("ago", "words"), [(0, "just now"), (90, "1 minute ago"), (-90, "in 1 minute")])
def test_a_moment_is_worded_by_its_distance(ago: float, words: str) -> None:
    """The past is ago, the future is in, and what is now is just now."""
    assert moment(1_800_000_000 - ago, 1_800_000_000).words == words


def test_a_moment_has_its_time_for_machines_and_for_people() -> None:
    """Both are in UTC and say so."""
    found = moment(1_800_000_000, 1_800_000_000)
    assert (found.iso, found.shown) == ("2027-01-15T08:00:00Z", "2027-01-15 08:00 UTC")


def test_no_time_is_no_moment() -> None:
    """What never happened has no words."""
    assert maybe(None, 1.0) is None


@given(at=st.floats(-1e15, 1e15), now=st.floats(0, 4e9))
def test_any_time_can_be_worded(at: float, now: float) -> None:
    """However odd a time is, the page stands; its form for machines can be parsed."""
    dt.datetime.fromisoformat(moment(at, now).iso)


@given(seconds=st.floats(1, 1e9))
def test_words_never_say_more_than_it_is(seconds: float) -> None:
    """The largest unit is rounded down, and by less than one of it."""
    sizes = {"day": 86_400, "hour": 3600, "minute": 60, "second": 1}
    count, unit, *_ = span(seconds).split()
    size = sizes[unit.rstrip("s")]
    assert int(count) * size <= seconds < (int(count) + 1) * size
