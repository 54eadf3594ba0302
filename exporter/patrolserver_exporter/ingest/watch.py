"""What watches one account: its poller and its worker."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from patrolserver_exporter.ingest.poller import AccountPoller
from patrolserver_exporter.ingest.worker import AccountWorker

if TYPE_CHECKING:
    from collections.abc import Sequence

    from patrolserver_exporter.clock import Clock


class Watch(msgspec.Struct, frozen=True):
    """An account's poller and worker."""

    poller: AccountPoller
    worker: AccountWorker

    def begin_stop(self) -> None:
        """Start nothing more; the worker first, because it plans polls."""
        self.worker.begin_stop()
        self.poller.begin_stop()

    def join(self, patience: float) -> None:
        """Wait for the calls under way, at most ``patience`` seconds."""
        self.worker.join(patience)
        self.poller.join(patience)


def stop_all(watches: Sequence[Watch], patience: float, clock: Clock) -> None:
    """End them, and wait at most ``patience`` seconds for their calls."""
    for watch in watches:
        watch.begin_stop()
    end = clock.monotonic() + patience
    for watch in watches:
        watch.join(max(end - clock.monotonic(), 0.0))
