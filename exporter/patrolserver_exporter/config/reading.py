"""One run over one configuration: what was found, and what is wrong."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from patrolserver_exporter.config.problem import Problem, Unfit
from patrolserver_exporter.config.source import Environment, File, Literal, Source

if TYPE_CHECKING:
    from collections.abc import Mapping

    from patrolserver_exporter.config.nodes import Node, Place, Scalar
    from patrolserver_exporter.config.secret import Secret

CREDENTIALS_PREFIX = "${CREDENTIALS_DIRECTORY}/"


class _Mark:
    """What stands where there is no value."""


WRONG: Final = _Mark()
"""The value did not fit, which is noted."""
REQUIRED: Final = _Mark()
"""The key has no default."""


@dataclass(frozen=True, slots=True)
class FoundSecret:
    """A secret with its place, for the rules on who can read it and whether it is used twice."""

    secret: Secret
    file: str
    place: Place
    key: str

    def problem(self, message: str) -> Problem:
        """Say something about it."""
        return Problem(self.file, self.place.line, self.place.column, self.key, message)


@dataclass(slots=True, kw_only=True)
class Reading:
    """One run over one configuration: where it is, and what was found wrong."""

    file: str
    folder: Path = field(default_factory=Path)
    environ: Mapping[str, str] | None = None
    """None: the text comes from elsewhere, and tags, which could read our files, are refused."""
    problems: list[Problem] = field(default_factory=list)
    secrets: list[FoundSecret] = field(default_factory=list)
    found: dict[str, tuple[Node, Any]] = field(default_factory=dict)
    """Node and value of every key and item that was read, for the rules that look at several of them."""

    def wrong(self, node: Node | None, path: str, message: str) -> _Mark:
        """Note what is wrong with the node."""
        line, column = (node.place.line, node.place.column) if node else (None, None)
        self.problems.append(Problem(self.file, line, column, path, message))
        return WRONG

    def source(self, scalar: Scalar) -> Source:
        """Return where the scalar's text comes from; raises `Unfit`."""
        if not scalar.tag:
            return Literal(scalar.text)
        if self.environ is None:
            raise Unfit("may not use !env or !file here; write the value itself")
        if not scalar.text.strip() or "\0" in scalar.text:
            raise Unfit(f"needs a {'variable' if scalar.tag == '!env' else 'path'} after {scalar.tag}")
        if scalar.tag == "!env":
            return Environment(scalar.text, self.environ)
        return File(self._path(scalar.text))

    def _path(self, text: str) -> Path:
        if text.startswith(CREDENTIALS_PREFIX):
            folder = (self.environ or {}).get("CREDENTIALS_DIRECTORY")
            if not folder:
                raise Unfit("needs $CREDENTIALS_DIRECTORY, which systemd sets for a unit with LoadCredential=")
            return Path(folder) / text.removeprefix(CREDENTIALS_PREFIX)
        return self.folder / text
