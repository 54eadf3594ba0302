"""``POST /webhook/<token>``: a delivery is on disk before it is answered with a 202.

Why one is refused stands in the log, without the token: whoever sets a webhook up sees nothing of its sender.
"""

from __future__ import annotations

import logging
import re
from typing import TYPE_CHECKING, NamedTuple

from patrolserver_exporter.inbox.deliveries import Acceptance, NewDelivery
from patrolserver_exporter.inbox.intake import CHECKUP, UnreadableDelivery, read_checkup, read_payload
from patrolserver_exporter.lasting import ThrottledLog
from patrolserver_exporter.logs import log_fields
from patrolserver_exporter.patrolserver.models import Identifier
from patrolserver_exporter.store import StoreError
from patrolserver_exporter.web.access import RateLimiter, client_address, digest, header, is_allowed, owner_of
from patrolserver_exporter.web.http.requests import BodyError, ClientGone, Problem, read_body
from patrolserver_exporter.web.http.web_config import RateLimit

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from starlette.types import ASGIApp, Receive, Scope, Send

    from patrolserver_exporter.clock import Clock
    from patrolserver_exporter.config.schema import Config, Network
    from patrolserver_exporter.inbox.intake import Intake
    from patrolserver_exporter.live.own_metrics import Outcome, Telemetry

log = logging.getLogger(__name__)

_BODIES = {acceptance: f'{{"status":"{acceptance}"}}'.encode() for acceptance in Acceptance}
_GUESSES = RateLimit(interval=1.0, burst=20)
"""Wrong tokens that are answered with a 401; more get a 429. A right one is never held up by others' wrong ones."""
_THE_URL = "The webhook's URL ends in /webhook/ and the token, with or without a slash behind it"
_NOWHERE = "What was posted went to a path that takes nothing; a delivery's URL ends in /webhook/ and the token"
_TOKEN = re.compile(r"[A-Za-z0-9._~-]+", re.ASCII)
_WORDS = frozenset({"webhook", "webhooks", "web-hook", "web-hooks", "web_hook", "web_hooks", "hook", "hooks"})
_OUTCOMES: dict[Acceptance, Outcome] = {
    Acceptance.ACCEPTED: "accepted",
    Acceptance.DUPLICATE: "duplicate",
    # It is answered like the others, because a durable catch-up poll takes its place.
    Acceptance.OVERFLOW: "accepted",
}


class Refusal(NamedTuple):
    """A delivery that was not taken in. The reason holds nothing of its URL, which may be a token."""

    at: float
    """Seconds since the epoch."""
    status: int
    why: str


class WebhookApp:
    """ASGI application for paths below ``/webhook``; ``configure`` it before the first request."""

    def __init__(self, intake: Intake, telemetry: Telemetry, clock: Clock) -> None:
        self._intake = intake
        self._telemetry = telemetry
        self._clock = clock
        self._tokens: tuple[tuple[bytes, str], ...] = ()
        """The digest of each token, and its account."""
        self._lower_tokens: tuple[tuple[bytes, str], ...] = ()
        self._networks: Sequence[Network] = ()
        self._proxies: Sequence[Network] = ()
        self._guesses = RateLimiter(clock.monotonic)
        self._refusals = ThrottledLog(log, clock.monotonic)
        self.last_refusal: Refusal | None = None
        """The last delivery that was not taken in."""

    def configure(self, config: Config) -> None:
        """Take tokens and networks of this configuration."""
        self._tokens = tuple(
            (digest(token.reveal()), account.name) for account in config.accounts for token in account.webhook_tokens
        )
        self._lower_tokens = tuple(
            (digest(token.reveal().lower()), account.name)
            for account in config.accounts
            for token in account.webhook_tokens
        )
        self._networks = config.webhook.allowed_networks
        self._proxies = config.web.trusted_proxies

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Take a delivery in, or say why not."""
        account = self._admit(scope)
        if isinstance(account, Problem):
            self._count("other", "refused")
            await account(scope, receive, send)
            return
        try:
            body = await read_body(scope, receive)
            if (nonce := read_checkup(body)) is not None:
                log.info("A check-up tried the webhook's URL", extra=log_fields(account=account))
                await _answer(send, f'{{"{CHECKUP}":"{nonce}"}}'.encode(), 200)
                return
            payload = read_payload(body, header(scope, b"content-type"))
        except ClientGone as error:
            self._count("other", "rejected")
            self._refuse("gone", scope, 408, f"it was not complete: {_uncapitalised(str(error))}", account=account)
            return
        except (BodyError, UnreadableDelivery) as error:
            self._count("other", "rejected")
            problem = error.problem() if isinstance(error, BodyError) else Problem(400, detail=str(error))
            fields = log_fields(account=account, status=problem.status_code, err=str(error))
            log.warning("A delivery could not be read", extra=fields)
            self.last_refusal = Refusal(self._clock.now(), problem.status_code, _uncapitalised(str(error)))
            await problem(scope, receive, send)
            return
        delivery = NewDelivery(account, payload.webhook_id, payload.event_id, payload.identifier, self._clock.now())
        try:
            acceptance = await self._intake.take_in(delivery)
        except (StoreError, TimeoutError):
            # The store has logged why, or a database is silent.
            self._count(payload.identifier, "failed")
            detail = "The delivery could not be written to disk. Send it again later."
            self.last_refusal = Refusal(self._clock.now(), 503, "it could not be written to disk")
            await Problem(503, detail=detail, headers={"retry-after": "30"})(scope, receive, send)
            return
        self._note(delivery, acceptance)
        await _answer(send, _BODIES[acceptance])

    def _admit(self, scope: Scope) -> str | Problem:
        """The account that the token tells, or the refusal."""
        if self._networks and not is_allowed(client_address(scope, self._proxies), self._networks):
            self._refuse("network", scope, 403, f"webhook.allowed_networks leaves its address out{self._hint(scope)}")
            return Problem(403, detail="Deliveries from this address are not allowed (webhook.allowed_networks).")
        rest = scope["path"].removeprefix("/webhook").removeprefix("/")
        spelling = odd_spelling(rest, has_query=bool(scope["query_string"]))
        if spelling is not None:
            status = 401 if rest else 404
            self._refuse("spelling", scope, status, f"its URL is spelt {spelling}; {_uncapitalised(_THE_URL)}")
            return Problem(status, detail=f"{_THE_URL}; this one is spelt {spelling}.")
        token = rest.removesuffix("/")
        account = owner_of(token, self._tokens)
        if account is None:
            return self._wrong_token(scope, token)
        if scope["method"] != "POST":
            why = f"it came by {_method(scope)}, and deliveries come by POST"
            self._refuse("method", scope, 405, why, account=account)
            return Problem(405, detail="Deliveries come by POST.", headers={"allow": "POST"})
        return account

    def _wrong_token(self, scope: Scope, token: str) -> Problem:
        wait = self._guesses.wait(_GUESSES)
        if not self._tokens:
            why = "no account has webhook_tokens, so that the webhook is off"
        elif owner_of(token.lower(), self._lower_tokens) is not None:
            why = "its token has capitals where webhook_tokens has small letters, or the other way round"
        else:
            why = "its token is none of webhook_tokens"
        self._refuse("token", scope, 429 if wait else 401, why)
        if wait:
            headers = {"retry-after": str(round(wait + 0.5))}
            return Problem(429, detail="Too many wrong tokens were sent; try again later.", headers=headers)
        return Problem(401, detail="The token is wrong. It has to be one of webhook_tokens in the configuration.")

    def note_stray(self, scope: Scope, spelling: str | None) -> None:
        """Say that something was posted elsewhere, which is a delivery as far as its path is spelt like one."""
        if spelling is None:
            client = client_address(scope, self._proxies)
            self._refusals.say("stray", _NOWHERE, client=None if client is None else str(client), method=_method(scope))
            return
        self._count("other", "refused")
        self._refuse("spelling", scope, 404, f"its URL is spelt {spelling}; {_uncapitalised(_THE_URL)}")

    def _refuse(self, kind: str, scope: Scope, status: int, why: str, **fields: str) -> None:
        """Say why, without the path, which may hold a token."""
        client = client_address(scope, self._proxies)
        self.last_refusal = Refusal(self._clock.now(), status, why)
        self._refusals.say(
            kind,
            f"A delivery was refused: {why}",
            client=None if client is None else str(client),
            method=_method(scope),
            status=status,
            **fields,
        )

    def _hint(self, scope: Scope) -> str:
        """What to look at when the address is that of a proxy."""
        if header(scope, b"x-forwarded-for") is None or client_address(scope, ()) != client_address(
            scope, self._proxies
        ):
            return ""
        return "; its X-Forwarded-For is not believed, because the connection comes from none of web.trusted_proxies"

    def _count(self, identifier: str, outcome: Outcome) -> None:
        self._telemetry.delivery(identifier, outcome)

    def _note(self, delivery: NewDelivery, acceptance: Acceptance) -> None:
        self._count(delivery.identifier, _OUTCOMES[acceptance])
        level = logging.INFO if delivery.identifier == Identifier.TEST else logging.DEBUG
        if log.isEnabledFor(level):
            fields = log_fields(
                account=delivery.account,
                identifier=delivery.identifier,
                webhook_id=delivery.webhook_id,
                event_id=delivery.event_id,
                outcome=acceptance.value,
            )
            log.log(level, "A delivery came in", extra=fields)


async def _answer(send: Send, body: bytes, status: int = 202) -> None:
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def odd_spelling(rest: str, *, has_query: bool = False) -> str | None:
    """How a URL is spelt other than with ``/webhook/<token>``, by what it has behind ``/webhook/``; None if it is not.

    No token is compared here, so that the answer tells nothing of it.
    """
    token = rest.removesuffix("/")
    if _TOKEN.fullmatch(token):
        return None
    oddities = (
        (not rest and has_query, "with a question mark where the token belongs"),
        (not rest, "without a token"),
        (rest.startswith("/"), "with two slashes before the token"),
        (token.endswith("/"), "with two slashes behind the token"),
        ("/" in token, "with another part beside the token"),
        (any(letter.isspace() for letter in token), "with a blank or a line break at the token"),
    )
    other = "with a character that no token has, such as a quote or a bracket"
    return next((spelling for is_so, spelling in oddities if is_so), other)


class StrayDeliveries:
    """ASGI middleware before `Guard`: hands what is posted elsewhere to ``refuse``, since a delivery may be among it.

    What names a webhook is answered here, since its sender has no password; all else goes on, since it may be meant.
    """

    def __init__(
        self,
        app: ASGIApp,
        refuse: Callable[[Scope, str | None], None],
        *,
        route_prefix: str = "",
        webhook_here: bool,
        only_webhook: bool,
    ) -> None:
        self._app = app
        self._refuse = refuse
        self._prefix = route_prefix.rstrip("/")
        self._webhook_here = webhook_here
        self._only_webhook = only_webhook

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse it, or pass it on."""
        if scope["type"] != "http" or scope["method"] in {"GET", "HEAD", "OPTIONS"} or self._is_meant(scope["path"]):
            await self._app(scope, receive, send)
            return
        spelling = self._spelling(scope)
        self._refuse(scope, spelling)
        if spelling is None:
            await self._app(scope, receive, send)
            return
        await Problem(404, detail=f"{_THE_URL}; this one is spelt {spelling}.")(scope, receive, send)

    def _is_meant(self, path: str) -> bool:
        """Whether something here takes what is posted there."""
        if self._prefix and not path.startswith(f"{self._prefix}/"):
            return False
        path = path.removeprefix(self._prefix)
        if path.startswith("/webhook/"):
            return self._webhook_here
        return not self._only_webhook and path.startswith(("/api/", "/-/"))

    def _spelling(self, scope: Scope) -> str | None:
        """How the URL of a delivery is spelt; None if it is none, as far as one can see."""
        path: str = scope["path"]
        parts = [part for part in path.lower().split("/") if part]
        named = next((index for index, part in enumerate(parts) if part in _WORDS), None)
        if named is None:
            return None
        prefix = [part for part in self._prefix.lower().split("/") if part]
        before, word = parts[:named], parts[named]
        oddities = (
            (word != "webhook", "with another word in the place of webhook"),
            (
                before != prefix and not before,
                f"without {self._prefix}/ in front, as every path has (--web.route-prefix)",
            ),
            (before != prefix, "with another path before /webhook"),
            ("//" in path[: path.lower().index(word)], "with two slashes before webhook"),
            (f"/{word}" not in path, "with capital letters in webhook"),
            (path == f"{self._prefix}/webhook", odd_spelling("", has_query=bool(scope["query_string"]))),
            (not path.startswith(f"{self._prefix}/webhook"), "with other capital letters before /webhook"),
        )
        elsewhere = "for a listener that takes no webhooks: they have one of their own (--webhook.listen-address)"
        return next((spelling for is_so, spelling in oddities if is_so), elsewhere)


def _method(scope: Scope) -> str:
    return str(scope["method"])[:16]


def _uncapitalised(sentence: str) -> str:
    return sentence[:1].lower() + sentence[1:].removesuffix(".")
