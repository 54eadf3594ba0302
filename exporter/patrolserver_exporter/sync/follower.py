"""Follows a database that is shared: shows what another exporter has committed, and hears of what waits there.

A look, four times a second, sees one state of the database. Versions tell what is new since the look before: that of
the lease rises with every commit, and each row has the one with which it was written. After another history, or a gap
of any kind, everything is read again.
"""

from __future__ import annotations

import logging
import threading
import time
from typing import TYPE_CHECKING, Final, NamedTuple

import sqlalchemy as sa

from patrolserver_exporter.inbox.deliveries import DeliveryState
from patrolserver_exporter.lasting import LastingTrouble
from patrolserver_exporter.live.effects import (
    AccountShown,
    FeedGrew,
    FleetRestored,
    InboxMoved,
    ServerGone,
    ServerShown,
    Summaries,
    TalliesShown,
)
from patrolserver_exporter.logs import log_fields
from patrolserver_exporter.store import StoreError, fleet, history, lease, replicas
from patrolserver_exporter.store.tables import inbox, operations, servers

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from patrolserver_exporter.clock import Clock
    from patrolserver_exporter.config.schema import Metrics
    from patrolserver_exporter.live.own_metrics import Telemetry
    from patrolserver_exporter.store import Store
    from patrolserver_exporter.store.fleet import AccountRecord
    from patrolserver_exporter.store.lease import Holder, Position
    from patrolserver_exporter.store.replicas import Replica
    from patrolserver_exporter.sync.rules import Rules

log = logging.getLogger(__name__)

_EVERY: Final = 0.25
_ALONE_AFTER: Final = 60.0
"""Seconds without a look that succeeded after which an exporter that has others beside it shows no fleet any more."""
_JOIN: Final = 5.0


class Found(NamedTuple):
    """What a look has found."""

    position: Position
    is_same: bool
    """It is the database that the feed was written in."""
    holder: Holder
    living: tuple[Replica, ...]
    newest_change: int
    newest_delivery: int
    last_deliveries: Mapping[str, float]
    """When the newest deliveries since the look before were received, by account."""
    has_news: bool
    """Deliveries that nobody has looked at yet wait."""
    asked: tuple[str, ...]
    """Operations that nobody has begun yet."""
    effects: list[object]
    """What others have committed since."""
    records: Mapping[str, AccountRecord] | None
    """The accounts, where something of them may have changed."""
    counts: Mapping[str, int]


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
        self._rules: Mapping[str, Rules] = {}
        self._metrics: Metrics | None = None
        self._lock = threading.Lock()
        """Guards what follows: nothing may be shown of a look that began before `pause`."""
        self._shows = False
        self._generation = 0
        self._seen: Position | None = None
        self._newest_change = self._newest_delivery = -1
        self._others_lived = False
        self._ended = False
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

    def show(self, rules: Mapping[str, Rules], metrics: Metrics) -> None:
        """Show these accounts as others commit them, from the next look on: everything, and then what is new."""
        with self._lock:
            self._rules, self._metrics = rules, metrics
            self._shows, self._seen = True, None
            self._generation += 1

    def pause(self) -> None:
        """Show nothing more: this process writes from now on, and shows what it commits."""
        with self._lock:
            self._shows, self._seen = False, None
            self._generation += 1

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
            except Exception:
                self._telemetry.error("store")
                log.exception("The database could not be followed; this is a bug")
                with self._lock:
                    self._seen = None

    def look(self) -> None:
        """Look once; raises `StoreError`."""
        with self._lock:
            shows, seen, generation = self._shows, self._seen, self._generation
        began = time.monotonic()
        found = self._store.follow(
            lambda connection, position, same: self._read(connection, position, same, seen if shows else position)
        )
        with self._lock:
            if generation != self._generation:
                return
            effects = list(found.effects) if shows and found.is_same else []
            if shows and found.is_same:
                self._seen = found.position
            if found.newest_change != self._newest_change and not any(isinstance(one, FeedGrew) for one in effects):
                effects.append(FeedGrew())
            if found.has_news or found.newest_delivery != self._newest_delivery or effects:
                effects.append(InboxMoved())
            self._newest_change, self._newest_delivery = found.newest_change, found.newest_delivery
            self._others_lived = len(found.living) > 1
            if self._ended:
                # What was ended is shown again from the start.
                self._ended, self._seen = False, None
            self._looked_at = began
            if effects:
                self._store.emit(effects)
            self.last_look = found
        for account, at in found.last_deliveries.items():
            self._on_deliveries(account, at)
        self._trouble.is_over("The database is followed again")
        self._on_look(found)

    def _failed(self, error: StoreError) -> None:
        self._failed_at = time.monotonic()
        self._trouble.lasts("The database cannot be followed; what is shown is of before", err=str(error))
        alone = self._others_lived and time.monotonic() - self._looked_at > _ALONE_AFTER
        with self._lock:
            if not alone or self._ended or not self._shows or self._metrics is None:
                return
            self._ended, self._seen = True, None
            self._store.emit([FleetRestored(self._metrics, (), (), ())])
        log.error(
            "The database could not be followed for a minute while other exporters worked on it: no series of the "
            "fleet are shown until it can, and /-/ready is 503",
            extra=log_fields(err=str(error)),
        )

    def _read(self, connection: sa.Connection, position: Position, is_same: bool, seen: Position | None) -> Found:  # noqa: FBT001
        newest_delivery = connection.execute(sa.select(sa.func.max(inbox.c.id))).scalar() or 0
        effects, records, counts = self._news(connection, position, seen)
        return Found(
            position=position,
            is_same=is_same,
            holder=lease.holder(connection),
            living=replicas.living(connection),
            newest_change=history.feed_bounds(connection)[1],
            newest_delivery=newest_delivery,
            last_deliveries=self._receptions(connection, newest_delivery),
            has_news=connection.execute(_UNTOUCHED).first() is not None,
            asked=tuple(connection.execute(_ASKED).scalars()),
            effects=effects,
            records=records,
            counts=counts,
        )

    def _receptions(self, connection: sa.Connection, newest: int) -> Mapping[str, float]:
        if newest == self._newest_delivery or self._newest_delivery < 0:
            return {}
        # Some more than are new: of two that came in at once the one with the higher id may be committed first.
        rows = connection.execute(_RECEIVED, {"after": self._newest_delivery - 1000})
        return {row[0]: row[1] for row in rows}

    def _news(
        self, connection: sa.Connection, position: Position, seen: Position | None
    ) -> tuple[list[object], Mapping[str, AccountRecord] | None, Mapping[str, int]]:
        if seen == position or self._metrics is None:
            return [], None, {}
        records = fleet.account_records(connection)
        counts = {row[0]: row[1] for row in connection.execute(_COUNTS)}
        if seen is None or seen.history != position.history or seen.version > position.version:
            return [self._everything(connection, self._metrics, records, counts)], records, counts
        effects: list[object] = []
        for record in fleet.servers_since(connection, seen.version):
            if record.account not in self._rules:
                continue
            if record.gone_at is None:
                effects.append(ServerShown(record.summary))
            else:
                effects.append(ServerGone(record.account, record.server_id))
        for name in self._rules:
            record_of = records.get(name) or fleet.AccountRecord(name=name)
            effects.append(AccountShown(record_of))
        tallies = [one for one in history.tallies_since(connection, seen.version) if one.account in self._rules]
        if tallies:
            effects.append(TalliesShown(tuple(tallies)))
        return effects, records, counts

    def _everything(
        self,
        connection: sa.Connection,
        metrics: Metrics,
        records: Mapping[str, AccountRecord],
        counts: Mapping[str, int],
    ) -> FleetRestored:
        rules, summaries = self._rules, Summaries()
        for name in rules:
            for record in fleet.server_records(connection, name):
                summaries.append(record.summary)
        return FleetRestored(
            metrics,
            tuple((records.get(name) or fleet.AccountRecord(name=name), counts.get(name, 0)) for name in rules),
            summaries,
            tuple(tally for name in rules for tally in history.tallies_of(connection, name)),
            {name: rules[name].labels for name in rules},
        )


_COUNTS = sa.select(servers.c.account, sa.func.count()).where(servers.c.gone_at.is_(None)).group_by(servers.c.account)
_UNTOUCHED = sa.select(inbox.c.id).where(inbox.c.state == DeliveryState.RECEIVED).limit(1)
_RECEIVED = (
    sa.select(inbox.c.account, sa.func.max(inbox.c.received_at))
    .where(inbox.c.id > sa.bindparam("after"))
    .group_by(inbox.c.account)
)
_ASKED = sa.select(operations.c.id).where(operations.c.state == "pending").order_by(operations.c.created_at).limit(100)
