"""How long the long tests are."""

from __future__ import annotations

import os

FULL = os.environ.get("PATROLSERVER_FULL") == "1"
"""Whether they have their full size, which takes most of an hour."""

LONGEST = 7200 if FULL else 300
"""Seconds that such a test may take."""
