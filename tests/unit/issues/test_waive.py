from __future__ import annotations

import datetime as dt
import time
from typing import Any

import pytest
from tests.unit.issues.builders import issue

from patrolserver_exporter.issues.model import ChangeKind, Issue, IssueExploit, Kind, Severity, Waiver
from patrolserver_exporter.issues.waive import apply_waivers, cover, covers, day_of, expired, uncovered, unused

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
    """A waiver covers what its globs and kind match, through the day it names; one of an exploit nothing."""
    assert cover(issue("php"), NAME, [waiver(**fields)], TODAY).waived == holds


def test_the_longest_waiver_stands() -> None:
    """Of several waivers the one that lasts longest is shown, so that the issue does not flap between them."""
    longer = waiver(until=TODAY + dt.timedelta(days=9), reason="longer")
    covered = cover(issue(), NAME, [waiver(), longer, waiver()], TODAY)
    assert (covered.waived_until, covered.waived_reason) == (longer.until, "longer")


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
    """Waivers that no longer hold are distinguished from those that hold and cover nothing."""
    old, idle, busy = waiver(until=TODAY - dt.timedelta(days=1)), waiver(software="perl"), waiver()
    assert expired([old, idle, busy], TODAY) == (old,)
    assert unused([old, idle, busy], [(NAME, issue()), (NAME, issue("perl", fixed_at=2.0))], TODAY) == (idle,)


def exploit_issue() -> Issue:
    """A critical issue of two exploits, one of them only medium."""
    exploits = (
        IssueExploit(id="1", cve="CVE-2026-0001", risk=9.8, first_seen=1000.0),
        IssueExploit(id="2", risk=5.0, first_seen=1000.0),
    )
    return issue("php", Kind.EXPLOITABLE, risk=9.8, exploits=exploits)


def test_a_waiver_of_one_exploit_leaves_the_others() -> None:
    """The issue is not waived, and has the severity and the risk of what is not covered."""
    for glob in ("CVE-2026-0001", "cve-2026-*", "1"):
        left = cover(exploit_issue(), NAME, [waiver(exploit=glob)], TODAY)
        assert (left.waived, left.severity, left.risk) == (False, Severity.MEDIUM, 5.0)
        assert [exploit.waived for exploit in left.exploits] == [True, False]
        assert cover(left, NAME, [], TODAY) == exploit_issue()


def test_the_worst_exploit_that_is_left_decides() -> None:
    """A waiver of the lesser exploit changes nothing that counts."""
    left = cover(exploit_issue(), NAME, [waiver(exploit="2")], TODAY)
    assert (left.waived, left.severity, left.risk) == (False, Severity.CRITICAL, 9.8)


def test_what_no_waiver_covers() -> None:
    """It is what the gate counts, whatever waivers the issue was stored under; else the waiver that ends first."""
    left, waiver_of = uncovered(exploit_issue(), NAME, [waiver(exploit="1")], TODAY)
    assert waiver_of is None
    assert left is not None
    assert ([one.id for one in left.exploits], left.severity, left.risk) == (["2"], Severity.MEDIUM, 5.0)
    stored = cover(exploit_issue(), NAME, [waiver(exploit="1")], TODAY)
    assert uncovered(stored, NAME, [], TODAY) == (exploit_issue(), None)
    later = waiver(exploit="1", until=TODAY + dt.timedelta(days=9))
    assert uncovered(exploit_issue(), NAME, [later, waiver(exploit="2")], TODAY) == (None, waiver(exploit="2"))


def test_an_issue_is_waived_when_all_its_exploits_are() -> None:
    """By one waiver without an exploit, or by several together: until the first of them ends."""
    later = TODAY + dt.timedelta(days=9)
    assert cover(exploit_issue(), NAME, [waiver()], TODAY).waived
    both = cover(exploit_issue(), NAME, [waiver(exploit="1", until=later), waiver(exploit="2")], TODAY)
    assert (both.waived_until, both.severity) == (TODAY, Severity.CRITICAL)
    one_left = cover(both, NAME, [waiver(exploit="1", until=later), waiver(exploit="2")], TODAY + dt.timedelta(days=1))
    assert (one_left.waived, one_left.severity) == (False, Severity.MEDIUM)


def test_an_exploit_without_id_and_cve_is_covered_by_no_name() -> None:
    """There is nothing to match, so only a waiver of all exploits covers it."""
    nameless = issue(
        "php", Kind.EXPLOITABLE, risk=9.8, exploits=(IssueExploit(title="Overflow", risk=9.8, first_seen=1.0),)
    )
    assert not cover(nameless, NAME, [waiver(exploit="*")], TODAY).waived
    assert cover(nameless, NAME, [waiver()], TODAY).waived


def test_max_severity_ends_to_cover_what_becomes_worse() -> None:
    """An exploit above it is not covered; one of unknown risk is high."""
    high = waiver(exploit="1", max_severity=Severity.HIGH)
    assert cover(exploit_issue(), NAME, [high], TODAY) == exploit_issue()
    assert not covers(high, exploit_issue(), NAME)
    unrated = issue("php", Kind.EXPLOITABLE, exploits=(IssueExploit(id="1", risk=None, first_seen=1.0),))
    assert cover(unrated, NAME, [high], TODAY).waived
    assert not cover(unrated, NAME, [waiver(max_severity=Severity.MEDIUM)], TODAY).waived


@pytest.mark.parametrize(("bound", "holds"), [(None, True), (Severity.CRITICAL, True), (Severity.HIGH, False)])
def test_a_gate_takes_an_exploit_of_unknown_risk_for_critical(bound: Severity | None, holds: bool) -> None:  # noqa: FBT001  # a column
    """So a waiver that ends to cover what becomes critical does not cover one whose risk nobody tells any more."""
    unrated = issue("php", Kind.EXPLOITABLE, exploits=(IssueExploit(id="1", risk=None, first_seen=NOON),))
    left, _ = uncovered(unrated, NAME, [waiver(max_severity=bound)], TODAY)
    assert (left is None) == holds


def test_an_issue_stored_without_exploits_is_waived_as_a_whole_only() -> None:
    """As long as nobody knows them, a waiver of one covers nothing."""
    old = issue("php", Kind.EXPLOITABLE, risk=9.8)
    assert not cover(old, NAME, [waiver(exploit="*")], TODAY).waived
    assert cover(old, NAME, [waiver()], TODAY).waived


def test_beside_what_holds_already() -> None:
    """Further waivers add to those that cover the issue today, and none of them to one that has ended."""
    first = cover(exploit_issue(), NAME, [waiver(exploit="1")], TODAY)
    assert cover(first, NAME, [waiver(exploit="2")], TODAY, beside=True).waived
    assert cover(first, NAME, [], TODAY, beside=True) == first
    assert cover(first, NAME, [], TODAY + dt.timedelta(days=1), beside=True) == exploit_issue()


def test_beside_what_holds_already_of_an_issue_without_exploits() -> None:
    """The longer one of what covers it and what is new stands."""
    first = cover(issue(), NAME, [waiver(reason="first")], TODAY)
    assert cover(first, NAME, [], TODAY, beside=True) == first
    assert not cover(first, NAME, [], TODAY).waived
    assert not cover(first, NAME, [], TODAY + dt.timedelta(days=1), beside=True).waived
    longer = waiver(until=TODAY + dt.timedelta(days=1), reason="longer")
    assert cover(first, NAME, [longer], TODAY, beside=True).waived_reason == "longer"
    held = cover(issue(), NAME, [longer], TODAY)
    assert cover(held, NAME, [waiver()], TODAY, beside=True) == held


def test_of_waivers_that_end_on_one_day_the_first_stands() -> None:
    """Whatever their reasons say, so that an issue keeps the one that it had."""
    waivers = [waiver(reason="a"), waiver(reason="b")]
    assert cover(issue(), NAME, waivers, TODAY).waived_reason == "a"
    each = [waiver(exploit="1", reason="z"), waiver(exploit="2", reason="a")]
    assert cover(exploit_issue(), NAME, each, TODAY).waived_reason == "z"


def test_a_part_that_is_waived_is_told() -> None:
    """Where a waiver begins or ceases to cover the worst exploit, what counts is another, and the feed says so."""
    changed, changes = apply_waivers([exploit_issue()], NAME, [waiver(exploit="1")], NOON)
    assert [(change.kind, change.issue.severity) for change in changes] == [(ChangeKind.WAIVED, Severity.MEDIUM)]
    _, ended = apply_waivers(changed, NAME, [], NOON)
    assert [(change.kind, change.issue.severity) for change in ended] == [(ChangeKind.UNWAIVED, Severity.CRITICAL)]
    _, lesser = apply_waivers([exploit_issue()], NAME, [waiver(exploit="2")], NOON)
    assert lesser == ()


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
