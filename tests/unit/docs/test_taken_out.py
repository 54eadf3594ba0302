"""The table of what keeps each promise stays true to the code, to the tests, and to docs/guarantees.md."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
from tests.harness.promises import promises
from tests.harness.taken_out import TABLE, TakenOut

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize("row", TABLE, ids=lambda row: f"{row.promise}, {row.module}")
def test_a_row_can_be_tried(row: TakenOut) -> None:
    """The code stands there once, the module is one without it, and the test is one of those that prove the promise."""
    ast.parse(row.text())
    file, _, name = row.test.partition("::")
    (promise,) = (one for one in promises() if one.key == row.promise)
    assert file in promise.proof
    assert not name or f"def {name}(" in (ROOT / file).read_text("utf-8")


def test_each_promise_has_a_row() -> None:
    """What is promised is tried."""
    assert {row.promise for row in TABLE} == {promise.key for promise in promises()}
