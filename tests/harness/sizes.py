"""How long the long tests are."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, TypeVar

from tests.harness.few import few_of

if TYPE_CHECKING:
    from collections.abc import Sequence

T = TypeVar("T")

FULL = os.environ.get("PATROLSERVER_FULL") == "1"
"""Whether they have their full size, which takes most of an hour."""

LONGEST = 7200 if FULL else 300
"""Seconds that such a test may take."""


def all_or_few(cases: Sequence[T], few: int) -> Sequence[T]:
    """All in full size, otherwise so many, which take turns."""
    return cases if FULL else few_of(cases, few)
