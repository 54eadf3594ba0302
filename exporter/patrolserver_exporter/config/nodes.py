"""YAML text as PyYAML's nodes: each knows its line, and scalars stay the text that was written.

The text is composed, not constructed. So no value is typed before the schema says its type, duplicate keys are seen,
and neither nesting nor aliases can exhaust the machine.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import yaml
from yaml.composer import Composer

from patrolserver_exporter.config.problem import ConfigError, Problem

if TYPE_CHECKING:
    from typing import Never

MAX_BYTES = 1024 * 1024
MAX_DEPTH = 32
MAX_ALIASED_NODES = 10_000

_LOADER: Any = yaml.CSafeLoader if yaml.__with_libyaml__ else yaml.SafeLoader
_NULL, _MERGE = "tag:yaml.org,2002:null", "tag:yaml.org,2002:merge"
_UNWELCOME = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x84\x86-\x9f\ud800-\udfff\ufffe\uffff]")
_WORD = re.compile(r"[A-Za-z_][A-Za-z_-]{0,39}")
_QUOTED = re.compile(r"'(?!<)[^']{2,}'")


def is_null(node: yaml.Node) -> bool:
    """Whether it is nothing, ``null`` or ``~``, without quotes."""
    return node.tag == _NULL


def own_tag(node: yaml.Node) -> str:
    """Return ``!env``, ``!file`` or nothing."""
    return node.tag if node.tag.startswith("!") else ""


def shown_key(name: str) -> str:
    """Return the key's name, or ``?`` for what does not look like one: a secret in the wrong place does."""
    return name if _WORD.fullmatch(name) else "?"


def join_key(path: str, name: str) -> str:
    """Return the dotted path of a key below another."""
    return f"{path}.{name}" if path else name


def parse_nodes(raw: bytes, file: str) -> yaml.Node:
    """Parse one YAML document.

    Raises `ConfigError` with every duplicate key, or with the one reason why it cannot be read at all.
    """
    text = _decoded(raw, file)
    try:
        composer = _Composer(text, file)
        node: yaml.Node | None = Composer.get_single_node(composer)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line, column = (mark.line + 1, mark.column + 1) if mark else (None, None)
        raise ConfigError((Problem(file, line, column, "", _syntax_message(error)),)) from None
    except (yaml.YAMLError, ValueError):
        raise _failure(file, "is not YAML; look for odd characters or escapes") from None
    if node is None:
        raise _failure(file, "is empty; write the configuration into it")
    if composer.problems:
        raise ConfigError(tuple(composer.problems))
    return node


def node_of(data: object, file: str, depth: int = 0) -> yaml.Node:
    """Turn decoded JSON into nodes, so that it is read as strictly as text; raises `ConfigError` when too deep."""
    if depth > MAX_DEPTH:
        raise _failure(file, f"is nested deeper than {MAX_DEPTH} levels")
    match data:
        case dict():
            pairs = [(yaml.ScalarNode("", str(key)), node_of(item, file, depth + 1)) for key, item in data.items()]
            return yaml.MappingNode("", pairs)
        case list() | tuple():
            return yaml.SequenceNode("", [node_of(item, file, depth + 1) for item in data])
        case None:
            return yaml.ScalarNode(_NULL, "")
        case _:
            return yaml.ScalarNode("", str(data).lower() if isinstance(data, bool) else str(data))


def _decoded(raw: bytes, file: str) -> str:
    if len(raw) > MAX_BYTES:
        raise _failure(file, f"is over {MAX_BYTES} bytes; a configuration is smaller")
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        # An editor counts characters; what precedes the bad byte is sound.
        sound = raw[: error.start].decode("utf-8-sig", "replace")
        raise _failure(file, "is not UTF-8 here; save the file as UTF-8", sound) from None
    if unwelcome := _UNWELCOME.search(text):
        message = f"holds the control character U+{ord(unwelcome.group()):04X}; remove it"
        raise _failure(file, message, text[: unwelcome.start()])
    return text


def _failure(file: str, message: str, before: str | None = None) -> ConfigError:
    line, column = (None, None) if before is None else (before.count("\n") + 1, len(before) - before.rfind("\n"))
    return ConfigError((Problem(file, line, column, "", message),))


def _syntax_message(error: yaml.MarkedYAMLError) -> str:
    if error.problem == "but found another document":
        return "has a second document; everything belongs into one"
    # Never the snippet, which may be a secret's line; nor quoted words, which may be parts of one.
    what = _QUOTED.sub("…", error.problem or "unreadable")
    hint = "; indent with spaces, not tabs" if r"'\t'" in what or "cannot start any token" in what else ""
    return f"is not YAML: {what}{hint}; a value with special characters needs quotes"


class _Composer(_LOADER, Composer):  # type: ignore[misc]  # libyaml may be missing
    """PyYAML's composer over the faster parser that there is; it refuses what no configuration needs."""

    def __init__(self, text: str, file: str) -> None:
        _LOADER.__init__(self, text)
        Composer.__init__(self)
        self.problems: list[Problem] = []
        self._file = file
        self._paths: list[str] = []
        self._count = self._aliased = 0
        self._sizes: dict[str, int] = {}

    def compose_node(self, parent: yaml.Node | None, index: Any) -> Any:
        """Compose one node; ``index`` is its place in a list, or the node of its key."""
        event = self.peek_event()
        path = self._paths[-1] if self._paths else ""
        is_key = index is None and parent is not None
        if is_key:
            self._check_key(event, path)
        elif isinstance(index, int):
            path += f"[{index}]"
        elif index is not None:
            path = join_key(path, shown_key(index.value))
        if isinstance(event, yaml.AliasEvent):
            self._check_alias(event, path)
        else:
            self._check_tag(event, path)
            # An anchor may be given anew.
            self.anchors.pop(event.anchor, None)
            self._sizes.pop(event.anchor, None)
        before, self._count = self._count, self._count + 1
        self._paths.append(path)
        node: Any = Composer.compose_node(self, parent, index)
        self._paths.pop()
        if isinstance(event, yaml.MappingStartEvent):
            self._find_duplicates(node, path)
        if not isinstance(event, yaml.AliasEvent) and event.anchor is not None:
            self._sizes[event.anchor] = self._count - before
        return node

    def _check_key(self, event: Any, path: str) -> None:
        if not isinstance(event, yaml.ScalarEvent) or event.tag is not None:
            self._refuse(event, path, "has a key that is not a plain word")
        if self.resolve(yaml.ScalarNode, event.value, event.implicit) == _MERGE:
            self._refuse(event, path, "merge keys (<<) are not supported; repeat the keys, or alias a whole value")

    def _check_alias(self, event: Any, path: str) -> None:
        # An alias within its own anchor is unknown too: the size is known when the node is complete.
        if event.anchor not in self._sizes:
            message = "is an alias without an anchor before it; a value that starts with * needs quotes"
            self._refuse(event, path, message)
        self._count += self._sizes[event.anchor]
        self._aliased += self._sizes[event.anchor]
        if self._aliased > MAX_ALIASED_NODES:
            self._refuse(event, path, f"aliases repeat more than {MAX_ALIASED_NODES} values; write less of them")

    def _check_tag(self, event: Any, path: str) -> None:
        if len(self._paths) > MAX_DEPTH:
            self._refuse(event, "", f"is nested deeper than {MAX_DEPTH} levels")
        if isinstance(event, yaml.ScalarEvent) and event.tag not in {None, "!env", "!file"}:
            # The tag itself may be a secret without its quotes.
            known = "known are !env NAME and !file PATH, and a value that starts with ! needs quotes"
            self._refuse(event, path, f"has an unknown tag; {known}")
        if not isinstance(event, yaml.ScalarEvent) and event.tag is not None:
            self._refuse(event, path, "only a single value can have a tag, not a list or a mapping")

    def _find_duplicates(self, node: yaml.MappingNode, path: str) -> None:
        first: dict[str, yaml.Node] = {}
        for key, _ in node.value:
            if key.value in first:
                message = f"is given twice, first on line {first[key.value].start_mark.line + 1}; keep one"
                self.problems.append(self._problem(key, join_key(path, shown_key(key.value)), message))
            first.setdefault(key.value, key)

    def _problem(self, at: Any, path: str, message: str) -> Problem:
        return Problem(self._file, at.start_mark.line + 1, at.start_mark.column + 1, path, message)

    def _refuse(self, event: Any, path: str, message: str) -> Never:
        raise ConfigError((*self.problems, self._problem(event, path, message)))
