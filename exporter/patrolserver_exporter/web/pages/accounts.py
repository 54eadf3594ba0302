"""How each account stands, in words."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from patrolserver_exporter.store.delivery import WAITING, DeliveryState
from patrolserver_exporter.web.pages.ages import maybe, span
from patrolserver_exporter.web.pages.freshness import Freshness

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from patrolserver_exporter.ingest.core import AccountStatus
    from patrolserver_exporter.store.fleet import AccountRecord
    from patrolserver_exporter.store.pages import InboxCount
    from patrolserver_exporter.web.pages.ages import Moment

SILENT = 900.0
"""Seconds without an answer for the server list, which is asked for every minute, until that is called a trouble."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AccountView:
    """One account as a page shows it."""

    name: str
    servers: int
    state: str
    """In a few words."""
    tone: str
    """``good``, ``bad`` or ``unknown``."""
    trouble: str | None
    """What the API said."""
    credentials_refused: bool
    last_success: Moment | None
    polled_every: str
    oldest_poll: Moment | None
    webhook: bool
    waiting: int
    """Deliveries that wait in the inbox."""
    waiting_since: Moment | None
    overflowed: Moment | None
    """Since when deliveries did not fit into the inbox."""
    fresh: Freshness


@dataclass(frozen=True, slots=True, kw_only=True)
class ExporterView:
    """The exporter itself."""

    state: str
    tone: str
    """``good`` or ``unknown``."""
    waiting: int
    """Deliveries, over all accounts."""
    dead: int
    """Deliveries that could not be understood."""


def exporter_view(inbox: Iterable[InboxCount], *, ready: bool) -> ExporterView:
    """Show the exporter; that its store can be read is proven by the page being there."""
    counts = tuple(inbox)
    return ExporterView(
        state="Ready" if ready else "Starting",
        tone="good" if ready else "unknown",
        waiting=sum(count.count for count in counts if count.state in WAITING),
        dead=sum(count.count for count in counts if count.state is DeliveryState.DEAD),
    )


def account_views(  # noqa: PLR0913  # what is known of accounts comes from that many places
    statuses: Iterable[AccountStatus],
    records: Mapping[str, AccountRecord],
    inbox: Iterable[InboxCount],
    fresh: Mapping[str, Freshness],
    *,
    redact: Callable[[str], str],
    now: float,
) -> tuple[AccountView, ...]:
    """Show every account, those with trouble first."""
    counts = tuple(inbox)
    views = [
        _view(status, records.get(status.name), counts, fresh.get(status.name, Freshness()), redact, now)
        for status in statuses
    ]
    return tuple(sorted(views, key=lambda view: (view.tone != "bad", view.tone != "unknown", view.name)))


def _view(  # noqa: PLR0913, PLR0917  # as above
    status: AccountStatus,
    record: AccountRecord | None,
    inbox: tuple[InboxCount, ...],
    fresh: Freshness,
    redact: Callable[[str], str],
    now: float,
) -> AccountView:
    last_success_at = None if record is None else record.last_success_at
    waiting = [count for count in inbox if count.account == status.name and count.state in WAITING]
    state, tone = _state(status, last_success_at, now)
    return AccountView(
        name=status.name,
        servers=status.servers,
        state=state,
        tone=tone,
        trouble=None if status.trouble is None else redact(status.trouble),
        credentials_refused=status.credentials_refused,
        last_success=maybe(last_success_at, now),
        polled_every=span(status.poll_interval),
        oldest_poll=maybe(fresh.oldest_at, now),
        webhook=status.webhook,
        waiting=sum(count.count for count in waiting),
        waiting_since=maybe(min((count.oldest_at for count in waiting), default=None), now),
        overflowed=maybe(None if record is None else record.catch_up_since, now),
        fresh=fresh,
    )


def _state(status: AccountStatus, last_success_at: float | None, now: float) -> tuple[str, str]:
    if status.credentials_refused:
        return "Credentials refused", "bad"
    if status.trouble is not None:
        return "Not reachable", "bad"
    if last_success_at is None:
        return "Not asked yet", "unknown"
    if now - last_success_at > SILENT:
        return "Silent", "bad"
    return "Working", "good"
