"""The client: one account's calls to PatrolServer's API, each made once, bounded in number, time and size.

The grades D, C and ? are those of docs/patrolserver-api.md.
"""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar
from urllib.parse import quote, urlsplit

from requests import PreparedRequest
from requests.structures import CaseInsensitiveDict

from patrolserver_exporter import __version__
from patrolserver_exporter.clock import SystemClock
from patrolserver_exporter.patrolserver import wire
from patrolserver_exporter.patrolserver.envelope import Head
from patrolserver_exporter.patrolserver.errors import (
    ApiError,
    ConnectionFailed,
    FailureReason,
    NotFound,
    PatrolServerError,
    RedirectRefused,
    Refused,
    UnexpectedStatus,
    Unreadable,
)
from patrolserver_exporter.patrolserver.models import MAX_ID
from patrolserver_exporter.patrolserver.transport import (
    TRANSPORT_ERRORS,
    ApiAdapter,
    Reply,
    by_its_words,
    read_body,
    read_clock_offset,
    read_list,
    read_refusal,
    read_retry_after,
    translate,
    without_credentials,
)
from patrolserver_exporter.redaction import keep_urls_out_of_logs

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from requests import Response

    from patrolserver_exporter.clock import Clock
    from patrolserver_exporter.patrolserver.models import Event, Parsed, Server, Software
    from patrolserver_exporter.patrolserver.paging import Pages
    from patrolserver_exporter.patrolserver.stream import Document, Limits


WINDOW = 60.0
_BURST_SHARE = 6
_ROUNDING = 1e-6


class HandedBudget(NamedTuple):
    """What is left of a budget."""

    tokens: float
    calls: tuple[float, ...]
    """How long ago each call of the last minute was made, in seconds."""


class RequestBudget:
    """How many calls one account may make a minute; safe to share between threads.

    Two rules, and a call needs both: a log of the last minute's calls, which makes sure that no window of 60 s ever has
    more than ``per_minute``, and a bucket that refills evenly, which bounds a burst to a sixth of that (at least 1).
    """

    def __init__(self, per_minute: int, clock: Clock) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._taken: deque[float] = deque()
        self._per_minute = max(per_minute, 0)
        self._tokens = self._burst
        self._filled_at = clock.monotonic()

    def try_take(self) -> bool:
        """Take one call if there is one now."""
        with self._lock:
            now = self._refresh()
            if self._available() < 1.0:
                return False
            self._tokens -= 1.0
            self._taken.append(now)
            return True

    def give_back(self, calls: int) -> None:
        """Return calls that were taken last and not made."""
        with self._lock:
            for _ in range(min(calls, len(self._taken))):
                self._taken.pop()
                self._tokens = min(self._tokens + 1.0, self._burst)

    def owe(self) -> None:
        """Somebody else may have made all calls of the last minute: begin with a burst less than nothing."""
        with self._lock:
            self._refresh()
            self._tokens = -self._burst

    def hand_over(self) -> HandedBudget:
        """What is left, for whoever makes the calls from now on."""
        with self._lock:
            now = self._refresh()
            return HandedBudget(self._tokens, tuple(round(now - at, 3) for at in self._taken))

    def take_over(self, handed: HandedBudget, *, seconds_ago: float) -> None:
        """Go on from what somebody else left so many seconds ago."""
        with self._lock:
            now, ago = self._refresh(), max(seconds_ago, 0.0)
            made = [age + ago for age in handed.calls if age + ago < WINDOW]
            self._taken = deque(now - age for age in sorted(made, reverse=True))
            refilled = max(handed.tokens, -self._burst) + ago * self._per_minute / WINDOW
            self._tokens = min(refilled, self._burst)

    def available(self) -> float:
        """Calls that could be made now, 0 to the size of a burst; a part of one is on its way."""
        with self._lock:
            self._refresh()
            return self._available()

    def seconds_until_available(self) -> float:
        """Seconds to the next call that may be made, 0 when one may be made now, infinity with a budget of 0."""
        with self._lock:
            now = self._refresh()
            if self._per_minute == 0:
                return math.inf
            refill = max(1.0 - self._tokens, 0.0) * WINDOW / self._per_minute
            if len(self._taken) < self._per_minute:
                return refill
            return max(refill, self._taken[-self._per_minute] + WINDOW - now)

    def resize(self, per_minute: int) -> None:
        """Change the budget; the calls of the last minute count against the new one."""
        with self._lock:
            self._refresh()
            self._per_minute = max(per_minute, 0)
            self._tokens = min(self._tokens, self._burst)

    @property
    def _burst(self) -> float:
        return 0.0 if self._per_minute == 0 else max(1.0, self._per_minute / _BURST_SHARE)

    def _available(self) -> float:
        # Waiting as long as was told must suffice, whatever the rounding; the log keeps the promise.
        tokens = self._tokens + _ROUNDING
        return max(min(tokens, float(self._per_minute - len(self._taken))), 0.0)

    def _refresh(self) -> float:
        """Refill the bucket and forget calls that are out of the window; returns the time."""
        now = self._clock.monotonic()
        refilled = (now - self._filled_at) * self._per_minute / WINDOW
        self._tokens = min(self._tokens + refilled, self._burst)
        self._filled_at = now
        while self._taken and now >= self._taken[0] + WINDOW:
            self._taken.popleft()
        return now


T = TypeVar("T")


class Endpoint(StrEnum):
    """The calls, as the metrics' label ``endpoint`` names them."""

    SERVERS = "servers"
    SERVER = "server"
    SOFTWARE = "software"
    IS_SCANNING = "is_scanning"
    EVENT = "event"


@dataclass(frozen=True, slots=True)
class ApiCall:
    """One call that was made, for the metrics."""

    account: str
    endpoint: Endpoint
    seconds: float
    reason: FailureReason | None
    """Why it failed; None when it did not."""
    clock_offset: float | None = None
    """Seconds that our clock is ahead of the API's, by its reply's ``Date`` (whole seconds); None without one."""


class PatrolServerClient:
    """One account's calls. Threads may share it; it holds connections until ``close``.

    No call is repeated and no redirect followed. A call takes at most ``timeout`` to connect to each address, then
    ``timeout`` for each silence and three times that for the whole reply, or for each 64 KiB of a server list; the
    system's resolver has limits of its own.
    All calls raise a ``PatrolServerError`` that holds no credentials.

    Args:
        account: the account's name, for messages and metrics.
        api_url: base of the API, http or https, with a path or without.
        credentials: asked for (key, secret) at each call, so that a rotated file is picked up. What it raises as
            ``OSError`` or ``ValueError`` becomes ``Refused``.
        timeout: seconds.
        proxy_url: a proxy for all calls; the environment's are not used.
        ca_file: authorities to trust in place of certifi's.
        pool_size: connections at most; further threads wait for one.
        observer: told about each call, one a page, in the calling thread, before the call returns or raises.
        before_call: called right before each request, one a page, in the calling thread; what it raises is raised, and
            the request is not made.
        before_page: asked before each page of a list but the first, in the calling thread; it may wait. False ends the
            reading, and the list is partial. Default: all pages are read.
        clock: what a ``Retry-After`` with a date is compared with.
        hidden: what else must not show if a reply holds it, such as the tokens of webhooks; asked at each call.

    Raises:
        ValueError: ``api_url`` or ``proxy_url`` is not usable; the text does not repeat it.
        OSError: ``ca_file`` cannot be read or holds no certificate.
    """

    def __init__(  # noqa: PLR0913 - what a connection needs to know; all but three by name
        self,
        account: str,
        api_url: str,
        credentials: Callable[[], tuple[str, str]],
        *,
        timeout: float,
        proxy_url: str | None = None,
        ca_file: Path | None = None,
        pool_size: int,
        observer: Callable[[ApiCall], None],
        before_call: Callable[[], None] | None = None,
        before_page: Callable[[], bool] | None = None,
        clock: Clock | None = None,
        hidden: Callable[[], Iterable[str]] = tuple,
    ) -> None:
        keep_urls_out_of_logs()
        self._account = account
        self._base = _normal_base(api_url)
        self._credentials = credentials
        self._timeout = timeout
        self._proxy_url = proxy_url
        self._observer = observer
        self._before_call = before_call or (lambda: None)
        self._before_page = before_page or (lambda: True)
        self._clock = clock or SystemClock()
        self._hidden = hidden
        self._adapter = ApiAdapter(self._base, pool_size=pool_size, proxy_url=proxy_url, ca_file=ca_file)
        self._closed = False
        self._headers = CaseInsensitiveDict(
            {
                "Accept": "application/json",
                "Accept-Encoding": "gzip",
                "User-Agent": f"patrolserver-exporter/{__version__}",
            }
        )

    def servers(self) -> Parsed[tuple[Server, ...]]:
        """The account's servers, of all pages (C). When not ``complete``, a server that is missing may still exist."""
        pages = wire.pages_of_servers(self._base, "servers")
        self._read_pages(Endpoint.SERVERS, pages)
        return wire.read_servers(pages)

    def server(self, server_id: int) -> Parsed[Server]:
        """One server (C)."""
        path = f"servers/{_checked(server_id)}"
        return self._call(Endpoint.SERVER, f"{self._base}/{path}", path, wire.parse_server)

    def software(self, server_id: int) -> Parsed[tuple[Software, ...]]:
        """The software installed on a server, with its exploits (C); unless ``complete``, there may be more.

        Where the reply tells nothing of exploits, as one that does not follow the scope, those of each software are
        ``None``; where any software has some, or an empty list, none are ``None`` but those that cannot be read.
        """
        path = f"servers/{_checked(server_id)}/software"
        pages = wire.pages_of_software(self._base, path, "scope=exploits", server_id)
        self._read_pages(Endpoint.SOFTWARE, pages)
        return wire.read_installed(pages)

    def is_scanning(self, server_id: int) -> bool:
        """Whether a server is being scanned now (C)."""
        path = f"servers/{_checked(server_id)}/isScanning"
        parse = partial(wire.parse_is_scanning, server_id=server_id)
        return self._call(Endpoint.IS_SCANNING, f"{self._base}/{path}", path, parse)

    def event(self, webhook_id: int, event_id: int) -> Parsed[Event]:
        """An event's data, kept for at most 30 days (D)."""
        path = f"webhooks/{_checked(webhook_id)}/events/{_checked(event_id)}"
        parse = partial(wire.parse_event, asked=(webhook_id, event_id))
        return self._call(Endpoint.EVENT, f"{self._base}/{path}", path, parse)

    def close(self) -> None:
        """Close the connections; a call that is under way ends as it would have, later ones fail."""
        self._closed = True
        self._adapter.close()

    def _read_pages(self, endpoint: Endpoint, pages: Pages) -> None:
        """Read a list's first page and those that follow.

        A later page that is refused as such, or means nothing, leaves a part; any other failure is one of the whole.
        """
        place = pages.path
        self._call(endpoint, pages.url, place, pages.add, pages.limits)
        while pages.go_on():
            if not self._before_page():
                pages.stop(f"there was no call left for page {pages.read + 1}")
                return
            try:
                self._call(endpoint, pages.url, f"{place} page {pages.read + 1}", pages.add, pages.limits)
            except (NotFound, UnexpectedStatus, RedirectRefused, ApiError, Unreadable) as error:
                pages.stop(f"page {pages.read + 1} could not be read: {error.what_happened}")
            except PatrolServerError as error:
                error.after_a_part = True
                raise

    def _call(
        self, endpoint: Endpoint, url: str, path: str, parse: Callable[[Any, Head], T], limits: Limits | None = None
    ) -> T:
        """Make one call; ``url`` is without credentials, ``path`` for messages, ``limits`` are those of a list."""
        self._before_call()
        started = time.perf_counter()
        outcome, clock_offset = self._attempt(url, f"account {self._account}: {path}", parse, limits)
        failure = outcome if isinstance(outcome, PatrolServerError) else None
        seconds = time.perf_counter() - started
        reason = failure.reason if failure else None
        self._observer(ApiCall(self._account, endpoint, seconds, reason, clock_offset))
        if isinstance(outcome, PatrolServerError):
            # Raised here and not where it was caught: there it would carry the libraries' errors, and their URLs,
            # as its context, and frames with credentials in its traceback.
            outcome.__traceback__ = outcome.__context__ = None
            raise outcome
        return outcome

    def _attempt(
        self, url: str, place: str, parse: Callable[[Any, Head], T], limits: Limits | None
    ) -> tuple[T | PatrolServerError, float | None]:
        """What the call brings, and how far our clock is ahead of the API's."""
        try:
            key, secret = self._credentials()
            pair = f"key={quote(key, safe='')}&secret={quote(secret, safe='')}"
        except (OSError, ValueError) as error:
            return Refused(f"the credentials cannot be read ({type(error).__name__})", place=place), None
        if not key or not secret:
            return Refused("the key or the secret is empty", place=place), None
        secrets = (key, secret, self._proxy_url or "", *sorted(self._hidden()))
        path, _, query = url.partition("?")
        reply = self._exchange(f"{path}?{pair}&{query}" if query else f"{path}?{pair}", secrets, limits)
        if isinstance(reply, PatrolServerError):
            return reply.at(place, status=reply.status, retry_after=reply.retry_after), None
        refusal = read_refusal(reply, secrets)
        if refusal is None:
            try:
                return parse(reply.body, Head(reply.status, reply.headers, secrets)), reply.clock_offset
            except PatrolServerError as error:
                refusal = by_its_words(without_credentials(error, reply.beginning, secrets))
        return refusal.at(place, status=reply.status, retry_after=reply.retry_after), reply.clock_offset

    def _exchange(self, url: str, secrets: tuple[str, ...], limits: Limits | None) -> Reply | PatrolServerError:
        """Send the request and read the reply, whatever it says."""
        if self._closed:
            return ConnectionFailed("the client is closed")
        request = PreparedRequest()
        request.method, request.url, request.headers = "GET", url, self._headers
        response: Response | None = None
        failure: PatrolServerError
        head: Callable[[bytes | Document], Reply] | None = None
        try:
            response = self._adapter.send(request, stream=True, timeout=self._timeout, proxies=self._adapter.proxies)
            now, headers = self._clock.now(), response.headers
            head = partial(
                Reply,
                response.status_code,
                headers,
                read_retry_after(headers.get("Retry-After"), now),
                read_clock_offset(headers.get("Date"), now),
            )
            if limits is None or not 200 <= response.status_code < 300:
                return head(read_body(response.raw))
            return head(read_list(response.raw, limits, self._timeout, Head(secrets=secrets).masked))
        except TRANSPORT_ERRORS as error:
            failure = translate(error, secrets)
        except PatrolServerError as error:
            failure = error
        finally:
            if response is not None:
                response.close()
        if head is None:
            return failure
        reply = head(b"")
        # A status that says no tells more than the failure to read the rest.
        is_good = 200 <= reply.status < 300
        return failure.at("", status=reply.status, retry_after=reply.retry_after) if is_good else reply


def _normal_base(api_url: str) -> str:
    """The base as requests would send it, without a slash at the end."""
    request = PreparedRequest()
    try:
        request.prepare_url(api_url, None)
    except ValueError:
        request.url = None
    parts = urlsplit(request.url or "")
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("api_url must be an http:// or https:// URL with a host")
    if "@" in parts.netloc or "?" in api_url or "#" in api_url:
        raise ValueError("api_url must have neither user, query nor fragment")
    return f"{parts.scheme}://{parts.netloc}{parts.path}".rstrip("/")


def _checked(number: int) -> int:
    if type(number) is not int or not 1 <= number <= MAX_ID:
        raise ValueError("ids are whole numbers from 1 to 2**53-1")
    return number
