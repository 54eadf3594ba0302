from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from patrolserver_exporter.simulator.fleet import assessed, server_name, software_of
from patrolserver_exporter.simulator.software import Kind, trouble


def test_the_same_seed_gives_the_same_software() -> None:
    """A fleet is drawn from its seed and nothing else."""
    assert [software_of(7, index, 12) for index in range(50)] == [software_of(7, index, 12) for index in range(50)]
    assert software_of(7, 3, 12) != software_of(8, 3, 12)


def test_names_differ_and_look_like_servers() -> None:
    """All names of a large fleet differ; some are of staging and of the lab."""
    names = [server_name(index) for index in range(10_000)]
    assert len(set(names)) == 10_000
    assert names[:3] == ["web-01.example.org", "web-02.example.org", "db-01.example.org"]
    assert {name.partition(".")[2] for name in names} == {"example.org", "staging.example.org", "lab.example.org"}


@given(index=st.integers(0, 10**6), amount=st.integers(0, 120))
def test_a_server_has_as_much_software_as_asked_for(index: int, amount: int) -> None:
    """Exactly that much, no two with the same name and place, and every plugin with its parent in the same place."""
    found = software_of(1, index, amount)
    places = {one.identity for one in found}
    assert len(found) == len(places) == amount
    assert all((one.parent, one.location) in places for one in found if one.parent is not None)


def test_a_fleet_has_every_trouble() -> None:
    """Outdated, unsupported, exploitable, unknown, not detected and candidates: all are there, and most is fine."""
    found = [one for index in range(300) for one in software_of(1, index, 12)]
    assert {trouble(one) for one in found} == {None, Kind.OUTDATED, Kind.UNSUPPORTED, Kind.EXPLOITABLE}
    assert any(one.supported is None and one.version for one in found)
    assert any(one.version is None and not one.candidates for one in found)
    assert any(one.candidates for one in found)
    assert any(one.parent for one in found)
    assert sum(one.supported is True for one in found) > len(found) / 2


def test_the_demo_fleet_shows_every_trouble() -> None:
    """Who tries the simulator without flags sees outdated, unsupported and exploitable software."""
    found = {trouble(one) for index in range(25) for one in software_of(1, index, 12)}
    assert {Kind.OUTDATED, Kind.UNSUPPORTED, Kind.EXPLOITABLE} <= found


@pytest.mark.parametrize(
    ("name", "version", "verdict"),
    [
        ("php", "8.3.14", (True, None)),
        ("php", "9.0", (True, None)),
        ("php", "8.3.2-1~deb12u1", (False, "8.3.14")),
        ("php", "1:8.3.2", (False, "8.3.14")),
        ("php", "5.2.17", (False, None)),
        ("wordpress/akismet", "5.3.1", (False, "5.3.5")),
        ("nobody/knows", "0.1", (True, None)),
        ("php", "unstable", (False, None)),
    ],
)
def test_pushed_software_is_assessed(name: str, version: str, verdict: tuple[bool, str | None]) -> None:
    """The newest and later is fine, older in the same line is outdated, an older line has ended."""
    assert assessed(name, version) == verdict
