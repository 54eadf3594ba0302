"""What changed: counts by day, and a line that is true back to where it begins."""

from __future__ import annotations

from patrolserver_exporter.issues.model import ChangeKind
from patrolserver_exporter.store.views import HOUR, Changed
from patrolserver_exporter.web.pages.paths import Paths
from patrolserver_exporter.web.pages.trend import DAY, midnight, what_changed

NOW = 1_800_000_000.0
"""08:00 UTC."""
NOON = int(NOW // HOUR)


def test_today_and_seven_days_begin_at_midnight_in_utc() -> None:
    """Today is the last of the seven."""
    assert midnight(NOW) == NOW // DAY * DAY
    assert midnight(NOW) - midnight(NOW, 7) == 6 * DAY


def test_what_happened_is_counted_for_today_and_for_seven_days() -> None:
    """Each number leads to the list behind it."""
    changed = Changed(
        since=midnight(NOW, 7),
        by_hour={
            (NOON, ChangeKind.OPENED): 2,
            (NOON - 8, ChangeKind.OPENED): 1,
            (NOON - 9, ChangeKind.OPENED): 4,
            (NOON - 30, ChangeKind.FIXED): 3,
        },
        open_now=9,
    )
    rows = {row.kind: row for row in what_changed(changed, Paths(), NOW).rows}
    assert (rows["opened"].today.text, rows["opened"].week.text) == ("3", "7")
    assert (rows["fixed"].today.text, rows["fixed"].week.text) == ("0", "3")
    assert rows["opened"].today.link == "/changes?days=1&state=opened"


def test_the_line_goes_back_from_what_is_open_now() -> None:
    """Before an issue was opened there was one less, before one was fixed one more."""
    changed = Changed(
        since=NOW - 3 * HOUR,
        by_hour={(NOON, ChangeKind.OPENED): 2, (NOON - 1, ChangeKind.FIXED): 5, (NOON - 2, ChangeKind.WORSENED): 7},
        open_now=10,
    )
    shown = what_changed(changed, Paths(), NOW)
    assert shown.line is not None
    heights = [float(point.split(",")[1]) for point in shown.line.points.split()]
    counts = [round((100 - height) / 92 * 13) for height in heights]
    assert counts == [13, 13, 8, 10]
    assert shown.line.words.startswith("10 issues are open now, waived ones included; 13 were 3 hours ago")
    assert shown.begun, "the page says since when changes are known"


def test_without_a_past_there_is_no_line() -> None:
    """An exporter that has just started knows nothing of yesterday, and draws nothing."""
    assert what_changed(Changed(since=NOW - 60, by_hour={}, open_now=3), Paths(), NOW).line is None
