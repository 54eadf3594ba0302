"""What a request brings: parameters and a JSON body, read strictly."""

from __future__ import annotations

import json
import math
from collections import defaultdict
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any, TypeVar, get_args, get_origin, get_type_hints
from urllib.parse import parse_qsl

import msgspec

from patrolserver_exporter.inbox.delivery import DeliveryState
from patrolserver_exporter.issues.model import Kind, Severity
from patrolserver_exporter.web.access.rights import header
from patrolserver_exporter.web.api.types import Cursor
from patrolserver_exporter.web.http.body import read_body
from patrolserver_exporter.web.http.problems import ApiError

if TYPE_CHECKING:
    from starlette.types import Receive, Scope


MAX_BODY_BYTES = 256 * 1024
T = TypeVar("T")


async def read_json(scope: Scope, receive: Receive, limit: int = MAX_BODY_BYTES) -> Any:
    """The decoded body; raises `ApiError` or `BodyError` with the answer for what is wrong with it."""
    media_type = (header(scope, b"content-type") or "").partition(";")[0].strip().lower()
    if media_type != "application/json":
        raise ApiError(415, "Send JSON, with Content-Type: application/json.", headers={"accept": "application/json"})
    return decode(await read_body(scope, receive, limit))


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


MAX_PARAMETERS = 1000
_Limit = Annotated[int, msgspec.Meta(ge=1, le=1000)]
_Text = Annotated[str, msgspec.Meta(max_length=1024)]
Q = TypeVar("Q", bound=msgspec.Struct)


class IssueState(StrEnum):
    """Which issues a list has."""

    OPEN = "open"
    FIXED = "fixed"
    ALL = "all"


class Waived(StrEnum):
    """Whether waived issues are wanted."""

    TRUE = "true"
    FALSE = "false"
    BOTH = "both"


class NoParameters(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """None."""


class OneServer(NoParameters, frozen=True, kw_only=True):
    """Which account's server is meant."""

    account: _Text | None = None


class Paging(NoParameters, frozen=True, kw_only=True):
    """A page of a list."""

    limit: _Limit = 100
    cursor: Cursor | None = None


class ServersQuery(Paging, frozen=True, kw_only=True):
    """Which servers a list has. What is given several times is one or the other."""

    account: tuple[_Text, ...] = ()
    server: tuple[_Text, ...] = ()
    """Ids, names or globs on names."""
    severity: tuple[Severity, ...] = ()
    """Has an open issue of that severity that is not waived."""
    kind: tuple[Kind, ...] = ()
    """Has an open issue of that kind that is not waived."""


class ServerIssuesQuery(Paging, frozen=True, kw_only=True):
    """Which issues of a server a list has."""

    account: _Text | None = None
    severity: tuple[Severity, ...] = ()
    kind: tuple[Kind, ...] = ()
    software: tuple[_Text, ...] = ()
    """Globs on the canonical name."""
    waived: Waived = Waived.BOTH
    state: IssueState = IssueState.OPEN


class IssuesQuery(ServerIssuesQuery, frozen=True, kw_only=True):
    """Which issues a list has."""

    account: tuple[_Text, ...] = ()  # type: ignore[assignment]  # Over all servers, several accounts make sense.
    server: tuple[_Text, ...] = ()
    """Ids, names or globs on names."""


class SoftwareQuery(Paging, frozen=True, kw_only=True):
    """A page of a server's software."""

    account: _Text | None = None


class ChangesQuery(NoParameters, frozen=True, kw_only=True):
    """Where the feed goes on, and how long to wait for something new."""

    after: Cursor | None = None
    """A cursor, or ``latest``; without it the feed starts with the oldest change that is kept."""
    wait: Annotated[float, msgspec.Meta(ge=0, le=60)] = 0.0
    """Seconds."""
    limit: _Limit = 100


class InboxQuery(Paging, frozen=True, kw_only=True):
    """Which deliveries a list has."""

    state: tuple[DeliveryState, ...] = ()
    account: tuple[_Text, ...] = ()


def is_repeatable(kind: type[msgspec.Struct], name: str) -> bool:
    """Whether the parameter may be given several times."""
    return get_origin(get_type_hints(kind)[name]) is tuple


def read(query_string: bytes, kind: type[Q]) -> Q:
    """The parameters; a 400 that names what is unknown, doubled or wrong."""
    given: dict[str, list[str]] = defaultdict(list)
    try:
        pairs = parse_qsl(query_string.decode("latin-1"), keep_blank_values=True, max_num_fields=MAX_PARAMETERS)
    except ValueError:
        raise ApiError(400, f"There are over {MAX_PARAMETERS} query parameters.") from None
    for name, value in pairs:
        given[name].append(value)
    known = kind.__struct_fields__
    unknown = sorted(set(given) - set(known))
    if unknown:
        names = ", ".join(known) or "none"
        raise ApiError(400, f"Unknown query parameter {unknown[0][:100]!r}; there are: {names}.", unknown=unknown[:20])
    return _converted({name: _values(kind, name, values) for name, values in given.items()}, kind)


def _values(kind: type[msgspec.Struct], name: str, values: list[str]) -> str | list[str]:
    if any("\0" in value for value in values):
        raise ApiError(400, f"Query parameter {name} holds a NUL character.")
    if is_repeatable(kind, name):
        return values
    if len(values) > 1:
        raise ApiError(400, f"Query parameter {name} is given {len(values)} times; give it once.")
    return values[0]


def _choices(kind: type[msgspec.Struct], name: str) -> list[str]:
    """The words that a parameter takes; empty when it takes others too."""
    hint = get_type_hints(kind).get(name)
    enums = [one for one in (hint, *get_args(hint)) if isinstance(one, type) and issubclass(one, StrEnum)]
    return [choice.value for enum in enums for choice in enum]


def _converted(given: dict[str, str | list[str]], kind: type[Q]) -> Q:
    try:
        read = msgspec.convert(given, kind, strict=False)
    except msgspec.ValidationError as error:
        what, _, where = str(error).partition(" - at `$.")
        name = where.rstrip("`")
        choices = _choices(kind, name.partition("[")[0])
        what = f"it has to be one of {', '.join(choices)}" if choices else what
        raise ApiError(400, f"Query parameter {name or '?'} is wrong: {what}.") from None
    for name, value in msgspec.structs.asdict(read).items():
        if isinstance(value, float) and not math.isfinite(value):
            raise ApiError(400, f"Query parameter {name} has to be a number.")
    return read
