from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from patrolserver_exporter.patrolserver.transport import read_retry_after

NOW = 1_763_942_400.0  # Mon, 24 Nov 2025 00:00:00 GMT


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("120", 120.0),
        (" 1.5 ", 1.5),
        ("0", 0.0),
        ("-5", 0.0),
        ("99999999999", 1e9),
        ("9" * 5_000, 1e9),
        ("Mon, 24 Nov 2025 00:02:00 GMT", 120.0),
        ("Mon, 24 Nov 2025 01:02:00 +0100", 120.0),
        ("Monday, 24-Nov-25 00:02:00 GMT", 120.0),
        ("Mon, 24 Nov 2025 00:02:00 -0000", 120.0),
        ("Mon, 24 Nov 2014 00:00:00 GMT", 0.0),
        ("Mon, 24 Nov 2025 09:00:00 GMT", 32_400.0),
        ("soon", None),
        ("nan", None),
        ("inf", None),
        ("1e3", None),
        ("", None),
        ("٣", None),
        ("Mon, 99 Nov 2025 00:00:00 GMT", None),
        (None, None),
    ],
)
def test_every_form_of_the_header(value: str | None, seconds: float | None) -> None:
    """Seconds and dates are read, however long: to cap them is the caller's; what means nothing is None."""
    assert read_retry_after(value, NOW) == seconds


@given(value=st.text())
def test_garbage_does_no_harm(value: str) -> None:
    """Any text is None or a wait within bounds."""
    seconds = read_retry_after(value, NOW)
    assert seconds is None or 0.0 <= seconds <= 1e9
