from __future__ import annotations

import datetime as dt
import time
from typing import Any

import pytest
from tests.unit.issues.builders import issue

from patrolserver_exporter.issues.model import ChangeKind, Kind, Severity, Waiver
from patrolserver_exporter.issues.waive import apply_waivers, day_of, expired, unused, waiver_for

TODAY = dt.date(2027, 1, 31)
NOON = dt.datetime(2027, 1, 31, 12, tzinfo=dt.UTC).timestamp()
NAME = "web1.staging.example.org"


def waiver(**fields: Any) -> Waiver:
    """A waiver that covers all, unless told otherwise."""
    known: dict[str, Any] = {"server": "*", "software": "*", "until": TODAY, "reason": "replaced"}
    return Waiver(**(known | fields))


@pytest.mark.parametrize(
    ("fields", "holds"),
    [
        ({}, True),
        ({"server": "*.staging.example.org"}, True),
        ({"server": "*.STAGING.example.org"}, True),
        ({"server": "staging.example.org"}, False),
        ({"server": "web[12].*"}, True),
        ({"software": "php"}, True),
        ({"software": "ph"}, False),
        ({"software": "p*"}, True),
        ({"kind": Kind.OUTDATED}, True),
        ({"kind": Kind.UNSUPPORTED}, False),
        ({"until": TODAY - dt.timedelta(days=1)}, False),
        ({"max_severity": Severity.HIGH}, True),
        ({"max_severity": Severity.MEDIUM}, True),
        ({"max_severity": Severity.LOW}, False),
        ({"exploit": "CVE-2026-0001"}, False),
        ({"exploit": "*"}, False),
    ],
)
def test_what_a_waiver_covers(fields: dict[str, Any], holds: bool) -> None:  # noqa: FBT001  # a column of the table
    """A waiver covers what its globs, kind and severity match, through the day it names; one of an exploit nothing."""
    assert (waiver_for(issue("php"), NAME, [waiver(**fields)], TODAY) is not None) == holds


def test_the_longest_waiver_stands() -> None:
    """Of several waivers the one that lasts longest is shown, so that the issue does not flap between them."""
    longer = waiver(until=TODAY + dt.timedelta(days=9))
    assert waiver_for(issue(), NAME, [waiver(), longer, waiver()], TODAY) == longer


def test_the_day_ends_in_utc() -> None:
    """The last day of a waiver is counted in UTC and is over at midnight."""
    midnight = dt.datetime(2027, 2, 1, tzinfo=dt.UTC).timestamp()
    assert day_of(midnight - 1) == TODAY
    assert apply_waivers([issue()], NAME, [waiver()], midnight - 1)[0][0].waived
    assert apply_waivers([issue()], NAME, [waiver()], midnight) == ((), ())


def test_waiving_and_its_end_are_told() -> None:
    """An issue that becomes waived, and one whose waiver ended, are changed rows and entries of the feed."""
    changed, changes = apply_waivers([issue()], NAME, [waiver()], NOON)
    assert [(change.kind, change.at, change.issue.waived_reason) for change in changes] == [
        (ChangeKind.WAIVED, NOON, "replaced")
    ]
    assert apply_waivers(changed, NAME, [waiver()], NOON) == ((), ())
    again, ended = apply_waivers(changed, NAME, [], NOON)
    assert again == (issue(),)
    assert [change.kind for change in ended] == [ChangeKind.UNWAIVED]


def test_another_waiver_is_no_change_for_the_feed() -> None:
    """A new date or reason is written, but the issue was and is waived."""
    waived, _ = apply_waivers([issue()], NAME, [waiver()], NOON)
    changed, changes = apply_waivers(waived, NAME, [waiver(reason="other")], NOON)
    assert [row.waived_reason for row in changed] == ["other"]
    assert changes == ()


def test_fixed_issues_are_left_alone() -> None:
    """There is nothing to waive in a fixed issue."""
    assert apply_waivers([issue(fixed_at=2000.0)], NAME, [waiver()], NOON) == ((), ())


def test_expired_and_unused() -> None:
    """Waivers that no longer hold are told apart from those that hold and cover nothing."""
    old, idle, busy = waiver(until=TODAY - dt.timedelta(days=1)), waiver(software="perl"), waiver()
    assert expired([old, idle, busy], TODAY) == (old,)
    assert unused([old, idle, busy], [(NAME, issue()), (NAME, issue("perl", fixed_at=2.0))], TODAY) == (idle,)


def test_an_issue_without_a_change_does_not_hide_the_next() -> None:
    """Fixed issues, and those that no waiver touches, are passed over one by one."""
    changed, _ = apply_waivers([issue(fixed_at=2000.0), issue("perl"), issue()], NAME, [waiver(software="php")], NOON)
    assert [row.canonical_name for row in changed] == ["php"]


def test_the_day_is_that_of_utc_on_every_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """The clock of a machine in Auckland is half a day ahead; the waiver's day is not."""
    monkeypatch.setenv("TZ", "NZST-13")
    time.tzset()
    try:
        assert day_of(NOON) == TODAY
    finally:
        monkeypatch.undo()
        time.tzset()
