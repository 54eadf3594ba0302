"""Lists as CSV (RFC 4180), for spreadsheets: what begins like a formula is text there."""

from __future__ import annotations

import csv
import datetime as dt
import io
import logging
from typing import TYPE_CHECKING

from starlette.responses import Response

from patrolserver_exporter.logs import log_fields
from patrolserver_exporter.store import StoreError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Mapping, Sequence

    from starlette.types import Receive, Scope, Send

MEDIA_TYPE = "text/csv; charset=utf-8; header=present"
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")


def cell(value: object) -> str:
    """A value as a cell; nothing known is an empty one."""
    match value:
        case None:
            return ""
        case bool():
            return "true" if value else "false"
        case dt.datetime():
            return value.isoformat().replace("+00:00", "Z")
        case str():
            # A lone surrogate has no UTF-8, and a NUL ends the text in some programs.
            text = value.encode("utf-8", "replace").decode().replace("\0", "")
            return f"'{text}" if text.startswith(_FORMULA) else text
        case tuple() | list():
            return cell("; ".join(cell(one) for one in value))
        case _:
            return str(value)


def lines(rows: Iterable[Sequence[object]]) -> bytes:
    """Rows as lines of CSV."""
    text = io.StringIO()
    writer = csv.writer(text, quoting=csv.QUOTE_MINIMAL, lineterminator="\r\n")
    writer.writerows([cell(value) for value in row] for row in rows)
    return text.getvalue().encode()


log = logging.getLogger(__name__)


class Streamed(Response):
    """A body that is sent while it is made.

    One that cannot be made to its end is cut off, so that nobody takes it for whole: the connection closes before the
    end that chunks have.
    """

    def __init__(self, parts: AsyncIterator[bytes], headers: Mapping[str, str], status: int = 200) -> None:
        super().__init__(status_code=status, headers=headers)
        del self.headers["content-length"]
        self._parts = parts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it; a HEAD gets the headers alone."""
        del receive
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        if scope["method"] != "HEAD":
            try:
                async for part in self._parts:
                    await send({"type": "http.response.body", "body": part, "more_body": True})
            except StoreError as error:
                log.warning("A list was cut off, since the store cannot be read", extra=log_fields(err=str(error)))
                return
        await send({"type": "http.response.body", "body": b""})


async def begun(parts: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """The same parts, the first of them made already, so that what fails at once fails before anything is sent."""
    first = await anext(parts, b"")

    async def all_of_them() -> AsyncIterator[bytes]:
        yield first
        async for part in parts:
            yield part

    return all_of_them()
