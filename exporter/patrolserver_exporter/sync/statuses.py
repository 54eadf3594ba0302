"""How accounts stand, for people and for scrapes: those that this process polls, and those of other exporters."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import msgspec

from patrolserver_exporter.config.proxy import shown
from patrolserver_exporter.gate.evidence import AccountHealth
from patrolserver_exporter.patrolserver.errors import FailureReason
from patrolserver_exporter.store.fleet import AccountRecord, Reading
from patrolserver_exporter.sync.account import ApiStanding, poll_interval
from patrolserver_exporter.sync.health import Trouble

if TYPE_CHECKING:
    from patrolserver_exporter.config.schema import Account, Config
    from patrolserver_exporter.sync.account import RunningAccount


class AccountStatus(msgspec.Struct, frozen=True, kw_only=True):
    """How an account stands, for people and for ``/-/ready``."""

    name: str
    servers: int
    poll_interval: float
    """Seconds, as in force."""
    trouble: str | None
    """What is wrong with its API, free of credentials; ``None`` when nothing is."""
    credentials_refused: bool
    list_was_tried: bool = True
    """A list call has ended since the start; before that, nobody knows whether the credentials still hold."""
    webhook: bool
    """It has a token, so deliveries can reach it."""
    list_complete: bool | None = None
    """The last successful server list was whole; ``None`` before the first."""
    list_partial_because: tuple[str, ...] = ()
    """What says that it was not, in words."""
    servers_missing: int = 0
    """Servers that the last list lacked, which another one has to confirm before they are gone."""
    pause_until: float | None = None
    """The API asked the account to wait until then, in seconds since the epoch; ``None`` without a pause."""
    pause_reason: str | None = None
    """What it said, free of credentials."""
    proxy: str | None = None
    """The proxy that its calls go through and where it is named, free of credentials; ``None`` without one."""
    trouble_reason: FailureReason | None = None
    """Why its last list call failed; ``None`` when it did not."""
    credentials_from: tuple[str, ...] = ()
    """Where key and secret come from: ``configuration``, ``variable`` or ``file``."""
    clock_offset: float | None = None
    """Seconds that our clock is ahead of the API's, by its last reply that told the time."""
    reading: Reading | None = None
    """How this exporter's configuration has its list read, whoever polls it."""

    @property
    def health(self) -> AccountHealth:
        """What the gate has to know of it."""
        return AccountHealth(
            name=self.name,
            credentials_refused=self.credentials_refused,
            list_was_tried=self.list_was_tried,
            reading=self.reading,
        )


class Glimpse(NamedTuple):
    """What each scrape asks of an account; `AccountStatus` takes much longer to make."""

    name: str
    webhook: bool
    """It has a token, so deliveries can reach it."""
    pause_until: float | None
    """As in `AccountStatus`."""
    clock_offset: float | None
    """As in `AccountStatus`."""


def glimpse_of(account: RunningAccount) -> Glimpse:
    """What a scrape asks of an account that this process polls."""
    pause = account.pause
    return Glimpse(account.name, bool(account.settings.webhook_tokens), pause and pause.until, account.clock_offset)


def status_of(account: RunningAccount) -> AccountStatus:
    """How an account stands that this process polls."""
    standing, listing, pause = account.standing, account.list_standing, account.pause
    return AccountStatus(
        name=account.name,
        servers=len(account.server_ids),
        poll_interval=account.interval,
        trouble=None if standing.trouble is Trouble.NONE else standing.detail,
        credentials_refused=standing.trouble is Trouble.CREDENTIALS,
        list_was_tried=standing.list_was_tried,
        webhook=bool(account.settings.webhook_tokens),
        list_complete=listing.complete,
        list_partial_because=listing.partial_because,
        servers_missing=listing.missing,
        pause_until=pause and pause.until,
        pause_reason=pause and pause.reason,
        proxy=account.settings.proxy_url and shown(account.settings.proxy_url),
        trouble_reason=None if standing.trouble is Trouble.NONE else standing.reason,
        credentials_from=tuple(dict.fromkeys(one.source for one in (account.settings.key, account.settings.secret))),
        clock_offset=account.clock_offset,
        reading=account.rules.reading,
    )


def status_of_others(
    config: Config, settings: Account, record: AccountRecord | None, servers: int, reading: Reading | None
) -> AccountStatus:
    """How an account stands that another exporter polls; ``reading`` is how this one would have its list read."""
    record = record or AccountRecord(name=settings.name)
    state = record.state
    return AccountStatus(
        name=settings.name,
        servers=servers,
        poll_interval=poll_interval(config, servers),
        trouble=state.trouble_detail,
        credentials_refused=state.trouble == Trouble.CREDENTIALS,
        list_was_tried=state.trouble is not None,
        webhook=bool(settings.webhook_tokens),
        list_complete=state.list_complete,
        list_partial_because=state.list_partial_because,
        servers_missing=state.list_missing,
        pause_until=state.paused_until,
        pause_reason=state.pause_reason,
        proxy=settings.proxy_url and shown(settings.proxy_url),
        trouble_reason=None if state.trouble_reason is None else FailureReason(state.trouble_reason),
        credentials_from=tuple(dict.fromkeys(one.source for one in (settings.key, settings.secret))),
        reading=reading,
    )


def standing_of(record: AccountRecord) -> ApiStanding:
    """How an account stood with its API, as the exporter has stored it that polled it."""
    state = record.state
    reason = None if state.trouble_reason is None else FailureReason(state.trouble_reason)
    return ApiStanding(
        Trouble(state.trouble or Trouble.NONE),
        state.trouble_detail,
        list_was_tried=False,
        reason=reason,
        list_failures=state.list_failures,
        list_at=state.list_at,
    )
