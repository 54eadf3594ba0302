"""The promises of docs/guarantees.md, and the table of what a run found of each."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Mapping

PAGE: Final = Path(__file__).parents[2] / "docs" / "guarantees.md"
MARK: Final = "promise"
_ROW: Final = re.compile(r"^\| <a id=\"(?P<key>[a-z0-9-]+)\"></a>(?P<fault>.+?) \| (?P<holds>.+) \| (?P<proof>.+) \|$")
_FILE: Final = re.compile(r"\]\(\.\./(tests/[^)]+)\)")
_COUNTS: Final = ("sent", "lost", "doubled", "leaked")
_HEADINGS: Final = ("promise", "fault or load", *_COUNTS, "bound", "verdict")


@dataclass(frozen=True)
class Promise:
    """One row of the page."""

    key: str
    fault: str
    holds: str
    proof: tuple[str, ...]
    """Paths of the test files, from the project's root."""


@dataclass
class Found:
    """What the tests of one promise said."""

    tests: int = 0
    failed: int = 0
    skipped: int = 0
    counts: dict[str, int] = field(default_factory=dict)
    loads: list[str] = field(default_factory=list)
    bounds: list[str] = field(default_factory=list)

    @property
    def verdict(self) -> str:
        """``kept`` only if every test of it ran and passed."""
        if self.failed:
            return "BROKEN"
        if not self.tests:
            return "NOT RUN"
        return f"kept, {self.skipped} of {self.tests} skipped" if self.skipped else "kept"

    def add(self, figures: Mapping[str, object]) -> None:
        """Take in what a test measured: counts add up, sentences stand beside each other."""
        for name in _COUNTS:
            if isinstance(count := figures.get(name), int):
                self.counts[name] = self.counts.get(name, 0) + count
        self.loads += [str(figures["load"])] if "load" in figures else []
        self.bounds += [str(figures["bound"])] if "bound" in figures else []


def promises(page: Path = PAGE) -> tuple[Promise, ...]:
    """The rows of docs/guarantees.md, in its order."""
    rows = (_ROW.match(line) for line in page.read_text("utf-8").splitlines())
    return tuple(Promise(r["key"], r["fault"], r["holds"], tuple(_FILE.findall(r["proof"]))) for r in rows if r)


def measured(node: pytest.Item, **figures: object) -> None:
    """Tell the table what was measured: the counts ``sent``, ``lost``, ``doubled``, ``leaked``; the load; the bound."""
    if unknown := set(figures) - {*_COUNTS, "load", "bound"}:
        raise ValueError(f"the table has no column {', '.join(sorted(unknown))}")
    node.user_properties.append(("promise-figures", figures))


class PromiseTable:
    """Collects what the tests that carry a mark say, and prints one row for each promise."""

    def __init__(self, *, whole: bool) -> None:
        """``whole``: a promise of which no test ran makes the run fail."""
        self._whole = whole
        self._found: dict[str, Found] = {}

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item, call: pytest.CallInfo[None]
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        """Hand the marks over with the report, which is all that another process sees of a test."""
        report = yield
        keys = [str(key) for mark in item.iter_markers(MARK) for key in mark.args]
        if keys and call.when == "setup":
            item.user_properties.append(("promise-keys", keys))
            report.user_properties = list(item.user_properties)
        return report

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Count a test once it ended: after its call, or where its set-up or its end went wrong."""
        if report.when != "call" and report.passed:
            return
        properties: Iterable[tuple[str, object]] = report.user_properties
        keys = [key for name, some in properties if name == "promise-keys" and isinstance(some, list) for key in some]
        figures = [some for name, some in properties if name == "promise-figures" and isinstance(some, dict)]
        for key in keys:
            found = self._found.setdefault(key, Found())
            found.tests += 1
            found.failed += report.failed
            found.skipped += report.skipped
            for some in figures:
                found.add(some)

    def missing(self) -> list[str]:
        """Promises of which no test ran to its end."""
        nothing = Found()
        found = {promise.key: self._found.get(promise.key, nothing) for promise in promises()}
        return [key for key, some in found.items() if some.tests == some.skipped]

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """A whole run with a row missing is no success."""
        if self._whole and self.missing() and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Print the table."""
        if not self._found:
            return
        terminalreporter.section("promises")
        for line in self.table():
            terminalreporter.write_line(line)
        if self._whole and (missing := self.missing()):
            terminalreporter.write_line(f"not proven in this run: {', '.join(missing)}", red=True)

    def table(self) -> list[str]:
        """The rows as text, those first that no test was run of only in a whole run."""
        rows: list[tuple[str, ...]] = [_HEADINGS]
        for promise in promises():
            found = self._found.get(promise.key)
            if found is None and not self._whole:
                continue
            found = found or Found()
            counts = (str(found.counts.get(name, "-")) for name in _COUNTS)
            load = "; ".join(dict.fromkeys(found.loads)) or promise.fault
            rows.append((promise.key, load, *counts, "; ".join(found.bounds) or "-", found.verdict))
        widths = [max(len(row[column]) for row in rows) for column in range(len(_HEADINGS))]
        return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
