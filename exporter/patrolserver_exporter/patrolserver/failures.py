"""From what requests, urllib3 and the sockets below raise to this package's errors, with nothing of theirs kept."""

from __future__ import annotations

import ssl
from http import client as http
from socket import gaierror
from typing import TYPE_CHECKING

from requests import exceptions as requests_errors
from urllib3 import exceptions as urllib3_errors

from patrolserver_exporter.patrolserver.errors import (
    ConnectionFailed,
    NameNotResolved,
    PatrolServerError,
    TimedOut,
    TlsFailed,
    Unreadable,
)
from patrolserver_exporter.patrolserver.redaction import redact
from patrolserver_exporter.patrolserver.text import clean

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

TRANSPORT_ERRORS = (requests_errors.RequestException, urllib3_errors.HTTPError, http.HTTPException, OSError)
"""All that sending a request and reading its reply may raise."""

_DETAIL_LIMIT = 256
_TLS = (ssl.SSLError, ssl.CertificateError, urllib3_errors.SSLError, requests_errors.SSLError)
_DNS = (gaierror, urllib3_errors.NameResolutionError)
_TIMEOUT = (TimeoutError, urllib3_errors.ReadTimeoutError, requests_errors.Timeout)
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
    if _any_is(chain, _DNS):
        return NameNotResolved(said)
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
        if isinstance(one, OSError) and not isinstance(one, requests_errors.RequestException):
            return one.strerror or str(one)
    return "the connection was closed" if _any_is(chain, http.RemoteDisconnected) else type(chain[-1]).__name__
