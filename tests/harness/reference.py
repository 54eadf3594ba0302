"""Every key with its type, default and description, as the documentation has to show it."""

from __future__ import annotations

import ast
import functools
import itertools
import textwrap
from dataclasses import dataclass
from inspect import getsource
from typing import TYPE_CHECKING, Any

from msgspec import Struct, inspect

from patrolserver_exporter.config.duration import format_duration
from patrolserver_exporter.config.reading import default_of, join_key, unwrapped, value_of
from patrolserver_exporter.config.schema import Config

if TYPE_CHECKING:
    from collections.abc import Iterator


@dataclass(frozen=True, slots=True)
class Entry:
    """One key. ``path`` is such as ``accounts[].key``; ``default`` is as written in YAML, or ``required``."""

    path: str
    kind: str
    default: str
    description: str


@functools.cache
def reference() -> tuple[Entry, ...]:
    """Return every key, sections before the keys within them."""
    return tuple(_entries(inspect.type_info(Config), ""))


def table(section: str) -> str:
    """Return the Markdown table of the keys below a top-level key."""
    rows = (
        _row(entry)
        for entry in reference()
        if entry.path.startswith((f"{section}.", f"{section}[]")) and entry.kind != "mapping"
    )
    return "\n".join(("| key | type | default | what |", "| --- | --- | --- | --- |", *rows))


def _row(entry: Entry) -> str:
    default = "**required**" if entry.default == "required" else f"`{entry.default}`"
    return f"| `{entry.path}` | {entry.kind} | {default} | {entry.description} |"


def _entries(section: inspect.Type, path: str) -> Iterator[Entry]:
    if not isinstance(section, inspect.DataclassType | inspect.StructType):
        return
    texts = _texts(section.cls)
    for field in section.fields:
        inner, kind = join_key(path, field.name), _kind_of(field.type)
        default = "required" if field.required else _written(default_of(field), kind)
        below, suffix = unwrapped(field.type)[0], ""
        if isinstance(below, inspect.VarTupleType):
            below, suffix = unwrapped(below.item_type)[0], "[]"
        elif isinstance(below, inspect.DictType):
            below, suffix = unwrapped(below.value_type)[0], ".NAME"
        yield Entry(
            inner,
            kind,
            default,
            texts.get(field.name)
            or (below.cls.__doc__ if isinstance(below, inspect.DataclassType | inspect.StructType) else None)
            or "",
        )
        yield from _entries(below, inner + suffix)


def _kind_of(kind: inspect.Type) -> str:
    match unwrapped(kind)[0]:
        case inspect.VarTupleType(item_type=item) | inspect.FrozenSetType(item_type=item):
            return f"list of {_kind_of(item)}"
        case inspect.DictType(value_type=item):
            return f"{_kind_of(item)} by name"
        case inspect.DataclassType() | inspect.StructType():
            return "mapping"
    return value_of(kind).kind


def _written(value: Any, kind: str) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return str(value).lower()
        case tuple() | frozenset():
            return f"[{', '.join(_written(item, kind.removeprefix('list of ')) for item in value)}]"
    return {"duration": format_duration, "glob": '"{}"'.format}.get(kind, str)(value)


def _texts(build: type) -> dict[str, str]:
    """Return the text below each field of the class, which Python itself does not keep."""
    if build in {Struct, object}:
        return {}
    inherited = {name: text for base in build.__bases__ for name, text in _texts(base).items()}
    body = ast.parse(textwrap.dedent(getsource(build))).body[0].body  # type: ignore[attr-defined]
    return inherited | {
        ast.unparse(field.target): " ".join(ast.literal_eval(text.value).split())
        for field, text in itertools.pairwise(body)
        if isinstance(field, ast.AnnAssign) and isinstance(text, ast.Expr)
    }
