"""One HTTP exchange: requests' adapter with limits on time and size, and what may go wrong as this package's errors.

Nothing that comes out of here holds credentials that the API or a library below may have echoed.

The grades D, C and ? are those of docs/patrolserver-api.md.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import io
import re
import ssl
import threading
import time
import zlib
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from functools import partial
from http import client as http
from http.client import HTTPResponse as RawResponse
from itertools import chain
from socket import gaierror
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import urlsplit

from requests import exceptions as requests_errors
from requests.adapters import HTTPAdapter
from requests.utils import DEFAULT_CA_BUNDLE_PATH
from urllib3 import exceptions as urllib3_errors
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

from patrolserver_exporter.patrolserver.envelope import Head, error_in
from patrolserver_exporter.patrolserver.errors import (
    ApiError,
    ConnectionFailed,
    NameNotResolved,
    NotFound,
    PatrolServerError,
    RateLimited,
    RedirectRefused,
    Refused,
    ServerFailure,
    StatusError,
    TimedOut,
    TlsFailed,
    TooLarge,
    UnexpectedStatus,
    Unreadable,
)
from patrolserver_exporter.patrolserver.stream import SMALL, Document, decode_pieces
from patrolserver_exporter.patrolserver.values import clean
from patrolserver_exporter.redaction import redact

if TYPE_CHECKING:
    import socket
    from collections.abc import Iterable, Iterator, Mapping
    from pathlib import Path

    from requests import PreparedRequest
    from urllib3 import HTTPResponse, PoolManager

    from patrolserver_exporter.patrolserver.stream import Limits

REPLY_LIMIT = 4 * 1024 * 1024
"""Bytes of a reply that is no list, both as they come and unpacked."""
WHOLE_REPLY_FACTOR = 3
"""A whole reply may take this many time-outs; each silence within it one."""
PROGRESS_BYTES = 64 * 1024
"""One that may last, a server list, may take as long for each of these."""
IDLE_LIMIT = 1.0
"""Seconds after which a connection is not used again. Servers close idle ones after 2, 5 or 60 seconds, just when the
next call is due, and a call that meets the end fails: none is repeated."""

_CHUNK = 64 * 1024
_GZIP_HEADER = 31  # zlib's word for: gzip only
_GZIP_MAGIC = b"\x1f\x8b"


class _LimitedReader(io.RawIOBase):
    """A socket's reader that gives up at a moment, even if bytes still come slowly."""

    def __init__(self, raw: io.RawIOBase, sock: socket.socket, expires: float) -> None:
        super().__init__()
        self._raw = raw
        self._sock = sock
        self._expires = expires
        self._idle_limit = sock.gettimeout()
        self._patience: float | None = None
        self._since_progress = 0

    def last(self, patience: float) -> None:
        """Go on as long as some bytes come within each ``patience`` seconds."""
        self._patience = patience

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int | None:
        # The machine's real time: this is about a real socket.
        left = self._expires - time.monotonic()
        if left <= 0:
            raise TimeoutError("the whole reply took too long")
        if self._idle_limit is None or left < self._idle_limit:
            self._sock.settimeout(left)
        count = cast("int | None", self._raw.readinto(buffer))
        self._since_progress += count or 0
        if self._patience is not None and self._since_progress >= PROGRESS_BYTES:
            self._since_progress = 0
            self._expires = time.monotonic() + self._patience
            self._sock.settimeout(self._idle_limit)
        return count

    def close(self) -> None:
        self._raw.close()
        super().close()


class _LimitedResponse(RawResponse):
    """http.client's response, headers and chunk sizes included, on a reader with a time limit."""

    def __init__(self, sock: socket.socket, *args: Any, expires: float, **kwargs: Any) -> None:
        super().__init__(sock, *args, **kwargs)
        self.reader = _LimitedReader(self.fp.detach(), sock, expires)
        self.fp = io.BufferedReader(self.reader)


class _LimitedHTTPConnection(HTTPConnection):
    """Gives every answer, a proxy's to CONNECT too, its moment to give up, and is not used again once it idled."""

    response_class: Any
    _answered_at = 0.0

    def _start_time_limit(self) -> None:
        limit = WHOLE_REPLY_FACTOR * float(self.timeout or 0.0)
        self.response_class = partial(_LimitedResponse, expires=time.monotonic() + limit)

    def connect(self) -> None:
        self._start_time_limit()
        super().connect()

    def getresponse(self) -> HTTPResponse:  # type: ignore[override]  # urllib3's own departure from http.client
        self._start_time_limit()
        response = super().getresponse()
        self._answered_at = time.monotonic()
        return response

    @property
    def is_connected(self) -> bool:
        return time.monotonic() - self._answered_at < IDLE_LIMIT and super().is_connected


class _LimitedHTTPSConnection(_LimitedHTTPConnection, HTTPSConnection):
    pass


class _HTTPPool(HTTPConnectionPool):
    ConnectionCls = _LimitedHTTPConnection


class _HTTPSPool(HTTPSConnectionPool):
    ConnectionCls = _LimitedHTTPSConnection


class ApiAdapter(HTTPAdapter):
    """requests' adapter for one base URL.

    Never retries. One TLS context serves all connections: loading the authorities for each costs more than a call.

    Args:
        base_url: where all requests go.
        pool_size: connections at most; further callers wait for one.
        proxy_url: proxy for all of them, or None. The environment is not asked.
        ca_file: authorities to trust in place of certifi's.

    Raises:
        ValueError: ``proxy_url`` is not usable.
        OSError: ``ca_file`` cannot be read, or holds no certificate (``ssl.SSLError``).
    """

    def __init__(self, base_url: str, *, pool_size: int, proxy_url: str | None, ca_file: Path | None) -> None:
        base = urlsplit(base_url)
        self.proxies = {base.scheme: proxy_url} if proxy_url else {}
        self._host = {"scheme": base.scheme, "host": base.hostname, "port": base.port}
        if proxy_url and (urlsplit(proxy_url).scheme not in ("http", "https") or not urlsplit(proxy_url).hostname):
            raise ValueError("proxy_url must be an http:// or https:// URL with a host")
        needs_tls = base.scheme == "https" or (proxy_url or "").lower().startswith("https:")
        self._tls = (
            ssl.create_default_context(cafile=str(ca_file) if ca_file else DEFAULT_CA_BUNDLE_PATH)
            if needs_tls
            else None
        )
        super().__init__(pool_connections=2, pool_maxsize=pool_size, max_retries=0, pool_block=True)

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        """As requests does it, with connections that have a time limit."""
        super().init_poolmanager(*args, **kwargs)
        _limit_time(self.poolmanager)

    def proxy_manager_for(self, proxy: str, **proxy_kwargs: Any) -> Any:
        """As requests does it, with connections that have a time limit, and our authorities for a proxy with TLS."""
        manager = super().proxy_manager_for(proxy, proxy_ssl_context=self._tls, **proxy_kwargs)
        _limit_time(manager)
        return manager

    def build_connection_pool_key_attributes(
        self,
        request: PreparedRequest,  # noqa: ARG002 - requests' signature
        verify: Any,  # noqa: ARG002 - requests' signature
        cert: Any = None,  # noqa: ARG002 - requests' signature
    ) -> Any:
        """The one host, with the one TLS context; known beforehand, so nothing is parsed again for each call."""
        return self._host, {"ssl_context": self._tls, "cert_reqs": "CERT_REQUIRED"} if self._tls else {}

    def cert_verify(self, conn: Any, url: str, verify: Any, cert: Any) -> None:
        """Nothing to set for each call: the TLS context verifies, always."""


def _limit_time(manager: PoolManager) -> None:
    manager.pool_classes_by_scheme = {"http": _HTTPPool, "https": _HTTPSPool}


def read_body(reply: HTTPResponse) -> bytes:
    """Read the body, unpacked, of a reply that is no list.

    Raises:
        TooLarge: it is over the limit, before or after unpacking.
        Unreadable: it is packed in a way that was not asked for, or damaged.
        urllib3.exceptions.HTTPError: the connection failed or was too slow.
    """
    return b"".join(_unpacked(reply, [_read_packed(reply, REPLY_LIMIT)], REPLY_LIMIT))


def read_list(reply: HTTPResponse, limits: Limits, timeout: float, masked: tuple[str, ...]) -> bytes | Document:
    """Read a list's body: what is small as it is, else decoded while it comes, without the ``masked``.

    Raises:
        TooLarge: it is over the limits.
        Unreadable: as above, or it is not JSON.
        urllib3.exceptions.HTTPError: the connection failed or was too slow.
    """
    if limits.lasts:
        original = cast("_LimitedResponse", reply._original_response)  # noqa: SLF001  # urllib3 has no other way to it.
        original.reader.last(WHOLE_REPLY_FACTOR * timeout)
        return _decode_list(_unpacked(reply, _read_pieces(reply, limits.max_bytes), limits.max_bytes), limits, masked)
    packed = _read_packed(reply, limits.max_bytes)
    return _decode_list(_unpacked(reply, [packed], limits.max_bytes), limits, masked)


_UNFOLDING = threading.Lock()
"""Of large lists that need no more of the network, one is unfolded at a time: many small replies may be such."""


def _decode_list(pieces: Iterator[bytes], limits: Limits, masked: tuple[str, ...]) -> bytes | Document:
    begun: list[bytes] = []
    size = 0
    for piece in pieces:
        begun.append(piece)
        size += len(piece)
        if size > SMALL:
            break
    else:
        return b"".join(begun)
    with contextlib.nullcontext() if limits.lasts else _UNFOLDING:
        return decode_pieces(chain(begun, pieces), limits.max_entries, masked)


def _read_packed(reply: HTTPResponse, limit: int) -> bytes:
    return b"".join(_read_pieces(reply, limit))


def _read_pieces(reply: HTTPResponse, limit: int) -> Iterator[bytes]:
    if (reply.length_remaining or 0) > limit:
        raise TooLarge(f"the reply is announced with more than {limit} bytes")
    size = 0
    while chunk := reply.read(_CHUNK, decode_content=False):
        size += len(chunk)
        if size > limit:
            raise TooLarge(f"the reply has more than {limit} bytes")
        yield chunk
        if reply.length_remaining == 0:
            return


def _unpacked(reply: HTTPResponse, pieces: Iterable[bytes], limit: int) -> Iterator[bytes]:
    packing = reply.headers.get("content-encoding", "").strip().lower()
    if packing in ("", "identity"):
        yield from pieces
        return
    if packing not in ("gzip", "x-gzip"):
        raise Unreadable("the reply is packed in a way that was not asked for")
    size = 0
    for piece in _gunzipped(pieces):
        size += len(piece)
        if size > limit:
            raise TooLarge(f"the reply unpacks to more than {limit} bytes")
        yield piece


def _gunzipped(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """Unpack one member of gzip after the other, some bytes at a time; what follows the last one is nothing."""
    unpacker, packed, is_whole = None, b"", False
    for piece in pieces:
        packed += piece
        while packed or unpacker is not None:
            if unpacker is None:
                if len(packed) < len(_GZIP_MAGIC) or not packed.startswith(_GZIP_MAGIC):
                    break
                unpacker, is_whole = zlib.decompressobj(_GZIP_HEADER), False
            try:
                unpacked = unpacker.decompress(packed, _CHUNK)
            except zlib.error:
                raise _damaged() from None
            packed = unpacker.unconsumed_tail
            if unpacked:
                yield unpacked
            if unpacker.eof:
                packed, unpacker, is_whole = unpacker.unused_data, None, True
            elif not unpacked and not packed:
                break
    if not is_whole:
        raise _damaged()


def _damaged() -> Unreadable:
    return Unreadable("the reply's gzip data is damaged or cut short")


_MESSAGE_SHOWN = 256
_CODE_SHOWN = 64
_EXCERPT_SHOWN = 2_000
_EXCERPT_READ = 8_000  # more than is shown, so that a cut leaves no half of a credential
_STATUS_CODE = re.compile(r"([45]\d\d)(?: .*)?", re.ASCII)
_STATUS_OF_WORDS = {"unauthorized": 401, "unauthenticated": 401, "forbidden": 403, "not_found": 404}
_MISSING = re.compile(r"\b(?:does not exist|not found)\b", re.IGNORECASE)


@dataclass(frozen=True, slots=True, repr=False)
class Reply:
    """What came back."""

    status: int
    headers: Mapping[str, str]
    retry_after: float | None
    """Seconds."""
    clock_offset: float | None
    """Seconds that our clock is ahead of the API's ``Date``, which has whole ones; None without a readable one."""
    body: bytes | Document

    @property
    def beginning(self) -> bytes:
        """Of the body, for messages."""
        return self.body.beginning if isinstance(self.body, Document) else self.body


def read_refusal(reply: Reply, secrets: Iterable[str]) -> PatrolServerError | None:
    """What the status says against the reply; None when it is to be read, which finds an error in it too.

    The status decides where it is clear, for it says whether trying again makes sense; the API's words go along.
    """
    if 200 <= reply.status < 300:
        return None
    kind = _status_error(reply.status)
    if kind is RedirectRefused:
        return kind(_describe_redirect(reply.headers.get("Location"), secrets))
    reported = error_in(reply.beginning, Head(secrets=tuple(secrets)))
    if reported is None:
        return kind("")
    error = without_credentials(reported, reply.beginning, secrets)
    return by_its_words(error) if kind is UnexpectedStatus else kind(error.detail)


def by_its_words(error: PatrolServerError) -> PatrolServerError:
    """What an error means whose status does not tell: errors may come with status 200 (C).

    A code that is a status, or names one, means what the status would. So does the one message that is known to say
    that something is not there, ``Bucket does not exist`` (C), about anything. All else stays an ``ApiError``.
    """
    if not isinstance(error, ApiError):
        return error
    code = (error.code or error.message.partition(";")[0]).lower().strip(" .")
    found = _STATUS_CODE.fullmatch(code)
    status = int(found[1]) if found else _STATUS_OF_WORDS.get(code.replace(" ", "_"))
    if status is None and _MISSING.search(error.message):
        status = 404
    kind = UnexpectedStatus if status is None else _status_error(status)
    return error if kind is UnexpectedStatus else kind(error.detail)


def _status_error(status: int) -> type[StatusError]:
    if status in (401, 403):
        return Refused
    if status in (404, 410):
        return NotFound
    if status == 429:
        return RateLimited
    if 300 <= status < 400:
        return RedirectRefused
    return ServerFailure if status >= 500 else UnexpectedStatus


def _describe_redirect(location: str | None, secrets: Iterable[str]) -> str:
    try:
        parts = urlsplit(location or "")
        host = parts.hostname
    except ValueError:
        host = None
    if not host:
        return "the API redirects"
    return clean(redact(f"the API redirects to {host}", secrets), _MESSAGE_SHOWN)


def without_credentials(error: PatrolServerError, body: bytes, secrets: Iterable[str]) -> PatrolServerError:
    """The error about a body, free of credentials that the API may have echoed."""
    if isinstance(error, ApiError):
        code = None if error.code is None else clean(redact(error.code, secrets), _CODE_SHOWN)
        return ApiError(code, clean(redact(error.message, secrets), _MESSAGE_SHOWN))
    if isinstance(error, Unreadable):
        # Without the zeros of another encoding, which would part a credential's letters.
        beginning = body[:_EXCERPT_READ].replace(b"\0", b"").decode("utf-8", "replace")
        error.excerpt = clean(redact(beginning, secrets)[:_EXCERPT_SHOWN], _EXCERPT_SHOWN)
    return error


TRANSPORT_ERRORS = (requests_errors.RequestException, urllib3_errors.HTTPError, http.HTTPException, OSError)
"""All that sending a request and reading its reply may raise."""

_DETAIL_LIMIT = 256
_TLS = (ssl.SSLError, ssl.CertificateError, urllib3_errors.SSLError, requests_errors.SSLError)
_DNS = (gaierror, urllib3_errors.NameResolutionError)
_NO_NAME = (UnicodeError, urllib3_errors.LocationParseError)
"""A label that is empty or too long."""
_TIMEOUT = (TimeoutError, urllib3_errors.ReadTimeoutError, requests_errors.Timeout)
_NO_TLS = {"WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE", "HTTP_REQUEST", "PACKET_LENGTH_TOO_LONG"}
"""OpenSSL's reasons where the other side answered in plain text."""
_NO_HTTP = (http.HTTPException, urllib3_errors.InvalidHeader, requests_errors.InvalidHeader)
_CUT_SHORT = (http.IncompleteRead, urllib3_errors.InvalidChunkLength)


def translate(error: BaseException, secrets: Iterable[str]) -> PatrolServerError:
    """The error of this package that says the same; its text is that of the innermost cause, redacted."""
    chain = list(_unfold(error))
    proxy = "the proxy: " if _any_is(chain, urllib3_errors.ProxyError) else ""
    said = proxy + clean(redact(_innermost_text(chain), secrets), _DETAIL_LIMIT)
    if _any_is(chain, _TIMEOUT):
        return TimedOut(proxy + "no whole reply in time")
    if _any_is(chain, _TLS):
        return TlsFailed(said)
    if _any_is(chain, (*_DNS, *_NO_NAME)):
        why = "it is no name of a host" if _any_is(chain, _NO_NAME) else said.removeprefix(proxy)
        return NameNotResolved(f"{proxy}the host cannot be resolved ({why})")
    if _any_is(chain, _CUT_SHORT):
        return Unreadable("the reply is cut short")
    if any(isinstance(one, _NO_HTTP) and not isinstance(one, http.RemoteDisconnected) for one in chain):
        return Unreadable("the reply is no HTTP")
    return ConnectionFailed(said)


def _any_is(chain: list[BaseException], kinds: type[BaseException] | tuple[type[BaseException], ...]) -> bool:
    return any(isinstance(one, kinds) for one in chain)


def _unfold(error: BaseException) -> Iterator[BaseException]:
    """The error and all that it wraps, outermost first; the libraries keep causes in args, attributes and the chain."""
    seen: set[int] = set()
    waiting: list[object] = [error]
    while waiting:
        one = waiting.pop(0)
        if not isinstance(one, BaseException) or id(one) in seen:
            continue
        seen.add(id(one))
        yield one
        waiting += [*one.args, getattr(one, "reason", None), getattr(one, "original_error", None)]
        waiting += [one.__cause__, one.__context__]


def _innermost_text(chain: list[BaseException]) -> str:
    """What the system said; the texts of the layers above it repeat the URL."""
    for one in reversed(chain):
        if isinstance(one, ssl.SSLCertVerificationError):
            return f"the certificate is not trusted: {one.verify_message}"
        if isinstance(one, ssl.SSLError) and one.reason in _NO_TLS:
            return "what answers there does not speak TLS; is it https:// at all"
        if isinstance(one, ssl.SSLError) and one.reason:
            return f"TLS failed: {one.reason.replace('_', ' ').lower()}"
        if isinstance(one, OSError) and not isinstance(one, requests_errors.RequestException):
            return one.strerror or str(one)
    return "the connection was closed" if _any_is(chain, http.RemoteDisconnected) else type(chain[-1]).__name__


_FOREVER = 1e9  # some thirty years: a number with thousands of digits is no float
_SECONDS = re.compile(r"[+-]?\d+(?:\.\d*)?", re.ASCII)


def read_retry_after(value: str | None, now: float) -> float | None:
    """Seconds to wait, at least 0 and as long as the API likes; None when the header is missing or means nothing.

    Args:
        value: the header: seconds, whole or not, or an HTTP date.
        now: seconds since the epoch, what a date is compared with.
    """
    if value is None:
        return None
    text = value.strip()
    if _SECONDS.fullmatch(text):
        seconds = float(text)
    else:
        moment = _read_date(text)
        if moment is None:
            return None
        seconds = moment - now
    return min(max(seconds, 0.0), _FOREVER)


def read_clock_offset(date: str | None, now: float) -> float | None:
    """Seconds that our clock (``now``, since the epoch) is ahead of the header ``Date``; None if it means nothing."""
    moment = None if date is None else _read_date(date)
    return None if moment is None else now - moment


def _read_date(date: str) -> float | None:
    """An HTTP date in seconds since the epoch."""
    try:
        moment = parsedate_to_datetime(date)
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=dt.UTC)
        return moment.timestamp()
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
