"""A JSON body, read strictly: no key twice, no number that is none, no text that cannot be written again."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from patrolserver_exporter.web.access import header
from patrolserver_exporter.web.api.errors import ApiError
from patrolserver_exporter.web.body import read_body

if TYPE_CHECKING:
    from starlette.types import Receive, Scope

MAX_BODY_BYTES = 256 * 1024
T = TypeVar("T")


async def read_json(scope: Scope, receive: Receive) -> Any:
    """The decoded body; raises `ApiError` or `BodyError` with the answer for what is wrong with it."""
    media_type = (header(scope, b"content-type") or "").partition(";")[0].strip().lower()
    if media_type != "application/json":
        raise ApiError(415, "Send JSON, with Content-Type: application/json.", headers={"accept": "application/json"})
    return decode(await read_body(scope, receive, MAX_BODY_BYTES))


def decode(raw: bytes) -> Any:
    """The value of a JSON text; a 400 that says what is wrong."""
    try:
        value = json.loads(
            raw.decode("utf-8"), object_pairs_hook=_unique, parse_float=_number, parse_constant=_no_number
        )
        text = json.dumps(value, ensure_ascii=False)
        text.encode("utf-8")
    except UnicodeError:
        raise ApiError(400, "The body holds text that is no Unicode.") from None
    except RecursionError:
        raise ApiError(400, "The body is nested too deeply.") from None
    except json.JSONDecodeError as error:
        raise ApiError(400, f"The body is no JSON: {error}.") from None
    except ValueError as error:
        raise ApiError(400, f"The body cannot be taken: {error}.") from None
    if "\\u0000" in text:
        raise ApiError(400, "The body holds a NUL character.")
    return value


def convert(value: Any, kind: type[T]) -> T:
    """The value as that type; a 400 that names the place where it does not fit."""
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        what, _, where = str(error).partition(" - at `$")
        place = where.strip("`.") or "the body"
        raise ApiError(400, f"Wrong at {place}: {what}.", at=place) from None


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key is given twice")
    return found


def _number(text: str) -> float:
    """JSON has one kind of number: 1.0 is as good as 1."""
    number = float(text)
    return int(number) if number.is_integer() and abs(number) < 2**53 else number


def _no_number(name: str) -> Any:
    raise ValueError(f"{name} is no number")
