"""The one thing in which the two databases differ for us: how an upsert is spelled."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

from sqlalchemy.dialects import postgresql, sqlite

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    import sqlalchemy as sa


def insert(dialect: str, table: sa.Table) -> sqlite.Insert | postgresql.Insert:
    """An insert that can say ``ON CONFLICT`` in this dialect of SQL."""
    return sqlite.insert(table) if dialect == "sqlite" else postgresql.insert(table)


def upsert(connection: sa.Connection, table: sa.Table, rows: Sequence[Mapping[str, object]], *key: str) -> None:
    """Write rows, all with the same columns; where the ``key`` is known, the other columns are replaced."""
    if rows:
        connection.execute(_upsert(connection.dialect.name, table, key, tuple(rows[0])), rows)


# Building the statement costs more than running it.
@functools.lru_cache(maxsize=64)
def _upsert(dialect: str, table: sa.Table, key: tuple[str, ...], columns: Iterable[str]) -> sa.Insert:
    statement = insert(dialect, table)
    changed = {name: statement.excluded[name] for name in columns if name not in key}
    return statement.on_conflict_do_update(index_elements=list(key), set_=changed)
