"""What makes an account's calls, while this process polls it; and what is said when it begins to."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import msgspec

from patrolserver_exporter.logs import log_fields
from patrolserver_exporter.sync.poller import AccountPoller
from patrolserver_exporter.sync.worker import AccountWorker

if TYPE_CHECKING:
    from collections.abc import Sequence

    from patrolserver_exporter.clock import SteadyClock
    from patrolserver_exporter.config.schema import Account
    from patrolserver_exporter.sync.account import RunningAccount

log = logging.getLogger(__name__)


class PollerAndWorker(msgspec.Struct, frozen=True):
    """The two that make an account's calls."""

    poller: AccountPoller
    worker: AccountWorker

    @property
    def account(self) -> RunningAccount:
        """The account whose calls they make."""
        return self.poller.account

    def begin_stop(self) -> None:
        """Start nothing more, and keep nothing of what is under way."""
        self.poller.begin_stop()
        self.worker.begin_stop()

    def join(self, patience: float) -> None:
        """Wait for the calls under way, at most ``patience`` seconds."""
        self.poller.threads.join(patience)


def stop_all(pairs: Sequence[PollerAndWorker], patience: float, clock: SteadyClock) -> None:
    """End them, and wait at most ``patience`` seconds for their calls."""
    for pair in pairs:
        pair.begin_stop()
    end = clock.monotonic() + patience
    for pair in pairs:
        pair.join(max(end - clock.monotonic(), 0.0))


def webhook_hint(account: Account) -> None:
    """Say how to turn the webhook on, where it is off."""
    if not account.webhook_tokens:
        log.info(
            # Anything right behind /webhook/ would be masked, as a token is.
            "The webhook is off for this account, so news comes with the polls; to turn it on, put a random token "
            "(openssl rand -hex 24) into webhook_tokens or PATROLSERVER_WEBHOOK_TOKEN_FILE, and enter "
            "https://THIS-HOST/webhook/ with the token behind it at PatrolServer",
            extra=log_fields(account=account.name),
        )
