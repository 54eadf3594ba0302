"""Where the change feed stands, so that a cursor can tell whether it is of this feed and still kept."""

from __future__ import annotations

import secrets

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Add the table of the feed, with its one row."""
    feed = op.create_table(
        "feed",
        sa.Column("id", sa.Integer, nullable=False, autoincrement=False),
        sa.Column("history", sa.Text, nullable=False),
        sa.Column("purged_to", sa.BigInteger, nullable=False),
        sa.Column("cluster", sa.Text),
        sa.PrimaryKeyConstraint("id", name="pk_feed"),
    )
    oldest = op.get_bind().execute(sa.text("SELECT min(id) FROM changes")).scalar()
    # Cursors that an older version gave name no history, and hold as long as the feed that they are of goes on.
    history = secrets.token_hex(4) if oldest is None else ""
    op.bulk_insert(feed, [{"id": 1, "history": history, "purged_to": (oldest or 1) - 1, "cluster": None}])
