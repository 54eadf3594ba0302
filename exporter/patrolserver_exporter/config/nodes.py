"""YAML text as a tree of nodes that know their place; scalars stay the text that was written.

Built from the parser's events and not by PyYAML's constructors: so that no value is typed before the schema says
its type, duplicate keys are seen, and neither nesting nor aliases can exhaust the machine.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import yaml

from patrolserver_exporter.config.problem import ConfigError, Problem

if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_BYTES = 1024 * 1024
MAX_DEPTH = 32
MAX_ALIASED_NODES = 10_000

_LOADER: Any = yaml.CSafeLoader if yaml.__with_libyaml__ else yaml.SafeLoader
_NULLS = frozenset({"", "~", "null", "Null", "NULL"})
_UNWELCOME = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x84\x86-\x9f\ud800-\udfff\ufffe\uffff]")
_WORD = re.compile(r"[A-Za-z_][A-Za-z_-]{0,39}")
_QUOTED = re.compile(r"'(?!<)[^']{2,}'")


@dataclass(frozen=True, slots=True)
class Place:
    """Line and column, from 1; None when the data was not text."""

    line: int | None = None
    column: int | None = None


@dataclass(frozen=True, slots=True)
class Scalar:
    """One value as written. ``tag`` is ``!env``, ``!file`` or empty."""

    place: Place
    text: str = field(repr=False)
    tag: str = ""
    is_plain: bool = False

    @property
    def is_null(self) -> bool:
        """Nothing, ``null`` or ``~``, without quotes."""
        return self.is_plain and not self.tag and self.text in _NULLS


@dataclass(frozen=True, slots=True)
class Sequence:
    """A list."""

    place: Place
    items: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Mapping:
    """Keys and values, in the order of the text, each key once."""

    place: Place
    entries: tuple[tuple[Scalar, Node], ...]


Node = Scalar | Sequence | Mapping


def shown_key(name: str) -> str:
    """Return the key's name, or ``?`` for what does not look like one: a secret in the wrong place does."""
    return name if _WORD.fullmatch(name) else "?"


def join_key(path: str, name: str) -> str:
    """Return the dotted path of a key below another."""
    return f"{path}.{name}" if path else name


def parse_nodes(raw: bytes, file: str) -> Node:
    """Parse one YAML document.

    Raises `ConfigError` with every duplicate key, or with the one reason why it cannot be read at all.
    """
    text = _decoded(raw, file)
    builder = _Builder(file)
    try:
        node = builder.document(_events(text))
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = Place(mark.line + 1, mark.column + 1) if mark else Place()
        raise _failure(file, place, _syntax_message(error)) from None
    except (yaml.YAMLError, ValueError):
        raise _failure(file, Place(), "is not YAML; look for odd characters or escapes") from None
    if builder.problems:
        raise ConfigError(tuple(builder.problems))
    return node


def node_of(data: object, file: str, depth: int = 0) -> Node:
    """Turn decoded JSON into nodes, so that it is read as strictly as text; raises `ConfigError` when too deep."""
    if depth > MAX_DEPTH:
        raise _failure(file, Place(), f"is nested deeper than {MAX_DEPTH} levels")
    match data:
        case dict():
            entries = ((Scalar(Place(), str(key)), node_of(value, file, depth + 1)) for key, value in data.items())
            return Mapping(Place(), tuple(entries))
        case list() | tuple():
            return Sequence(Place(), tuple(node_of(item, file, depth + 1) for item in data))
        case None:
            return Scalar(Place(), "", is_plain=True)
        case bool():
            return Scalar(Place(), str(data).lower())
        case _:
            return Scalar(Place(), str(data))


def _decoded(raw: bytes, file: str) -> str:
    if len(raw) > MAX_BYTES:
        raise _failure(file, Place(), f"is over {MAX_BYTES} bytes; a configuration is smaller")
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        # An editor counts characters; what precedes the bad byte is sound.
        sound = raw[: error.start].decode("utf-8-sig", "replace")
        raise _failure(file, _place_after(sound), "is not UTF-8 here; save the file as UTF-8") from None
    if unwelcome := _UNWELCOME.search(text):
        place = _place_after(text[: unwelcome.start()])
        name = f"U+{ord(unwelcome.group()):04X}"
        raise _failure(file, place, f"holds the control character {name}; remove it")
    return text


def _place_after(text: str) -> Place:
    return Place(text.count("\n") + 1, len(text) - (text.rfind("\n") + 1) + 1)


def _failure(file: str, place: Place, message: str) -> ConfigError:
    return ConfigError((Problem(file, place.line, place.column, "", message),))


def _syntax_message(error: yaml.MarkedYAMLError) -> str:
    # Never the snippet, which may be a secret's line; nor quoted words, which may be parts of one.
    what = _QUOTED.sub("…", error.problem or "unreadable")
    hint = "; indent with spaces, not tabs" if r"'\t'" in what or "cannot start any token" in what else ""
    return f"is not YAML: {what}{hint}; a value with special characters needs quotes"


def _events(text: str) -> Iterator[Any]:
    return iter(yaml.parse(text, Loader=_LOADER))


@dataclass(slots=True)
class _Builder:
    """Turns events into nodes, without recursion into PyYAML."""

    file: str
    problems: list[Problem] = field(default_factory=list)
    anchors: dict[str, tuple[Node, int]] = field(default_factory=dict)
    aliased: int = 0

    def document(self, events: Iterator[Any]) -> Node:
        node: Node | None = None
        for event in events:
            if isinstance(event, yaml.DocumentStartEvent):
                if node is not None:
                    raise self._refused(event, "", "has a second document; everything belongs into one")
                node, _ = self._node(next(events), events, "", 0)
        if node is None:
            raise _failure(self.file, Place(), "is empty; write the configuration into it")
        return node

    def _node(self, event: Any, events: Iterator[Any], path: str, depth: int) -> tuple[Node, int]:
        """Return the node and how many nodes it stands for."""
        if isinstance(event, yaml.AliasEvent):
            return self._alias(event, path)
        if depth > MAX_DEPTH:
            raise self._refused(event, "", f"is nested deeper than {MAX_DEPTH} levels")
        if isinstance(event, yaml.ScalarEvent):
            node: Node = self._scalar(event, path)
            size = 1
        else:
            if event.tag is not None:
                raise self._refused(event, path, "only a single value can have a tag, not a list or a mapping")
            if isinstance(event, yaml.SequenceStartEvent):
                node, size = self._sequence(event, events, path, depth)
            else:
                node, size = self._mapping(event, events, path, depth)
        if event.anchor is not None:
            self.anchors[event.anchor] = (node, size)
        return node, size

    def _alias(self, event: Any, path: str) -> tuple[Node, int]:
        # An alias within its own anchor is unknown too, as the anchor is entered when its node is complete.
        if event.anchor not in self.anchors:
            raise self._refused(
                event, path, "is an alias without an anchor before it; a value that starts with * needs quotes"
            )
        node, size = self.anchors[event.anchor]
        self.aliased += size
        if self.aliased > MAX_ALIASED_NODES:
            raise self._refused(event, path, f"aliases repeat more than {MAX_ALIASED_NODES} values; write less of them")
        return node, size

    def _scalar(self, event: Any, path: str) -> Scalar:
        if event.tag not in {None, "!env", "!file"}:
            # The tag itself may be a secret without its quotes.
            raise self._refused(
                event,
                path,
                "has an unknown tag; known are !env NAME and !file PATH, and a value that starts with ! needs quotes",
            )
        return Scalar(_place(event), event.value, event.tag or "", is_plain=event.style in {None, ""})

    def _sequence(self, start: Any, events: Iterator[Any], path: str, depth: int) -> tuple[Sequence, int]:
        items: list[Node] = []
        total = 1
        while not isinstance(event := next(events), yaml.SequenceEndEvent):
            node, size = self._node(event, events, f"{path}[{len(items)}]", depth + 1)
            items.append(node)
            total += size
        return Sequence(_place(start), tuple(items)), total

    def _mapping(self, start: Any, events: Iterator[Any], path: str, depth: int) -> tuple[Mapping, int]:
        entries: dict[str, tuple[Scalar, Node]] = {}
        total = 1
        while not isinstance(event := next(events), yaml.MappingEndEvent):
            key = self._key(event, path)
            name = join_key(path, shown_key(key.text))
            node, size = self._node(next(events), events, name, depth + 1)
            total += size
            if key.text in entries:
                first = entries[key.text][0].place.line
                self._collect(key.place, name, f"is given twice, first on line {first}; keep one")
            else:
                entries[key.text] = (key, node)
        return Mapping(_place(start), tuple(entries.values())), total

    def _key(self, event: Any, path: str) -> Scalar:
        if not isinstance(event, yaml.ScalarEvent) or event.tag is not None:
            raise self._refused(event, path, "has a key that is not a plain word")
        key = Scalar(_place(event), event.value, is_plain=event.style in {None, ""})
        if key.is_plain and key.text == "<<":
            raise self._refused(
                event, path, "merge keys (<<) are not supported; repeat the keys, or alias a whole value"
            )
        if event.anchor is not None:
            self.anchors[event.anchor] = (key, 1)
        return key

    def _collect(self, place: Place, path: str, message: str) -> None:
        self.problems.append(Problem(self.file, place.line, place.column, path, message))

    def _refused(self, event: Any, path: str, message: str) -> ConfigError:
        place = _place(event)
        self._collect(place, path, message)
        return ConfigError(tuple(self.problems))


def _place(event: Any) -> Place:
    return Place(event.start_mark.line + 1, event.start_mark.column + 1)
