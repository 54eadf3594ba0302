from __future__ import annotations

import sqlite3
from contextlib import closing

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from patrolserver_exporter.globs import LIKE_ESCAPE, any_matches, like, literally, matches, sure_part


@pytest.mark.parametrize(
    ("glob", "name", "chosen"),
    [
        ("*", "web1.example.org", True),
        ("web?.example.org", "web1.example.org", True),
        ("web[12].example.org", "web1.example.org", True),
        ("web[!12].example.org", "web1.example.org", False),
        ("WEB1.*", "web1.example.org", True),
        ("web1", "web1.example.org", False),
        ("[2001:db8::1]", "[2001:db8::1]", True),
        ("[2001:DB8::1]", "[2001:db8::1]", True),
        ("lib[foo]", "lib[foo]", True),
        ("lib[foo]", "libf", True),
        ("lib[foo]", "lib[fo]", False),
    ],
)
def test_what_a_glob_chooses(glob: str, name: str, chosen: bool) -> None:  # noqa: FBT001  # a column of the table
    """A glob chooses as in a shell, whatever the capitals, and a literal name is chosen by itself."""
    assert matches(glob, name) == chosen
    assert any_matches(["nothing", glob], name) == chosen


@given(st.text(alphabet="ab[]!*?-:.Aé\n", max_size=8))
def test_a_name_chooses_itself(name: str) -> None:
    """Whatever is in a name, as a glob it chooses the name, and its capitals."""
    assert matches(name, name)
    assert matches(name.upper(), name) or name.upper().lower() != name.lower()


_NAMES = st.text(st.sampled_from("aAkKsSiIzZ\u212a\u017f\u0130\u0131éÉßµ[]%_|\\-.!09"), max_size=6)
_GLOBS = st.text(st.sampled_from("aAkKsSiI\u212a\u017f\u0130éÉß[]!%_|\\-.09*?*?"), max_size=6)


@given(st.tuples(_GLOBS, _NAMES) | _NAMES.map(lambda name: (name, name)))
def test_what_a_glob_chooses_the_database_finds(pair: tuple[str, str]) -> None:
    """Its pattern may choose more, and never less: one that is not found would pass for one that is not there."""
    glob, name = pair
    if not matches(glob, name):
        return
    with closing(sqlite3.connect(":memory:")) as database:
        (found,) = database.execute("SELECT ? LIKE ? ESCAPE ?", (name, like(glob), LIKE_ESCAPE)).fetchone()
    assert found


@given(st.tuples(_GLOBS, _NAMES) | _NAMES.map(lambda name: (name, name)))
def test_what_a_glob_is_sure_of_stands_in_the_json_of_what_it_chooses(pair: tuple[str, str]) -> None:
    """Where that part is missing nobody has to read the document."""
    glob, name = pair
    if matches(glob, name):
        assert sure_part(glob) in msgspec.json.encode(name).lower()


@pytest.mark.parametrize(
    ("glob", "part"), [("CVE-2099-*", b"cve-2099-"), ("*0001", b"0001"), ("a[12]bcd", b"a"), ("sik", b""), ("*", b"")]
)
def test_a_glob_is_sure_of_its_longest_part(glob: str, part: bytes) -> None:
    """Without what may be another letter or be written otherwise."""
    assert sure_part(glob) == part


@pytest.mark.parametrize(
    ("glob", "pattern"),
    [("web-*", "web-%"), ("WEB?.x", "web_.x"), ("a[12]b", "a%"), ("50%_|", "50|%|_||"), ("kiss", "____"), ("é", "_")],
)
def test_a_pattern_says_no_more_than_it_may(glob: str, pattern: str) -> None:
    """Letters that have others like them stand for any, and what stands behind a bracket is left to us."""
    assert like(glob) == pattern


@pytest.mark.parametrize("name", ["web-01", "X", "*", "a?b", "[2001:db8::1]", "lib[foo]", "]", ""])
def test_a_name_can_be_meant_literally(name: str) -> None:
    """The glob made of it chooses the name, and nothing that its letters would mean in a glob."""
    glob = literally(name)
    assert matches(glob, name)
    assert not matches(glob, f"{name}x")
    assert not any(matches(glob, other) for other in ("axb", "2", "libf", "y"))
    assert (glob == name) is set("*?[").isdisjoint(name)
