"""The first schema."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

Id = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Create every table."""
    op.create_table(
        "accounts",
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("up", sa.Boolean),
        sa.Column("last_success_at", sa.Double),
        sa.Column("catch_up_since", sa.Double),
        sa.PrimaryKeyConstraint("name", name="pk_accounts"),
    )
    op.create_table(
        "servers",
        sa.Column("account", sa.Text, nullable=False),
        sa.Column("server_id", sa.BigInteger, nullable=False, autoincrement=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("gone_at", sa.Double),
        sa.Column("state", sa.LargeBinary, nullable=False),
        sa.Column("summary", sa.LargeBinary, nullable=False),
        sa.Column("software", sa.LargeBinary),
        sa.Column("next_poll_at", sa.Double),
        *(sa.Column(name, sa.Integer, nullable=False, server_default="0") for name in _COUNTS),
        sa.PrimaryKeyConstraint("account", "server_id", name="pk_servers"),
    )
    op.create_index("ix_servers_name", "servers", ["name"])
    op.create_index("ix_servers_worst", "servers", [*_COUNTS[:4], "account", "server_id"])
    op.create_table(
        "issues",
        sa.Column("id", Id, nullable=False),
        sa.Column("account", sa.Text, nullable=False),
        sa.Column("server_id", sa.BigInteger, nullable=False),
        sa.Column("fingerprint", sa.Text, nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("severity", sa.Text, nullable=False),
        sa.Column("canonical_name", sa.Text, nullable=False),
        sa.Column("waived", sa.Boolean, nullable=False),
        sa.Column("fixed_at", sa.Double),
        sa.Column("document", sa.LargeBinary, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_issues"),
        sa.UniqueConstraint("account", "server_id", "fingerprint", name="uq_issues_account_server_id_fingerprint"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_issues_fixed_at_id", "issues", ["fixed_at", "id"])
    _create_streams()
    op.create_table(
        "tallies",
        sa.Column("account", sa.Text, nullable=False),
        sa.Column("severity", sa.Text, nullable=False),
        sa.Column("opened", sa.BigInteger, nullable=False),
        sa.Column("fixed", sa.BigInteger, nullable=False),
        sa.Column("duration_sum", sa.Double, nullable=False),
        sa.Column("buckets", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("account", "severity", name="pk_tallies"),
    )


_COUNTS = ("critical", "high", "medium", "low", "waived")


def _create_streams() -> None:
    op.create_table(
        "inbox",
        sa.Column("id", Id, nullable=False),
        sa.Column("account", sa.Text, nullable=False),
        sa.Column("webhook_id", sa.BigInteger, nullable=False),
        sa.Column("event_id", sa.BigInteger, nullable=False),
        sa.Column("identifier", sa.Text, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("attempts", sa.Integer, nullable=False, server_default="0"),
        sa.Column("received_at", sa.Double, nullable=False),
        sa.Column("updated_at", sa.Double, nullable=False),
        sa.Column("next_attempt_at", sa.Double),
        sa.Column("claim", sa.Text),
        sa.Column("lease_until", sa.Double),
        sa.Column("server_id", sa.BigInteger),
        sa.Column("last_error", sa.Text),
        sa.Column("body", sa.LargeBinary),
        sa.PrimaryKeyConstraint("id", name="pk_inbox"),
        sa.UniqueConstraint("account", "webhook_id", "event_id", name="uq_inbox_account_webhook_id_event_id"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_inbox_state_received_at", "inbox", ["state", "received_at"])
    op.create_index("ix_inbox_due", "inbox", ["state", "attempts", "next_attempt_at"])
    op.create_table(
        "changes",
        sa.Column("id", Id, nullable=False),
        sa.Column("at", sa.Double, nullable=False),
        sa.Column("account", sa.Text, nullable=False),
        sa.Column("server_id", sa.BigInteger, nullable=False),
        sa.Column("server", sa.Text, nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("document", sa.LargeBinary, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_changes"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_changes_at", "changes", ["at"])
