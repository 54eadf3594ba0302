"""How nodes become typed values: the type of a field says how it is read, and `Annotated` says what the type cannot.

A shape reads a node and returns its value, or `WRONG` after noting what does not fit, so that one run finds every
mistake. The fields of a dataclass or a `msgspec.Struct` are the keys of a mapping, ``tuple`` and ``frozenset`` are
lists, ``Mapping[str, X]`` has free keys, and ``X | None`` may be null. Numbers have their bounds in a `msgspec.Meta`,
whose ``extra={"kind": …}`` tells a duration from another float and a glob from another text.
"""

from __future__ import annotations

import collections.abc
import dataclasses
import datetime as dt
import difflib
import functools
import inspect
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from types import NoneType
from typing import (
    TYPE_CHECKING,
    Annotated,
    Any,
    Final,
    Protocol,
    get_args,
    get_origin,
    get_type_hints,
    runtime_checkable,
)

import msgspec
from yaml import MappingNode, Node, ScalarNode, SequenceNode

from patrolserver_exporter.config import values
from patrolserver_exporter.config.nodes import is_null, join_key, own_tag, shown_key
from patrolserver_exporter.config.problem import ConfigError, Problem, Unfit
from patrolserver_exporter.config.secret import Secret, Source, is_world_readable

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

CREDENTIALS_PREFIX = "${CREDENTIALS_DIRECTORY}/"
REQUIRED: Final[Any] = inspect.Parameter.empty
"""The key has no default."""
WRONG: Final[Any] = object()
"""The value did not fit, which is noted."""


@dataclass(slots=True, kw_only=True)
class Reading:
    """One run over one configuration: where it is, what was found, and what is wrong."""

    file: str
    folder: Path = field(default_factory=Path)
    environ: Mapping[str, str] | None = None
    """None: the text comes from elsewhere, and tags, which could read our files, are refused."""
    is_open: bool = False
    """Everyone may read the file."""
    problems: list[Problem] = field(default_factory=list)
    warnings: list[Problem] = field(default_factory=list)
    tokens: list[tuple[str, Secret]] = field(default_factory=list)
    found: dict[str, tuple[Node, Any]] = field(default_factory=dict)
    """Node and value of every key and item that was read, for the rules that look at several of them."""

    def wrong(self, node: Node | None, path: str, message: str) -> Any:
        """Note what is wrong with the node."""
        self.problems.append(self._problem(node, path, message))
        return WRONG

    def warn(self, node: Node | None, path: str, message: str) -> None:
        """Note what works but should not stay so."""
        self.warnings.append(self._problem(node, path, message))

    def source(self, node: ScalarNode) -> Source:
        """Return where the node's text comes from; raises `Unfit`."""
        tag, text = own_tag(node), node.value
        if not tag:
            return Source("", text)
        if self.environ is None:
            raise Unfit("may not use !env or !file here; write the value itself")
        if not text.strip() or "\0" in text:
            raise Unfit(f"needs a {'variable' if tag == '!env' else 'path'} after {tag}")
        if tag == "!file" and text.startswith(CREDENTIALS_PREFIX):
            if not (folder := self.environ.get("CREDENTIALS_DIRECTORY")):
                raise Unfit("needs $CREDENTIALS_DIRECTORY, which systemd sets for a unit with LoadCredential=")
            text = str(Path(folder) / text.removeprefix(CREDENTIALS_PREFIX))
        return Source(tag, text if tag == "!env" else str(self.folder / text), self.environ)

    def _problem(self, node: Node | None, path: str, message: str) -> Problem:
        mark = node.start_mark if node else None
        line, column = (mark.line + 1, mark.column + 1) if mark else (None, None)
        return Problem(self.file, line, column, path, message)


@runtime_checkable
class Shape(Protocol):
    """How one kind of node is read."""

    @property
    def kind(self) -> str:
        """What to write, in a word or two."""

    def read(self, reading: Reading, node: Node, path: str) -> Any:
        """Return the value, or `WRONG` after noting why."""


@dataclass(frozen=True, slots=True)
class Value:
    """A single value."""

    kind: str
    parse: Callable[[str], Any]
    nullable: bool = False
    may_show: bool = True
    """False: it may hold a password, so that no message repeats it."""
    is_secret: bool = False
    rule: Callable[[Reading, Node, str, Any], object] | None = None
    """Looks at the value that was read, and notes what is wrong with it or worth a warning."""

    def read(self, reading: Reading, node: Node, path: str) -> Any:
        """Return the parsed value; None for null where that is allowed."""
        if not isinstance(node, ScalarNode):
            return reading.wrong(node, path, f"needs a {self.kind}, not {_kind_of(node)}")
        if is_null(node):
            message = f"has no value; write a {self.kind}"
            return None if self.nullable else reading.wrong(node, path, message)
        try:
            source = reading.source(node)
            value: Any = Secret(source) if self.is_secret else source.read() if source.tag else source.text
            fitting = self.parsed(reading, value.reveal() if self.is_secret else value)
        except ConfigError as error:
            return reading.wrong(node, path, error.errors[0].message)
        except Unfit as error:
            may_show = self.may_show and not self.is_secret and not own_tag(node) and node.value
            return reading.wrong(node, path, f"{error} (is {node.value[:40]!a})" if may_show else str(error))
        if self.is_secret:
            _check_readable(reading, node, path, source)
        else:
            value = fitting
        if self.rule:
            self.rule(reading, node, path, value)
        return value

    def parsed(self, _reading: Reading, text: str) -> Any:
        """Return the text's value; raises `Unfit`."""
        return self.parse(text)


@dataclass(frozen=True, slots=True)
class FilePath(Value):
    """A file that has to exist, relative to the configuration's folder; null for none."""

    kind: str = "path"
    parse: Callable[[str], Any] = str
    nullable: bool = True
    may_show: bool = False

    def parsed(self, reading: Reading, text: str) -> Any:
        """Return the path; raises `Unfit`."""
        try:
            if text and (file := reading.folder / text).is_file():
                return file
        except (OSError, ValueError):
            pass
        raise Unfit(f"is no file (is {text[:200]!a}); correct the path, which starts at {reading.folder}")


@dataclass(frozen=True, slots=True)
class ListOf:
    """A list of one shape, as a tuple or what ``build`` makes of it. Nothing after the key is an empty list."""

    item: Shape
    build: Callable[[list[Any]], Any] = tuple
    may_be_empty: bool = True
    unique: str = ""
    """A key that no two items may have the same."""

    @property
    def kind(self) -> str:
        """A list of what."""
        return f"list of {self.item.kind}"

    def read(self, reading: Reading, node: Node, path: str) -> Any:
        """Return the items, or `WRONG` when one of them is."""
        before = len(reading.problems)
        needed = "a list, in [brackets] or with a dash before each item"
        items = _children(reading, node, path, SequenceNode, needed)
        if items == [] and not self.may_be_empty:
            return reading.wrong(node, path, "needs at least one item")
        read = [_noted(reading, self.item, child, f"{path}[{index}]") for index, child in enumerate(items or ())]
        if self.unique and isinstance(self.item, Section):
            self._check_unique(reading, path, items or [], self.item)
        return WRONG if len(reading.problems) > before else self.build(read)

    def _check_unique(self, reading: Reading, path: str, items: list[Node], section: Section) -> None:
        default = section.defaults()[self.unique]
        first: dict[str, str] = {}
        for index, item in enumerate(items):
            key = f"{path}[{index}].{self.unique}"
            node, value = reading.found.get(key, (item, default if isinstance(item, MappingNode) else None))
            if isinstance(value, str) and first.setdefault(value, f"{path}[{index}]") != f"{path}[{index}]":
                remedy = f"give each its own {self.unique}"
                remedy += f" (without one it is {default})" if value == default else ""
                reading.wrong(node, key, f"is the same as that of {first[value]}; {remedy}")


@dataclass(frozen=True, slots=True)
class MapOf:
    """A mapping with free keys, which ``name`` checks. Nothing after the key is an empty one."""

    item: Shape
    name: Callable[[str], Any] = values.name

    @property
    def kind(self) -> str:
        """A mapping to what."""
        return f"{self.item.kind} by name"

    def read(self, reading: Reading, node: Node, path: str) -> Any:
        """Return a `dict` in the order of the text, or `WRONG` when one of its parts is."""
        before = len(reading.problems)
        read: dict[str, Any] = {}
        for key, child in _children(reading, node, path, MappingNode, "names, each with what it stands for") or ():
            inner = join_key(path, shown_key(key.value))
            try:
                read[self.name(key.value)] = _noted(reading, self.item, child, inner)
            except Unfit as error:
                reading.wrong(key, inner, str(error))
        return WRONG if len(reading.problems) > before else read


@dataclass(frozen=True, slots=True)
class Section:
    """A mapping that becomes an object of ``build``; its keys are the fields."""

    build: Any
    kind: str = "mapping"
    rule: Callable[[Reading, Node, str, Any], object] | None = None
    """Looks at the object that was read, and notes what does not go together."""

    def shapes(self) -> dict[str, Shape]:
        """Return how each key is read, in the order of the documentation."""
        return _shapes_of(self.build)

    def read(self, reading: Reading, node: Node, path: str) -> Any:
        """Return the object. Nothing after the key means: all defaults."""
        before = len(reading.problems)
        read = self.values(reading, node, path)
        for key, default in self.defaults().items():
            if default is REQUIRED and read is not WRONG and key not in read:
                reading.wrong(node, join_key(path, key), "is missing; add it")
        if len(reading.problems) > before:
            return WRONG
        value = self.build(**read)
        if self.rule:
            self.rule(reading, node, path, value)
        return WRONG if len(reading.problems) > before else value

    def values(self, reading: Reading, node: Node, path: str) -> Any:
        """Return the values of the keys that are there, `WRONG` for what is no mapping; unknown keys are noted."""
        if (children := _children(reading, node, path, MappingNode, "keys and values")) is None:
            return WRONG
        known, misspelt = self.shapes(), False
        read: dict[str, Any] = {}
        for given, child in children:
            if shape := known.get(given.value):
                read[given.value] = _noted(reading, shape, child, join_key(path, given.value))
            else:
                reading.wrong(given, join_key(path, shown_key(given.value)), _unknown_key(given.value, tuple(known)))
                misspelt = True
        # What is missing may be what is misspelt: one mistake, told once.
        return {**dict.fromkeys(known, WRONG), **read} if misspelt else read

    def defaults(self) -> dict[str, Any]:
        """Return every field's default; `REQUIRED` where there is none."""
        return {key: field.default for key, field in inspect.signature(self.build).parameters.items()}


@functools.cache
def shape_of(hint: Any) -> Shape:
    """Return how a field of that type is read."""
    bounds = msgspec.Meta()
    if get_origin(hint) is Annotated:
        hint, *notes = get_args(hint)
        if shapes := [note for note in notes if isinstance(note, Shape)]:
            return shapes[0]
        bounds = next((note for note in notes if isinstance(note, msgspec.Meta)), bounds)
    if NoneType in (arguments := get_args(hint)):
        shape = shape_of(next(argument for argument in arguments if argument is not NoneType))
        return dataclasses.replace(shape, nullable=True) if isinstance(shape, Value) else shape
    kind = get_origin(hint) or hint
    if kind in {tuple, frozenset}:
        return ListOf(shape_of(arguments[0]), kind)
    if kind in {dict, collections.abc.Mapping}:
        name = shape_of(arguments[0])
        return MapOf(shape_of(arguments[1]), name.parse if isinstance(name, Value) else values.name)
    return _single(kind, bounds) or Section(kind)


_SINGLE: dict[type, Value] = {
    bool: Value("boolean", values.boolean),
    dt.date: Value("date", values.date),
    str: Value("text", values.text),
}


def _single(kind: type, bounds: msgspec.Meta) -> Value | None:
    if (bounds.extra or {}).get("kind") == "glob":
        return Value("glob", values.text)
    if issubclass(kind, StrEnum):
        return Value(kind.__name__.lower(), values.choice(kind))
    if kind in _SINGLE or not issubclass(kind, int | float):
        return _SINGLE.get(kind)
    least, most = bounds.ge or 0, bounds.le
    if (bounds.extra or {}).get("kind") == "duration":
        return Value("duration", values.duration(least, most))
    limit = values.MAX_NUMBER if most is None else most
    if issubclass(kind, int):
        return Value("whole number", values.whole(int(least), int(limit)))
    return Value("number", values.number(least, limit))


@functools.cache
def _shapes_of(build: Any) -> dict[str, Shape]:
    return {name: shape_of(hint) for name, hint in get_type_hints(build, include_extras=True).items()}


def _noted(reading: Reading, shape: Shape, node: Node, path: str) -> Any:
    value = shape.read(reading, node, path)
    reading.found[path] = (node, value)
    return value


def _children(reading: Reading, node: Node, path: str, kind: type[Node], needed: str) -> list[Any] | None:
    """Return what is in a list or mapping, None after noting that it is none; nothing after the key is an empty one."""
    if isinstance(node, kind) or is_null(node):
        return [] if is_null(node) else list(node.value)
    reading.wrong(node, path, f"needs {needed}, not {_kind_of(node)}")
    return None


def _check_readable(reading: Reading, node: Node, path: str, source: Source) -> None:
    if source.tag == "!file" and is_world_readable(Path(source.text)):
        reading.warn(node, path, f"is read from a file that everyone may read; chmod o-r {source.text}")
    elif not source.tag and reading.is_open:
        remedy = f"chmod o-r {reading.file}, or use !file"
        reading.warn(node, path, f"is a secret in a file that everyone may read; {remedy}")


def _kind_of(node: Node) -> str:
    if isinstance(node, ScalarNode):
        return "nothing" if is_null(node) else "a single value"
    return "a list" if isinstance(node, SequenceNode) else "a mapping"


def _unknown_key(name: str, known: tuple[str, ...]) -> str:
    if close := difflib.get_close_matches(name[:64], known, 1):
        return f"is unknown; did you mean {close[0]}?"
    return f"is unknown; known here: {', '.join(known)}"
