"""Plays upstream, the deliveries and the polls against the merge, in any order and with everything late or lost."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, rule
from msgspec.structs import replace
from tests.unit.issues.builders import (
    ACCOUNT,
    BYSTANDER,
    EXPLOIT_RISK,
    SERVER,
    SETTLE,
    exploitable,
    exploited,
    outdated,
    reported,
    software,
    unsupported,
)

from patrolserver_exporter.issues import trust
from patrolserver_exporter.issues.classify import is_worse
from patrolserver_exporter.issues.derive import derive
from patrolserver_exporter.issues.merge import Merged, apply_event, apply_poll
from patrolserver_exporter.issues.model import SEVERITIES, Change, ChangeKind, Issue, IssueClass, Severity
from patrolserver_exporter.patrolserver.models import Exploit

if TYPE_CHECKING:
    from patrolserver_exporter.patrolserver.models import ReportedIssue, Software

Place = tuple[str, str | None]
UNRATED = (Exploit(risk=None),)

FEW = tuple(software(name) for name in ("a", "b", "c", "d"))
"""Fine software that is lost all at once when a list collapses."""

EXPLOITS = st.lists(
    st.sampled_from(
        [
            Exploit(id="1", risk=5.0),
            Exploit(id="1", risk=9.8),
            Exploit(cve="CVE-2", risk=7.5),
            Exploit(title="A title", risk=5.5),
            Exploit(risk=6.0),
            Exploit(risk=6.0),
            Exploit(risk=None),
        ]
    ),
    max_size=4,
)

# Few places, so that much happens at each.
SOFTWARE = st.builds(
    lambda make, name, location: make(name, location=location),
    st.sampled_from([software, software, outdated, unsupported, exploitable, partial(outdated, exploits=UNRATED)])
    | EXPLOITS.map(lambda known: lambda name, location: exploited(name, *known, location=location)),
    st.sampled_from(["php", "php", "nginx"]),
    st.sampled_from([None, "/a", "/b"]),
)


class Delivery(NamedTuple):
    """An event on its way."""

    reports: tuple[ReportedIssue, ...]
    received_at: float


class Poll(NamedTuple):
    """A poll that has started and not yet been merged."""

    started_at: float
    software: tuple[Software, ...]
    complete: bool


class Upstream(RuleBasedStateMachine):
    """One server upstream, and the issues that the product makes of it."""

    deliveries = Bundle("deliveries")
    polls = Bundle("polls")

    def __init__(self) -> None:
        super().__init__()
        self.now = 1_000.0
        self.installed: dict[Place, Software] = {}
        self.listed: list[tuple[float, tuple[Software, ...]]] = [(0.0, (BYSTANDER, *FEW))]
        self.known: tuple[Software, ...] | None = None
        self.collapse: trust.Collapse | None = None
        self.told: dict[str, Severity] = {}
        """The severity of each open issue as the feed told it last."""
        self.issues: tuple[Issue, ...] = ()
        self.last_poll: float | None = None
        self.last_complete_poll: float | None = None

    @initialize(installed=st.lists(SOFTWARE, max_size=4))
    def install(self, installed: list[Software]) -> None:
        """The server has some software from the start."""
        for one in installed:
            self._set(one)

    @rule(seconds=st.sampled_from([1.0, 30.0, SETTLE - 1, SETTLE, 2 * SETTLE]))
    def wait(self, seconds: float) -> None:
        """Time passes."""
        self.now += seconds

    @rule(target=deliveries, changed=SOFTWARE, told_location=st.booleans())
    def change(self, changed: Software, told_location: bool) -> Delivery:  # noqa: FBT001  # drawn by name
        """A software appears, breaks or mends; the event names it, though not always where it lies."""
        self.now += 1
        self._set(changed)
        location = changed.location if told_location else None
        return Delivery((reported(changed.canonical_name, location=location),), self.now)

    @rule(data=st.data())
    def remove(self, data: st.DataObject) -> None:
        """A software is removed."""
        if self.installed:
            self.now += 1
            del self.installed[data.draw(st.sampled_from(sorted(self.installed, key=str)))]
            self._list()

    @rule(delivery=deliveries)
    def deliver(self, delivery: Delivery) -> None:
        """An event is merged: now, later, again or out of order."""
        self._tell(delivery)

    @rule(
        target=polls, lag=st.sampled_from([0.0, 0.0, 10.0, SETTLE - 1]), complete=st.sampled_from([True, True, False])
    )
    def start_poll(self, lag: float, complete: bool) -> Poll:  # noqa: FBT001  # drawn by name
        """A poll reads the API's lists, which may lag behind the events."""
        self.now += 1
        seen = next(listed for since, listed in reversed(self.listed) if since <= self.now - lag)
        return Poll(self.now, seen if complete else seen[1:], complete)

    @rule(poll=consumes(polls))
    def finish_poll(self, poll: Poll) -> None:
        """A poll is merged, unless a later one has been."""
        if self.last_poll is None or poll.started_at > self.last_poll:
            self._merge(poll)

    @rule()
    def poll_at_once(self) -> None:
        """A poll starts, sees upstream as it is, and is merged before anything else happens."""
        self.now += 1
        self._merge(Poll(self.now, self._everything(), complete=True))

    @rule(kept=st.integers(0, 2))
    def poll_that_lost_nearly_all(self, kept: int) -> None:
        """A list is empty, or collapsed, though nothing was removed."""
        self.now += 1
        poll = Poll(self.now, (BYSTANDER, *self.installed.values())[:kept], complete=True)
        had = {(one.canonical_name, one.location) for one in self.known or ()}
        lost = had - {(one.canonical_name, one.location) for one in poll.software}
        before = self._open_names()
        # As the first of its kind: a second one would be the truth.
        self.collapse = None
        self._merge(poll)
        if kept == 0 or (len(had) >= 4 and 2 * len(lost) > len(had)):
            assert before <= self._open_names()
            assert had <= {(one.canonical_name, one.location) for one in self.known or ()}

    @rule()
    def poll_without_exploits(self) -> None:
        """The API leaves out the exploits of all software."""
        self.now += 1
        silent = tuple(replace(one, exploits=None) for one in self._everything())
        before = {i.fingerprint for i in self.issues if i.is_open and i.issue_class is IssueClass.EXPLOIT}
        self._merge(Poll(self.now, silent, complete=True))
        assert before <= {issue.fingerprint for issue in self.issues if issue.is_open}

    @rule(name=st.sampled_from(["php", "nginx"]), location=st.sampled_from([None, "/a", "/b"]))
    def report_at_once(self, name: str, location: str | None) -> None:
        """An event is merged as soon as it comes, whether or not upstream's software shows anything."""
        self.now += 1
        self._tell(Delivery((reported(name, location=location),), self.now))

    @rule(name=st.sampled_from(["php", "nginx"]), location=st.sampled_from([None, "/a", "/b"]))
    def poll_while_an_event_comes(self, name: str, location: str | None) -> None:
        """An event comes and is merged between a poll's start and its end."""
        self.now += 1
        poll = Poll(self.now, self._everything(), complete=True)
        self.report_at_once(name, location)
        self._merge(poll)

    @rule()
    def purge(self) -> None:
        """Issues that were fixed long ago are forgotten."""
        self.issues = tuple(issue for issue in self.issues if issue.is_open)

    @rule()
    def come_to_rest(self) -> None:
        """Two complete polls, settle after everything and apart, make the state equal to upstream."""
        for _ in range(2):
            self.now += SETTLE + 1
            self._merge(Poll(self.now, self._everything(), complete=True))
        shown = {
            (
                issue.identity,
                issue.kind,
                issue.severity,
                issue.risk,
                tuple((one.name, one.risk) for one in issue.exploits),
            )
            for issue in self.issues
            if issue.is_open
        }
        assert all(issue.polled for issue in self.issues if issue.is_open)
        assert shown == {
            (
                found.identity,
                found.kind,
                found.severity,
                found.risk,
                tuple((one.reference or one.title, one.risk) for one in found.exploits),
            )
            for found in derive(self._everything(), EXPLOIT_RISK)
        }
        assert self.known == self._everything()

    @invariant()
    def fingerprints_are_unique(self) -> None:
        """No two issues share a fingerprint, nor an identity."""
        assert len({issue.fingerprint for issue in self.issues}) == len(self.issues)
        assert len({issue.identity for issue in self.issues}) == len(self.issues)

    @invariant()
    def times_are_in_order(self) -> None:
        """An issue is seen first, then last, then fixed."""
        for issue in self.issues:
            assert issue.first_seen <= issue.last_seen
            assert issue.fixed_at is None or issue.first_seen <= issue.fixed_at
            assert issue.first_seen <= issue.severity_since <= issue.last_seen
            assert all(issue.first_seen <= exploit.first_seen for exploit in issue.exploits)

    @invariant()
    def severities_add_up(self) -> None:
        """The feed told every change of a severity, and an issue knows since when it has been so severe or worse."""
        assert self.told == {issue.fingerprint: issue.severity for issue in self.issues if issue.is_open}
        for issue in self.issues:
            rank = SEVERITIES.index(issue.severity)
            assert issue.at_least_since[:rank] == (None,) * rank
            since = [at for at in issue.at_least_since[rank:] if at is not None]
            assert len(since) == len(SEVERITIES) - rank
            assert since == sorted(since, reverse=True)

    def _tell(self, delivery: Delivery) -> None:
        outcome = apply_event(
            self.issues,
            delivery.reports,
            account=ACCOUNT,
            server_id=SERVER,
            received_at=delivery.received_at,
            last_poll_started_at=self.last_complete_poll,
            settle=SETTLE,
        )
        before = {issue.fingerprint: issue for issue in self.issues}
        self._keep(outcome)
        for change in outcome.changes:
            assert change.kind in {ChangeKind.OPENED, ChangeKind.REOPENED}
            self._may_be_opened(before.get(change.issue.fingerprint), delivery)

    def _merge(self, poll: Poll) -> None:
        before = {issue.fingerprint: issue for issue in self.issues}
        reading = trust.read(
            self.known,
            poll.software,
            complete=poll.complete,
            started_at=poll.started_at,
            settle=SETTLE,
            collapse=self.collapse,
        )
        self.known, self.collapse = reading.software, reading.collapse
        outcome = apply_poll(
            self.issues,
            poll.software,
            account=ACCOUNT,
            server_id=SERVER,
            started_at=poll.started_at,
            exploit_risk=EXPLOIT_RISK,
            settle=SETTLE,
            whole=reading.whole,
        )
        self._keep(outcome)
        self.last_poll = poll.started_at
        if reading.whole:
            self.last_complete_poll = poll.started_at
        shown = {found.canonical_name for found in derive(poll.software, EXPLOIT_RISK)}
        for change in outcome.changes:
            if change.kind is ChangeKind.FIXED:
                self._may_be_fixed(before[change.issue.fingerprint], poll, shown)
                assert reading.whole or change.issue.canonical_name in shown
            elif change.kind in {ChangeKind.WORSENED, ChangeKind.EASED}:
                self._has_changed(before[change.issue.fingerprint], change, whole=reading.whole)

    def _has_changed(self, was: Issue, change: Change, *, whole: bool) -> None:
        """Worse is a higher severity or one more exploit, better a lower severity that a whole poll shows."""
        now = change.issue
        if change.kind is ChangeKind.WORSENED:
            met = {exploit.first_seen for exploit in was.exploits}
            more = any(exploit.first_seen not in met for exploit in now.exploits)
            assert is_worse(now.severity, was.severity) or more
        else:
            assert is_worse(was.severity, now.severity)
            assert whole or not was.polled

    def _may_be_fixed(self, was: Issue, poll: Poll, shown: set[str]) -> None:
        """Only a complete poll fixes, only what it started after; a reported one after settle, or by taking it over."""
        if was.polled:
            assert poll.complete
            assert poll.started_at > was.last_seen
        elif was.canonical_name not in shown:
            assert poll.complete
            assert was.event_received_at is not None
            assert poll.started_at >= was.event_received_at + SETTLE

    def _may_be_opened(self, was: Issue | None, delivery: Delivery) -> None:
        """A late event opens nothing that a poll since its reception has answered."""
        if self.last_complete_poll is not None:
            assert self.last_complete_poll < delivery.received_at + SETTLE
        if was is not None and was.polled:
            assert was.fixed_at is not None
            assert was.fixed_at < delivery.received_at

    def _keep(self, outcome: Merged) -> None:
        """The rows written are enough to get from the old state to the new one, as the store does it."""
        written = {issue.fingerprint: issue for issue in (*self.issues, *outcome.changed)}
        assert tuple(written.values()) == outcome.issues
        assert {change.issue.fingerprint for change in outcome.changes} <= {row.fingerprint for row in outcome.changed}
        self.issues = outcome.issues
        for change in outcome.changes:
            if change.kind is ChangeKind.FIXED:
                del self.told[change.issue.fingerprint]
            else:
                self.told[change.issue.fingerprint] = change.issue.severity

    def _open_names(self) -> set[str]:
        """By software, since a reported issue may end in the one that it turns out to be."""
        return {issue.canonical_name for issue in self.issues if issue.is_open}

    def _everything(self) -> tuple[Software, ...]:
        return (BYSTANDER, *FEW, *self.installed.values())

    def _set(self, changed: Software) -> None:
        self.installed[changed.canonical_name, changed.location] = changed
        self._list()

    def _list(self) -> None:
        self.listed.append((self.now, self._everything()))


TestUpstream = Upstream.TestCase
# More than the profile asks for, and fewer with a profile that asks for few.
TestUpstream.settings = settings(max_examples=2 * settings().max_examples, stateful_step_count=50, deadline=None)
