"""Secrets, which do not print themselves and can be read again, and the files that may hold some."""

from __future__ import annotations

import hmac
import os
import re
import ssl
import stat
import threading
from pathlib import Path
from typing import TYPE_CHECKING, final

from patrolserver_exporter.config.problem import ConfigError, Mistake, Unfit, refuse_variables

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Never, Self

MAX_VALUE_BYTES = 65_536
SERVICE = "the exporter's user"
"""Who reads the files of a configuration."""


@final
class Secret:
    """A value that must not show: the text itself, or what the variable (``!env``) or file (``!file``) holds.

    Raises `ConfigError` when that is empty, not one line of text, or cannot be read. Two are equal when their values
    are. It has no hash, as its value may change, and cannot be pickled. Threads may share it.
    """

    __slots__ = ("_environ", "_lock", "_reader", "_tag", "_text", "_value")

    def __init__(
        self, text: str, tag: str = "", environ: Mapping[str, str] | None = None, reader: str = SERVICE
    ) -> None:
        self._text, self._tag, self._reader = text, tag, reader
        self._environ = os.environ if environ is None else environ
        self._lock = threading.Lock()
        self._value = self._read()

    @classmethod
    def literal(cls, value: str) -> Self:
        """Hold the value itself."""
        return cls(value)

    @classmethod
    def from_env(cls, name: str, environ: Mapping[str, str] | None = None) -> Self:
        """Read the environment variable."""
        return cls(name, "!env", environ)

    @classmethod
    def from_file(cls, path: Path, reader: str = SERVICE) -> Self:
        """Read the file, without the newlines at its end; ``reader`` is who has to be allowed to, in words."""
        return cls(str(path), "!file", reader=reader)

    @property
    def origin(self) -> str:
        """Where the value comes from, safe to print: ``literal``, ``environment NAME`` or ``file PATH``."""
        return {"": "literal", "!env": f"environment {self._text}"}.get(self._tag, f"file {self._text}")

    @property
    def source(self) -> str:
        """The kind of its origin: ``configuration``, ``variable`` or ``file``."""
        return {"": "configuration", "!env": "variable"}.get(self._tag, "file")

    def reveal(self) -> str:
        """Return the value. Nothing that shows may get it."""
        return self._value

    def reread(self) -> bool:
        """Read the value again; True when it changed. Raises `ConfigError` when it cannot; it then stays as it was."""
        with self._lock:
            fresh = self._read()
            changed = not self.matches(fresh)
            self._value = fresh
            return changed

    def matches(self, candidate: str) -> bool:
        """Whether the candidate is the value, compared in constant time."""
        # Lone surrogates reach here from URLs; they equal nothing that a source gives.
        return hmac.compare_digest(self._value.encode(), candidate.encode("utf-8", "surrogatepass"))

    def __eq__(self, other: object) -> bool:
        return self.matches(other.reveal()) if isinstance(other, Secret) else NotImplemented

    __hash__ = None  # type: ignore[assignment]  # the value may change, and a hash would tell of it

    def __repr__(self) -> str:
        return f"Secret(<{self.origin}>)"

    def __format__(self, spec: str) -> str:
        return format(repr(self), spec)

    def __deepcopy__(self, memo: dict[int, object] | None = None) -> Self:
        return self

    __copy__ = __deepcopy__

    def __reduce__(self) -> Never:
        raise TypeError("a secret is not to be pickled")

    def _read(self) -> str:
        try:
            return _one_line(self._source())
        except Unfit as error:
            what = {"": "value", "!env": f"environment variable {self._text}"}.get(self._tag, f"file {self._text}")
            origin, message = self.origin, f"the {what} {error}"
            if self._tag and _looks_like_a_secret(self._text) and not self._is_there():
                kind = "environment variable" if self._tag == "!env" else "file"
                origin = origin.partition(" ")[0]
                message = (
                    f"there is no {kind} of this name, which is not shown, since it looks like the secret itself; "
                    f"give the name of the {kind} that holds the secret"
                )
            raise ConfigError((Mistake(origin, None, None, "", message),)) from None

    def _is_there(self) -> bool:
        if self._tag == "!env":
            return self._text in self._environ
        try:
            return Path(self._text).exists()
        except (OSError, ValueError):
            return False

    def _source(self) -> str:
        if self._tag == "!env" and self._text not in self._environ:
            raise Unfit("is not set; set it for the exporter's process")
        if self._tag != "!file":
            return self._environ[self._text] if self._tag else self._text
        try:
            return read_file(Path(self._text), MAX_VALUE_BYTES, reader=self._reader).decode("utf-8-sig")
        except UnicodeDecodeError:
            raise Unfit("is not UTF-8 text; write the value as plain text") from None


_LONG = 24
"""Characters of a part of a name that no word has."""
_ASSIGNMENT = re.compile(
    r"(?:export\s+)?(?:[a-z]\w*_\w*|key|secret|token|password|apikey|apisecret)\s*=\s*[^=\s]",
    re.ASCII | re.IGNORECASE,
)


_WORD = re.compile(r"[A-Za-z0-9+=~!@#$%^&*]{12,}")


def _looks_like_a_secret(name: str) -> bool:
    """Whether a part of the name is as keys are: long, of letters and digits, and no word with a number behind it."""
    return any(
        len(re.findall(r"\d+", word)) > 1 or len(word) >= _LONG
        for word in _WORD.findall(name)
        if re.search(r"\d", word)
    )


def _one_line(text: str) -> str:
    text = text.rstrip("\r\n")
    if not text.strip():
        raise Unfit("is empty; write the value into it")
    refuse_variables(text)
    if _ASSIGNMENT.match(text):
        raise Unfit("holds NAME=value, as a file of variables does; write the value alone into it")
    if any(char < " " or char == "\x7f" or "\ud800" <= char <= "\udfff" for char in text):
        raise Unfit("holds line breaks or other control characters; it should be one line of text")
    return text


def read_file(path: Path, max_bytes: int, named_by: str = "the path", reader: str = SERVICE) -> bytes:
    """Return the file's content, and raise `Unfit` where there is none; ``named_by`` tells where the path is given."""
    try:
        with path.open("rb") as file:
            raw = file.read(max_bytes + 1)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not a path"
        raise Unfit(f"cannot be read ({reason}); correct {named_by}, or let {reader} read it") from None
    if len(raw) > max_bytes:
        raise Unfit(f"is over {max_bytes} bytes; correct {named_by}, or shorten the file")
    return raw


def holds_certificates(path: Path) -> bool:
    """Whether the file has what TLS can trust, as certificates of authorities in PEM."""
    try:
        ssl.create_default_context(cafile=path)
    except (OSError, ValueError):
        return False
    return True


def is_world_readable(path: Path) -> bool:
    """Whether every user of the machine may read the file; False when it cannot be told."""
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError):
        return False
    return stat.S_ISREG(mode) and bool(mode & stat.S_IROTH)
