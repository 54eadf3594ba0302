"""JSON documents from elsewhere: strictly decoded, and read as the frozen dataclass that describes them."""

from __future__ import annotations

import dataclasses
import json
import math
import re
import sys
from functools import cache
from typing import Any, TypeVar

T = TypeVar("T")
_PLAIN: dict[str, tuple[type, ...]] = {"str": (str,), "bool": (bool,), "int": (int,), "float": (int, float)}
_LIST = re.compile(r"tuple\[(\w+), \.\.\.\]")


class Misfit(ValueError):
    """A document is not as its dataclass describes it; the text says where."""


def decode(raw: bytes) -> Any:
    """Decode JSON; raises ``ValueError`` for what is none, or nested too deep, or holds text that is no Unicode."""
    try:
        data = json.loads(raw, parse_constant=_refuse, object_pairs_hook=_object_of)
        if b"\\u" in raw or not raw.isascii():
            # Half a character, which could not be written anywhere.
            json.dumps(data, ensure_ascii=False).encode()
    except RecursionError:
        raise ValueError("it is nested too deep") from None
    return data


def _object_of(members: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(members)
    if len(found) < len(members) and any(found[name] != value for name, value in members):
        raise ValueError("it has a member twice, with two values")
    return found


def _refuse(constant: str) -> Any:
    raise ValueError(f"JSON has no {constant}")


def read(kind: type[T], data: Any, path: str = "$") -> T:
    """Read an object as that dataclass; members that it does not have are left out. Raises `Misfit`.

    A member has the field's name, or that of its ``metadata["name"]``. Types are ``str``, ``bool``, ``int``,
    ``float`` (which is finite), a dataclass of the same module, ``tuple[X, ...]`` for a list, and any of them or null.
    """
    if not isinstance(data, dict):
        raise Misfit(f"{path} is no object")
    values = {}
    for name, member, types, required in _members(kind):  # type: ignore[arg-type]  # a class has a hash
        if member in data:
            values[name] = _value(kind, types, data[member], f"{path}.{member}")
        elif required:
            raise Misfit(f"{path} has no {member}")
    return kind(**values)


@cache
def _members(kind: type[Any]) -> tuple[tuple[str, str, tuple[str, ...], bool], ...]:
    """Name, member, types as they are written, and whether it has to be there."""
    # As text: Python 3.9 cannot evaluate "str | None".
    return tuple(
        (
            one.name,
            one.metadata.get("name", one.name),
            tuple(str(one.type).split(" | ")),
            one.default is dataclasses.MISSING,
        )
        for one in dataclasses.fields(kind)
    )


def _value(kind: type, types: tuple[str, ...], value: Any, path: str) -> Any:
    if value is None and "None" in types:
        return None
    (written,) = (one for one in types if one != "None")
    if written in _PLAIN:
        if not isinstance(value, _PLAIN[written]) or (isinstance(value, bool) and written != "bool"):
            raise Misfit(f"{path} is no {written}")
        return _finite(value, path) if written == "float" else value
    if (listed := _LIST.fullmatch(written)) is not None:
        if not isinstance(value, list):
            raise Misfit(f"{path} is no list")
        item = (listed[1],)
        return tuple(_value(kind, item, one, f"{path}[{place}]") for place, one in enumerate(value))
    return read(getattr(sys.modules[kind.__module__], written), value, path)


def _finite(value: Any, path: str) -> float:
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise Misfit(f"{path} is too large")
    return number
