"""Where the text of a value comes from: the configuration itself, the environment, or a file."""

from __future__ import annotations

import stat
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from patrolserver_exporter.config.problem import Unfit

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

MAX_VALUE_BYTES = 65_536


class Source(Protocol):
    """One place that a value is read from."""

    @property
    def origin(self) -> str:
        """Where that is, in words that are safe to print."""
        ...

    def read(self) -> str:
        """Return the value as it is now, without the newlines at its end; raises `Unfit` when there is none."""
        ...


@dataclass(frozen=True, slots=True)
class Literal:
    """The value itself."""

    value: str = field(repr=False)

    @property
    def origin(self) -> str:
        """Only says that it was given literally."""
        return "literal"

    def read(self) -> str:
        """Return the value, checked."""
        return _checked(self.value, "the value", "give it a value")


@dataclass(frozen=True, slots=True)
class Environment:
    """An environment variable."""

    name: str
    environ: Mapping[str, str] = field(repr=False)

    @property
    def origin(self) -> str:
        """The variable's name."""
        return f"environment {self.name}"

    def read(self) -> str:
        """Return the variable's value."""
        value = self.environ.get(self.name)
        if value is None:
            raise Unfit(f"the environment variable {self.name} is not set; set it for the exporter's process")
        return _checked(value, f"the environment variable {self.name}", "set it to the value")


@dataclass(frozen=True, slots=True)
class File:
    """A file that holds nothing but the value."""

    path: Path

    @property
    def origin(self) -> str:
        """The file's path."""
        return f"file {self.path}"

    def read(self) -> str:
        """Return the file's text."""
        try:
            with self.path.open("rb") as file:
                raw = file.read(MAX_VALUE_BYTES + 1)
        except FileNotFoundError:
            raise Unfit(f"the file {self.path} does not exist; create it or correct the path") from None
        except PermissionError:
            raise Unfit(f"the file {self.path} may not be read; let the exporter's user read it") from None
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else "not a path"
            raise Unfit(f"the file {self.path} cannot be read ({reason}); correct the path") from None
        if len(raw) > MAX_VALUE_BYTES:
            raise Unfit(f"the file {self.path} is over {MAX_VALUE_BYTES} bytes; it should hold only the value")
        try:
            text = raw.decode("utf-8-sig")
        except UnicodeDecodeError:
            raise Unfit(f"the file {self.path} is not UTF-8 text; write the value as plain text") from None
        return _checked(text, f"the file {self.path}", "write the value into it")

    def is_world_readable(self) -> bool:
        """Whether every user of the machine may read it."""
        return is_world_readable(self.path)


def is_world_readable(path: Path) -> bool:
    """Whether every user of the machine may read the file; False when it cannot be told."""
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError):
        return False
    return stat.S_ISREG(mode) and bool(mode & stat.S_IROTH)


def _checked(text: str, what: str, remedy: str) -> str:
    text = text.rstrip("\r\n")
    if not text.strip():
        raise Unfit(f"{what} is empty; {remedy}")
    if any(ord(char) < 0x20 or ord(char) == 0x7F or 0xD800 <= ord(char) <= 0xDFFF for char in text):
        raise Unfit(f"{what} holds line breaks or other control characters; it should be one line of text")
    return text
