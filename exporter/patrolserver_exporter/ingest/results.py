"""What an account's calls bring: kept in the store, unless it comes too late, and told to those who wait for it."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, TypeVar

from patrolserver_exporter.logs import log_fields

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from patrolserver_exporter.exposition.telemetry import Telemetry
    from patrolserver_exporter.ingest.account import Listener, WatchedAccount
    from patrolserver_exporter.store import Store, Unit

log = logging.getLogger(__name__)
T = TypeVar("T")


class StoppedError(Exception):
    """The account is watched anew, or no longer: what a call still brought is not kept."""


class Results:
    """Keeps the results of one account's calls."""

    def __init__(self, watched: WatchedAccount, store: Store, telemetry: Telemetry) -> None:
        self._watched = watched
        self._store = store
        self._telemetry = telemetry
        self._noted: dict[str, int] = {}
        """What was odd about a reply when it was last read, as a hash: said once and not at every poll."""

    def keep(self, work: Callable[[Unit], T]) -> T:
        """Have the store do a unit of work; `StoppedError` if the account is watched anew, or no longer, by then."""

        def unless_stopped(unit: Unit) -> T:
            if self._watched.stopping:
                raise StoppedError
            return work(unit)

        return self._store.run(unless_stopped)

    def note(self, oddities: Sequence[str], about: str) -> None:
        """Count what was odd about a reply, and say it if it is news."""
        if not oddities:
            self._noted.pop(about, None)
            return
        self._telemetry.wire_oddity(self._watched.name, len(oddities))
        said = hash(tuple(oddities))
        level = logging.DEBUG if self._noted.get(about) == said else logging.WARNING
        self._noted[about] = said
        fields = log_fields(account=self._watched.name, about=about, odd="; ".join(oddities[:5]))
        log.log(level, "The API's reply was odd", extra=fields)

    def tell(self, waiting: Sequence[Listener], outcome: str | None) -> None:
        """Tell those who wait how a poll ended: the error, or ``None``."""
        for done in waiting:
            try:
                done(outcome)
            except Exception:
                self._telemetry.error("poller")
                log.exception("Nobody could be told how a poll ended")


def unknown(account: str, server_id: int) -> str:
    """Why a server is not polled."""
    return f"Server {server_id} is no longer in account {account}."


def stopped(account: str) -> str:
    """Why nothing of an account is polled."""
    return f"The account {account} is no longer watched as it was; ask again."
