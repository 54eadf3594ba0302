"""HTTP/1.1 on one connection, with limits of its own for slow clients, and an end that loses no answer."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass, field
from enum import Enum, StrEnum, auto
from typing import TYPE_CHECKING, Any, cast

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from patrolserver_exporter.web.http import requests

if TYPE_CHECKING:
    from collections.abc import Callable

    from uvicorn.config import Config
    from uvicorn.server import ServerState


_STATUS = b"HTTP/1.1 "
_JOINED = 64 * 1024
"""Bytes; a longer piece of a body is not copied to be joined with the head."""


class AnswerTransport(asyncio.Transport):
    """What uvicorn's request cycle writes to, in front of the connection's own transport."""

    def __init__(
        self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop, hang_up: Callable[[], None]
    ) -> None:
        super().__init__()
        self._transport = transport
        self._loop = loop
        self._hang_up = hang_up
        self._written = 0
        self._head = b""
        """A response's head, until its body or the end of the loop's round: one packet and one call take both."""
        self._window: tuple[float, int] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self.is_half_closed = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Send, unless nothing more can be sent: uvicorn's cycle learns a moment later that the connection is gone."""
        if self.is_closing():
            return
        if self._head:
            if len(data) <= _JOINED:
                data = self._head + data
                self._head = b""
            else:
                self._send_head()
        elif data[: len(_STATUS)] == _STATUS:
            self._head = bytes(data)
            self._loop.call_soon(self._send_head)
            return
        self._written += len(data)
        self._transport.write(data)

    def _send_head(self) -> None:
        head, self._head = self._head, b""
        if head and not self._transport.is_closing():
            self._written += len(head)
            self._transport.write(head)

    def is_closing(self) -> bool:
        """Whether nothing more can be sent."""
        return self.is_half_closed or self._transport.is_closing()

    def close(self) -> None:
        """End the connection in the way that fits what the client is doing."""
        self._send_head()
        self._hang_up()

    def half_close(self, seconds: float) -> None:
        """Send no more and take in what the client still sends: closing at once would reset the connection.

        The kernel discards an answer that is still on its way when bytes arrive at a closed socket.
        """
        if self.is_closing():
            return
        self._send_head()
        self.is_half_closed = True
        if self._transport.can_write_eof():
            self._transport.write_eof()
        self._timer = self._loop.call_later(seconds, self.end, seconds)

    def end(self, patience: float) -> None:
        """Close, and after ``patience`` seconds do not wait any longer for the end of TLS."""
        self._send_head()
        self._transport.close()
        self._timer = self._loop.call_later(patience, self._abort_unless_sending)

    def _abort_unless_sending(self) -> None:
        if self._transport.get_write_buffer_size() == 0:
            self._transport.abort()

    def forget(self) -> None:
        """Drop the timers: the connection is gone."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def is_stalled(self, now: float, window: float, progress: int) -> bool:
        """Whether bytes wait to be sent and the client took fewer than ``progress`` of them in ``window`` seconds."""
        unsent = self._transport.get_write_buffer_size()
        taken = self._written - unsent
        if unsent == 0:
            self._window = None
        elif self._window is None or taken - self._window[1] >= progress:
            self._window = (now, taken)
        else:
            return now - self._window[0] >= window
        return False


logger = logging.getLogger(__name__)

_SLICE = 16 * 1024
PROGRESS_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeouts:
    """Seconds. The sum of a limit, ``sweep`` and ``half_closed`` stays under ten: no slow client may stay longer."""

    idle: float = 8.0
    """Without a byte: after connecting, and between two requests."""
    header: float = 8.0
    """For a request's line and headers, all together."""
    body: float = 8.5
    """For a request's body, all together."""
    write: float = 30.0
    """In which a client has to take ``PROGRESS_BYTES`` of its answer, or the rest of it."""
    handshake: float = 8.0
    """For TLS to be agreed on."""
    half_closed: float = 1.0
    """Between the last answer and the end, while the client still sends."""
    sweep: float = 0.25
    """Between two looks at every connection."""


class WebEvent(StrEnum):
    """What happened to a connection or a request without the application's doing; closed, fit for a label."""

    IDLE = "idle"
    HEADER_TIMEOUT = "header_timeout"
    BODY_TIMEOUT = "body_timeout"
    WRITE_TIMEOUT = "write_timeout"
    MALFORMED = "malformed"
    HEADERS_TOO_LARGE = "headers_too_large"
    TOO_MANY_PIPELINED = "too_many_pipelined"
    TOO_MANY_CONNECTIONS = "too_many_connections"
    CERTIFICATE_REFUSED = "certificate_refused"
    INTERNAL_ERROR = "internal_error"


def _ignore(event: WebEvent) -> None:
    """Count nothing."""


def _admit_all(transport: asyncio.Transport) -> bool:
    """Let every client in that TLS let in."""
    return transport is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionLimits:
    """What every connection of a server is held to."""

    timeouts: Timeouts = field(default_factory=Timeouts)
    max_header_bytes: int = 32 * 1024
    max_headers: int = 200
    max_pipelined: int = 64
    """Requests that wait behind one of the same connection; more of them are not answered."""
    max_connections: int = 10_000
    observe: Callable[[WebEvent], None] = _ignore
    admit: Callable[[asyncio.Transport], bool] = _admit_all


class _Reading(Enum):
    NOTHING = auto()
    HEADERS = auto()
    BODY = auto()


class _TooMany(Exception):
    """Breaks off the parser, at a header or a request too many."""


class GuardedProtocol(HttpToolsProtocol):
    """One connection under `ConnectionLimits`."""

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        limits: ConnectionLimits,
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        # uvicorn would write the path, which may hold a webhook's token.
        self.access_log = False
        self._limits = limits
        self._reading = _Reading.NOTHING
        self._since = self.loop.time()
        self._held = 0
        self._unanswered = 0
        self._deaf = False
        self._answer: AnswerTransport = cast("AnswerTransport", None)

    # The life of the connection

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        """Take the connection, unless there are too many or its certificate names nobody who is allowed."""
        super().connection_made(transport)
        self._answer = AnswerTransport(transport, self.loop, self._hang_up)
        if len(self.connections) > self._limits.max_connections:
            self._limits.observe(WebEvent.TOO_MANY_CONNECTIONS)
            self._deaf = True
            self.connections.discard(self)
            transport.write(_answer(503, "There are too many connections."))
            transport.close()
        elif not self._limits.admit(transport):
            self._limits.observe(WebEvent.CERTIFICATE_REFUSED)
            self._reject(403, "The certificate has none of the names in client_allowed_sans.")

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection and its timers."""
        super().connection_lost(exc)
        self._unset_keepalive_if_required()
        self._answer.forget()

    def timeout_keep_alive_handler(self) -> None:
        """Do nothing: `check` closes what idles, and an empty line sent now and then does not deceive it."""

    def check(self, now: float) -> None:
        """Close the connection when it is over one of its limits; ``now`` is the loop's time."""
        timeouts = self._limits.timeouts
        if self._answer.is_stalled(now, timeouts.write, PROGRESS_BYTES):
            self._limits.observe(WebEvent.WRITE_TIMEOUT)
            self.transport.abort()
        elif self._deaf or self._answer.is_half_closed or self.transport.is_closing():
            return
        elif self.flow.read_paused or (self._reading is _Reading.NOTHING and self._is_busy()):
            # It is us who keep the client waiting.
            self._since = now
        elif self._reading is _Reading.NOTHING and now - self._since >= timeouts.idle:
            self._limits.observe(WebEvent.IDLE)
            self._answer.end(timeouts.half_closed)
        elif self._reading is _Reading.HEADERS and now - self._since >= timeouts.header:
            self._limits.observe(WebEvent.HEADER_TIMEOUT)
            self._reject(408, f"The headers were not complete after {timeouts.header:g} seconds.")
        elif self._reading is _Reading.BODY and now - self._since >= timeouts.body:
            self._limits.observe(WebEvent.BODY_TIMEOUT)
            self._reject(408, f"The body was not complete after {timeouts.body:g} seconds.")

    def _is_busy(self) -> bool:
        return self._unanswered > 0 or self.transport.get_write_buffer_size() > 0

    def _hang_up(self) -> None:
        """Close after an answer; a client that still sends its body would otherwise lose the answer to a reset."""
        if self._deaf or self._reading is _Reading.BODY:
            self.flow.resume_reading()
            self._answer.half_close(self._limits.timeouts.half_closed)
        else:
            self.transport.close()

    # What the client sends

    def data_received(self, data: bytes) -> None:
        """Parse what came, in slices: no more headers than the limit and a slice are ever held."""
        self._unset_keepalive_if_required()
        view = memoryview(data)
        for start in range(0, len(view), _SLICE):
            if self._deaf or self._answer.is_half_closed or self.parser is None:
                return
            self._feed(view[start : start + _SLICE])

    def _feed(self, part: memoryview) -> None:
        if self._reading is not _Reading.NOTHING:
            self._held += len(part)
            if self._held > self._limits.max_header_bytes:
                self._refuse_headers()
                return
        try:
            self.parser.feed_data(part)
        except httptools.HttpParserUpgrade:
            self._decline_upgrade()
        except httptools.HttpParserError as error:
            if isinstance(error.__context__, _TooMany) and self._reading is _Reading.NOTHING:
                self._limits.observe(WebEvent.TOO_MANY_PIPELINED)
                self._reject(429, "Too many requests wait for the first one's answer.")
            elif isinstance(error.__context__, _TooMany):
                self._refuse_headers()
            else:
                self._limits.observe(WebEvent.MALFORMED)
                logger.debug("a request was malformed: %s", error)
                self._reject(400, "The request is not well-formed HTTP/1.1.")

    def on_message_begin(self) -> None:
        """Start the clock of the headers."""
        if len(self.pipeline) >= self._limits.max_pipelined:
            raise _TooMany
        super().on_message_begin()
        self._reading = _Reading.HEADERS
        self._since = self.loop.time()
        self._held = 0

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep a header; what trails a chunked body is dropped."""
        if len(self.headers) >= self._limits.max_headers:
            raise _TooMany
        if self._reading is _Reading.HEADERS:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """Start the clock of the body, and the application."""
        super().on_headers_complete()
        self.cycle.transport = self._answer
        self._unanswered += 1
        self._reading = _Reading.BODY
        self._since = self.loop.time()

    def on_body(self, body: bytes) -> None:
        """Hand the body on."""
        self._held = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        """Stop the clock."""
        super().on_message_complete()
        self._reading = _Reading.NOTHING
        self._since = self.loop.time()

    def on_response_complete(self) -> None:
        """Start the next request, or the clock of the idle connection."""
        self._unanswered -= 1
        if self._answer.is_half_closed:
            return
        super().on_response_complete()
        if self._reading is _Reading.NOTHING:
            self._since = self.loop.time()

    # What it may not send

    def _refuse_headers(self) -> None:
        self._limits.observe(WebEvent.HEADERS_TOO_LARGE)
        self._reject(431, f"The request line and headers are over {self._limits.max_header_bytes} bytes, or too many.")

    def _decline_upgrade(self) -> None:
        """Answer in HTTP/1.1 and close: the parser has dropped what follows the headers."""
        if any(name in {b"content-length", b"transfer-encoding"} for name, _ in self.headers):
            self._limits.observe(WebEvent.MALFORMED)
            self._reading = _Reading.BODY
            self._reject(400, "Upgrade is not supported, and not taken together with a body.")
        else:
            self.cycle.keep_alive = False

    def _reject(self, status: int, detail: str) -> None:
        """Answer for the application and close; an answer that is on its way already is not mixed with another."""
        logger.debug("a request was refused with %d: %s", status, detail)
        self._deaf = True
        is_broken_body = self._reading is _Reading.BODY
        if is_broken_body and (self.pipeline or self.cycle.response_started):
            self._answer.end(self._limits.timeouts.half_closed)
        elif self._unanswered and not is_broken_body:
            self.cycle.keep_alive = False
        else:
            if is_broken_body:
                self.cycle.disconnected = True
                self.cycle.message_event.set()
            self._answer.write(_answer(status, detail))
            self._answer.half_close(self._limits.timeouts.half_closed)


def _answer(status: int, detail: str) -> bytes:
    body = requests.document(status, detail=detail)
    head = (
        f"HTTP/1.1 {status} {requests.phrase(status)}\r\ncontent-type: {requests.MEDIA_TYPE}\r\n"
        f"content-length: {len(body)}\r\nconnection: close\r\n\r\n"
    )
    return head.encode("ascii") + body
