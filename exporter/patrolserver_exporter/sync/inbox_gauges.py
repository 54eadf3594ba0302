"""What the inbox holds, counted when something has changed: deliveries by state, and the doubt that they leave."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from patrolserver_exporter.inbox import deliveries
from patrolserver_exporter.inbox.deliveries import WAITING, DeliveryState
from patrolserver_exporter.live.effects import NewsWaits
from patrolserver_exporter.live.own_metrics import InboxState

if TYPE_CHECKING:
    from concurrent.futures import Future

    import sqlalchemy as sa

    from patrolserver_exporter.clock import SteadyClock
    from patrolserver_exporter.live.own_metrics import Telemetry
    from patrolserver_exporter.live.publisher import Publisher
    from patrolserver_exporter.store import Store


PATIENCE = 30.0
"""Seconds for which a delivery may wait before its account's servers are shown as unknown: nearly all take less than
one, and with each of them a whole fleet would be unknown for a moment. The gate says so at once."""
_LOOK_AGAIN = 5.0
"""Seconds after which what waits is looked at again, though nothing has changed."""


_KNOWN = frozenset(DeliveryState)


class _Counted(NamedTuple):
    states: list[deliveries.StateCount]
    doubts: deliveries.Doubts


class InboxGauges:
    """Counts on the store's thread, and is not waited for."""

    def __init__(self, store: Store, publisher: Publisher, telemetry: Telemetry, clock: SteadyClock) -> None:
        self._store = store
        self._clock = clock
        self._waits = False
        """Some deliveries do."""
        self._looked_at = 0.0
        """Monotonic seconds."""
        self._news = NewsWaits(frozenset(), {})
        self._counted: tuple[InboxState, ...] = ()
        self._outdated = True
        publisher.on_inbox(self._moved)
        telemetry.watch_inbox(lambda: self._counted)

    def tick(self) -> None:
        """Count, if something has changed, or waits for longer now."""
        now = self._clock.monotonic()
        if self._outdated or (self._waits and now - self._looked_at >= _LOOK_AGAIN):
            self._outdated, self._looked_at = False, now
            self._store.submit_read(self._count).add_done_callback(self._take)

    def _count(self, connection: sa.Connection) -> _Counted:
        before = self._clock.now() - PATIENCE
        return _Counted(deliveries.census(connection), deliveries.doubts(connection, received_before=before))

    def _moved(self) -> None:
        self._outdated = True

    def _take(self, future: Future[_Counted]) -> None:
        if future.exception() is not None:
            self._outdated = True
            return
        states, doubts = future.result()
        counted = {count.state: count for count in states}
        # What nobody here knows may wait, too.
        self._waits = any(state in WAITING or state not in _KNOWN for state in counted)
        news = NewsWaits(doubts.waiting, doubts.catch_up_since)
        if news != self._news:
            self._news = news
            self._store.emit([news])
        self._counted = tuple(
            InboxState(
                state=state.value,
                deliveries=counted[state.value].count if state.value in counted else 0,
                oldest_at=counted[state.value].oldest if state.value in counted else None,
            )
            for state in DeliveryState
        )
