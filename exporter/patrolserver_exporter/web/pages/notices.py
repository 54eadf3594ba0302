"""What is wrong with the watching itself, in words, and what to do about it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from patrolserver_exporter.inbox.delivery import DeliveryState
from patrolserver_exporter.web.pages.accounts import Freshness
from patrolserver_exporter.web.pages.words import counted, moment

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from patrolserver_exporter.inbox.view import InboxCount
    from patrolserver_exporter.web.pages.accounts import AccountView

LATE = 900.0
"""Seconds after which a delivery that still waits is worth a word."""


@dataclass(frozen=True, slots=True)
class Notice:
    """One thing to know. ``bad`` ones make the numbers on the page doubtful; others are only for information."""

    what: str
    todo: str
    detail: str = ""
    """What the API or the configuration's reader said, where it said something."""
    bad: bool = True
    speaker: str = "The API says:"
    """Who said the detail."""


def notices(
    accounts: Sequence[AccountView], inbox: Sequence[InboxCount], *, now: float, reload_failure: str | None = None
) -> tuple[Notice, ...]:
    """Collect what is wrong, the worst first."""
    found = (
        *_of_accounts(accounts),
        *_of_freshness(accounts),
        *_of_configuration(reload_failure),
        *_of_inbox(accounts, inbox, now),
    )
    return tuple(sorted(found, key=lambda notice: not notice.bad))


def _of_accounts(accounts: Iterable[AccountView]) -> Iterator[Notice]:
    for account in accounts:
        since = f"Its last good answer was {account.last_success.words}." if account.last_success else ""
        if account.credentials_refused:
            yield Notice(
                f"PatrolServer refuses the credentials of account {account.name}. {since}",
                "Check its key and secret in the configuration. Files and variables are read again by themselves; "
                "calls begin again within two minutes after the API takes them.",
                account.trouble or "",
            )
        elif account.trouble is not None:
            yield Notice(
                f"PatrolServer cannot be reached for account {account.name}. {since}",
                "Its numbers stay as they were until it answers; it is asked again at least every five minutes. "
                "Check the network of this machine, proxy_url and api_url.",
                account.trouble,
            )
        elif account.tone == "bad":
            yield Notice(
                f"PatrolServer has not answered for account {account.name}. {since}",
                "Look into the exporter's log, and restart it if it shows no calls.",
            )


def _of_configuration(reload_failure: str | None) -> Iterator[Notice]:
    if reload_failure is not None:
        yield Notice(
            "The configuration was changed but could not be reloaded; the old one goes on.",
            "Correct it and reload once more, with SIGHUP or POST /-/reload.",
            reload_failure,
            bad=False,
            speaker="It says:",
        )


def _of_freshness(accounts: Iterable[AccountView]) -> Iterator[Notice]:
    total = sum((account.fresh for account in accounts), Freshness())
    if total.old:
        yield Notice(
            f"The data of {counted(total.old, 'server')} is older than 24 hours.",
            "Nothing newer is known of them, so the gate answers unknown. The table marks them; "
            "their pages tell when the last poll succeeded.",
        )
    if total.failed:
        yield Notice(
            f"The last poll of {counted(total.failed, 'server')} failed.",
            "They are polled again by themselves. If it lasts, look for their names in the exporter's log.",
        )
    if total.never:
        yield Notice(
            f"{counted(total.never, 'server waits', 'servers wait')} for the first poll.",
            "That takes one poll interval after the start, or after a server is added.",
            bad=False,
        )


def _of_inbox(accounts: Iterable[AccountView], inbox: Iterable[InboxCount], now: float) -> Iterator[Notice]:
    for account in accounts:
        if account.overflowed is not None:
            yield Notice(
                f"The inbox of account {account.name} overflowed {account.overflowed.words}.",
                "No issue is lost: a poll of every server makes up for it. Titles and scan times may be missing. "
                "If it happens often, raise webhook.inbox_limit.",
            )
    for count in inbox:
        if count.state is DeliveryState.DEAD:
            yield Notice(
                f"{counted(count.count, 'delivery', 'deliveries')} of account {count.account} could not be understood.",
                "See them with: patrolserver-exporter inbox list --state=dead. Replay or drop them there.",
                bad=False,
            )
        elif now - count.oldest_at > LATE:
            yield Notice(
                f"{counted(count.count, 'delivery waits', 'deliveries wait')} for account {count.account}, "
                f"the oldest since {moment(count.oldest_at, now).shown}.",
                "They are tried again by themselves. See why with: patrolserver-exporter inbox list.",
            )
