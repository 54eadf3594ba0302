from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from tests.unit.issues.builders import (
    ACCOUNT,
    BYSTANDER,
    DECIDED_SOFTWARE,
    EXPLOIT_RISK,
    REPORTED,
    SERVER,
    SETTLE,
    SOFTWARE,
    exploitable,
    exploited,
    issue,
    outdated,
    reported,
    software,
    unsupported,
)

from patrolserver_exporter.issues.derive import derive, undecided
from patrolserver_exporter.issues.merge import NOTHING_BEFORE, Before, Merged, apply_event, apply_poll
from patrolserver_exporter.issues.model import SHORT_BREAK, ChangeKind, Issue, IssueClass, Kind, Severity
from patrolserver_exporter.patrolserver.models import Exploit, ReportedIssue, Software

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


VERSION, EXPLOIT = IssueClass.VERSION, IssueClass.EXPLOIT


def poll(
    issues: Sequence[Issue],
    at: float,
    *listed: Software,
    whole: bool = True,
    reclassified: bool = False,
    before: Before = NOTHING_BEFORE,
) -> Merged:
    """Merge a poll that started ``at`` and listed that software, and some that is fine."""
    return apply_poll(
        issues,
        (*listed, BYSTANDER),
        account=ACCOUNT,
        server_id=SERVER,
        started_at=at,
        exploit_risk=EXPLOIT_RISK,
        settle=SETTLE,
        whole=whole,
        reclassified=reclassified,
        before=before,
    )


def event(issues: Sequence[Issue], at: float, *reports: ReportedIssue, last_poll: float | None = None) -> Merged:
    """Merge an event that was received ``at``."""
    return apply_event(
        issues,
        reports,
        account=ACCOUNT,
        server_id=SERVER,
        received_at=at,
        last_poll_started_at=last_poll,
        settle=SETTLE,
    )


def told(outcome: Merged) -> list[ChangeKind]:
    """What the change feed tells."""
    return [change.kind for change in outcome.changes]


def only(outcome: Merged) -> Issue:
    """The one issue there is."""
    (issue,) = outcome.issues
    return issue


class TestPoll:
    """What polls alone do."""

    def test_opens(self) -> None:
        """What a poll shows for the first time is opened as of its start."""
        outcome = poll((), 1000.0, outdated(), software("nginx"))
        opened = only(outcome)
        assert (opened.kind, opened.first_seen, opened.last_seen, opened.polled) == (
            Kind.OUTDATED,
            1000.0,
            1000.0,
            True,
        )
        assert outcome.changed == outcome.issues
        assert [(change.kind, change.at) for change in outcome.changes] == [(ChangeKind.OPENED, 1000.0)]

    def test_keeps(self) -> None:
        """What a later poll shows again is only seen again."""
        first = poll((), 1000.0, outdated())
        outcome = poll(first.issues, 2000.0, outdated())
        assert only(outcome).first_seen == 1000.0
        assert only(outcome).last_seen == 2000.0
        assert outcome.changes == ()

    def test_fixes(self) -> None:
        """What a later whole poll no longer shows is fixed as of its start."""
        outcome = poll(poll((), 1000.0, outdated()).issues, 2000.0, software())
        assert only(outcome).fixed_at == 2000.0
        assert told(outcome) == [ChangeKind.FIXED]
        assert poll(outcome.issues, 3000.0, software()).changed == ()

    @pytest.mark.parametrize(
        ("first", "then"),
        [
            ({"location": "/"}, {"location": None}),
            ({"location": None}, {"location": "/"}),
            ({"location": ""}, {"location": "/"}),
            ({"name": "php"}, {"name": "PHP"}),
            ({"name": "php", "location": "/"}, {"name": "Php", "location": None}),
        ],
    )
    @pytest.mark.parametrize("made", [outdated, unsupported, exploitable])
    def test_another_spelling_is_no_other_software(
        self, made: Callable[..., Software], first: dict[str, Any], then: dict[str, Any]
    ) -> None:
        """An issue stays as old as it is, and comes back, whether its place is ``/`` or none, in whatever capitals."""
        shown = poll((), 1000.0, made(**first))
        again = poll(shown.issues, 2000.0, made(**then))
        assert only(again) == replace(only(shown), last_seen=2000.0, software=only(again).software)
        assert told(again) == []
        assert told(poll(again.issues, 3000.0, made(**first))) == []
        fixed = poll(again.issues, 3000.0, software(**first))
        assert only(fixed).fixed_at == 3000.0
        assert told(poll(fixed.issues, 4000.0, made(**then))) == [ChangeKind.REOPENED]

    @pytest.mark.parametrize(("away", "goes_on"), [(SHORT_BREAK - 1, True), (SHORT_BREAK, False)])
    def test_what_comes_back_within_a_day_may_never_have_been_fixed(self, away: float, goes_on: bool) -> None:  # noqa: FBT001
        """It is reopened with a new start, and keeps how old it was before, through more than one such break."""
        first = poll(poll((), 1000.0, outdated()).issues, 2000.0, unsupported())
        fixed = poll(first.issues, 3000.0, software())
        back = poll(fixed.issues, 3000.0 + away, unsupported())
        assert told(back) == [ChangeKind.REOPENED]
        assert only(back).first_seen == 3000.0 + away
        since = [only(back).counts_since(one) for one in (Severity.HIGH, Severity.MEDIUM, None)]
        assert since == ([2000.0, 1000.0, 1000.0] if goes_on else [3000.0 + away] * 3)
        reported_back = event(fixed.issues, 3000.0 + away, reported(location=None), last_poll=4000.0)
        assert only(reported_back).counts_since(None) == (1000.0 if goes_on else 3000.0 + away)
        taken_over = poll(reported_back.issues, 3100.0 + away, unsupported())
        assert only(taken_over).counts_since(Severity.HIGH) == (2000.0 if goes_on else 3000.0 + away)
        again = poll(poll(back.issues, 4000.0 + away, software()).issues, 5000.0 + away, unsupported())
        assert only(again).counts_since(Severity.HIGH) == (2000.0 if goes_on else 3000.0 + away)

    def test_what_one_poll_lacked_comes_back_as_old_as_it_is_however_late(self) -> None:
        """Where no other whole poll came between, as with an interval of days or an API that was away."""
        fixed = poll(poll((), 1000.0, unsupported()).issues, 2000.0, software())
        late = 2000.0 + 3 * SHORT_BREAK
        back = poll(fixed.issues, late, unsupported(), before=Before(last_whole_at=2000.0))
        assert only(back).counts_since(Severity.HIGH) == 1000.0
        anew = poll(fixed.issues, late, unsupported(), before=Before(last_whole_at=3000.0))
        assert only(anew).counts_since(Severity.HIGH) == late

    def test_a_severity_that_has_ended_is_not_counted_from_before_a_break(self) -> None:
        """Eased for a day, or less for a day after it came back; what was eased for one poll goes on."""
        high = poll((), 1000.0, unsupported())
        back = poll(poll(high.issues, 2000.0, software()).issues, 3000.0, unsupported())
        eased = poll(poll(back.issues, 4000.0, outdated()).issues, 5000.0, unsupported())
        assert only(eased).counts_since(Severity.HIGH) == 1000.0
        eased = poll(poll(back.issues, 4000.0, outdated()).issues, 4000.0 + SHORT_BREAK, unsupported())
        assert only(eased).counts_since(Severity.HIGH) == 4000.0 + SHORT_BREAK
        assert only(eased).counts_since(Severity.MEDIUM) == 1000.0
        less = poll(poll(high.issues, 2000.0, software()).issues, 3000.0, outdated())
        soon, late = (poll(less.issues, 3000.0 + after, unsupported()) for after in (3600.0, SHORT_BREAK))
        assert only(soon).counts_since(Severity.HIGH) == 1000.0
        assert only(late).counts_since(Severity.HIGH) == 3000.0 + SHORT_BREAK

    def test_software_that_moved_is_as_old_as_where_it_was(self) -> None:
        """A release in another folder is another issue, and mends nothing; one more folder is new."""
        first = poll((), 1000.0, unsupported(location="/srv/1"), unsupported("nginx", location="/srv/1"))
        moved = poll(first.issues, 2000.0, unsupported(location="/srv/2"), unsupported("nginx", location="/srv/1"))
        assert told(moved) == [ChangeKind.OPENED, ChangeKind.FIXED]
        (new,) = (one for one in moved.issues if one.location == "/srv/2")
        assert (new.first_seen, new.counts_since(Severity.HIGH)) == (2000.0, 1000.0)
        again = poll(moved.issues, 3000.0, unsupported(location="/srv/3"), unsupported("nginx", location="/srv/1"))
        assert [one.counts_since(Severity.HIGH) for one in again.issues if one.location == "/srv/3"] == [1000.0]
        more = poll(first.issues, 2000.0, unsupported(location="/srv/1"), unsupported(location="/srv/2"))
        assert [one.counts_since(Severity.HIGH) for one in more.issues if one.location == "/srv/2"] == [2000.0]

    def test_software_at_two_places_is_two(self) -> None:
        """Where both are listed, neither is the other spelt otherwise, nor is one at another path."""
        both = poll((), 1000.0, outdated(location="/"), outdated(location=None))
        assert [one.location for one in both.issues] == [None, "/"]
        left = poll(both.issues, 2000.0, outdated(location=None))
        assert [one.fixed_at for one in left.issues] == [None, 2000.0]
        moved = poll(left.issues, 3000.0, outdated(location=None), outdated(location="/srv"))
        assert told(moved) == [ChangeKind.OPENED]

    def test_what_is_undecided_under_another_spelling_stays_open(self) -> None:
        """A poll that no longer tells whether it is supported fixes nothing, however it writes it."""
        first = poll((), 1000.0, unsupported(location="/"))
        assert only(poll(first.issues, 2000.0, software("PHP", supported=None))).is_open

    @pytest.mark.parametrize(
        ("before", "then", "unknown"),
        [
            (software(supported=None), unsupported(), True),
            (software("PHP", supported=None, location="/"), unsupported(), True),
            (software(exploits=None), exploitable(), True),
            (software(exploits=None), unsupported(), False),
            (software(supported=None), exploitable(), False),
            (software(), unsupported(), False),
            (software("nginx", supported=None), unsupported(), False),
        ],
    )
    def test_an_issue_of_software_of_which_nothing_was_told_is_of_unknown_age(
        self,
        before: Software,
        then: Software,
        unknown: bool,  # noqa: FBT001
    ) -> None:
        """It may have been there all the time; the same where it was fixed before."""
        told_before = Before(undecided=undecided([before]))
        assert only(poll((), 2000.0, then, before=told_before)).age_unknown is unknown
        fixed = poll(poll((), 1000.0, then).issues, 1500.0, software())
        back = poll(fixed.issues, 2000.0, then, before=told_before)
        assert (only(back).first_seen, only(back).age_unknown) == (2000.0, unknown)
        assert only(poll(back.issues, 3000.0, then)).age_unknown is unknown
        event_first = event((), 1990.0, reported())
        taken_over = poll(event_first.issues, 2000.0, then, before=told_before)
        assert [one.age_unknown for one in taken_over.issues] == [unknown]

    def test_exploits_that_the_last_poll_did_not_tell_are_of_unknown_age(self) -> None:
        """What was known of them before says nothing of the time since; the version is another matter."""
        before = Before(exploits_untold=True)
        assert only(poll((), 2000.0, exploitable(), before=before)).age_unknown
        assert not only(poll((), 2000.0, unsupported(), before=before)).age_unknown

    def test_what_gets_worse_where_nothing_was_told_is_of_unknown_age(self) -> None:
        """It may have been so bad all the time; so may what other settings find."""
        before = Before(undecided=undecided([software(supported=None)]))
        first = poll((), 1000.0, outdated())
        assert only(poll(first.issues, 2000.0, unsupported(), before=before)).age_unknown
        assert not only(poll(first.issues, 2000.0, outdated(), before=before)).age_unknown
        assert only(poll((), 2000.0, exploitable(risk=6.0), reclassified=True)).age_unknown

    def test_the_spelling_of_an_open_issue_goes_before_that_of_others(self) -> None:
        """One that was fixed, or that an event reported, under the other spelling is no second one."""
        old = poll((), 1000.0, unsupported("PHP"))
        told_of = event(old.issues, 2000.0, reported("php"))
        assert len(told_of.issues) == 1
        assert only(poll(told_of.issues, 3000.0, unsupported("php"))).first_seen == 1000.0
        fixed = poll(poll((), 100.0, unsupported("php")).issues, 200.0, software("php"))
        both = (*fixed.issues, *old.issues)
        shown = poll(both, 3000.0, unsupported("php"))
        assert told(shown) == []
        assert [one.first_seen for one in shown.issues if one.is_open] == [1000.0]

    def test_fixes_what_is_no_longer_listed(self) -> None:
        """Software that is gone has no issues."""
        assert only(poll(poll((), 1000.0, outdated()).issues, 2000.0)).fixed_at == 2000.0

    def test_reopens(self) -> None:
        """A fixed issue that comes back keeps its fingerprint and starts again."""
        first = poll((), 1000.0, outdated())
        outcome = poll(poll(first.issues, 2000.0, software()).issues, 3000.0, unsupported())
        back = only(outcome)
        assert back.fingerprint == only(first).fingerprint
        assert (back.first_seen, back.fixed_at, back.kind) == (3000.0, None, Kind.UNSUPPORTED)
        assert told(outcome) == [ChangeKind.REOPENED]

    def test_reopens_as_of_the_poll_that_fixed(self) -> None:
        """The last poll may be merged again by other rules: what they find in it comes back."""
        fixed = poll(poll((), 1000.0, outdated()).issues, 2000.0).issues
        outcome = poll(fixed, 2000.0, outdated())
        assert (only(outcome).is_open, only(outcome).first_seen) == (True, 2000.0)
        assert told(outcome) == [ChangeKind.REOPENED]

    def test_the_same_poll_by_other_rules_has_the_word(self) -> None:
        """What they find of an issue is shown as of the same poll, and what they no longer find was seen by it."""
        first = poll((), 1000.0, outdated()).issues
        assert only(poll(first, 1000.0, unsupported())).kind is Kind.UNSUPPORTED
        assert poll(first, 1000.0).changed == ()

    def test_another_kind_is_the_same_issue(self) -> None:
        """A change of kind within a class keeps the fingerprint; that it is worse now, or better, is told."""
        first = poll((), 1000.0, outdated())
        outcome = poll(first.issues, 2000.0, unsupported())
        assert (only(outcome).kind, only(outcome).severity) == (Kind.UNSUPPORTED, Severity.HIGH)
        assert only(outcome).fingerprint == only(first).fingerprint
        assert (only(outcome).first_seen, only(outcome).severity_since) == (1000.0, 2000.0)
        assert told(outcome) == [ChangeKind.WORSENED]
        back = poll(outcome.issues, 3000.0, outdated())
        assert told(back) == [ChangeKind.EASED]
        assert only(back).severity_since == 3000.0

    def test_a_poll_that_is_not_whole_fixes_nothing(self) -> None:
        """The entry that could not be read may be the one that is missed, but what is there counts."""
        first = poll((), 1000.0, outdated())
        outcome = poll(first.issues, 2000.0, outdated("nginx"), whole=False)
        assert [issue.is_open for issue in outcome.issues] == [True, True]
        assert told(outcome) == [ChangeKind.OPENED]

    def test_a_stale_poll_fixes_and_revives_nothing(self) -> None:
        """A poll that started before another knows nothing of what that one showed."""
        seen = poll((), 2000.0, outdated()).issues
        assert poll(seen, 1000.0).changed == ()
        fixed = poll(seen, 3000.0).issues
        assert poll(fixed, 2500.0, outdated()).changed == ()

    def test_a_stale_poll_changes_no_details(self) -> None:
        """What a later poll told of an issue stands."""
        seen = poll(poll((), 1000.0, outdated()).issues, 3000.0, unsupported()).issues
        assert poll(seen, 2000.0, outdated()).changed == ()

    def test_unknown_support_fixes_nothing(self) -> None:
        """While nobody knows, an open issue stays open, and is not seen."""
        first = poll((), 1000.0, outdated())
        assert poll(first.issues, 2000.0, outdated(supported=None)).changed == ()
        assert poll(first.issues, 2000.0, outdated(version=None)).changed == ()

    def test_unknown_exploits_fix_nothing(self) -> None:
        """A reply without exploits does not say that there are none."""
        first = poll((), 1000.0, exploitable())
        assert poll(first.issues, 2000.0, software(exploits=None)).changed == ()
        assert only(poll(first.issues, 2000.0, software())).fixed_at == 2000.0


class TestEvent:
    """What events alone do, and in which order."""

    def test_opens(self) -> None:
        """An event opens what it reports as of its reception, with the vendor's words."""
        outcome = event((), 1000.0, reported(title="Upgrade."))
        opened = only(outcome)
        assert (opened.kind, opened.severity, opened.polled) == (Kind.REPORTED, Severity.HIGH, False)
        assert (opened.first_seen, opened.event_received_at) == (1000.0, 1000.0)
        assert (opened.title, opened.description) == ("Upgrade.", "Upgrade. Really.")
        assert [(change.kind, change.at) for change in outcome.changes] == [(ChangeKind.OPENED, 1000.0)]

    def test_adds_to_what_polls_show(self) -> None:
        """An event about software with an open issue adds the vendor's words and opens nothing."""
        outcome = event(poll((), 1000.0, outdated(location="/")).issues, 2000.0, reported(title="Upgrade."))
        assert (only(outcome).title, only(outcome).kind) == ("Upgrade.", Kind.OUTDATED)
        assert (only(outcome).last_seen, only(outcome).event_received_at) == (2000.0, 2000.0)
        assert outcome.changes == ()

    def test_prefers_the_same_location(self) -> None:
        """Of several open issues of a software an event is about the one at its location, else the first."""
        seen = poll((), 1000.0, outdated(location="/a"), outdated(location="/b")).issues
        for location, title in ("/b", (None, "X")), (None, ("X", None)), ("/c", ("X", None)):
            outcome = event(seen, 2000.0, reported(title="X", location=location))
            assert tuple(issue.title for issue in outcome.issues) == title

    def test_an_older_event_only_fills_gaps(self) -> None:
        """Of two events the later received one has the word, in whatever order they are merged."""
        late = event(event((), 1000.0, reported(title="New.")).issues, 900.0, reported(title="Old."))
        assert (only(late).title, only(late).event_received_at, late.changed) == ("New.", 1000.0, ())
        gap = event(event((), 1000.0, reported(title=None)).issues, 900.0, reported(title="Old."))
        assert only(gap).title == "Old."

    def test_of_two_events_at_one_moment_the_last_has_the_word(self) -> None:
        """Neither is older than the other."""
        both = event(event((), 1000.0, reported(title="One.")).issues, 1000.0, reported(title="Other."))
        assert only(both).title == "Other."

    def test_a_late_event_does_not_make_an_issue_seem_longer_unseen(self) -> None:
        """A poll has shown it since, and a poll that started between the two knows less than that one."""
        late = only(event(poll((), 2000.0, outdated()).issues, 1000.0, reported(title="Upgrade.")))
        assert (late.title, late.last_seen, late.event_received_at) == ("Upgrade.", 2000.0, 1000.0)
        assert poll([late], 1500.0).changed == ()

    def test_a_newer_event_has_the_word_and_protects_anew(self) -> None:
        """What a second event reports is what is known, and settle counts from it."""
        newer = reported(title="New.")
        newer = replace(newer, software=replace(newer.about, version="2.0"))
        seen = only(event(event((), 1000.0, reported(title="Old.")).issues, 1100.0, newer))
        assert (seen.title, seen.description, seen.version) == ("New.", "New. Really.", "2.0")
        assert (seen.first_seen, seen.last_seen, seen.event_received_at) == (1000.0, 1100.0, 1100.0)
        assert poll([seen], 1000.0 + SETTLE).changed == ()
        silent = only(event([seen], 1200.0, replace(newer, title=None, description=None)))
        assert (silent.title, silent.description) == ("New.", "New. Really.")
        unversioned = replace(newer, software=replace(newer.about, version=None))
        assert only(event([seen], 1200.0, unversioned)).version == "2.0"

    def test_an_event_leaves_the_version_that_a_poll_showed(self) -> None:
        """The poll has looked, and the event may tell of an older state."""
        seen = poll((), 1000.0, outdated(version="3.0")).issues
        assert only(event(seen, 1100.0, reported())).version == "3.0"

    def test_a_reopened_issue_keeps_the_words_that_the_report_lacks(self) -> None:
        """An event without title and description takes none away."""
        opened = event((), 1000.0, reported(title="Upgrade.")).issues
        fixed = poll(opened, 1000.0 + SETTLE).issues
        back = only(event(fixed, 5000.0, reported(title=None), last_poll=1000.0 + SETTLE))
        assert (back.is_open, back.title, back.description) == (True, "Upgrade.", "Upgrade. Really.")

    def test_two_locations_are_two_issues(self) -> None:
        """Reports that are known to lie at different places are different issues."""
        outcome = event((), 1000.0, reported(location="/a"), reported(location="/b"), reported(location="/a"))
        assert [issue.location for issue in outcome.issues] == ["/a", "/b"]

    def test_reopens(self) -> None:
        """An event about software whose issues are fixed reopens one under its old fingerprint."""
        fixed = poll(poll((), 1000.0, outdated(location="/")).issues, 2000.0).issues
        outcome = event(fixed, 3000.0, reported(), last_poll=2000.0)
        back = only(outcome)
        assert (back.fingerprint, back.location) == (fixed[0].fingerprint, "/")
        assert (back.kind, back.first_seen, back.fixed_at, back.polled) == (Kind.REPORTED, 3000.0, None, False)
        assert told(outcome) == [ChangeKind.REOPENED]

    @pytest.mark.parametrize(
        ("fixed", "location", "back"),
        [
            ([(None, VERSION)], "/b", [0]),
            ([("/b", VERSION)], None, [0]),
            ([("/a", VERSION)], "/b", []),
            ([(None, VERSION), ("/b", VERSION)], "/b", [1]),
            ([(None, VERSION), ("/b", EXPLOIT)], "/b", [1]),
            ([("/a", VERSION), ("/b", EXPLOIT)], "/b", [1]),
            ([(None, EXPLOIT), ("/a", VERSION)], None, [1]),
            ([("/a", EXPLOIT), ("/b", VERSION)], None, [1]),
            ([("/a", VERSION), ("/b", VERSION)], None, [0]),
            ([("/a", EXPLOIT), ("/b", EXPLOIT)], None, [0]),
            ([(None, EXPLOIT), ("/a", EXPLOIT)], None, [0]),
        ],
    )
    def test_which_of_the_fixed_ones_is_reopened(
        self, fixed: list[tuple[str | None, IssueClass]], location: str | None, back: list[int]
    ) -> None:
        """One that may lie there: best at the very place, then that of the version, then the first by location."""
        issues = [
            issue(location=at, issue_class=of_class, fixed_at=2000.0, fingerprint=fingerprint)
            for (at, of_class), fingerprint in zip(fixed, ("last", "first"), strict=False)
        ]
        for stored in issues, issues[::-1]:
            outcome = event(stored, 3000.0, reported(location=location))
            (changed,) = outcome.changed
            assert told(outcome) == [ChangeKind.REOPENED if back else ChangeKind.OPENED]
            assert [n for n, one in enumerate(issues) if one.fingerprint == changed.fingerprint] == back

    def test_reopens_that_of_the_version_first(self) -> None:
        """With a version's and an exploit's issue fixed, that of the version comes back."""
        both = outdated(exploits=(Exploit(risk=9.0),))
        fixed = poll(poll((), 1000.0, both).issues, 2000.0).issues
        back = [issue for issue in event(fixed, 3000.0, reported()).issues if issue.is_open]
        assert [issue.issue_class for issue in back] == [IssueClass.VERSION]

    def test_reopened_exploit_is_reported_first(self) -> None:
        """An exploit's issue that an event brings back is only reported, until a poll says what it is."""
        fixed = poll(poll((), 1000.0, exploitable(risk=9.9)).issues, 2000.0).issues
        back = only(event(fixed, 3000.0, reported()))
        assert (back.kind, back.issue_class, back.risk, back.severity) == (
            Kind.REPORTED,
            IssueClass.VERSION,
            None,
            Severity.HIGH,
        )
        again = only(poll([back], 4000.0, exploitable(risk=9.9)))
        assert (again.kind, again.issue_class, again.risk) == (Kind.EXPLOITABLE, IssueClass.EXPLOIT, 9.9)
        assert again.fingerprint == fixed[0].fingerprint

    def test_a_replay_reopens_nothing(self) -> None:
        """An event merged again, or late, does not bring back what a poll since then showed as fixed."""
        opened = event((), 1000.0, reported()).issues
        fixed = poll(opened, 1000.0 + SETTLE).issues
        assert fixed[0].fixed_at == 1000.0 + SETTLE
        assert event(fixed, 1000.0, reported(), last_poll=1000.0 + SETTLE).changed == ()

    def test_a_late_event_does_not_reopen_what_was_shown_and_fixed(self) -> None:
        """A poll that showed the issue and a later one that did not are proof enough, however soon they came."""
        fixed = poll(poll((), 1001.0, outdated()).issues, 1002.0).issues
        assert event(fixed, 1000.0, reported(), last_poll=1002.0).changed == ()

    def test_a_poll_at_the_very_moment_of_an_event_has_looked(self) -> None:
        """What polls showed and that one showed as fixed stays so."""
        fixed = poll(poll((), 900.0, outdated()).issues, 1000.0).issues
        assert event(fixed, 1000.0, reported(), last_poll=1000.0).changed == ()

    def test_a_fix_of_what_polls_never_showed_does_not_silence_a_late_event(self) -> None:
        """Had the event come in time, settle would have kept the issue open; one that polls showed does tell."""
        ended = only(poll(event((), 1000.0, reported()).issues, 1000.0 + SETTLE))
        outcome = event([ended], 1200.0, reported(), last_poll=ended.fixed_at)
        assert (only(outcome).is_open, only(outcome).first_seen) == (True, 1200.0)
        assert told(outcome) == [ChangeKind.REOPENED]
        assert event([replace(ended, polled=True)], 1200.0, reported(), last_poll=ended.fixed_at).changed == ()

    def test_an_open_issue_that_polls_show_is_what_any_event_is_about(self) -> None:
        """Polls show it wherever the event sees it; one that only an event told of may lie elsewhere."""
        for polled, count in (True, 1), (False, 2):
            seen = event([issue(location="/a", polled=polled)], 2000.0, reported(location="/c")).issues
            assert len(seen) == count

    def test_a_late_event_opens_within_settle(self) -> None:
        """A poll too soon after the event proves nothing, in whatever order the two are merged."""
        assert only(event((), 1000.0, reported(), last_poll=999.0 + SETTLE)).is_open
        assert event((), 1000.0, reported(), last_poll=1000.0 + SETTLE).issues == ()

    def test_an_entry_without_a_location_means_the_same_issue_each_time(self) -> None:
        """Whatever the order of an event's entries, a second merge changes nothing."""
        entries = (reported(location="/srv/www"), reported(title="Beware."), reported(location="/"))
        once = event((), 1000.0, *entries)
        assert {issue.location: issue.title for issue in once.issues} == {"/srv/www": "Upgrade.", "/": "Beware."}
        assert event(once.issues, 1000.0, *entries).changed == ()

    @given(st.lists(REPORTED, max_size=5), st.lists(SOFTWARE, max_size=5), st.sampled_from([None, 500.0, 1200.0]))
    def test_twice_is_once(self, reports: list[ReportedIssue], listed: list[Software], last: float | None) -> None:
        """The same event merged twice is the same as once."""
        before = poll((), last, *listed).issues if last is not None else ()
        once = event(before, 1000.0, *reports, last_poll=last)
        assert event(once.issues, 1000.0, *reports, last_poll=last).changed == ()


class TestBoth:
    """How the two sources come together."""

    def test_takes_over(self) -> None:
        """A poll's issue takes over the reported one, with its fingerprint, first_seen and words."""
        opened = only(event((), 1000.0, reported(title="Upgrade.")))
        outcome = poll([opened], 1001.0, unsupported(location="/"))
        taken = only(outcome)
        assert (taken.fingerprint, taken.first_seen, taken.title) == (opened.fingerprint, 1000.0, "Upgrade.")
        assert (taken.location, taken.kind, taken.polled, taken.last_seen) == ("/", Kind.UNSUPPORTED, True, 1001.0)
        assert outcome.changes == ()

    def test_takes_over_at_its_location(self) -> None:
        """With several findings the one at the reported location takes over, else the first by location."""
        listed = (outdated(location="/b"), outdated(location="/a"))
        for location, winner in ("/b", "/b"), ("/a", "/a"), (None, "/a"), ("/c", "/a"):
            opened = only(event((), 1000.0, reported(location=location)))
            outcome = poll([opened], 1001.0, *listed)
            assert [i.location for i in outcome.issues if i.fingerprint == opened.fingerprint] == [winner]
            assert len(outcome.issues) == 2

    def test_an_exploit_takes_over_at_its_location(self) -> None:
        """The same holds where the reported software turns out to be exploitable."""
        listed = (exploitable(location="/a"), exploitable(location="/b"))
        opened = only(event((), 1000.0, reported(location="/b")))
        outcome = poll([opened], 1001.0, *listed)
        assert [i.location for i in outcome.issues if i.fingerprint == opened.fingerprint] == ["/b"]

    def test_each_finding_takes_over_one(self) -> None:
        """Of two reported issues the one at the finding's location is taken over, and the other lives on to settle."""
        for locations in ("/a", "/c"), ("/c", "/a"):
            both = event((), 1000.0, *(reported(location=location) for location in locations)).issues
            seen = poll(both, 1001.0, outdated(location="/a")).issues
            assert {issue.location: issue.polled for issue in seen} == {"/a": True, "/c": False}
            last = poll(seen, 1000.0 + SETTLE, outdated(location="/a")).issues
            assert {issue.location: issue.is_open for issue in last} == {"/a": True, "/c": False}

    def test_a_poll_that_started_before_the_event_takes_over_too(self) -> None:
        """What a slow poll shows is the reported issue, and it stays as seen when the event came."""
        taken = only(poll(event((), 1000.0, reported()).issues, 990.0, outdated()))
        assert (taken.polled, taken.last_seen) == (True, 1000.0)

    def test_a_slow_poll_that_straddles_an_event_still_tells_what_is_wrong(self) -> None:
        """The event says that the issue is there; of which kind it is, the poll knows, though it started before."""
        told_of = event(poll((), 1000.0, outdated()).issues, 2000.0, reported(title="Upgrade.")).issues
        shown = only(poll(told_of, 1990.0, unsupported()))
        assert (shown.kind, shown.title, shown.last_seen) == (Kind.UNSUPPORTED, "Upgrade.", 2000.0)

    def test_a_slow_poll_that_straddles_an_event_fixes_nothing(self) -> None:
        """It may have looked before what the event saw; so may one that started at the very moment."""
        told_of = event(poll((), 1000.0, outdated()).issues, 2000.0, reported()).issues
        for started_at in 1990.0, 2000.0:
            assert poll(told_of, started_at).changed == ()
        assert only(poll(told_of, 2001.0)).fixed_at == 2001.0

    def test_a_slow_poll_that_straddles_an_event_reopens_as_of_the_event(self) -> None:
        """Its finding's own issue comes back in place of the reported one, which never ends before it began."""
        fixed = poll(poll((), 1000.0, outdated(location="/b")).issues, 1100.0).issues
        both = event(fixed, 2000.0, reported(location="/a")).issues
        back, ended = poll(both, 1990.0, outdated(location="/b")).issues
        assert (back.first_seen, back.last_seen, back.event_received_at) == (2000.0, 2000.0, 2000.0)
        assert (ended.first_seen, ended.fixed_at) == (2000.0, 2000.0)

    def test_a_slow_poll_reopens_nothing_that_a_later_one_showed_as_fixed(self) -> None:
        """Nor does that finding take over what an event reported meanwhile: it goes to one that is still there."""
        fixed = poll(poll((), 1000.0, outdated(location="/b")).issues, 2000.0).issues
        both = event(fixed, 2100.0, reported(location="/a")).issues
        outcome = poll(both, 1990.0, outdated(location="/b"), outdated(location="/c"))
        assert [(seen.location, seen.is_open) for seen in outcome.issues] == [("/b", False), ("/c", True)]
        assert outcome.issues[1].fingerprint == both[1].fingerprint
        at_the_fix = poll(both, 2000.0, outdated(location="/b")).issues
        assert [(seen.location, seen.is_open) for seen in at_the_fix] == [("/b", True), ("/a", False)]

    def test_settle_protects(self) -> None:
        """What only an event reported is not fixed by a poll that started before settle was over."""
        opened = event((), 1000.0, reported()).issues
        assert poll(opened, 999.0 + SETTLE).changed == ()
        assert told(poll(opened, 1000.0 + SETTLE)) == [ChangeKind.FIXED]

    def test_unknown_support_fixes_no_reported_one(self) -> None:
        """A reported issue stays open while polls list its software in a state that nobody knows."""
        opened = event((), 1000.0, reported()).issues
        assert poll(opened, 5000.0, software(supported=None, location="/x")).changed == ()

    def test_a_second_birth_gets_another_fingerprint(self) -> None:
        """After a reported issue moved to its true location, another may be born where it was."""
        moved = poll(event((), 1000.0, reported()).issues, 1001.0, outdated(location="/a")).issues
        outcome = poll(moved, 1002.0, outdated(location="/a"), outdated(location=None))
        assert len({issue.fingerprint for issue in outcome.issues}) == 2

    def test_a_known_issue_that_comes_back_absorbs_the_reported_one(self) -> None:
        """If the finding has a fixed issue of its own, that one is reopened and the reported one ends in it."""
        fixed = poll(poll((), 1000.0, outdated(location="/b")).issues, 1100.0).issues
        both = event(fixed, 2000.0, reported(title="Upgrade.", location="/a")).issues
        outcome = poll(both, 2001.0, outdated(location="/b"))
        back, ended = outcome.issues
        assert (back.is_open, back.title, back.first_seen) == (True, "Upgrade.", 2000.0)
        assert (back.fingerprint, ended.fixed_at) == (fixed[0].fingerprint, 2001.0)
        assert sorted(told(outcome)) == [ChangeKind.FIXED, ChangeKind.REOPENED]

    @given(
        st.lists(SOFTWARE, max_size=6),
        st.lists(REPORTED, max_size=4),
        st.sampled_from([990.0, 1000.0, 1010.0, 1000.0 + SETTLE]),
    )
    def test_a_complete_poll_after_settle_is_upstream(
        self, listed: list[Software], reports: list[ReportedIssue], first: float
    ) -> None:
        """In whatever order event and poll come, one poll settle later makes the state equal to upstream."""
        decided = [made for made in listed if made.supported is not None and made.exploits is not None]
        decided = [made for made in decided if made.shown_version is not None]
        orders = (
            poll(event((), 1000.0, *reports).issues, first, *decided).issues,
            event(poll((), first, *decided).issues, 1000.0, *reports, last_poll=first).issues,
        )
        for issues in orders:
            final = poll(issues, 1001.0 + SETTLE, *decided).issues
            assert len({issue.fingerprint for issue in final}) == len(final)
            shown = {(issue.identity, issue.kind, issue.risk) for issue in final if issue.is_open}
            assert shown == {(found.identity, found.kind, found.risk) for found in derive(decided, EXPLOIT_RISK)}

    @given(st.lists(SOFTWARE, max_size=6), st.lists(SOFTWARE, max_size=6), st.lists(REPORTED, max_size=4))
    def test_the_same_poll_twice_is_once(
        self, before: list[Software], after: list[Software], reports: list[ReportedIssue]
    ) -> None:
        """The same poll merged twice is the same as once."""
        issues = event(poll((), 1000.0, *before).issues, 1100.0, *reports, last_poll=1000.0).issues
        once = poll(issues, 1200.0, *after).issues
        assert poll(once, 1200.0, *after).changed == ()

    @given(
        st.lists(DECIDED_SOFTWARE, max_size=6).flatmap(lambda made: st.tuples(st.just(made), st.permutations(made))),
        st.lists(REPORTED, max_size=4),
    )
    def test_order_of_rows_does_not_matter(
        self, lists: tuple[list[Software], list[Software]], reports: list[ReportedIssue]
    ) -> None:
        """Neither the order of the stored issues nor that of the software changes what becomes of them."""
        issues = event(poll((), 1000.0, *lists[0][:3]).issues, 1100.0, *reports, last_poll=1000.0).issues
        one = poll(issues, 1200.0, *lists[0]).issues
        other = poll(issues[::-1], 1200.0, *lists[1]).issues
        assert sorted(one, key=lambda i: i.fingerprint) == sorted(other, key=lambda i: i.fingerprint)


class TestExploits:
    """How an issue follows its exploits."""

    def test_it_stands_for_those_that_count(self) -> None:
        """Its exploits are those at or above the threshold and the unrated ones, worst first, each since when."""
        php = exploited("php", Exploit(id="1", risk=4.9), Exploit(cve="CVE-2", risk=5.0), Exploit(title="x", risk=None))
        seen = only(poll((), 1000.0, php))
        assert [(one.name, one.risk, one.first_seen) for one in seen.exploits] == [
            ("x", None, 1000.0),
            ("CVE-2", 5.0, 1000.0),
        ]
        assert (seen.severity, seen.risk) == (Severity.HIGH, 5.0)

    def test_a_worse_one_worsens(self) -> None:
        """A medium that becomes critical by a new exploit is told, and since when it is critical."""
        first = poll((), 1000.0, exploited("php", Exploit(id="1", risk=5.0)))
        outcome = poll(first.issues, 2000.0, exploited("php", Exploit(id="1", risk=5.0), Exploit(id="2", risk=9.8)))
        now = only(outcome)
        assert told(outcome) == [ChangeKind.WORSENED]
        assert (now.first_seen, now.severity, now.severity_since) == (1000.0, Severity.CRITICAL, 2000.0)
        assert [(one.id, one.first_seen) for one in now.exploits] == [("2", 2000.0), ("1", 1000.0)]
        assert [now.since(severity) for severity in Severity] == [2000.0, 2000.0, 1000.0, 1000.0]

    def test_a_new_one_of_the_same_severity_worsens_too(self) -> None:
        """One more exploit is worse, though the severity is what it was, and since when."""
        first = poll((), 1000.0, exploited("php", Exploit(id="1", risk=9.8)))
        outcome = poll(first.issues, 2000.0, exploited("php", Exploit(id="1", risk=9.8), Exploit(id="2", risk=9.0)))
        assert told(outcome) == [ChangeKind.WORSENED]
        assert only(outcome).severity_since == 1000.0

    def test_the_same_one_with_another_risk(self) -> None:
        """An exploit whose risk rises is worse when the severity is; it is still the same exploit."""
        first = poll((), 1000.0, exploited("php", Exploit(cve="CVE-1", risk=7.0)))
        more = poll(first.issues, 2000.0, exploited("php", Exploit(cve="CVE-1", risk=8.0)))
        assert (told(more), only(more).risk) == ([], 8.0)
        worse = poll(more.issues, 3000.0, exploited("php", Exploit(cve="CVE-1", risk=9.0)))
        assert told(worse) == [ChangeKind.WORSENED]
        assert [one.first_seen for one in only(worse).exploits] == [1000.0]

    def test_one_less_eases(self) -> None:
        """When the worst exploit is gone the issue is eased, and has been medium or worse all the time."""
        both = exploited("php", Exploit(id="1", risk=5.0), Exploit(id="2", risk=9.8))
        outcome = poll(poll((), 1000.0, both).issues, 2000.0, exploited("php", Exploit(id="1", risk=5.0)))
        now = only(outcome)
        assert told(outcome) == [ChangeKind.EASED]
        assert (now.severity, now.severity_since) == (Severity.MEDIUM, 2000.0)
        assert [now.since(severity) for severity in Severity] == [None, None, 1000.0, 1000.0]

    def test_id_or_cve_tell_them_apart(self) -> None:
        """An exploit that is first known by its CVE alone is the same when it gets an id; two ids are two."""
        first = poll((), 1000.0, exploited("php", Exploit(cve="CVE-1", risk=7.0)))
        same = poll(first.issues, 2000.0, exploited("php", Exploit(id="1", cve="CVE-1", risk=7.0)))
        assert told(same) == []
        other = poll(same.issues, 3000.0, exploited("php", Exploit(id="2", cve="CVE-1", risk=7.0)))
        assert told(other) == [ChangeKind.WORSENED]

    def test_the_title_tells_apart_what_has_neither(self) -> None:
        """Another title is another exploit."""
        first = poll((), 1000.0, exploited("php", Exploit(title="Overflow", risk=7.0)))
        assert told(poll(first.issues, 2000.0, exploited("php", Exploit(title="Overflow", risk=7.5)))) == []
        other = poll(first.issues, 2000.0, exploited("php", Exploit(title="Injection", risk=7.0)))
        assert told(other) == [ChangeKind.WORSENED]

    def test_nameless_ones_are_told_apart_by_risk_and_number(self) -> None:
        """One more of the same risk is a new one."""
        first = poll((), 1000.0, exploited("php", Exploit(risk=7.0)))
        assert told(poll(first.issues, 2000.0, exploited("php", Exploit(risk=7.0)))) == []
        more = poll(first.issues, 2000.0, exploited("php", Exploit(risk=7.0), Exploit(risk=7.0)))
        assert told(more) == [ChangeKind.WORSENED]
        assert [one.first_seen for one in only(more).exploits] == [1000.0, 2000.0]

    def test_an_unknown_risk_is_high(self) -> None:
        """An exploit that nobody rated makes a medium issue high, and one that was critical stays so."""
        first = poll((), 1000.0, exploited("php", Exploit(id="1", risk=5.0)))
        unrated = poll(first.issues, 2000.0, exploited("php", Exploit(id="1", risk=None)))
        assert (told(unrated), only(unrated).severity, only(unrated).risk) == (
            [ChangeKind.WORSENED],
            Severity.HIGH,
            None,
        )
        critical = poll((), 1000.0, exploited("php", Exploit(id="1", risk=9.8)))
        still = poll(critical.issues, 2000.0, exploited("php", Exploit(id="1", risk=None)))
        assert (told(still), only(still).severity) == ([], Severity.CRITICAL)

    def test_a_reopened_issue_begins_anew(self) -> None:
        """It has a new first_seen, severity_since and exploits seen again."""
        fixed = poll(poll((), 1000.0, exploitable()).issues, 2000.0)
        back = only(poll(fixed.issues, 3000.0, exploitable()))
        assert (back.first_seen, back.severity_since, back.since(Severity.LOW)) == (3000.0, 3000.0, 3000.0)
        assert [one.first_seen for one in back.exploits] == [3000.0]

    def test_what_a_reported_one_turns_out_to_be_is_told(self) -> None:
        """A reported issue is high; that a poll finds it critical, or medium, is told."""
        opened = event((), 1000.0, reported()).issues
        worse = poll(opened, 1001.0, exploitable(risk=9.8))
        assert (told(worse), only(worse).first_seen, only(worse).severity_since) == (
            [ChangeKind.WORSENED],
            1000.0,
            1001.0,
        )
        assert told(poll(opened, 1001.0, outdated())) == [ChangeKind.EASED]
        assert told(poll(opened, 1001.0, exploitable(risk=7.5))) == []

    def test_a_poll_that_is_not_whole_makes_nothing_better(self) -> None:
        """What it lacks may be the worst; what it has more is told."""
        first = poll((), 1000.0, exploited("php", Exploit(id="1", risk=9.8)), unsupported("nginx"))
        part = poll(first.issues, 2000.0, exploited("php", Exploit(id="2", risk=5.0)), outdated("nginx"), whole=False)
        assert told(part) == [ChangeKind.WORSENED]
        assert {i.canonical_name: (i.severity, i.kind, i.last_seen) for i in part.issues} == {
            "php": (Severity.CRITICAL, Kind.EXPLOITABLE, 2000.0),
            "nginx": (Severity.HIGH, Kind.UNSUPPORTED, 2000.0),
        }

    def test_one_stored_without_exploits_gets_them_silently(self) -> None:
        """After an upgrade the next whole poll fills them in, and nothing is told unless the severity is another."""
        (seen,) = poll((), 1000.0, exploitable(risk=9.8)).issues
        old = replace(seen, exploits=())
        assert only(poll([old], 2000.0, exploitable(risk=9.8), whole=False)).exploits == ()
        filled = poll([old], 2000.0, exploitable(risk=9.8))
        assert (told(filled), len(only(filled).exploits)) == ([], 1)
        assert told(poll(filled.issues, 3000.0, exploited("php", Exploit(id="2", risk=9.8)))) == [ChangeKind.WORSENED]
        assert told(poll([replace(old, severity=Severity.MEDIUM)], 2000.0, exploitable(risk=9.8))) == [
            ChangeKind.WORSENED
        ]

    def test_judged_anew_nothing_is_worse_or_better(self) -> None:
        """Other rules find other exploits in the same poll; that is told as opened at most, and closes nothing."""
        php = exploited("php", Exploit(id="1", risk=9.8), Exploit(id="2", risk=5.0))
        first = poll((), 1000.0, php, exploited("nginx", Exploit(risk=9.0))).issues
        outcome = poll(first, 1000.0, exploited("php", Exploit(id="2", risk=5.0)), outdated("ssh"), reclassified=True)
        assert told(outcome) == [ChangeKind.OPENED]
        known = {issue.canonical_name: issue for issue in outcome.issues}
        assert (known["php"].severity, known["php"].severity_since) == (Severity.MEDIUM, 1000.0)
        assert known["nginx"].is_open

    def test_a_poll_that_tells_of_no_exploits(self) -> None:
        """It closes no issue of an exploit and none that only an event reported, of software that is gone neither."""
        issues = poll((), 1000.0, exploitable("php"), outdated("nginx")).issues
        issues = event(issues, 1000.0, reported("perl")).issues
        silent = apply_poll(
            issues,
            [software("other", exploits=None)],
            account=ACCOUNT,
            server_id=SERVER,
            started_at=5000.0,
            exploit_risk=EXPLOIT_RISK,
            settle=SETTLE,
        )
        assert {issue.canonical_name for issue in silent.issues if issue.is_open} == {"php", "perl"}

    def test_a_poll_without_any_software_fixes_nothing(self) -> None:
        """However often it comes."""
        issues = poll((), 1000.0, exploitable("php"), outdated("nginx")).issues
        for at in (2000.0, 5000.0):
            empty = apply_poll(
                issues,
                [],
                account=ACCOUNT,
                server_id=SERVER,
                started_at=at,
                exploit_risk=EXPLOIT_RISK,
                settle=SETTLE,
            )
            assert empty.changed == ()

    def test_an_event_during_the_poll_that_brings_an_issue_back(self) -> None:
        """The reopened issue is as young as the event, and none of its exploits is older than the issue."""
        fixed = poll(poll((), 1000.0, exploitable(location="/a")).issues, 1100.0).issues
        both = event(fixed, 2005.0, reported(location="/b")).issues
        back = next(i for i in poll(both, 2000.0, exploitable(location="/a")).issues if i.is_open)
        assert (back.first_seen, back.severity_since) == (2005.0, 2005.0)
        assert [exploit.first_seen for exploit in back.exploits] == [2005.0]


class TestIssuesOfTheServer:
    """An event's issues that name no software."""

    def test_they_are_kept_with_their_titles(self) -> None:
        """Each title is one; an event merged again, or without a title, is the same one again."""
        reports = [ReportedIssue(title="Open port"), ReportedIssue(title="Old kernel"), ReportedIssue()]
        outcome = event((), 1000.0, *reports, *reports)
        assert [(issue.title, issue.kind, issue.canonical_name, issue.software) for issue in outcome.issues] == [
            ("Open port", Kind.REPORTED, "", ""),
            ("Old kernel", Kind.REPORTED, "", ""),
            (None, Kind.REPORTED, "", ""),
        ]
        assert len({issue.fingerprint for issue in outcome.issues}) == 3
        assert len({issue.identity for issue in outcome.issues}) == 3
        assert event(outcome.issues, 1000.0, *reports).changed == ()

    def test_polls_close_them_after_settle(self) -> None:
        """As any that is only reported; an event brings one back under its fingerprint."""
        opened = event((), 1000.0, ReportedIssue(title="Open port")).issues
        assert poll(opened, 999.0 + SETTLE, outdated()).issues[0].is_open
        fixed = poll(opened, 1000.0 + SETTLE)
        assert told(fixed) == [ChangeKind.FIXED]
        back = event(fixed.issues, 5000.0, ReportedIssue(title="Open port"), ReportedIssue(title="Another"))
        assert told(back) == [ChangeKind.REOPENED, ChangeKind.OPENED]
        assert back.issues[0].fingerprint == opened[0].fingerprint
