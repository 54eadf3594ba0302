"""What the API and the pages may use of the service."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    import sqlalchemy as sa

    from patrolserver_exporter.clock import Clock
    from patrolserver_exporter.config.schema import Config
    from patrolserver_exporter.logs import Redactor
    from patrolserver_exporter.store import Store
    from patrolserver_exporter.sync.exporters import LivingExporter
    from patrolserver_exporter.sync.statuses import AccountStatus
    from patrolserver_exporter.web.access import BearerTokens
    from patrolserver_exporter.web.webhook import Refusal


class Accounts(Protocol):
    """The part of ``sync.accounts.Accounts`` that the web layer asks."""

    @property
    def ready(self) -> bool:
        """An account answered once, or an earlier run's state was restored; and what is shown follows the store."""
        ...

    @property
    def follows(self) -> bool:
        """What is shown follows the store; not while only this exporter cannot follow it, as far as it can know."""
        ...

    @property
    def clock_doubt(self) -> float:
        """Seconds by which stored times may be ahead of the clock, since not all have followed it back yet."""
        ...

    def begin_refreshes(self) -> None:
        """Have servers polled whose refresh was asked for just now; not waited for."""
        ...

    def statuses(self) -> tuple[AccountStatus, ...]:
        """How each account stands."""
        ...


async def _none() -> Sequence[str]:
    return ()


@dataclass(frozen=True, slots=True, kw_only=True)
class WebContext:
    """Everything that a route may need."""

    store: Store
    accounts: Accounts
    tokens: BearerTokens
    clock: Clock
    database_time: Callable[[sa.Connection], float] | None = None
    """What the database's clock says; ``None`` where that is this process' own."""
    config: Callable[[], Config]
    """The configuration in force."""
    reload_failure: Callable[[], str | None] = lambda: None
    """Why the configuration could not be read again the last time; ``None`` when it could."""
    troubles: Callable[[], Awaitable[Sequence[str]]] = _none
    """What is wrong, in sentences for everybody."""
    differing: Callable[[], Sequence[str]] = tuple
    """Other exporters on the same database that have another configuration, as people know them."""
    exporters: Callable[[], Sequence[LivingExporter]] = tuple
    """Those that work on the store, this one first."""
    last_refusal: Callable[[], Refusal | None] = lambda: None
    """The last delivery that was not taken in."""
    last_delivery_at: Callable[[str], float | None] = lambda _: None
    """When an account's last delivery was taken in, in seconds since the epoch."""
    redactor: Redactor
    on_feed: Callable[[Callable[[], None]], None]
    """Registers what is called, on the store's thread, when the change feed grew."""
    on_inbox: Callable[[Callable[[], None]], None]
    """Registers what is called, on the store's thread, when deliveries came or moved."""
    external_url: str = ""
    """The URL at which people reach the service, without a slash at the end; empty if it is not configured."""
    route_prefix: str = ""
    """In front of every path, without a slash at the end."""
    telemetry_path: str = "/metrics"
    webhook_here: bool = True
    """Webhooks come in on the main listener; otherwise on one of their own, whose address nobody here knows."""

    def now(self) -> float:
        """The time, in seconds since the epoch; later where stored times have not followed the clock back yet."""
        return self.clock.now() + self.accounts.clock_doubt

    def time_in(self, connection: sa.Connection, at_least: float) -> float:
        """The time at which something is read, in seconds since the epoch, by the clock that dated what is read.

        ``at_least`` is what `now` was before: what is read may be of before all followed a clock that was set back.
        """
        now = self.now()
        if self.database_time is not None:
            now = max(now, self.database_time(connection) + self.accounts.clock_doubt)
        return max(now, at_least)
