"""The webhooks that accounts have entered, and the events that go to them."""

from __future__ import annotations

import threading
from itertools import count
from typing import TYPE_CHECKING

from .events import Event, Events
from .webhooks import Format, Webhook

if TYPE_CHECKING:
    from collections.abc import Callable

TEST_DATA = {"message": "This is a test."}
"""Data of ``webhook.test`` (?): not empty, because the SDK logs an empty event as invalid."""


class Outbox:
    """Keeps each event under its webhook, then hands both to ``deliver``, which must not wait.

    ``now`` tells seconds since the epoch.
    """

    def __init__(self, now: Callable[[], float], deliver: Callable[[Webhook, Event], None]) -> None:
        self._now, self._deliver = now, deliver
        self._lock = threading.RLock()
        self._events = Events()
        self._webhooks: dict[int, Webhook] = {}
        self._ids = count(1)

    def __len__(self) -> int:
        return len(self._events)

    def add_webhook(
        self,
        account_id: int,
        url: str | None,
        form: Format = Format.JSON,
        *,
        duplicates: int = 0,
        ca_file: str | None = None,
    ) -> Webhook:
        """Another webhook of the account; without a URL its events are only there to be fetched."""
        with self._lock:
            webhook = Webhook(next(self._ids), account_id, url, form, duplicates, ca_file)
            self._webhooks[webhook.id] = webhook
            return webhook

    def remove_webhook(self, webhook_id: int) -> None:
        """The webhook is gone; its events can still be fetched."""
        with self._lock:
            self._webhooks.pop(webhook_id, None)

    def remove_account(self, account_id: int) -> None:
        """The account's webhooks are gone."""
        with self._lock:
            self._webhooks = {number: one for number, one in self._webhooks.items() if one.account_id != account_id}

    def webhooks(self) -> list[Webhook]:
        """All webhooks."""
        with self._lock:
            return list(self._webhooks.values())

    def emit(
        self, account_id: int, identifier: str, data: object, *, webhook_id: int | None = None, deliver: bool = True
    ) -> list[Event]:
        """Make an event for one webhook or for each of the account that has a URL, and deliver it.

        It can be fetched before it is delivered. Where no webhook has a URL, those without get the event.
        """
        with self._lock:
            hooks = [one for one in self._webhooks.values() if one.account_id == account_id]
            if webhook_id is None:
                hooks = [one for one in hooks if one.url is not None] or hooks
            else:
                hooks = [one for one in hooks if one.id == webhook_id]
            events = []
            for webhook in hooks:
                event = self._events.add(webhook.id, account_id, identifier, data, self._now())
                events.append(event)
                if deliver:
                    self._deliver(webhook, event)
            return events

    def find(self, webhook_id: int, event_id: int) -> Event | None:
        """The event, unless it is older than 30 days."""
        with self._lock:
            return self._events.find(webhook_id, event_id, self._now())
