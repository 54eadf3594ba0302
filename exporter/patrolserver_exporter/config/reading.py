"""How nodes become typed values: `msgspec.inspect` tells the type of each field, and the type says how it is read.

The fields of a dataclass or a `msgspec.Struct` are the keys of a mapping, and ``X | None`` may be null. What the type
cannot tell stands in a `msgspec.Meta`: bounds, and in ``extra={"kind": …}`` that a number is a ``duration``, a text a
``glob``, or the `Value` that parses it. What does not fit is noted and the reading goes on, so that one run finds every
mistake.
"""

from __future__ import annotations

import difflib
import functools
import os.path
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec
from msgspec import NODEFAULT, inspect
from yaml import MappingNode, Node, ScalarNode, SequenceNode

from patrolserver_exporter.config import values
from patrolserver_exporter.config.nodes import LIST, MAPPING, TEXT, is_null, place_of
from patrolserver_exporter.config.problem import ConfigError, Mistake, Unfit
from patrolserver_exporter.config.secret import Secret

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

CREDENTIALS_PREFIX = "${CREDENTIALS_DIRECTORY}/"
MAX_VALUES = 200_000
"""Aliases can repeat values without end."""
_BLANK_BEHIND_COLON: Final = "needs a blank behind the colon of a key, as in KEY: VALUE"
WRONG: Final[Any] = object()
"""The value did not fit, which is noted."""
_NO_BLANK = re.compile(r"([A-Za-z_][A-Za-z0-9_]*):(?=\S)")
"""What YAML takes for a text, though a key and its value were meant."""
_ANY_KEY_NO_BLANK = re.compile(r"[^\s:]+:(?=[^\s:])")
_WORD = re.compile(r"[A-Za-z_][A-Za-z_-]{0,39}")
_GLOB = re.compile(r"(?=[^*.]*[*.])[a-z0-9.*_-]{1,100}")
"""What names servers: with a star or a dot, which a secret hardly has, and no capitals, so no token of three parts."""


@dataclass(frozen=True, slots=True)
class Value:
    """How a single value is read. Where it may hold a password it may not show: no message repeats it."""

    kind: str
    parse: Callable[[str], Any]
    may_show: bool = True

    @property
    def meta(self) -> msgspec.Meta:
        """For `Annotated`."""
        return msgspec.Meta(extra={"kind": self})


_NUMBERS = {"whole number": values.whole_number, "number": values.number, "duration": values.duration}
_VALUES: dict[type[inspect.Type], Value] = {
    inspect.BoolType: Value("boolean", values.boolean),
    inspect.DateType: Value("date", values.date),
    inspect.StrType: Value("text", values.text),
    # Any other class has a `Value` of its own.
    inspect.CustomType: Value("path", Path, may_show=False),
}


def join_key(path: str, key: str, known: Collection[str] = ()) -> str:
    """Return the dotted path of a key; ``?`` stands for what does not look like one, as a misplaced secret does."""
    if key in known or _WORD.fullmatch(key):
        return f"{path}{path and '.'}{key}"
    if path.endswith(".labels") and _GLOB.fullmatch(key):
        return f'{path}["{key}"]'
    return f"{path}{path and '.'}?"


@dataclass(slots=True, kw_only=True)
class Reading:
    """One run over one configuration: where it is, what was found, and what is wrong."""

    file: str
    folder: Path = field(default_factory=Path)
    environ: Mapping[str, str] | None = None
    """None: the text comes from elsewhere, and tags, which could read our files, are refused."""
    mistakes: list[Mistake] = field(default_factory=list)
    warnings: list[Mistake] = field(default_factory=list)
    found: dict[str, tuple[Node, Any]] = field(default_factory=dict)
    """Node and value of every key and item, for the rules that look at several; a default has its section's node."""
    count: int = 0

    def wrong(self, node: Node | None, path: str, message: str) -> Any:
        """Note what is wrong with the node."""
        self.mistakes.append(self._mistake(node, path, message))
        return WRONG

    def warn(self, node: Node | None, path: str, message: str) -> None:
        """Note what works but should not stay so."""
        self.warnings.append(self._mistake(node, path, message))

    def whole(self, kind: Any, node: Node) -> Any:
        """Return the root as a value of that type; raises `ConfigError` with every mistake."""
        value = self.read(inspect.type_info(kind), node, "")
        if self.mistakes:
            raise ConfigError(tuple(self.mistakes))
        return value

    def read(self, kind: inspect.Type, node: Node, path: str) -> Any:
        """Return the node's value, or `WRONG` after noting what is wrong with it or in it."""
        before, self.count = len(self.mistakes), self.count + 1
        if self.count > MAX_VALUES:
            message = f"is beyond the {MAX_VALUES} values that are read; do aliases repeat them?"
            raise ConfigError((self._mistake(node, path, message),))
        try:
            value = self._value(kind, node, path)
        except Unfit as error:
            value = self.wrong(node, path, str(error))
        if len(self.mistakes) > before:
            value = WRONG
        self.found[path] = node, value
        return value

    def _value(self, kind: inspect.Type, node: Node, path: str) -> Any:
        inner, _, may_be_null = unwrapped(kind)
        if may_be_null and is_null(node):
            return None
        match inner:
            case inspect.StructType() | inspect.DataclassType():
                return self._section(inner, node, path)
            case inspect.VarTupleType() | inspect.FrozenSetType():
                if _is_dash_without_blank(node):
                    raise Unfit("needs a blank behind the dash of each item, as in - VALUE")
                items = _children(node, SequenceNode, "a list, in [brackets] or with a dash before each item")
                if len(items) < (inner.min_length or 0):
                    raise Unfit("needs at least one item")
                read = (self.read(inner.item_type, child, f"{path}[{index}]") for index, child in enumerate(items))
                return tuple(read) if isinstance(inner, inspect.VarTupleType) else frozenset(read)
            case inspect.DictType():
                return self._mapping(inner, node, path)
        return self._single(inner, value_of(kind), node)

    def _section(self, kind: inspect.StructType | inspect.DataclassType, node: Node, path: str) -> Any:
        before, read = len(self.mistakes), {}
        fields = {field.name: field for field in kind.fields}
        if isinstance(node, ScalarNode) and (lacking := _without_blank(node.value, fields)):
            raise Unfit(lacking)
        pairs = self._pairs(node, path, fields)
        # What is missing may be what is misspelt: one mistake, told once.
        tells_missing = len(self.mistakes) == before and all(key.value in fields for key, _, _ in pairs)
        for key, child, inner in pairs:
            if known := fields.get(key.value):
                read[key.value] = self.read(known.type, child, inner)
            elif lacking := _without_blank(key.value, fields):
                self.wrong(key, path, lacking)
            else:
                close = difflib.get_close_matches(key.value[:64], fields, 1)
                hint = f"did you mean {close[0]}?" if close else f"known here: {', '.join(fields)}"
                self.wrong(key, inner, f"is unknown; {hint}")
        for name, known in fields.items():
            if name not in read and not known.required:
                self.found[join_key(path, name, fields)] = node, default_of(known)
            elif name not in read:
                read[name] = tells_missing and self.wrong(node, join_key(path, name, fields), "is missing; add it")
        return kind.cls(**read)

    def _mapping(self, kind: inspect.DictType, node: Node, path: str) -> dict[Any, Any]:
        read = {}
        if isinstance(node, ScalarNode) and _lacks_blank(node):
            raise Unfit(_BLANK_BEHIND_COLON)
        for key, child, inner in self._pairs(node, path):
            if is_null(child) and _lacks_blank(key):
                self.wrong(key, path, _BLANK_BEHIND_COLON)
                continue
            try:
                read[value_of(kind.key_type).parse(key.value)] = self.read(kind.value_type, child, inner)
            except Unfit as error:
                self.wrong(key, inner, str(error))
        return read

    def _single(self, kind: inspect.Type, how: Value, node: Node) -> Any:
        if not isinstance(node, ScalarNode) or is_null(node):
            raise Unfit(f"needs a {how.kind}, not {_words_for(node)}")
        is_secret = isinstance(kind, inspect.CustomType) and kind.cls is Secret
        source = self._source(node) if is_secret or node.tag != TEXT else None
        try:
            value = how.parse(source.reveal() if source else node.value)
        except Unfit as error:
            if source or not how.may_show or not node.value:
                raise
            raise Unfit(f"{error} (is {node.value[:40]!a})") from None
        if isinstance(value, Path) and not os.path.isfile(value := self.folder / value):  # noqa: PTH113 - it never raises
            start = self.folder.absolute()
            raise Unfit(f"is no file (is {node.value[:200]!a}); correct the path, which starts at {start}")
        return source if is_secret else value

    def _source(self, node: ScalarNode) -> Secret:
        """Return the text, which may be in a variable or a file."""
        text, tag = node.value, node.tag.removeprefix(TEXT)
        if tag not in {"", "!env", "!file"}:
            # The tag itself may be a secret without its quotes.
            if meant := next((name for name in ("!env", "!file") if tag.startswith(name)), None):
                raise Unfit(f"needs a blank behind {meant}")
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

    def _pairs(self, node: Node, path: str, known: Collection[str] = ()) -> list[tuple[ScalarNode, Node, str]]:
        """Return each key of a mapping, its value, and its path."""
        pairs: dict[str, tuple[ScalarNode, Node, str]] = {}
        for key, child in _children(node, MappingNode, "keys and values"):
            if not isinstance(key, ScalarNode) or key.tag != TEXT:
                self.wrong(key, path, "has a key that is not a plain word")
            elif key.value == "<<":
                self.wrong(key, path, "merge keys (<<) are not supported; repeat the keys, or alias a whole value")
            elif first := pairs.get(key.value):
                line, _ = place_of(first[0].start_mark)
                self.wrong(key, join_key(path, key.value, known), f"is given twice, first on line {line}; keep one")
            else:
                pairs[key.value] = key, child, join_key(path, key.value, known)
        return list(pairs.values())

    def _mistake(self, node: Node | None, path: str, message: str) -> Mistake:
        place = place_of(node.start_mark) if node else (None, None)
        return Mistake(self.file, *place, path, message)


def _without_blank(text: str, known: Collection[str]) -> str | None:
    """Return what to say of a text that is a known key, a colon, and no blank behind it; the rest may be a secret."""
    found = _NO_BLANK.match(text)
    if found is None or found[1] not in known:
        return None
    return f"needs a blank behind the colon of {found[1]}, as in {found[1]}: VALUE"


def _lacks_blank(node: ScalarNode) -> bool:
    """Whether a name, a colon and a value were meant; the name is nobody's to repeat, as it may be a secret."""
    return not node.style and _ANY_KEY_NO_BLANK.match(node.value) is not None


def _is_dash_without_blank(node: Node) -> bool:
    """Whether what begins with a dash was meant as an item: ``-item``, or ``-key: value``."""
    first = node.value[0][0] if isinstance(node, MappingNode) and node.value else node
    return isinstance(first, ScalarNode) and not first.style and first.value.startswith("-")


def unwrapped(kind: inspect.Type) -> tuple[inspect.Type, Any, bool]:
    """Return the type itself, what the schema notes as its ``kind``, and whether it may be null."""
    note, may_be_null = None, False
    while isinstance(kind, inspect.Metadata | inspect.UnionType):
        if isinstance(kind, inspect.Metadata):
            note, kind = (kind.extra or {}).get("kind", note), kind.type
        else:
            may_be_null = True
            kind = next(member for member in kind.types if not isinstance(member, inspect.NoneType))
    return kind, note, may_be_null


def value_of(kind: inspect.Type) -> Value:
    """Return how a single value of that type is read."""
    inner, note, _ = unwrapped(kind)
    if isinstance(note, Value):
        return note
    if isinstance(inner, inspect.EnumType):
        return Value(inner.cls.__name__.lower(), values.choice({str(member): member for member in inner.cls}))
    if isinstance(inner, inspect.IntType | inspect.FloatType):
        name = note or ("whole number" if isinstance(inner, inspect.IntType) else "number")
        return Value(name, functools.partial(_NUMBERS[name], least=inner.ge or 0, most=inner.le))
    return Value(note, values.text) if note else _VALUES[type(inner)]


def default_of(known: inspect.Field) -> Any:
    """Return a field's default; `NODEFAULT` where its key is required."""
    return known.default if known.default_factory is NODEFAULT else known.default_factory()


def _children(node: Node, kind: type[Node], needed: str) -> list[Any]:
    """Return what is in a list or mapping; nothing after the key is an empty one."""
    if isinstance(node, kind) and node.tag not in {LIST, MAPPING}:
        raise Unfit("only a single value can have a tag, not a list or a mapping")
    if isinstance(node, kind) or is_null(node):
        return [] if is_null(node) else list(node.value)
    raise Unfit(f"needs {needed}, not {_words_for(node)}")


def _words_for(node: Node) -> str:
    if isinstance(node, ScalarNode):
        return "an empty value" if is_null(node) else "a single value"
    return "a list" if isinstance(node, SequenceNode) else "a mapping"
