from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from patrolserver_exporter.globs import any_matches, matches


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
