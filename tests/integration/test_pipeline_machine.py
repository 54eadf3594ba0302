"""Everything that can befall the pipeline, in any order, against a plain model, on both stores.

No threads but the store's: the units of work are those of the worker and the poller, called one by one.
"""

from __future__ import annotations

import shutil
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)
from tests.harness.sizes import FULL
from tests.harness.ticking import HeldClock
from tests.unit.issues.builders import EXPLOIT_RISK, exploitable, outdated, reported, software, unsupported
from tests.unit.sync.accounts import MAIN, SETTLE, configured, rules
from tests.unit.sync.driving import FINISHED, NEW_ISSUES, Driver

from patrolserver_exporter.clock import TOLERANCE, Moment, SteadyClock
from patrolserver_exporter.inbox import deliveries, retry
from patrolserver_exporter.inbox.deliveries import WAITING, Acceptance, DeliveryState, NewDelivery
from patrolserver_exporter.inbox.intake import BoundedInbox
from patrolserver_exporter.issues.derive import derive
from patrolserver_exporter.patrolserver.errors import NotFound, PatrolServerError, RateLimited, Refused, ServerFailure
from patrolserver_exporter.patrolserver.errors import Unreadable as UnreadableReply
from patrolserver_exporter.patrolserver.models import Event, Parsed
from patrolserver_exporter.store import ClaimLost, Store
from patrolserver_exporter.sync import account_updates, restore, server_updates
from patrolserver_exporter.sync.clock_steps import follow_clock

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.harness.postgres import PostgresCluster

    from patrolserver_exporter.inbox.deliveries import Delivery
    from patrolserver_exporter.issues.model import Issue
    from patrolserver_exporter.patrolserver.models import ReportedIssue, Software

pytestmark = pytest.mark.promise("kill", "late-worker")

LIMIT = 6
LEASE = 70.0
SERVERS = (1, 2)
RULES = rules()
DAY = 86_400.0
ERRORS: dict[str, Callable[[], PatrolServerError]] = {
    "404": lambda: NotFound("none", status=404),
    "500": lambda: ServerFailure("oops", status=500),
    "429": lambda: RateLimited("slow down", status=429, retry_after=3600.0),
    "401": lambda: Refused("wrong", status=401),
    "garbage": lambda: UnreadableReply("html"),
}
BROKEN = st.sampled_from([outdated, unsupported, exploitable])
NAMES = st.sampled_from(["php", "nginx"])


class Upstream(NamedTuple):
    """An event as PatrolServer keeps it."""

    server_id: int | None
    new_issues: tuple[ReportedIssue, ...]


class Polled(NamedTuple):
    """A poll that has started and not been merged yet."""

    server_id: int
    began: Moment
    software: tuple[Software, ...]
    complete: bool


class Home:
    """Where the state lives: it can be opened again after a crash."""

    def open(self) -> Store:
        """Open what is on disk."""
        raise NotImplementedError

    def crash(self, store: Store) -> Store:
        """Leave the store as a kill would, and open what it left."""
        raise NotImplementedError

    def leave(self) -> None:
        """Clean up."""


class SqliteHome(Home):
    """A file. A crash leaves it and its log as they are, which is what a copy is."""

    def __init__(self, template: Path) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="pipeline-"))
        self._lives = 0
        shutil.copy(template, self._file)

    @property
    def _file(self) -> Path:
        folder = self._folder / str(self._lives)
        folder.mkdir(exist_ok=True)
        return folder / "state.db"

    def open(self) -> Store:
        """Open what is on disk."""
        return Store(f"sqlite:///{self._file}")

    def crash(self, store: Store) -> Store:
        """Leave the store, and open what it left."""
        before = self._file
        self._lives += 1
        for end in (".sum", "", "-wal"):
            with suppress(FileNotFoundError):
                shutil.copy(before.with_name(before.name + end), self._file.with_name(before.name + end))
        store.close()
        return self.open()

    def leave(self) -> None:
        """Remove all lives."""
        shutil.rmtree(self._folder)


class PostgresHome(Home):
    """A database. A crash ends the session."""

    def __init__(self, cluster: PostgresCluster, url: str) -> None:
        cluster.empty(url)
        self._url = url

    def open(self) -> Store:
        """Open what is on disk."""
        return Store(self._url)

    def crash(self, store: Store) -> Store:
        """Leave the store, and open what it left."""
        store.close()
        return self.open()


class Pipeline(RuleBasedStateMachine):
    """One account with two servers, its inbox, and PatrolServer behind it."""

    posted = Bundle("posted")
    fetches = Bundle("fetches")
    polls = Bundle("polls")

    def __init__(self, home: Callable[[], Home]) -> None:
        super().__init__()
        self.held = HeldClock()
        self.clock = SteadyClock(self.held)
        self.home = home()
        self.store = self.home.open()
        self.driver = Driver(self.store, self.held, RULES)
        self.driver.time = self.clock
        self.door = BoundedInbox(LIMIT)
        self.list_read_at = self.clock.now()
        self.driver.take_list("web", "db")
        # The model
        self.upstream: dict[int, dict[str, Software]] = {server_id: {} for server_id in SERVERS}
        self.events: dict[int, Upstream] = {}
        self.acknowledged: set[int] = set()
        self.applied: set[int] = set()
        self.replayed = 0

    def teardown(self) -> None:
        """Whatever happened, the pipeline comes to rest and shows what upstream has."""
        try:
            self.come_to_rest()
        finally:
            self.store.close()
            self.home.leave()

    @initialize()
    def first_polls(self) -> None:
        """Both servers have been polled."""
        for server_id in SERVERS:
            self.tick()
            self.driver.poll(server_id=server_id)

    # PatrolServer

    @rule(target=posted, server_id=st.sampled_from(SERVERS), name=NAMES, make=BROKEN, unread=st.booleans())
    def break_something(
        self,
        server_id: int,
        name: str,
        make: Callable[..., Software],
        unread: bool,  # noqa: FBT001  # drawn by name
    ) -> int:
        """A software breaks, and an event tells of it; now and then without the server's id."""
        self.tick()
        self.upstream[server_id][name] = make(name)
        event_id = len(self.events) + 1
        self.events[event_id] = Upstream(None if unread else server_id, (reported(name),))
        return event_id

    @rule(server_id=st.sampled_from(SERVERS), name=NAMES)
    def mend_something(self, server_id: int, name: str) -> None:
        """A software is mended; nobody tells."""
        self.tick()
        self.upstream[server_id][name] = software(name)

    # The webhook

    @rule(event_id=posted, identifier=st.sampled_from([NEW_ISSUES, NEW_ISSUES, FINISHED]))
    def deliver(self, event_id: int, identifier: str) -> None:
        """A delivery comes, for the first time or again."""
        self.post(event_id, identifier)

    @rule(target=posted, event_id=st.integers(1, 9))
    def forge(self, event_id: int) -> int:
        """Somebody makes an id up, which may be that of an event to come."""
        self.post(event_id, NEW_ISSUES)
        return event_id

    def post(self, event_id: int, identifier: str) -> None:
        """At the door."""
        self.tick()
        new = NewDelivery(MAIN, 1, event_id, identifier, self.clock.now())
        (outcome,) = self.store.run(lambda unit: self.door.accept(unit, [new]))
        if outcome is Acceptance.OVERFLOW:
            # One that was asked for before a clock was set back may be later.
            since = self.driver.account_record().catch_up_since
            assert since is not None
            assert self.clock.now() <= since <= self.clock.now() + SETTLE
        else:
            assert (outcome is Acceptance.DUPLICATE) <= (event_id in self.acknowledged)
            self.acknowledged.add(event_id)

    # The worker

    @rule(target=fetches, wait=st.sampled_from([0.0, 10.0, LEASE, 2 * DAY]))
    def claim(self, wait: float) -> Delivery | None:
        """The worker takes what is due, if anything is."""
        self.tick(wait)
        return self.take()

    @rule(fetch=consumes(fetches), result=st.sampled_from(["ok", "ok", "ok", *ERRORS]), good=st.booleans())
    def fetched(self, fetch: Delivery | None, result: str, good: bool) -> None:  # noqa: FBT001  # drawn by name
        """A fetch ends; perhaps so late that somebody else has the delivery."""
        self.tick()
        if fetch is None:
            return
        if self.is_held(fetch):
            self.conclude(fetch, result, good=good)
        else:
            before = self.rows()
            with pytest.raises(ClaimLost):
                self.conclude(fetch, result, good=good)
            assert self.rows() == before

    def is_held(self, fetch: Delivery) -> bool:
        """Whether that claim is still the one in force."""
        held = {row.id: row.claim for row in self.rows() if row.state is DeliveryState.FETCHING}
        return held.get(fetch.id) == fetch.claim

    @rule(result=st.sampled_from(["ok", "ok", *ERRORS]))
    def fetch_at_once(self, result: str) -> None:
        """A delivery is taken and its fetch ends at once."""
        self.tick()
        claimed = self.take()
        if claimed is not None:
            self.conclude(claimed, result, good=True)

    @rule(late=st.sampled_from(["ok", "404", "500"]), result=st.sampled_from(["ok", "500"]))
    def hang(self, late: str, result: str) -> None:
        """A worker hangs until another one has its delivery; then both finish, the late one first."""
        self.tick()
        hanging = self.take()
        if hanging is None:
            return
        # A second more than the lease: sums of times are exact to some microseconds only.
        self.tick(LEASE + 1.0)
        claimed = self.store.run(
            lambda unit: deliveries.claim(unit, MAIN, now=self.clock.now(), lease=LEASE, limit=LIMIT + self.replayed)
        )
        assert hanging.id in {other.id for other in claimed}
        self.fetched(hanging, late, good=True)
        for other in claimed:
            self.fetched(other, result, good=True)

    def take(self) -> Delivery | None:
        """Claim one."""
        now = self.clock.now()
        return next(
            iter(self.store.run(lambda unit: deliveries.claim(unit, MAIN, now=now, lease=LEASE, limit=1))), None
        )

    def conclude(self, claimed: Delivery, result: str, *, good: bool) -> None:
        """What the worker does with an answer."""
        event = self.events.get(claimed.event_id)
        if result == "ok" and event is None:
            result = "404"
        if event is not None and result == "ok":
            parsed = Parsed(Event(server_id=event.server_id, new_issues=event.new_issues), body=b"{}")
            fresh = self.list_read_at >= claimed.received_at
            self.store.run(
                lambda unit: server_updates.conclude(
                    unit, claimed, parsed, list_is_fresh=fresh, now=self.clock.now(), rules=RULES
                )
            )
            self.applied.add(claimed.event_id)
            return
        error = ERRORS[result]()
        next_step = retry.next_step_after(
            error,
            received_at=claimed.received_at,
            state_attempts=claimed.attempts,
            credentials_are_good=good,
            now=self.clock.now(),
            draw=lambda: 0.5,
        )
        now, settle = self.clock.now(), SETTLE
        self.store.run(
            lambda unit: server_updates.note_failure(unit, claimed, next_step, now=now, error=str(error), settle=settle)
        )

    # The poller

    @rule(target=polls, server_id=st.sampled_from(SERVERS), complete=st.sampled_from([True, True, False]))
    def start_poll(self, server_id: int, complete: bool) -> Polled:  # noqa: FBT001  # drawn by name
        """A poll reads upstream."""
        self.tick()
        seen = tuple(self.upstream[server_id].values())
        return Polled(server_id, self.clock.moment(), seen if complete else seen[1:], complete)

    @rule(poll=consumes(polls))
    def finish_poll(self, poll: Polled) -> None:
        """It is merged, whatever happened since it started."""
        self.tick()
        started_at = self.clock.time_of(poll.began)
        self.driver.poll(*poll.software, server_id=poll.server_id, started_at=started_at, complete=poll.complete)

    @rule(server_id=st.sampled_from(SERVERS))
    def poll_at_once(self, server_id: int) -> None:
        """A poll without anything in between."""
        self.finish_poll(self.start_poll(server_id, complete=True))

    @rule(server_id=st.sampled_from(SERVERS))
    def fail_poll(self, server_id: int) -> None:
        """A poll fails."""
        self.driver.fail(server_id)

    # The operator and the machine

    @rule(data=st.data())
    def replay(self, data: st.DataObject) -> None:
        """An operator has a delivery fetched again."""
        known = self.rows()
        if known:
            row = data.draw(st.sampled_from(known))
            self.replayed += row.state not in WAITING
            self.store.run(lambda unit: deliveries.replay(unit, row.id, now=self.clock.now()))

    @rule(jump=st.sampled_from([0.0, 0.0, 40 * DAY, -40 * DAY]))
    def crash(self, jump: float) -> None:
        """The process is killed; the clock may be set before the next start."""
        self.store = self.driver.store = self.home.crash(self.store)
        self.held.set(self.held.now() + jump)
        self.clock = self.driver.time = SteadyClock(self.held)
        self.door = BoundedInbox(LIMIT)
        config = configured()
        self.store.run(lambda unit: restore.restore(unit, {MAIN: RULES}, config.metrics, now=self.clock.now()))

    @rule(jump=st.sampled_from([40 * DAY, -40 * DAY, -20.0, -4.0, -1.0, 4.0]))
    def set_clock(self, jump: float) -> None:
        """The clock is set, and the service notices, unless it is set by less than it tolerates."""
        self.held.set(self.held.now() + jump)
        step = self.clock.step()
        assert step != 0.0 or abs(jump) < TOLERANCE
        if step:
            self.list_read_at += step
            now = self.clock.now() + step
            self.store.run(lambda unit: follow_clock(unit, step, now=now, rules={MAIN: RULES}))
            self.clock.adopt(step)

    @rule()
    def list_servers(self) -> None:
        """The account's list is read, which shows that the credentials are good."""
        self.tick()
        self.list_read_at = self.clock.now()
        self.driver.take_list("web", "db")
        self.store.run(lambda unit: deliveries.unblock(unit, MAIN))

    @rule()
    def come_to_rest(self) -> None:
        """Everything that waits is fetched, and one poll a settle later makes the state equal to upstream."""
        self.list_servers()
        self.store.run(lambda unit: deliveries.hasten(unit, MAIN))
        for _ in range(200):
            self.tick(100.0)
            claimed = self.take()
            if claimed is not None:
                self.conclude(claimed, "ok", good=True)
            elif not self.waiting():
                break
            else:
                self.tick(deliveries.LONGEST_WAIT)
        assert self.waiting() == []
        self.tick(SETTLE + 1.0)
        for server_id in SERVERS:
            self.driver.poll(*self.upstream[server_id].values(), server_id=server_id)
            self.shows_upstream(server_id)
        assert self.driver.account_record().catch_up_since is None or self.caught_up()

    def caught_up(self) -> bool:
        """Polls after the newest overflow end the catch-up."""
        return self.store.run(lambda unit: account_updates.finish_catch_up(unit, MAIN))

    # What holds

    def shows_upstream(self, server_id: int) -> None:
        """What is open is what upstream shows, no more and no less, and nothing waits for a confirmation."""
        expected = derive(tuple(self.upstream[server_id].values()), EXPLOIT_RISK)
        shown = [issue for issue in self.driver.issues(server_id) if issue.is_open]
        assert all(issue.polled for issue in shown)
        assert {(i.identity, i.kind, i.severity) for i in shown} == {(f.identity, f.kind, f.severity) for f in expected}
        state = self.driver.server(server_id).state
        assert (state.event_received_at, state.settle_poll_at) == (None, None)
        assert state.last_poll_at == self.clock.now()

    @invariant()
    def nothing_acknowledged_is_lost(self) -> None:
        """Each delivery that got a 202 without an overflow has a row, in a state that its last error explains."""
        known = {row.event_id: row for row in self.rows()}
        assert set(known) == self.acknowledged
        for event_id, row in known.items():
            if row.state is DeliveryState.APPLIED:
                assert event_id in self.applied

    @invariant()
    def the_inbox_is_bounded(self) -> None:
        """No more waits than the limit, but for what an operator put back."""
        assert len(self.waiting()) <= LIMIT + self.replayed

    @invariant()
    def nothing_takes_effect_twice(self) -> None:
        """Counters, feed and issues tell the same story: an issue opens, is fixed, comes back, in turn."""
        standing: dict[str, bool] = {}
        opened = fixed = 0
        for change in self.driver.changes():
            print_ = change.issue.fingerprint
            match change.kind.value:
                case "opened":
                    assert print_ not in standing
                    standing[print_] = True
                    opened += 1
                case "reopened":
                    assert standing[print_] is False
                    standing[print_] = True
                    opened += 1
                case "fixed":
                    assert standing[print_] is True
                    standing[print_] = False
                    fixed += 1
        assert self.driver.tally() == (opened, fixed)
        issues: list[Issue] = [issue for server_id in SERVERS for issue in self.driver.issues(server_id)]
        assert {issue.fingerprint: issue.is_open for issue in issues} == standing

    @invariant()
    def nothing_is_from_the_future(self) -> None:
        """Whatever the clock did, nothing seems to have happened later than now."""
        now = self.clock.now()
        for server_id in SERVERS:
            state = self.driver.server(server_id).state
            for at in (state.last_poll_at, state.complete_poll_at, state.event_received_at):
                assert at is None or at <= now
            for issue in self.driver.issues(server_id):
                assert issue.first_seen <= issue.last_seen <= now
                assert issue.fixed_at is None or issue.first_seen <= issue.fixed_at <= now
        assert all(row.received_at <= now for row in self.rows())

    @invariant()
    def the_summary_is_the_issues(self) -> None:
        """What the series show is what is stored."""
        for server_id in SERVERS:
            shown = self.driver.server(server_id).summary.open_issues or (0, 0, 0, 0)
            assert sum(shown) == sum(issue.is_open for issue in self.driver.issues(server_id))

    def rows(self) -> list[Delivery]:
        """The inbox."""
        return self.store.run(lambda unit: deliveries.page(unit.connection, after=0, limit=1000))

    def waiting(self) -> list[Delivery]:
        """What waits in it."""
        return [row for row in self.rows() if row.state in WAITING]

    def tick(self, seconds: float = 1.0) -> None:
        """Time passes."""
        self.held.advance(seconds or 0.001)


SETTINGS = settings(
    phases=[Phase.generate],
    report_multiple_bugs=False,
    max_examples=60 if FULL else 8,
    stateful_step_count=30,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    print_blob=True,
)


@pytest.mark.timeout(900)
def test_the_pipeline_on_sqlite(migrated_file: Path) -> None:
    """Nothing acknowledged is lost, nothing takes effect twice, and in the end the state is upstream's."""
    play(lambda: SqliteHome(migrated_file))


@pytest.mark.timeout(900)
def test_the_pipeline_on_postgresql(postgres: PostgresCluster, migrated_database: str) -> None:
    """The same holds with PostgreSQL."""
    play(lambda: PostgresHome(postgres, migrated_database))


def play(home: Callable[[], Home]) -> None:
    """Run the machine there."""
    machine: Any = lambda: Pipeline(home)  # noqa: E731  # Hypothesis takes what makes one, and says a class.
    run_state_machine_as_test(machine, settings=SETTINGS)
