"""How many deliveries the inbox has in each state, counted when something has changed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from patrolserver_exporter.inbox import deliveries
from patrolserver_exporter.inbox.deliveries import DeliveryState
from patrolserver_exporter.live.own_metrics import InboxState

if TYPE_CHECKING:
    from concurrent.futures import Future

    from patrolserver_exporter.live.own_metrics import Telemetry
    from patrolserver_exporter.live.publisher import Publisher
    from patrolserver_exporter.store import Store


class InboxGauges:
    """Counts on the store's thread, and is not waited for."""

    def __init__(self, store: Store, publisher: Publisher, telemetry: Telemetry) -> None:
        self._store = store
        self._counted: tuple[InboxState, ...] = ()
        self._outdated = True
        publisher.on_inbox(self._moved)
        telemetry.watch_inbox(lambda: self._counted)

    def tick(self) -> None:
        """Count, if something has changed."""
        if self._outdated:
            self._outdated = False
            self._store.submit_read(deliveries.census).add_done_callback(self._take)

    def _moved(self) -> None:
        self._outdated = True

    def _take(self, future: Future[list[deliveries.StateCount]]) -> None:
        if future.exception() is not None:
            self._outdated = True
            return
        counted = {count.state: count for count in future.result()}
        self._counted = tuple(
            InboxState(
                state=state.value,
                deliveries=counted[state.value].count if state.value in counted else 0,
                oldest_at=counted[state.value].oldest if state.value in counted else None,
            )
            for state in DeliveryState
        )
