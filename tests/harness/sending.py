"""Senders of deliveries that a test counts."""

from __future__ import annotations

import random
import socket
import threading
import time
from typing import TYPE_CHECKING, Protocol

import requests
from tests.harness.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Callable

_SENDERS = 4


class Target(Protocol):
    """Where deliveries go."""

    @property
    def url(self) -> str:
        """Of the listener."""

    def deliver(self, event_id: int) -> requests.Response:
        """Post a delivery as PatrolServer does."""


class Sender:
    """Delivers events at a steady pace, a tenth of them twice, and sends nothing again that failed.

    ``on_acknowledged`` hears of each 202 as soon as it is there, in some thread: the event, and when it was sent
    (monotonic seconds).
    """

    def __init__(
        self,
        target: Target,
        event_ids: list[int],
        *,
        pace: float,
        on_acknowledged: Callable[[int, float], None] = lambda _event, _at: None,
    ) -> None:
        repeated = random.Random(1).sample(event_ids, len(event_ids) // 9)
        self._left = event_ids + repeated
        random.Random(2).shuffle(self._left)
        self.sent = len(self._left)
        self.acknowledged: list[int] = []
        self._target = target
        self._on_acknowledged = on_acknowledged
        self._gap = _SENDERS / pace
        self._threads = [threading.Thread(target=self._run) for _ in range(_SENDERS)]

    def start(self) -> None:
        """Begin to send."""
        for thread in self._threads:
            thread.start()

    @property
    def busy(self) -> bool:
        """Whether something is left to send."""
        return any(thread.is_alive() for thread in self._threads)

    def join(self) -> None:
        """Wait until all was sent."""
        for thread in self._threads:
            thread.join()

    def deliver_some(self, count: float) -> None:
        """Wait until about so many more were sent, or all."""
        left = len(self._left) - count
        while self.busy and len(self._left) > left:
            time.sleep(0.005)  # The moment is the point.

    def _listens(self) -> bool:
        host, port = self._target.url.removeprefix("http://").split(":")
        socket.create_connection((host, int(port)), timeout=1).close()
        return True

    def _run(self) -> None:
        while self._left:
            try:
                event_id = self._left.pop()
            except IndexError:
                return
            began = time.monotonic()
            try:
                if self._target.deliver(event_id).status_code == 202:
                    self.acknowledged.append(event_id)
                    self._on_acknowledged(event_id, began)
            except requests.RequestException:
                # What fails is lost. The rest waits, or all would be over while a slow machine starts it.
                eventually(self._listens, within=60, what="the next start")
            time.sleep(max(self._gap - (time.monotonic() - began), 0.0))
