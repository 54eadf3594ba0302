"""docs/guarantees.md and the tests that carry its promises hold each other."""

from __future__ import annotations

import ast
import functools
from pathlib import Path

import pytest
from tests.harness.promises import MARK, Found, Promise, PromiseTable, measured, promises

ROOT = Path(__file__).parents[3]
TESTS = ROOT / "tests"


@functools.cache
def marked_files() -> dict[str, set[str]]:
    """Files in which a test, or all of them, carry a promise's mark; by its key."""
    found: dict[str, set[str]] = {}
    for file in TESTS.rglob("test_*.py"):
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == MARK:
                for key in node.args:
                    assert isinstance(key, ast.Constant), f"{file}: a promise is named by a literal"
                    found.setdefault(str(key.value), set()).add(str(file.relative_to(ROOT)))
    return found


def test_each_row_is_read() -> None:
    """No row of the table escapes those who read it, and no key stands twice."""
    lines = Path(ROOT / "docs" / "guarantees.md").read_text("utf-8").splitlines()
    rows = [line for line in lines if line.startswith("| <a id=")]
    keys = [promise.key for promise in promises()]
    assert len(keys) == len(rows) == sum(line.startswith("| ") for line in lines) - 2
    assert len(set(keys)) == len(keys)


@pytest.mark.parametrize("promise", promises(), ids=lambda promise: promise.key)
def test_each_promise_is_proved_by_the_tests_that_it_names(promise: Promise) -> None:
    """The files of a row are exactly those in which tests carry its key."""
    assert set(promise.proof) == marked_files().get(promise.key, set())


def test_no_test_proves_what_nobody_promises() -> None:
    """Each mark names a row."""
    assert set(marked_files()) <= {promise.key for promise in promises()}


def test_a_promise_is_kept_only_if_all_its_tests_ran_and_passed() -> None:
    """Failed outweighs passed, nothing run is no verdict, and what was skipped is said."""
    assert Found().verdict == "NOT RUN"
    assert Found(tests=2).verdict == "kept"
    assert Found(tests=2, failed=1).verdict == "BROKEN"
    assert Found(tests=2, skipped=1).verdict == "kept, 1 of 2 skipped"


def test_figures_of_several_tests_add_up() -> None:
    """Counts are summed, sentences stand beside each other."""
    found = Found()
    found.add({"sent": 3, "lost": 0, "bound": "1 s"})
    found.add({"sent": 4, "bound": "2 s"})
    assert found.counts == {"sent": 7, "lost": 0}
    assert found.bounds == ["1 s", "2 s"]


def test_a_figure_without_a_column_is_an_error(request: pytest.FixtureRequest) -> None:
    """A slip of the pen would leave a hole in the table."""
    with pytest.raises(ValueError, match="no column lots"):
        measured(request.node, lots=1)


def test_a_whole_run_misses_what_was_not_tried() -> None:
    """Each promise without a test that ran is named, and stands in the table."""
    table = PromiseTable(whole=True)
    assert table.missing() == [promise.key for promise in promises()]
    assert len(table.table()) == len(promises()) + 1
    assert table.table()[1].endswith("NOT RUN")
