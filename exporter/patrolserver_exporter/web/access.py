"""What stands before every application: who asks, from where, and whether they may; and how often.

That a connection comes over loopback gives no right: behind a proxy on the machine everybody's does.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
import hmac
import re
import secrets
import time
from collections import OrderedDict
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import urlsplit

import bcrypt

from patrolserver_exporter.config.schema import ApiToken
from patrolserver_exporter.config.schema import Scope as Right
from patrolserver_exporter.web.http.addresses import is_loopback
from patrolserver_exporter.web.http.requests import Problem
from patrolserver_exporter.web.http.server import LOOPBACK_STATE, parse_address

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from patrolserver_exporter.config.schema import Network
    from patrolserver_exporter.config.secret import Secret
    from patrolserver_exporter.web.http.web_config import RateLimit, WebConfig, WebConfigFile


Address = IPv4Address | IPv6Address
T = TypeVar("T")

PRINCIPAL_STATE = "principal"
ALL_RIGHTS = frozenset(Right)
OPERATOR = "of the machine's operator"
"""The name of the token that the exporter itself makes up."""


@dataclass(frozen=True, slots=True)
class Principal:
    """Who asks: a token or a user by name, and what they may do."""

    name: str
    rights: frozenset[Right]
    is_token: bool = False


ANYONE = Principal("", frozenset({Right.READ}))
"""The principal when no authentication is required."""


@dataclass(frozen=True, slots=True)
class Denied:
    """Why a request is refused."""

    status: int
    detail: str
    headers: Mapping[str, str] = field(default_factory=dict)

    def problem(self) -> Problem:
        """Return the answer."""
        return Problem(self.status, detail=self.detail, headers=self.headers)


class BearerTokens:
    """The API's tokens, and that of the machine's operator, which may do everything.

    Several may be valid at once; a reload replaces those of the API.
    """

    def __init__(
        self, tokens: Iterable[ApiToken] = (), *, operator: Secret | None = None, guards_metrics: bool = False
    ) -> None:
        self._tokens = tuple(tokens)
        self._operators = () if operator is None else (ApiToken(name=OPERATOR, token=operator, scopes=ALL_RIGHTS),)
        self._guards_metrics = guards_metrics

    def replace(self, tokens: Iterable[ApiToken], *, guards_metrics: bool = False) -> None:
        """Take these tokens from now on."""
        self._tokens = tuple(tokens)
        self._guards_metrics = guards_metrics

    def __bool__(self) -> bool:
        """Whether there are tokens of the API."""
        return bool(self._tokens)

    @property
    def guards_metrics(self) -> bool:
        """Whether a scrape needs a token."""
        return self._guards_metrics

    @property
    def guards_reading(self) -> bool:
        """Whether a token is meant for reading, so that reading is not open to all."""
        return any(Right.READ in token.scopes for token in self._tokens)

    def principal(self, candidate: str) -> Principal | None:
        """Return whose token that is."""
        known = (*self._tokens, *self._operators)
        token = owner_of(candidate, ((digest(token.token.reveal()), token) for token in known))
        return None if token is None else Principal(token.name, token.scopes, is_token=True)

    def deny_unknown(self, needed: str = "") -> Denied:
        """Return the refusal of a token that is nobody's; ``needed`` is a sentence on what would be let in."""
        again = (
            " If it is from patrolserver-exporter.token: that file has a new token after each start of the exporter, so"
            " read it again."
        )
        detail = f"The token that was sent is unknown.{needed}{again if self._operators else ''}"
        return Denied(401, detail, {"www-authenticate": 'Bearer error="invalid_token"'})


def digest(token: str) -> bytes:
    """SHA-256 of a token."""
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()


def owner_of(candidate: str, known: Iterable[tuple[bytes, T]]) -> T | None:
    """What stands beside a token's digest. All are compared, so that the time taken tells nothing."""
    found, given = None, digest(candidate)
    for one, owner in known:
        if hmac.compare_digest(given, one):
            found = owner
    return found


def header(scope: Scope, name: bytes) -> str | None:
    """Return the first header of that lower-case name, as Latin-1."""
    for key, value in scope["headers"]:
        if key == name:
            return str(value, "latin-1")
    return None


def _credentials(scope: Scope) -> tuple[str, str]:
    """Return the scheme of the Authorization header, in small letters, and what follows it."""
    kind, _, credentials = (header(scope, b"authorization") or "").strip().partition(" ")
    return kind.lower(), credentials


def principal_of(scope: Scope) -> Principal | None:
    """Return whom `Guard` found to be asking; None for nobody."""
    found = scope.get("state", {}).get(PRINCIPAL_STATE)
    return found if isinstance(found, Principal) else None


def authorise(scope: Scope, right: Right, tokens: BearerTokens) -> Principal | Denied:
    """Return who may do it, or why not. `Guard` has to stand before the application.

    A token needs the right; a user of basic auth has all. Without either, reading is open unless a token is meant
    for it, and nothing else is. What changes something is refused to other web sites, which could make a browser send
    it with the password that it knows.
    """
    principal = principal_of(scope)
    if principal is None:
        if right is Right.READ and not tokens.guards_reading:
            return ANYONE
        return _needs_token(scope, f"a token of api.tokens with the scope {right}", tokens)
    if right is not Right.READ and not principal.is_token and _is_cross_site(scope):
        return Denied(403, "Another web site may not do this in your browser's name.")
    if right in principal.rights:
        return principal
    return Denied(403, f"The token {principal.name} lacks the scope {right}; add it in api.tokens.")


def authorise_known(scope: Scope, right: Right, tokens: BearerTokens) -> Principal | Denied:
    """As `authorise`, and refuse whoever is not known also where reading is open."""
    if principal_of(scope) is None:
        return _needs_token(scope, f"a token of api.tokens with the scope {right}", tokens)
    return authorise(scope, right, tokens)


def authorise_scrape(scope: Scope, tokens: BearerTokens) -> Principal | Denied:
    """Return who may read the metrics, or why not. Tokens of the API alone close them to nobody."""
    if not tokens.guards_metrics:
        return ANYONE
    if principal_of(scope) is None:
        return _needs_token(scope, "a token of api.tokens with the scope read (web.metrics_need_token)", tokens)
    return authorise(scope, Right.READ, tokens)


def _needs_token(scope: Scope, what: str, tokens: BearerTokens) -> Denied:
    kind, _ = _credentials(scope)
    if kind == "bearer":
        return tokens.deny_unknown(f" Needed is {what}.")
    detail = (
        f"Send {what}, as Authorization: Bearer, or be a user of basic_auth_users. On the exporter's own machine"
        " patrolserver-exporter.token, beside its state, holds one."
    )
    return Denied(401, detail, {"www-authenticate": "Bearer"})


def deny_foreign_host(scope: Scope, external_url: str) -> Denied | None:
    """Return why a request to a loopback listener is refused for its Host; None when it is not.

    A web site can have its name point to 127.0.0.1; the browser then takes what is read there for the site's own.
    """
    if not scope.get("state", {}).get(LOOPBACK_STATE, False):
        return None
    name = _host_name(header(scope, b"host") or "")
    if is_loopback(name) or (name and name == _external_name(external_url)):
        return None
    detail = (
        "The Host of a request to a listener on loopback has to be a name of loopback, such as 127.0.0.1 or localhost,"
        " or that of --web.external-url: set it to the address under which people reach the exporter."
    )
    return Denied(403, detail)


def _external_name(url: str) -> str:
    return urlsplit(url).hostname or ""


_HOST = re.compile(r"(?:\[(?P<address>[0-9A-Fa-f:.%]+)\]|(?P<name>[0-9A-Za-z._-]+))(?::[0-9]*)?")


def _host_name(host: str) -> str:
    """The name without the port; empty for what is no Host: a URL's parser would find names within other text."""
    found = _HOST.fullmatch(host)
    return "" if found is None else (found["address"] or found["name"]).lower()


def _is_cross_site(scope: Scope) -> bool:
    if (header(scope, b"sec-fetch-site") or "none") not in {"none", "same-origin"}:
        return True
    origin = header(scope, b"origin")
    if origin is None:
        return False
    host = header(scope, b"host") or ""
    return origin.lower() not in {f"http://{host.lower()}", f"https://{host.lower()}"}


def open_reading_warning(addresses: Iterable[str], tokens: BearerTokens, *, has_users: bool) -> str | None:
    """Return what to log once at the start when whoever reaches the listeners may read; None when that is not so."""
    if has_users or (tokens.guards_reading and tokens.guards_metrics):
        return None
    if tokens.guards_reading:
        # On loopback too: whoever closes the rest has others on the machine, or a proxy there.
        return (
            f"everybody who reaches {', '.join(addresses)} can read the metrics, and in them which software is"
            " outdated: tokens with the scope read close the API and the pages alone; set web.metrics_need_token and"
            " give Prometheus a token, or set basic_auth_users in the web configuration file"
        )
    open_to_all = [address for address in addresses if not is_loopback_listener(address)]
    if not open_to_all:
        return None
    return (
        f"everybody who reaches {', '.join(open_to_all)} can read which software is outdated; set api.tokens with the"
        " scope read, or basic_auth_users in the web configuration file, or listen on loopback"
    )


def useless_closing_warning(tokens: BearerTokens, *, has_users: bool) -> str | None:
    """Return what to log once at the start when no Prometheus can read the metrics; None when one can."""
    if not tokens.guards_metrics or tokens.guards_reading or has_users:
        return None
    return (
        "web.metrics_need_token is set, and no token of api.tokens has the scope read, so that no Prometheus can read"
        " the metrics: add one, and give it to Prometheus"
    )


def is_loopback_listener(address: str) -> bool:
    """Whether an address to listen on is only reached from the machine itself; raises `ListenError`."""
    return is_loopback(parse_address(address).host)


def client_address(scope: Scope, trusted_proxies: Sequence[Network]) -> Address | None:
    """Return who really asks; None when the connection has no address.

    X-Forwarded-For is read from right to left for as long as what stands there is a trusted proxy; it is never read
    when the connection itself is not from one. What is no address ends the reading.
    """
    client = scope.get("client")
    address = _parse_ip(client[0]) if client else None
    if address is None:
        return None
    for hop in reversed(_hops(scope)):
        if not _is_within(address, trusted_proxies):
            break
        before = _parse_ip(hop)
        if before is None:
            break
        address = before
    return address


def _hops(scope: Scope) -> list[str]:
    values = [str(value, "latin-1") for name, value in scope["headers"] if name == b"x-forwarded-for"]
    return ",".join(values).split(",") if values else []


def _parse_ip(text: str) -> Address | None:
    text = text.strip().strip('"')
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        return _unmapped(ip_address(text))
    except ValueError:
        return None


def _unmapped(address: Address) -> Address:
    # A dual-stack socket shows IPv4 clients as ::ffff:192.0.2.1.
    return (address.ipv4_mapped or address) if isinstance(address, IPv6Address) else address


def _is_within(address: Address, networks: Sequence[Network]) -> bool:
    return any(address in network for network in networks)


def is_allowed(address: Address | None, networks: Sequence[Network]) -> bool:
    """Whether the address is in one of the networks; without networks every address is."""
    return not networks or (address is not None and _is_within(_unmapped(address), networks))


MAX_PASSWORD_BYTES = 72
"""bcrypt takes no more."""
MAX_CACHED = 100
MAX_WAITING = 64
"""Checks that may wait for their turn; more would only keep honest clients waiting for seconds."""
HEALTH_PATHS = ("/-/healthy", "/-/ready")
WEBHOOK_PREFIX = "/webhook/"

_NOBODYS = "$2b${:02}$QOauhQNbBCuQDKes6eFzPeMqBSjb7Mr5DUmpZ/VcEd00UAV/LDeSi"
_BASIC = Denied(401, "Send the name and password of a user of basic_auth_users.", {"www-authenticate": "Basic"})
_BUSY = Denied(503, "Too many passwords are being checked; try again.", {"retry-after": "5"})


class PasswordCheck:
    """Checks passwords against bcrypt hashes: one at a time, in a thread, and a right one only once."""

    def __init__(self) -> None:
        self._turn = asyncio.Lock()
        self._waiting = 0
        self._salt = secrets.token_bytes(16)
        self._right: OrderedDict[bytes, None] = OrderedDict()

    async def check(self, users: dict[str, str], name: str, password: bytes) -> bool | None:
        """Whether it is the user's password; an unknown user takes as long. None when too many wait already."""
        password_hash = users.get(name) or _nobodys_hash(users)
        key = self._key(name, password_hash, password)
        if key in self._right:
            self._right.move_to_end(key)
            return True
        if self._waiting >= MAX_WAITING:
            return None
        self._waiting += 1
        try:
            async with self._turn:
                matches = await asyncio.to_thread(_matches, password, password_hash)
        finally:
            self._waiting -= 1
        if not matches or name not in users:
            return False
        self._right[key] = None
        if len(self._right) > MAX_CACHED:
            self._right.popitem(last=False)
        return True

    def _key(self, name: str, password_hash: str, password: bytes) -> bytes:
        parts = (name.encode("utf-8", "surrogatepass"), password_hash.encode("ascii"), password)
        lengths = b"".join(len(part).to_bytes(4) for part in parts)
        return hashlib.sha256(self._salt + lengths + b"".join(parts)).digest()


def _nobodys_hash(users: dict[str, str]) -> str:
    """Return a hash that nothing is known to match, as costly as the costliest of the users'."""
    return _NOBODYS.format(max((int(known[4:6]) for known in users.values()), default=10))


def _matches(password: bytes, password_hash: str) -> bool:
    fits = len(password) <= MAX_PASSWORD_BYTES
    matches = bcrypt.checkpw(password[:MAX_PASSWORD_BYTES], password_hash.encode("ascii"))
    return fits and matches


class RateLimiter:
    """A bucket of ``burst`` tokens; one comes back every ``interval``."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._limit: RateLimit | None = None
        self._tokens = 0.0
        self._at = 0.0

    def wait(self, limit: RateLimit) -> float:
        """Return 0 and take a token, or return the seconds until there is one."""
        if not limit.interval:
            return 0.0
        now = self._monotonic()
        if limit != self._limit:
            self._limit, self._tokens, self._at = limit, limit.burst, now
        self._tokens = min(limit.burst, self._tokens + (now - self._at) / limit.interval)
        self._at = now
        if self._tokens < 1:
            return (1 - self._tokens) * limit.interval
        self._tokens -= 1
        return 0.0


class Guard:
    """ASGI middleware, to be the outermost of each listener's application.

    - Health is always answered, and the webhook too: its sender can send no password, its token is in the URL, and a
      delivery that the rate limit turned away would be lost.
    - On a loopback listener everything else needs a Host of loopback, or that of ``external_url``.
    - Everything else is under ``rate_limit``, and needs basic auth when there are users; a bearer token does as well:
      to read with the scope ``read``, and below ``/api/`` and ``/-/`` for `authorise` to judge.
    - Whom it knows is in ``scope["state"]["principal"]``; see `access.authorise`.
    """

    def __init__(  # noqa: PLR0913  # What it guards and by what, most of it by keyword.
        self,
        app: ASGIApp,
        web_config: WebConfigFile | None = None,
        tokens: BearerTokens | None = None,
        *,
        route_prefix: str = "",
        external_url: str = "",
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._app = app
        self._web_config = web_config
        self._tokens = tokens if tokens is not None else BearerTokens()
        self._prefix = route_prefix.rstrip("/")
        self._external_url = external_url
        self._passwords = PasswordCheck()
        self._limiter = RateLimiter(monotonic)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let the application answer, or refuse."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        config = self._web_config.current() if self._web_config is not None else None
        if config is not None and config.http_server_config.headers:
            send = _with_headers(send, tuple(config.http_server_config.headers.items()))
        denied = await self._judge(scope, config)
        await (denied.problem() if denied else self._app)(scope, receive, send)

    async def _judge(self, scope: Scope, config: WebConfig | None) -> Denied | None:
        path: str = scope["path"]
        path = path.removeprefix(self._prefix)
        if path in HEALTH_PATHS or path.startswith(WEBHOOK_PREFIX):
            return None
        if foreign := deny_foreign_host(scope, self._external_url):
            return foreign
        if config is not None and (wait := self._limiter.wait(config.rate_limit)):
            detail = "There are more requests than rate_limit of the web configuration file allows."
            return Denied(429, detail, {"retry-after": str(max(1, round(wait + 0.5)))})
        kind, credentials = _credentials(scope)
        users = dict(config.basic_auth_users) if config is not None else {}
        if kind == "bearer":
            return self._judge_token(scope, path, credentials.strip(), must_have=bool(users))
        if users:
            return await self._judge_user(scope, users, credentials if kind == "basic" else "")
        return None

    def _judge_token(self, scope: Scope, path: str, candidate: str, *, must_have: bool) -> Denied | None:
        principal = self._tokens.principal(candidate)
        if principal is None:
            # Where nobody has to say who they are, a token that is not for us does no harm; a wrong one of ours does.
            return self._tokens.deny_unknown() if must_have or self._tokens else None
        if must_have and Right.READ not in principal.rights and not path.startswith(("/api/", "/-/")):
            return Denied(403, f"The token {principal.name} lacks the scope read; add it in api.tokens.")
        scope.setdefault("state", {})[PRINCIPAL_STATE] = principal
        return None

    async def _judge_user(self, scope: Scope, users: dict[str, str], credentials: str) -> Denied | None:
        name, password = _decode_basic(credentials)
        if name is None:
            return _BASIC
        verdict = await self._passwords.check(users, name, password)
        if verdict:
            scope.setdefault("state", {})[PRINCIPAL_STATE] = Principal(name, ALL_RIGHTS)
            return None
        return _BUSY if verdict is None else _BASIC


def _decode_basic(credentials: str) -> tuple[str | None, bytes]:
    try:
        decoded = base64.b64decode(credentials.strip(), validate=True)
    except (binascii.Error, ValueError):
        return None, b""
    name, colon, password = decoded.partition(b":")
    return (name.decode("utf-8", "surrogateescape"), password) if colon else (None, b"")


def _with_headers(send: Send, headers: tuple[tuple[str, str], ...]) -> Send:
    configured = [(name.lower().encode("ascii"), value.encode("ascii")) for name, value in headers]
    names = {name for name, _ in configured}

    async def send_with_headers(message: Message) -> None:
        if message["type"] == "http.response.start":
            own = [pair for pair in message.get("headers", []) if pair[0].lower() not in names]
            message = {**message, "headers": [*own, *configured]}
        await send(message)

    return send_with_headers
