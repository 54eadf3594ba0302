"""Secrets, which do not print themselves, and the sources that their text can be read from again."""

from __future__ import annotations

import hmac
import os
import stat
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Never, final

from patrolserver_exporter.config.problem import ConfigError, Problem, Unfit

if TYPE_CHECKING:
    from collections.abc import Mapping

MAX_VALUE_BYTES = 65_536


@dataclass(frozen=True, slots=True)
class Source:
    """Where a text is: it itself (no tag), in an environment variable (``!env``), or in a file (``!file``)."""

    tag: str
    text: str = field(repr=False)
    environ: Mapping[str, str] = field(default_factory=dict, repr=False)

    @property
    def origin(self) -> str:
        """Where that is, in words that are safe to print."""
        return {"": "literal", "!env": f"environment {self.text}"}.get(self.tag, f"file {self.text}")

    def read(self) -> str:
        """Return the text as it is now, without the newlines at its end; raises `Unfit` when there is none."""
        if self.tag == "!file":
            what, remedy, text = f"the file {self.text}", "write the value into it", _read_file(Path(self.text))
        elif self.tag == "!env":
            what, remedy, text = f"the environment variable {self.text}", "set it to the value", self._variable()
        else:
            what, remedy, text = "the value", "give it a value", self.text
        text = text.rstrip("\r\n")
        if not text.strip():
            raise Unfit(f"{what} is empty; {remedy}")
        if any(ord(char) < 0x20 or ord(char) == 0x7F or 0xD800 <= ord(char) <= 0xDFFF for char in text):
            raise Unfit(f"{what} holds line breaks or other control characters; it should be one line of text")
        return text

    def _variable(self) -> str:
        try:
            return self.environ[self.text]
        except KeyError:
            message = f"the environment variable {self.text} is not set; set it for the exporter's process"
            raise Unfit(message) from None


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
        return cls(Source("", value))

    @classmethod
    def from_env(cls, name: str, environ: Mapping[str, str] | None = None) -> Secret:
        """Read the environment variable; raises `ConfigError` when it is not set or empty."""
        return cls(Source("!env", name, os.environ if environ is None else environ))

    @classmethod
    def from_file(cls, path: Path) -> Secret:
        """Read the file, without the newlines at its end; raises `ConfigError` when it cannot be read or is empty."""
        return cls(Source("!file", str(path)))

    @property
    def origin(self) -> str:
        """Where the value comes from, safe to print: ``literal``, ``environment NAME`` or ``file PATH``."""
        return self._source.origin

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
        return _same(self._value, other._value) if isinstance(other, Secret) else NotImplemented

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


def is_world_readable(path: Path) -> bool:
    """Whether every user of the machine may read the file; False when it cannot be told."""
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError):
        return False
    return stat.S_ISREG(mode) and bool(mode & stat.S_IROTH)


def _read(source: Source) -> str:
    try:
        return source.read()
    except Unfit as error:
        raise ConfigError((Problem(source.origin, None, None, "", str(error)),)) from None


def _read_file(path: Path) -> str:
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_VALUE_BYTES + 1)
    except FileNotFoundError:
        raise Unfit(f"the file {path} does not exist; create it or correct the path") from None
    except PermissionError:
        raise Unfit(f"the file {path} may not be read; let the exporter's user read it") from None
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not a path"
        raise Unfit(f"the file {path} cannot be read ({reason}); correct the path") from None
    if len(raw) > MAX_VALUE_BYTES:
        raise Unfit(f"the file {path} is over {MAX_VALUE_BYTES} bytes; it should hold only the value")
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise Unfit(f"the file {path} is not UTF-8 text; write the value as plain text") from None


def _same(one: str, other: str) -> bool:
    # Lone surrogates reach here from URLs; they equal nothing that a source gives.
    return hmac.compare_digest(one.encode("utf-8", "surrogatepass"), other.encode("utf-8", "surrogatepass"))
