"""Counts and sums of each table's rows, by which a SQLite file shows that nothing of it is lost or changed."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Create the table; on SQLite it is filled when all migrations are done."""
    op.create_table(
        "sums",
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("rows", sa.BigInteger, nullable=False),
        sa.Column("total", sa.BigInteger, nullable=False),
        sa.Column("last_id", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_sums"),
        sqlite_with_rowid=False,
    )
