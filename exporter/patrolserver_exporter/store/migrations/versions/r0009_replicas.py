"""What several exporters on one database need: versions of what they show, who they are, and refreshes to pass on."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"


def upgrade() -> None:
    """Add the version of the lease to what is shown, when an account ended, what leases pass on, and three tables."""
    for table in ("accounts", "servers", "tallies"):
        op.add_column(table, sa.Column("version", sa.BigInteger, nullable=False, server_default="0"))
    op.create_index("ix_servers_version", "servers", ["account", "version"])
    op.add_column("accounts", sa.Column("gone_at", sa.Double))
    op.add_column("leases", sa.Column("handed", sa.LargeBinary))
    op.create_table(
        "operations",
        sa.Column("id", sa.Text, nullable=False),
        sa.Column("account", sa.Text, nullable=False),
        sa.Column("server_id", sa.BigInteger, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("created_at", sa.Double, nullable=False),
        sa.Column("finished_at", sa.Double),
        sa.Column("error", sa.Text),
        sa.Column("together", sa.Text),
        sa.Column("server", sa.Text),
        sa.PrimaryKeyConstraint("id", name="pk_operations"),
    )
    op.create_index("ix_operations_state", "operations", ["state"])
    op.create_index("ix_operations_together", "operations", ["together"])
    op.create_table(
        "replicas",
        sa.Column("owner", sa.Text, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("host", sa.Text, nullable=False),
        sa.Column("pid", sa.BigInteger, nullable=False),
        sa.Column("version", sa.Text, nullable=False),
        sa.Column("config", sa.Text, nullable=False),
        sa.Column("since", sa.Double, nullable=False),
        sa.Column("seen_at", sa.Double, nullable=False),
        sa.PrimaryKeyConstraint("owner", name="pk_replicas"),
    )
    op.create_table(
        "configured",
        sa.Column("account", sa.Text, nullable=False),
        sa.Column("seen_at", sa.Double, nullable=False),
        sa.PrimaryKeyConstraint("account", name="pk_configured"),
    )
