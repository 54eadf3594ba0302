from __future__ import annotations

import pytest

from patrolserver_exporter.gate.telling import spoken
from patrolserver_exporter.gate.verdict import Worst


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0.0, "0 s"),
        (0.5, "0 s"),
        (1, "1 s"),
        (59.9, "59 s"),
        (61, "1 min 1 s"),
        (3_600, "1 h"),
        (3_661, "1 h 1 min"),
        (7_200, "2 h"),
        (86_399, "23 h 59 min"),
        (86_401, "1 d 1 s"),
        (90_061, "1 d 1 h"),
        (10**12 - 1, "11574074 d 1 h"),
        (10**12, "1000000000000 s"),
        (-1, "-1 s"),
    ],
)
def test_a_duration_is_told_in_its_two_largest_units(seconds: float, said: str) -> None:
    """Without fractions; what no duration of ours can be is told as it is."""
    assert spoken(seconds) == said


def test_not_a_number_is_told_as_it_is() -> None:
    """A clock's nonsense must not end an answer of the gate."""
    assert spoken(float("nan")) == "nan s"


def test_of_many_no_more_than_twice_the_wanted_are_kept() -> None:
    """And they are sorted out only when there are more than that, since each time costs."""
    worst: Worst[int] = Worst()
    for place in range(6):
        worst.add((-place,), place, place)
    worst.keep(3)
    assert len(worst.entries()) == 6
    worst.add((-6,), 6, 6)
    worst.keep(3)
    assert [one for _, _, one in worst.entries()] == [6, 5, 4]
    assert worst.count == 7
