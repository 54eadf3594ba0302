"""One value of a reply at a time: numbers, booleans and texts, in all the forms in which PHP may write them (?).

Text comes out fit for labels, logs and pages: clean, bounded, and distinct texts still distinct.
"""

from __future__ import annotations

import hashlib
import math
import re
from typing import Any

from patrolserver_exporter.patrolserver.models import MAX_ID

NAME_LIMIT = 512
VERSION_LIMIT = 128
LOCATION_LIMIT = 1_024
TITLE_LIMIT = 1_024
DESCRIPTION_LIMIT = 8_192

_BREAKS = re.compile(r"[\t\n\v\f\r\x1c-\x1e\x85\u2028\u2029]+")
# Controls, lone surrogates (one of them breaks a whole scrape), and what turns the direction of text.
_UNFIT = re.compile(r"[\x00-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
_CUT_MARK = "…"
_HASH_LENGTH = 8


def clean(text: str, limit: int) -> str:
    """One line of trimmed, valid Unicode of at most ``limit`` characters.

    Line breaks become spaces, other unfit characters U+FFFD. What is cut ends in an ellipsis and a short hash of the
    whole, so that two long texts with the same beginning stay two.
    """
    if not text.isprintable():  # a cheap test that clean text passes
        text = _UNFIT.sub("\N{REPLACEMENT CHARACTER}", _BREAKS.sub(" ", text))
    text = text.strip()
    return text if len(text) <= limit else _cut(text, limit)


def _cut(text: str, limit: int) -> str:
    digest = hashlib.sha256(text.encode()).hexdigest()[:_HASH_LENGTH]
    return f"{text[: limit - _HASH_LENGTH - len(_CUT_MARK)]}{_CUT_MARK}{digest}"


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
