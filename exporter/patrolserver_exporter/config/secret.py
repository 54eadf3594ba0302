"""A secret that does not print itself and knows where to read itself again."""

from __future__ import annotations

import hmac
import os
import threading
from typing import TYPE_CHECKING, Never, final

from patrolserver_exporter.config.problem import ConfigError, Problem, Unfit
from patrolserver_exporter.config.source import Environment, File, Literal, Source

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


@final
class Secret:
    """A value that must not show, and its source.

    Build it with `literal`, `from_env` or `from_file`. Two are equal when their values are, compared in constant time.
    It has no hash, as its value may change, and cannot be pickled. Threads may share it.
    """

    __slots__ = ("_lock", "_source", "_value")

    def __init__(self, source: Source) -> None:
        self._source = source
        self._lock = threading.Lock()
        self._value = _read(source)

    @classmethod
    def literal(cls, value: str) -> Secret:
        """Hold the value itself; raises `ConfigError` when it is empty or not one line of text."""
        return cls(Literal(value))

    @classmethod
    def from_env(cls, name: str, environ: Mapping[str, str] | None = None) -> Secret:
        """Read the environment variable; raises `ConfigError` when it is not set or empty."""
        return cls(Environment(name, os.environ if environ is None else environ))

    @classmethod
    def from_file(cls, path: Path) -> Secret:
        """Read the file, without the newlines at its end; raises `ConfigError` when it cannot be read or is empty."""
        return cls(File(path))

    @property
    def origin(self) -> str:
        """Where the value comes from, safe to print: ``literal``, ``environment NAME`` or ``file PATH``."""
        return self._source.origin

    @property
    def source(self) -> Source:
        """What the value is read from."""
        return self._source

    def reveal(self) -> str:
        """Return the value. Nothing that shows may get it."""
        return self._value

    def reread(self) -> bool:
        """Read the value again; True when it changed.

        Raises `ConfigError` when the source cannot be read or is empty; the value then stays as it was.
        """
        with self._lock:
            fresh = _read(self._source)
            changed = not _same(fresh, self._value)
            self._value = fresh
            return changed

    def matches(self, candidate: str) -> bool:
        """Whether the candidate is the value, compared in constant time."""
        return _same(self._value, candidate)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Secret):
            return NotImplemented
        return _same(self._value, other._value)

    __hash__ = None  # type: ignore[assignment]  # the value may change, and a hash would tell of it

    def __repr__(self) -> str:
        return f"Secret(<{self.origin}>)"

    __str__ = __repr__

    def __format__(self, spec: str) -> str:
        return format(repr(self), spec)

    def __copy__(self) -> Secret:
        return self

    def __deepcopy__(self, memo: dict[int, object]) -> Secret:
        return self

    def __reduce__(self) -> Never:
        raise TypeError("a secret is not to be pickled")


def _read(source: Source) -> str:
    try:
        return source.read()
    except Unfit as error:
        raise ConfigError((Problem(source.origin, None, None, "", str(error)),)) from None


def _same(one: str, other: str) -> bool:
    # Lone surrogates reach here from URLs; they equal nothing that a source gives.
    return hmac.compare_digest(one.encode("utf-8", "surrogatepass"), other.encode("utf-8", "surrogatepass"))
