"""YAML text as PyYAML's nodes: each knows its line, and scalars stay the text that was written.

The text is composed, not constructed, so that no value is typed before the schema says its type.
"""

from __future__ import annotations

import re
from typing import Any

import yaml

from patrolserver_exporter.config.problem import ConfigError, Mistake

MAX_BYTES = 1024 * 1024
MAX_DEPTH = 32
TEXT, LIST, MAPPING = "tag:yaml.org,2002:str", "tag:yaml.org,2002:seq", "tag:yaml.org,2002:map"
"""The tags of what has none of its own."""

# Without libyaml it is ten times slower.
_LOADER: Any = yaml.CBaseLoader if yaml.__with_libyaml__ else yaml.BaseLoader
_UNWELCOME = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x84\x86-\x9f\ud800-\udfff\ufffe\uffff]")
_QUOTED = re.compile(r"'(?!<)[^']{2,}'")
_REASONS = {
    "found another document": "has a second document; everything belongs into one",
    "undefined alias": "is an alias without an anchor before it; a value that starts with * needs quotes",
    "second occurrence": "gives an anchor for the second time; choose another name after the &",
    "could not find expected ':'": "has no colon here; or the colon has no blank behind it, here or on the line before",
    "tab character": "is not YAML; indent with spaces, not tabs",
    "cannot start any token": "is not YAML; indent with spaces, not tabs, and quote a value with special characters",
}
"""What to say instead of PyYAML's words."""
_LINE_BREAK = re.compile("\r\n|[\n\r\x85\u2028\u2029]")
"""Of YAML 1.1."""
_NO_BLANK = "is not YAML: a colon behind a key needs a blank, as in KEY: VALUE"
_NO_BLANK_BEHIND_DASH = "is not YAML: the dash of an item needs a blank, as in - VALUE"
_KEY = re.compile(r" *(?:- +)*[A-Za-z_]+:(?=[^\s/])")
"""A line that begins with a key, a colon and no blank; no URL does."""
_DASH = re.compile(r" *-(?=[A-Za-z_'\"{\[!])")
"""A line that begins with a dash and no blank."""
_AT_NEXT_KEY = ("mapping values", "could not find expected ':'", "did not find expected key")
"""What PyYAML says at the key that follows: without its blank, the line before is a text that goes on."""


def is_null(node: yaml.Node) -> bool:
    """Whether it is nothing, ``null`` or ``~``, without quotes."""
    return (
        isinstance(node, yaml.ScalarNode)
        and node.tag == TEXT
        and not node.style
        and node.value in {"", "~", "null", "Null", "NULL"}
    )


def place_of(mark: Any) -> tuple[int | None, int | None]:
    """Return line and column, counted from 1; nothing comes from elsewhere than a text."""
    return (mark.line + 1, mark.column + 1) if mark else (None, None)


def parse_nodes(raw: bytes, file: str, *, may_be_empty: bool = False) -> yaml.Node:
    """Parse one YAML document; raises `ConfigError` with the reason why it cannot be read."""
    if len(raw) > MAX_BYTES:
        raise _unreadable(file, f"is over {MAX_BYTES} bytes; shorten it")
    text = raw.decode("utf-8-sig", "surrogateescape")
    if odd := _UNWELCOME.search(text):
        # An editor counts characters.
        line, column = text.count("\n", 0, odd.start()) + 1, odd.start() - text.rfind("\n", 0, odd.start())
        is_byte = "\ud800" <= odd.group() <= "\udfff"
        message = f"holds the control character U+{ord(odd.group()):04X}; remove it"
        raise _unreadable(file, "is not UTF-8 here; save the file as UTF-8" if is_byte else message, line, column)
    try:
        _check_events(text, file)
        node = yaml.compose(text, Loader=_LOADER)
    except yaml.MarkedYAMLError as error:
        if unbroken := _without_blank(text, error):
            raise _unreadable(file, *unbroken) from None
        place = place_of(error.problem_mark or error.context_mark)
        # Never the snippet, which may be a secret's line; nor quoted words, which may be parts of one.
        said = _QUOTED.sub("…", error.problem or "unreadable")
        colon = ", and a colon a blank behind it" if "mapping values" in said else ""
        default = f"is not YAML: {said}; a value with special characters needs quotes{colon}"
        message = next((reason for part, reason in _REASONS.items() if part in said), default)
        raise _unreadable(file, message, *place) from None
    except (yaml.YAMLError, ValueError):
        raise _unreadable(file, "is not YAML; look for odd characters or escapes") from None
    if node is None and not may_be_empty:
        raise _unreadable(file, "is empty; write the configuration into it")
    return node or yaml.MappingNode(MAPPING, [])


def _without_blank(text: str, error: yaml.MarkedYAMLError) -> tuple[str, int, int] | None:
    """Say which colon or dash lacks its blank, so that YAML fails here or on the next line; None where none does."""
    if error.problem_mark is None:
        return None
    lines, said = _LINE_BREAK.split(text), error.problem or ""
    number, column = error.problem_mark.line, error.problem_mark.column
    if "unexpected ':'" in said:
        return _NO_BLANK, number + 1, column + 1
    if any(part in said for part in _AT_NEXT_KEY):
        written = [one for one, line in enumerate(lines[: number + 1], 1) if line.strip() and line.lstrip()[0] != "#"]
        for one in reversed(written[-2:]):
            if key := _KEY.match(lines[one - 1]):
                return _NO_BLANK, one, key.end()
            if dash := _DASH.match(lines[one - 1]):
                return _NO_BLANK_BEHIND_DASH, one, dash.end()
    return None


def node_of(data: object, file: str, depth: int = 0) -> yaml.Node:
    """Turn decoded JSON into nodes, so that it is read as strictly as text; raises `ConfigError` when too deep."""
    if depth > MAX_DEPTH:
        raise _unreadable(file, f"is nested deeper than {MAX_DEPTH} levels")
    match data:
        case dict():
            pairs = [(yaml.ScalarNode(TEXT, str(key)), node_of(item, file, depth + 1)) for key, item in data.items()]
            return yaml.MappingNode(MAPPING, pairs)
        case list():
            return yaml.SequenceNode(LIST, [node_of(item, file, depth + 1) for item in data])
        case None:
            return yaml.ScalarNode(TEXT, "")
        case _:
            return yaml.ScalarNode(TEXT, str(data).lower() if isinstance(data, bool) else str(data), style='"')


def _check_events(text: str, file: str) -> None:
    # Composing what is too deep would end the process, and takes a lone ! away.
    depth = -1
    for event in yaml.parse(text, Loader=_LOADER):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > MAX_DEPTH:
            raise _unreadable(file, f"is nested deeper than {MAX_DEPTH} levels", *place_of(event.start_mark))
        if getattr(event, "tag", None) == "!":
            raise _unreadable(
                file, "has a tag without a name; a value that starts with ! needs quotes", *place_of(event.start_mark)
            )


def _unreadable(file: str, message: str, line: int | None = None, column: int | None = None) -> ConfigError:
    return ConfigError((Mistake(file, line, column, "", message),))
