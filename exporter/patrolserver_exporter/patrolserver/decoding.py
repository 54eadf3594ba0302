"""From bytes to JSON, as leniently as can be.

The grades D, C and ? are those of docs/patrolserver-api.md.
"""

from __future__ import annotations

import json
from typing import Any, Final

import msgspec

from patrolserver_exporter.patrolserver.errors import TooLarge, Unreadable

MAX_VALUES: Final = 200_000
"""Of what is decoded in one piece: a few bytes of a list can cost a hundred times as many."""
_MAX_INT_DIGITS = 400


def decode(body: bytes) -> Any:
    """Decode JSON; also with a byte order mark, invalid UTF-8, lone surrogates, NaN or raw control characters.

    Raises:
        TooLarge: it has too many values.
        Unreadable: it is not JSON, nested too deeply, or has a member twice: nobody knows which one is true.
    """
    if len(body) > MAX_VALUES and sum(body.count(sign) for sign in (b",", b"[", b"{")) > MAX_VALUES:
        raise TooLarge(f"the reply has more than {MAX_VALUES} values")
    try:
        value = msgspec.json.decode(body)
        return _decode_leniently(body) if _lacks_members(value, body) else value
    except RecursionError:
        pass
    except ValueError:
        return _decode_leniently(body)
    raise Unreadable("the reply is nested too deeply")


def _lacks_members(value: Any, body: bytes) -> bool:
    """Whether the body may have more members than what was made of it, which has the last one of each name.

    Each member has a colon, and those in texts are the same in both unless they are escaped.
    """
    if b"\\u003a" in body or b"\\u003A" in body:
        return True
    try:
        written = msgspec.json.encode(value)
    except (ValueError, TypeError, OverflowError):
        return True
    return body.count(b":") != written.count(b":")


def object_of(members: list[tuple[str, Any]]) -> dict[str, Any]:
    """The object with these members; raises ``Unreadable`` where two of one name differ."""
    found = dict(members)
    # Written out, since NaN is not equal to itself.
    if len(found) < len(members) and any(repr(found[name]) != repr(value) for name, value in members):
        raise twins()
    return found


def twins() -> Unreadable:
    """Two members with one name: which one is true, nobody knows."""
    return Unreadable("the reply has an object with one member twice")


def _decode_leniently(body: bytes) -> Any:
    text = body.decode("utf-8-sig", "replace")
    if not text.strip():
        raise Unreadable("the reply is empty")
    try:
        return json.loads(text, strict=False, parse_int=read_int, object_pairs_hook=object_of)
    except (ValueError, RecursionError):
        found = "HTML" if text.lstrip().startswith("<") else "no whole JSON"
    raise Unreadable(f"the reply is {found}")


def read_int(digits: str) -> int | float:
    """A whole number; one with hundreds of digits only roughly."""
    return int(digits) if len(digits) <= _MAX_INT_DIGITS else float(digits)
