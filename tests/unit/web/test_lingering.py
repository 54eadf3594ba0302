from __future__ import annotations

import asyncio

from patrolserver_exporter.web.http.protocol import AnswerTransport

HEAD = b"HTTP/1.1 202 Accepted\r\ncontent-length: 2\r\n\r\n"


class Wire(asyncio.Transport):
    """The connection's own transport, as far as an answer needs it."""

    def __init__(self) -> None:
        super().__init__()
        self.sent: list[bytes] = []
        self.is_closed = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Note what is sent."""
        self.sent.append(bytes(data))

    def is_closing(self) -> bool:
        """Whether it was closed."""
        return self.is_closed

    def close(self) -> None:
        """Close."""
        self.is_closed = True

    def get_write_buffer_size(self) -> int:
        """A byte is always on its way."""
        return 1

    def can_write_eof(self) -> bool:
        """As over TLS."""
        return False


def answering() -> tuple[AnswerTransport, Wire]:
    wire = Wire()
    return AnswerTransport(wire, asyncio.get_running_loop(), wire.close), wire


async def _answered(*pieces: bytes) -> list[bytes]:
    answer, wire = answering()
    for piece in pieces:
        answer.write(piece)
    await asyncio.sleep(0)
    return wire.sent


def test_head_and_body_go_in_one_call() -> None:
    """A client gets a short answer in one packet; the parts of a long one follow each other."""
    assert asyncio.run(_answered(HEAD, b"{}")) == [HEAD + b"{}"]
    assert asyncio.run(_answered(HEAD, b"5\r\nhello\r\n", b"0\r\n\r\n")) == [HEAD + b"5\r\nhello\r\n", b"0\r\n\r\n"]


def test_a_long_body_is_not_copied_to_join_the_head() -> None:
    """The head goes first, in a call of its own."""
    body = b"x" * 100_000
    assert asyncio.run(_answered(HEAD, body)) == [HEAD, body]


def test_a_head_whose_body_takes_time_does_not_wait_for_it() -> None:
    """It is sent when the loop comes round: whoever polls for changes sees at once that the request was taken."""

    async def watch() -> tuple[list[bytes], list[bytes]]:
        answer, wire = answering()
        answer.write(HEAD)
        await asyncio.sleep(0)
        early = list(wire.sent)
        answer.write(b"{}")
        return early, wire.sent

    assert asyncio.run(watch()) == ([HEAD], [HEAD, b"{}"])


def test_a_head_is_sent_before_the_end() -> None:
    """However the connection ends: by a close, after a time-out, or by waiting for the client to fall silent."""

    async def ended(how: str) -> list[bytes]:
        answer, wire = answering()
        answer.write(HEAD)
        if how == "close":
            answer.close()
        elif how == "end":
            answer.end(0.0)
        else:
            answer.half_close(0.0)
        answer.write(b"too late")
        await asyncio.sleep(0.01)
        answer.forget()
        return wire.sent

    for how in ("close", "end", "half_close"):
        assert asyncio.run(ended(how)) == [HEAD]
