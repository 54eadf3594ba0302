"""Faults: how the API misbehaves by order of a test, for the calls that a pattern picks."""

from __future__ import annotations

import re
import threading
import time
import zlib
from email.utils import formatdate
from enum import StrEnum
from fnmatch import fnmatchcase
from functools import lru_cache
from typing import TYPE_CHECKING, Annotated, Any, Generic, TypeVar

import msgspec
from msgspec import Meta

from .exchange import Answer, Exchange
from .fleet import dice
from .wire import php_json

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

_PAGE = b"<!DOCTYPE html>\n<html><head><title>Gateway</title></head><body><h1>Please stand by</h1></body></html>\n"
_RELATIVE_DATE = re.compile(r"date([+-]\d{1,9})?", re.ASCII)
_GARBAGE = b'{"data":[{"id":1,"name":"web-01.example.org",]]'


class FaultKind(StrEnum):
    """What goes wrong."""

    LATENCY = "latency"
    """The answer comes ``seconds`` later; it adds to other faults."""
    STATUS = "status"
    """An error with ``status``; with ``retry_after`` also that header."""
    RATE_LIMIT = "rate_limit"
    """429 with ``retry_after``: seconds, a date, negative or huge, as written."""
    HTML = "html"
    """A page with ``status``, 200 unless told, instead of JSON."""
    GARBAGE = "garbage"
    """200 and JSON that cannot be read."""
    HALF_BODY = "half_body"
    """The true answer, cut in the middle, and the connection closed."""
    GZIP_BOMB = "gzip_bomb"
    """A true, empty answer behind ``bytes`` of blanks, compressed to a thousandth."""
    REDIRECT = "redirect"
    """302 to ``location``."""
    HANG = "hang"
    """No answer for ``seconds``, then the connection closes."""
    ERROR_200 = "error_200"
    """Status 200 with ``error`` in the body, in any form."""


class Fault(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One fault and the calls it is for.

    ``path`` is a glob on the path without the prefix (``servers/*/software``); ``method`` narrows it; ``count`` ends it
    after that many calls, and ``probability`` lets some calls through. All times are seconds.
    """

    kind: FaultKind
    path: str = "*"
    method: str | None = None
    count: Annotated[int, Meta(ge=0)] | None = None
    probability: Annotated[float, Meta(ge=0, le=1)] = 1.0
    seconds: Annotated[float, Meta(ge=0, le=1e9)] = 30.0
    status: Annotated[int, Meta(ge=200, le=599)] | None = None
    retry_after: str | int | float | None = None
    location: str = "http://127.0.0.1:9/"
    bytes: Annotated[int, Meta(ge=0, le=2**32)] = 64 * 1024 * 1024
    error: Any = "Something went wrong"

    def __post_init__(self) -> None:
        for header in (str(self.retry_after), self.location):
            if not header.isprintable():
                raise ValueError("a header holds printable text only")


Rule = TypeVar("Rule", bound=msgspec.Struct)


class InForce(Generic[Rule]):
    """What a test has ordered and not yet ended, numbered, with how often each of it was applied."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._rules: dict[int, Rule] = {}
        self._hits: dict[int, int] = {}
        self._next = 1

    def add(self, rule: Rule) -> int:
        """Put it in force; its id."""
        with self._lock:
            number = self._next
            self._next += 1
            self._rules[number] = rule
            self._hits[number] = 0
            return number

    def clear(self, number: int | None = None) -> None:
        """End one, or all."""
        with self._lock:
            if number is None:
                self._rules.clear()
                self._hits.clear()
            else:
                self._rules.pop(number, None)
                self._hits.pop(number, None)

    def documents(self) -> list[dict[str, object]]:
        """What is in force, with ``id`` and ``hits``."""
        with self._lock:
            return [
                {"id": number, "hits": self._hits[number], **msgspec.to_builtins(rule)}
                for number, rule in self._rules.items()
            ]


class Faults(InForce[Fault]):
    """The faults in force; asked by the API at every call."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self._chance = dice(seed, "faults")

    def striking(self, method: str, path: str) -> Sequence[Fault]:
        """The faults for this call: any latency, and at most one other, the oldest; each is counted."""
        if not self._rules:
            return ()
        struck: list[Fault] = []
        with self._lock:
            for number, fault in self._rules.items():
                ended = bool(struck) and struck[-1].kind is not FaultKind.LATENCY
                if not ended and self._applies(number, fault, method, path):
                    self._hits[number] += 1
                    struck.append(fault)
        return struck

    def _applies(self, number: int, fault: Fault, method: str, path: str) -> bool:
        return (
            (fault.method is None or fault.method.upper() == method)
            and (fault.count is None or self._hits[number] < fault.count)
            and fnmatchcase(path, fault.path)
            and (fault.probability >= 1.0 or self._chance.random() < fault.probability)
        )


@lru_cache(maxsize=4)
def gzip_bomb(size: int) -> bytes:
    """``size`` bytes of blanks and then an empty answer, as one gzip member of about a thousandth."""
    piece = 1024 * 1024
    blanks, tail = b" " * piece, b" " * (size % piece) + b'{"data":[]}'
    deflate = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    # A full flush forgets what came before, so that the same bytes can follow again and again.
    block = deflate.compress(blanks) + deflate.flush(zlib.Z_FULL_FLUSH)
    whole, crc = size // piece, 0
    for _ in range(whole):
        crc = zlib.crc32(blanks, crc)
    crc = zlib.crc32(tail, crc)
    end = deflate.compress(tail) + deflate.flush()
    length = (whole * piece + len(tail)) & 0xFFFFFFFF
    head = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x02\xff"
    return head + block * whole + end + crc.to_bytes(4, "little") + length.to_bytes(4, "little")


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
