"""Every key with its type, default and description, as the documentation has to show it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from patrolserver_exporter.config.keys import CONFIG
from patrolserver_exporter.config.nodes import join_key
from patrolserver_exporter.config.reading import REQUIRED
from patrolserver_exporter.config.shape import ListOf, Section

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
    return tuple(_entries(CONFIG, ""))


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
    defaults = section.defaults()
    for key in section.keys:
        inner = join_key(path, key.name)
        default = defaults[key.name]
        shown = "required" if default is REQUIRED else key.shape.show(default)
        yield Entry(inner, key.shape.kind, shown, key.description)
        if isinstance(key.shape, Section):
            yield from _entries(key.shape, inner)
        elif isinstance(key.shape, ListOf) and isinstance(key.shape.item, Section):
            yield from _entries(key.shape.item, f"{inner}[]")
