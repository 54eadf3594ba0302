"""What stands before every application: the rate limit, basic auth, bearer tokens and the configured headers."""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
import secrets
import time
from collections import OrderedDict
from typing import TYPE_CHECKING

import bcrypt

from patrolserver_exporter.config.schema import Scope as Right
from patrolserver_exporter.web.access.rights import (
    ALL_RIGHTS,
    PRINCIPAL_STATE,
    BearerTokens,
    Denied,
    Principal,
    deny_foreign_host,
    header,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from patrolserver_exporter.web.http.web_config import RateLimit, WebConfig, WebConfigFile

MAX_PASSWORD_BYTES = 72
"""bcrypt takes no more."""
MAX_CACHED = 100
MAX_WAITING = 64
"""Checks that may wait for their turn; more would only keep honest clients waiting for seconds."""
HEALTH_PATHS = ("/-/healthy", "/-/ready")
WEBHOOK_PREFIX = "/webhook/"

_NOBODYS = "$2b${:02}$QOauhQNbBCuQDKes6eFzPeMqBSjb7Mr5DUmpZ/VcEd00UAV/LDeSi"
_BASIC = Denied(401, "Send the name and password of a user of basic_auth_users.", {"www-authenticate": "Basic"})
_BEARER = Denied(401, "The token is unknown.", {"www-authenticate": 'Bearer error="invalid_token"'})
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
            send = _with_headers(send, config.http_server_config.headers)
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
        kind, _, credentials = (header(scope, b"authorization") or "").strip().partition(" ")
        users = dict(config.basic_auth_users) if config is not None else {}
        if kind.lower() == "bearer":
            return self._judge_token(scope, path, credentials.strip(), must_have=bool(users))
        if users:
            return await self._judge_user(scope, users, credentials if kind.lower() == "basic" else "")
        return None

    def _judge_token(self, scope: Scope, path: str, candidate: str, *, must_have: bool) -> Denied | None:
        principal = self._tokens.principal(candidate)
        if principal is None:
            # Where nobody has to say who they are, a token that is not for us does no harm; a wrong one of ours does.
            return _BEARER if must_have or self._tokens else None
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
