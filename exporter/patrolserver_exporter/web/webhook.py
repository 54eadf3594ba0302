"""``POST /webhook/<token>``: a delivery is on disk before it is answered with a 202."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from patrolserver_exporter.inbox.deliveries import Acceptance, NewDelivery
from patrolserver_exporter.inbox.intake import UnreadableDelivery, read_payload
from patrolserver_exporter.logs import log_fields
from patrolserver_exporter.patrolserver.models import Identifier
from patrolserver_exporter.store import StoreError
from patrolserver_exporter.web.access import RateLimiter, client_address, digest, header, is_allowed, owner_of
from patrolserver_exporter.web.http.requests import BodyError, ClientGone, Problem, read_body
from patrolserver_exporter.web.http.web_config import RateLimit

if TYPE_CHECKING:
    from collections.abc import Sequence

    from starlette.types import Receive, Scope, Send

    from patrolserver_exporter.clock import Clock
    from patrolserver_exporter.config.schema import Config, Network
    from patrolserver_exporter.inbox.intake import Intake
    from patrolserver_exporter.live.own_metrics import Outcome, Telemetry

log = logging.getLogger(__name__)

_BODIES = {acceptance: f'{{"status":"{acceptance}"}}'.encode() for acceptance in Acceptance}
_GUESSES = RateLimit(interval=1.0, burst=20)
"""Wrong tokens that are answered with a 401; more get a 429. A right one is never held up by others' wrong ones."""
_OUTCOMES: dict[Acceptance, Outcome] = {
    Acceptance.ACCEPTED: "accepted",
    Acceptance.DUPLICATE: "duplicate",
    # It is answered like the others, because a durable catch-up poll takes its place.
    Acceptance.OVERFLOW: "accepted",
}


class WebhookApp:
    """ASGI application for paths below ``/webhook``; ``configure`` it before the first request."""

    def __init__(self, intake: Intake, telemetry: Telemetry, clock: Clock) -> None:
        self._intake = intake
        self._telemetry = telemetry
        self._clock = clock
        self._tokens: tuple[tuple[bytes, str], ...] = ()
        """The digest of each token, and its account."""
        self._networks: Sequence[Network] = ()
        self._proxies: Sequence[Network] = ()
        self._guesses = RateLimiter(clock.monotonic)

    def configure(self, config: Config) -> None:
        """Take tokens and networks of this configuration."""
        self._tokens = tuple(
            (digest(token.reveal()), account.name) for account in config.accounts for token in account.webhook_tokens
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
            payload = read_payload(await read_body(scope, receive), header(scope, b"content-type"))
        except ClientGone:
            self._count("other", "rejected")
            return
        except (BodyError, UnreadableDelivery) as error:
            self._count("other", "rejected")
            problem = error.problem() if isinstance(error, BodyError) else Problem(400, detail=str(error))
            fields = log_fields(account=account, status=problem.status_code, err=str(error))
            log.warning("A delivery could not be read", extra=fields)
            await problem(scope, receive, send)
            return
        delivery = NewDelivery(account, payload.webhook_id, payload.event_id, payload.identifier, self._clock.now())
        try:
            acceptance = await self._intake.take_in(delivery)
        except (StoreError, TimeoutError):
            # The store has logged why, or a database is silent.
            self._count(payload.identifier, "failed")
            detail = "The delivery could not be written to disk. Send it again later."
            await Problem(503, detail=detail, headers={"retry-after": "30"})(scope, receive, send)
            return
        self._note(delivery, acceptance)
        await _answer(send, _BODIES[acceptance])

    def _admit(self, scope: Scope) -> str | Problem:
        """The account that the token tells, or the refusal."""
        if self._networks and not is_allowed(client_address(scope, self._proxies), self._networks):
            return Problem(403, detail="Deliveries from this address are not allowed (webhook.allowed_networks).")
        token = scope["path"].removeprefix("/webhook").removeprefix("/")
        if not token:
            return Problem(404, detail="The token is missing: the URL is /webhook/<token>.")
        account = owner_of(token, self._tokens)
        if account is None:
            wait = self._guesses.wait(_GUESSES)
            if wait:
                headers = {"retry-after": str(round(wait + 0.5))}
                return Problem(429, detail="Too many wrong tokens were sent; try again later.", headers=headers)
            return Problem(401, detail="The token is wrong. It has to be one of webhook_tokens in the configuration.")
        if scope["method"] != "POST":
            return Problem(405, detail="Deliveries come by POST.", headers={"allow": "POST"})
        return account

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


async def _answer(send: Send, body: bytes) -> None:
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 202, "headers": headers})
    await send({"type": "http.response.body", "body": body})
