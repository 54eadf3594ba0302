"""What changed: counts of today and of seven days, and how many issues were open, drawn as a line."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from typing import TYPE_CHECKING

from patrolserver_exporter.issues.model import ChangeKind
from patrolserver_exporter.store.views import HOUR
from patrolserver_exporter.web.pages.words import counted, moment, number

if TYPE_CHECKING:
    from collections.abc import Sequence

    from patrolserver_exporter.store.views import Changed
    from patrolserver_exporter.web.pages.paths import Paths

DAYS = 7
DAY = 86_400
_COUNTED = (ChangeKind.OPENED, ChangeKind.REOPENED, ChangeKind.WORSENED, ChangeKind.FIXED, ChangeKind.EASED)
_MORE = frozenset((ChangeKind.OPENED, ChangeKind.REOPENED))
WIDTH, HEIGHT = 640, 120
"""Of the drawing, in its own units."""
_TOP, _BOTTOM = 8, 100


def midnight(now: float, days: int = 1) -> float:
    """When the first of so many days began, in UTC; today is the last of them."""
    return now // DAY * DAY - (days - 1) * DAY


@dataclass(frozen=True, slots=True)
class Cell:
    """A number, and the list behind it."""

    text: str
    link: str


@dataclass(frozen=True, slots=True)
class ChangedRow:
    """What happened, how often."""

    kind: str
    today: Cell
    week: Cell


@dataclass(frozen=True, slots=True)
class Day:
    """A day of the drawing."""

    x: float
    name: str
    number: str


@dataclass(frozen=True, slots=True)
class Line:
    """The line of open issues."""

    points: str
    area: str
    """The points, and the way back along the bottom."""
    days: tuple[Day, ...]
    highest: str
    words: str
    """The same for those who do not see it."""


@dataclass(frozen=True, slots=True)
class WhatChanged:
    """The section of the fleet's page."""

    rows: tuple[ChangedRow, ...]
    line: Line | None
    begun: str
    """Since when changes are kept, where that is within the seven days."""


def what_changed(changed: Changed, paths: Paths, now: float) -> WhatChanged:
    """Show it; ``changed`` reaches back to the midnight before seven days."""
    starts = {1: midnight(now), DAYS: midnight(now, DAYS)}

    def cell(kind: ChangeKind, days: int) -> Cell:
        first = int(starts[days] // HOUR)
        count = sum(n for (hour, what), n in changed.by_hour.items() if what is kind and hour >= first)
        return Cell(number(count), paths.to("changes", days=str(days), state=kind.value))

    late = changed.since > starts[DAYS] + HOUR
    return WhatChanged(
        rows=tuple(ChangedRow(kind.value, cell(kind, 1), cell(kind, DAYS)) for kind in _COUNTED),
        line=_line(changed, now),
        begun=moment(changed.since, now).shown if late else "",
    )


def _line(changed: Changed, now: float) -> Line | None:
    """From the first whole hour that is told to now: what was open then is what is open now, less what came since."""
    first, last = int(changed.since // HOUR), int(now // HOUR)
    if last - first < 2:
        return None
    open_then, counts = changed.open_now, []
    for hour in range(last, first - 1, -1):
        counts.append((hour, open_then))
        open_then -= sum(changed.by_hour.get((hour, kind), 0) for kind in _MORE)
        open_then += changed.by_hour.get((hour, ChangeKind.FIXED), 0)
    counts.reverse()
    return _drawn(counts, now)


def _drawn(counts: Sequence[tuple[int, int]], now: float) -> Line:
    begin = int(midnight(now, DAYS) // HOUR)
    highest = max(1, *(count for _, count in counts))

    def x(hour: float) -> float:
        return round((hour - begin) / (24 * DAYS) * WIDTH, 1)

    def y(count: int) -> float:
        return round(_BOTTOM - count / highest * (_BOTTOM - _TOP), 1)

    points = " ".join(f"{x(hour)},{y(count)}" for hour, count in counts)
    area = f"{x(counts[0][0])},{_BOTTOM} {points} {x(counts[-1][0])},{_BOTTOM}"
    days = tuple(
        Day(x(begin + 24 * day), when.strftime("%a"), when.strftime("%d"))
        for day in range(DAYS)
        for when in [dt.datetime.fromtimestamp((begin + 24 * day) * HOUR, dt.UTC)]
    )
    before, now_open = counts[0][1], counts[-1][1]
    start = moment(counts[0][0] * HOUR, now)
    words = (
        f"{counted(now_open, 'issue is', 'issues are')} open now, waived ones included; "
        f"{number(before)} {'was' if before == 1 else 'were'} {start.words}, and {number(highest)} at most in between."
    )
    return Line(points, area, days, number(highest), words)
