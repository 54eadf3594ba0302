from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import msgspec
import pytest

from patrolserver_exporter.config.nodes import parse_nodes
from patrolserver_exporter.config.reading import Reading, default_of
from patrolserver_exporter.issues.model import Severity

Seconds = Annotated[float, msgspec.Meta(ge=60, extra={"kind": "duration"})]


class Part(msgspec.Struct, frozen=True, kw_only=True):
    """A struct that knows nothing of the configuration."""

    number: Annotated[int, msgspec.Meta(ge=0, le=9)] | None = None
    waits: Mapping[Severity, Seconds] = {}
    flags: tuple[bool, ...] = ()


class Whole(msgspec.Struct, frozen=True, kw_only=True):
    """A struct of structs."""

    parts: Mapping[str, Part]
    part: Part = Part()


def read(text: str) -> tuple[Any, list[str]]:
    """Return the struct and what is wrong with the text."""
    reading = Reading(file="f")
    value = reading.read(msgspec.inspect.type_info(Whole), parse_nodes(text.encode(), "f"), "")
    return value, [str(problem) for problem in reading.mistakes]


def test_any_struct_is_read_by_its_fields() -> None:
    """Keys, types, bounds and defaults are those of the struct; keys of a mapping are typed, too."""
    whole, problems = read("parts: { a: { number: 9, waits: { high: 7d }, flags: [true] }, b: }")
    assert problems == []
    assert whole == Whole(parts={"a": Part(number=9, waits={Severity.HIGH: 604_800.0}, flags=(True,)), "b": Part()})


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("{}", "f:1: parts: is missing; add it"),
        ("parts: []", "f:1: parts: needs keys and values, not a list"),
        ("parts: { a: 1 }", "f:1: parts.a: needs keys and values, not a single value"),
        ("parts:\n  a: { number: 10 }", "f:2: parts.a.number: needs a whole number from 0 to 9"),
        ("parts:\n  a:\n    waits: { severe: 1d }", "f:3: parts.a.waits.severe: needs one of critical, high"),
        ("parts:\n  a:\n    waits: { low: 59s }", "f:3: parts.a.waits.low: needs at least 1m (is '59s')"),
        ("parts: { a: { flags: [yes] } }", "f:1: parts.a.flags[0]: needs one of true, false (is 'yes')"),
        ("parts: {}\npart: { a: 1 }", "f:2: part.a: is unknown; known here: number, waits, flags"),
    ],
)
def test_what_does_not_fit_a_struct(text: str, problem: str) -> None:
    """A mistake is told with line, key and what to write, whatever the struct."""
    value, problems = read(text)
    assert [line.startswith(problem) for line in problems] == [True]
    assert not isinstance(value, Whole)


def test_the_default_of_a_field_is_the_default_of_its_key() -> None:
    """A field without a default is a key that has to be given."""
    part = msgspec.inspect.type_info(Part)
    assert isinstance(part, msgspec.inspect.StructType)
    defaults = {field.name: default_of(field) for field in part.fields}
    assert (defaults["number"], defaults["flags"]) == (None, ())
