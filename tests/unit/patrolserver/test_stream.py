"""Replies that are decoded while they come: they mean the same, and cost no more than their bytes."""

from __future__ import annotations

import json
import tracemalloc
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.patrolserver.test_reply_forms import ENTRIES, Form, Says, rows

from patrolserver_exporter.patrolserver.envelope import Head
from patrolserver_exporter.patrolserver.errors import ApiError, TooLarge, Unreadable
from patrolserver_exporter.patrolserver.stream import Entries, decode_pieces
from patrolserver_exporter.patrolserver.values import MAX_VALUES, decode
from patrolserver_exporter.patrolserver.wire import (
    SERVERS,
    pages_of_servers,
    pages_of_software,
    parse_event,
    read_installed,
    read_servers,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

WINDOW = 128
"""So little is decoded in one piece here, so that a small document goes all the ways of a large one."""


def pieces(body: bytes, size: int = 7) -> Iterator[bytes]:
    """A body as the network may bring it."""
    return (body[place : place + size] for place in range(0, len(body), size))


def expanded(value: Any) -> Any:
    """A document with the entries of its lists."""
    if isinstance(value, dict):
        return {name: expanded(inner) for name, inner in value.items()}
    return [expanded(inner) for inner in value] if isinstance(value, list) else value


_NAMES = st.sampled_from(["data", "servers", "items", "error", "meta", "total", "é", '"', "\\"]) | st.text(max_size=5)
_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=30) | st.dictionaries(_NAMES, inner, max_size=5),
    max_leaves=60,
)


_WRITTEN = st.fixed_dictionaries({"ensure_ascii": st.booleans(), "indent": st.sampled_from([None, 1, "\t"])})


@given(_VALUES, st.integers(1, 50), _WRITTEN)
def test_a_document_is_the_same_however_it_comes(document: Any, size: int, written: dict[str, Any]) -> None:
    """In pieces of any size, cut anywhere, pretty or not."""
    body = json.dumps(document, **written).encode("utf-8", "surrogatepass")
    assert expanded(decode_pieces(pieces(body, size), 10_000, window=WINDOW).value) == decode(body)


@given(st.binary(max_size=400), st.integers(1, 50))
def test_what_is_no_json_is_never_something(body: bytes, size: int) -> None:
    """What cannot be decoded in one piece cannot be decoded in several, and the other way round."""

    def streamed(body: bytes) -> Any:
        return decode_pieces(pieces(body, size), 10_000, window=WINDOW).value

    def outcome(decoder: Callable[[bytes], Any]) -> Any:
        try:
            return repr(expanded(decoder(body)))
        except Unreadable:
            return Unreadable

    assert outcome(decode) == outcome(streamed)


@pytest.mark.parametrize(
    "body",
    [
        b'{"data": [{"id": 1}], "data": []}',
        b'{"meta": {"total": 9, "total": 1}, "data": [{"id": 1}]}',
        b'{"data": [{"id": 1, "id": 2}]}',
    ],
)
@pytest.mark.parametrize("window", [8, 64, 4_096])
def test_a_member_that_comes_twice_is_refused_however_it_comes(body: bytes, window: int) -> None:
    """In the envelope and in an entry, read in one piece or in several."""
    with pytest.raises(Unreadable, match="twice"):
        expanded(decode_pieces(pieces(body), 10, window=window).value)


@pytest.mark.parametrize("cut", range(1, 60, 7))
def test_a_document_that_is_cut_off_is_unreadable(cut: int) -> None:
    """However much came before: half a list is none."""
    body = json.dumps({"data": [{"id": n, "name": "x" * 40} for n in range(20)], "total": 20}).encode()
    with pytest.raises(Unreadable):
        decode_pieces(pieces(body[:-cut]), 10_000, window=WINDOW)
    with pytest.raises(Unreadable):
        decode_pieces(pieces(body + b"]" * cut), 10_000, window=WINDOW)


@pytest.mark.parametrize("noun", ENTRIES)
@pytest.mark.parametrize(("form", "says"), rows())
def test_a_list_is_taken_for_what_it_says(noun: str, form: Form, says: Says) -> None:
    """Every doubt that is found in a reply as a whole is found in one that is streamed, in the same words."""
    padding = {"a": "x" * (WINDOW // 2), "b": "y" * (WINDOW // 2)}
    first, second = ({**entry, **padding} for entry in ENTRIES[noun])
    for document in (
        {"data": [first, second], **form.members},
        {**form.members, "data": {"0": first, "2": second}},
        {"data": {"data": [first, second], **form.members}},
        {"data": {noun: [first, second]}, **form.members},
        {noun: [first, second], **form.members},
    ):
        body, head = json.dumps(document).encode(), Head(form.status, form.headers)
        found = []
        for came in (body, decode_pieces(pieces(body), 10_000, window=WINDOW)):
            pages = pages_of_servers() if noun == "servers" else pages_of_software()
            try:
                pages.add(came, head)
                parsed: Any = read_servers(pages) if noun == "servers" else read_installed(pages)
                told = Says.WHOLE if parsed.complete else Says.PART
            except ApiError as error:
                parsed, told = str(error), Says.FAILED
            found.append((parsed, told))
        assert found[1] == found[0]
        assert found[1][1] is says, document


def test_what_php_makes_of_a_long_list_is_one() -> None:
    """An object whose names are places, however long it is."""
    body = json.dumps({"data": {str(n): {"id": n, "name": f"web{n}"} for n in range(1, 5000)}}).encode()
    pages = pages_of_servers()
    pages.add(decode_pieces(pieces(body, 1000), 10_000, window=WINDOW))
    parsed = read_servers(pages)
    assert parsed.complete
    assert [server.id for server in parsed.value] == list(range(1, 5000))


def test_credentials_are_masked_wherever_they_stand() -> None:
    """In entries, beside them, and in names."""
    secret = "s3cr3t-" * 4
    body = json.dumps({"data": [{"id": 1, "name": f"a {secret}"}] * 9, secret: f"{secret}!"}).encode()
    document = decode_pieces(pieces(body), 100, (secret,), window=WINDOW).value
    assert isinstance(document["data"], Entries)
    assert secret not in json.dumps(expanded(document))
    assert len(document["data"]) == len(document["data"][:]) == 9


BOMBS = {
    "empty objects": b"[" + b"{}," * 1_000_000 + b"{}]",
    "empty lists in the envelope": b'{"data":[' + b"[]," * 1_000_000 + b"[]]}",
    "numbers": b"[" + b"1," * 1_500_000 + b"1]",
    "an object of many members": b"{" + b",".join(b'"%d":{}' % n for n in range(30_000)) + b"}",
    "members that are no places": b"{" + b",".join(b'"n%d":{}' % n for n in range(30_000)) + b"}",
    "in one entry": b"[[" + b"{}," * 1_300_000 + b"{}]]",
    "deep": b"[" * 4_000_000,
    "deep objects": b'{"a":' * 800_000,
    "blanks": b" " * 4_000_000 + b"[]",
}


@pytest.mark.parametrize("name", BOMBS)
def test_a_reply_that_unfolds_is_refused(name: str) -> None:
    """Megabytes of next to nothing are an error, and cost little more than what is looked at in one piece."""
    body = BOMBS[name]
    tracemalloc.start()
    with pytest.raises(Unreadable):
        decode_pieces(pieces(body, 65_536), 10_000)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 16 * 2**20


@pytest.mark.parametrize("body", [BOMBS["empty objects"], BOMBS["numbers"]])
def test_a_reply_that_is_no_list_unfolds_as_little(body: bytes) -> None:
    """An event is decoded in one piece; so the number of its values is bounded first."""
    with pytest.raises(TooLarge, match=f"{MAX_VALUES} values"):
        parse_event(b'{"server_id":1,"new_issues":' + body + b"}")


@pytest.mark.slow
def test_a_long_list_of_servers_costs_little_more_than_its_servers() -> None:
    """Though it is above the 4 MiB of other replies, and tells much that nobody looks at."""
    unread = b"x" * 300

    def body() -> Iterator[bytes]:
        yield b'{"error":false,"data":['
        for n in range(1, 15_001):
            yield b'%s{"id":%d,"name":"web%06d.example.org","verified":true,"created":"%s"}' % (
                b"," * (n > 1),
                n,
                n,
                unread,
            )
        yield b'],"total":15000}'

    tracemalloc.start()
    pages = pages_of_servers()
    pages.add(decode_pieces(body(), SERVERS.max_entries))
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    parsed = read_servers(pages)
    assert (parsed.complete, len(parsed.value)) == (True, 15_000)
    assert most < 8 * 2**20


def test_a_long_list_that_comes_in_one_piece_is_a_list() -> None:
    """A body that arrives at once, as over loopback, is not taken for one large value beside its entries."""
    entries = [{"id": number, "name": f"software-{number}", "location": "/usr/bin" * 10} for number in range(12_000)]
    body = json.dumps({"data": entries}).encode()
    assert len(body) > 1024 * 1024
    assert len(decode_pieces(iter([body]), 100_000).value["data"]) == len(entries)
