"""`make check` tries few cases of each test, and no test is without any."""

from __future__ import annotations

import pytest
from tests.harness.few import few_of, spread


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
