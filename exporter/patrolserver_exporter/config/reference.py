"""Every key with its type, default and description, as the documentation has to show it."""

from __future__ import annotations

import ast
import inspect
import itertools
import textwrap
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from patrolserver_exporter.config.duration import format_duration
from patrolserver_exporter.config.reading import REQUIRED, ListOf, MapOf, Section, join_key
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


def reference() -> tuple[Entry, ...]:
    """Return every key, sections before the keys within them."""
    return tuple(_entries(Section(Config), ""))


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


def _entries(section: Section, path: str) -> Iterator[Entry]:
    defaults, texts = section.defaults, _texts(section.build)
    for key, shape in section.shapes.items():
        inner, default = join_key(path, key), defaults[key]
        about = texts.get(key) or (isinstance(shape, Section) and shape.build.__doc__) or ""
        yield Entry(inner, shape.kind, "required" if default is REQUIRED else _written(default, shape.kind), about)
        below = shape.item if isinstance(shape, ListOf | MapOf) else shape
        if isinstance(below, Section):
            suffix = {ListOf: "[]", MapOf: ".NAME"}.get(type(shape), "")
            yield from _entries(below, inner + suffix)


def _written(value: Any, kind: str) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return str(value).lower()
        case tuple() | frozenset():
            return f"[{', '.join(_written(item, kind.removeprefix('list of ')) for item in value)}]"
    if kind == "mapping by name":
        return "{}"
    return {"duration": format_duration, "glob": '"{}"'.format}.get(kind, str)(value)


def _texts(build: type) -> dict[str, str]:
    """Return the text below each field of the class, which Python itself does not keep."""
    if build in {Struct, object}:
        return {}
    inherited = {name: text for base in build.__bases__ for name, text in _texts(base).items()}
    body = ast.parse(textwrap.dedent(inspect.getsource(build))).body[0].body  # type: ignore[attr-defined]
    return inherited | {
        ast.unparse(field.target): " ".join(ast.literal_eval(text.value).split())
        for field, text in itertools.pairwise(body)
        if isinstance(field, ast.AnnAssign) and isinstance(text, ast.Expr)
    }
