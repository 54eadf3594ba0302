"""Webhooks and their events: kept for 30 days (D, C), to be fetched, and delivered as PatrolServer does.

A delivery carries ``webhook_patrolserver``, ``identifier``, ``event_id`` and ``webhook_id`` (D): as JSON, which is
documented, or as a form, which the SDK reads. There is no signature and, as nobody knows of any, no second try. Each
delivery's attempt is kept, its URL only without what may be secret in it.

The grades D, C and ? are those of docs/patrolserver-api.md.
"""

from __future__ import annotations

import json
import math
import threading
import time
from collections import Counter, deque
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from itertools import count
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode, urlsplit

import requests

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


class Format(StrEnum):
    """What a delivery's body is written in."""

    JSON = "json"
    FORM = "form"


@dataclass(frozen=True, slots=True)
class Webhook:
    """One URL that an account entered; without a URL its events can still be fetched."""

    id: int
    account_id: int
    url: str | None = field(default=None, repr=False)
    format: Format = Format.JSON
    duplicates: int = 0
    """How many times more each event is delivered."""
    ca_file: str | None = None

    def document(self) -> dict[str, object]:
        """For the control interface; the URL without its token."""
        shown = shown_url(self.url) if self.url else None
        return {"id": self.id, "url": shown, "format": self.format, "duplicates": self.duplicates}


@dataclass(frozen=True, slots=True)
class Attempt:
    """What became of one delivery."""

    url: str
    payload: Mapping[str, object]
    status: int | None
    error: str | None
    seconds: float


def shown_url(url: str) -> str:
    """Scheme, host and the path but its last part, which may be a token."""
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    folder = parts.path.rpartition("/")[0]
    return f"{parts.scheme}://{host}{folder}/\u2026"


def payload_of(event: Event) -> dict[str, object]:
    """The documented payload (D): nothing else, by design."""
    identifier = event.delivered_as or event.identifier
    return {"webhook_patrolserver": 1, "identifier": identifier, "event_id": event.id, "webhook_id": event.webhook_id}


KEPT_SECONDS = 30 * 86_400.0


@dataclass(frozen=True, slots=True)
class Event:
    """One thing that happened, under the webhook that told of it."""

    id: int
    webhook_id: int
    account_id: int
    identifier: str
    data: object
    at: float
    """Seconds since the epoch."""
    known_at: float
    """Before that the API knows nothing of it, though its delivery is out."""
    delivered_as: str | None = None
    """The identifier that its delivery claims, if that is another."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Telling:
    """How an event is told."""

    webhook_id: int | None = None
    """To this webhook only."""
    late: float | None = None
    """The API knows the event so many seconds after its delivery; ``None``: as ``Outbox.delay`` has it."""
    delivered_as: str | None = None
    """The identifier that the delivery claims."""


PLAINLY = Telling()


class Events:
    """The events of all webhooks, by webhook and id."""

    def __init__(self) -> None:
        self._events: dict[tuple[int, int], Event] = {}
        self._order: deque[tuple[int, int]] = deque()

    def __len__(self) -> int:
        return len(self._events)

    def add(self, event: Event) -> None:
        """Keep a new event, and let go of what is 30 days older."""
        place = event.webhook_id, event.id
        self._events[place] = event
        self._order.append(place)
        while self._events[self._order[0]].at + KEPT_SECONDS < event.at:
            del self._events[self._order.popleft()]

    def find(self, webhook_id: int, event_id: int, now: float) -> Event | None:
        """The event, unless it is older than 30 days or not yet known."""
        event = self._events.get((webhook_id, event_id))
        return event if event is not None and event.at + KEPT_SECONDS >= now >= event.known_at else None


TEST_DATA = {"message": "This is a test."}
"""Data of ``webhook.test`` (?): not empty, because the SDK logs an empty event as invalid."""
NEVER = math.inf
"""How late an event is that the API will never know."""


class Outbox:
    """Keeps each event under its webhook, then hands both to ``deliver``, which must not wait.

    ``now`` tells seconds since the epoch.
    """

    def __init__(self, now: Callable[[], float], deliver: Callable[[Webhook, Event], None]) -> None:
        self._now, self._deliver = now, deliver
        self._lock = threading.RLock()
        self._events = Events()
        self._webhooks: dict[int, Webhook] = {}
        self._ids, self._event_ids = count(1), count(1)
        self._late, self._late_count = 0.0, 0

    def __len__(self) -> int:
        return len(self._events)

    def add_webhook(
        self,
        account_id: int,
        url: str | None,
        form: Format = Format.JSON,
        *,
        duplicates: int = 0,
        ca_file: str | None = None,
    ) -> Webhook:
        """Another webhook of the account; without a URL its events are only there to be fetched."""
        with self._lock:
            webhook = Webhook(next(self._ids), account_id, url, form, duplicates, ca_file)
            self._webhooks[webhook.id] = webhook
            return webhook

    def remove_webhook(self, webhook_id: int) -> None:
        """The webhook is gone; its events can still be fetched."""
        with self._lock:
            self._webhooks.pop(webhook_id, None)

    def remove_account(self, account_id: int) -> None:
        """The account's webhooks are gone."""
        with self._lock:
            self._webhooks = {number: one for number, one in self._webhooks.items() if one.account_id != account_id}

    def webhooks(self) -> list[Webhook]:
        """All webhooks."""
        with self._lock:
            return list(self._webhooks.values())

    def delay(self, seconds: float, times: int | None = None) -> None:
        """Let the API know what happens next only ``seconds`` after it is delivered; ``times`` ends that."""
        with self._lock:
            self._late, self._late_count = seconds, -1 if times is None else times

    def emit(
        self,
        account_id: int,
        identifier: str,
        data: object,
        *,
        deliver: bool = True,
        telling: Telling = PLAINLY,
    ) -> list[Event]:
        """Make an event for one webhook or for each of the account that has a URL, and deliver it.

        It can be fetched before it is delivered, unless it is late. Where no webhook has a URL, those without get it.
        """
        with self._lock:
            late, webhook_id = telling.late, telling.webhook_id
            if late is None:
                late = self._late if self._late_count else 0.0
                self._late_count -= self._late_count > 0
            hooks = [one for one in self._webhooks.values() if one.account_id == account_id]
            if webhook_id is None:
                hooks = [one for one in hooks if one.url is not None] or hooks
            else:
                hooks = [one for one in hooks if one.id == webhook_id]
            events = []
            for webhook in hooks:
                now, number = self._now(), next(self._event_ids)
                event = Event(number, webhook.id, account_id, identifier, data, now, now + late, telling.delivered_as)
                self._events.add(event)
                events.append(event)
                if deliver:
                    self._deliver(webhook, event)
            return events

    def find(self, webhook_id: int, event_id: int) -> Event | None:
        """The event, unless it is older than 30 days or not yet known."""
        with self._lock:
            return self._events.find(webhook_id, event_id, self._now())


class Postman:
    """Posts deliveries in threads of its own, at most ``workers`` at once; ``close`` ends it."""

    def __init__(self, *, workers: int = 8, timeout: float = 10.0) -> None:
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="simulator-webhook")
        self._timeout = timeout
        self._local = threading.local()
        self._condition = threading.Condition()
        self._waiting = 0
        self._attempts: deque[Attempt] = deque(maxlen=10_000)
        self._counts: Counter[str] = Counter()

    def post(self, webhook: Webhook, payload: Mapping[str, object]) -> None:
        """Deliver soon, ``1 + duplicates`` times; a webhook without URL is skipped."""
        if webhook.url is None:
            return
        for _ in range(1 + webhook.duplicates):
            with self._condition:
                self._waiting += 1
            self._pool.submit(self._deliver, webhook, webhook.url, payload)

    def drain(self, timeout: float) -> bool:
        """Wait until nothing is under way, at most ``timeout`` seconds; whether that was reached."""
        with self._condition:
            return self._condition.wait_for(lambda: self._waiting == 0, timeout)

    def outcomes(self) -> list[dict[str, Any]]:
        """The last deliveries, oldest first."""
        with self._condition:
            return [asdict(attempt) for attempt in self._attempts]

    def counts(self) -> dict[str, int]:
        """Deliveries by status, ``error`` for those without an answer, and ``waiting``."""
        with self._condition:
            return {**self._counts, "waiting": self._waiting}

    def forget(self) -> None:
        """Start counting from 0."""
        with self._condition:
            self._attempts.clear()
            self._counts.clear()

    def close(self) -> None:
        """Give up what has not started and wait for what has."""
        self._pool.shutdown(wait=True, cancel_futures=True)

    def _deliver(self, webhook: Webhook, url: str, payload: Mapping[str, object]) -> None:
        started = time.monotonic()
        status, error = None, None
        try:
            status = self._send(webhook, url, payload)
        except requests.RequestException as failure:
            error = type(failure).__name__
        except ValueError:
            error = "URLError"
        attempt = Attempt(shown_url(url), payload, status, error, round(time.monotonic() - started, 4))
        with self._condition:
            self._attempts.append(attempt)
            self._counts[str(status) if status is not None else "error"] += 1
            self._waiting -= 1
            self._condition.notify_all()

    def _send(self, webhook: Webhook, url: str, payload: Mapping[str, object]) -> int:
        if webhook.format is Format.JSON:
            body, kind = json.dumps(payload, separators=(",", ":")), "application/json"
        else:
            body, kind = urlencode(payload), "application/x-www-form-urlencoded"
        with self._session().post(
            url,
            data=body,
            headers={"Content-Type": kind},
            timeout=self._timeout,
            allow_redirects=False,
            verify=webhook.ca_file or True,
        ) as reply:
            return reply.status_code

    def _session(self) -> requests.Session:
        session: requests.Session | None = getattr(self._local, "session", None)
        if session is None:
            session = self._local.session = requests.Session()
            session.trust_env = False
            session.headers["User-Agent"] = "PatrolServer"
        return session
