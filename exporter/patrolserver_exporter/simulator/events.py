"""Events: what a webhook tells of, to be fetched for 30 days (D, C)."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

KEPT_SECONDS = 30 * 86_400.0


@dataclass(frozen=True, slots=True)
class Event:
    """One thing that happened, under the webhook that told of it."""

    id: int
    webhook_id: int
    account_id: int
    identifier: str
    data: object
    at: float
    """Seconds since the epoch."""


class Events:
    """The events of all webhooks, by webhook and id."""

    def __init__(self) -> None:
        self._events: dict[tuple[int, int], Event] = {}
        self._order: deque[tuple[int, int]] = deque()
        self._next = 1

    def __len__(self) -> int:
        return len(self._events)

    def add(self, webhook_id: int, account_id: int, identifier: str, data: object, now: float) -> Event:
        """Keep a new event, and let go of what is older than 30 days."""
        event = Event(self._next, webhook_id, account_id, identifier, data, now)
        self._next += 1
        self._events[webhook_id, event.id] = event
        self._order.append((webhook_id, event.id))
        while self._order and self._events[self._order[0]].at + KEPT_SECONDS < now:
            del self._events[self._order.popleft()]
        return event

    def find(self, webhook_id: int, event_id: int, now: float) -> Event | None:
        """The event, unless it is older than 30 days."""
        event = self._events.get((webhook_id, event_id))
        return event if event is not None and event.at + KEPT_SECONDS >= now else None
