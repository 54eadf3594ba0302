"""Where a state went that was copied to another store."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    """Add a column to the one row of the feed."""
    op.add_column("feed", sa.Column("moved_to", sa.Text))
