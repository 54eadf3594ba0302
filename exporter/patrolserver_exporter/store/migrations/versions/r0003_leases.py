"""Who may write."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Add the table of leases."""
    op.create_table(
        "leases",
        sa.Column("account", sa.Text, nullable=False),
        sa.Column("owner", sa.Text),
        sa.Column("epoch", sa.BigInteger, nullable=False),
        sa.Column("version", sa.BigInteger, nullable=False),
        sa.Column("until", sa.Double),
        sa.Column("since", sa.Double),
        sa.Column("name", sa.Text),
        sa.Column("host", sa.Text),
        sa.Column("pid", sa.BigInteger),
        sa.PrimaryKeyConstraint("account", name="pk_leases"),
        postgresql_with={"fillfactor": 10},
    )
