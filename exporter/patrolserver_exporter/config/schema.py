"""The configuration: every key with its type, default and description, typed and frozen. Durations are seconds.

`reading` reads these types. The text below a key is its description in `docs/configuration.md`, as a test checks.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from msgspec import Meta

from patrolserver_exporter import globs
from patrolserver_exporter.config import values
from patrolserver_exporter.config.problem import Unfit
from patrolserver_exporter.config.reading import Value
from patrolserver_exporter.config.secret import Secret
from patrolserver_exporter.gate.policy import BUILTIN, DAY, Count, Duration, Inline, NamedPolicy, Risk
from patrolserver_exporter.issues.model import Glob, Waiver

Network = values.Network


def _seconds(least: float, most: float | None = None) -> Meta:
    return Meta(ge=least, le=most, extra={"kind": "duration"})


def _policy_name(name: str) -> str:
    if values.name(name) == BUILTIN:
        raise Unfit("is the name of the built-in policy; choose another")
    return name


Credential = Annotated[Secret, Value("secret", values.text).meta]
ApiUrl = Annotated[str, Value("URL", values.api_url, may_show=False).meta]
Token = Annotated[Secret, Value("secret", values.token).meta]
_Name = Annotated[str, Value("name", values.name).meta]
_PolicyName = Annotated[str, Value("name", _policy_name).meta]
_LabelName = Annotated[str, Value("name", values.label_name).meta]
_LabelValue = Annotated[str, Value("text", values.text).meta]
if TYPE_CHECKING:
    _Networks = tuple[Network, ...]
else:
    # msgspec takes no union of two classes.
    _Networks = tuple[Annotated[Any, Value("network", values.network).meta], ...]
_Whole = Annotated[int, Meta(ge=1)]


class Scope(StrEnum):
    """What an API token may do."""

    READ = "read"
    REFRESH = "refresh"
    INBOX = "inbox"
    RELOAD = "reload"


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerFilter:
    """Which servers of the account are watched."""

    include: Annotated[tuple[Glob, ...], Meta(min_length=1)] = ("*",)
    """Servers whose name matches one of these are watched."""
    exclude: tuple[Glob, ...] = ()
    """Except those whose name matches one of these."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """One PatrolServer account."""

    name: _Name = "default"
    """The label `account`; unique, at most 64 characters, no slash."""
    api_url: ApiUrl = "https://api.patrolserver.com"
    """Base URL of the API."""
    key: Credential
    """The API key."""
    secret: Credential
    """The API secret."""
    webhook_tokens: tuple[Token, ...] = ()
    """The webhook's URL is `/webhook/<token>`; the token tells the account. Several while one is replaced by another;
    none turns the webhook off for this account. Letters, digits and `-._~`, best 16 or more."""
    servers: ServerFilter = field(default_factory=ServerFilter)
    labels: Mapping[Glob, Mapping[_LabelName, _LabelValue]] = field(default_factory=dict)
    """Globs on the server's name, each with labels for the servers that match, such as `team: web`; of several that
    match, later ones win. They show on `patrolserver_server_info`, in the API, on the pages and in the inventory."""
    # A secret, because it may hold a password.
    proxy_url: Annotated[Secret, Value("URL (secret)", values.proxy_url).meta] | None = None
    """HTTP proxy to reach the API, with user and password if it needs them. Null: that of the environment, if any."""
    ca_file: Path | None = None
    """Certificate authorities (PEM) to trust instead of the usual ones."""

    def labels_of(self, server_name: str) -> dict[str, str]:
        """The labels of a server of that name, by the labels' names in order."""
        return labels_of(self.labels, server_name)


def labels_of(rules: Mapping[str, Mapping[str, str]], server_name: str) -> dict[str, str]:
    """What an account's ``labels`` say of a server of that name, by the labels' names in order."""
    found: dict[str, str] = {}
    for glob, labels in rules.items():
        if globs.matches(glob, server_name):
            found |= labels
    return dict(sorted(found.items()))


@dataclass(frozen=True, slots=True, kw_only=True)
class Poll:
    """How the API is polled."""

    interval: Annotated[float, _seconds(1)] = 900.0
    """How often each server's software is read, spread evenly; at least 1s."""
    concurrency: Annotated[int, Meta(ge=1, le=256)] = 8
    """Calls under way at once, 1 to 256."""
    timeout: Annotated[float, _seconds(0.1, 300)] = 10.0
    """Time limit of one call, 100ms to 5m; of a server list the time without progress."""
    max_requests_per_minute: _Whole = 600
    """Budget of one account, over all replicas. When the fleet needs more, the interval stretches."""
    max_pause: Annotated[float, _seconds(1)] = 3_600.0
    """What a `Retry-After` of the API may cost at most; at least 1s."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Webhook:
    """How deliveries are taken."""

    allowed_networks: _Networks = ()
    """Who may deliver, as networks or addresses; others get 403. Empty: all."""
    max_event_requests_per_minute: _Whole = 60
    """Budget of the calls that fetch events, or a twentieth of the fleet's servers, if that is more."""
    inbox_limit: _Whole = 10_000
    """Deliveries kept waiting; beyond it a catch-up poll takes their place."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Issues:
    """What counts as an issue."""

    exploit_risk: Risk = 5.0
    """Exploits at or above this risk count, 0 to 10."""
    settle: Duration = 300.0
    """An issue that only an event reported is not closed by a poll that started sooner than this after it."""
    waivers: tuple[Waiver, ...] = ()
    """Issues that are accepted, each up to a date: counted as waived and not as open."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Gate:
    """What deploys are judged by."""

    default_policy: _Name | None = None
    """The policy of a request that names none. Null: the built-in one, or with policies such a request is refused."""
    inline: Inline | None = None
    """What a request may ask for itself: any; tighten, where the stricter of the request and the policy holds, and what
    would loosen is refused unless the policy allows it; or none. Null: any without policies, else tighten."""
    policies: Mapping[_PolicyName, NamedPolicy] = field(default_factory=dict)
    """The policies, each under the name that a request gives. `builtin` is a reserved name."""

    @property
    def inline_in_force(self) -> Inline:
        """What a request may ask for itself, where the configuration need not say it."""
        return self.inline or (Inline.TIGHTEN if self.policies else Inline.ANY)


@dataclass(frozen=True, slots=True, kw_only=True)
class Metrics:
    """Bounds on the series."""

    software: bool = True
    """One series for each outdated, unsupported or exploitable software."""
    exploits: bool = True
    """One series for each known exploit at or above `issues.exploit_risk`, within the same limits."""
    software_limit_per_server: Count = 200
    """At most so many series of software for one server, and as many of exploits."""
    software_limit_total: Count = 200_000
    """At most so many series of software in all, and as many of exploits."""
    max_label_length: Annotated[int, Meta(ge=16, le=4096)] = 128
    """Longer label values are cut and end in a hash; at least 16."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Store:
    """Where the state lives."""

    # It may hold a password: never to be printed; `patrolserver_exporter.store` redacts it.
    url: Annotated[str, Value("URL", values.store_url, may_show=False).meta] = field(
        default="sqlite:///patrolserver.db", repr=False
    )
    """`sqlite:///FILE` (from the working directory), `sqlite:////PATH/FILE`, in a folder that exists, or
    `postgresql+psycopg://USER:PASSWORD@HOST/DATABASE`. Needs a restart."""
    replica_name: _Name | None = None
    """By which people know this process, in messages of others on the same database; beside its host and process
    id. Needs a restart."""
    retention: Annotated[float, _seconds(DAY)] = 90 * DAY
    """How long applied deliveries, fixed issues and changes are kept; at least 1d."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiToken:
    """A bearer token of the JSON API."""

    name: _Name
    """Who uses it, for the logs; unique."""
    token: Token
    """The bearer token. Letters, digits and `-._~`, best 16 or more."""
    scopes: Annotated[frozenset[Scope], Meta(min_length=1)] = frozenset({Scope.READ})
    """What it may do: read, refresh, inbox, reload."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Api:
    """Access to the JSON API."""

    tokens: tuple[ApiToken, ...] = ()
    """Bearer tokens of the JSON API."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Web:
    """What stands in front of the listeners."""

    trusted_proxies: _Networks = ()
    """Proxies whose `X-Forwarded-For` is believed, as networks or addresses."""
    metrics_need_token: bool = False
    """Whether `/metrics`, too, needs a token with the scope `read`. Users of basic auth close it in any case."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """The whole configuration."""

    accounts: Annotated[tuple[Account, ...], Meta(min_length=1)] = ()
    """The PatrolServer accounts. Without this key, the one account comes from the environment."""
    poll: Poll = field(default_factory=Poll)
    webhook: Webhook = field(default_factory=Webhook)
    issues: Issues = field(default_factory=Issues)
    gate: Gate = field(default_factory=Gate)
    metrics: Metrics = field(default_factory=Metrics)
    store: Store = field(default_factory=Store)
    api: Api = field(default_factory=Api)
    web: Web = field(default_factory=Web)
