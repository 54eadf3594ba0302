"""Waiting for a condition, with a bound."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")


def eventually(probe: Callable[[], T], *, within: float = 20.0, every: float = 0.02, what: str = "the condition") -> T:
    """Call ``probe`` until it returns something true, and return that; an assertion fails after ``within`` seconds.

    A probe that raises ``OSError`` or ``AssertionError`` is called again: a server may still be starting.
    """
    end = time.monotonic() + within
    last: object = None
    while True:
        try:
            last = probe()
            if last:
                return last
        except (OSError, AssertionError) as error:
            last = error
        if time.monotonic() > end:
            raise AssertionError(f"{what} did not come about within {within:g} s; last seen: {last!r}")
        time.sleep(every)
