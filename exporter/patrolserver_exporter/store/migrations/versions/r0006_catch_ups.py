"""Catch-ups in a table of their own, since who takes deliveries in writes them beside who polls."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    """Move them out of the accounts' rows."""
    op.create_table(
        "catch_ups",
        sa.Column("account", sa.Text, nullable=False),
        sa.Column("since", sa.Double, nullable=False),
        sa.PrimaryKeyConstraint("account", name="pk_catch_ups"),
    )
    op.execute(
        "INSERT INTO catch_ups (account, since) "
        "SELECT name, catch_up_since FROM accounts WHERE catch_up_since IS NOT NULL"
    )
    op.drop_column("accounts", "catch_up_since")
