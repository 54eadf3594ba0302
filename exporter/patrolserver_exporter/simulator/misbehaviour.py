"""How an answer is sent, as it should be or as a fault has it."""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import dataclass
from email.utils import formatdate
from typing import TYPE_CHECKING

from .faults import Fault, FaultKind, gzip_bomb
from .wire import php_json

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from starlette.types import Receive, Send

_PAGE = b"<!DOCTYPE html>\n<html><head><title>Gateway</title></head><body><h1>Please stand by</h1></body></html>\n"
_GARBAGE = b'{"data":[{"id":1,"name":"web-01.example.org",]]'


@dataclass(frozen=True, slots=True)
class Answer:
    """Status, body and what headers it needs besides."""

    status: int
    body: bytes
    content_type: str = "application/json"
    headers: tuple[tuple[bytes, bytes], ...] = ()


async def send_answer(send: Send, answer: Answer, *, cut: int | None = None) -> int:
    """Send it, or with ``cut`` only so many bytes of a body that was announced in full; its status."""
    headers = [
        (b"content-type", answer.content_type.encode()),
        (b"content-length", b"%d" % len(answer.body)),
        *answer.headers,
    ]
    await send({"type": "http.response.start", "status": answer.status, "headers": headers})
    body = answer.body if cut is None else answer.body[:cut]
    await send({"type": "http.response.body", "body": body, "more_body": cut is not None})
    return answer.status


async def misbehave(
    fault: Fault,
    answer: Answer,
    receive: Receive,
    send: Send,
    pause: Callable[[float], Awaitable[None]],
) -> int:
    """Answer as the fault has it; the status sent, 0 for none."""
    match fault.kind:
        case FaultKind.HANG:
            _expect_unfinished()
            await _until_gone(receive, pause(fault.seconds))
            return 0
        case FaultKind.HALF_BODY:
            _expect_unfinished()
            return await send_answer(send, answer, cut=max(1, len(answer.body) // 2))
        case _:
            return await send_answer(send, _wrong(fault, time.time()))


def _wrong(fault: Fault, now: float) -> Answer:
    match fault.kind:
        case FaultKind.RATE_LIMIT:
            retry = fault.retry_after if fault.retry_after is not None else 1
            answer = _failed(fault.status or 429, "Too many requests.", (_retry_after(retry, now),))
        case FaultKind.HTML:
            answer = Answer(fault.status or 200, _PAGE, "text/html; charset=utf-8")
        case FaultKind.GARBAGE:
            answer = Answer(fault.status or 200, _GARBAGE)
        case FaultKind.GZIP_BOMB:
            answer = Answer(200, gzip_bomb(fault.bytes), headers=((b"content-encoding", b"gzip"),))
        case FaultKind.REDIRECT:
            answer = Answer(fault.status or 302, b"", headers=((b"location", fault.location.encode()),))
        case FaultKind.ERROR_200:
            answer = Answer(200, php_json({"error": fault.error}))
        case _:
            headers = () if fault.retry_after is None else (_retry_after(fault.retry_after, now),)
            answer = _failed(fault.status or 500, "Something went wrong.", headers)
    return answer


def _failed(status: int, message: str, headers: tuple[tuple[bytes, bytes], ...]) -> Answer:
    return Answer(status, php_json({"error": {"code": status, "message": message}}), headers=headers)


def _retry_after(value: str | float, now: float) -> tuple[bytes, bytes]:
    """The header as written; ``date+30`` is the HTTP date 30 seconds from now."""
    text = str(value)
    if text.startswith("date"):
        text = formatdate(now + float(text.removeprefix("date") or 0), usegmt=True)
    return b"retry-after", text.encode("latin-1", errors="replace")


async def _until_gone(receive: Receive, pause: Awaitable[None]) -> None:
    waits = {asyncio.ensure_future(pause), asyncio.ensure_future(_disconnect(receive))}
    _, pending = await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    for task in pending:
        task.cancel()
    await asyncio.gather(*pending, return_exceptions=True)


async def _disconnect(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


class _Unfinished(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        return "returned without" not in record.getMessage()


_UNFINISHED = _Unfinished()


def _expect_unfinished() -> None:
    """The server closes the connection of an answer that is not finished, and would log it as an error of ours."""
    logging.getLogger("uvicorn.error").addFilter(_UNFINISHED)
