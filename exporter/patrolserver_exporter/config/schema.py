"""The configuration, typed and frozen. Durations are seconds; the defaults are those of the interface page."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from ipaddress import IPv4Network, IPv6Network
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from patrolserver_exporter.config.secret import Secret
    from patrolserver_exporter.issues.model import Waiver

DAY = 86_400.0
Network = IPv4Network | IPv6Network


class Scope(StrEnum):
    """What an API token may do."""

    READ = "read"
    REFRESH = "refresh"
    INBOX = "inbox"
    RELOAD = "reload"


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerFilter:
    """Globs on a server's name: watched is what one of ``include`` matches and none of ``exclude``."""

    include: tuple[str, ...] = ("*",)
    exclude: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """One PatrolServer account."""

    name: str = "default"
    api_url: str = "https://api.patrolserver.com"
    key: Secret
    secret: Secret
    webhook_tokens: tuple[Secret, ...] = ()
    servers: ServerFilter = field(default_factory=ServerFilter)
    proxy_url: Secret | None = None
    """A secret, because it may hold a password."""
    ca_file: Path | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Poll:
    """How the API is polled."""

    interval: float = 900.0
    concurrency: int = 8
    timeout: float = 10.0
    max_requests_per_minute: int = 600


@dataclass(frozen=True, slots=True, kw_only=True)
class Webhook:
    """How deliveries are taken."""

    allowed_networks: tuple[Network, ...] = ()
    max_event_requests_per_minute: int = 60
    inbox_limit: int = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Issues:
    """What counts as an issue."""

    exploit_risk: float = 5.0
    settle: float = 300.0
    waivers: tuple[Waiver, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Metrics:
    """Bounds on the series."""

    software: bool = True
    software_limit_per_server: int = 200
    software_limit_total: int = 200_000
    max_label_length: int = 128


@dataclass(frozen=True, slots=True, kw_only=True)
class Store:
    """Where the state lives."""

    url: str = field(default="sqlite:///patrolserver.db", repr=False)
    """May hold a password: never to be printed; ``patrolserver_exporter.store`` redacts it."""
    retention: float = 90 * DAY


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiToken:
    """A bearer token of the JSON API."""

    name: str
    token: Secret
    scopes: frozenset[Scope] = frozenset({Scope.READ})


@dataclass(frozen=True, slots=True, kw_only=True)
class Api:
    """Access to the JSON API."""

    tokens: tuple[ApiToken, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Web:
    """What stands in front of the listeners."""

    trusted_proxies: tuple[Network, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """The whole configuration."""

    accounts: tuple[Account, ...]
    poll: Poll = field(default_factory=Poll)
    webhook: Webhook = field(default_factory=Webhook)
    issues: Issues = field(default_factory=Issues)
    metrics: Metrics = field(default_factory=Metrics)
    store: Store = field(default_factory=Store)
    api: Api = field(default_factory=Api)
    web: Web = field(default_factory=Web)
