"""Text from the API, made fit for labels, logs and pages: clean, bounded, and distinct texts still distinct."""

from __future__ import annotations

import hashlib
import re

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
