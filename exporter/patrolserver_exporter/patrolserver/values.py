"""From bytes to JSON, and from there one value at a time: numbers, booleans, texts, in all forms that PHP writes (?).

JSON is read as leniently as can be. Text comes out fit for labels, logs and pages: clean, bounded, and distinct texts
still distinct.

The grades D, C and ? are those of docs/patrolserver-api.md.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import re
from typing import Any, Final

import msgspec
from cvss import CVSS2, CVSS3, CVSS4, CVSSError

from patrolserver_exporter.patrolserver.errors import TooLarge, Unreadable
from patrolserver_exporter.patrolserver.models import MAX_ID

MAX_VALUES: Final = 200_000
"""Of what is decoded in one piece: a few bytes of a list can cost a hundred times as many."""
_MAX_INT_DIGITS = 400
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
_RISK_DEPTH = 3
# A comma with three digits behind it may as well mean thousands.
_RISK_TEXT = re.compile(r"(\d{1,3}(?:\.\d{1,20}|,\d{1,2})?)\s*(?:/\s*(\d{1,4}(?:\.0{1,4})?))?", re.ASCII)
_RISK_NAMES = frozenset(
    {"score", "risk", "riskscore", "basescore", "value", "cvss", "cvssscore", "cvssbasescore", "vector", "vectorstring"}
)
_SCALE_NAMES = frozenset({"scale", "max", "maximum", "maxscore", "outof"})
_TEN = (10, "10", "10.0")
_NO_LETTERS = re.compile(r"[^a-z]")
_VECTOR = re.compile(r"\(?(?:CVSS:?(2|3\.[01]|4\.0)(?:\.0)?[/#])?([A-Z]{1,3}:[A-Z/:]{12,})\)?", re.ASCII)
_VECTOR_LIMIT = 512

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
        raise Odd("is not an id")
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
    # Of -1 nobody knows whether it is true or stands for unknown.
    if isinstance(value, int | float) and 0 <= value < math.inf:
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


def read_risk(value: Any, depth: int = _RISK_DEPTH) -> float:
    """A risk, 0 to 10, from a number, ``9.8/10``, ``9,8``, a CVSS vector (its base score), or one of these boxed.

    A box is a list of one or an object with one plain number. Nothing is guessed from a word, and a number out of range
    is none: the scale of ``98`` is not known.

    Raises:
        Odd: it is something else.
    """
    if isinstance(value, str):
        return _risk_of_text(value.strip())
    if isinstance(value, int | float) and not isinstance(value, bool):
        return _risk_in_range(value)
    if depth and isinstance(value, list) and len(value) == 1:
        return read_risk(value[0], depth - 1)
    if depth and isinstance(value, dict):
        return _risk_of_object(value, depth - 1)
    raise Odd("is not a number")


def _risk_in_range(number: float) -> float:
    if not 0 <= number <= HIGHEST_RISK:  # so nor is NaN
        raise Odd("is not a number from 0 to 10")
    return abs(float(number))  # without the sign of -0.0


def _risk_of_text(text: str) -> float:
    plain = _RISK_TEXT.fullmatch(text)
    if plain is None:
        return _base_score(text)
    number, scale = plain.groups()
    if scale is not None and float(scale) != HIGHEST_RISK:
        raise Odd("is on another scale than 0 to 10")
    return _risk_in_range(float(number.replace(",", ".")))


def _risk_of_object(value: dict[str, Any], depth: int) -> float:
    found: set[float] = set()
    for name, inner in value.items():
        plain_name = _NO_LETTERS.sub("", name.lower())
        if plain_name in _SCALE_NAMES and not is_absent(inner) and inner not in _TEN:
            raise Odd("is on another scale than 0 to 10")
        if plain_name in _RISK_NAMES and not is_absent(inner):
            with contextlib.suppress(Odd):
                found.add(read_risk(inner, depth))
    if len(found) != 1:
        raise Odd("is an object without one plain number")
    return found.pop()


def _base_score(vector: str) -> float:
    """The base score of a CVSS vector, version 2 to 4."""
    shaped = _VECTOR.fullmatch(vector.upper()) if len(vector) <= _VECTOR_LIMIT else None
    if shaped is None:
        raise Odd("is not a number")
    version, metrics = shaped.groups()
    # Version 3 has privileges required, version 2 has not; 3.0 and 3.1 round the same vector alike but for a few.
    guessed = ("3.0", "3.1") if "/PR:" in metrics else ("2",)
    versions = (version,) if version else guessed
    scores = {_score_of_version(one, metrics) for one in versions}
    if len(scores) != 1:
        raise Odd("is a CVSS vector without its version")
    return scores.pop()


def _score_of_version(version: str, metrics: str) -> float:
    try:
        if version == "2":
            return _risk_in_range(float(CVSS2(metrics.replace("/AU:", "/Au:")).base_score))
        kind = CVSS4 if version.startswith("4") else CVSS3
        return _risk_in_range(float(kind(f"CVSS:{version}/{metrics}").base_score))
    except (CVSSError, LookupError, ArithmeticError):
        raise Odd("is no whole CVSS vector") from None


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
        raise Odd("is not text")
    return clean(format(value, ".15g") if isinstance(value, float) else _digits(value), limit)


def _digits(value: int) -> str:
    if value.bit_length() > 1_024:  # Python refuses to write out ints of thousands of digits
        raise Odd("is too large a number")
    return str(value)
