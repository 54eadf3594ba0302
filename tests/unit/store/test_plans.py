from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import sqlalchemy as sa
from tests.harness.api import put_server
from tests.unit.issues.builders import software

from patrolserver_exporter.store import Store, views
from patrolserver_exporter.store.queries import IssuesWanted

if TYPE_CHECKING:
    from collections.abc import Callable


def plans(store: Store, work: Callable[[sa.Connection], object]) -> list[str]:
    """How SQLite finds the rows of each statement of ``work``."""
    asked: list[tuple[str, Any]] = []

    def note(_c: object, _cursor: object, statement: str, parameters: Any, *_: object) -> None:
        asked.append((statement, parameters))

    def read(connection: sa.Connection) -> list[str]:
        sa.event.listen(connection, "before_cursor_execute", note)
        try:
            work(connection)
        finally:
            sa.event.remove(connection, "before_cursor_execute", note)
        return [
            row[3]
            for statement, parameters in asked
            for row in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters)
        ]

    return store.read(read)


@pytest.mark.parametrize(
    ("work", "tables"),
    [
        (views.fleet_totals, ("servers",)),
        (lambda connection: views.changed_since(connection, 0.0), ("changes", "issues", "servers")),
        (
            lambda connection: views.issues_view(
                connection, IssuesWanted(), order=views.IssueOrder.WORST, reverse=False, offset=0, limit=50
            ),
            ("issues",),
        ),
    ],
    ids=["totals", "changes", "issues"],
)
def test_counts_over_the_fleet_read_no_row(
    store: Store, work: Callable[[sa.Connection], object], tables: tuple[str, ...]
) -> None:
    """All that they need stands in an index: the rows of 100,000 servers are hundreds of megabytes."""
    store.run(lambda unit: put_server(unit, 1, "web", software=(software(),), polled_at=1.0))
    found = plans(store, work)
    for table in tables:
        reads = [plan for plan in found if plan.startswith((f"SCAN {table}", f"SEARCH {table}"))]
        assert reads, found
        assert all("COVERING INDEX" in plan or "INTEGER PRIMARY KEY" in plan for plan in reads), found
