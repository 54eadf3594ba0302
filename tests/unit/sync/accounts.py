"""Configurations for one or two accounts."""

from __future__ import annotations

from typing import Any

from patrolserver_exporter.config.schema import Account, Config, Issues, Metrics, Poll, ServerFilter, Webhook
from patrolserver_exporter.config.secret import Secret
from patrolserver_exporter.sync.rules import Rules

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


def rules(**settings: Any) -> Rules:
    """The rules of the account main."""
    config = configured(**settings)
    return Rules.of(config, config.accounts[0])
