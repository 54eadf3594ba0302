"""How an answer goes wrong, by order of a fault."""

from __future__ import annotations

import re
import time
from email.utils import formatdate
from typing import TYPE_CHECKING

from .exchange import Answer, Exchange
from .faults import Fault, FaultKind, gzip_bomb
from .wire import php_json

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    Pause = Callable[[float], Awaitable[None]]

_PAGE = b"<!DOCTYPE html>\n<html><head><title>Gateway</title></head><body><h1>Please stand by</h1></body></html>\n"
_RELATIVE_DATE = re.compile(r"date([+-]\d{1,9})?", re.ASCII)
_GARBAGE = b'{"data":[{"id":1,"name":"web-01.example.org",]]'


def faulty(fault: Fault, answer: Answer) -> Answer:
    """What is sent instead of ``answer``: itself, where the fault is in how it is sent."""
    return answer if fault.kind in {FaultKind.HANG, FaultKind.HALF_BODY} else _wrong(fault, time.time())


async def misbehave(
    fault: Fault, answer: Answer, exchange: Exchange, pause: Callable[[float], Awaitable[None]]
) -> None:
    """Send the faulty answer, half of it, or nothing."""
    match fault.kind:
        case FaultKind.HANG:
            await exchange.close_after(pause(fault.seconds))
        case FaultKind.HALF_BODY:
            await exchange.answer(answer, cut=max(1, len(answer.body) // 2))
        case _:
            await exchange.answer(answer)


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
    if relative := _RELATIVE_DATE.fullmatch(text):
        text = formatdate(now + float(relative[1] or 0), usegmt=True)
    return b"retry-after", text.encode("latin-1", errors="replace")
