"""How each account stands, for the pages: reachability, freshness, the inbox."""

from __future__ import annotations

import asyncio
import math
from collections import defaultdict
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from patrolserver_exporter.inbox import deliveries
from patrolserver_exporter.inbox.deliveries import WAITING, DeliveryState
from patrolserver_exporter.patrolserver.errors import FailureReason
from patrolserver_exporter.store.fleet import account_records
from patrolserver_exporter.web.overview import Servers, read_states, servers_of
from patrolserver_exporter.web.pages.words import maybe, span
from patrolserver_exporter.web.standing import OLD

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from patrolserver_exporter.clock import Clock
    from patrolserver_exporter.inbox.deliveries import InboxCount
    from patrolserver_exporter.store import Store
    from patrolserver_exporter.store.fleet import AccountRecord
    from patrolserver_exporter.store.views import PollState
    from patrolserver_exporter.sync.exporters import LivingExporter
    from patrolserver_exporter.sync.statuses import AccountStatus
    from patrolserver_exporter.web.pages.words import Moment


_KEPT = 15.0
_SHOWN = 60.0
"""Seconds for which what was read is shown while it is read again."""
_SOON = 0.5
"""Seconds for which a new reading is waited for, where there is an older one."""
_NAMED = 3


@dataclass(frozen=True, slots=True)
class Named:
    """How many servers, and the worst of them by name."""

    count: int = 0
    worst: tuple[tuple[tuple[int, ...], str], ...] = ()
    """At most ``_NAMED``, each behind its sort key: minus its open issues by severity."""

    def __add__(self, other: Named) -> Named:
        if not (self.count and other.count):
            return self if self.count else other
        return Named(self.count + other.count, tuple(sorted((*self.worst, *other.worst))[:_NAMED]))

    @property
    def names(self) -> tuple[str, ...]:
        """The worst ones."""
        return tuple(name for _, name in self.worst)


@dataclass(frozen=True, slots=True)
class Freshness:
    """Servers by what their polls did; one may be both ``failed`` and ``old``."""

    never: int = 0
    """Not polled with success yet."""
    failed: int = 0
    """Polled before, but the last poll failed."""
    old: int = 0
    """The last successful poll is longer ago than `OLD`."""
    oldest_at: float | None = None
    """The least recent successful poll, in seconds since the epoch."""
    partial: Named = Named()
    """The last successful poll was only a part."""
    empty: Named = Named()
    """The last successful poll showed no software at all."""
    unknown_risk: Named = Named()
    """They have exploits whose risk nobody knows."""

    def __add__(self, other: Freshness) -> Freshness:
        oldest = min((at for at in (self.oldest_at, other.oldest_at) if at is not None), default=None)
        return Freshness(
            self.never + other.never,
            self.failed + other.failed,
            self.old + other.old,
            oldest,
            self.partial + other.partial,
            self.empty + other.empty,
            self.unknown_risk + other.unknown_risk,
        )


class _Counted:
    """The servers of one account while they are counted: of a large fleet most are fine, and cost one look each."""

    def __init__(self) -> None:
        self.never = self.failed = self.old = 0
        self.oldest_at: float | None = None
        self.partial = Named()
        self.empty = Named()
        self.unknown_risk = Named()

    def add(self, state: PollState, now: float) -> None:
        """Judge one server."""
        if state.last_poll_at is None:
            self.never += 1
            return
        self.failed += not state.poll_success
        self.old += now - state.last_poll_at > OLD
        if self.oldest_at is None or state.last_poll_at < self.oldest_at:
            self.oldest_at = state.last_poll_at
        if state.poll_complete and not state.empty and not state.exploits_unknown_risk:
            return
        named = Named(1, ((tuple(-count for count in state.open_issues or ()), state.name or str(state.server_id)),))
        if state.empty:
            self.empty += named
        elif not state.poll_complete:
            self.partial += named
        if state.exploits_unknown_risk:
            self.unknown_risk += named

    def freshness(self) -> Freshness:
        """What they are together."""
        return Freshness(self.never, self.failed, self.old, self.oldest_at, self.partial, self.empty, self.unknown_risk)


def by_account(states: Iterable[PollState], now: float) -> dict[str, Freshness]:
    """Judge servers, each for its account."""
    found: dict[str, _Counted] = defaultdict(_Counted)
    for state in states:
        found[state.account].add(state, now)
    return {account: counted.freshness() for account, counted in found.items()}


@dataclass(frozen=True, slots=True)
class FleetStates:
    """Every server's standing, as it was a moment ago."""

    fresh: Mapping[str, Freshness] = field(default_factory=dict)
    """By account."""
    servers: Servers = field(default_factory=lambda: Servers(states={}, doubts={}))


@dataclass(slots=True)
class StatesReader:
    """Reads the standing of all servers, at most every 15 seconds for all clients together, and then forgets it.

    A reading goes on when who waits for it gives up: of a large fleet, on a busy machine, it takes longer than a client
    waits, and the next one takes what it found. While a reading goes on, what is less than a minute old is shown.
    """

    store: Store
    clock: Clock
    _read_at: float | None = None
    _found: FleetStates = field(default_factory=FleetStates)
    _reading: asyncio.Task[FleetStates] | None = None
    _forgetting: asyncio.TimerHandle | None = None

    async def read(self) -> FleetStates:
        """Return it; raises ``StoreError``."""
        age = math.inf if self._read_at is None else self.clock.monotonic() - self._read_at
        if age <= _KEPT:
            return self._found
        if self._reading is None or self._reading.done():
            self._reading = asyncio.create_task(self._read_anew())
            self._reading.add_done_callback(_heard)
        done, _ = await asyncio.wait({self._reading}, timeout=_SOON if age <= _SHOWN else None)
        return done.pop().result() if done else self._found

    def _forget(self) -> None:
        self._read_at, self._found = None, FleetStates()

    async def _read_anew(self) -> FleetStates:
        began, now, read = self.clock.monotonic(), self.clock.now(), self.store.read_async
        accounts, news = await read(lambda connection: (account_records(connection), deliveries.doubts(connection)))
        states = await read_states(read)
        self._found = await asyncio.to_thread(_judged, states, accounts, news, now)
        self._read_at = began
        # A large fleet's states are megabytes, which nobody needs while nobody looks.
        if self._forgetting is not None:
            self._forgetting.cancel()
        self._forgetting = asyncio.get_running_loop().call_later(_SHOWN, self._forget)
        return self._found


def _heard(reading: asyncio.Task[FleetStates]) -> None:
    """Take the error of a reading that nobody waits for any more; the next one tells of it."""
    if not reading.cancelled():
        reading.exception()


def _judged(
    states: Sequence[PollState], accounts: Mapping[str, AccountRecord], news: deliveries.Doubts, now: float
) -> FleetStates:
    return FleetStates(by_account(states, now), servers_of(states, accounts, now, news=news))


_WITHOUT_REPLY = frozenset({FailureReason.CONNECT, FailureReason.DNS, FailureReason.TLS, FailureReason.TIMEOUT})
THIS = "this exporter"
NOT_KNOWN = "not known at the moment"
"""Who polls an account, where this exporter cannot follow its database: what it saw last may be over."""
SILENT_WEBHOOK = 2 * 86_400.0
"""Seconds without a delivery until that is told of where the webhook is on."""
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
    """What the API said, or what happened instead."""
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
    list_partial_because: tuple[str, ...] = ()
    """What says that the last server list was only a part; empty when it was whole."""
    servers_missing: int = 0
    """Servers that the last list lacked, which another one has to confirm."""
    pause: Moment | None = None
    """Until when the API asked the account to wait."""
    pause_reason: str = ""
    proxy: str | None = None
    """What its calls go through, free of credentials."""
    trouble_reason: FailureReason | None = None
    """Why the API cannot be used."""
    trouble_speaker: str = "What happened:"
    """Whose words its trouble is."""
    credentials_from: tuple[str, ...] = ()
    """Where key and secret come from."""
    last_delivery: Moment | None = None
    """When its webhook last brought one."""
    silent_webhook: str = ""
    """For how long it brought none, if that is for days."""
    polled_by: str | None = None
    """Which one polls it: `THIS`, another one, or `NOT_KNOWN`; empty if none does, ``None`` if this one is alone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExporterView:
    """The exporter itself."""

    state: str
    tone: str
    """``good``, ``bad`` or ``unknown``."""
    waiting: int
    """Deliveries, over all accounts."""
    dead: int
    """Deliveries that could not be understood."""


def exporter_view(
    inbox: Iterable[InboxCount], *, ready: bool, writable: bool = True, follows: bool = True
) -> ExporterView:
    """Show the exporter; that its store can be read is proven by the page being there."""
    counts = tuple(inbox)
    state, tone = ("Ready", "good") if ready else ("Starting", "unknown")
    if not follows:
        state, tone = "Cannot follow", "bad"
    if not writable:
        state, tone = "Cannot write", "bad"
    return ExporterView(
        state=state,
        tone=tone,
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
    last_delivery_at: Callable[[str], float | None] = lambda _: None,
    exporters: Sequence[LivingExporter] = (),
    follows: bool = True,
) -> tuple[AccountView, ...]:
    """Show every account, those with trouble first; ``exporters`` work on the store, this one first.

    ``follows``: what is known of the other ones is not old.
    """
    counts = tuple(inbox)
    views = [
        replace(
            _view(status, records.get(status.name), counts, fresh.get(status.name, Freshness()), redact, now),
            last_delivery=maybe(delivered, now),
            silent_webhook=span(now - delivered) if delivered and now - delivered > SILENT_WEBHOOK else "",
            polled_by=_polled_by(status.name, exporters, follows=follows),
        )
        for status in statuses
        for delivered in [last_delivery_at(status.name)]
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
        trouble=None if status.trouble is None else redact(_of_itself(status.trouble, status.name)),
        credentials_refused=status.credentials_refused,
        last_success=maybe(last_success_at, now),
        polled_every=span(status.poll_interval),
        oldest_poll=maybe(fresh.oldest_at, now),
        webhook=status.webhook,
        waiting=sum(count.count for count in waiting),
        waiting_since=maybe(min((count.oldest_at for count in waiting), default=None), now),
        overflowed=maybe(None if record is None else record.catch_up_since, now),
        fresh=fresh,
        list_partial_because=tuple(map(redact, _why_partial(status))),
        servers_missing=status.servers_missing,
        pause=maybe(status.pause_until, now) if (status.pause_until or 0.0) > now else None,
        pause_reason=redact(_of_itself(status.pause_reason or "", status.name)),
        proxy=None if status.proxy is None else redact(status.proxy),
        trouble_reason=status.trouble_reason,
        trouble_speaker="The API says:" if _has_replied(status) else "What happened:",
        credentials_from=status.credentials_from,
    )


def _of_itself(detail: str, account: str) -> str:
    """What is told beside the account's name does not need to begin with it."""
    return detail.removeprefix(f"account {account}: ")


def _has_replied(status: AccountStatus) -> bool:
    """Whether the trouble is a reply; credentials that cannot be read fail before there is one."""
    if status.trouble_reason is FailureReason.CREDENTIALS:
        return ": status " in (status.trouble or "")
    return status.trouble_reason is not None and status.trouble_reason not in _WITHOUT_REPLY


def _polled_by(account: str, exporters: Sequence[LivingExporter], *, follows: bool) -> str | None:
    for one in exporters:
        if account in one.accounts and (one.is_this or follows):
            alone = one.is_this and len(exporters) == 1
            return None if alone else THIS if one.is_this else one.described
    if not exporters:
        return None
    return "" if follows else NOT_KNOWN


def _why_partial(status: AccountStatus) -> tuple[str, ...]:
    if status.list_complete is not False:
        return ()
    return status.list_partial_because or ("it had entries that could not be read",)


def _state(status: AccountStatus, last_success_at: float | None, now: float) -> tuple[str, str]:
    paused = status.pause_until is not None and status.pause_until > now
    states = (
        (status.credentials_refused, ("Credentials refused", "bad")),
        (status.trouble is not None, ("Not reachable", "bad")),
        (paused, ("Paused", "unknown")),
        (last_success_at is None, ("Not asked yet", "unknown")),
        (now - (last_success_at or 0.0) > SILENT, ("Silent", "bad")),
        (status.list_complete is False, ("List incomplete", "unknown")),
    )
    return next((state for holds, state in states if holds), ("Working", "good"))
