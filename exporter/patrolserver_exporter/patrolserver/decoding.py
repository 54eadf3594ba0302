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
        Unreadable: it is not JSON, or nested too deeply.
    """
    if len(body) > MAX_VALUES and sum(body.count(sign) for sign in (b",", b"[", b"{")) > MAX_VALUES:
        raise TooLarge(f"the reply has more than {MAX_VALUES} values")
    try:
        return msgspec.json.decode(body)
    except RecursionError:
        pass
    except ValueError:
        return _decode_leniently(body)
    raise Unreadable("the reply is nested too deeply")


def _decode_leniently(body: bytes) -> Any:
    text = body.decode("utf-8-sig", "replace")
    if not text.strip():
        raise Unreadable("the reply is empty")
    try:
        return json.loads(text, strict=False, parse_int=read_int)
    except (ValueError, RecursionError):
        found = "HTML" if text.lstrip().startswith("<") else "no whole JSON"
    raise Unreadable(f"the reply is {found}")


def read_int(digits: str) -> int | float:
    """A whole number; one with hundreds of digits only roughly."""
    return int(digits) if len(digits) <= _MAX_INT_DIGITS else float(digits)
