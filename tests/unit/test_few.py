"""`make check` tries few cases of each test, and no test is without any."""

from __future__ import annotations

import pytest
from tests.harness.few import TURNS, few_of, spread, turn_of


@pytest.mark.parametrize("few", [1, 3, 10])
@pytest.mark.parametrize("many", [1, 2, 3, 4, 10, 100])
def test_each_test_keeps_its_first_case_and_some_from_all_over(few: int, many: int) -> None:
    """Never more than asked for, and all where there are no more."""
    names = {number: f"test_a.py::test_x[{number}[]]" for number in range(many)} | {-1: "test_a.py::test_y"}
    kept = spread(names, few, 0)
    assert {-1, 0} <= kept
    assert min(many, (few + 1) // 2) + 1 <= len(kept) <= few + 1
    assert max(kept) >= (many - 1) // 2 if few > 1 else kept == {-1, 0}


@pytest.mark.parametrize("few", [1, 3, 10])
@pytest.mark.parametrize("many", [0, 1, 2, 3, 4, 10, 100])
def test_in_turn_each_case_is_tried(few: int, many: int) -> None:
    """Turns that follow each other try all of a table, and none of them tries nothing."""
    table = range(many)
    turns = [few_of(table, few, turn) for turn in range(7, 7 + -(-many // few))]
    assert sorted(case for turn in turns for case in turn) == [*table]
    assert all(0 < len(turn) <= few for turn in turns)


@pytest.mark.parametrize("place", range(TURNS))
def test_a_file_that_takes_turns_has_each_of_its_cases_tried(place: int) -> None:
    """It is made once in so many commits, and then with the next cases each time."""
    table = range(7)
    turns = [turn_of(place, turn) for turn in range(3 * TURNS)]
    made = [turn for turn in turns if turn is not None]
    assert len(made) == 3
    assert sorted(case for turn in made for case in few_of(table, 3, turn)) == [*table]


def test_any_other_file_is_always_made() -> None:
    """Without the mark the turn is that of the commit."""
    assert [turn_of(None, turn) for turn in range(5)] == [0, 1, 2, 3, 4]
