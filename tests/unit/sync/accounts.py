"""Configurations for one or two accounts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from patrolserver_exporter.config.schema import Account, Config, Issues, Metrics, Poll, ServerFilter, Webhook
from patrolserver_exporter.config.secret import Secret
from patrolserver_exporter.sync.rules import Rules

if TYPE_CHECKING:
    from tests.harness.ticking import HeldClock

    from patrolserver_exporter.sync.account import RunningAccount

MAIN = "main"
SETTLE = 300.0
INTERVAL = 900.0


def account(name: str = MAIN, **fields: Any) -> Account:
    """An account with literal credentials."""
    known: dict[str, Any] = {"key": Secret.literal("demo"), "secret": Secret.literal("demo")}
    return Account(name=name, **(known | fields))


def configured(
    *accounts: Account,
    servers: ServerFilter | None = None,
    poll: Poll | None = None,
    webhook: Webhook | None = None,
    issues: Issues | None = None,
    metrics: Metrics | None = None,
) -> Config:
    """A configuration; of one account named main, unless others are given."""
    return Config(
        accounts=accounts or (account(servers=servers or ServerFilter()),),
        poll=poll or Poll(),
        webhook=webhook or Webhook(),
        issues=issues or Issues(settle=SETTLE),
        metrics=metrics or Metrics(),
    )


def take_planned(account: RunningAccount, clock: HeldClock) -> dict[int, float]:
    """Seconds to each server's next job, soonest first; they are taken out of the account's schedule."""
    schedule = account._schedule  # noqa: SLF001  # Nobody else has to see it.
    waits = {}
    while (at := schedule.next_at()) is not None:
        task = schedule.pop_due(at)
        assert task is not None
        waits[task.server_id] = at - clock.monotonic()
    return waits


def rules(**settings: Any) -> Rules:
    """The rules of the account main."""
    config = configured(**settings)
    return Rules.of(config, config.accounts[0])
