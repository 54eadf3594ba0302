"""``Retry-After``, in every form it comes in."""

from __future__ import annotations

import datetime as dt
import re
from email.utils import parsedate_to_datetime

LONGEST = 86_400.0
"""Seconds; a longer wait is cut to this."""

_NUMBER = re.compile(r"[+-]?\d+(?:\.\d*)?", re.ASCII)


def read_retry_after(value: str | None, now: float) -> float | None:
    """Seconds to wait, 0 to 86,400; None when the header is missing or means nothing.

    Args:
        value: the header: seconds, whole or not, or an HTTP date.
        now: seconds since the epoch, what a date is compared with.
    """
    if value is None:
        return None
    text = value.strip()
    seconds = float(text) if _NUMBER.fullmatch(text) else _seconds_until(text, now)
    return None if seconds is None else min(max(seconds, 0.0), LONGEST)


def _seconds_until(date: str, now: float) -> float | None:
    try:
        moment = parsedate_to_datetime(date)
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=dt.UTC)
        return moment.timestamp() - now
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
