"""What can go wrong with a call to PatrolServer's API.

::

    PatrolServerError
    ├── Unreachable            no reply arrived
    │   ├── NameNotResolved    the host has no address
    │   ├── ConnectionFailed   refused, reset, or the proxy did not let us through
    │   ├── TlsFailed          no trusted encryption
    │   └── TimedOut           no connection or no (whole) reply in time
    ├── StatusError            a reply arrived, and its status says no
    │   ├── Refused            401 or 403: the key or the secret is wrong or revoked (or cannot be read)
    │   ├── NotFound           404 or 410
    │   ├── RateLimited        429
    │   ├── ServerFailure      5xx
    │   ├── RedirectRefused    3xx: redirects are never followed, they would take the credentials elsewhere
    │   └── UnexpectedStatus   anything else but 2xx
    ├── ApiError               the reply holds an ``error``, whatever its status (C)
    └── Unreadable             HTML, cut short, not JSON, of another shape
        └── TooLarge           over the size limit, packed or unpacked

Credentials are in every URL of this API, so no error holds one, and none has a cause or a context: those of the
libraries below would.

The grades D, C and ? are those of docs/patrolserver-api.md.
"""

from __future__ import annotations

from enum import StrEnum
from typing import ClassVar, Self


class FailureReason(StrEnum):
    """Why a call failed: the closed set of the metric's label ``reason``."""

    TIMEOUT = "timeout"
    CONNECT = "connect"
    TLS = "tls"
    DNS = "dns"
    RATE_LIMITED = "rate_limited"
    CREDENTIALS = "credentials"
    NOT_FOUND = "not_found"
    SERVER_ERROR = "server_error"
    API_ERROR = "api_error"
    UNREADABLE = "unreadable"
    TOO_LARGE = "too_large"
    REDIRECT = "redirect"
    OTHER_STATUS = "other_status"

    @classmethod
    def _missing_(cls, value: object) -> FailureReason | None:
        """One that a newer version has written, of an account that it polls."""
        return cls.OTHER_STATUS if isinstance(value, str) else None


class PatrolServerError(Exception):
    """A call that brought no usable reply; the root of all errors of this package.

    Args:
        detail: what happened, free of credentials.
        place: which account and call, as ``account main: servers/12/software``; empty where nobody knows yet.
        status: HTTP status, where a reply arrived.
        retry_after: seconds that the API asks to wait, however long; None when it did not say.
    """

    reason: ClassVar[FailureReason] = FailureReason.UNREADABLE
    advice: ClassVar[str] = ""

    def __init__(
        self, detail: str, *, place: str = "", status: int | None = None, retry_after: float | None = None
    ) -> None:
        self.detail = detail
        self.place = place
        self.status = status
        self.retry_after = retry_after
        self.after_a_part = False
        """Earlier pages of the list arrived."""
        super().__init__(detail)

    def at(self, place: str, *, status: int | None = None, retry_after: float | None = None) -> Self:
        """The same error, told where it happened."""
        self.place = place
        self.status = status
        self.retry_after = retry_after
        return self

    @property
    def leaves_doubt(self) -> bool:
        """The API answered, and not with the whole: it says that it failed, or nothing that can be read.

        Unlike an API that cannot be reached, it may have something to tell that nobody has read.
        """
        return self.after_a_part or (self.status is not None and 200 <= self.status < 300)

    @property
    def what_happened(self) -> str:
        """What happened, without the place and the advice."""
        status = "" if self.status in {None, 200} else f"status {self.status}"
        return ": ".join(part for part in (status, self.detail) if part)

    def __str__(self) -> str:
        status = "" if self.status is None else f"status {self.status}"
        said = ": ".join(part for part in (self.place, status, self.detail) if part)
        return f"{said}; {self.advice}" if self.advice else said

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self)!r})"


class Unreachable(PatrolServerError):
    """No reply arrived."""

    reason = FailureReason.CONNECT


class NameNotResolved(Unreachable):
    """The host of ``api_url`` has no address."""

    reason = FailureReason.DNS
    advice = "check the host in api_url or proxy_url, and this machine's DNS"


class ConnectionFailed(Unreachable):
    """Refused or reset, or the proxy did not let the call through."""

    reason = FailureReason.CONNECT
    advice = "check api_url, proxy_url and the firewall"


class TlsFailed(Unreachable):
    """The other side could not be trusted, or does not speak TLS."""

    reason = FailureReason.TLS
    advice = "check api_url, and set ca_file if the certificate is from an authority of your own"


class TimedOut(Unreachable):
    """No connection in time, or no whole reply."""

    reason = FailureReason.TIMEOUT
    advice = "raise poll.timeout if the API is slow for you"


class StatusError(PatrolServerError):
    """A reply arrived, and its status says no."""

    reason = FailureReason.OTHER_STATUS


class Refused(StatusError):
    """The API refused the credentials, or they could not be read."""

    reason = FailureReason.CREDENTIALS
    advice = "check this account's key and secret"


class NotFound(StatusError):
    """There is no such server or event, or no longer: events are kept 30 days (D)."""

    reason = FailureReason.NOT_FOUND
    advice = "check that api_url is the API's base; what was deleted or is over 30 days old is gone"


class RateLimited(StatusError):
    """Too many calls; ``retry_after`` says for how long, if the API did."""

    reason = FailureReason.RATE_LIMITED
    advice = "lower poll.max_requests_per_minute if this goes on"


class ServerFailure(StatusError):
    """The API failed; the same call may work later."""

    reason = FailureReason.SERVER_ERROR
    advice = "it is tried again later"


class RedirectRefused(StatusError):
    """The API answered with a redirect, which is never followed."""

    reason = FailureReason.REDIRECT
    advice = "redirects are not followed; set api_url to the final address"


class UnexpectedStatus(StatusError):
    """A status with no meaning here."""

    reason = FailureReason.OTHER_STATUS
    advice = "check that api_url is the API's base"


class ApiError(PatrolServerError):
    """A reply with an ``error`` (C).

    Args:
        code: the API's number or word, as text; None where the error had none.
        message: the API's own words, cleaned.
    """

    reason = FailureReason.API_ERROR

    def __init__(self, code: str | None, message: str) -> None:
        self.code = code
        self.message = message
        named = "" if code is None else f" {code}"
        super().__init__(f"the API reports error{named}: {message}" if message else f"the API reports error{named}")


class Unreadable(PatrolServerError):
    """A reply that is not JSON, cut short, or of a shape that means nothing here."""

    reason = FailureReason.UNREADABLE
    advice = "check that api_url is the API's base"
    excerpt: str = ""
    """The reply's first characters for the operator, without credentials; not part of the error's text."""


class TooLarge(Unreadable):
    """A reply over the size limit, packed or unpacked."""

    reason = FailureReason.TOO_LARGE
    advice = "no reply of this API is that large; check api_url"
