"""Alembic's migrations; ``versions`` are applied at start when the schema is older than the program."""
