"""Shapes: how nodes become typed values. `keys` puts them together to the configuration.

A shape reads a node and returns its value, or `WRONG` after noting what does not fit, so that one run finds every
mistake. Shapes also know how to write a value for the documentation.
"""

from __future__ import annotations

import dataclasses
import difflib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import msgspec

from patrolserver_exporter.config.nodes import Mapping, Node, Scalar, Sequence, join_key, shown_key
from patrolserver_exporter.config.problem import ConfigError, Unfit
from patrolserver_exporter.config.reading import REQUIRED, WRONG, FoundSecret, Reading
from patrolserver_exporter.config.secret import Secret

if TYPE_CHECKING:
    from collections.abc import Callable


class Shape(Protocol):
    """How one kind of node is read."""

    @property
    def kind(self) -> str:
        """What to write, in a word or two."""
        ...

    def read(self, reading: Reading, node: Node, path: str) -> Any:
        """Return the value, or `WRONG` after noting why."""
        ...

    def show(self, value: Any, /) -> str:
        """Write the value as YAML."""
        ...


@dataclass(frozen=True, slots=True)
class Value:
    """A single value."""

    kind: str
    parse: Callable[[str], Any]
    show: Callable[[Any], str] = str
    nullable: bool = False
    may_show: bool = True
    """False: it may hold a password, so that no message repeats it."""

    def read(self, reading: Reading, node: Node, path: str) -> Any:
        """Return the parsed value; None for null where that is allowed."""
        if not isinstance(node, Scalar):
            return reading.wrong(node, path, f"needs a {self.kind}, not {_kind_of(node)}")
        if node.is_null:
            return None if self.nullable else reading.wrong(node, path, _missing_value(self.kind))
        try:
            return self.parse(node.text if not node.tag else reading.source(node).read())
        except Unfit as error:
            return reading.wrong(node, path, f"{error}{self._repeat(node)}")

    def _repeat(self, node: Scalar) -> str:
        if not self.may_show or node.tag or not node.text:
            return ""
        return f" (is {node.text[:40]!a})"


@dataclass(frozen=True, slots=True)
class FilePath:
    """A file that has to exist, relative to the configuration's folder."""

    kind: str = "path"

    def read(self, reading: Reading, node: Node, path: str) -> Any:
        """Return the path, or None for null."""
        given = Value(self.kind, str, nullable=True).read(reading, node, path)
        if given is None or given is WRONG:
            return given
        try:
            file = reading.folder / given
            if given and file.is_file():
                return file
        except (OSError, ValueError):
            pass
        return reading.wrong(
            node, path, f"is no file (is {given[:200]!a}); correct the path, which starts at {reading.folder}"
        )

    def show(self, value: Any, /) -> str:
        """Write the path."""
        return "null" if value is None else str(value)


@dataclass(frozen=True, slots=True)
class SecretValue:
    """A value that must not show: a literal, ``!env`` or ``!file``."""

    kind: str
    parse: Callable[[str], str]
    nullable: bool = False

    def read(self, reading: Reading, node: Node, path: str) -> Any:
        """Return the `Secret`; None for null where that is allowed."""
        if not isinstance(node, Scalar):
            return reading.wrong(node, path, f"needs a {self.kind}, not {_kind_of(node)}")
        if node.is_null:
            return None if self.nullable else reading.wrong(node, path, _missing_value(self.kind))
        try:
            secret = Secret(reading.source(node))
            self.parse(secret.reveal())
        except ConfigError as error:
            return reading.wrong(node, path, error.errors[0].message)
        except Unfit as error:
            return reading.wrong(node, path, str(error))
        reading.secrets.append(FoundSecret(secret, reading.file, node.place, path))
        return secret

    def show(self, value: Any, /) -> str:
        """Write null; no secret has another default."""
        return "null" if value is None else "…"


@dataclass(frozen=True, slots=True)
class ListOf:
    """A list of one shape, as a tuple or what ``build`` makes of it. Nothing after the key is an empty list."""

    item: Shape
    build: Callable[[list[Any]], Any] = tuple
    may_be_empty: bool = True

    @property
    def kind(self) -> str:
        """A list of what."""
        return f"list of {self.item.kind}"

    def read(self, reading: Reading, node: Node, path: str) -> Any:
        """Return the items, or `WRONG` when one of them is."""
        if isinstance(node, Scalar) and node.is_null:
            node = Sequence(node.place, ())
        if not isinstance(node, Sequence):
            return reading.wrong(
                node, path, f"needs a list, in [brackets] or with a dash before each item, not {_kind_of(node)}"
            )
        if not node.items and not self.may_be_empty:
            return reading.wrong(node, path, "needs at least one item")
        items = [self._item(reading, item, f"{path}[{index}]") for index, item in enumerate(node.items)]
        return WRONG if any(item is WRONG for item in items) else self.build(items)

    def _item(self, reading: Reading, node: Node, path: str) -> Any:
        value = self.item.read(reading, node, path)
        reading.found[path] = (node, value)
        return value

    def show(self, value: Any, /) -> str:
        """Write the list on one line."""
        return f"[{', '.join(self.item.show(item) for item in value)}]"


@dataclass(frozen=True, slots=True)
class Key:
    """One key of a section. Its default is the one of the section's class."""

    name: str
    shape: Shape
    description: str


@dataclass(frozen=True, slots=True)
class Section:
    """A mapping with known keys, that becomes an object of ``build``."""

    build: type[Any]
    keys: tuple[Key, ...]
    kind: str = "mapping"

    def read(self, reading: Reading, node: Node, path: str) -> Any:
        """Return the object. Nothing after the key means: all defaults."""
        if isinstance(node, Scalar) and node.is_null:
            node = Mapping(node.place, ())
        if not isinstance(node, Mapping):
            return reading.wrong(node, path, f"needs keys and values, not {_kind_of(node)}")
        values = self.values(reading, node, path)
        missing = [key for key, default in self.defaults().items() if default is REQUIRED and key not in values]
        for key in missing:
            reading.wrong(node, join_key(path, key), "is missing; add it")
        return WRONG if missing or any(value is WRONG for value in values.values()) else self.build(**values)

    def values(self, reading: Reading, node: Mapping, path: str) -> dict[str, Any]:
        """Read the keys that are given; an unknown one is noted and left out."""
        known = {key.name: key for key in self.keys}
        values: dict[str, Any] = {}
        unknown = False
        for given, child in node.entries:
            if key := known.get(given.text):
                inner = join_key(path, key.name)
                values[key.name] = key.shape.read(reading, child, inner)
                reading.found[inner] = (child, values[key.name])
            else:
                unknown = True
                reading.wrong(given, join_key(path, shown_key(given.text)), _unknown_key(given.text, tuple(known)))
        # The object is not built from a part of what was meant.
        return {key.name: values.get(key.name, WRONG) for key in self.keys} if unknown else values

    def defaults(self) -> dict[str, Any]:
        """Return every key's default; `REQUIRED` where there is none."""
        if issubclass(self.build, msgspec.Struct):
            return {item.name: _default(item, msgspec.NODEFAULT) for item in msgspec.structs.fields(self.build)}
        return {item.name: _default(item, dataclasses.MISSING) for item in dataclasses.fields(self.build)}

    def show(self, _value: Any, /) -> str:
        """Write nothing; the keys below say it."""
        return ""


def _default(item: Any, missing: object) -> Any:
    if item.default is not missing:
        return item.default
    return REQUIRED if item.default_factory is missing else item.default_factory()


def _kind_of(node: Node) -> str:
    if isinstance(node, Scalar):
        return "nothing" if node.is_null else "a single value"
    return "a list" if isinstance(node, Sequence) else "a mapping"


def _missing_value(kind: str) -> str:
    return f"has no value; write a {kind}"


def _unknown_key(name: str, known: tuple[str, ...]) -> str:
    if close := difflib.get_close_matches(name[:64], known, 1):
        return f"is unknown; did you mean {close[0]}?"
    return f"is unknown; known here: {', '.join(known)}"
