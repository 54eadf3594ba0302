"""How a request travels: requests' adapter with one TLS context, and limits on the time and size of whole replies."""

from __future__ import annotations

import io
import ssl
import time
import zlib
from functools import partial
from http.client import HTTPResponse as RawResponse
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import urlsplit

from requests.adapters import HTTPAdapter
from requests.utils import DEFAULT_CA_BUNDLE_PATH
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

from patrolserver_exporter.patrolserver.errors import TooLarge, Unreadable

if TYPE_CHECKING:
    import socket
    from pathlib import Path

    from requests import PreparedRequest
    from urllib3 import HTTPResponse, PoolManager

REPLY_LIMIT = 4 * 1024 * 1024
"""Bytes of a reply, both as they come and unpacked."""
WHOLE_REPLY_FACTOR = 3
"""A whole reply may take this many time-outs; each silence within it one."""
IDLE_LIMIT = 1.0
"""Seconds after which a connection is not used again. Servers close idle ones after 2, 5 or 60 seconds, just when the
next call is due, and a call that meets the end fails: none is repeated."""

_CHUNK = 64 * 1024
_GZIP_HEADER = 31  # zlib's word for: gzip only
_GZIP_MAGIC = b"\x1f\x8b"


class _LimitedReader(io.RawIOBase):
    """A socket's reader that gives up at a moment, however steadily the bytes drip in."""

    def __init__(self, raw: io.RawIOBase, sock: socket.socket, expires: float) -> None:
        super().__init__()
        self._raw = raw
        self._sock = sock
        self._expires = expires
        self._idle_limit = sock.gettimeout()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int | None:
        # The machine's real time: this is about a real socket.
        left = self._expires - time.monotonic()
        if left <= 0:
            raise TimeoutError("the whole reply took too long")
        if self._idle_limit is None or left < self._idle_limit:
            self._sock.settimeout(left)
        return cast("int | None", self._raw.readinto(buffer))

    def close(self) -> None:
        self._raw.close()
        super().close()


class _LimitedResponse(RawResponse):
    """http.client's response, headers and chunk sizes included, on a reader with a time limit."""

    def __init__(self, sock: socket.socket, *args: Any, expires: float, **kwargs: Any) -> None:
        super().__init__(sock, *args, **kwargs)
        raw = self.fp.detach()
        self.fp = io.BufferedReader(_LimitedReader(raw, sock, expires))


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
    """Read a reply's body, unpacked.

    Raises:
        TooLarge: it is over the limit, before or after unpacking.
        Unreadable: it is packed in a way that was not asked for, or damaged.
        urllib3.exceptions.HTTPError: the connection failed or was too slow.
    """
    if (reply.length_remaining or 0) > REPLY_LIMIT:
        raise TooLarge(f"the reply is announced with more than {REPLY_LIMIT} bytes")
    packed = _read_capped(reply)
    packing = reply.headers.get("content-encoding", "").strip().lower()
    if packing in ("", "identity"):
        return packed
    if packing in ("gzip", "x-gzip"):
        return _unpack(packed)
    raise Unreadable("the reply is packed in a way that was not asked for")


def _read_capped(reply: HTTPResponse) -> bytes:
    chunks: list[bytes] = []
    size = 0
    while chunk := reply.read(_CHUNK, decode_content=False):
        chunks.append(chunk)
        size += len(chunk)
        if size > REPLY_LIMIT:
            raise TooLarge(f"the reply has more than {REPLY_LIMIT} bytes")
        if reply.length_remaining == 0:
            break
    return chunks[0] if len(chunks) == 1 else b"".join(chunks)


def _unpack(packed: bytes) -> bytes:
    unpacked = b""
    damaged = False
    while packed.startswith(_GZIP_MAGIC):
        unpacker = zlib.decompressobj(_GZIP_HEADER)
        try:
            unpacked += unpacker.decompress(packed, REPLY_LIMIT + 1 - len(unpacked))
        except zlib.error:
            damaged = True
            break
        if len(unpacked) > REPLY_LIMIT:
            raise TooLarge(f"the reply unpacks to more than {REPLY_LIMIT} bytes")
        damaged = not unpacker.eof
        packed = unpacker.unused_data
    if damaged or not unpacked:
        raise Unreadable("the reply's gzip data is damaged or cut short")
    return unpacked
