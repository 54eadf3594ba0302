"""The system's clock is set, and the state follows, so that no timer fires early or waits for weeks."""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING, Final, NamedTuple

from msgspec.structs import replace

from patrolserver_exporter.clock import TOLERANCE
from patrolserver_exporter.inbox import deliveries
from patrolserver_exporter.issues.model import not_after
from patrolserver_exporter.live.effects import ServerShown
from patrolserver_exporter.logs import log_fields
from patrolserver_exporter.store import StoreError, fleet, history
from patrolserver_exporter.sync import server_updates
from patrolserver_exporter.sync.account_updates import renew_summary, save_account

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    from patrolserver_exporter.clock import SteadyClock
    from patrolserver_exporter.live.own_metrics import Telemetry
    from patrolserver_exporter.store import Store
    from patrolserver_exporter.store.fleet import ServerRecord, ServerState
    from patrolserver_exporter.store.lease_rows import Holder
    from patrolserver_exporter.store.threads import Unit
    from patrolserver_exporter.sync.account import RunningAccount
    from patrolserver_exporter.sync.rules import Rules

log = logging.getLogger(__name__)


class ClockFollower:
    """Has state and accounts follow the system's clock, as soon as the store can."""

    def __init__(self, store: Store, telemetry: Telemetry, clock: SteadyClock) -> None:
        self._store = store
        self._telemetry = telemetry
        self._clock = clock
        self.ahead = 0.0
        """Seconds by which stored times may be ahead of the clock, while they are about to follow it back."""
        self._following = threading.Lock()
        """A stop follows, too, while the dispatcher may do so."""

    def tick(
        self, running: Callable[[], Collection[RunningAccount]], on_followed: Callable[[float], None] = lambda _: None
    ) -> None:
        """Follow the clock if it was set, with the accounts that are ``running``.

        ``on_followed`` hears by how many seconds.
        """
        with self._following:
            self._tick(running, on_followed)

    def _tick(self, running: Callable[[], Collection[RunningAccount]], on_followed: Callable[[float], None]) -> None:
        step = self._clock.step()
        if not step:
            return
        accounts = running()
        rules = {account.name: account.rules for account in accounts}
        adopted = threading.Event()

        def work(unit: Unit) -> None:
            follow_clock(unit, step, now=self._clock.now() + step, rules=rules)
            # Here, since what is written next must be of the new time.
            self._clock.adopt(step)
            adopted.set()

        # The clock goes back a moment before others can see that the times did.
        self.ahead = max(-step, 0.0)
        try:
            self._store.run(work, *rules)
            on_followed(step)
        except StoreError as error:
            if adopted.is_set():
                self._clock.adopt(-step)
            # The next tick makes up for it; what else there is to do must not wait for the store.
            self._telemetry.error("store")
            log.debug("The state does not follow the clock yet", extra=log_fields(err=str(error)))
            return
        finally:
            self.ahead = 0.0
        log.warning("The system's clock was set; timers follow it", extra=log_fields(seconds=round(step, 3)))
        for account in accounts:
            account.follow_clock(step)
            if step < 0:
                account.plan_spread(account.server_ids)


def follow_clock(unit: Unit, step: float, *, now: float, rules: Mapping[str, Rules]) -> None:
    """The system's clock was set by ``step`` seconds: nothing may seem to have happened in the future.

    A poll that seems to be from the future cannot tell how old its data is, so the server counts as never polled until
    its next poll. What is from before goes back with the clock: else a day-old poll would be of an hour ago.
    """
    follow_clock_but_servers(unit, step, now=now, rules=rules)
    for account, of_account in rules.items():
        for record in fleet.server_records(unit.connection, account, gone=True):
            keep_up(unit, record, step, now=now, rules=of_account)


_TAKEN_BACK: Final = 30.0
"""Seconds after which an exporter that has followed a step that this process has not seen is taken as it is."""
_AT_MOST: Final = 600.0
"""Seconds that data is taken for older, since an exporter has not followed a step that this process has seen: it may
have followed it without telling, as an older version does, or in small steps."""


class _Other(NamedTuple):
    """An account that another exporter polls."""

    base: float
    """Its steps less ours, when both had followed the clock as far."""
    steps: float
    differs_since: float | None
    """Since when one of the two is ahead of the other (monotonic seconds)."""


class OthersClocks:
    """Whether the exporters that poll the other accounts have followed the clock as far as this one. Thread-safe.

    Until they have, what they wrote before the clock was set back seems to be younger than it is.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._mine = 0.0
        """Seconds of all steps that this process has followed."""
        self._others: dict[str, _Other] = {}

    def looked(self, found: Mapping[str, tuple[Holder, float]], *, pending: float, at: float) -> None:
        """Others poll these accounts, or did so: who has the lease, and `AccountState.clock_steps`.

        ``pending`` is the step that this process is about to follow, in seconds, and ``at`` the monotonic time.
        """
        with self._lock:
            before, self._others = self._others, {}
            for name, (holder, steps) in found.items():
                known = before.get(name)
                if known is None:
                    # Whoever had it was heard of in the future: a step that nobody has seen who lives.
                    unseen = holder.last_at - holder.now
                    base = steps - self._mine - pending - (unseen if unseen >= TOLERANCE else 0.0)
                    known = _Other(base, steps, None)
                self._others[name] = self._settled(known._replace(steps=steps), at)

    def _settled(self, other: _Other, at: float) -> _Other:
        """The same, which is taken as it is once it has differed for long."""
        difference = other.steps - other.base - self._mine
        if abs(difference) < TOLERANCE:
            return other._replace(differs_since=None)
        since = at if other.differs_since is None else other.differs_since
        if at - since >= (_AT_MOST if difference > 0 else _TAKEN_BACK):
            return _Other(other.steps - self._mine, other.steps, None)
        return other._replace(differs_since=since)

    def followed(self, step: float) -> None:
        """This process follows a step."""
        with self._lock:
            self._mine += step

    def ahead_of(self, account: str) -> float:
        """Seconds by which stored times of an account may be ahead of the clock; 0 for one that nobody else polls."""
        with self._lock:
            other = self._others.get(account)
            difference = 0.0 if other is None else other.steps - other.base - self._mine
        return difference if difference >= TOLERANCE else 0.0

    @property
    def ahead(self) -> float:
        """The same of all of them."""
        with self._lock:
            names = tuple(self._others)
        return max(map(self.ahead_of, names), default=0.0)


def follow_lost_step(unit: Unit, set_back: Mapping[str, float], *, now: float, rules: Mapping[str, Rules]) -> None:
    """The clock was set back while nobody polled these accounts, or nobody who lived on: what it shows is in doubt.

    ``set_back``: by how many seconds at least. How long nobody was there is not known, so the times go back by what is
    certain, and all servers are unknown to the gate until they are polled.
    """
    for name, of_account in rules.items():
        back = -set_back.get(name, 0.0)
        if back > -TOLERANCE:
            continue
        log.warning(
            "The clock was set back since the account was last polled: how old its data is, nobody knows, so its "
            "servers are unknown to the gate until they are polled",
            extra=log_fields(account=name, seconds=round(-back, 3)),
        )
        follow_clock(unit, back, now=now, rules={name: of_account})
        history.request_catch_up(unit.connection, name, now)


def follow_clock_but_servers(unit: Unit, step: float, *, now: float, rules: Mapping[str, Rules]) -> None:
    """The same for the inbox and for the accounts themselves."""
    deliveries.shift_times(unit, step, now=now, accounts=tuple(rules))
    for account, of_account in rules.items():
        _forget_future_of_account(unit, account, step, now, of_account.settle)


def keep_up(unit: Unit, record: ServerRecord, step: float, *, now: float, rules: Rules) -> ServerRecord:
    """The same for one server; its row as it is then."""
    if step < 0 or _is_from_future(record, now):
        _follow_back(unit, record, min(step, 0.0), now, rules)
        return fleet.find_server(unit.connection, record.account, record.server_id) or record
    ahead = _ahead(record.state, step, now) if step > 0 else record.state
    if ahead != record.state:
        record = replace(record, state=ahead)
        fleet.save_servers(unit.connection, [record])
    return record


def _ahead(state: ServerState, step: float, now: float) -> ServerState:
    """The server's state after the clock was set ahead, which confirms nothing that has to be shown twice."""

    def later(at: float | None) -> float | None:
        return None if at is None else min(at + step, now)

    collapse = state.collapse
    return replace(
        state,
        missing_since=later(state.missing_since),
        eased_alike_at=later(state.eased_alike_at),
        collapse=collapse if collapse is None else replace(collapse, since=min(collapse.since + step, now)),
    )


def _forget_future_of_account(unit: Unit, account: str, step: float, now: float, settle: float) -> None:
    back = min(step, 0.0)
    record = fleet.find_account(unit.connection, account)
    # A catch-up may be due up to `settle` from now.
    is_past = record is None or (
        (record.last_success_at or 0.0) <= now and (record.catch_up_since or 0.0) <= now + settle
    )
    if record is None or (is_past and not step):
        return
    since = record.catch_up_since
    if since is not None and since > now + settle:
        fleet.set_catch_up(unit.connection, account, now + settle, instead_of=since)
    state = replace(record.state, clock_steps=record.state.clock_steps + step)
    save_account(unit, replace(record, last_success_at=_past(record.last_success_at, now, back), state=state))


def _past(at: float | None, now: float, back: float) -> float | None:
    return None if at is None or at > now else at + back


_TELLS_ON_AGES: Final = 600.0
"""Seconds by which the clock is set back so that issues, whose ages are of days, follow it."""


def _is_from_future(record: ServerRecord, now: float) -> bool:
    state = record.state
    times = (
        record.gone_at,
        state.last_poll_at,
        state.last_scan_at,
        state.event_received_at,
        state.scan_started_told_at,
        state.scan_finished_told_at,
        state.scan_seen_at,
        state.in_doubt_since,
        state.came_back_at,
        state.missing_since,
        state.eased_alike_at,
    )
    # The poll that its issues' times are from may have been forgotten already, when the clock was set back before.
    forgotten = state.last_poll_at is None and record.summary.software is not None
    return forgotten or any(at is not None and at > now for at in times)


def _follow_back(unit: Unit, record: ServerRecord, back: float, now: float, rules: Rules) -> None:
    """Take the server's times back with the clock, and forget those that are from the future nevertheless.

    ``back`` is in seconds, below 0; it is 0 where nobody saw by how much.
    """

    def past(at: float | None) -> float | None:
        return _past(at, now, back)

    def at_most_now(at: float | None) -> float | None:
        return None if at is None else min(at + back, now)

    state = record.state
    is_from_future = _is_from_future(record, now)
    # With the start of the server's history: what its first poll found is held against that.
    moves_issues = is_from_future or back <= -_TELLS_ON_AGES
    # What has to be shown twice is shown by a clock that did not jump in between.
    collapse = None if is_from_future else state.collapse
    state = replace(
        state,
        last_poll_at=past(state.last_poll_at),
        complete_poll_at=past(state.complete_poll_at),
        last_scan_at=past(state.last_scan_at),
        poll_success=False if past(state.last_poll_at) is None else state.poll_success,
        scan_started_told_at=at_most_now(state.scan_started_told_at),
        scan_finished_told_at=at_most_now(state.scan_finished_told_at),
        scan_seen_at=at_most_now(state.scan_seen_at),
        event_received_at=at_most_now(state.event_received_at),
        report_settles_at=at_most_now(state.report_settles_at),
        settle_poll_at=at_most_now(state.settle_poll_at),
        put_off_until=at_most_now(state.put_off_until),
        scan_put_off_until=at_most_now(state.scan_put_off_until),
        in_doubt_since=at_most_now(state.in_doubt_since),
        came_back_at=at_most_now(state.came_back_at),
        history_since=at_most_now(state.history_since) if moves_issues else state.history_since,
        collapse=collapse if collapse is None else replace(collapse, since=collapse.since + back),
        missing_since=at_most_now(state.missing_since),
        eased_alike_at=at_most_now(state.eased_alike_at),
    )
    gone_at = None if record.gone_at is None else min(record.gone_at, now)
    record = replace(server_updates.with_state(record, state), gone_at=gone_at)
    if moves_issues:
        known = fleet.issues_of(unit.connection, record.account, record.server_id)
        fleet.save_issues(unit.connection, [not_after(issue, now, back) for issue in known])
    if moves_issues and gone_at is None:
        renew_summary(unit, record, rules)
        return
    fleet.save_servers(unit.connection, [record])
    if gone_at is None:
        unit.effects.append(ServerShown(record.summary))
