from __future__ import annotations

import logging
import os
import shutil
from collections import defaultdict
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings
from tests.harness.few import TURNS, spread, turn_of
from tests.harness.postgres import PostgresCluster, find_programs
from tests.harness.promises import MARK, PromiseTable
from tests.harness.skipping import NOT_OURS

from patrolserver_exporter.store import Store

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator
    from pathlib import Path

# Two busy cores make single examples slow now and then; what is too slow is for the benchmarks to find.
settings.register_profile("no_deadline", deadline=None)
settings.load_profile("no_deadline")
# For scripts/check, before each commit, and for further runs in CI of what it ran; all others draw as many as ever.
settings.register_profile("check", deadline=None, max_examples=10)
settings.register_profile("again", deadline=None, max_examples=25)
# scripts/mutants runs each test many times in one process, and compares the runs.
settings.register_profile(
    "mutants",
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.differing_executors],
)


class FailuresAtOnce:
    """Names what failed when it fails: a run of many minutes may never come to its summary."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Say it on a line of its own."""
        terminal = self._config.pluginmanager.get_plugin("terminalreporter")
        if report.failed and terminal is not None:
            terminal.write_line(f"\nfailed: {report.nodeid} ({report.when})", red=True)


def pytest_addoption(parser: pytest.Parser) -> None:
    """The table of promises belongs to every run; all of it is asked for by ``make faults``."""
    parser.addoption("--promises", action="store_true", help="fail if a promise of docs/guarantees.md was not tried")
    parser.addoption("--few", type=int, metavar="N", help="of the cases of each test about N, from all over its table")


def pytest_configure(config: pytest.Config) -> None:
    """Know the marks."""
    config.addinivalue_line("markers", "alone: measures time, so nothing else may run (scripts/test-all)")
    config.addinivalue_line("markers", "calm: holds seconds, so only few others may run beside it (scripts/test-all)")
    config.addinivalue_line("markers", "long: its file takes minutes, so it begins first (scripts/test-all)")
    config.addinivalue_line(
        "markers", "slow: takes a second or more, so it is not run before each commit (scripts/check)"
    )
    config.addinivalue_line(
        "markers", f"turn(place): with --few only in each {TURNS}rd commit; make test makes it always"
    )
    config.addinivalue_line("markers", "sized: proves no promise, and does more in full size (scripts/faults)")
    config.addinivalue_line("markers", f"{MARK}(key…): proves these rows of docs/guarantees.md")
    config.pluginmanager.register(PromiseTable(whole=bool(config.getoption("--promises"))))
    config.pluginmanager.register(FailuresAtOnce(config))


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Begin with the longest files, so that the last ones to end are short; keep few cases where that is asked for."""
    items.sort(key=lambda item: item.get_closest_marker("long") is None)
    if few := config.getoption("--few"):
        kept = set()
        of_turn: dict[int | None, dict[pytest.Item, str]] = defaultdict(dict)
        for item in items:
            mark = item.get_closest_marker("turn")
            of_turn[turn_of(mark.args[0] if mark else None)][item] = item.nodeid
        for turn, cases in of_turn.items():
            kept |= set() if turn is None else spread(cases, few, turn)
        config.hook.pytest_deselected(items=[item for item in items if item not in kept])
        items[:] = [item for item in items if item in kept]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """What a machine lacks is skipped; with CI=true it is a failure, except for what CI cannot install."""
    report = yield
    if os.environ.get("CI") == "true" and report.skipped and not hasattr(report, "wasxfail"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        if NOT_OURS in reason:
            return report
        report.outcome = "failed"
        report.longrepr = f"{reason}\nWith CI=true nothing may be skipped: .ci/run has to install what is missing."
    return report


@pytest.fixture(scope="session")
def require_program() -> Callable[[str], str]:
    """Path of a program that a test starts; without it the test is skipped."""

    def path_of(name: str) -> str:
        path = shutil.which(name)
        if path is None:
            pytest.skip(f"{name} is not installed")
        return path

    return path_of


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresCluster]:
    """A PostgreSQL cluster for the whole run; without the programs the test is skipped."""
    programs = find_programs()
    if programs is None:
        pytest.skip("PostgreSQL's server is not installed")
    with PostgresCluster(programs) as cluster:
        yield cluster


@pytest.fixture(params=["sqlite", "postgresql"])
def store_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The URL of an empty store, on each of the two databases."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'state.db'}"
        return
    cluster: PostgresCluster = request.getfixturevalue("postgres")
    url = cluster.create_database()
    yield url
    cluster.drop_database(url)


@pytest.fixture(scope="session")
def migrated_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty SQLite state whose schema is there already: to be copied, which is quicker than to migrate."""
    file = tmp_path_factory.mktemp("migrated") / "state.db"
    Store(f"sqlite:///{file}").close()
    return file


@pytest.fixture(scope="session")
def migrated_database(postgres: PostgresCluster) -> str:
    """URL of a PostgreSQL database with the schema: to be emptied for each test."""
    url = postgres.create_database()
    Store(url).close()
    return url


@pytest.fixture
def prepared_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """URL of an empty SQLite store with its schema; indirectly parametrised with ``postgresql``, one there."""
    if getattr(request, "param", "sqlite") == "postgresql":
        url: str = request.getfixturevalue("migrated_database")
        request.getfixturevalue("postgres").empty(url)
        return url
    file = tmp_path / "state.db"
    shutil.copy(request.getfixturevalue("migrated_file"), file)
    return f"sqlite:///{file}"


@pytest.fixture
def store(prepared_url: str) -> Iterator[Store]:
    """An empty store."""
    with Store(prepared_url) as opened:
        yield opened


@pytest.fixture(autouse=True)
def _logging_stays() -> Iterator[None]:
    """A test that sets up the product's logging leaves no trace of it for the next."""
    root = logging.getLogger()
    loggers = [found for found in root.manager.loggerDict.values() if isinstance(found, logging.Logger)]
    before = [(found, found.level, found.propagate, found.handlers[:]) for found in (root, *loggers)]
    yield
    for found, level, propagates, handlers in before:
        if found.level != level:
            # It has every logger look its level up anew, which is much for every test.
            found.setLevel(level)
        found.propagate = propagates
        found.handlers[:] = handlers
