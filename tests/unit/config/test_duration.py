from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from patrolserver_exporter.config.duration import format_duration, parse_duration

LONGEST_MS = 100 * 365 * 86_400_000


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0", 0),
        ("0s", 0),
        ("500ms", 0.5),
        ("15m", 900),
        ("1h30m", 5400),
        ("90d", 7_776_000),
        ("1y2w3d4h5m6s7ms", 33_019_506.007),
    ],
)
def test_parse(text: str, seconds: float) -> None:
    """Durations are read as Prometheus reads them."""
    assert parse_duration(text) == pytest.approx(seconds, abs=1e-9)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("15", "a plain number has none"),
        ("1.5", "a plain number has none"),
        ("", "whole numbers, the largest unit first"),
        ("1.5h", "whole numbers, the largest unit first"),
        ("30m1h", "whole numbers, the largest unit first"),
        ("1h1h", "whole numbers, the largest unit first"),
        ("-5m", "whole numbers, the largest unit first"),
        ("5 m", "whole numbers, the largest unit first"),
        ("5M", "whole numbers, the largest unit first"),
        ("٥m", "whole numbers, the largest unit first"),
        ("5m\n", "whole numbers, the largest unit first"),
        ("101y", "at most 100y"),
        ("9" * 5000 + "d", "whole numbers, the largest unit first"),
    ],
)
def test_refused(text: str, message: str) -> None:
    """What is no duration is refused with what to write."""
    with pytest.raises(ValueError, match=message):
        parse_duration(text)


@given(st.integers(0, LONGEST_MS))
def test_round_trip(milliseconds: int) -> None:
    """What is written reads as the same duration."""
    seconds = milliseconds / 1000
    assert parse_duration(format_duration(seconds)) == seconds


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0s"), (-1, "0s"), (900, "15m"), (5400.25, "1h30m250ms"), (7_776_000, "90d")]
)
def test_format(seconds: float, text: str) -> None:
    """Durations are written with the largest units first."""
    assert format_duration(seconds) == text
