from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest

from patrolserver_exporter.commands import documents
from patrolserver_exporter.commands.documents import Misfit


def test_a_member_that_comes_twice_is_no_document() -> None:
    """Which of the two is true, nobody knows; the same value twice is harmless."""
    assert documents.decode(b'{"a": 1, "a": 1}') == {"a": 1}
    with pytest.raises(ValueError, match="twice"):
        documents.decode(b'{"verdict": "fail", "verdict": "pass"}')


@dataclass(frozen=True)
class Inner:
    """Within another."""

    name: str


@dataclass(frozen=True)
class Outer:
    """One of everything."""

    count: int
    share: float
    fine: bool = field(metadata={"name": "is"})
    inner: Inner | None = None
    names: tuple[str, ...] = ()
    inners: tuple[Inner, ...] = ()


WHOLE: dict[str, Any] = {
    "count": 1,
    "share": 2,
    "is": True,
    "inner": {"name": "a"},
    "names": ["b"],
    "inners": [{"name": "c"}],
}


def test_a_document_becomes_its_dataclass() -> None:
    """With members by their names in JSON, lists as tuples, and what nobody knows left out."""
    expected = Outer(1, 2.0, fine=True, inner=Inner("a"), names=("b",), inners=(Inner("c"),))
    assert documents.read(Outer, WHOLE | {"more": 1}) == expected
    assert documents.read(Outer, {"count": 1, "share": 0.5, "is": False, "inner": None}) == Outer(1, 0.5, fine=False)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"count": True}, r"\$.count is no int"),
        ({"count": 1.0}, r"\$.count is no int"),
        ({"count": None}, r"\$.count is no int"),
        ({"share": "1"}, r"\$.share is no float"),
        ({"share": False}, r"\$.share is no float"),
        ({"share": 10**400}, r"\$.share is too large"),
        ({"share": float("inf")}, r"\$.share is too large"),
        ({"is": 1}, r"\$.is is no bool"),
        ({"inner": []}, r"\$.inner is no object"),
        ({"inner": {}}, r"\$.inner has no name"),
        ({"names": "b"}, r"\$.names is no list"),
        ({"names": None}, r"\$.names is no list"),
        ({"names": ["b", None]}, r"\$.names\[1\] is no str"),
        ({"inners": [{"name": 1}]}, r"\$.inners\[0\].name is no str"),
    ],
)
def test_what_does_not_fit_is_told_with_its_place(wrong: dict[str, Any], said: str) -> None:
    """Nothing is taken for something else, as a number for a truth."""
    with pytest.raises(Misfit, match=f"^{said}$"):
        documents.read(Outer, WHOLE | wrong)


@pytest.mark.parametrize(
    "raw", [b"", b"{", b"NaN", b'{"a": Infinity}', b'"\\ud800"', b'"\xff"', b'"\xed\xa0\x80"', b"[" * 100_000]
)
def test_what_is_no_json_is_refused(raw: bytes) -> None:
    """Nor are half a character and a number that is none, which Python alone would take."""
    with pytest.raises(ValueError):  # noqa: PT011  # There are many reasons, which nobody is told.
        documents.decode(raw)


def test_json_is_decoded() -> None:
    """Whole characters beyond ASCII, too, however they are written."""
    assert documents.decode('["\N{GRINNING FACE}", "\\ud83d\\ude00", 1, null]'.encode()) == ["\U0001f600"] * 2 + [
        1,
        None,
    ]
