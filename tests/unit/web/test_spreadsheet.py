"""CSV for spreadsheets: nothing is run as a formula, and half a list is not taken for a whole one."""

from __future__ import annotations

import asyncio
import csv
import datetime as dt
import io
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from patrolserver_exporter.store import StoreUnavailable
from patrolserver_exporter.web.spreadsheet import Streamed, begun, cell, lines

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, ""),
        (True, "true"),
        (7, "7"),
        (9.8, "9.8"),
        (dt.datetime(2026, 11, 26, tzinfo=dt.UTC), "2026-11-26T00:00:00Z"),
        (("a", None, "=b"), "a; ; '=b"),
        ("=1+1", "'=1+1"),
        ("@x", "'@x"),
        ("a\0b", "ab"),
        ("\ud800", "?"),
    ],
    ids=str,
)
def test_a_cell(value: object, shown: str) -> None:
    """Nothing known is empty, times are ISO 8601, and what begins like a formula is text."""
    assert cell(value) == shown


@given(st.lists(st.lists(st.text(), min_size=1), min_size=1))
def test_whatever_is_written_is_read_again_and_no_formula(rows: list[list[str]]) -> None:
    """Any reader of CSV gets as many rows and cells, none of which a spreadsheet would run."""
    read = list(csv.reader(io.StringIO(lines(rows).decode(), newline="")))
    assert [len(row) for row in read] == [len(row) for row in rows]
    assert not any(value.startswith(("=", "+", "-", "@")) for row in read for value in row)


def sent(parts: AsyncIterator[bytes], method: str = "GET") -> list[dict[str, Any]]:
    messages: list[dict[str, Any]] = []

    async def send(message: Any) -> None:
        messages.append(message)

    async def receive() -> Any:
        raise AssertionError

    asyncio.run(Streamed(parts, {"content-type": "text/csv"})({"type": "http", "method": method}, receive, send))
    return messages


async def _parts(*parts: bytes, fails: bool = False) -> AsyncIterator[bytes]:
    for part in parts:
        yield part
    if fails:
        raise StoreUnavailable("away")


def test_a_list_is_sent_to_its_end() -> None:
    """The last message says that there is no more; no length was promised."""
    start, first, second, end = sent(_parts(b"a", b"b"))
    assert b"content-length" not in dict(start["headers"])
    assert (first["body"], second["body"]) == (b"a", b"b")
    assert not end.get("more_body")


def test_a_list_that_cannot_be_read_on_is_cut_off() -> None:
    """No last message: the connection closes before its end, which every client tells as an error."""
    messages = sent(_parts(b"a", fails=True))
    assert messages[-1]["more_body"] is True


def test_a_head_gets_no_body() -> None:
    """Nor is anything read for it."""
    assert [message.get("body") for message in sent(_parts(b"a", fails=True), "HEAD")] == [None, b""]


def test_what_fails_at_once_fails_before_anything_is_sent() -> None:
    """So it can be answered with an error and not with a broken list."""

    async def begin() -> list[bytes]:
        return [part async for part in await begun(_parts(b"a", b"b"))]

    assert asyncio.run(begin()) == [b"a", b"b"]
    with pytest.raises(StoreUnavailable):
        asyncio.run(begun(_parts(fails=True)))
