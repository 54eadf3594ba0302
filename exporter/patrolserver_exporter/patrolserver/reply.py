"""A reply before it is read: what its status says, and errors about it without credentials that it may echo."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from patrolserver_exporter.patrolserver.envelope import error_in
from patrolserver_exporter.patrolserver.errors import (
    ApiError,
    NotFound,
    PatrolServerError,
    RateLimited,
    RedirectRefused,
    Refused,
    ServerFailure,
    StatusError,
    UnexpectedStatus,
    Unreadable,
)
from patrolserver_exporter.patrolserver.redaction import redact
from patrolserver_exporter.patrolserver.text import clean

if TYPE_CHECKING:
    from collections.abc import Iterable

_MESSAGE_SHOWN = 256
_CODE_SHOWN = 64
_EXCERPT_SHOWN = 2_000
_EXCERPT_READ = 8_000  # more than is shown, so that a cut leaves no half of a credential
_STATUS_CODE = re.compile(r"[45]\d\d", re.ASCII)
_STATUS_OF_WORDS = {"unauthorized": 401, "unauthenticated": 401, "forbidden": 403, "not_found": 404}
_MISSING = re.compile(r"\b(?:does not exist|not found)\b", re.IGNORECASE)


@dataclass(frozen=True, slots=True, repr=False)
class Reply:
    """What came back."""

    status: int
    retry_after: float | None
    """Seconds."""
    redirect_to: str | None
    """The header ``Location``, as it came."""
    body: bytes


def read_refusal(reply: Reply, secrets: Iterable[str]) -> PatrolServerError | None:
    """What the status says against the reply; None when it is to be read, which finds an error in it too.

    The status decides where it is clear, for it says whether trying again makes sense; the API's words go along.
    """
    if 200 <= reply.status < 300:
        return None
    kind = _status_error(reply.status)
    if kind is RedirectRefused:
        return kind(_describe_redirect(reply.redirect_to, secrets))
    reported = error_in(reply.body)
    if reported is None:
        return kind("")
    error = without_credentials(reported, reply.body, secrets)
    return by_its_words(error) if kind is UnexpectedStatus else kind(error.detail)


def by_its_words(error: PatrolServerError) -> PatrolServerError:
    """What an error means whose status does not tell: errors may come with status 200 (C).

    A code that is a status, or names one, means what the status would. So does the one message that is known to say
    that something is not there, ``Bucket does not exist`` (C), about anything. All else stays an ``ApiError``.
    """
    if not isinstance(error, ApiError):
        return error
    code = (error.code or "").lower()
    status = int(code) if _STATUS_CODE.fullmatch(code) else _STATUS_OF_WORDS.get(code.replace(" ", "_"))
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
        beginning = body[:_EXCERPT_READ].decode("utf-8", "replace")
        error.excerpt = clean(redact(beginning, secrets)[:_EXCERPT_SHOWN], _EXCERPT_SHOWN)
    return error
