"""What a skipped test says of why it is skipped."""

from __future__ import annotations

NOT_OURS = "not part of the repository: "
"""Begins the reason of a test that needs what neither the repository nor its CI can install; CI lets it be skipped."""
