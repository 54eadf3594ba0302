"""A request's body, read under limits.

BodyError          no body came that may be used; knows its answer
├── BodyTooLarge   413: over the limit, whether Content-Length says so or the bytes do
├── BodyEncoded    415: a Content-Encoding, which would hide the true size
└── ClientGone     the client hung up, or took too long and had its answer from the connection's guard
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from patrolserver_exporter.web.http.problems import Problem

if TYPE_CHECKING:
    from starlette.types import Receive, Scope

MAX_BODY_BYTES = 16 * 1024


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


class ClientGone(BodyError):
    """Nobody waits for an answer any more."""


async def read_body(scope: Scope, receive: Receive, limit: int = MAX_BODY_BYTES) -> bytes:
    """Return the whole body, of at most ``limit`` bytes; the connection's guard sees to it that it comes in time.

    Raises `BodyTooLarge` (without reading, where Content-Length already says so), `BodyEncoded` and `ClientGone`.
    """
    _check_headers(scope, limit)
    body, more = bytearray(), True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientGone("The client hung up before its request was complete.")
        body += message.get("body", b"")
        if len(body) > limit:
            raise BodyTooLarge(f"The body is over {limit} bytes.")
        more = message.get("more_body", False)
    return bytes(body)


def _check_headers(scope: Scope, limit: int) -> None:
    for name, value in scope["headers"]:
        if name == b"content-encoding" and value.strip().lower() not in {b"", b"identity"}:
            raise BodyEncoded("Send the body without Content-Encoding.")
        # The parser only lets digits through, as many as fit into 64 bits.
        if name == b"content-length" and int(value) > limit:
            raise BodyTooLarge(f"The body is over {limit} bytes.")
