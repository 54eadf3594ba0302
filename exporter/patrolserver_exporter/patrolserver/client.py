"""The client: one account's calls to PatrolServer's API, each made once, bounded in time and size."""

from __future__ import annotations

import time
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import quote, urlsplit

from requests import PreparedRequest
from requests.structures import CaseInsensitiveDict

from patrolserver_exporter import __version__
from patrolserver_exporter.clock import SystemClock
from patrolserver_exporter.patrolserver import wire
from patrolserver_exporter.patrolserver.errors import ConnectionFailed, PatrolServerError, Reason, Refused
from patrolserver_exporter.patrolserver.models import MAX_ID
from patrolserver_exporter.patrolserver.redaction import keep_urls_out_of_logs
from patrolserver_exporter.patrolserver.transport import (
    TRANSPORT_ERRORS,
    ApiAdapter,
    Reply,
    by_its_words,
    read_body,
    read_refusal,
    read_retry_after,
    translate,
    without_credentials,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from requests import Response

    from patrolserver_exporter.clock import Clock
    from patrolserver_exporter.patrolserver.models import Event, Parsed, Server, Software

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
    reason: Reason | None
    """Why it failed; None when it did not."""


class PatrolServerClient:
    """One account's calls. Threads may share it; it holds connections until ``close``.

    No call is repeated and no redirect followed. A call takes at most ``timeout`` to connect to each address, then
    ``timeout`` for each silence and three times that for the whole reply; the system's resolver has limits of its own.
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
        observer: told about each call, in the calling thread, before the call returns or raises.
        clock: what a ``Retry-After`` with a date is compared with.

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
        clock: Clock | None = None,
    ) -> None:
        keep_urls_out_of_logs()
        self._account = account
        self._base = _normal_base(api_url)
        self._credentials = credentials
        self._timeout = timeout
        self._proxy_url = proxy_url
        self._observer = observer
        self._clock = clock or SystemClock()
        self._adapter = ApiAdapter(self._base, pool_size=pool_size, proxy_url=proxy_url, ca_file=ca_file)
        self._closed = False
        self._follows_scope = False
        self._headers = CaseInsensitiveDict(
            {
                "Accept": "application/json",
                "Accept-Encoding": "gzip",
                "User-Agent": f"patrolserver-exporter/{__version__}",
            }
        )

    def servers(self) -> Parsed[tuple[Server, ...]]:
        """The account's servers (C). When not ``complete``, a server that is missing may still exist."""
        return self._call(Endpoint.SERVERS, "servers", wire.parse_servers)

    def server(self, server_id: int) -> Parsed[Server]:
        """One server (C)."""
        return self._call(Endpoint.SERVER, f"servers/{_checked(server_id)}", wire.parse_server)

    def software(self, server_id: int) -> Parsed[tuple[Software, ...]]:
        """The software installed on a server, with its exploits (C); unless ``complete``, there may be more.

        Once some software came with exploits, the API is known to follow the scope: what comes without then has none.
        """
        path = f"servers/{_checked(server_id)}/software"
        return self._call(Endpoint.SOFTWARE, path, self._parse_software, "scope=exploits")

    def expect_exploits(self) -> None:
        """Take the API for one that follows the scope, because it did before this client was built."""
        self._follows_scope = True

    def is_scanning(self, server_id: int) -> bool:
        """Whether a server is being scanned now (C)."""
        return self._call(Endpoint.IS_SCANNING, f"servers/{_checked(server_id)}/isScanning", wire.parse_is_scanning)

    def event(self, webhook_id: int, event_id: int) -> Parsed[Event]:
        """An event's data, kept for at most 30 days (D)."""
        path = f"webhooks/{_checked(webhook_id)}/events/{_checked(event_id)}"
        return self._call(Endpoint.EVENT, path, wire.parse_event)

    def close(self) -> None:
        """Close the connections; a call that is under way ends as it would have, later ones fail."""
        self._closed = True
        self._adapter.close()

    def _parse_software(self, body: bytes) -> Parsed[tuple[Software, ...]]:
        parsed = wire.parse_software(body, follows_scope=self._follows_scope)
        if not self._follows_scope and any(one.exploits is not None for one in parsed.value):
            self._follows_scope = True
        return parsed

    def _call(self, endpoint: Endpoint, path: str, parse: Callable[[bytes], T], query: str = "") -> T:
        started = time.perf_counter()
        outcome = self._attempt(path, parse, query)
        failure = outcome if isinstance(outcome, PatrolServerError) else None
        seconds = time.perf_counter() - started
        self._observer(ApiCall(self._account, endpoint, seconds, failure.reason if failure else None))
        if isinstance(outcome, PatrolServerError):
            # Raised here and not where it was caught: there it would carry the libraries' errors, and their URLs,
            # as its context, and frames with credentials in its traceback.
            outcome.__traceback__ = outcome.__context__ = None
            raise outcome
        return outcome

    def _attempt(self, path: str, parse: Callable[[bytes], T], query: str) -> T | PatrolServerError:
        place = f"account {self._account}: {path}"
        try:
            key, secret = self._credentials()
            pair = f"key={quote(key, safe='')}&secret={quote(secret, safe='')}"
        except (OSError, ValueError) as error:
            return Refused(f"the credentials cannot be read ({type(error).__name__})", place=place)
        if not key or not secret:
            return Refused("the key or the secret is empty", place=place)
        secrets = (key, secret, self._proxy_url or "")
        url = f"{self._base}/{path}?{pair}&{query}" if query else f"{self._base}/{path}?{pair}"
        reply = self._exchange(url, secrets)
        if isinstance(reply, PatrolServerError):
            return reply.at(place, status=reply.status, retry_after=reply.retry_after)
        refusal = read_refusal(reply, secrets)
        if refusal is not None:
            return refusal.at(place, status=reply.status, retry_after=reply.retry_after)
        try:
            return parse(reply.body)
        except PatrolServerError as error:
            told = by_its_words(without_credentials(error, reply.body, secrets))
            return told.at(place, status=reply.status, retry_after=reply.retry_after)

    def _exchange(self, url: str, secrets: tuple[str, ...]) -> Reply | PatrolServerError:
        """Send the request and read the reply, whatever it says."""
        if self._closed:
            return ConnectionFailed("the client is closed")
        request = PreparedRequest()
        request.method, request.url, request.headers = "GET", url, self._headers
        response: Response | None = None
        status, retry_after, redirect_to = None, None, None
        try:
            response = self._adapter.send(request, stream=True, timeout=self._timeout, proxies=self._adapter.proxies)
            status = response.status_code
            retry_after = read_retry_after(response.headers.get("Retry-After"), self._clock.now())
            redirect_to = response.headers.get("Location")
            return Reply(status, retry_after, redirect_to, read_body(response.raw))
        except TRANSPORT_ERRORS as error:
            failure = translate(error, secrets)
        except PatrolServerError as error:
            failure = error
        finally:
            if response is not None:
                response.close()
        if status is not None and not 200 <= status < 300:
            # The status tells more than the failure to read the rest.
            return Reply(status, retry_after, redirect_to, b"")
        return failure.at("", status=status, retry_after=retry_after)


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
