"""Whether store, poller and workers make progress: systemd restarts a service that does not say so."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING

from patrolserver_exporter.logs import log_fields

if TYPE_CHECKING:
    from patrolserver_exporter.store import Store
    from patrolserver_exporter.sync.accounts import Accounts

log = logging.getLogger(__name__)


class Watchdog:
    """Looks when each part last did something. ``hangs_after`` is in seconds."""

    def __init__(self, store: Store, accounts: Accounts, hangs_after: float) -> None:
        self._store = store
        self._accounts = accounts
        self._hangs_after = hangs_after

    def sees_progress(self) -> bool:
        """Whether all parts make progress; those that do not are logged."""
        # Gives the store something to do, should nothing else.
        self._store.prove()
        hanging = self._hanging()
        if hanging:
            log.error("A part of the service makes no progress", extra=log_fields(parts=", ".join(hanging)))
        return not hanging

    def nothing_hangs(self) -> bool:
        """The same without a word; for any thread."""
        return not self._hanging()

    def _hanging(self) -> list[str]:
        now = time.monotonic()
        last = {
            "store": self._store.last_progress,
            "poller": self._accounts.last_tick,
            "worker": self._accounts.last_worker_progress,
        }
        return [part for part, at in last.items() if now - at > self._hangs_after]
