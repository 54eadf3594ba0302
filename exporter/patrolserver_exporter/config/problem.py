"""What is wrong with a configuration, and where.

ConfigError      everything that is wrong with one configuration, each with its place
└── Problem…     (data, no exception) one wrong thing: file, line, column, key, message
Unfit            one value does not fit; raised by the parsers of single values, placed and collected by the readers

No message quotes a value that could be a secret.
"""

from __future__ import annotations

from dataclasses import dataclass


class Unfit(ValueError):
    """A value does not fit its key. The message says what fits and does not repeat the value."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong. Lines and columns count from 1; ``key`` is a path such as ``accounts[0].key``."""

    file: str
    line: int | None
    column: int | None
    key: str
    message: str

    def __str__(self) -> str:
        place = self.file
        if self.line is not None:
            place += f":{self.line}"
            # Without a key, the column is all that leads to the spot.
            if self.column is not None and not self.key:
                place += f":{self.column}"
        return f"{place}: {self.key}: {self.message}" if self.key else f"{place}: {self.message}"


class ConfigError(Exception):
    """A configuration cannot be used. Its text has one line for each problem, in the order of the file."""

    def __init__(self, errors: tuple[Problem, ...]) -> None:
        super().__init__(errors)
        self.errors = tuple(sorted(errors, key=lambda problem: (problem.line or 0, problem.column or 0)))

    def __str__(self) -> str:
        return "\n".join(str(problem) for problem in self.errors)
