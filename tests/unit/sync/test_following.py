"""What an error of the database's tells of who is cut off."""

from __future__ import annotations

import pytest

from patrolserver_exporter.sync.follower import tells_that_it_is_down

READ = "The store cannot be read: connection failed: "
REFUSED = 'connection to server at "db1", port 5432 failed: Connection refused\n\tIs the server running on that host?'
STARTING = 'connection to server at "db2", port 5432 failed: FATAL:  the database system is starting up'
SILENT = "connection timeout expired"
TRIED = "\nMultiple connection attempts failed. All failures were:\n- host: 'db1': {}\n- host: 'db2': {}"


@pytest.mark.parametrize(
    ("error", "is_down"),
    [
        (REFUSED, True),
        (STARTING, True),
        ('connection to server on socket "/run/x" failed: FATAL:  the database system is shutting down', True),
        (REFUSED + TRIED.format(REFUSED, STARTING), True),
        (REFUSED + TRIED.format(SILENT, REFUSED), False),
        ('connection to server on socket "/run/x" failed: Connection refused', False),
        (SILENT, False),
        ("failed to resolve host 'db': Name or service not known", False),
        ('connection to server at "db1", port 5432 failed: FATAL:  password authentication failed', False),
        ("server closed the connection unexpectedly", False),
    ],
)
def test_only_what_refuses_everybody_is_down(error: str, *, is_down: bool) -> None:
    """What is silent, or cannot be found, may be so for this exporter alone; and so may one of several hosts."""
    assert tells_that_it_is_down(READ + error) is is_down
