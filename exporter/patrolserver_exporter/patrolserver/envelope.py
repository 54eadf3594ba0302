"""From a reply's bytes to its data: JSON as leniently as can be, the envelope, and errors in all their forms."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from patrolserver_exporter.patrolserver.errors import ApiError, PatrolServerError, Unreadable
from patrolserver_exporter.patrolserver.models import Parsed
from patrolserver_exporter.patrolserver.values import Odd, clean, read_text

if TYPE_CHECKING:
    from collections.abc import Iterator

T = TypeVar("T")

# Far more than is shown: whoever shows it takes credentials out first, and a cut must not leave half of one.
_MESSAGE_LIMIT = 4_096
_CODE_LIMIT = 1_024
_ODDITIES_KEPT = 20
_MAX_INT_DIGITS = 400
# An object of nothing but these is a failure even where the value of ``error`` says nothing.
_ERROR_KEYS = frozenset({"error", "errors", "code", "message", "status", "success"})


class Notes:
    """Collects what is strange about one reply while it is read."""

    def __init__(self, noun: str) -> None:
        self._noun = noun
        self._kept: list[str] = []
        self._more = 0
        self._entry: int | None = None
        self._complete = True

    def walk(self, entries: list[Any]) -> Iterator[Any]:
        """The entries; what is noted meanwhile is noted with the index of the present one."""
        for index, entry in enumerate(entries):
            self._entry = index
            yield entry
        self._entry = None

    def odd(self, field: str, why: str) -> None:
        """Note a strange field of the present entry."""
        self._add(f"{field} {why}")

    def dropped(self, why: str) -> None:
        """Note that the present entry, or a part of the reply, is left out."""
        self._complete = False
        self._add(why)

    def _add(self, what: str) -> None:
        if len(self._kept) >= _ODDITIES_KEPT:
            self._more += 1
            return
        where = self._noun if self._entry is None else f"{self._noun} [{self._entry}]"
        self._kept.append(f"{where}: {what}")

    def on(self, value: T) -> Parsed[T]:
        """The value, with the notes on it."""
        more = (f"and {self._more} more",) if self._more else ()
        return Parsed(value, (*self._kept, *more), self._complete)


def decode(body: bytes) -> Any:
    """Decode JSON; also with a byte order mark, invalid UTF-8, lone surrogates, NaN or raw control characters.

    Raises:
        Unreadable: it is no JSON, or nested too deeply.
    """
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
        return json.loads(text, strict=False, parse_int=_read_int)
    except (ValueError, RecursionError):
        found = "HTML" if text.lstrip().startswith("<") else "no whole JSON"
    raise Unreadable(f"the reply is {found}")


def _read_int(digits: str) -> int | float:
    return int(digits) if len(digits) <= _MAX_INT_DIGITS else float(digits)


def unwrap(document: Any) -> Any:
    """What the envelope holds (C), or the document itself where there is none (D).

    Raises:
        ApiError: the document reports an error.
    """
    if isinstance(document, dict):
        refuse_error(document)
        if "data" in document:
            return document["data"]
    return document


def refuse_error(document: dict[str, Any]) -> None:
    """Raise the error that the document reports, if it reports one.

    Raises:
        ApiError: it does.
    """
    if "error" not in document and "errors" not in document:
        return
    error = document.get("error") or document.get("errors")
    if error or not document.keys() - _ERROR_KEYS:
        raise _api_error(error, document)


def error_in(body: bytes) -> ApiError | None:
    """The error that a reply reports, if it is readable and reports one."""
    try:
        unwrap(decode(body))
    except ApiError as error:
        return error
    except PatrolServerError:
        return None
    return None


def _api_error(error: Any, document: dict[str, Any]) -> ApiError:
    if isinstance(error, list):
        error = error[0] if error else None
    if isinstance(error, dict):
        return ApiError(_said(error.get("code"), _CODE_LIMIT), _said(error.get("message"), _MESSAGE_LIMIT) or "")
    said = _said(error, _MESSAGE_LIMIT)
    message = _said(document.get("message"), _MESSAGE_LIMIT)
    if said is not None and " " in said:
        return ApiError(_said(document.get("code"), _CODE_LIMIT), said)
    code = said or _said(document.get("code"), _CODE_LIMIT)
    return ApiError(None if code is None else clean(code, _CODE_LIMIT), message or "")


def _said(value: Any, limit: int) -> str | None:
    try:
        return read_text(value, limit)
    except Odd:
        return None
