"""How nodes become typed values: the type of a field says how it is read, and `Annotated` says what the type cannot.

The fields of a dataclass or a `msgspec.Struct` are the keys of a mapping, ``tuple`` and ``frozenset`` are lists,
``Mapping[X, Y]`` has free keys, and ``X | None`` may be null. Bounds stand in a `msgspec.Meta`, whose
``extra={"kind": …}`` tells a duration from another float and a glob from another text. What does not fit is noted, and
the reading goes on, so that one run finds every mistake.
"""

from __future__ import annotations

import collections.abc
import dataclasses
import datetime as dt
import difflib
import functools
import inspect
import os.path
import re
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from types import NoneType
from typing import TYPE_CHECKING, Annotated, Any, Final, get_args, get_origin, get_type_hints

from msgspec import Meta
from yaml import MappingNode, Node, ScalarNode, SequenceNode

from patrolserver_exporter.config import values
from patrolserver_exporter.config.nodes import TEXT, is_null
from patrolserver_exporter.config.problem import ConfigError, Problem, Unfit
from patrolserver_exporter.config.secret import Secret

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

CREDENTIALS_PREFIX = "${CREDENTIALS_DIRECTORY}/"
MAX_VALUES = 200_000
"""Aliases can repeat values without end."""
REQUIRED: Final[Any] = inspect.Parameter.empty
"""The key has no default."""
WRONG: Final[Any] = object()
"""The value did not fit, which is noted."""
_WORD = re.compile(r"[A-Za-z_][A-Za-z_-]{0,39}")


def join_key(path: str, key: str) -> str:
    """Return the dotted path of a key; ``?`` stands for what does not look like one, as a misplaced secret does."""
    return f"{path}{path and '.'}{key if _WORD.fullmatch(key) else '?'}"


@dataclass(slots=True, kw_only=True)
class Reading:
    """One run over one configuration: where it is, what was found, and what is wrong."""

    file: str
    folder: Path = field(default_factory=Path)
    environ: Mapping[str, str] | None = None
    """None: the text comes from elsewhere, and tags, which could read our files, are refused."""
    problems: list[Problem] = field(default_factory=list)
    warnings: list[Problem] = field(default_factory=list)
    found: dict[str, tuple[Node, Any]] = field(default_factory=dict)
    """Node and value of every key and item, for the rules that look at several; a default has its section's node."""
    count: int = 0

    def wrong(self, node: Node | None, path: str, message: str) -> Any:
        """Note what is wrong with the node."""
        self.problems.append(self._problem(node, path, message))
        return WRONG

    def warn(self, node: Node | None, path: str, message: str) -> None:
        """Note what works but should not stay so."""
        self.warnings.append(self._problem(node, path, message))

    def read(self, shape: Shape, node: Node, path: str) -> Any:
        """Return the node's value, or `WRONG` after noting what is wrong with it or in it."""
        before, self.count = len(self.problems), self.count + 1
        if self.count > MAX_VALUES:
            raise ConfigError(
                (self._problem(node, path, f"is value {self.count}, which is too many; aliases repeat them"),)
            )
        try:
            value = shape.read(self, node, path)
        except Unfit as error:
            self.wrong(node, path, str(error))
        if len(self.problems) > before:
            value = WRONG
        self.found[path] = node, value
        return value

    def result(self, shape: Shape, node: Node) -> Any:
        """Return the root's value; raises `ConfigError` with every mistake."""
        value = self.read(shape, node, "")
        if self.problems:
            raise ConfigError(tuple(self.problems))
        return value

    def pairs(self, node: Node, path: str, needed: str) -> list[tuple[ScalarNode, Node, str]]:
        """Return each key of a mapping, its value, and its path."""
        pairs: dict[str, tuple[ScalarNode, Node, str]] = {}
        for key, child in _children(node, MappingNode, needed):
            if not isinstance(key, ScalarNode) or key.tag != TEXT:
                self.wrong(key, path, "has a key that is not a plain word")
            elif key.value == "<<":
                self.wrong(key, path, "merge keys (<<) are not supported; repeat the keys, or alias a whole value")
            elif first := pairs.get(key.value):
                line = first[0].start_mark.line + 1
                self.wrong(key, join_key(path, key.value), f"is given twice, first on line {line}; keep one")
            else:
                pairs[key.value] = key, child, join_key(path, key.value)
        return list(pairs.values())

    def sourced(self, node: ScalarNode) -> Secret:
        """Return the text, which may be in a variable or a file."""
        text, tag = node.value, node.tag.removeprefix(TEXT)
        if tag not in {"", "!env", "!file"}:
            # The tag itself may be a secret without its quotes.
            known = "known are !env NAME and !file PATH, and a value that starts with ! needs quotes"
            raise Unfit(f"has an unknown tag; {known}")
        if tag and self.environ is None:
            raise Unfit("may not use !env or !file here; write the value itself")
        if tag and (not text.strip() or "\0" in text):
            raise Unfit(f"needs a {'variable' if tag == '!env' else 'path'} after {tag}")
        if tag == "!file" and text.startswith(CREDENTIALS_PREFIX):
            if not (folder := (self.environ or {}).get("CREDENTIALS_DIRECTORY")):
                raise Unfit("needs $CREDENTIALS_DIRECTORY, which systemd sets for a unit with LoadCredential=")
            text = str(Path(folder) / text.removeprefix(CREDENTIALS_PREFIX))
        try:
            return Secret(str(self.folder / text) if tag == "!file" else text, tag, self.environ)
        except ConfigError as error:
            raise Unfit(error.errors[0].message) from None

    def _problem(self, node: Node | None, path: str, message: str) -> Problem:
        mark = node.start_mark if node else None
        return Problem(self.file, mark and mark.line + 1, mark and mark.column + 1, path, message)


@dataclass(frozen=True, slots=True)
class Value:
    """A single value. ``may_show`` is false where it may hold a password, so that no message repeats it."""

    kind: str
    parse: Callable[[str], Any]
    nullable: bool = False
    may_show: bool = True
    is_secret: bool = False

    def read(self, reading: Reading, node: Node, _path: str) -> Any:
        """Return the parsed value, or the secret whose text can be parsed."""
        if self.nullable and is_null(node):
            return None
        if not isinstance(node, ScalarNode) or is_null(node):
            raise Unfit(f"needs a {self.kind}, not {_kind_of(node)}")
        is_plain = node.tag == TEXT and not self.is_secret
        source = None if is_plain else reading.sourced(node)
        try:
            value = self.parse(source.reveal() if source else node.value)
        except Unfit as error:
            if not is_plain or not self.may_show or not node.value:
                raise
            raise Unfit(f"{error} (is {node.value[:40]!a})") from None
        if isinstance(value, Path) and not os.path.isfile(value := reading.folder / value):  # noqa: PTH113 - it never raises
            raise Unfit(f"is no file (is {node.value[:200]!a}); correct the path, which starts at {reading.folder}")
        return source if self.is_secret else value


@dataclass(frozen=True, slots=True)
class ListOf:
    """A list of one shape, as a tuple or frozenset. Nothing after the key is an empty list."""

    item: Shape
    build: Callable[[list[Any]], Any] = tuple
    least: int = 0

    @property
    def kind(self) -> str:
        """A list of what."""
        return f"list of {self.item.kind}"

    def read(self, reading: Reading, node: Node, path: str) -> Any:
        """Return the items."""
        items = _children(node, SequenceNode, "a list, in [brackets] or with a dash before each item")
        if len(items) < self.least:
            raise Unfit("needs at least one item")
        return self.build([reading.read(self.item, child, f"{path}[{index}]") for index, child in enumerate(items)])


@dataclass(frozen=True, slots=True)
class MapOf:
    """A mapping with free keys. Nothing after the key is an empty one."""

    item: Shape
    name: Callable[[str], Any]

    @property
    def kind(self) -> str:
        """A mapping to what."""
        return f"{self.item.kind} by name"

    def read(self, reading: Reading, node: Node, path: str) -> Any:
        """Return a `dict` in the order of the text."""
        read: dict[Any, Any] = {}
        for key, child, inner in reading.pairs(node, path, "names, each with what it stands for"):
            try:
                read[self.name(key.value)] = reading.read(self.item, child, inner)
            except Unfit as error:
                reading.wrong(key, inner, str(error))
        return read


@dataclass(frozen=True, slots=True)
class Section:
    """A mapping that becomes an object of ``build``; its keys are the fields. Without any, all have their defaults."""

    build: Any
    given: Mapping[str, Any] = field(default_factory=dict, hash=False)
    """Values of keys that need not be in the text."""
    kind: str = "mapping"

    @property
    def shapes(self) -> dict[str, Shape]:
        """How each key is read, in the order of the documentation."""
        return {name: shape_of(hint) for name, hint in _hints_of(self.build).items()}

    @property
    def defaults(self) -> dict[str, Any]:
        """Every field's default; `REQUIRED` where there is none."""
        return {key: field.default for key, field in inspect.signature(self.build).parameters.items()}

    def read(self, reading: Reading, node: Node, path: str) -> Any:
        """Return the object."""
        shapes, read, before = self.shapes, dict(self.given), len(reading.problems)
        pairs = reading.pairs(node, path, "keys and values")
        # What is missing may be what is misspelt: one mistake, told once.
        is_whole = len(reading.problems) == before and all(key.value in shapes for key, _, _ in pairs)
        for key, child, inner in pairs:
            if shape := shapes.get(key.value):
                read[key.value] = reading.read(shape, child, inner)
            else:
                close = difflib.get_close_matches(key.value[:64], shapes, 1)
                hint = f"did you mean {close[0]}?" if close else f"known here: {', '.join(shapes)}"
                reading.wrong(key, inner, f"is unknown; {hint}")
        for key, default in self.defaults.items():
            if key not in read and default is not REQUIRED:
                reading.found[join_key(path, key)] = node, default
            elif key not in read:
                read[key] = is_whole and reading.wrong(node, join_key(path, key), "is missing; add it")
        return self.build(**read)


Shape = Value | ListOf | MapOf | Section


@functools.cache
def shape_of(hint: Any) -> Shape:
    """Return how a field of that type is read."""
    notes: tuple[Any, ...] = ()
    if get_origin(hint) is Annotated:
        hint, *notes = get_args(hint)
    if shapes := [note for note in notes if hasattr(note, "read")]:
        return shapes[0]
    meta = next((note for note in notes if isinstance(note, Meta)), Meta())
    kind, arguments = get_origin(hint) or hint, get_args(hint)
    if NoneType in arguments:
        shape = shape_of(next(argument for argument in arguments if argument is not NoneType))
        return dataclasses.replace(shape, nullable=True) if isinstance(shape, Value) else shape
    if kind in {tuple, frozenset}:
        return ListOf(shape_of(arguments[0]), kind, meta.min_length or 0)
    if kind is collections.abc.Mapping:
        return MapOf(shape_of(arguments[1]), shape_of(arguments[0]).parse)
    if issubclass(kind, StrEnum):
        return Value(kind.__name__.lower(), values.choice({str(member): member for member in kind}))
    least, most, special = meta.ge or 0, meta.le, (meta.extra or {}).get("kind")
    if special == "duration":
        return Value("duration", values.duration(least, most))
    known = {
        bool: Value("boolean", values.boolean),
        int: Value("whole number", values.whole(least, most)),
        float: Value("number", values.number(least, most)),
        str: Value(special or "text", values.text),
        dt.date: Value("date", values.date),
        Path: Value("path", Path, may_show=False),
    }
    return known.get(kind) or Section(kind)


_hints_of = functools.cache(functools.partial(get_type_hints, include_extras=True))


def _children(node: Node, kind: type[Node], needed: str) -> list[Any]:
    """Return what is in a list or mapping; nothing after the key is an empty one."""
    if isinstance(node, kind) and node.tag.startswith("!"):
        raise Unfit("only a single value can have a tag, not a list or a mapping")
    if isinstance(node, kind) or is_null(node):
        return [] if is_null(node) else list(node.value)
    raise Unfit(f"needs {needed}, not {_kind_of(node)}")


def _kind_of(node: Node) -> str:
    if isinstance(node, ScalarNode):
        return "an empty value" if is_null(node) else "a single value"
    return "a list" if isinstance(node, SequenceNode) else "a mapping"
