"""Every key of the configuration: its shape and what it is for. The defaults are those of `schema`."""

from __future__ import annotations

from patrolserver_exporter.config import values
from patrolserver_exporter.config.duration import format_duration
from patrolserver_exporter.config.schema import (
    DAY,
    Account,
    Api,
    ApiToken,
    Config,
    Issues,
    Metrics,
    Poll,
    Scope,
    ServerFilter,
    Store,
    Web,
    Webhook,
)
from patrolserver_exporter.config.shape import FilePath, Key, ListOf, SecretValue, Section, Value
from patrolserver_exporter.issues.model import Kind, Waiver


def _nullable(value: object) -> str:
    return "null" if value is None else str(value)


def _duration(least: float, most: float | None = None) -> Value:
    return Value("duration", values.duration(least, most), format_duration)


def _whole(least: int, most: int = 1_000_000_000) -> Value:
    return Value("whole number", values.whole(least, most))


_GLOB = Value("glob", values.text, lambda glob: f'"{glob}"')
_NETWORK = Value("network", values.network)

SERVERS = Section(
    ServerFilter,
    (
        Key("include", ListOf(_GLOB, may_be_empty=False), "Servers whose name matches one of these are watched."),
        Key("exclude", ListOf(_GLOB), "Except those whose name matches one of these."),
    ),
)

ACCOUNT = Section(
    Account,
    (
        Key("name", Value("name", values.name), "The label `account`; unique, at most 64 characters, no slash."),
        Key("api_url", Value("URL", values.api_url, may_show=False), "Base URL of the API."),
        Key("key", SecretValue("secret", values.credential), "The API key."),
        Key("secret", SecretValue("secret", values.credential), "The API secret."),
        Key(
            "webhook_tokens",
            ListOf(SecretValue("secret", values.token)),
            "The webhook's URL is `/webhook/<token>`; the token tells the account. Several while one is replaced by"
            " another; none turns the webhook off for this account. Letters, digits and `-._~`, best 16 or more.",
        ),
        Key("servers", SERVERS, "Which servers of the account are watched."),
        Key(
            "proxy_url",
            SecretValue("URL (secret)", values.proxy_url, nullable=True),
            "HTTP proxy to reach the API, with user and password if it needs them.",
        ),
        Key("ca_file", FilePath(), "Certificate authorities (PEM) to trust instead of the usual ones."),
    ),
)

POLL = Section(
    Poll,
    (
        Key("interval", _duration(1), "How often each server's software is read, spread evenly; at least 1s."),
        Key("concurrency", _whole(1, 256), "Calls under way at once, 1 to 256."),
        Key("timeout", _duration(0.1, 300), "Time limit of one call, 100ms to 5m."),
        Key(
            "max_requests_per_minute",
            _whole(1),
            "Budget of one account, over all replicas. When the fleet needs more, the interval stretches.",
        ),
    ),
)

WEBHOOK = Section(
    Webhook,
    (
        Key(
            "allowed_networks",
            ListOf(_NETWORK),
            "Who may deliver, as networks or addresses; others get 403. Empty: all.",
        ),
        Key(
            "max_event_requests_per_minute",
            _whole(1),
            "Budget of the calls that fetch events, or a twentieth of the fleet's servers, if that is more.",
        ),
        Key("inbox_limit", _whole(1), "Deliveries kept waiting; beyond it a catch-up poll takes their place."),
    ),
)

WAIVER = Section(
    Waiver,
    (
        Key("server", _GLOB, "Servers it holds for, by name."),
        Key("software", _GLOB, "Software it holds for, by canonical name."),
        Key(
            "kind",
            Value("kind", values.choice(Kind), _nullable, nullable=True),
            "Only issues of this kind: unsupported, outdated, exploitable or reported. Null: every kind.",
        ),
        Key("until", Value("date", values.date), "The last day on which it holds, in UTC, as `YYYY-MM-DD`."),
        Key("reason", Value("text", values.text), "Why; shown with the issue."),
    ),
)

WAIVERS = ListOf(WAIVER)

ISSUES = Section(
    Issues,
    (
        Key("exploit_risk", Value("number", values.number(0, 10)), "Exploits at or above this risk count, 0 to 10."),
        Key(
            "settle",
            _duration(0),
            "An issue that only an event reported is not closed by a poll that started sooner than this after it.",
        ),
        Key("waivers", WAIVERS, "Issues that are accepted, each up to a date: counted as waived and not as open."),
    ),
)

METRICS = Section(
    Metrics,
    (
        Key(
            "software",
            Value("boolean", values.boolean, lambda value: str(value).lower()),
            "One series for each outdated, unsupported or exploitable software.",
        ),
        Key("software_limit_per_server", _whole(0), "At most so many of these series for one server."),
        Key("software_limit_total", _whole(0), "At most so many of these series in all."),
        Key("max_label_length", _whole(16, 4096), "Longer label values are cut and end in a hash; at least 16."),
    ),
)

STORE = Section(
    Store,
    (
        Key(
            "url",
            Value("URL", values.store_url, may_show=False),
            "`sqlite:///FILE` (from the working directory), `sqlite:////PATH/FILE`, in a folder that exists, or"
            " `postgresql+psycopg://USER:PASSWORD@HOST/DATABASE`. Needs a restart.",
        ),
        Key(
            "retention", _duration(DAY), "How long applied deliveries, fixed issues and changes are kept; at least 1d."
        ),
    ),
)

TOKEN = Section(
    ApiToken,
    (
        Key("name", Value("name", values.name), "Who uses it, for the logs; unique."),
        Key(
            "token",
            SecretValue("secret", values.token),
            "The bearer token. Letters, digits and `-._~`, best 16 or more.",
        ),
        Key(
            "scopes",
            ListOf(Value("scope", values.choice(Scope)), frozenset, may_be_empty=False),
            "What it may do: read, refresh, inbox, reload.",
        ),
    ),
)

API = Section(Api, (Key("tokens", ListOf(TOKEN), "Bearer tokens of the JSON API."),))

WEB = Section(
    Web,
    (
        Key(
            "trusted_proxies",
            ListOf(_NETWORK),
            "Proxies whose `X-Forwarded-For` is believed, as networks or addresses.",
        ),
    ),
)

CONFIG = Section(
    Config,
    (
        Key(
            "accounts",
            ListOf(ACCOUNT, may_be_empty=False),
            "The PatrolServer accounts. Without this key, the one account comes from the environment.",
        ),
        Key("poll", POLL, "How the API is polled."),
        Key("webhook", WEBHOOK, "How deliveries are taken."),
        Key("issues", ISSUES, "What counts as an issue."),
        Key("metrics", METRICS, "Bounds on the series."),
        Key("store", STORE, "Where the state lives."),
        Key("api", API, "Access to the JSON API."),
        Key("web", WEB, "What stands in front of the listeners."),
    ),
)
