"""Numbers, times and ages for people."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


def number(count: int) -> str:
    """Write a count with separators: 12,345."""
    return f"{count:,}"


def counted(count: int, one: str, many: str | None = None) -> str:
    """Write a count with its noun: 1 server, 2 servers."""
    return f"{number(count)} {one if count == 1 else many or one + 's'}"


def listed(parts: Sequence[str]) -> str:
    """Join with commas and an "and"."""
    if len(parts) < 2:
        return "".join(parts)
    return f"{', '.join(parts[:-1])} and {parts[-1]}"


def place(location: str | None, parent: str | None) -> str:
    """Say where a software is installed."""
    parts = [location or "", f"part of {parent}" if parent else ""]
    return ", ".join(part for part in parts if part)


_UNITS = ((86_400.0, "day"), (3600.0, "hour"), (60.0, "minute"), (1.0, "second"))
_LAST = 253_402_300_799.0
"""The end of the year 9999, which is the last moment that calendars here know."""


@dataclass(frozen=True, slots=True)
class Moment:
    """A point in time in three forms."""

    iso: str
    """For machines: RFC 3339 in UTC."""
    shown: str
    """For people, in UTC."""
    words: str
    """Its distance from now, such as "3 hours ago"."""


def span(seconds: float) -> str:
    """Write a length of time by its largest unit, rounded down; two units where one would be coarse."""
    seconds = max(seconds, 0.0)
    for index, (size, name) in enumerate(_UNITS):
        count = int(seconds // size)
        if not count:
            continue
        words = _counted(count, name)
        if index + 1 < len(_UNITS) and name in {"day", "hour"} and count < 3:
            smaller, smaller_name = _UNITS[index + 1]
            rest = int((seconds - count * size) // smaller)
            return f"{words} {_counted(rest, smaller_name)}" if rest else words
        return words
    return "0 seconds"


def _counted(count: int, unit: str) -> str:
    return f"{count} {unit}" if count == 1 else f"{count} {unit}s"


def moment(at: float, now: float) -> Moment:
    """Write a time (seconds since the epoch) as seen from ``now``."""
    day = dt.datetime.fromtimestamp(min(max(at, 0.0), _LAST), dt.UTC)
    return Moment(day.strftime("%Y-%m-%dT%H:%M:%SZ"), day.strftime("%Y-%m-%d %H:%M UTC"), _distance(now - at))


def maybe(at: float | None, now: float) -> Moment | None:
    """Write a time, where there is one."""
    return None if at is None else moment(at, now)


def _distance(seconds: float) -> str:
    if abs(seconds) < 2:
        return "just now"
    return f"{span(seconds)} ago" if seconds > 0 else f"in {span(-seconds)}"
