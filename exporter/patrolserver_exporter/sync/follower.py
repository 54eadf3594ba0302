"""Follows a database that is shared: shows what other exporters have committed, and hears of what waits there.

A look, four times a second, sees one state of the database. Versions tell what is new since the look before: that of
an account's lease rises with every commit, and each row has the one with which it was written. After another history
everything is read again. A state of before what was seen is not shown: whoever polls begins another history then.

Accounts that this process polls are left out: their commits show themselves.
"""

from __future__ import annotations

import logging
import re
import threading
import time
from typing import TYPE_CHECKING, Final, NamedTuple

import sqlalchemy as sa

from patrolserver_exporter.inbox.deliveries import DeliveryState
from patrolserver_exporter.lasting import LastingTrouble
from patrolserver_exporter.live.effects import (
    AccountRestored,
    AccountShown,
    FeedGrew,
    FleetRestored,
    InboxMoved,
    ServerGone,
    ServerShown,
    Summaries,
    TalliesShown,
)
from patrolserver_exporter.store import StoreError, fleet, history, lease, lease_rows, replicas
from patrolserver_exporter.store.lease_rows import Position
from patrolserver_exporter.store.tables import inbox, operations

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    from patrolserver_exporter.clock import Clock
    from patrolserver_exporter.config.schema import Metrics
    from patrolserver_exporter.live.own_metrics import Telemetry
    from patrolserver_exporter.store import Look, Store
    from patrolserver_exporter.store.fleet import AccountRecord
    from patrolserver_exporter.store.lease_rows import Holder
    from patrolserver_exporter.store.replicas import Replica
    from patrolserver_exporter.sync.rules import Rules

log = logging.getLogger(__name__)

_EVERY: Final = 0.25
_ALONE_AFTER: Final = 60.0
"""Seconds without a look that succeeded after which an exporter shows no fleet any more, if the database is there for
others: it takes what this one tells, or they lived at the last look and it is not the database that is down."""
_DOWN: Final = re.compile(
    r"connection to server (?:at .* failed: Connection refused|.* failed: FATAL: +the database system is )"
)
"""Its host refuses connections, or it says so itself. A socket of this machine may be that of a pooler of our own."""
_TELL_AGAIN: Final = 5.0
"""Seconds after which deliveries that nobody has looked at are told of again: those of a pause may wait for hours."""
_JOIN: Final = 5.0


class Found(NamedTuple):
    """What a look has found."""

    position: Position
    is_same: bool
    """It is the state that the feed was written in, and not of before what was seen."""
    holders: Mapping[str, Holder]
    """Of the leases that somebody has or had."""
    living: tuple[Replica, ...]
    newest_change: int
    newest_delivery: int
    last_deliveries: Mapping[str, float]
    """When the newest deliveries since the look before were received, by account."""
    has_news: bool
    """Deliveries that nobody has looked at yet wait."""
    asked: frozenset[str]
    """Accounts with refreshes that nobody has begun yet."""
    effects: list[object]
    """What others have committed since."""
    seen: Mapping[str, int]
    """The versions, of the accounts that are followed, that are shown with these effects."""
    records: Mapping[str, AccountRecord] | None
    """The accounts, as of the last look at which something of those that are followed may have changed."""


class _Shown(NamedTuple):
    """What is to be shown by a look, and what is shown already."""

    rules: Mapping[str, Rules]
    metrics: Metrics
    owned: frozenset[str]
    history: str | None
    """``None``: nothing is shown yet."""
    seen: Mapping[str, int]
    """Versions, by account; one that is missing is shown anew."""


class Follower:
    """Looks on a thread of its own. ``on_look`` hears, there, what each look has found."""

    def __init__(  # noqa: PLR0913  # The parts that it tells.
        self,
        store: Store,
        telemetry: Telemetry,
        clock: Clock,
        *,
        on_look: Callable[[Found], None],
        on_deliveries: Callable[[str, float], None] = lambda _account, _at: None,
        every: float = _EVERY,
    ) -> None:
        self._store = store
        self._telemetry = telemetry
        self._on_look = on_look
        self._on_deliveries = on_deliveries
        self._every = every
        self._lock = threading.Lock()
        """Guards what follows: nothing may be shown of a look that began before a change of what is to be shown."""
        self._shown: _Shown | None = None
        self._generation = 0
        self._newest_change = self._newest_delivery = -1
        self._told_at = float("-inf")
        """When it was last told that deliveries may wait (monotonic seconds)."""
        self._others_lived = False
        self._is_down = False
        """By the last look that failed, the database is away for all."""
        self._ended = self._restarts = False
        self._looked_at = time.monotonic()
        self._failed_at = float("-inf")
        self.last_look: Found | None = None
        self._trouble = LastingTrouble(log, clock)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="store-follower", daemon=True)

    def start(self) -> None:
        """Begin to look."""
        self._thread.start()

    def stop(self) -> None:
        """Look no more."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(_JOIN)

    def pause(self) -> None:
        """Show nothing more until `show`."""
        with self._lock:
            self._change(None)

    def show(
        self,
        rules: Mapping[str, Rules],
        metrics: Metrics,
        owned: Collection[str] = (),
        *,
        from_there: Position | None = None,
    ) -> None:
        """Show these accounts as others commit them, but for the owned ones, from the next look on.

        ``from_there``: what is shown is of this state, or newer.
        """
        owned = frozenset(owned)
        seen = {} if from_there is None else {n: v for n, v in from_there.versions.items() if n not in owned}
        with self._lock:
            self._change(_Shown(rules, metrics, owned, None if from_there is None else from_there.history, seen))

    def own(self, names: Collection[str]) -> Position:
        """Show nothing more of these accounts: this process shows what it commits.

        Returns what is shown of them, for `disown` if nothing comes of it.
        """
        with self._lock:
            shown = self._shown
            if shown is None:
                return Position("", {})
            seen = {name: version for name, version in shown.seen.items() if name not in names}
            self._change(shown._replace(owned=shown.owned | frozenset(names), seen=seen))
            return Position(shown.history or "", {name: v for name, v in shown.seen.items() if name in names})

    def disown(self, names: Collection[str], shown_already: Position | None = None) -> None:
        """Follow these accounts again, and show them anew, but for what is shown already."""
        with self._lock:
            shown = self._shown
            if shown is not None:
                seen = dict(shown.seen)
                if shown_already is not None and shown_already.history == shown.history:
                    seen |= {name: version for name, version in shown_already.versions.items() if name in names}
                self._change(shown._replace(owned=shown.owned - frozenset(names), seen=seen))

    @property
    def has_shown(self) -> bool:
        """Whether all is shown by the rules in force."""
        with self._lock:
            return self._shown is not None and self._shown.history is not None

    def _change(self, shown: _Shown | None) -> None:
        self._shown = shown
        self._generation += 1

    def take_restart(self) -> bool:
        """Whether everything was ended meanwhile, so that accounts of this process have to be shown anew; said once."""
        with self._lock:
            restart, self._restarts = self._restarts, False
            return restart

    @property
    def follows(self) -> bool:
        """Whether the database was looked at a moment ago, or could be but for a trouble that all have."""
        return not self._ended

    @property
    def is_steady(self) -> bool:
        """Whether the leases could be read for as long as their owner takes to renew one.

        After a trouble that all had, each owner gets its time to go on.
        """
        return time.monotonic() - self._failed_at > lease.RENEW_EVERY + 1.0

    @property
    def last_look_at(self) -> float:
        """When a look last succeeded (monotonic seconds)."""
        return self._looked_at

    def _run(self) -> None:
        while not self._stop.wait(self._every):
            try:
                self.look()
            except StoreError as error:
                self._failed(error)
            except Exception as error:
                self._telemetry.error("store")
                log.exception("The database could not be followed; this is a bug")
                with self._lock:
                    if self._shown is not None:
                        self._shown = self._shown._replace(seen={})
                self._failed(error)

    def look(self) -> None:
        """Look once; raises `StoreError`."""
        with self._lock:
            shown, generation = self._shown, self._generation
        began = time.monotonic()
        try:
            found = self._store.follow(lambda look: self._read(look, shown))
        except StoreError as error:
            self._is_down = tells_that_it_is_down(str(error))
            raise
        with self._lock:
            if generation != self._generation:
                return
            effects = list(found.effects)
            if shown is not None and found.is_same:
                self._shown = shown._replace(history=found.position.history, seen=found.seen)
            if found.newest_change != self._newest_change:
                effects.append(FeedGrew())
            still_waits = found.has_news and began - self._told_at >= _TELL_AGAIN
            if still_waits or found.newest_delivery != self._newest_delivery or effects:
                effects.append(InboxMoved())
                self._told_at = began
            self._newest_change, self._newest_delivery = found.newest_change, found.newest_delivery
            self._others_lived = len(found.living) > 1
            if found.is_same:
                # What was ended is shown again from the start.
                self._restarts = self._restarts or self._ended
                self._ended, self._looked_at = False, began
            if effects:
                self._store.emit(effects)
            self.last_look = found
        for account, at in found.last_deliveries.items():
            self._on_deliveries(account, at)
        if found.is_same:
            self._trouble.is_over("The database is followed again")
        self._on_look(found)

    def _failed(self, error: Exception) -> None:
        self._failed_at = time.monotonic()
        self._trouble.lasts("The database cannot be followed; what is shown is of before", err=str(error))
        self.end_if_alone()

    def end_if_alone(self) -> None:
        """Show no fleet any more if this process alone cannot follow, as far as it can know; for any thread."""
        with self._lock:
            lags = time.monotonic() - self._looked_at > _ALONE_AFTER
            alone = self._store.answers or (self._others_lived and not self._is_down)
            if not lags or self._ended or self._shown is None or not alone:
                return
            shown = self._shown
            self._ended, self._shown = True, shown._replace(seen={})
            # A look that is under way began with what was shown until now.
            self._generation += 1
            labels = {name: rules.labels for name, rules in shown.rules.items()}
            self._store.emit([FleetRestored(shown.metrics, (), (), (), labels)])
        log.error(
            "The database could not be followed for a minute while it is there for others: no series of the fleet are "
            "shown until it can, and /-/ready is 503"
        )

    def _read(self, look: Look, shown: _Shown | None) -> Found:
        connection = look.connection
        newest_delivery = connection.execute(sa.select(sa.func.max(inbox.c.id))).scalar() or 0
        effects: list[object] = []
        seen, records = None if shown is None else shown.seen, None
        if shown is not None and look.is_same:
            effects, seen, records = _news(connection, look.position, shown)
        if records is None and self.last_look is not None:
            records = self.last_look.records
        return Found(
            position=look.position,
            is_same=look.is_same,
            holders=look.holders,
            living=replicas.living(connection),
            newest_change=history.feed_bounds(connection)[1],
            newest_delivery=newest_delivery,
            last_deliveries=self._receptions(connection, newest_delivery),
            has_news=connection.execute(_UNTOUCHED).first() is not None,
            asked=frozenset(connection.execute(_ASKED).scalars()),
            effects=effects,
            seen=seen or {},
            records=records,
        )

    def _receptions(self, connection: sa.Connection, newest: int) -> Mapping[str, float]:
        if newest == self._newest_delivery or self._newest_delivery < 0:
            return {}
        # Some more than are new: of two that came in at once the one with the higher id may be committed first.
        rows = connection.execute(_RECEIVED, {"after": self._newest_delivery - 1000})
        return {row[0]: row[1] for row in rows}


def tells_that_it_is_down(error: str) -> bool:
    """Whether the database is down, by this error of a connection to it: of several hosts, each of them."""
    attempts = [line for line in error.splitlines() if line.startswith("- host:")]
    return all(_DOWN.search(attempt) for attempt in attempts or [error])


def _news(
    connection: sa.Connection, position: Position, shown: _Shown
) -> tuple[list[object], Mapping[str, int], Mapping[str, AccountRecord] | None]:
    """What is to be shown, the versions that are shown then, and the accounts where something is new."""
    followed = [name for name in shown.rules if name not in shown.owned]
    versions = {name: position.versions.get(name, 0) for name in (lease_rows.STORE, *followed)}
    before = shown.seen if shown.history == position.history else {}
    if all(before.get(name) == version for name, version in versions.items()):
        return [], versions, None
    if before.get(lease_rows.STORE) != versions[lease_rows.STORE]:
        # Who has the database for itself raises only that one, whatever it writes.
        before = {}
    records = fleet.account_records(connection)
    if shown.history is None and not shown.owned:
        return [_everything(connection, shown, records)], versions, records
    effects: list[object] = []
    for name in followed:
        version = versions[name]
        record, since = records.get(name) or fleet.AccountRecord(name=name), before.get(name)
        if since is None or since > version:
            effects.append(whole_account(connection, record))
        elif since < version:
            effects += _newer(connection, record, since)
    return effects, versions, records


def _newer(connection: sa.Connection, record: AccountRecord, since: int) -> list[object]:
    name = record.name
    effects: list[object] = [
        ServerShown(server.summary) if server.gone_at is None else ServerGone(name, server.server_id)
        for server in fleet.servers_since(connection, name, since)
    ]
    effects.append(AccountShown(record))
    tallies = history.tallies_since(connection, name, since)
    if tallies:
        effects.append(TalliesShown(tuple(tallies)))
    return effects


def whole_account(connection: sa.Connection, record: AccountRecord) -> AccountRestored:
    """All that is shown of an account."""
    summaries = Summaries()
    for server in fleet.server_records(connection, record.name):
        summaries.append(server.summary)
    return AccountRestored(record, summaries, tuple(history.tallies_of(connection, record.name)))


def _everything(connection: sa.Connection, shown: _Shown, records: Mapping[str, AccountRecord]) -> FleetRestored:
    summaries, accounts, tallies = Summaries(), [], []
    for name in shown.rules:
        before = len(summaries)
        for server in fleet.server_records(connection, name):
            summaries.append(server.summary)
        accounts.append((records.get(name) or fleet.AccountRecord(name=name), len(summaries) - before))
        tallies += history.tallies_of(connection, name)
    labels = {name: rules.labels for name, rules in shown.rules.items()}
    return FleetRestored(shown.metrics, tuple(accounts), summaries, tuple(tallies), labels)


_UNTOUCHED = sa.select(inbox.c.id).where(inbox.c.state == DeliveryState.RECEIVED).limit(1)
_RECEIVED = (
    sa.select(inbox.c.account, sa.func.max(inbox.c.received_at))
    .where(inbox.c.id > sa.bindparam("after"))
    .group_by(inbox.c.account)
)
_ASKED = sa.select(operations.c.account).where(operations.c.state == "pending").distinct()
