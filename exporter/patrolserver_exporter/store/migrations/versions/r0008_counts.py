"""Indexes that hold all that counts over the fleet read."""

from __future__ import annotations

from alembic import op

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    """Make one of each table wider."""
    op.create_index(
        "ix_servers_totals",
        "servers",
        ["critical", "high", "medium", "low", "account", "server_id", "waived", "gone_at"],
    )
    op.drop_index("ix_servers_worst", "servers")
    op.create_index("ix_issues_counted", "issues", ["fixed_at", "id", "account", "server_id", "severity", "waived"])
    op.drop_index("ix_issues_fixed_at_id", "issues")
    op.create_index("ix_changes_counted", "changes", ["at", "kind", "account", "server_id"])
    op.drop_index("ix_changes_at", "changes")
