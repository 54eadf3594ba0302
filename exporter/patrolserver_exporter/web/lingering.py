"""The side of a connection that answers: it counts what the client takes, and ends without losing the last answer."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


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
        self.is_lingering = False

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
        return self.is_lingering or self._transport.is_closing()

    def close(self) -> None:
        """End the connection in the way that fits what the client is doing."""
        self._send_head()
        self._hang_up()

    def linger(self, seconds: float) -> None:
        """Send no more and take in what the client still sends: closing at once would reset the connection.

        The kernel discards an answer that is still on its way when bytes arrive at a closed socket.
        """
        if self.is_closing():
            return
        self._send_head()
        self.is_lingering = True
        if self._transport.can_write_eof():
            self._transport.write_eof()
        self._timer = self._loop.call_later(seconds, self.end, seconds)

    def end(self, patience: float) -> None:
        """Close, and after ``patience`` seconds do not wait any longer for TLS's farewell."""
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
