"""Numbers, booleans and texts, in all the forms in which PHP may write them (?)."""

from __future__ import annotations

import math
import re
from typing import Any

from patrolserver_exporter.patrolserver.models import MAX_ID
from patrolserver_exporter.patrolserver.text import clean

HIGHEST_RISK = 10.0

_DIGITS = re.compile(r"\d{1,20}", re.ASCII)
_TRUE_WORDS = frozenset({"true", "yes", "on", "y", "t", "1", "supported"})
_FALSE_WORDS = frozenset({"false", "no", "off", "n", "f", "0", "unsupported"})


class Odd(ValueError):
    """A value that is there and means nothing; the text says why, without the value."""


def is_absent(value: Any) -> bool:
    """Whether the API left the value out: missing, ``null`` or empty text."""
    return value is None or value == "" or (isinstance(value, str) and not value.strip())


def read_id(value: Any) -> int:
    """An id, 1 to 2⁵³-1, from a whole number or digits.

    Raises:
        Odd: it is something else.
    """
    readable = _DIGITS.fullmatch(value.strip()) if isinstance(value, str) else _is_whole(value)
    if not readable:
        raise Odd("is no id")
    number = int(value)
    if not 1 <= number <= MAX_ID:
        raise Odd("is out of the range of ids")
    return number


def _is_whole(value: Any) -> bool:
    return type(value) is int or (type(value) is float and value.is_integer())


def read_flag(value: Any) -> bool | None:
    """A boolean from any of its forms; None when absent.

    Raises:
        Odd: it is there and neither true nor false.
    """
    if value is None or type(value) is bool:
        return value
    if isinstance(value, str):
        return _flag_of_word(value.strip().lower())
    if isinstance(value, int) or (isinstance(value, float) and not math.isnan(value)):
        return value != 0
    raise Odd("is neither true nor false")


def _flag_of_word(word: str) -> bool | None:
    if not word:
        return None
    if word in _TRUE_WORDS:
        return True
    if word in _FALSE_WORDS:
        return False
    try:
        return read_flag(float(word))
    except ValueError:
        raise Odd("is neither true nor false") from None


def read_risk(value: Any) -> float:
    """A risk, 0 to 10; more is taken for 10, so that a slip of scale never hides an exploit.

    Raises:
        Odd: it is no number, or less than 0.
    """
    risk = _number(value.strip()) if isinstance(value, str) else value
    is_number = isinstance(risk, int | float) and not isinstance(risk, bool)
    if not is_number or (isinstance(risk, float) and math.isnan(risk)):
        raise Odd("is no number")
    if risk < 0:
        raise Odd("is less than 0")
    return float(min(risk, HIGHEST_RISK))


def _number(text: str) -> float:
    try:
        return float(text.replace(",", ".", 1))
    except ValueError:
        raise Odd("is no number") from None


def read_text(value: Any, limit: int) -> str | None:
    """Clean text of at most ``limit`` characters, from text or a number; None when absent or ``false``.

    Raises:
        Odd: it is a list, an object or ``true``.
    """
    if isinstance(value, str):
        return clean(value, limit) or None
    if value is None or value is False:
        return None
    if value is True or not isinstance(value, int | float):
        raise Odd("is no text")
    return clean(format(value, ".15g") if isinstance(value, float) else _digits(value), limit)


def _digits(value: int) -> str:
    if value.bit_length() > 1_024:  # Python refuses to write out ints of thousands of digits
        raise Odd("is too large a number")
    return str(value)
