"""An account's own state as a document, and how often issues got worse."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Add two columns."""
    op.add_column("accounts", sa.Column("state", sa.LargeBinary))
    op.add_column("tallies", sa.Column("worsened", sa.BigInteger, nullable=False, server_default="0"))
