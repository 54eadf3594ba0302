"""Waiting for a condition, with a bound."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")


SOON, AT_MOST = 0.02, 0.25
"""Seconds between two looks: at first, and after a long wait."""


def eventually(probe: Callable[[], T], *, within: float = 20.0, every: float = 0.0, what: str = "the condition") -> T:
    """Call ``probe`` until it returns something true, and return that; an assertion fails after ``within`` seconds.

    Between two looks lie ``every`` seconds. Without that they are more the longer it lasts, a twentieth of it, and more
    the longer a look takes, so that what is waited for has the machine. A probe that raises ``OSError`` or
    ``AssertionError`` is called again: a server may still be starting.
    """
    began = time.monotonic()
    last: object = None
    while True:
        looked = time.monotonic()
        try:
            last = probe()
            if last:
                return last
        except (OSError, AssertionError) as error:
            last = error
        now = time.monotonic()
        if now > began + within:
            raise AssertionError(f"{what} did not come about within {within:g} s; last seen: {last!r}")
        time.sleep(every or min(max(SOON, 3 * (now - looked), (now - began) / 20), AT_MOST))
