"""Plays upstream, the deliveries and the polls against the merge, in any order and with everything late or lost."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, rule
from tests.unit.issues.builders import (
    ACCOUNT,
    EXPLOIT_RISK,
    SERVER,
    SETTLE,
    exploitable,
    outdated,
    reported,
    software,
    unsupported,
)

from patrolserver_exporter.issues.derive import derive
from patrolserver_exporter.issues.merge import Outcome, apply_event, apply_poll
from patrolserver_exporter.issues.model import ChangeKind, Issue
from patrolserver_exporter.patrolserver.models import Exploit

if TYPE_CHECKING:
    from patrolserver_exporter.patrolserver.models import ReportedIssue, Software

Place = tuple[str, str | None]
UNRATED = (Exploit(risk=None),)

# Few places, so that much happens at each.
SOFTWARE = st.builds(
    lambda make, name, location: make(name, location=location),
    st.sampled_from([software, software, outdated, unsupported, exploitable, partial(outdated, exploits=UNRATED)]),
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
        self.listed: list[tuple[float, tuple[Software, ...]]] = [(0.0, ())]
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
        self._merge(Poll(self.now, tuple(self.installed.values()), complete=True))

    @rule(name=st.sampled_from(["php", "nginx"]), location=st.sampled_from([None, "/a", "/b"]))
    def report_at_once(self, name: str, location: str | None) -> None:
        """An event is merged as soon as it comes, whether or not upstream's software shows anything."""
        self.now += 1
        self._tell(Delivery((reported(name, location=location),), self.now))

    @rule(name=st.sampled_from(["php", "nginx"]), location=st.sampled_from([None, "/a", "/b"]))
    def poll_while_an_event_comes(self, name: str, location: str | None) -> None:
        """An event comes and is merged between a poll's start and its end."""
        self.now += 1
        poll = Poll(self.now, tuple(self.installed.values()), complete=True)
        self.report_at_once(name, location)
        self._merge(poll)

    @rule()
    def purge(self) -> None:
        """Issues that were fixed long ago are forgotten."""
        self.issues = tuple(issue for issue in self.issues if issue.is_open)

    @rule()
    def come_to_rest(self) -> None:
        """One complete poll settle after everything makes the state equal to upstream."""
        self.now += SETTLE + 1
        self._merge(Poll(self.now, tuple(self.installed.values()), complete=True))
        shown = {(issue.identity, issue.kind, issue.severity, issue.risk) for issue in self.issues if issue.is_open}
        assert all(issue.polled for issue in self.issues if issue.is_open)
        assert shown == {
            (found.identity, found.kind, found.severity, found.risk)
            for found in derive(tuple(self.installed.values()), EXPLOIT_RISK)
        }

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
        outcome = apply_poll(
            self.issues,
            poll.software,
            account=ACCOUNT,
            server_id=SERVER,
            started_at=poll.started_at,
            exploit_risk=EXPLOIT_RISK,
            settle=SETTLE,
            complete=poll.complete,
        )
        self._keep(outcome)
        self.last_poll = poll.started_at
        if poll.complete:
            self.last_complete_poll = poll.started_at
        shown = {found.canonical_name for found in derive(poll.software, EXPLOIT_RISK)}
        for change in outcome.changes:
            if change.kind is ChangeKind.FIXED:
                self._may_be_fixed(before[change.issue.fingerprint], poll, shown)

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

    def _keep(self, outcome: Outcome) -> None:
        """The rows written are enough to get from the old state to the new one, as the store does it."""
        written = {issue.fingerprint: issue for issue in (*self.issues, *outcome.changed)}
        assert tuple(written.values()) == outcome.issues
        assert {change.issue.fingerprint for change in outcome.changes} <= {row.fingerprint for row in outcome.changed}
        self.issues = outcome.issues

    def _set(self, changed: Software) -> None:
        self.installed[changed.canonical_name, changed.location] = changed
        self._list()

    def _list(self) -> None:
        self.listed.append((self.now, tuple(self.installed.values())))


TestUpstream = Upstream.TestCase
TestUpstream.settings = settings(max_examples=200, stateful_step_count=50, deadline=None)
