"""What is wrong with a configuration, and where. No message quotes a value that could be a secret."""

from __future__ import annotations

import re
from dataclasses import dataclass


class Unfit(ValueError):
    """A value does not fit. The message says what fits and does not repeat the value; the reader adds the place."""


@dataclass(frozen=True)
class Mistake:
    """One thing that is wrong. Lines and columns count from 1; ``key`` is a path such as ``accounts[0].key``."""

    file: str
    line: int | None
    column: int | None
    key: str
    message: str

    def __str__(self) -> str:
        # Without a key, the column is all that leads to the spot.
        place = (self.file, self.line, None if self.key else self.column)
        place_text = ":".join(str(part) for part in place if part is not None)
        return ": ".join(part for part in (place_text, self.key, self.message) if part)


class ConfigError(Exception):
    """A configuration cannot be used. Its text has one line for each mistake, in the order of each file."""

    def __init__(self, errors: tuple[Mistake, ...]) -> None:
        super().__init__(errors)
        files = list(dict.fromkeys(mistake.file for mistake in errors))
        self.errors = tuple(sorted(errors, key=lambda one: (files.index(one.file), one.line or 0, one.column or 0)))

    def __str__(self) -> str:
        return "\n".join(str(mistake) for mistake in self.errors)


_UNREPLACED = re.compile(r"\$\{[A-Za-z_]\w*\}|\A\$[A-Z_][A-Z0-9_]*\Z", re.ASCII)


def refuse_variables(text: str) -> None:
    """`Unfit` for a value with a variable's name in it, as other programs replace it; nothing here does."""
    if _UNREPLACED.search(text):
        raise Unfit("holds a variable like ${NAME}, which nothing replaces; write the value itself, or use !env NAME")
