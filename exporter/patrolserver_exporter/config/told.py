"""A configuration told to people: all of it with secrets masked, and what another one changes."""

from __future__ import annotations

import dataclasses
import hashlib
import re
from collections.abc import Mapping
from enum import Enum
from typing import TYPE_CHECKING, Any

import msgspec
import yaml
from msgspec import inspect

from patrolserver_exporter.config.duration import format_duration
from patrolserver_exporter.config.hidden import url_passwords
from patrolserver_exporter.config.proxy import shown
from patrolserver_exporter.config.reading import join_key, unwrapped
from patrolserver_exporter.config.secret import Secret
from patrolserver_exporter.redaction import mask_parameters

if TYPE_CHECKING:
    from collections.abc import Iterator

    from patrolserver_exporter.config.schema import Config

NEEDS_RESTART = ("store.url", "store.replica_name")
"""Keys that a reload does not take over."""


def as_yaml(config: Config) -> str:
    """Return it as YAML with every key, defaults too; a secret shows where it is from and nothing of its value."""
    plain = _plain(config)
    text: str = yaml.safe_dump(plain, sort_keys=False, allow_unicode=True, width=160)
    return text


def mark_of(config: Config) -> str:
    """A mark by which exporters on one database compare their configurations; no secret, and nothing of one process."""
    plain = _plain(dataclasses.replace(config, store=dataclasses.replace(config.store, url="", replica_name=None)))
    written = re.sub(r"<secret of [^>\n]*>", "<secret>", yaml.safe_dump(plain, sort_keys=True, width=2**20))
    return hashlib.blake2b(written.encode("utf-8", "replace"), digest_size=16).hexdigest()


def _plain(value: Any, kind: inspect.Type | None = None) -> Any:  # noqa: PLR0911  # One for each kind of value.
    if isinstance(value, Secret):
        source = "" if value.origin == "literal" else f" of {value.origin}"
        return f"<secret{source}>"
    if fields := _fields(type(value)):
        return {name: _member(name, getattr(value, name), field) for name, field in fields.items()}
    if isinstance(value, Mapping):
        # Of a mapping by severity each value may be a duration.
        inner = unwrapped(kind)[0] if kind is not None else None
        below = inner.value_type if isinstance(inner, inspect.DictType) else None
        return {str(_plain(key)): _plain(item, below) for key, item in value.items()}
    if isinstance(value, tuple | frozenset):
        items = [_plain(item) for item in value]
        return items if isinstance(value, tuple) else sorted(items)
    if isinstance(value, Enum):
        return str(value.value)
    if kind is not None and isinstance(value, float) and unwrapped(kind)[1] == "duration":
        return format_duration(value)
    if value is None or isinstance(value, bool | int | float | str):
        return value
    # A day, a path or a network.
    return str(value)


def _member(name: str, value: Any, kind: inspect.Type) -> Any:
    if name == "proxy_url" and isinstance(value, Secret):
        return shown(value)
    if name == "url" and isinstance(value, str):
        for password in url_passwords(value):
            value = value.replace(f":{password}@", ":<secret>@")
        return mask_parameters(value, "<secret>")
    return _plain(value, kind)


def _fields(kind: type) -> dict[str, inspect.Type]:
    """The members of a section, each with its type; none for other values."""
    if not (dataclasses.is_dataclass(kind) or issubclass(kind, msgspec.Struct)):
        return {}
    info = inspect.type_info(kind)
    assert isinstance(info, inspect.DataclassType | inspect.StructType)  # noqa: S101  # As was asked above.
    return {field.name: field.type for field in info.fields}


def changes(before: Config, after: Config) -> tuple[str, ...]:
    """Return the keys that differ, in the order of the documentation; those of a list with the name of their item."""
    return tuple(_changes(before, after, ""))


def _changes(before: Any, after: Any, path: str) -> Iterator[str]:
    if before == after:
        return
    if type(before) is type(after) and (fields := _fields(type(before))):
        for name in fields:
            yield from _changes(getattr(before, name), getattr(after, name), join_key(path, name))
    elif (old := _named(before)) is not None and (new := _named(after)) is not None:
        for name in dict.fromkeys((*old, *new)):
            inner = f"{path}[{name}]"
            if name in old and name in new:
                yield from _changes(old[name], new[name], inner)
            else:
                yield f"{inner} ({'new' if name in new else 'removed'})"
    else:
        yield path


def _named(value: Any) -> dict[str, Any] | None:
    """The items of a list or mapping by their names; None where they have none."""
    if isinstance(value, Mapping):
        return {str(key): item for key, item in value.items()}
    if isinstance(value, tuple) and all(isinstance(getattr(item, "name", None), str) for item in value):
        return {item.name: item for item in value}
    return None


def with_what_needs_a_restart(config: Config, in_force: Config) -> Config:
    """Return the new configuration with those values of the one in force that only a restart can change."""
    names = [key.removeprefix("store.") for key in NEEDS_RESTART]
    kept = {name: getattr(in_force.store, name) for name in names if hasattr(in_force.store, name)}
    return dataclasses.replace(config, store=dataclasses.replace(config.store, **kept))
