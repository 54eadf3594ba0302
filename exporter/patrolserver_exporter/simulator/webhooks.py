"""Delivers webhooks as PatrolServer does: ``webhook_patrolserver``, ``identifier``, ``event_id``, ``webhook_id`` (D).

As JSON (as documented) or as a form (as the SDK reads it). There is no signature and, as nobody knows of any, no
second try. Each delivery's outcome is kept, its URL only without what may be secret in it.
"""

from __future__ import annotations

import json
import threading
import time
from collections import Counter, deque
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode, urlsplit

import requests

if TYPE_CHECKING:
    from collections.abc import Mapping


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
class Outcome:
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


def payload_of(identifier: str, event_id: int, webhook_id: int) -> dict[str, object]:
    """The documented payload (D): nothing else, by design."""
    return {"webhook_patrolserver": 1, "identifier": identifier, "event_id": event_id, "webhook_id": webhook_id}


class Postman:
    """Posts deliveries in threads of its own, at most ``workers`` at once; ``close`` ends it."""

    def __init__(self, *, workers: int = 8, timeout: float = 10.0) -> None:
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="simulator-webhook")
        self._timeout = timeout
        self._local = threading.local()
        self._condition = threading.Condition()
        self._waiting = 0
        self._outcomes: deque[Outcome] = deque(maxlen=10_000)
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
            return [asdict(outcome) for outcome in self._outcomes]

    def counts(self) -> dict[str, int]:
        """Deliveries by status, ``error`` for those without an answer, and ``waiting``."""
        with self._condition:
            return {**self._counts, "waiting": self._waiting}

    def forget(self) -> None:
        """Start counting anew."""
        with self._condition:
            self._outcomes.clear()
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
        outcome = Outcome(shown_url(url), payload, status, error, round(time.monotonic() - started, 4))
        with self._condition:
            self._outcomes.append(outcome)
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
