"""A request's body, read under limits.

BodyError          no body came that may be used; knows its answer
├── BodyTooLarge   413: over the limit, whether Content-Length says so or the bytes do
├── BodyEncoded    415: a Content-Encoding, which would hide the true size
├── BodyStalled    408: not complete in time
└── ClientGone     the client hung up: nobody is left to answer
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, ClassVar

from patrolserver_exporter.web.problems import Problem

if TYPE_CHECKING:
    from starlette.types import Receive, Scope

MAX_BODY_BYTES = 16 * 1024
BODY_TIMEOUT = 8.0
"""Seconds for the whole body; a little under the connection's own limit, so that the answer has a reason in it."""


class BodyError(Exception):
    """No body came that may be used."""

    status: ClassVar[int] = 400
    headers: ClassVar[dict[str, str]] = {}

    def problem(self) -> Problem:
        """Return the answer that fits."""
        return Problem(self.status, detail=str(self), headers=self.headers)


class BodyTooLarge(BodyError):
    """The body is over the limit."""

    status = 413


class BodyEncoded(BodyError):
    """The body is compressed or otherwise encoded."""

    status = 415
    headers: ClassVar[dict[str, str]] = {"accept-encoding": "identity"}


class BodyStalled(BodyError):
    """The body did not come in time."""

    status = 408
    headers: ClassVar[dict[str, str]] = {"connection": "close"}


class ClientGone(BodyError):
    """The client hung up."""


async def read_body(
    scope: Scope,
    receive: Receive,
    limit: int = MAX_BODY_BYTES,
    timeout: float = BODY_TIMEOUT,  # noqa: ASYNC109 - a limit like the other
) -> bytes:
    """Return the whole body, of at most ``limit`` bytes, that came within ``timeout`` seconds.

    Raises `BodyTooLarge` (without reading, where Content-Length already says so), `BodyEncoded`, `BodyStalled` and
    `ClientGone`.
    """
    _check_headers(scope, limit)
    body = bytearray()
    try:
        async with asyncio.timeout(timeout):
            more = True
            while more:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise ClientGone("The client hung up before its request was complete.")
                body += message.get("body", b"")
                if len(body) > limit:
                    raise BodyTooLarge(f"The body is over {limit} bytes.")
                more = message.get("more_body", False)
    except TimeoutError:
        raise BodyStalled(f"The body was not complete after {timeout:g} seconds.") from None
    return bytes(body)


def _check_headers(scope: Scope, limit: int) -> None:
    for name, value in scope["headers"]:
        if name == b"content-encoding" and value.strip().lower() not in {b"", b"identity"}:
            raise BodyEncoded("Send the body without Content-Encoding.")
        # The parser only lets digits through, as many as fit into 64 bits.
        if name == b"content-length" and int(value) > limit:
            raise BodyTooLarge(f"The body is over {limit} bytes.")
